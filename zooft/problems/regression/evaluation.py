"""How good predicted numbers are, in their units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from zooft.contracts import EvaluationPart
from zooft.problems.regression.metrics import SMALLER_IS_BETTER, all_figures, figures
from zooft.problems.regression.scaling import HEAD, numbers_of, scale_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Columns, Fitted, Labels
    from zooft.evaluation.predictions import Predictions

Primary = Literal["r2", "mae", "rmse"]
RULES = ("mean", "max")
"""The mean, or the largest number, of a group's samples: of what is predicted and of what is true."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberRow:
    """One number's errors.

    Attributes:
        name: of the number.
        unit: of it and of all figures but `r2`.
        samples: of which it is known.
        r2: share of the variance that is explained.
        mae: mean absolute error.
        rmse: root mean squared error.
        bias: mean error, predicted less true.
        low: bias less 1.96 standard deviations of the errors, the lower limit of agreement (Bland and Altman 1986).
        high: the upper one.
    """

    name: str
    unit: str
    samples: int
    r2: float
    mae: float
    rmse: float
    bias: float
    low: float
    high: float


def evaluation_part(primary: Primary) -> EvaluationPart:
    """How numbers are evaluated.

    Args:
        primary: the figure that chooses the best epoch.
    """
    return EvaluationPart(
        columns=_columns,
        metrics=_metrics,
        primary=primary,
        smaller=frozenset(SMALLER_IS_BETTER),
        group=_group,
        rules=RULES,
        decisive=_decisive,
        details=_details,
        telling=SMALLER_IS_BETTER,
    )


def column(numbers: NDArray[Any], labels: Labels) -> NDArray[Any]:
    """``(N, L)``, or ``(N,)`` of one number."""
    return numbers[:, 0] if len(labels) == 1 else numbers


def as_table(predictions: Predictions, name: str) -> NDArray[Any]:
    """A column ``(N, L)``, of one number too."""
    return predictions[name].reshape(len(predictions), -1)


def rows_of(details: Mapping[str, Any]) -> tuple[NumberRow, ...]:
    """`Evaluation.details` as a type, also from ``run.json`` or metadata."""
    rows: Any = details["numbers"]
    return tuple(NumberRow(**{key: _or_nan(value) for key, value in row.items()}) for row in rows)


def _or_nan(value: Any) -> Any:
    return math.nan if value is None else value


def _columns(outputs: Columns, targets: Sequence[Any], labels: Labels) -> Columns:
    return {
        "target": column(numbers_of(targets, labels), labels),
        "prediction": column(scale_of(labels).restore(outputs[HEAD]), labels),
    }


def _metrics(predictions: Predictions, labels: Labels) -> Mapping[str, float]:
    return all_figures(predictions["target"], predictions["prediction"], [label.name for label in labels])


def _group(predictions: Predictions, members: Sequence[NDArray[Any]], labels: Labels, rule: str) -> Columns:
    """Targets and predictions of groups; unknown numbers of a sample don't count."""
    summed = np.nanmax if rule == "max" else np.nanmean
    found = {}
    for name in ("target", "prediction"):
        numbers = as_table(predictions, name)
        groups = np.full((len(members), len(labels)), np.nan)
        for row, rows in enumerate(members):
            known = ~np.isnan(numbers[rows]).all(0)  # of none, numpy warns
            groups[row, known] = summed(numbers[rows][:, known], axis=0)
        found[name] = column(groups, labels)
    return found


def _decisive(predictions: Predictions, labels: Labels) -> int:
    """The row whose prediction is nearest to the mean of all."""
    numbers = scale_of(labels).standardise(as_table(predictions, "prediction"))
    return int(np.abs(numbers - numbers.mean(0)).sum(1).argmin())


def _details(
    predictions: Predictions, _groups: Predictions | None, labels: Labels, _fitted: Fitted, _intervals: bool
) -> Mapping[str, Any]:
    true, predicted = as_table(predictions, "target"), as_table(predictions, "prediction")
    return {
        "numbers": [
            asdict(_row(label.name, label.unit, true[:, index], predicted[:, index]))
            for index, label in enumerate(labels)
        ]
    }


def _row(name: str, unit: str, true: NDArray[Any], predicted: NDArray[Any]) -> NumberRow:
    errors = (predicted - true)[~np.isnan(true)]
    bias = float(errors.mean()) if len(errors) else math.nan
    reach = 1.96 * float(errors.std(ddof=1)) if len(errors) > 1 else math.nan
    return NumberRow(
        name=name,
        unit=unit,
        samples=len(errors),
        **figures(true, predicted),
        bias=bias,
        low=bias - reach,
        high=bias + reach,
    )
