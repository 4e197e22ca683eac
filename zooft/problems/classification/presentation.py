"""How a class is shown: in tables of answers, in words, and on the report's page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import Description, PresentationPart, Table
from zooft.contracts.plurals import pluralize
from zooft.evaluation.predictions import Predictions
from zooft.problems.classification import report
from zooft.problems.classification.evaluation import calibration_of, details_of, predicted_classes
from zooft.problems.classification.groups import nothing_index
from zooft.problems.classification.remarks import mixed_groups, one_answer, one_class
from zooft.report import formatting

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from zooft.contracts import Fitted, Labels
    from zooft.evaluation.bootstrap import Interval
    from zooft.evaluation.evaluate import Evaluated, Evaluation
    from zooft.problems.classification.evaluation import Details

_FEW = 4
"""Classes that have a column each on the screen."""
_LISTED = 6
"""Classes that are named in a sentence."""
_LISTED_ON_CARD = 12
_SHORT = {"ppv": "PPV", "npv": "NPV"}


def presentation_part() -> PresentationPart:
    """How classes are shown."""
    return PresentationPart(
        cells=_cells,
        columns=_names,
        target=_target,
        brief=_brief,
        record=_record,
        entries=("class",),
        about=_about,
        opening=_opening,
        worst=_worst,
        wrong=_wrong,
        caption=_caption,
        tables=_tables,
        remarks=_remarks,
        sections=_sections,
        describe=_describe,
        usage=_usage,
        explained=_explain,
    )


# tables of answers


def _names(labels: Labels) -> Sequence[str]:
    return ("class", *(f"p({name})" for name in labels[0].categories))


def _cells(predictions: Predictions, labels: Labels, _fitted: Fitted) -> Mapping[str, Sequence[Any]]:
    classes = labels[0].categories
    names = [classes[index] for index in predicted_classes(predictions)]
    each = predictions["probabilities"].T
    return {"class": names} | {f"p({name})": [float(p) for p in each[index]] for index, name in enumerate(classes)}


def _target(target: Any, labels: Labels) -> str:
    name: str = labels[0].categories[target]
    return name


def _brief(cells: Mapping[str, Any], labels: Labels) -> Mapping[str, Any]:
    """Of many classes the probability of the predicted one."""
    if len(labels[0].categories) <= _FEW:
        return cells
    return {"class": cells["class"], "probability": cells[f"p({cells['class']})"]}


def _record(cells: Mapping[str, Any], labels: Labels) -> Mapping[str, Any]:
    given = {name: cells[f"p({name})"] for name in labels[0].categories}
    return {
        "class": cells["class"],
        "probability": given[cells["class"]],
        "probabilities": {name: p if math.isfinite(p) else None for name, p in given.items()},
    }


def _about(labels: Labels, fitted: Fitted) -> Mapping[str, Any]:
    return {"classes": list(labels[0].categories), "threshold": calibration_of(fitted).threshold}


def _opening(labels: Labels, fitted: Fitted) -> Sequence[str]:
    classes, threshold = labels[0].categories, calibration_of(fitted).threshold
    if threshold is not None:
        return (f"predicts {classes[-1]} at p ≥ {threshold:.4f}",)
    return (f"the positive class is {classes[1]}",) if len(classes) == 2 else ()


# right and wrong answers


def _wrong(predictions: Predictions, _labels: Labels) -> NDArray[Any]:
    different: NDArray[Any] = predicted_classes(predictions) != predictions["target"]
    return different


def _worst(predictions: Predictions, labels: Labels) -> NDArray[Any]:
    """How sure a wrong answer is; right ones below 0, the surest lowest."""
    sure = _sureness(predictions["probabilities"], predictions.columns.get("threshold"))
    return np.where(_wrong(predictions, labels), sure, -sure)


def _sureness(probabilities: NDArray[Any], thresholds: NDArray[Any] | None) -> NDArray[np.float64]:
    """The largest probability, or how far the second class's is from the threshold, as a share of the way there is."""
    if thresholds is None:
        likeliest: NDArray[np.float64] = probabilities.max(1).astype(np.float64)
        return likeliest
    score = probabilities[:, 1].astype(np.float64)
    above = (score - thresholds) / np.maximum(1 - thresholds, 1e-9)
    below = (thresholds - score) / np.maximum(thresholds, 1e-9)
    sure: NDArray[np.float64] = np.where(score >= thresholds, above, below)
    return sure


def _caption(predictions: Predictions, labels: Labels, _fitted: Fitted) -> tuple[str, Sequence[str]]:
    """The true and the predicted class, and how sure the answer is."""
    classes, which, probabilities = (
        labels[0].categories,
        int(predicted_classes(predictions)[0]),
        predictions["probabilities"],
    )
    line = f"probability of {classes[which]}: {float(probabilities[0, which]):.1%}"
    if "threshold" in predictions.columns:
        threshold = float(predictions["threshold"][0])
        line = f"probability of {classes[-1]}: {float(probabilities[0, -1]):.1%}, threshold {threshold:.1%}"
    target = int(predictions["target"][0])
    if target < 0:
        return f"predicted {classes[which]}", (line,)
    right = which == target
    return f"{classes[target]}, predicted {'correctly' if right else 'as ' + classes[which]}", (line,)


