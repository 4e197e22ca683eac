"""Figures of grades: how far predicted ones are from the true ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLER_IS_BETTER = frozenset({"mae"})


def confusion(targets: NDArray[Any], predictions: NDArray[Any], grades: int) -> NDArray[np.int64]:
    """Counts ``(K, K)``; rows are true grades, columns predicted ones."""
    pairs = np.bincount(np.asarray(targets) * grades + predictions, minlength=grades * grades)
    return pairs.reshape(grades, grades)


def figures(targets: NDArray[Any], predictions: NDArray[Any], grades: int) -> Mapping[str, float]:
    """Quadratic kappa (Cohen 1968), mean absolute error in grades, shares of right answers and of those one grade off.

    Args:
        targets: ``(N,)``, indices into the scale.
        predictions: ``(N,)``, likewise.
        grades: how many the scale has.

    Returns:
        NaN for all of no samples, and for kappa where one grade alone is there and predicted.
    """
    if not len(targets):
        return dict.fromkeys(("quadratic_kappa", "mae", "accuracy", "within_one_grade"), math.nan)
    apart = np.abs(np.asarray(predictions) - targets)
    return {
        "quadratic_kappa": _quadratic_kappa(confusion(targets, predictions, grades)),
        "mae": float(apart.mean()),
        "accuracy": float((apart == 0).mean()),
        "within_one_grade": float((apart <= 1).mean()),
    }


def _quadratic_kappa(matrix: NDArray[np.int64]) -> float:
    """One less the squared distance over that of the same answers dealt out by chance."""
    places = np.arange(len(matrix))
    weights = (places[:, None] - places) ** 2
    by_chance = np.outer(matrix.sum(1), matrix.sum(0)) / matrix.sum()
    expected = float((weights * by_chance).sum())
    return 1 - float((weights * matrix).sum()) / expected if expected else math.nan
