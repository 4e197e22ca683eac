"""Where slices lie: order, distances, gaps and tilt, from their positions and orientations."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import zooft

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SAME_DIRECTION = 1e-3
_RIGHT_ANGLE = 1e-2


def normal(orientations: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """The normal that the slices share ``(3,)``; its largest part is positive, so it points to head, back or left.

    Args:
        orientations: each slice's six direction cosines, of a row and of a column.

    Raises:
        DataError: not parallel, or not two directions at a right angle.
    """
    import numpy as np

    directions = np.array(orientations)
    row, column = directions[0, :3], directions[0, 3:]
    if np.abs(directions - directions[0]).max() > _SAME_DIRECTION:
        raise zooft.DataError("the slices aren't parallel")
    if np.abs([row @ row - 1, column @ column - 1, row @ column]).max() > _RIGHT_ANGLE:
        raise zooft.DataError("ImageOrientationPatient isn't two directions at a right angle")
    across: NDArray[np.float64] = np.cross(row, column)
    across *= np.sign(across[np.abs(across).argmax()]) / np.linalg.norm(across)
    return across


def is_axial(orientation: Sequence[float]) -> bool:
    """Whether rows run along the patient's left-right axis more than along others, and columns along front-back.

    Args:
        orientation: six direction cosines, of a row and of a column; gantries tilt by up to 30 degrees, which counts.
    """
    row, column = ([abs(part) for part in orientation[start : start + 3]] for start in (0, 3))
    return row[0] == max(row) and column[1] == max(column)


def flips(orientation: Sequence[float] | None) -> tuple[bool, bool]:
    """Whether an axial slice's rows, and its columns, have to be put in reverse order to run as `graph.port` defines.

    Rows then follow each other from front to back, columns from the patient's right to left: along y and x of the
    patient's axes, which point to the back and to the left (DICOM PS3.3, C.7.6.2.1.1). Other slices stay as stored.
    """
    if orientation is None or not is_axial(orientation):
        return False, False
    return orientation[4] < 0, orientation[0] < 0


def tilt(rise: float, first: Sequence[float], last: Sequence[float]) -> float:
    """Degrees between the line from one position to another and the normal, along which it rises by `rise` mm."""
    return math.degrees(math.acos(min(1.0, rise / math.dist(first, last))))


def steps(distances: Sequence[float], thicknesses: Sequence[float]) -> list[float]:
    """Each distance as a multiple of what is usual among slices of that thickness.

    Head scans change from thin slices to thick ones on the way up; that is no gap.

    Args:
        distances: between neighbours, mm.
        thicknesses: of the slices, one more, mm; 0 where unknown.
    """
    pairs = list(pairwise(thicknesses))
    usual = _usual(distances, pairs)
    anywhere = statistics.median_low(distances)
    return [
        distance / max(usual.get(thickness, anywhere) for thickness in pair)
        for distance, pair in zip(distances, pairs, strict=True)
    ]


def _usual(distances: Sequence[float], pairs: Sequence[tuple[float, float]]) -> Mapping[float, float]:
    """The median distance by thickness."""
    alike: dict[float, list[float]] = {}
    for distance, (one, other) in zip(distances, pairs, strict=True):
        if one == other:
            alike.setdefault(one, []).append(distance)
    return {thickness: statistics.median_low(those) for thickness, those in alike.items()}
