"""How well borders of classes lie, of each picture and class.

Boundary F1 (Csurka, Larlus, Perronnin and Meylan 2013): the share of found border pixels near a true one, and the share
of true ones near a found one, and their harmonic mean.

HD95, the 95th percentile of the Hausdorff distance (Huttenlocher, Klanderman and Rucklidge 1993): of the distances of
found border pixels to the nearest true one, and the other way round, the larger percentile.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from zooft_segmentation.masks import OUTSIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAR = 0.0075
"""Of a picture's diagonal: how far a border may lie from the other."""


_SHARE = 95


def border_figures(found: NDArray[np.uint8], true: NDArray[np.uint8], classes: int) -> NDArray[np.float32]:
    """Boundary F1, and HD95 in pixels, ``(2, classes)``; NaN of classes that aren't there in truth.

    HD95 is the picture's diagonal where one of both has no border.

    A border is where a pixel of the class has one of another class beside it, not where void or the picture ends.

    Args:
        found: ``(H, W)``, numbers of classes.
        true: the same, `OUTSIDE` where nothing is known.
        classes: how many there are.
    """
    diagonal = math.hypot(*true.shape)
    known = np.where(true == OUTSIDE, np.uint8(OUTSIDE), found)
    ours, theirs = _edges(known), _edges(true)
    figures = np.full((2, classes), np.nan, np.float32)
    for number in np.unique(true[true != OUTSIDE]).tolist():
        figures[:, number] = _compare(ours & (known == number), theirs & (true == number), diagonal)
    return figures


def _edges(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels with one of another class above, below, left or right."""
    edges = np.zeros(mask.shape, bool)
    for one, other in (((slice(1, None),), (slice(-1),)), ((slice(None), slice(1, None)), (slice(None), slice(-1)))):
        differs = (mask[one] != mask[other]) & (mask[one] != OUTSIDE) & (mask[other] != OUTSIDE)
        edges[one] |= differs
        edges[other] |= differs
    return edges


def can_measure() -> bool:
    """Whether scipy is there, which zooft-runtime doesn't bring."""
    try:
        import scipy.ndimage  # noqa: F401 -- whether it can be imported is the question
    except ImportError:
        return False
    return True


def _compare(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], diagonal: float) -> tuple[float, float]:
    """Boundary F1 and HD95 of two borders."""
    if not ours.any() or not theirs.any():
        alike = ours.any() == theirs.any()  # a class that fills the picture has no border
        return float(alike), 0.0 if alike else diagonal
    ways = _distances(ours, theirs), _distances(theirs, ours)
    limit = max(1.0, NEAR * diagonal)
    precision, recall = (float((distances <= limit).mean()) for distances in ways)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return f1, max(float(np.percentile(distances, _SHARE)) for distances in ways)


def _distances(these: NDArray[np.bool_], those: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of each pixel of `these` to the nearest of `those`."""
    from scipy.ndimage import distance_transform_edt

    rows, columns = (np.flatnonzero((these | those).any(axis)) for axis in (1, 0))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)  # the rest has none of both
    return np.asarray(distance_transform_edt(~those[part])[these[part]], np.float64)
