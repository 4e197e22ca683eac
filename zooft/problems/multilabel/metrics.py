"""Figures of several labels: each label's on the samples of which it is known, and means over labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zooft.problems.ranking import auroc, average_precision, ranking

if TYPE_CHECKING:
    from numpy.typing import NDArray

START = 0.5
"""The threshold of a label for which none was fitted."""


class Counts(NamedTuple):
    """Answers about each label, ``(L,)`` each, where it is known."""

    right: NDArray[np.int64]
    false: NDArray[np.int64]
    missed: NDArray[np.int64]


def counts(targets: NDArray[Any], present: NDArray[Any]) -> Counts:
    """How often each label was found, wrongly found and missed.

    Args:
        targets: ``(N, L)``, 1, 0 or NaN where it isn't known.
        present: ``(N, L)``, whether it is predicted.
    """
    found = present.astype(bool)
    return Counts(
        right=(found & (targets == 1)).sum(0),
        false=(found & (targets == 0)).sum(0),
        missed=(~found & (targets == 1)).sum(0),
    )


def areas(targets: NDArray[Any], probabilities: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average precision and AUROC of each label, ``(L,)``.

    NaN where it is there, or isn't, in all samples of which it is known.

    Args:
        targets: ``(N, L)``, 1, 0 or NaN.
        probabilities: ``(N, L)``.
    """
    found = np.full((2, targets.shape[1]), math.nan)
    for index, (true, scores) in enumerate(zip(targets.T, probabilities.T, strict=True)):
        known = ~np.isnan(true)
        positive = true[known] == 1
        if 0 < positive.sum() < len(positive):
            rank = ranking(positive, scores[known])
            found[:, index] = average_precision(rank), auroc(rank)
    return found[0], found[1]


def f1(found: Counts) -> NDArray[np.float64]:
    """Of each label ``(L,)``; NaN where it is neither there nor predicted."""
    ends = 2 * found.right + found.false + found.missed
    return np.where(ends > 0, 2 * found.right / np.maximum(ends, 1), math.nan)


def figures(targets: NDArray[Any], probabilities: NDArray[Any], present: NDArray[Any]) -> Mapping[str, float]:
    """Mean average precision, mean AUROC, micro and macro F1, as scikit-learn defines them.

    Means are over the labels of which the figure is defined: ``average_precision_score`` and ``roc_auc_score`` of
    labels that are there in some samples and not in others, ``f1_score`` with ``zero_division=nan``.

    Args:
        targets: ``(N, L)``, 1, 0 or NaN where it isn't known.
        probabilities: ``(N, L)``.
        present: ``(N, L)``, whether the label is predicted.
    """
    precisions, ranked = areas(targets, probabilities)
    found = counts(targets, present)
    whole = 2 * int(found.right.sum()) + int(found.false.sum()) + int(found.missed.sum())
    return {
        "map": mean(precisions),
        "auroc": mean(ranked),
        "micro_f1": 2 * int(found.right.sum()) / whole if whole else math.nan,
        "macro_f1": mean(f1(found)),
    }


def mean(values: NDArray[np.float64]) -> float:
    """Over those that are defined; NaN where none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def best_threshold(targets: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """The threshold of one label with the largest F1, in the middle of a gap between probabilities.

    Of several the highest.

    It is a number of float32, as the deployed graph compares.

    Args:
        targets: ``(N,)``, 1, 0 or NaN.
        probabilities: ``(N,)`` float32.

    Returns:
        `START` where the label is there, or isn't, in all samples of which it is known.
    """
    known = ~np.isnan(targets)
    positive = targets[known] == 1
    if not 0 < positive.sum() < len(positive):
        return START
    rank = ranking(positive, probabilities[known].astype(np.float32))
    values = 2 * rank.true_positives / (rank.true_positives + rank.false_positives + rank.positives)
    place = int(values.argmax())
    upper, lower = rank.scores[place], rank.scores[place + 1] if place + 1 < len(rank.scores) else np.float32(0)
    middle = np.float32((float(upper) + float(lower)) / 2)
    return float(middle if middle > lower else upper)  # between neighbours there is no number


def best_thresholds(targets: NDArray[Any], probabilities: NDArray[Any]) -> Sequence[float]:
    """`best_threshold` of each label."""
    return [best_threshold(*pair) for pair in zip(targets.T, probabilities.T, strict=True)]
