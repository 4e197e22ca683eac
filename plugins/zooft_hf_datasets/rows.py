"""Rows of Arrow files: the columns that a task needs, and where each image is.

The files are mapped, never loaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zooft
from zooft_hf_datasets.byte_range import ByteRange, Elsewhere, File, stamp
from zooft_hf_datasets.features import image_column
from zooft_hf_datasets.folder import Part, parts

if TYPE_CHECKING:
    import pyarrow as pa

_END = b"\xff\xff\xff\xff\0\0\0\0"
"""Arrow's columnar format, IPC streaming format: the end-of-stream marker."""


def rows(path: Path, columns: Sequence[str]) -> Iterator[zooft.Row | zooft.Rejection]:
    """Every row, called SPLIT/NUMBER, or row/NUMBER where there are no splits, from 0 as datasets counts.

    Raises:
        DataError: pyarrow isn't installed, or a split lacks a column that others have.
    """
    for part in parts(path):
        missing = [name for name in columns if name not in part.features]
        if missing:
            raise zooft.DataError(
                f"{path}: the split {part.name} has no column {missing[0]!r}, which others have; its columns are "
                f"{', '.join(part.features)}"
            )
        number = 0
        for file in part.files:
            number = yield from _of_file(_Reader(part, file, columns), number)


@dataclass(frozen=True, slots=True)
class _Reader:
    """One file of a split, and the columns to read."""

    part: Part
    path: Path
    columns: Sequence[str]


def _of_file(reader: _Reader, number: int) -> Generator[zooft.Row | zooft.Rejection, None, int]:
    """The rows of a file, the first of which has the number; gives that of the next file's first row."""
    try:
        import pyarrow as pa
    except ImportError:
        raise zooft.DataError("data sets saved by datasets need pyarrow: pip install 'zooft[hf-datasets]'") from None
    name = _name(reader)
    try:
        file = stamp(reader.path)
        mapped = pa.memory_map(str(reader.path)).read_buffer()
        for batch in pa.ipc.open_stream(pa.BufferReader(mapped)):
            yield from _of_batch(reader, batch, number, _Mapped(file, mapped.address))
            number += batch.num_rows
    except zooft.DataError as error:
        yield zooft.Rejection(name, str(error))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().partition("\n")[0]
        yield zooft.Rejection(
            name, f"the Arrow file is damaged, or was cut off: no row from {number} on can be read ({reason})"
        )
    else:
        if mapped[max(len(_END), mapped.size) - len(_END) :].to_pybytes() != _END:
            yield zooft.Rejection(name, f"the Arrow file has no end mark: it may have been cut off before row {number}")
    return number


@dataclass(frozen=True, slots=True)
class _Mapped:
    """A file, and where in memory it is mapped."""

    file: File
    address: int


def _of_batch(
    reader: _Reader, batch: pa.RecordBatch, number: int, mapped: _Mapped
) -> Iterator[zooft.Row | zooft.Rejection]:
    import pyarrow as pa

    image = image_column(reader.part)
    missing = [key for key in (image, *reader.columns) if key not in batch.schema.names]
    if missing:
        raise zooft.DataError(f"the Arrow file has no column {missing[0]!r}, which the description beside it names")
    images = batch.column(image)
    values = batch.select(list(reader.columns))
    for column in (images, *values.columns):
        column.validate(full=True)  # offsets that lead out of the file would be followed
    content, paths = (
        (images.field("bytes"), images.field("path"))
        if pa.types.is_struct(images.type)
        else (images, pa.nulls(len(images)))
    )
    stretches = _stretches(content, mapped)
    for index, value in enumerate(values.to_pylist()):
        name, place = f"{reader.part.name}/{number + index}", None
        if images[index].is_valid:
            text = paths[index].as_py()
            place = stretches[index] or (Elsewhere(str(reader.path.parent), text) if text else None)
        if place is None:
            yield zooft.Rejection(name, "no image: the cell is empty")
        else:
            yield zooft.Row(id=name, content=place, values=value, split=reader.part.split)


def _stretches(content: pa.Array, mapped: _Mapped) -> list[ByteRange | None]:
    """Where each image's file is, by its offsets; None where there is none.

    Raises:
        DataError: the file is compressed, so that images have no place in it.
    """
    import pyarrow as pa

    _, offsets, values = content.buffers()
    if not len(content) or values is None or not values.size:
        return [None] * len(content)
    kind = pa.int64() if pa.types.is_large_binary(content.type) else pa.int32()
    ends = pa.Array.from_buffers(kind, len(content) + 1, [None, offsets], offset=content.offset).to_pylist()
    first = values.address - mapped.address
    if not (first + ends[0] >= 0 and first + ends[-1] <= mapped.file.size):
        raise zooft.DataError("the Arrow file is compressed; save the data again with datasets' save_to_disk")
    return [
        ByteRange(mapped.file, first + start, end - start) if end > start else None
        for start, end in itertools.pairwise(ends)
    ]


def _name(reader: _Reader) -> str:
    return reader.path.name if reader.part.split is None else f"{reader.part.name}/{reader.path.name}"
