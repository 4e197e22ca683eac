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
)  # fmt: skip
"""Dark enough for white letters."""
_GAP = 4


def colour_of(number: int) -> Colour:
    """Of a class, by its number; beyond the first dozen they begin again."""
    return _COLOURS[number % len(_COLOURS)]


def drawn(
    picture: NDArray[np.uint8], boxes: Iterable[tuple[Any, float | None, int]], labels: Labels
) -> NDArray[np.uint8]:
    """A picture ``(H, W)`` or ``(H, W, 3)`` with boxes, their classes, and scores where these are known.

    Args:
        picture: for people.
        boxes: corners, score or None, and class of each.
        labels: names of the classes.
    """
    from PIL import Image, ImageDraw, ImageFont

    levels = np.repeat(picture[..., None], 3, -1) if picture.ndim == 2 else picture[..., :3]
    image = Image.fromarray(np.ascontiguousarray(levels))
    pen = ImageDraw.Draw(image)
    line = max(1, round(min(image.size) / 200))
    font = ImageFont.load_default(max(10, round(min(image.size) / 36)))
    for corners, score, number in boxes:
        left, top, right, bottom = (round(float(each)) for each in corners)
        colour = colour_of(number)
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=line)
        words = labels[number].name if score is None else f"{labels[number].name} {score:.2f}"
        width, height = pen.textbbox((0, 0), words, font=font)[2:]
        x = min(left, max(0, image.width - round(width) - 4))
        y = top - round(height) - 2 if top >= height + 2 else top
        pen.rectangle((x, y, x + width + 3, y + height + 2), fill=colour)
        pen.text((x + 2, y), words, fill=(255, 255, 255), font=font)
    return np.asarray(image)


def compared(
    picture: NDArray[np.uint8], boxes: Iterable[tuple[Any, float | None, int]], target: Any, labels: Labels
) -> NDArray[np.uint8]:
    """The answer drawn in, and beside or below it the truth, where that is known."""
    ours = drawn(picture, boxes, labels)
    if target is None:
        return ours
    theirs = drawn(picture, ((c, None, n) for c, n in zip(target.corners, target.classes, strict=True)), labels)
    beside = ours.shape[0] >= ours.shape[1]
    gap = np.full((ours.shape[0], _GAP, 3) if beside else (_GAP, ours.shape[1], 3), 255, np.uint8)
    return np.concatenate([ours, gap, theirs], axis=1 if beside else 0)
