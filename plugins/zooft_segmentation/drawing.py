"""Masks drawn into pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_segmentation.classes import colours_of
from zooft_segmentation.masks import OUTSIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = tuple[zooft.Label, ...]

_SHARE = 0.5
"""Of a class's colour over the picture's own."""
_GAP = 4


def paint(picture: NDArray[np.uint8], mask: NDArray[np.uint8], labels: Labels) -> NDArray[np.uint8]:
    """A picture ``(H, W)`` or ``(H, W, 3)`` with each class in its colour; void stays as it is."""
    levels = np.repeat(picture[..., None], 3, -1) if picture.ndim == 2 else picture[..., :3]
    table = np.zeros((256, 3), np.float32)
    table[: len(labels)] = colours_of(labels)
    share = np.where(mask == OUTSIDE, 0.0, _SHARE).astype(np.float32)[..., None]
    return np.asarray(np.rint(levels * (1 - share) + table[mask] * share), np.uint8)


def draw_comparison(
    picture: NDArray[np.uint8], mask: NDArray[np.uint8], target: Any, labels: Labels
) -> NDArray[np.uint8]:
    """The prediction drawn in, and beside it the truth, where that is known."""
    ours = paint(picture, mask, labels)
    if target is None:
        return ours
    theirs = paint(picture, target.pixels(), labels)
    beside = ours.shape[0] >= ours.shape[1]
    gap = np.full((ours.shape[0], _GAP, 3) if beside else (_GAP, ours.shape[1], 3), 255, np.uint8)
    return np.concatenate([ours, gap, theirs], axis=1 if beside else 0)
