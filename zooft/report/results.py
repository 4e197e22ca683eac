"""How well it does: figures with intervals, confusion, curves, calibration, subgroups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import Calibration
from zooft.evaluation import calibration as calibrating
from zooft.evaluation.metrics import SMALLER_IS_BETTER, by_group
from zooft.report import examples as answers
from zooft.report import figures, photos, words
from zooft.report.blocks import Block, Drawing, Folded, Grid, Photo, Row, Section, Shaded, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from zooft.evaluation.judge import Predictions
    from zooft.evaluation.metrics import Evaluation, Interval
    from zooft.report.inputs import Material

MOST_NAMED = 12
"""Classes with a row and a column of their own in the confusion matrix."""
MOST_CONFUSIONS = 20
MOST_SUBGROUPS = 60
_ABOUT = {
    "test": "Test samples were used for nothing but these figures.",
    "cross-validation": "Every sample was judged by a model that hadn't learnt from its group, with the temperature and the threshold that the other folds give; the deployed model learnt from all of them, and its threshold is fitted on all these answers.",
    "val": "The best epoch, and the temperature and threshold where there are any, were chosen on these samples, so the figures are a little optimistic.",
}


def results(material: Material) -> list[Section]:
    """A section for each split, that which the model is judged by first."""
    names = sorted(material.evaluations, key=lambda name: name != material.judged)
    return [_section(material, name) for name in names]


def headline(material: Material) -> tuple[str, Interval] | None:
    """The primary metric, per patient where there is such a figure, and what it is called."""
    if not material.judged:
        return None
    evaluation = material.evaluations[material.judged]
    figures_of = evaluation.group_metrics or evaluation.metrics
    name = material.primary or next(iter(figures_of))
    return (words.metric(name), figures_of[name]) if name in figures_of else None


def _section(material: Material, name: str) -> Section:
    evaluation, given = material.evaluations[name], material.predictions.get(name)
    blocks: list[Block] = [Text(_about(evaluation)), _metrics(evaluation)]
    if evaluation.one_class:
        blocks.append(Text(f"N{words.one_class(evaluation)[1:]}.", "warning"))
    if evaluation.threshold is not None:
        blocks.append(_threshold(evaluation, material))
    blocks += _decided(material, evaluation)
    blocks.append(_per_class(evaluation))
    if given is not None and len(given.targets):
        blocks.append(Row(blocks=_curves(material, evaluation, given)))
        blocks += _calibration(material)
    blocks += _subgroups(evaluation, material.primary)
    return Section(f"results-{name}", f"Results: {words.split(name)} samples", tuple(blocks))


def _about(evaluation: Evaluation) -> str:
    one, many = evaluation.group_name, words.plural(evaluation.group_name)
    of = f" of {words.count(evaluation.groups, one, many)}" if evaluation.groups else ""
    text = f"{words.count(evaluation.samples, 'sample')}{of}. {_ABOUT.get(evaluation.split, '')}"
    if evaluation.mixed_groups:
        text += f" {words.count(evaluation.mixed_groups, one + ' has', many + ' have')} samples of several classes and counts as the last of them."
    return text.strip()


def _metrics(evaluation: Evaluation) -> Grid:
    by_group = evaluation.group_metrics
    columns = (
        "Figure",
        "Per sample",
        "95 % interval",
        *((f"Per {evaluation.group_name}", "95 % interval") if by_group else ()),
    )
    rows = []
    for name, value in evaluation.metrics.items():
        label = words.metric(name) + (" (smaller is better)" if name in SMALLER_IS_BETTER else "")
        row = [label, words.figure(value.value), words.interval(value)]
        if by_group:
            other = by_group.get(name)
            row += [words.figure(other.value), words.interval(other)] if other else ["", ""]
        rows.append(tuple(row))
    drawn = words.plural(evaluation.group_name) if evaluation.groups else "samples"
    return Grid(title=f"Figures; intervals by bootstrap over {drawn}", columns=columns, rows=tuple(rows))


def _threshold(evaluation: Evaluation, material: Material) -> Text:
    text = f"The answer is {material.classes[-1]} from a probability of {evaluation.threshold:.3f} upwards"
    fitted = material.record.fitted.fitted_on
    return Text(f"{text} (fitted on {fitted})." if fitted else f"{text}.")


def _decided(material: Material, evaluation: Evaluation) -> list[Block]:
    """What comes of the answers: figures at the threshold, and confusion, per group first."""
    per_sample = np.array(evaluation.confusion)
    tables: list[Grid | Shaded] = []
    if evaluation.at_threshold:
        tables.append(_at_threshold(evaluation))
    if len(material.classes) > MOST_NAMED:
        return [*tables, *_many_classes(per_sample, material.classes)]
    if evaluation.group_confusion:
        tables.append(
            _shaded(f"Confusion per {evaluation.group_name}", np.array(evaluation.group_confusion), material.classes)
        )
    tables.append(_shaded("Confusion per sample", per_sample, material.classes))
    return [Row(blocks=tuple(tables))] if len(material.classes) <= 3 else [*tables]


def _at_threshold(evaluation: Evaluation) -> Grid:
    rows = tuple(
        (words.metric(name), words.figure(value.value), words.interval(value))
        for name, value in evaluation.at_threshold.items()
    )
    level = evaluation.group_name if evaluation.groups else "sample"
    return Grid(title=f"At this threshold, per {level}", columns=("Figure", "Value", "95 % interval"), rows=rows)


def _shaded(title: str, matrix: NDArray[Any], classes: Sequence[str]) -> Shaded:
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
    rows = tuple((classes[true], classes[said], f"{int(wrong[true, said]):,}") for true, said in pairs)
    table = Grid(title="Most frequent confusions", columns=("True", "Predicted", "Samples"), rows=rows)
    picture = Photo(
        sources=(photos.shares(matrix),), alt="Confusion matrix as a picture", title="Confusion matrix",
        lines=("Rows are true classes, columns predicted ones, in the classes' order; darker is a larger share.",),
    )  # fmt: skip
    return [Row(blocks=(picture, table) if rows else (picture,))]


def _per_class(evaluation: Evaluation) -> Block:
    rows = tuple(
        (row.name, words.figure(row.precision), words.figure(row.recall), words.figure(row.f1), f"{row.support:,}")
        for row in evaluation.per_class
    )
    grid = Grid(title="Per class", columns=("Class", "Precision", "Recall", "F1", "Samples"), rows=rows)
    return grid if len(rows) <= MOST_NAMED else Folded(f"Figures for each of {len(rows)} classes", (grid,))


def _curves(material: Material, evaluation: Evaluation, given: Predictions) -> tuple[Drawing, ...]:
    """ROC and precision-recall curves at the level at which the threshold was chosen, and reliability per sample."""
    name, threshold, classes = evaluation.split, evaluation.threshold, material.classes
    probabilities = np.asarray(given.probabilities, dtype=np.float64)
    targets, level = given.targets, "per sample"
    scores = probabilities
    if evaluation.groups:
        grouped = by_group(
            [sample.group for sample in given.samples], targets, probabilities, material.record.data.group_score
        )
        if len(set(grouped.targets.tolist())) > 1:
            targets, scores, level = grouped.targets, grouped.probabilities, f"per {evaluation.group_name}"
    of = classes[1] if len(classes) == 2 else "the likeliest class"
    drawn = (
        figures.roc(targets, scores, classes, name=name, threshold=threshold, level=level),
        figures.precision_recall(targets, scores, classes, name=name, threshold=threshold, level=level),
        figures.reliability(given.targets, probabilities, _before(material, given, name), name=name, of=of),
    )
    return tuple(drawing for drawing in drawn if drawing is not None)


def _before(material: Material, given: Predictions, name: str) -> NDArray[Any] | None:
    """Probabilities without temperature, where the temperature of these samples is known.

    Not of cross-validation, where each fold has its own.
    """
    temperature = material.record.fitted.temperature
    if name == "cross-validation" or temperature == 1.0:
        return None
    sums = given.probabilities.sum(1)
    activation = "softmax" if np.allclose(sums, 1, atol=1e-3) else "sigmoid"
    return calibrating.apply(Calibration(), np.asarray(given.logits) * temperature, activation)  # type: ignore[arg-type]


def _calibration(material: Material) -> list[Block]:
    temperature = material.record.fitted.temperature
    if temperature == 1.0:
        return []
    return [Text(f"Temperature {temperature:.3f} is part of the deployed file.")]


def _subgroups(evaluation: Evaluation, primary: str) -> list[Block]:
    if not evaluation.subgroups:
        return []
    rows = tuple(
        (
            f"{row.fact.replace('_', ' ')}: {row.value}", f"{row.samples:,}", f"{row.groups:,}" if row.groups else "",
            f"{row.positives:,}", "too few to say" if row.small else words.figure(row.metric.value),
            "" if row.small else words.interval(row.metric),
        )
        for row in evaluation.subgroups[:MOST_SUBGROUPS]
    )  # fmt: skip
    metric = words.metric(primary) if primary else "Primary metric"
    columns = (
        "Subgroup",
        "Samples",
        words.plural(evaluation.group_name).capitalize(),
        "Of the last class",
        metric,
        "95 % interval",
    )
    blocks: list[Block] = [Grid(title="Subgroups, per sample", columns=columns, rows=rows)]
    if len(evaluation.subgroups) > MOST_SUBGROUPS:
        blocks.append(Text(f"And {len(evaluation.subgroups) - MOST_SUBGROUPS} more; run.json has them all."))
    return blocks


def wrong(material: Material) -> tuple[int, int]:
    """How many answers to the judged samples are wrong, of how many."""
    given = material.predictions.get(material.judged)
    if given is None:
        return 0, 0
    said = answers.said(given, material.evaluations[material.judged].threshold)
    return int((said != given.targets).sum()), len(given.targets)
