"""One slice's pixels in Hounsfield units."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import zooft
from zooft_ct import decoder_messages, geometry, header_limits, needs, units
from zooft_ct.privacy import quiet_pydicom

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zooft_ct.header import Layout, SliceHeader

DECODERS: Mapping[str, str] = {
    "1.2.840.10008.1.2.5": "pylibjpeg",
    "1.2.840.10008.1.2.4.57": "gdcm",
    "1.2.840.10008.1.2.4.70": "gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg",
}
"""Compressed transfer syntaxes that are read, and pydicom's name of the one decoder that does it."""

LOWEST, HIGHEST = -1024, 3071
"""HU; the range of a 12-bit scanner. Air and whatever stands for no tissue are the lowest."""
_NEARLY_AIR = -940
_SCANNERS_BITS = 12
_SOFT = 100
"""HU: fat is above its negative, soft tissue below it."""
_MANY = 2**16
_ALONE = 5e-4
"""Of the pixels: more padding than this among others, not beside each other, isn't padding."""
_RLE = "1.2.840.10008.1.2.5"
_PANIC = "PanicException"


def hu(header: SliceHeader) -> NDArray[np.int16]:
    """A slice in HU; an axial one's rows from front to back, its columns from the patient's right to left.

    Other slices' rows and columns are as stored. MONOCHROME1 is about display and changes nothing here.

    Returns:
        ``(H, W)`` int16, clipped to [-1024, 3071] HU; padding is -1024.

    Raises:
        DataError: truncated or undecodable pixels, or values that can't be HU.
    """
    layout = header.layout
    whole = _decode_quietly(header) if layout.compressed else _native(header)
    beyond = _padding_beyond_the_bits(whole, layout)
    stored = _significant(whole, layout)
    values = _rescale(stored, layout)
    padded = beyond
    if beyond is not None:
        values[beyond] = LOWEST
    elif layout.padding is not None:
        padded = _is_padding(stored, layout.padding)
        _refuse_padding_in_tissue(padded, layout.padding, layout)
    _refuse_other_units(values, stored, padded, layout)
    return _turn(values, header.orientation)


def _turn(values: NDArray[np.int16], orientation: tuple[float, ...] | None) -> NDArray[np.int16]:
    """The same array, or a copy in reverse order of rows, of columns, or of both."""
    import numpy as np

    rows, columns = geometry.flips(orientation)
    if not (rows or columns):
        return values
    return np.ascontiguousarray(values[:: -1 if rows else 1, :: -1 if columns else 1])


def _native(header: SliceHeader) -> NDArray[Any]:
    import numpy as np

    layout, count = header.layout, header.rows * header.columns
    kind = np.dtype(f"{'>' if layout.big_endian else '<'}{'i' if layout.signed else 'u'}2")
    try:
        pixels = np.fromfile(header.path, kind, count, offset=layout.offset + 2 * count * header.frame)
    except OSError as error:
        raise zooft.DataError(f"the pixels can't be read: {error.strerror}") from None
    if pixels.size < count:
        raise zooft.DataError("the pixels are truncated: the file ends before them")
    return pixels.reshape(header.rows, header.columns)


def _decode_quietly(header: SliceHeader) -> NDArray[Any]:
    try:
        with quiet_pydicom():
            return _decode(header)
    except zooft.DataError:
        raise
    except BaseException as error:
        # each decoder has its own errors, whose texts aren't ours to repeat; a panic of Rust's is no Exception
        if isinstance(error, Exception) or type(error).__name__ == _PANIC:
            raise zooft.DataError(f"the compressed pixels can't be decoded ({type(error).__name__})") from None
        raise


def _decode(header: SliceHeader) -> NDArray[Any]:
    """The frame, by one decoder: a second one, tried by pydicom after a failure, may end the process."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.decoders.base import get_decoder

    layout, syntax = header.layout, header.transfer_syntax
    decoder = get_decoder(syntax)
    if DECODERS[syntax] not in decoder.available_plugins:
        raise zooft.DataError(f"its compression needs the decoder {DECODERS[syntax]}, which is missing: {needs.EXTRA}")
    with header.path.open("rb") as file:
        _refuse_other_number(file, header)
        file.seek(layout.offset)
        codestream = get_frame(file, header.frame, number_of_frames=layout.frames)
        header_limits.check_codestream(codestream, syntax, header.rows, header.columns)
        file.seek(layout.offset)
        options: dict[str, Any] = {
            "rows": header.rows,
            "columns": header.columns,
            "number_of_frames": layout.frames,
            "samples_per_pixel": 1,
            "photometric_interpretation": "MONOCHROME2",
            "pixel_representation": int(layout.signed),
            "bits_allocated": 16,
            "bits_stored": layout.bits,
        }
        listen: contextlib.AbstractContextManager[list[str]] = contextlib.nullcontext([])
        if DECODERS[syntax] == "gdcm":
            listen = decoder_messages.capture()
        with listen as printed:
            pixels, _ = decoder.as_array(
                file, index=header.frame, raw=True, decoding_plugin=DECODERS[syntax], **options
            )
    if printed:
        raise zooft.DataError(f"the compressed pixels are damaged; the decoder printed: {printed[0]}")
    return pixels


def _refuse_other_number(file: BinaryIO, header: SliceHeader) -> None:
    """By the table of frames, where there is one; in RLE a frame is one fragment (DICOM PS3.5, A.4.2)."""
    from pydicom.encaps import parse_basic_offsets, parse_fragments

    file.seek(header.layout.offset)
    found = len(parse_basic_offsets(file)) or header.layout.frames
    if header.transfer_syntax == _RLE and header.layout.frames == 1:
        found, _ = parse_fragments(file)
    if found != header.layout.frames:
        raise zooft.DataError(f"{found} compressed frames where the header states {header.layout.frames}")


def _padding_beyond_the_bits(whole: NDArray[Any], layout: Layout) -> NDArray[np.bool_] | None:
    """Where padding stands that differs only by the bits above those that count; elsewhere None.

    Files of 12 bits have 63536, such as -2000, around the picture. Its lower 12 bits alone would be bone, and the same
    number is bone elsewhere in the picture, so it is found before the upper bits go.
    """
    return None if layout.padding is None or _within_the_bits(layout) else _is_padding(whole, layout.padding)


def _within_the_bits(layout: Layout) -> bool:
    lowest = -(2 ** (layout.bits - 1)) if layout.signed else 0
    return layout.padding is not None and lowest <= layout.padding[0] <= layout.padding[1] < lowest + 2**layout.bits


def _significant(stored: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """The stored numbers in the machine's order, without what old files have in the bits above."""
    import numpy as np

    if not stored.dtype.isnative:
        stored = stored.astype(stored.dtype.newbyteorder("="))
    if layout.bits < 16:
        np.left_shift(stored, 16 - layout.bits, out=stored)
        np.right_shift(stored, 16 - layout.bits, out=stored)
    return stored


