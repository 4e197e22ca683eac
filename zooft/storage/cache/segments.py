"""A segment: one file of records, written whole and never changed.

Owns its layout::

    records, each from a multiple of 64 bytes on | table of names, places and checksums | shapes as JSON | footer

The footer holds the shelf's key and the checksum of what stands between the records and itself.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zooft.errors import DamagedError
from zooft.storage import atomic

FORMAT = 1
"""Part of every shelf's key: another layout of the files is another shelf."""
SUFFIX = ".seg"
NAME_BYTES = 64

_STEP = 64  # a cache line; more than any dtype's alignment
_ROW = np.dtype([("name", f"S{NAME_BYTES}"), ("offset", "<u8"), ("bytes", "<u8"), ("crc", "<u4"), ("format", "<u4")])
_FOOTER = struct.Struct("<8s32sQQQI")  # magic, key, bytes of records, rows, bytes of shapes, checksum
_CHECK = struct.Struct("<I")  # of the footer itself
_MAGIC = b"zooft\0s" + bytes([FORMAT])

_Format: TypeAlias = "tuple[np.dtype[Any], tuple[int, ...]]"


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Where a file's records are, by row; `sound` marks those that this process has checked."""

    path: Path
    size: int
    formats: tuple[_Format, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    crcs: NDArray[np.uint32]
    kinds: NDArray[np.uint32]
    sound: NDArray[np.bool_]

    def about(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, int, int, int]]:
        """For each row: its number, first byte, size and checksum."""
        columns = (column[rows].tolist() for column in (self.offsets, self.sizes, self.crcs))
        return zip(rows.tolist(), *columns, strict=True)

    def array(self, mapped: mmap.mmap, row: int) -> NDArray[Any]:
        """One record, a read-only view."""
        dtype, shape = self.formats[self.kinds[row]]
        return np.ndarray(shape, dtype, mapped, int(self.offsets[row]))

    def stack(self, mapped: mmap.mmap, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Records of one format, copied: ``(len(rows), *shape)``."""
        dtype, shape = self.formats[self.kinds[rows[0]]]
        flat = np.dtype((np.void, dtype.itemsize * math.prod(shape)))
        if not flat.itemsize or len(rows) == 1:
            return np.stack([self.array(mapped, row) for row in rows.tolist()])
        # every place where a record of this size could begin, as one array: rows are then picked without a loop
        windows = np.ndarray(((len(mapped) - flat.itemsize) // _STEP + 1,), flat, mapped, strides=(_STEP,))
        return windows[self.offsets[rows] // _STEP].view(dtype).reshape(len(rows), *shape)


def read(path: Path, key: str) -> tuple[Segment, list[str]]:
    """A segment and the names of its records by row.

    Raises:
        DamagedError: it isn't what was written for this shelf.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        end, count, json_bytes, crc = _read_footer(file, size, key)
        file.seek(end)
        index = file.read(count * _ROW.itemsize + json_bytes)
    if zlib.crc32(index) != crc:
        raise DamagedError
    table = np.frombuffer(index, _ROW, count)
    formats = tuple((np.dtype(text), tuple(shape)) for text, shape in json.loads(index[table.nbytes :]))
    segment = Segment(
        path,
        size,
        formats,
        table["offset"].astype(np.int64),
        table["bytes"].astype(np.int64),
        table["crc"].copy(),
        table["format"].copy(),
        np.zeros(count, dtype=bool),
    )
    return segment, [name.decode() for name in table["name"].tolist()]


def count(path: Path, key: str) -> int:
    """How many records there are; 0 where it can't be read."""
    try:
        with path.open("rb") as file:
            return _read_footer(file, os.fstat(file.fileno()).st_size, key)[1]
    except (OSError, DamagedError):
        return 0


def write(folder: Path, key: str, records: Mapping[str, NDArray[Any]]) -> None:
    """A new file of records: whole or not at all.

    Raises:
        OSError: it can't be written.
    """
    with atomic.whole(folder / f"{time.time_ns():016x}-{os.urandom(6).hex()}{SUFFIX}") as file:  # names sort by age
        _write_records(file, key, records)


def room(array: NDArray[Any]) -> int:
    """Bytes that a record takes in a segment."""
    return _pad(array.nbytes) + _ROW.itemsize


def check(name: str, array: NDArray[Any]) -> None:
    """Whether a record can be written.

    Raises:
        ValueError: its name isn't a digest, or it doesn't hold numbers.
    """
    if not re.fullmatch(f"[0-9a-f]{{1,{NAME_BYTES}}}", name):
        raise ValueError(f"a record's name is a digest of up to {NAME_BYTES} hexadecimal digits, this one is {name!r}")
    if array.dtype.kind not in "biufc":
        raise ValueError(f"records are arrays of numbers, this one's dtype is {array.dtype}")


def _read_footer(file: BinaryIO, size: int, key: str) -> tuple[int, int, int, int]:
    """Bytes of records, rows, bytes of shapes, checksum of the index."""
    length = _FOOTER.size + _CHECK.size
    if size < length:
        raise DamagedError
    file.seek(size - length)
    content = file.read(length)
    if len(content) < length or zlib.crc32(content[: _FOOTER.size]) != _CHECK.unpack(content[_FOOTER.size :])[0]:
        raise DamagedError
    magic, whose, end, count, json_bytes, crc = _FOOTER.unpack(content[: _FOOTER.size])
    # a file that was copied here from another shelf is refused, and so is one that lost bytes before the footer
    if (magic, whose) != (_MAGIC, bytes.fromhex(key)) or end + count * _ROW.itemsize + json_bytes + length != size:
        raise DamagedError
    return end, count, json_bytes, crc


def _write_records(file: BinaryIO, key: str, records: Mapping[str, NDArray[Any]]) -> None:
    formats: dict[tuple[str, tuple[int, ...]], int] = {}
    table = np.zeros(len(records), _ROW)
    end = 0
    for row, (name, array) in enumerate(records.items()):
        kind = formats.setdefault((array.dtype.str, array.shape), len(formats))
        table[row] = (name.encode(), end, array.nbytes, zlib.crc32(array.data), kind)
        file.write(array.data)
        file.write(bytes(_pad(array.nbytes) - array.nbytes))
        end += _pad(array.nbytes)
    shapes = json.dumps(list(formats)).encode()
    index = table.tobytes() + shapes
    footer = _FOOTER.pack(_MAGIC, bytes.fromhex(key), end, len(records), len(shapes), zlib.crc32(index))
    file.write(index + footer + _CHECK.pack(zlib.crc32(footer)))


def _pad(size: int) -> int:
    return -(-size // _STEP) * _STEP
