"""A picture's boxes as `Sample.target` has them, and what is wrong with a box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Corners = tuple[float, float, float, float]
"""x and y of the upper left corner, x and y of the lower right one, in pixels of the picture."""
CUT = 1.0
"""Pixels beyond the border that are rounding, and cut off."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """What is true of a picture.

    Attributes:
        size: rows and columns of the picture.
        corners: of each box.
        classes: numbers of the boxes' classes.
        ignored: whether a box counts nowhere, such as a crowd.
    """

    size: tuple[int, int]
    corners: tuple[Corners, ...] = ()
    classes: tuple[int, ...] = ()
    ignored: tuple[bool, ...] = ()

    def renumber(self, numbers: Sequence[int]) -> Boxes:
        """With other numbers of the classes: ``numbers[old]``."""
        return replace(self, classes=tuple(numbers[each] for each in self.classes))

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
        """Corners ``(n, 4)``, classes ``(n,)`` and whether they are ignored ``(n,)``."""
        corners = np.array(self.corners, np.float64).reshape(-1, 4)
        return corners, np.array(self.classes, np.int64), np.array(self.ignored, np.bool_)


def fault_of(corners: Corners, size: tuple[int, int]) -> str:
    """What is wrong with a box in a picture of `size`, in words; "" where nothing is, not even its area."""
    left, top, right, bottom = corners
    shown = f"x {left:g} to {right:g}, y {top:g} to {bottom:g}"
    if not all(math.isfinite(each) for each in corners):
        return f"isn't made of numbers: {shown}"
    if right < left or bottom < top:
        return f"has a negative width or height: {shown}"
    if is_outside(corners, size):
        return f"lies outside the picture of {size[1]}x{size[0]}: {shown}"
    return ""


def is_outside(corners: Corners, size: tuple[int, int]) -> bool:
    """Whether a box reaches beyond the picture by more than rounding."""
    left, top, right, bottom = corners
    return left < -CUT or top < -CUT or right > size[1] + CUT or bottom > size[0] + CUT


def cut(corners: Corners, size: tuple[int, int]) -> Corners:
    """What of a box lies in the picture."""
    rows, columns = size
    left, right = (min(max(each, 0.0), float(columns)) for each in (corners[0], corners[2]))
    top, bottom = (min(max(each, 0.0), float(rows)) for each in (corners[1], corners[3]))
    return left, top, right, bottom


def area(corners: Corners) -> float:
    """In square pixels."""
    return (corners[2] - corners[0]) * (corners[3] - corners[1])
