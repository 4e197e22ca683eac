"""Masks in files: which class each pixel is of.

A mask of one channel holds a value a pixel: grey levels, 16-bit ones too, or the numbers of a palette. One of three
channels holds colours.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_segmentation.classes import ClassSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

OUTSIDE = 255
"""What pixels hold that are of no class: void ones, and the border of a letterbox."""
MOST_CLASSES = 254
_UNKNOWN = 254
_SHOWN = 4
_LOSSY = frozenset({"JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JPEG2000"})
_INDICES = frozenset({"1", "L", "P", "I", "I;16", "I;16L", "I;16B"})
_COLOURS = frozenset({"RGB", "RGBA", "RGBX"})


@dataclass(frozen=True, slots=True)
class Table:
    """What some keys mean.

    Attributes:
        keys: values, or colours as red * 65536 + green * 256 + blue; ascending.
        classes: number of the class of each, `OUTSIDE` for what is left out.
    """

    keys: tuple[int, ...]
    classes: tuple[int, ...]

    def renumber(self, numbers: Sequence[int]) -> Table:
        """With other numbers of the classes: ``numbers[old]``."""
        return replace(self, classes=tuple(each if each == OUTSIDE else numbers[each] for each in self.classes))


@dataclass(frozen=True, slots=True)
class Code:
    """What pixels of masks mean.

    Attributes:
        values: of masks with one channel.
        colours: of masks with three, and of palettes that hold nothing else; None where classes have no colours.
    """

    values: Table
    colours: Table | None = None

    def table(self, *, colours: bool) -> Table:
        """Of the one kind or the other."""
        return self.colours if colours and self.colours is not None else self.values


@dataclass(frozen=True, slots=True)
class Mask:
    """A sample's target.

    Attributes:
        path: of the mask's file.
        code: what its pixels mean.
        counts: pixels of each class.
        void: pixels that are left out.
        mark: equal for equal masks: a checksum of its pixels, hexadecimal.
    """

    path: Path
    code: Code
    counts: tuple[int, ...]
    void: int = 0
    mark: str = ""

    def pixels(self) -> NDArray[np.uint8]:
        """``(H, W)``, the number of each pixel's class; `OUTSIDE` where there is none.

        Raises:
            DataError: the file can't be read any more, or has changed.
        """
        try:
            return decode(self.path, self.code)
        except zooft.DataError as error:
            raise zooft.DataError(f"the mask {self.path.name}: {error}") from error

    def renumber(self, numbers: Sequence[int], count: int) -> Mask:
        """With other numbers of the classes: ``numbers[old]``, of `count` ones."""
        counts = [0] * count
        for old, new in enumerate(numbers):
            counts[new] += self.counts[old]
        colours = None if self.code.colours is None else self.code.colours.renumber(numbers)
        return replace(self, code=Code(self.code.values.renumber(numbers), colours), counts=tuple(counts))


def code_of(classes: Sequence[ClassSpec], ignored: Sequence[str]) -> tuple[Code, list[ClassSpec]]:
    """What pixels mean, and the classes that are left.

    Args:
        classes: all that the data has.
        ignored: values, or names of classes, that are left out.
    """
    void = {int(each) for each in ignored if each.isdigit()}
    names = {each.lower() for each in ignored if not each.isdigit()}
    used: list[ClassSpec] = []
    values, colours = dict.fromkeys(void, OUTSIDE), dict[int, int]()
    for each in classes:
        left_out = each.name.lower() in names or each.value in void
        number = OUTSIDE if left_out else len(used)
        used += [] if left_out else [each]
        if each.value is not None:
            values[each.value] = number
        if each.colour is not None:
            colours[pack_colour(each.colour)] = number
    return Code(_table(values), _table(colours) if colours else None), used


def _table(pairs: Mapping[int, int]) -> Table:
    ordered = sorted(pairs.items())
    return Table(tuple(key for key, _ in ordered), tuple(number for _, number in ordered))


def pack_colour(colour: tuple[int, int, int]) -> int:
    """A colour as one number."""
    return colour[0] << 16 | colour[1] << 8 | colour[2]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a mask's file holds.

    Attributes:
        size: rows and columns.
        counts: of each value or colour.
        mark: a checksum of the pixels, hexadecimal.
        colours: whether these are colours.
    """

    size: tuple[int, int]
    counts: Mapping[int, int]
    mark: str
    colours: bool = False


