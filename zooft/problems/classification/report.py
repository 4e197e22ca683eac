"""What a classification's report shows of one split.

Confusion, figures at the threshold, classes, curves, calibration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.evaluation.groups import members_of
from zooft.problems.classification import calibration as calibrating
from zooft.problems.classification import curves
from zooft.problems.classification.calibration import Calibration
from zooft.problems.classification.evaluation import calibration_of, details_of
from zooft.problems.classification.groups import RULES, group_answers, nothing_index
from zooft.problems.classification.remarks import mixed_groups, one_answer, one_class
from zooft.report import embedded_images, formatting
from zooft.report.blocks import Block, Drawing, Folded, Grid, Photo, Row, Shaded, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from zooft.contracts import Fitted, Labels
    from zooft.evaluation.evaluate import Evaluated, Evaluation
    from zooft.evaluation.predictions import Predictions
    from zooft.problems.classification.calibration import Activation
    from zooft.problems.classification.evaluation import ClassRow, Details

MOST_NAMED = 12
"""Classes with a row and a column of their own in the confusion matrix."""
MOST_CONFUSIONS = 20


def sections(evaluated: Evaluated, labels: Labels, fitted: Fitted, rule: str) -> list[Block]:
    """Blocks below the figures of one split.

    Args:
        evaluated: predictions and figures of the split.
        labels: one, with the classes.
        fitted: temperature and threshold.
        rule: how a group's samples make one answer.
    """
    evaluation, predictions = evaluated.evaluation, evaluated.predictions
    classes, details = labels[0].categories, details_of(evaluation.details)
    notes: list[Block] = [Text(text, "warning") for text in one_class(evaluation, labels)]
    notes += [Text(text) for text in mixed_groups(evaluation, labels)]
    if details.threshold is not None:
        notes.append(_threshold(details.threshold, classes, fitted))
    notes += [Text(text, "warning") for text in one_answer(evaluation, labels)]
    shown = [*notes, *_at_the_decision(evaluation, details, classes), _per_class(details.per_class)]
    if len(predictions):
        shown += [Row(blocks=_curves(evaluated, details, labels, fitted, rule)), *_temperature(fitted)]
    return shown


def _threshold(threshold: float, classes: Sequence[str], fitted: Fitted) -> Text:
    text = f"The model predicts {classes[-1]} at p ≥ {threshold:.3f}"
    where = calibration_of(fitted).fitted_on
    return Text(f"{text} (fitted on {where})." if where else f"{text}.")


def _at_the_decision(evaluation: Evaluation, details: Details, classes: Sequence[str]) -> list[Block]:
    """Figures at the threshold, and confusion, per group first."""
    per_sample = np.array(details.confusion)
    tables: list[Grid | Shaded] = []
    if details.at_threshold:
        tables.append(_at_threshold(evaluation, details))
    if len(classes) > MOST_NAMED:
        return [*tables, *_many_classes(per_sample, classes)]
    if details.group_confusion:
        grouped = np.array(details.group_confusion)
        tables.append(_shade(f"Confusion per {evaluation.group_name}", grouped, classes))
    tables.append(_shade("Confusion per sample", per_sample, classes))
    return [Row(blocks=tuple(tables))] if len(classes) <= 3 else [*tables]


def _at_threshold(evaluation: Evaluation, details: Details) -> Grid:
    rows = tuple(
        (formatting.metric(name), formatting.figure(value.value), formatting.interval(value))
        for name, value in details.at_threshold.items()
    )
    level = evaluation.group_name if evaluation.groups else "sample"
    return Grid(title=f"At this threshold, per {level}", columns=("Figure", "Value", "95 % interval"), rows=rows)


def _shade(title: str, matrix: NDArray[Any], classes: Sequence[str]) -> Shaded:
    share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    return Shaded(
        title=title,
        names=tuple(classes),
        counts=tuple(tuple(int(n) for n in row) for row in matrix),
        shares=tuple(tuple(round(s) for s in row) for row in share.tolist()),
    )


def _many_classes(matrix: NDArray[Any], classes: Sequence[str]) -> list[Block]:
    """A picture of the whole matrix, and the most frequent confusions by name."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [(int(i // len(classes)), int(i % len(classes))) for i in order if wrong.flat[i]]
    rows = tuple((classes[true], classes[other], f"{int(wrong[true, other]):,}") for true, other in pairs)
    table = Grid(title="Most frequent confusions", columns=("True", "Predicted", "Samples"), rows=rows)
    picture = Photo(
        sources=(embedded_images.shares(matrix),),
        alt="Confusion matrix as a picture",
        title="Confusion matrix",
        lines=("Rows are true classes, columns predicted ones, in the classes' order; darker is a larger share.",),
    )
    return [Row(blocks=(picture, table) if rows else (picture,))]


def _per_class(per_class: Sequence[ClassRow]) -> Block:
    rows = tuple(
        (
            row.name,
            formatting.figure(row.precision),
            formatting.figure(row.recall),
            formatting.figure(row.f1),
            f"{row.support:,}",
        )
        for row in per_class
    )
    grid = Grid(title="Per class", columns=("Class", "Precision", "Recall", "F1", "Samples"), rows=rows)
    return grid if len(rows) <= MOST_NAMED else Folded(f"Figures for each of {len(rows)} classes", (grid,))


def _curves(evaluated: Evaluated, details: Details, labels: Labels, fitted: Fitted, rule: str) -> tuple[Drawing, ...]:
    """ROC and precision-recall curves at the level at which the threshold was chosen, and reliability per sample."""
    evaluation, predictions, classes = evaluated.evaluation, evaluated.predictions, labels[0].categories
    name, threshold = evaluation.split, details.threshold
    probabilities = np.asarray(predictions["probabilities"], dtype=np.float64)
    targets, scores, level = predictions["target"], probabilities, "per sample"
    if evaluation.groups:
        members = members_of(predictions.groups)
        grouped = group_answers(targets, probabilities, members, rule or RULES[0], nothing=nothing_index(labels))
        if len(set(grouped[0].tolist())) > 1:
            (targets, scores), level = grouped, f"per {evaluation.group_name}"
    of = classes[1] if len(classes) == 2 else "the likeliest class"
    drawn = (
        curves.roc(targets, scores, classes, name=name, threshold=threshold, level=level),
        curves.precision_recall(targets, scores, classes, name=name, threshold=threshold, level=level),
        curves.reliability(
            predictions["target"],
            probabilities,
            _uncalibrated_probabilities(predictions, fitted, name),
            name=name,
            of=of,
        ),
    )
    return tuple(drawing for drawing in drawn if drawing is not None)


def _uncalibrated_probabilities(predictions: Predictions, fitted: Fitted, split: str) -> NDArray[Any] | None:
    """Probabilities without temperature, where the temperature of these samples is known.

    Not of cross-validation, where each fold has its own.
    """
    temperature = calibration_of(fitted).temperature
    if split == "cross-validation" or temperature == 1.0:
        return None
    sums = predictions["probabilities"].sum(1)
    activation: Activation = "softmax" if np.allclose(sums, 1, atol=1e-3) else "sigmoid"
    return calibrating.apply(Calibration(), np.asarray(predictions["logits"]) * temperature, activation)


def _temperature(fitted: Fitted) -> list[Block]:
    temperature = calibration_of(fitted).temperature
    return [] if temperature == 1.0 else [Text(f"Temperature {temperature:.3f} is part of the deployed file.")]
