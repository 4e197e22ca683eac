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
"""The mean of the probabilities, or those of the sample that speaks most for a finding: see `most_telling`."""
MOST_LISTED = 12
"""Classes that are named in a sentence."""


def group_columns(predictions: Predictions, members: Sequence[NDArray[Any]], labels: Labels, rule: str) -> Columns:
    """Targets ``(G,)`` and probabilities ``(G, classes)`` of groups; thresholds of each fold where there are any."""
    targets, probabilities = group_answers(
        predictions["target"], predictions["probabilities"], members, rule, nothing=nothing_index(labels)
    )
    columns = {"target": targets, "probabilities": probabilities}
    if "threshold" in predictions.columns:  # those of one group are alike
        columns["threshold"] = predictions["threshold"][[rows[0] for rows in members]]
    return columns


def group_answers(
    targets: NDArray[Any],
    probabilities: NDArray[Any],
    members: Sequence[NDArray[Any]],
    rule: str,
    *,
    nothing: int | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """What each group truly is, by `truth`, and its probabilities.

    Args:
        targets: ``(N,)`` class indices.
        probabilities: ``(N, classes)``.
        members: the rows of each of G groups.
        rule: one of `RULES`.
        nothing: the class that means that nothing was found, of three and more; None for none.

    Returns:
        Targets ``(G,)`` and probabilities ``(G, classes)``.
    """
    classes = probabilities.shape[1]
    true = np.array([truth(targets[rows], classes, nothing) for rows in members], dtype=np.int64)
    if rule != "max":
        return true, _means(probabilities, members)
    chosen = [rows[most_telling(probabilities[rows], nothing)] for rows in members]
    return true, probabilities[np.array(chosen, dtype=np.int64)]


def truth(targets: NDArray[Any], classes: int, nothing: int | None) -> int:
    """The class that a group counts as.

    Of two classes the second, if any sample is of it. Of more, the one that most samples are of, of equally many the
    later; samples of the class for having found nothing don't count where any other does.

    Args:
        targets: ``(N,)`` class indices of the group's samples; below 0 where unknown, as the result is where all are.
        classes: how many there are.
        nothing: which of three and more means that nothing was found; None for none.
    """
    highest = int(targets.max())
    if classes < 3 or len(targets) == 1 or highest < 0:
        return highest
    known = targets[targets >= 0]
    findings = known if nothing is None else known[known != nothing]
    counts = np.bincount(findings if len(findings) else known)
    return len(counts) - 1 - int(counts[::-1].argmax())


def class_of_group(targets: Sequence[int], labels: Labels) -> int:
    """What a group counts as whose samples are of these classes: index into the classes, by the rule of `truth`."""
    return truth(np.asarray(targets, np.int64), len(labels[0].categories), nothing_index(labels))


def most_telling(probabilities: NDArray[Any], nothing: int | None) -> int:
    """The row of ``(N, classes)`` in which nothing found is least likely.

    Where no class means that, the last class likeliest.
    """
    return int(probabilities[:, -1].argmax() if nothing is None else probabilities[:, nothing].argmin())


def nothing_index(labels: Labels) -> int | None:
    """Which class means that nothing was found; None of two classes, and where none is known to."""
    label = labels[0]
    return label.categories.index(label.nothing) if label.nothing and len(label.categories) > 2 else None


def truth_in_words(labels: Labels) -> str:
    """By what rule a group counts as a class where its samples are of several."""
    classes, nothing = labels[0].categories, labels[0].nothing
    if len(classes) == 2:
        return f"each counts as {classes[-1]}, as any such sample makes it"
    of = f"of {', '.join(classes[:MOST_LISTED])}{', …' if len(classes) > MOST_LISTED else ''}"
    if nothing_index(labels) is None:
        return f"each counts as the class that most of its samples have, of equally many as the later one {of}"
    return (
        f"each counts as something other than {nothing}: as what most of its other samples are, of equally many as "
        f"the later one {of}"
    )


def decisive(predictions: Predictions, labels: Labels) -> int:
    """The row that speaks most for a finding, by `most_telling`."""
    return most_telling(predictions["probabilities"], nothing_index(labels))


def one_class(predictions: Predictions, groups: Predictions, labels: Labels) -> str:
    """The class that every group counts as though its samples are of several; "" where groups differ."""
    alike = len(np.unique(groups["target"])) == 1 < len(np.unique(predictions["target"]))
    return labels[0].categories[groups["target"][0]] if alike else ""


def _means(probabilities: NDArray[Any], members: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    means = [probabilities[rows].mean(0, dtype=np.float64) for rows in members]
    return np.array(means).reshape(len(members), probabilities.shape[1])
