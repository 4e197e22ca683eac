"""How good a classification is: columns of its answers, what is fitted, and its own tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import EvaluationPart
from zooft.errors import RunError
from zooft.evaluation.bootstrap import Interval, share
from zooft.evaluation.groups import are_known, members_of
from zooft.problems.classification import calibration as calibrating
from zooft.problems.classification import groups
from zooft.problems.classification.calibration import Calibration, OperatingPoint
from zooft.problems.classification.metrics import SMALLER_IS_BETTER, confusion, decide

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Columns, Fitted, Labels
    from zooft.evaluation.predictions import Predictions
    from zooft.problems.classification.calibration import Activation

Metrics = Callable[["NDArray[Any]", "NDArray[Any]"], Mapping[str, float]]
UNKNOWN = -1
"""The target's column of a sample that is only to be predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """One class of the per-class table."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What `Evaluation.details` holds of a classification.

    Attributes:
        per_class: one row a class, per sample.
        confusion: per sample; rows are true classes, columns those predicted, at `threshold` where there is one.
        group_confusion: as `confusion`, with one answer a group; empty where no group has two samples.
        threshold: the operating threshold of two classes; None where the likelier class is predicted.
        at_threshold: sensitivity, specificity, ppv and npv at `threshold`, per group where groups are known, else per
            sample; empty without a threshold.
    """

    per_class: tuple[ClassRow, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    group_confusion: tuple[tuple[int, ...], ...] = ()
    threshold: float | None = None
    at_threshold: Mapping[str, Interval] = field(default_factory=dict)


def evaluation_part(
    *, metrics: Metrics, primary: str, activation: Activation, point: Callable[[Any], OperatingPoint | None]
) -> EvaluationPart:
    """How classes are evaluated.

    Args:
        metrics: of targets ``(N,)`` and probabilities ``(N, classes)``.
        primary: the one that chooses the best epoch.
        activation: logits to probabilities.
        point: from a task's options to the rule of two classes' threshold.
    """
    return EvaluationPart(
        columns=partial(_columns, activation),
        metrics=_OfColumns(metrics),
        primary=primary,
        smaller=SMALLER_IS_BETTER,
        group=groups.group_columns,
        rules=groups.RULES,
        decisive=groups.decisive,
        one_answer=groups.one_class,
        fit=partial(_fit, activation, point),
        apply=partial(_apply, activation),
        details=_details,
        telling=("accuracy", "balanced_accuracy"),
        guessing=_chance_level,
        moved=_move,
    )


def calibration_of(fitted: Fitted) -> Calibration:
    """What was fitted, as a type.

    Raises:
        RunError: a damaged record or file states that something else was.
    """
    try:
        return Calibration(**fitted)
    except TypeError as error:
        raise RunError(
            f"fitted is damaged, it isn't a temperature and a threshold: {error}; train the run again"
        ) from error


def targets_column(targets: Sequence[Any]) -> NDArray[np.int64]:
    """Class indices ``(N,)``; `UNKNOWN` for samples without one."""
    return np.array([UNKNOWN if target is None else target for target in targets], dtype=np.int64)


def predicted_classes(predictions: Predictions, threshold: float | None = None) -> NDArray[np.int64]:
    """Class indices ``(N,)``, at each row's own threshold where there is one."""
    return decide(predictions["probabilities"], predictions.columns.get("threshold", threshold))


def probabilities_of(logits: NDArray[Any], activation: Activation) -> NDArray[Any]:
    """Probabilities ``(N, classes)`` float32, by torch's own functions in float32."""
    import torch

    found = torch.from_numpy(np.asarray(logits))
    return (torch.sigmoid(found) if activation == "sigmoid" else found.softmax(1)).numpy()


def _columns(activation: Activation, outputs: Columns, targets: Sequence[Any], _labels: Labels) -> Columns:
    logits = outputs["logits"]
    return {
        "target": targets_column(targets),
        "logits": logits,
        "probabilities": probabilities_of(logits, activation),
    }