def _explain(outputs: Mapping[str, Tensor], row: Mapping[str, Any], labels: Labels) -> tuple[Tensor, str]:
    """The predicted class's logit."""
    which = int(predicted_classes(_one_row(row))[0])
    return outputs["logits"][0, which], labels[0].categories[which]


def _one_row(row: Mapping[str, Any]) -> Predictions:
    return Predictions(samples=(), columns={name: np.asarray(value)[None] for name, value in row.items()})


# the screen


def _tables(evaluation: Evaluation, _labels: Labels) -> Sequence[Table]:
    rows = tuple(
        (row.name, _figure(row.precision), _figure(row.recall), _figure(row.f1), str(row.support))
        for row in details_of(evaluation.details).per_class
    )
    return (Table(title="", columns=("class", "precision", "recall", "F1", "samples"), rows=rows),)


def _remarks(evaluation: Evaluation, labels: Labels) -> Sequence[str]:
    details, classes = details_of(evaluation.details), labels[0].categories
    return (
        *mixed_groups(evaluation, labels),
        *(f"warning: {text}" for text in one_class(evaluation, labels)),
        *_threshold(evaluation, details, classes),
        *(f"warning: {text}" for text in one_answer(evaluation, labels)),
    )


def _threshold(evaluation: Evaluation, details: Details, classes: Sequence[str]) -> Sequence[str]:
    if details.threshold is None:
        return ()
    per = evaluation.group_name if evaluation.groups and not evaluation.one_class else "sample"
    figures = ", ".join(f"{_SHORT.get(name, name)} {_with_ends(found)}" for name, found in details.at_threshold.items())
    found = f"; per {per}: {figures}" if figures else ""
    return (
        f"predicts {classes[-1]} at p ≥ {details.threshold:.4f}{found}\n"
        "The table of classes is at this threshold, per sample; any accuracy above is of the likelier class.",
    )


def _figure(value: float) -> str:
    return formatting.figure(value, 4)


def _with_ends(found: Interval) -> str:
    ends = "" if found.low is None or found.high is None else f" ({found.low:.4f} … {found.high:.4f})"
    return f"{_figure(found.value)}{ends}"


# the report


def _sections(evaluated: Evaluated, labels: Labels, fitted: Fitted, rule: str) -> Sequence[Any]:
    return report.sections(evaluated, labels, fitted, rule)


def _describe(labels: Labels, fitted: Fitted, options: Mapping[str, Any]) -> Description:
    classes, weights = labels[0].categories, options.get("class_weights")
    number = pluralize(len(classes), "class", "classes")
    listed = ", ".join(classes[:_LISTED_ON_CARD]) + (", …" if len(classes) > _LISTED_ON_CARD else "")
    return Description(
        aim=f"distinguish {_list(classes)}",
        purpose=f"It distinguishes {number}: {listed}.",
        head=number,
        note=f"the positive class is {classes[1]}" if len(classes) == 2 else "",
        output=_output(classes, fitted),
        fitted="the temperature and the threshold" if fitted or options.get("operating_point") else "",
        balance=(f"Class weights in the loss: {weights}.",) if weights else (),
    )


def _list(classes: Sequence[str]) -> str:
    if len(classes) > _LISTED:
        return f"{len(classes)} classes"
    return f"{', '.join(classes[:-1])} and {classes[-1]}" if len(classes) > 1 else classes[0]


def _output(classes: Sequence[str], fitted: Fitted) -> tuple[str, ...]:
    calibration, lines = calibration_of(fitted), ["A probability for each class."]
    if len(classes) == 2:
        lines.append(f"The positive class is {classes[1]}.")
    if calibration.temperature != 1.0:
        where = calibration.fitted_on or "validation samples"
        lines.append(f"Calibrated with temperature {calibration.temperature:.3f}, fitted on {where}.")
    if calibration.threshold is not None:
        lines.append(f"Predicts {classes[-1]} at p ≥ {calibration.threshold:.3f}.")
    return tuple(lines)


def _usage(labels: Labels, fitted: Fitted, rule: str, group_name: str) -> Sequence[str]:
    classes, threshold = labels[0].categories, calibration_of(fitted).threshold
    most = rule == "max"
    nothing = nothing_index(labels)
    joined, how = "rows.mean(0)", "their mean"
    if most and nothing is None:
        joined, how = "rows[rows[:, -1].argmax()]", f"the row with the largest p({json.dumps(classes[-1])})"
    elif most:
        joined, how = (
            f"rows[rows[:, {nothing}].argmin()]",
            f"the row with the smallest p({json.dumps(labels[0].nothing)})",
        )
    lines = (
        f"classes = [{', '.join(repr(name) for name in classes)}]",
        'rows = outputs["probabilities"]',
        f"answer = {joined}  # of several samples, {how}",
    )
    if threshold is None:
        return (*lines, "print(classes[int(answer.argmax())], answer)")
    level = f", for {'the largest of' if most else 'the mean over'} a {group_name}'s samples" if group_name else ""
    return (
        *lines,
        f"predicted = int(answer[1] >= {float(threshold)!r})  # the operating threshold{level}",
        "print(classes[predicted], answer)",
    )
