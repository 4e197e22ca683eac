"""How good predicted labels are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import EvaluationPart
from zooft.evaluation.groups import members_of
from zooft.evaluation.predictions import Predictions
from zooft.problems.multilabel import metrics
from zooft.problems.multilabel.head import HEAD
from zooft.problems.multilabel.training import targets_column

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Columns, Fitted, Labels

RULES = ("max", "mean")
"""A label that any sample of a group has, or those that most have: the largest probability, or the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """One label's figures.

    Attributes:
        name: of the label.
        known: samples of which it is known.
        positives: those that have it.
        ap: average precision.
        auroc: area under the ROC curve.
        threshold: from which probability on it is predicted; NaN where samples have several, as in a cross-validation.
        precision: at that threshold; NaN where it is never predicted.
        recall: at that threshold; NaN where no sample has it.
        f1: at that threshold.
        right: samples that have it and get it.
        false: samples that don't have it and get it.
    """

    name: str
    known: int
    positives: int
    ap: float
    auroc: float
    threshold: float
    precision: float
    recall: float
    f1: float
    right: int
    false: int


def evaluation_part() -> EvaluationPart:
    """How labels are evaluated."""
    return EvaluationPart(
        columns=_columns,
        metrics=_metrics,
        primary="map",
        group=_group,
        decisive=_decisive,
        rules=RULES,
        fit=_fit,
        apply=_apply,
        details=_details,
        telling=("auroc", "micro_f1"),
        guessing=_chance_level,
        moved=_move,
    )


def thresholds_of(fitted: Fitted, labels: Labels) -> NDArray[np.float32]:
    """``(L,)``."""
    return np.array(fitted.get("thresholds", [metrics.START] * len(labels)), np.float32)


def rows_of(details: Mapping[str, Any]) -> tuple[LabelRow, ...]:
    """`Evaluation.details` as a type, also from ``run.json`` or metadata."""
    rows: Any = details["per_label"]
    return tuple(LabelRow(**{key: _or_nan(value) for key, value in row.items()}) for row in rows)


def _or_nan(value: Any) -> Any:
    return math.nan if value is None else value


def decide(columns: Columns, thresholds: NDArray[Any]) -> Columns:
    """Columns with those thresholds ``(N, L)`` or ``(L,)``, and what they decide."""
    probabilities = columns["probabilities"]
    lines = np.broadcast_to(thresholds, probabilities.shape).astype(np.float32)
    return {**columns, "threshold": lines, "present": (probabilities >= lines).astype(np.uint8)}


def _columns(outputs: Columns, targets: Sequence[Any], labels: Labels) -> Columns:
    import torch

    logits = np.asarray(outputs[HEAD], np.float32)
    columns = {
        "target": targets_column(targets, labels),
        "logits": logits,
        "probabilities": torch.sigmoid(torch.from_numpy(logits)).numpy(),  # by the function that the file was made from
    }
    return decide(columns, thresholds_of({}, labels))


def _metrics(predictions: Predictions, _labels: Labels) -> Mapping[str, float]:
    return metrics.figures(predictions["target"], predictions["probabilities"], predictions["present"])


def _fit(predictions: Predictions, labels: Labels, rule: str, _options: Any) -> Fitted:
    """A threshold for each label, on answers of groups where groups are known."""
    members = members_of(predictions.groups)
    columns: Columns = predictions.columns
    of_groups = ""
    if len(members) < len(predictions):
        columns = _group(predictions, members, labels, rule or RULES[0])
        of_groups = f"on {len(members)} groups"
    found = list(metrics.best_thresholds(columns["target"], columns["probabilities"]))
    return {"thresholds": found, "fitted_on": of_groups}


def _apply(predictions: Predictions, fitted: Fitted, labels: Labels) -> Predictions:
    return predictions.with_columns(**decide(predictions.columns, thresholds_of(fitted, labels)))


def _group(predictions: Predictions, members: Sequence[NDArray[Any]], labels: Labels, rule: str) -> Columns:
    """A sample's unknown labels don't count; a label that is known of no sample of a group isn't of the group."""
    shape = (len(members), len(labels))
    largest = rule == "max"
    found = {}
    for name in ("probabilities", "logits", "threshold"):
        summed = np.max if largest and name != "threshold" else np.mean
        rows = [summed(predictions[name][own], axis=0) for own in members]
        found[name] = np.array(rows, np.float32).reshape(shape)
    targets = np.full(shape, np.nan, np.float32)
    for row, own in enumerate(members):
        present, known = (predictions["target"][own] == 1).sum(0), (~np.isnan(predictions["target"][own])).sum(0)
        has = present > 0 if largest else 2 * present >= known
        targets[row] = np.where(known > 0, has, np.nan)
    return decide({"target": targets, **found}, found["threshold"])


def _decisive(predictions: Predictions, _labels: Labels) -> int:
    """The row that is farthest above a threshold."""
    return int((predictions["probabilities"] - predictions["threshold"]).max(1).argmax())


def _chance_level(_labels: Labels) -> Mapping[str, float]:
    return {"auroc": 0.5}


def _details(
    predictions: Predictions, _groups: Predictions | None, labels: Labels, _fitted: Fitted, _intervals: bool
) -> Mapping[str, Any]:
    targets, lines = predictions["target"], predictions["threshold"]
    precisions, ranked = metrics.areas(targets, predictions["probabilities"])
    found = metrics.counts(targets, predictions["present"])
    of_both = metrics.f1(found)
    return {
        "per_label": [
            asdict(
                LabelRow(
                    name=label.name,
                    known=int((~np.isnan(targets[:, index])).sum()),
                    positives=int((targets[:, index] == 1).sum()),
                    ap=float(precisions[index]),
                    auroc=float(ranked[index]),
                    threshold=_only(lines[:, index]),
                    precision=_share(found.right[index], found.right[index] + found.false[index]),
                    recall=_share(found.right[index], found.right[index] + found.missed[index]),
                    f1=float(of_both[index]),
                    right=int(found.right[index]),
                    false=int(found.false[index]),
                )
            )
            for index, label in enumerate(labels)
        ]
    }


def _only(values: NDArray[Any]) -> float:
    return float(values[0]) if len(values) and (values == values[0]).all() else math.nan


def _share(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else math.nan


def _move(before: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    """At least so many samples get another answer about one of the labels."""
    if "per_label" not in before:
        return math.nan
    was, found = ({row.name: row for row in rows_of(details)} for details in (before, now))
    if set(was) != set(found):
        return math.inf
    return float(
        max(abs(was[name].right - found[name].right) + abs(was[name].false - found[name].false) for name in was)
    )
