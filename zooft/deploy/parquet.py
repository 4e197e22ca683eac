"""The answers of ``zooft predict`` as a Parquet file, by pyarrow, which is imported where it is used.

Owns the columns' types: the same columns as CSV has, numbers as numbers, and null where there is nothing.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from zooft.deploy import formats
from zooft.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from zooft.deploy.formats import Layout
    from zooft.deploy.predict import Answer

KEY = b"zooft_predict"
"""Of the file's metadata: what holds of all answers, as JSON has it."""
_ROWS = 10_000
"""Of a group of rows; as many answers are in memory at a time."""


def refuse_without_pyarrow() -> None:
    """Raise ConfigError where pyarrow isn't installed, before anything is computed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            "--format parquet needs pyarrow, which isn't installed; pip install 'zooft[parquet]', or write .csv or "
            ".jsonl"
        )


def write(file: BinaryIO, layout: Layout, answers: Callable[[], Iterable[Answer]]) -> None:
    """All answers, in their order.

    Args:
        file: opened for writing bytes.
        layout: of all.
        answers: gives them; called twice, as types must be known before the first row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = formats.columns(layout)
    schema = pa.schema(
        [pa.field(name, kind) for name, kind in zip(names, _types(layout, answers()), strict=True)],
        metadata={KEY: json.dumps(layout.about, ensure_ascii=True).encode()},
    )
    left = iter(answers())
    with pq.ParquetWriter(file, schema) as writer:
        while rows := list(islice(left, _ROWS)):
            columns = zip(*(_cells(layout, answer) for answer in rows), strict=True)
            arrays = [
                pa.array([_as(field.type, cell) for cell in column], type=field.type)
                for field, column in zip(schema, columns, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def is_result(path: Path) -> bool:
    """Whether a file is what `write` writes."""
    if importlib.util.find_spec("pyarrow") is None:
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return KEY in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _cells(layout: Layout, answer: Answer) -> Iterator[Any]:
    """As plain values; nothing for a blank."""
    for cell in formats.cells(layout, answer):
        value = cell.item() if hasattr(cell, "item") else cell
        yield None if value in ("", None) else value


def _types(layout: Layout, answers: Iterable[Answer]) -> list[pa.DataType]:
    """The narrowest type that takes all cells of each column."""
    import pyarrow as pa

    kinds: list[set[type]] = [set() for _ in formats.columns(layout)]
    for answer in answers:
        for found, cell in zip(kinds, _cells(layout, answer), strict=True):
            if cell is not None:
                found.add(type(cell))
    return [
        pa.bool_()
        if found == {bool}
        else pa.int64()
        if found == {int}
        else pa.float64()
        if found and found <= {int, float}
        else pa.string()
        for found in kinds
    ]


def _as(kind: pa.DataType, cell: Any) -> Any:
    import pyarrow as pa

    if cell is None or not pa.types.is_string(kind):
        return cell
    return str(cell).encode(errors="backslashreplace").decode()  # names of files needn't be UTF-8
