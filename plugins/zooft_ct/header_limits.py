"""What a header or a codestream may ask for, checked before anything is decoded.

Decoders believe a codestream's own size: a small file can make them ask for gigabytes, and some end the process
instead of raising. So its markers are read here first and have to agree with the DICOM header.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import zooft

MAX_SIDE = 4096
"""Rows or columns; scanners make at most 2048."""
MAX_FRAMES = 2**14
_MAX_TILES = 4096
_SPARE = 2**16
_PADDING = 16
_FILL, _START_OF_SCAN = 0xFF, 0xDA
_TABLES = frozenset({0xC4, 0xDD, 0xFE, *range(0xE0, 0xF0)})
"""Huffman, restart interval, comment, application data."""
_SEVERAL = re.compile(rb"\xff\xd9\0?\xff(?:\xd8\xff|\x4f\xff\x51)")
"""A codestream's end and another one's begin, JPEG's and JPEG 2000's: neither stands within compressed data."""
_HOLE = bytes(128)
"""Longer runs of zeros than empty packets make, of which there is one for each layer and resolution."""
_DATA, _TILE_PART, _END = b"\xff\x93", b"\xff\x90", b"\xff\xd9"
_IMPOSSIBLE = re.compile(rb"\xff(?:[\x90\x93-\xff]|\x91(?!\0\x04))")
"""All markers but a packet's own, which begin it and end its header."""
_LEAST_PART = 14
"""Bytes of a tile-part: its own header, and where its data begin."""
_PRESETS = (0xF8, 1)
"""JPEG-LS's coding parameters; others of its kind could overrule the size (ISO/IEC 14495-1, C.2.4.1)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a codestream states of its picture."""

    rows: int
    columns: int
    components: int
    precision: int


def check_dimensions(rows: int, columns: int, frames: int) -> None:
    """Refuse what no scanner makes.

    Raises:
        DataError: no pixels, or too many.
    """
    if not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE):
        raise zooft.DataError(f"a matrix of {rows}x{columns} is refused: 1 to {MAX_SIDE} rows and columns are read")
    if not 0 < frames <= MAX_FRAMES:
        raise zooft.DataError(f"{frames} frames are refused: 1 to {MAX_FRAMES} are read")


def check_codestream(codestream: bytes, transfer_syntax: str, rows: int, columns: int) -> None:
    """Refuse a compressed frame that isn't what its header states.

    Args:
        codestream: one frame of one sample a pixel, 16 bits allocated.
        transfer_syntax: its UID.
        rows: as the header states.
        columns: as the header states.

    Raises:
        DataError: broken markers, or another size, number of components or precision.
    """
    if len(codestream) > 4 * rows * columns + _SPARE:
        raise zooft.DataError("the compressed frame is larger than twice its pixels; the file is damaged")
    try:
        frame = READERS[transfer_syntax](codestream, rows, columns)
    except (struct.error, IndexError):
        raise zooft.DataError("the compressed frame ends within its own header; the file is truncated") from None
    if _SEVERAL.search(codestream):
        raise zooft.DataError("several compressed pictures where the header states one; NumberOfFrames is wrong")
    if (frame.rows, frame.columns, frame.components) != (rows, columns, 1):
        raise zooft.DataError(
            f"the compressed frame is {frame.rows}x{frame.columns} with {frame.components} components, and the header "
            f"says {rows}x{columns} with one; the file is damaged or hostile"
        )
    if not 8 < frame.precision <= 16:
        raise zooft.DataError(f"the compressed frame has {frame.precision} bits a pixel; 9 to 16 are read")
    if READERS[transfer_syntax] is _jpeg_2000:
        _refuse_missing_tiles(codestream, rows, columns)
        _refuse_hole(codestream)
        _refuse_impossible_codes(codestream)


