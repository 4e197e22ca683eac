"""How good predicted grades are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import EvaluationPart
from zooft.problems.ordinal.links import HEAD, cumulative_logits, median_grade, probabilities
from zooft.problems.ordinal.metrics import SMALLER_IS_BETTER, confusion, figures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Columns, Fitted, Labels
    from zooft.evaluation.predictions import Predictions

RULES = ("mean", "max")
"""The mean of the probabilities against the median of the true grades, or the highest grade of both."""
UNKNOWN = -1
"""The target's column of a sample that is only to be predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What `Evaluation.details` holds of grades.

    Attributes:
        confusion: per sample; rows are true grades, columns predicted ones.
        group_confusion: as `confusion`, with one answer a group; empty where no group has two samples.
        mae: of each grade, how far its samples' predictions are from it on average; NaN of one without samples.
    """

    confusion: tuple[tuple[int, ...], ...]
    group_confusion: tuple[tuple[int, ...], ...]
    mae: tuple[float, ...]


def evaluation_part() -> EvaluationPart:
    """How grades are evaluated."""
    return EvaluationPart(
        columns=_columns,
        metrics=_metrics,
        primary="quadratic_kappa",
        smaller=SMALLER_IS_BETTER,
        group=_group,
        rules=RULES,
        decisive=_decisive,
        one_answer=_one_grade,
        details=_details,
        telling=("mae", "accuracy"),
        guessing=_chance_level,
        moved=_move,
    )


def targets_column(targets: Sequence[Any]) -> NDArray[np.int64]:
    """Grades ``(N,)``; `UNKNOWN` for samples without one."""
    return np.array([UNKNOWN if target is None else target for target in targets], dtype=np.int64)


def details_of(values: Mapping[str, Any]) -> Details:
    """`Evaluation.details` as a type, also from ``run.json`` or metadata."""
    return Details(
        confusion=tuple(tuple(row) for row in values["confusion"]),
        group_confusion=tuple(tuple(row) for row in values["group_confusion"]),
        mae=tuple(math.nan if value is None else value for value in values["mae"]),
    )


def _columns(outputs: Columns, targets: Sequence[Any], _labels: Labels) -> Columns:
    logits = cumulative_logits(outputs[HEAD])
    return {
        "target": targets_column(targets),
        "probabilities": probabilities(logits).astype(np.float32),
        "prediction": np.asarray((logits > 0).sum(1), np.int64),
    }


def _metrics(predictions: Predictions, labels: Labels) -> Mapping[str, float]:
    return figures(predictions["target"], predictions["prediction"], len(labels[0].categories))


def _group(predictions: Predictions, members: Sequence[NDArray[Any]], labels: Labels, rule: str) -> Columns:
    """One grade a group; a true one between two is the lower."""
    given, true = predictions["probabilities"].astype(np.float64), predictions["target"]
    if rule == "max":
        predicted = predictions["prediction"]
        highest = [rows[np.lexsort((_expected_grade(given[rows]), predicted[rows]))[-1]] for rows in members]
        return {
            "target": np.array([true[rows].max() for rows in members], np.int64),
            "probabilities": given[highest],
            "prediction": predicted[highest],
        }
    means = np.array([given[rows].mean(0) for rows in members]).reshape(len(members), len(labels[0].categories))
    medians = [np.sort(true[rows])[(len(rows) - 1) // 2] for rows in members]
    return {"target": np.array(medians, np.int64), "probabilities": means, "prediction": median_grade(means)}


def _expected_grade(given: NDArray[Any]) -> NDArray[np.float64]:
    """The expected grade ``(N,)``."""
    return np.asarray(given @ np.arange(given.shape[1]), np.float64)


def _decisive(predictions: Predictions, _labels: Labels) -> int:
    """The row of the highest expected grade: what is to be checked first."""
    return int(_expected_grade(predictions["probabilities"]).argmax())


def _one_grade(predictions: Predictions, groups: Predictions, labels: Labels) -> str:
    alike = len(np.unique(groups["target"])) == 1 < len(np.unique(predictions["target"]))
    return labels[0].categories[groups["target"][0]] if alike else ""


def _chance_level(_labels: Labels) -> Mapping[str, float]:
    return {"quadratic_kappa": 0.0}


def _details(
    predictions: Predictions, groups: Predictions | None, labels: Labels, _fitted: Fitted, _intervals: bool
) -> Mapping[str, Any]:
    grades = len(labels[0].categories)
    several = groups is not None and len(groups) < len(predictions)
    return asdict(
        Details(
            confusion=_matrix(predictions, grades),
            group_confusion=_matrix(groups, grades) if several and groups is not None else (),
            mae=tuple(_mae(predictions, grade) for grade in range(grades)),
        )
    )


def _matrix(predictions: Predictions, grades: int) -> tuple[tuple[int, ...], ...]:
    matrix = confusion(predictions["target"], predictions["prediction"], grades)
    return tuple(tuple(int(count) for count in row) for row in matrix)


def _mae(predictions: Predictions, grade: int) -> float:
    apart = np.abs(predictions["prediction"][predictions["target"] == grade] - grade)
    return float(apart.mean()) if len(apart) else math.nan


def _move(before: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    """Half of what two confusion matrices differ by: who left a cell came into another."""
    if "confusion" not in before:
        return math.nan
    was, found = (np.array(details["confusion"], dtype=float) for details in (before, now))
    return float(np.abs(found - was).sum() / 2) if was.shape == found.shape else math.inf
