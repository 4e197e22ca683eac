"""Rows of Parquet files: the columns that a task needs, and where each image is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import zooft
from zooft_parquet.files import Found, find
from zooft_parquet.schema import first_line, open_file
from zooft_parquet.unpacking import Cell

_AT_ONCE = 1024
"""Rows whose columns are in memory; the images aren't among them."""


def rows(path: Path, columns: Sequence[str]) -> Iterator[zooft.Row | zooft.Rejection]:
    """Every row, called FILE/NUMBER from 0, as pandas and datasets count.

    Raises:
        DataError: a file lacks a column that others have.
    """
    for found in find(path):
        try:
            open_file(found.file)
        except zooft.DataError as error:
            yield zooft.Rejection(found.name, str(error))
            continue
        yield from _rows(found, columns)


def _rows(found: Found, columns: Sequence[str]) -> Iterator[zooft.Row | zooft.Rejection]:
    import pyarrow as pa

    parquet = open_file(found.file)
    having = parquet.schema_arrow.names
    missing = [name for name in columns if name not in having]
    if missing:
        raise zooft.DataError(
            f"{found.name} has no column {missing[0]!r}, which other files have; its columns are {', '.join(having)}"
        )
    first = 0
    for group in range(parquet.num_row_groups):
        number, end = first, first + parquet.metadata.row_group(group).num_rows
        try:
            for batch in parquet.iter_batches(_AT_ONCE, row_groups=[group], columns=list(columns), use_threads=False):
                for values in batch.to_pylist():
                    cell = Cell(found.file, number)
                    yield zooft.Row(id=f"{found.name}/{number}", content=cell, values=values, split=found.split)
                    number += 1
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = f"the Parquet file is damaged: rows {number} to {end - 1} can't be read ({first_line(error)})"
            yield zooft.Rejection(f"{found.name}/{number}", reason)
        first = end
