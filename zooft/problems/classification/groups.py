"""What a group of samples, such as a patient's slices, counts as: its answer and its truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Columns, Labels
    from zooft.evaluation.predictions import Predictions

RULES = ("mean", "max")
"""The mean of the probabilities, or the probabilities of the sample in which the last class is likeliest."""


def group_columns(predictions: Predictions, members: Sequence[NDArray[Any]], _labels: Labels, rule: str) -> Columns:
    """Targets ``(G,)`` and probabilities ``(G, classes)`` of groups; thresholds of each fold where there are any."""
    targets, probabilities = group_answers(predictions["target"], predictions["probabilities"], members, rule)
    columns = {"target": targets, "probabilities": probabilities}
    if "threshold" in predictions.columns:  # those of one group are alike
        columns["threshold"] = predictions["threshold"][[rows[0] for rows in members]]
    return columns


def group_answers(
    targets: NDArray[Any], probabilities: NDArray[Any], members: Sequence[NDArray[Any]], rule: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The largest class index among each group's samples, as any positive makes it positive, and its probabilities.

    Args:
        targets: ``(N,)`` class indices.
        probabilities: ``(N, classes)``.
        members: the rows of each of G groups.
        rule: one of `RULES`.

    Returns:
        Targets ``(G,)`` and probabilities ``(G, classes)``.
    """
    decisive = np.array([rows[probabilities[rows, -1].argmax()] for rows in members], dtype=np.int64)
    truth = np.array([targets[rows].max() for rows in members], dtype=np.int64)
    return truth, probabilities[decisive] if rule == "max" else _means(probabilities, members)


def decisive(predictions: Predictions, _labels: Labels) -> int:
    """The row in which the last class is likeliest."""
    return int(predictions["probabilities"][:, -1].argmax())


def one_class(predictions: Predictions, groups: Predictions, labels: Labels) -> str:
    """The class that every group counts as though its samples are of several; "" where groups differ."""
    alike = len(np.unique(groups["target"])) == 1 < len(np.unique(predictions["target"]))
    return labels[0].categories[groups["target"][0]] if alike else ""


def _means(probabilities: NDArray[Any], members: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    means = [probabilities[rows].mean(0, dtype=np.float64) for rows in members]
    return np.array(means).reshape(len(members), probabilities.shape[1])
