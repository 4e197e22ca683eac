"""What lies at or above each score: every curve, threshold and rank statistic of yes-or-no answers is read off it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of a curve, one for each threshold.

    Attributes:
        x: ``(K,)`` the false positive rate of a ROC curve, the recall of a precision-recall curve.
        y: ``(K,)`` the sensitivity of a ROC curve, the precision of a precision-recall curve.
        thresholds: ``(K,)`` scores of at least this are positive; descending, the first infinite: nothing is.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    thresholds: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ranking:
    """What lies at or above each score, from the largest score down; every curve and threshold is read off it.

    Attributes:
        scores: ``(K,)`` distinct, descending.
        true_positives: ``(K,)`` positives with at least that score.
        false_positives: ``(K,)`` negatives with at least that score.
        positives: all of them.
        negatives: all of them.
    """

    scores: NDArray[Any]
    true_positives: NDArray[Any]
    false_positives: NDArray[Any]
    positives: int
    negatives: int


def ranking(positive: NDArray[np.bool_], scores: NDArray[Any]) -> Ranking:
    """Count what lies at or above each distinct score.

    Args:
        positive: ``(N,)``.
        scores: ``(N,)``, larger for what is likelier positive.
    """
    order = np.argsort(scores)[::-1]
    descending = scores[order]
    ends = np.append(np.flatnonzero(descending[1:] != descending[:-1]), len(order) - 1)
    true_positives = positive[order].cumsum()[ends]
    false_positives = ends + 1 - true_positives
    return Ranking(descending[ends], true_positives, false_positives, int(true_positives[-1]), int(false_positives[-1]))


def one_class_only(rank: Ranking) -> bool:
    """Whether there is only one class."""
    return not (rank.positives and rank.negatives)


def auroc(rank: Ranking) -> float:
    """The area by trapezoids: the share of pairs in the right order, ties counted half (Hanley and McNeil 1982)."""
    if one_class_only(rank):
        return math.nan
    before = np.concatenate([[0], rank.true_positives[:-1]])
    twice = (np.diff(rank.false_positives, prepend=0) * (rank.true_positives + before)).sum()
    return float(twice / (2 * rank.positives * rank.negatives))


def average_precision(rank: Ranking) -> float:
    """The step sum of precision over recall, without interpolation; NaN of one class only."""
    if one_class_only(rank):
        return math.nan
    precision = rank.true_positives / (rank.true_positives + rank.false_positives)
    return float((np.diff(rank.true_positives, prepend=0) * precision).sum() / rank.positives)


def precision_recall(rank: Ranking) -> Curve:
    """The empirical precision-recall curve, a point for each distinct score, from recall 0 to 1."""
    return Curve(
        x=np.concatenate([[0.0], rank.true_positives / rank.positives]),
        y=np.concatenate([[1.0], rank.true_positives / (rank.true_positives + rank.false_positives)]),
        thresholds=np.concatenate([[math.inf], rank.scores]),
    )
