"""Which answers are worth a look: mistakes and right ones, the surest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.evaluation.judge import Predictions


def said(answers: Predictions, threshold: float | None) -> NDArray[np.int64]:
    """The class of each sample, ``(N,)``."""
    return answers.said(threshold)


def mistakes(answers: Predictions, threshold: float | None, most: int) -> list[int]:
    """Positions of the surest wrong answers."""
    return _surest(answers, threshold, said(answers, threshold) != answers.targets, most)


def hits(answers: Predictions, threshold: float | None, *, target: int, most: int) -> list[int]:
    """Positions of the surest right answers about one class."""
    right = (said(answers, threshold) == answers.targets) & (answers.targets == target)
    return _surest(answers, threshold, right, most)


def _surest(answers: Predictions, threshold: float | None, among: NDArray[np.bool_], most: int) -> list[int]:
    sure = _sureness(answers.probabilities, threshold)
    rows = np.flatnonzero(among)
    return [int(row) for row in rows[np.argsort(-sure[rows], kind="stable")][:most]]


def _sureness(probabilities: NDArray[Any], threshold: float | None) -> NDArray[np.float64]:
    """The largest probability, or how far the second class's is from the threshold, as a share of the way there is."""
    if threshold is None:
        likeliest: NDArray[np.float64] = probabilities.max(1).astype(np.float64)
        return likeliest
    score = probabilities[:, 1].astype(np.float64)
    above = (score - threshold) / max(1 - threshold, 1e-9)
    below = (threshold - score) / max(threshold, 1e-9)
    sure: NDArray[np.float64] = np.where(score >= threshold, above, below)
    return sure
