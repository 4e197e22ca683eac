"""What Hugging Face's datasets saves on disk, as a data source for every task that reads images.

``zooft[hf-datasets]``.
"""

from __future__ import annotations

import zooft
from zooft_hf_datasets import byte_range, features, folder, rows


@zooft.hookimpl
def zooft_register_sources() -> list[zooft.Source]:
    """One form of data."""
    return [
        zooft.Source(
            name="hf-datasets",
            summary="a folder that datasets' save_to_disk wrote, with images and labels",
            recognises=folder.recognises,
            columns=features.columns,
            rows=rows.rows,
            content=byte_range.content,
        )
    ]
