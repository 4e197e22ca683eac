"""Parquet files whose rows hold images, as a data source for every task that reads images: ``zooft[parquet]``."""

from __future__ import annotations

import zooft
from zooft_parquet import files, rows, schema, unpacking


@zooft.hookimpl
def zooft_register_sources() -> list[zooft.Source]:
    """One form of data."""
    return [
        zooft.Source(
            name="parquet",
            summary="a Parquet file, or a folder of them, with images and labels in columns",
            recognises=files.recognises,
            columns=schema.columns,
            rows=rows.rows,
            content=unpacking.content,
        )
    ]