def _jpeg_2000(stream: bytes, _rows: int, _columns: int) -> Frame:
    """The SIZ segment, which has to come first (ISO/IEC 15444-1, A.5.1)."""
    if stream[:4] != b"\xff\x4f\xff\x51":
        raise zooft.DataError("the compressed frame doesn't begin as a JPEG 2000 codestream does")
    width, height, *offsets, tile_width, tile_height, tile_x, tile_y = struct.unpack_from(">8I", stream, 8)
    components, depth, step_x, step_y = struct.unpack_from(">H3B", stream, 40)
    if any((*offsets, tile_x, tile_y)) or 0 in (tile_width, tile_height) or (step_x, step_y) != (1, 1):
        raise zooft.DataError("the JPEG 2000 frame has an offset, an empty tile or subsampling, which isn't read")
    if -(-width // tile_width) * -(-height // tile_height) > _MAX_TILES:
        raise zooft.DataError(f"the JPEG 2000 frame has more than {_MAX_TILES} tiles, which isn't read")
    return Frame(height, width, components, (depth & 0x7F) + 1)


def _refuse_missing_tiles(stream: bytes, rows: int, columns: int) -> None:
    """The decoder leaves 0 where a tile isn't (ISO/IEC 15444-1, A.4.2.

    Each tile-part gives its tile and its length).
    """
    tile_width, tile_height = struct.unpack_from(">2I", stream, 24)
    wanted = -(-columns // tile_width) * -(-rows // tile_height)
    seen = {tile for tile, _, _ in _tile_parts(stream)}
    if len(seen & set(range(wanted))) < wanted:
        raise zooft.DataError(
            f"the JPEG 2000 frame lacks {wanted - len(seen & set(range(wanted)))} of its {wanted} tiles; the file is "
            "damaged"
        )


def _tile_parts(stream: bytes) -> list[tuple[int, int, int]]:
    """Of each the number of its tile, and where it begins and ends."""
    found: list[tuple[int, int, int]] = []
    at = 4 + struct.unpack_from(">H", stream, 4)[0]
    try:
        at = _behind_segments(stream, at, _TILE_PART)
        while stream[at : at + 2] == _TILE_PART:
            tile, length = struct.unpack_from(">HI", stream, at + 4)
            end = at + length if length else len(stream)  # without a length, it is the last one
            found.append((tile, at, end))
            if length and length < _LEAST_PART:
                break
            at = end
    except (struct.error, IndexError):
        raise zooft.DataError("the JPEG 2000 frame ends within its own header; the file is truncated") from None
    return found


def _behind_segments(stream: bytes, at: int, marker: bytes) -> int:
    """Where a marker stands behind other segments, each of which gives its length."""
    while stream[at : at + 2] != marker:
        if stream[at] != _FILL:
            raise zooft.DataError("the JPEG 2000 frame's segments are broken; the file is damaged")
        at += 2 + struct.unpack_from(">H", stream, at + 2)[0]
    return at


def _refuse_hole(stream: bytes) -> None:
    """The decoder fills what is missing with something, and doesn't report it."""
    begin = stream.find(_DATA)
    hole = stream.rstrip(b"\0").find(_HOLE, begin) if begin >= 0 else -1
    if hole >= 0:
        rest = stream[hole:]
        raise zooft.DataError(
            f"the JPEG 2000 frame has a hole: {len(rest) - len(rest.lstrip(bytes(1)))} bytes of zeros, which its code "
            "never makes; the file is damaged"
        )


def _refuse_impossible_codes(stream: bytes) -> None:
    """Neither packet headers nor coded passes hold FF followed by more than 8F (ISO/IEC 15444-1, B.10.1 and C.2)."""
    found, stop = 0, len(stream.rstrip(b"\0").removesuffix(_END))
    for _, begin, end in _tile_parts(stream):
        try:
            data = _behind_segments(stream, begin, _DATA) + 2
        except (struct.error, IndexError):
            raise zooft.DataError("the JPEG 2000 frame ends within a tile's header; the file is truncated") from None
        found += len(_IMPOSSIBLE.findall(stream, data, min(end, stop)))
    if found:
        raise zooft.DataError(
            f"the JPEG 2000 frame has {found} markers among its coded data, which its code never makes; the file is "
            "damaged"
        )


def _jpeg(stream: bytes, start_of_frame: int) -> Frame:
    """The only frame header before the scan (ISO/IEC 10918-1, B.2; ISO/IEC 14495-1, C.2)."""
    if stream[:2] != b"\xff\xd8":
        raise zooft.DataError("the compressed frame doesn't begin as a JPEG codestream does")
    if not stream[-_PADDING:].rstrip(b"\0\xff").endswith(b"\xff\xd9"):  # without it CharLS reads on behind the buffer
        raise zooft.DataError("the compressed frame has no end; the file is truncated")
    at, frame = 2, None
    while (marker := _marker(stream, at)) != _START_OF_SCAN:
        if marker == _FILL:
            at += 1
            continue
        if marker == start_of_frame and frame is None:
            precision, rows, columns, components = struct.unpack_from(">BHHB", stream, at + 4)
            frame = Frame(rows, columns, components, precision)
        elif marker not in _TABLES and (marker, stream[at + 4]) != _PRESETS:
            raise zooft.DataError(f"the compressed frame has an unexpected JPEG marker FF{marker:02X}")
        at += 2 + struct.unpack_from(">H", stream, at + 2)[0]
    if frame is None:
        raise zooft.DataError("the compressed frame has no JPEG frame header")
    return frame


def _marker(stream: bytes, at: int) -> int:
    if stream[at] != _FILL:
        raise zooft.DataError("the compressed frame's JPEG segments are broken")
    return stream[at + 1]


def _jpeg_lossless(stream: bytes, _rows: int, _columns: int) -> Frame:
    return _jpeg(stream, 0xC3)


def _jpeg_ls(stream: bytes, _rows: int, _columns: int) -> Frame:
    return _jpeg(stream, 0xF7)


def _rle(stream: bytes, rows: int, columns: int) -> Frame:
    """Its header has no size, only where the two planes of bytes begin (DICOM PS3.5, G.5)."""
    count, first, second = struct.unpack_from("<3I", stream)
    if count != 2 or not 64 <= first < second < len(stream):
        raise zooft.DataError("the RLE frame's header is broken: two segments of bytes were expected")
    if not (_unpacks(stream, first, second, rows * columns) and _unpacks(stream, second, len(stream), rows * columns)):
        raise zooft.DataError("the RLE frame's runs don't make its rows and columns; the file is damaged")
    return Frame(rows, columns, 1, 16)


def _unpacks(stream: bytes, at: int, end: int, wanted: int) -> bool:
    """Whether the runs of a segment make so many bytes (DICOM PS3.5, G.3.1).

    The decoder panics, or continues in silence.
    """
    while at < end and wanted > 0:
        code = stream[at]
        if code < 128:  # so many bytes and one as they are; above 128 one byte, repeated; 128 is nothing
            wanted, at = wanted - code - 1, at + code + 2
        elif code > 128:
            wanted, at = wanted - 257 + code, at + 2
        else:
            at += 1
    return wanted == 0 and at <= end and not stream[at:end].strip(b"\0\x80")


READERS: Mapping[str, Callable[[bytes, int, int], Frame]] = {
    "1.2.840.10008.1.2.5": _rle,
    "1.2.840.10008.1.2.4.57": _jpeg_lossless,
    "1.2.840.10008.1.2.4.70": _jpeg_lossless,
    "1.2.840.10008.1.2.4.80": _jpeg_ls,
    "1.2.840.10008.1.2.4.81": _jpeg_ls,
    "1.2.840.10008.1.2.4.90": _jpeg_2000,
    "1.2.840.10008.1.2.4.91": _jpeg_2000,
    "1.2.840.10008.1.2.4.201": _jpeg_2000,
    "1.2.840.10008.1.2.4.202": _jpeg_2000,
    "1.2.840.10008.1.2.4.203": _jpeg_2000,
}
