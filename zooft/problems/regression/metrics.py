"""Figures of numbers: how far predictions are from what is true, over the samples of which that is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIGURES = ("r2", "mae", "rmse")
SMALLER_IS_BETTER = ("mae", "rmse")


def figures(targets: NDArray[Any], predictions: NDArray[Any]) -> dict[str, float]:
    """R², mean absolute and root mean squared error of one number.

    R² is the share of the variance that is explained: 0 is the mean of these targets, predicted for every sample.

    Args:
        targets: ``(N,)``; NaN where unknown.
        predictions: ``(N,)``.

    Returns:
        NaN for all where nothing is known, and for R² where targets don't vary.
    """
    known = ~np.isnan(targets)
    true, predicted = targets[known].astype(np.float64), predictions[known].astype(np.float64)
    if not len(true):
        return dict.fromkeys(FIGURES, math.nan)
    errors = predicted - true
    squared, variance = float((errors**2).sum()), float(((true - true.mean()) ** 2).sum())
    return {
        "r2": 1 - squared / variance if variance else math.nan,
        "mae": float(np.abs(errors).mean()),
        "rmse": math.sqrt(squared / len(true)),
    }


def all_figures(targets: NDArray[Any], predictions: NDArray[Any], names: Sequence[str]) -> Mapping[str, float]:
    """`figures` of one number; of several their means, and each one's own as ``mae/diameter``.

    Args:
        targets: ``(N,)``, or ``(N, L)`` of several numbers.
        predictions: of the same shape.
        names: of the L numbers.
    """
    if len(names) == 1:
        return figures(targets, predictions)
    each = {name: figures(targets[:, index], predictions[:, index]) for index, name in enumerate(names)}
    means = {figure: _mean([own[figure] for own in each.values()]) for figure in FIGURES}
    return means | {f"{figure}/{name}": own[figure] for name, own in each.items() for figure in FIGURES}


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