class _OfColumns:
    """Figures of predictions from those of targets and probabilities.

    Args:
        metrics: as `evaluation_part` takes them.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.__wrapped__ = metrics  # whose code a message names

    def __call__(self, predictions: Predictions, _labels: Labels) -> Mapping[str, float]:
        return self.__wrapped__(predictions["target"], predictions["probabilities"])


def _fit(
    activation: Activation,
    point: Callable[[Any], OperatingPoint | None],
    predictions: Predictions,
    _labels: Labels,
    rule: str,
    options: Any,
) -> Fitted:
    """Temperature and threshold that fit uncalibrated answers; neither where the task wants none."""
    wanted = point(options)
    if wanted is None:
        return {}
    return asdict(
        calibrating.fit(
            predictions["logits"],
            predictions["target"],
            wanted,
            activation=activation,
            fitted_on="",
            members=members_of(predictions.groups),
            rule=rule or groups.RULES[0],
        )
    )


def _apply(activation: Activation, predictions: Predictions, fitted: Fitted, _labels: Labels) -> Predictions:
    # a temperature that stayed 1 too: all figures of one model are by the same arithmetic
    calibration, logits = calibration_of(fitted), predictions["logits"]
    predictions = predictions.with_columns(
        logits=logits / np.asarray(calibration.temperature, logits.dtype),
        probabilities=calibrating.apply(calibration, logits, activation),
    )
    return with_threshold(predictions, calibration.threshold)


def with_threshold(predictions: Predictions, threshold: float | None) -> Predictions:
    """The same answers with a threshold in each row."""
    return (
        predictions if threshold is None else predictions.with_columns(threshold=np.full(len(predictions), threshold))
    )


def _details(
    predictions: Predictions, grouped: Predictions | None, labels: Labels, fitted: Fitted, intervals: bool
) -> Mapping[str, Any]:
    everyone, threshold = predictions.groups, calibration_of(fitted).threshold
    line = predictions.columns.get("threshold")
    matrix = confusion(predictions["target"], predictions["probabilities"], threshold=line)
    several = grouped is not None and are_known(everyone) and len(grouped) < len(predictions)
    of_groups = None if grouped is None else _confusion(grouped)
    return asdict(
        Details(
            per_class=tuple(_row(name, matrix, index) for index, name in enumerate(labels[0].categories)),
            confusion=_plain(matrix),
            group_confusion=_plain(of_groups) if several and of_groups is not None else (),
            threshold=threshold,
            at_threshold={} if of_groups is None or threshold is None else _at_threshold(of_groups, interval=intervals),
        )
    )


def _chance_level(labels: Labels) -> Mapping[str, float]:
    return {"balanced_accuracy": 1 / len(labels[0].categories), "auroc": 0.5}


def _move(before: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    """Half of what two confusion matrices differ by: who left a cell came into another."""
    if "confusion" not in before:
        return math.nan
    was, found = (np.array(details["confusion"], dtype=float) for details in (before, now))
    return float(np.abs(found - was).sum() / 2) if was.shape == found.shape else math.inf


def _confusion(predictions: Predictions) -> NDArray[np.int64]:
    return confusion(
        predictions["target"], predictions["probabilities"], threshold=predictions.columns.get("threshold")
    )


def details_of(values: Mapping[str, Any]) -> Details:
    """`Evaluation.details` as a type, also from ``run.json`` or metadata."""
    return Details(
        per_class=tuple(ClassRow(**{key: _number(value) for key, value in row.items()}) for row in values["per_class"]),
        confusion=tuple(tuple(row) for row in values["confusion"]),
        group_confusion=tuple(tuple(row) for row in values["group_confusion"]),
        threshold=values["threshold"],
        at_threshold={
            name: Interval(_number(found["value"]), found["low"], found["high"])
            for name, found in values["at_threshold"].items()
        },
    )


def _number(value: Any) -> Any:
    return math.nan if value is None else value


def _at_threshold(matrix: NDArray[np.int64], *, interval: bool) -> dict[str, Interval]:
    (true_negatives, false_positives), (missed, true_positives) = _plain(matrix)
    shares = {
        "sensitivity": (true_positives, true_positives + missed),
        "specificity": (true_negatives, true_negatives + false_positives),
        "ppv": (true_positives, true_positives + false_positives),
        "npv": (true_negatives, true_negatives + missed),
    }
    return {name: share(part, whole, interval=interval) for name, (part, whole) in shares.items()}


def _plain(matrix: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(n) for n in row) for row in matrix)


def _row(name: str, matrix: NDArray[np.int64], index: int) -> ClassRow:
    right, truth, predicted_so = int(matrix[index, index]), int(matrix[index].sum()), int(matrix[:, index].sum())
    return ClassRow(
        name=name,
        # a class that is never predicted, or has no samples: 0 would be a verdict
        precision=right / predicted_so if predicted_so else math.nan,
        recall=right / truth if truth else math.nan,
        f1=2 * right / (truth + predicted_so) if truth + predicted_so else math.nan,
        support=truth,
    )