def _rescale(stored: NDArray[Any], layout: Layout) -> NDArray[np.int16]:
    """HU = slope * stored + intercept, rounded (DICOM PS3.3, C.11.1), clipped; padding is air."""
    import numpy as np

    limits = np.iinfo(stored.dtype)
    lowest, highest = max(limits.min, LOWEST - layout.intercept), min(limits.max, HIGHEST - layout.intercept)
    values: NDArray[np.int16]
    if layout.slope == 1 and layout.intercept.is_integer() and lowest <= highest:
        # clipped first, the sum fits into 16 bits; on the way there it may wrap around
        clipped = np.clip(stored, int(lowest), int(highest)).view(np.uint16)
        values = (clipped + np.uint16(int(layout.intercept) % 2**16)).view(np.int16)
    else:
        values = np.clip(np.rint(_exact(stored, layout)), LOWEST, HIGHEST).astype(np.int16)
    if layout.padding and _within_the_bits(layout) and not _already_air(layout.padding, layout):
        values[_is_padding(stored, layout.padding)] = LOWEST
    return values


def _exact(stored: NDArray[Any], layout: Layout) -> NDArray[np.float64]:
    import numpy as np

    scaled: NDArray[np.float64] = stored.astype(np.float64) * layout.slope + layout.intercept
    return scaled


def _already_air(padding: tuple[int, int], layout: Layout) -> bool:
    return all(layout.slope * end + layout.intercept <= LOWEST for end in padding)


def _is_padding(stored: NDArray[Any], padding: tuple[int, int]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (stored >= padding[0]) & (stored <= padding[1])
    return inside


def _refuse_padding_in_tissue(padded: NDArray[np.bool_], padding: tuple[int, int], layout: Layout) -> None:
    """Padding lies around the picture; where tissue has its number, tissue would become air.

    Raises:
        DataError: it doesn't touch the border, many pixels of it stand alone, or a range holds all soft tissue.
    """
    import numpy as np

    low, high = (layout.slope * end + layout.intercept for end in padding)
    count = int(np.count_nonzero(padded))
    if high <= _NEARLY_AIR or not count:
        return
    alone = int(np.count_nonzero(padded[:, 1:-1] & ~padded[:, :-2] & ~padded[:, 2:]))
    around = padded[0].any() or padded[-1].any() or padded[:, 0].any() or padded[:, -1].any()
    soft = min(high, _SOFT) - max(low, -_SOFT) >= _SOFT
    if soft or not around or alone > _ALONE * padded.size:
        raise zooft.DataError(
            f"its PixelPaddingValue is that of tissue: {low:g}{f' to {high:g}' if high > low else ''} HU, which "
            f"{count / padded.size:.1%} of its pixels have, {alone} of them with other values on both sides. Mend or "
            "remove the element, or they would become air"
        )


def _refuse_other_units(
    values: NDArray[np.int16], stored: NDArray[Any], padded: NDArray[np.bool_] | None, layout: Layout
) -> None:
    """By the histogram of what isn't padding: of every fourth row first, since a slice is read many times."""
    if values.size >= _MANY:
        some = None if padded is None else padded[::4]
        if not _misfit(values[::4], stored[::4], some, layout):
            return
    if reason := _misfit(values, stored, padded, layout):
        raise zooft.DataError(
            f"the values aren't HU: {reason}. Export the series again with its rescale slope, intercept and pixel "
            "representation"
        )


def _misfit(values: NDArray[np.int16], stored: NDArray[Any], padded: NDArray[np.bool_] | None, layout: Layout) -> str:
    hidden = units.beyond(stored if padded is None else stored[~padded], layout.slope, layout.intercept)
    reason = units.misfit(values, hidden, padded=0 if padded is None else int(padded.sum()))
    few_bits = layout.signed and layout.bits <= _SCANNERS_BITS and layout.intercept < units.NO_AIR
    if not reason and few_bits and hidden.but_lowest > _ALONE * values.size:
        return (
            f"{hidden.but_lowest / values.size:.1%} of them lie below {units.BELOW_AIR}, as bone does that is stored "
            "without a sign and read with one"
        )
    return reason
