"""Boxes drawn into pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = tuple[zooft.Label, ...]
    Colour = tuple[int, int, int]

_COLOURS: tuple[Colour, ...] = (
    (230, 25, 75), (0, 130, 200), (60, 180, 75), (245, 130, 48), (145, 30, 180), (0, 128, 128), (170, 110, 40),
    (240, 50, 230), (128, 128, 0), (0, 0, 128), (128, 0, 0), (70, 160, 160),
)  # fmt: skip # a table of colours
"""Dark enough for white letters."""
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_READABLE = 400
"""Pixels of the shorter side: smaller pictures are enlarged to be compared, so that words don't cover them."""
_DASH = 6


def colour_of(number: int) -> Colour:
    """Of a class, by its number; beyond the first dozen they begin again."""
    return _COLOURS[number % len(_COLOURS)]


def draw_boxes(
    picture: NDArray[np.uint8], boxes: Iterable[tuple[Any, float, int]], labels: Labels
) -> NDArray[np.uint8]:
    """A picture ``(H, W)`` or ``(H, W, 3)`` with boxes, their classes and scores.

    Args:
        picture: for people.
        boxes: corners, score and class of each.
        labels: names of the classes.
    """
    canvas = _Canvas(picture, scale=1)
    for corners, score, number in boxes:
        canvas.box(corners, f"{labels[number].name} {score:.2f}", colour_of(number))
    return np.asarray(canvas.image)


def draw_comparison(
    picture: NDArray[np.uint8], boxes: Iterable[tuple[Any, float, int]], target: Any, labels: Labels
) -> NDArray[np.uint8]:
    """The prediction drawn in as `draw_boxes` does, and the truth, where that is known, in dashes below it."""
    canvas = _Canvas(picture, scale=max(1, round(_READABLE / min(picture.shape[:2]))))
    if target is not None:
        for corners, number in zip(target.corners, target.classes, strict=True):
            canvas.dashed_box(corners, labels[number].name)
    for corners, score, number in boxes:
        canvas.box(corners, f"{labels[number].name} {score:.2f}", colour_of(number))
    return np.asarray(canvas.image)


class _Canvas:
    """A picture that is drawn into.

    Args:
        picture: ``(H, W)`` or ``(H, W, 3)`` uint8.
        scale: how many times as large.
    """

    def __init__(self, picture: NDArray[np.uint8], *, scale: int) -> None:
        from PIL import Image, ImageDraw, ImageFont

        levels = np.repeat(picture[..., None], 3, -1) if picture.ndim == 2 else picture[..., :3]
        self.image = Image.fromarray(levels.repeat(scale, 0).repeat(scale, 1))
        self._scale, self._line = scale, max(1, round(min(self.image.size) / 200))
        self._pen = ImageDraw.Draw(self.image)
        self._font = ImageFont.load_default(max(9, round(min(self.image.size) / 36)))

    def box(self, corners: Any, words: str, colour: Colour) -> None:
        """A box with words above it, or in it where there is no room above."""
        left, top, right, bottom = self._places(corners)
        self._pen.rectangle((left, top, right, bottom), outline=colour, width=self._line)
        _, height = self._size(words)
        self._words((left, top - height if top >= height else top), words, colour, _WHITE)

    def dashed_box(self, corners: Any, words: str) -> None:
        """A box in black and white dashes with words at its foot."""
        left, top, right, bottom = self._places(corners)
        dash = _DASH * self._line
        for way, (start, end) in (((1, 0), (left, right)), ((0, 1), (top, bottom))):
            for place in range(start, end, dash):
                colour = _WHITE if (place - start) // dash % 2 else _BLACK
                stop = min(place + dash, end)
                for other in (top, bottom) if way == (1, 0) else (left, right):
                    line = (place, other, stop, other) if way == (1, 0) else (other, place, other, stop)
                    self._pen.line(line, fill=colour, width=self._line)
        _, height = self._size(words)
        self._words((left, bottom - height), words, _WHITE, _BLACK)

    def _places(self, corners: Any) -> tuple[int, int, int, int]:
        """Of the outermost pixels."""
        left, top, right, bottom = (round(float(each) * self._scale) for each in corners)
        return left, top, max(left, right - 1), max(top, bottom - 1)

    def _size(self, words: str) -> tuple[int, int]:
        width, height = self._pen.textbbox((0, 0), words, font=self._font)[2:]
        return round(width) + 4, round(height) + 3

    def _words(self, corner: tuple[int, int], words: str, ground: Colour, ink: Colour) -> None:
        """Moved to lie within the picture."""
        width, height = self._size(words)
        x, y = (
            max(0, min(place, most - size))
            for place, most, size in zip(corner, self.image.size, (width, height), strict=True)
        )
        self._pen.rectangle((x, y, x + width - 1, y + height - 1), fill=ground)
        self._pen.text((x + 2, y), words, fill=ink, font=self._font)