def inspect(path: Path, colours: frozenset[int]) -> Inspection:
    """What a mask's file holds, decoded to the last row.

    Args:
        path: of the file.
        colours: those that classes have, if any.

    Raises:
        DataError: it isn't a mask; the message is the reason alone.
    """
    keys, by_colour = _keys(path, colours)
    mark = f"{zlib.crc32(keys.tobytes()):08x}"
    if keys.dtype == np.uint8:
        counts = np.bincount(keys.ravel(), minlength=256)
        return Inspection(keys.shape, {int(key): int(counts[key]) for key in np.flatnonzero(counts)}, mark)
    found, counts = np.unique(keys, return_counts=True)
    return Inspection(keys.shape, dict(zip(found.tolist(), counts.tolist(), strict=True)), mark, by_colour)


def fault_of(found: Inspection, code: Code) -> str:
    """What is wrong with a mask's values, in words; "" where nothing is."""
    known = set(code.table(colours=found.colours).keys)
    unknown = {key: count for key, count in found.counts.items() if key not in known}
    if not unknown:
        return ""
    some = ", ".join(_words(key, colour=found.colours) for key, _ in Counter(unknown).most_common(_SHOWN))
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    return (
        f"the mask has {'colours' if found.colours else 'values'} that are no class: {some}{more}, "
        f"{sum(unknown.values()):,} pixels; name them in the file of classes, or leave them out with --ignore-index"
    )


def _words(key: int, *, colour: bool) -> str:
    return f"({key >> 16}, {key >> 8 & 255}, {key & 255})" if colour else str(key)


def count_pixels(found: Inspection, code: Code, classes: int) -> tuple[tuple[int, ...], int]:
    """Pixels of each class, and of none."""
    table = code.table(colours=found.colours)
    numbers = dict(zip(table.keys, table.classes, strict=True))
    counts, void = [0] * classes, 0
    for key, count in found.counts.items():
        number = numbers.get(key, OUTSIDE)
        if number == OUTSIDE:
            void += count
        else:
            counts[number] += count
    return tuple(counts), void


def decode(path: Path, code: Code) -> NDArray[np.uint8]:
    """``(H, W)``, the number of each pixel's class; `OUTSIDE` where there is none.

    Raises:
        DataError: it isn't such a mask; the message is the reason alone.
    """
    keys, by_colour = _keys(path, frozenset(code.colours.keys if code.colours else ()))
    known = code.table(colours=by_colour)
    if keys.dtype == np.uint8:
        table = np.full(256, _UNKNOWN, np.uint8)
        for key, number in zip(known.keys, known.classes, strict=True):
            if key < len(table):
                table[key] = number
        found = table[keys]
    else:
        ordered = np.array(known.keys)
        place = np.searchsorted(ordered, keys).clip(0, len(ordered) - 1)
        found = np.where(ordered[place] == keys, np.array(known.classes, np.uint8)[place], np.uint8(_UNKNOWN))
    if (found == _UNKNOWN).any():
        raise zooft.DataError("it has values that are no class; it has changed since discovery")
    return np.asarray(found)


def _keys(path: Path, colours: frozenset[int]) -> tuple[NDArray[Any], bool]:
    """``(H, W)``: uint8 or int32 values, or packed colours as int32; and whether they are colours."""
    with zooft.image_opened(path) as image:
        if image.format in _LOSSY and not image.info.get("lossless"):
            raise zooft.DataError(
                f"a mask as {image.format} holds values that nobody drew, since it is compressed with loss; save it "
                "as PNG"
            )
        if image.mode in _COLOURS:
            if not colours:
                count = len(image.getcolors(2**24) or ())
                raise zooft.DataError(
                    f"a mask of colours ({count} of them), and nothing says what they mean; give --classes-file with a "
                    "colour for each class (name,r,g,b), or save masks with one channel"
                )
            return _pack_levels(image), True
        if image.mode == "P" and colours:
            levels = _pack_levels(image)
            if set(np.unique(levels).tolist()) <= colours:
                return levels, True  # the palette says it; its numbers may be any
        grey = image.getchannel("L") if image.mode == "LA" else image
        if grey.mode not in _INDICES:
            raise zooft.DataError(
                f"a mask of mode {image.mode}; expected one channel of whole numbers, a palette, or RGB"
            )
        keys = np.array(grey)
        return keys if keys.dtype == np.uint8 else keys.astype(np.int32), False


def _pack_levels(image: Image) -> NDArray[Any]:
    levels = np.array(image.convert("RGB")).astype(np.int32)
    return np.asarray(levels[..., 0] << 16 | levels[..., 1] << 8 | levels[..., 2])
