"""The images of a Parquet file, unpacked once, so that each can be read by itself.

A column is compressed in pages, and an image in it can't be reached without unpacking what lies before. Images are
compressed already, so that they take the same room in a temporary file; that has no name, and ends with the process.
"""

from __future__ import annotations

import functools
import mmap
import tempfile
import threading
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import zooft
from zooft_parquet.files import File
from zooft_parquet.schema import first_line, image_column, leaves, open_file

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE = 16
"""Rows that are decoded together; with the page that they lie in, all that is in memory."""
_FILES = 256
"""Temporary files that are open at a time: systems allow a process a thousand."""
_ALONE = threading.Lock()
"""One thread unpacks, and those that want the same file wait for it."""
_NOTHING, _BYTES, _PATH, _DAMAGED = range(4)
_Content = tuple[int, bytes]
"""What a row is, and what it holds: an image's file, its path, or why there is none."""


@dataclass(frozen=True, slots=True)
class Cell:
    """An image's place: a row of a file, from 0."""

    file: File
    row: int


@dataclass(frozen=True, slots=True)
class _Unpacked:
    """Contents one behind the other, where each ends, and what each is."""

    content: mmap.mmap | bytes
    ends: array[int]
    kinds: array[int]

    def get(self, row: int) -> tuple[int, bytes]:
        """What a row is, and its content; threads and forked processes may ask at once."""
        return self.kinds[row], self.content[self.ends[row - 1] if row else 0 : self.ends[row]]


def content(cell: Cell) -> bytes:
    """The bytes of an image's file.

    Raises:
        DataError: there is none, or it can't be read; the message is the reason alone.
    """
    with _ALONE:
        unpacked = unpack(cell.file)
    kind, found = unpacked.get(cell.row)
    if kind == _BYTES:
        return found
    if kind == _PATH:
        return _of_path(Path(cell.file.path).parent, found.decode())
    raise zooft.DataError("no image: the cell is empty" if kind == _NOTHING else found.decode())


# of the process and not of a reader: a row's reference goes to loader processes, which inherit this or unpack anew
@functools.lru_cache(maxsize=_FILES)
def unpack(file: File) -> _Unpacked:
    """All images of a file, as far as it is sound.

    Raises:
        DataError: not a Parquet file, it has changed, or the temporary folder can't take its images.
    """
    name = Path(file.path).name
    try:
        about = Path(file.path).stat()
    except OSError as error:
        raise zooft.DataError(f"{name} can't be read: {error.strerror}") from error
    if (about.st_size, about.st_mtime_ns) != (file.size, file.changed):
        raise zooft.DataError(f"{name} has changed since the data was listed; start again to list it anew")
    try:
        return _write(_contents(file))
    except OSError as error:
        raise zooft.DataError(
            f"the images of {name} don't fit into the system's temporary folder: {error.strerror}; make room there, "
            "or name another folder in TMPDIR"
        ) from error


def _write(contents: Iterable[_Content]) -> _Unpacked:
    ends, kinds, end = array("Q"), array("b"), 0
    file = tempfile.TemporaryFile(prefix="zooft-")  # noqa: SIM115 -- closed below
    try:
        for kind, found in contents:
            end += file.write(found)
            ends.append(end)
            kinds.append(kind)
        file.flush()
        return _Unpacked(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if end else b"", ends, kinds)
    finally:
        with suppress(OSError):  # a full disk refuses what is still to be written once more
            file.close()


def _contents(file: File) -> Iterator[_Content]:
    """What each row holds; where a row group is damaged, the rest of it is, and the next one is read again."""
    import pyarrow as pa

    parquet = open_file(file)
    column = leaves(parquet.schema_arrow, image_column(parquet.schema_arrow, Path(file.path).name))
    for group in range(parquet.num_row_groups):
        left = parquet.metadata.row_group(group).num_rows
        batches = parquet.iter_batches(AT_ONCE, row_groups=[group], columns=column, use_threads=False)
        while left:
            try:
                batch = next(batches)
            except (pa.ArrowException, OSError, StopIteration) as error:
                damage = f"the Parquet file is damaged: {first_line(error) or 'rows are missing'}".encode()
                yield from repeat((_DAMAGED, damage), left)
                break
            left -= batch.num_rows
            yield from _of_batch(batch.column(0))


def _of_batch(images: pa.Array) -> Iterator[_Content]:
    for scalar in images:
        try:
            value = scalar.as_py()
        except UnicodeDecodeError:
            yield _DAMAGED, b"its path isn't a text in UTF-8"
            continue
        if isinstance(value, dict):
            value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
        if value is None or not len(value):
            yield _NOTHING, b""
        elif isinstance(value, str):
            yield _PATH, value.encode()
        else:
            yield _BYTES, value


def _of_path(folder: Path, text: str) -> bytes:
    try:
        path = zooft.path_in_table(folder, text)
        if not path.is_file():
            raise zooft.DataError(f"no such file: {text}; paths are relative to the Parquet file's folder")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise zooft.DataError(f"{text} can't be read: {getattr(error, 'strerror', None) or error}") from error
