"""One prediction per group, such as a patient: which samples belong together, and which couldn't be predicted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from zooft.evaluation.predictions import Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Labels, Problem, Rejection


def members_of(groups: Sequence[str | None]) -> list[NDArray[np.int64]]:
    """Rows, ascending, of each group in the order of first occurrence; a row without a group (None) is its own."""
    rows: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        rows.setdefault(f"group {group}" if group is not None else f"sample {index}", []).append(index)
    return [np.array(indices) for indices in rows.values()]


def are_known(groups: Iterable[str | None]) -> bool:
    """Whether any group is known."""
    return any(group is not None for group in groups)


def group_predictions(
    problem: Problem, predictions: Predictions, members: Sequence[NDArray[np.int64]], labels: Labels, rule: str
) -> Predictions | None:
    """One prediction per group; None where the problem has none for groups.

    Args:
        problem: that has the rule.
        predictions: of samples.
        members: the rows of each group.
        labels: the meaning of the predictions.
        rule: as `Discovery.group_rule`.
    """
    group = problem.evaluation.group
    if group is None:
        return None
    columns = group(predictions, members, labels, rule or next(iter(problem.evaluation.rules), ""))
    first = [predictions.samples[rows[0]] for rows in members] if len(predictions.samples) else ()
    return Predictions(samples=first, columns=columns)


def missing_by_group(rejected: Iterable[Rejection]) -> dict[str, tuple[Rejection, ...]]:
    """Rejected files by the group that they belong to, where that is known."""
    by: dict[str, list[Rejection]] = {}
    for each in rejected:
        if each.group is not None:
            by.setdefault(each.group, []).append(each)
    return {group: tuple(own) for group, own in by.items()}


def missing_groups(rejected: Iterable[Rejection], answered: Collection[str]) -> dict[str, tuple[Rejection, ...]]:
    """Groups without a prediction, since none of their files could be used, with all reasons."""
    return {group: own for group, own in missing_by_group(rejected).items() if group not in answered}
