"""How labels are shown: those that are there by name, and a probability each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import Description, PresentationPart, Table
from zooft.contracts.words import format_figure
from zooft.problems.multilabel import plots
from zooft.problems.multilabel.evaluation import rows_of, thresholds_of
from zooft.problems.multilabel.head import HEAD

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from zooft.contracts import Fitted, Labels
    from zooft.evaluation.evaluate import Evaluated, Evaluation
    from zooft.evaluation.predictions import Predictions

ANSWER = "labels"
NONE = "(none)"
_LISTED = 6
_BALANCE = {
    "weighted-bce": "Labels that are there count in the loss as often as they are rarer than those that aren't, "
    "ten times at most, so "
    "probabilities of rare labels are larger than their frequency.",
    "asymmetric": (
        "The asymmetric loss takes easy absent labels out of the training, so probabilities aren't frequencies."
    ),
}


def presentation_part() -> PresentationPart:
    """How labels are shown."""
    return PresentationPart(
        cells=_cells,
        columns=_names,
        target=target_text,
        brief=_brief,
        record=_record,
        about=_about,
        opening=_opening,
        worst=_worst,
        wrong=_wrong,
        caption=_caption,
        tables=_tables,
        sections=_sections,
        describe=_describe,
        usage=_usage,
        explained=_explain,
    )


def target_text(target: Any, labels: Labels) -> str:
    """Such as ``cat;dog;?bird``, where ? stands before what isn't known; the rest isn't there."""
    pairs = list(zip(target, labels, strict=True))
    there = [label.name for answer, label in pairs if answer]
    return ";".join([*(there or [NONE]), *(f"?{label.name}" for answer, label in pairs if answer is None)])


def _names(labels: Labels) -> Sequence[str]:
    return (ANSWER, *(f"p({label.name})" for label in labels))


def _answer(present: NDArray[Any], labels: Labels) -> str:
    return ";".join(label.name for label, there in zip(labels, present, strict=True) if there) or NONE


def _cells(predictions: Predictions, labels: Labels, _fitted: Fitted) -> Mapping[str, Sequence[Any]]:
    answers = [_answer(row, labels) for row in predictions["present"]]
    each = predictions["probabilities"].T
    return {ANSWER: answers} | {f"p({label.name})": [float(p) for p in each[i]] for i, label in enumerate(labels)}


def _brief(cells: Mapping[str, Any], _labels: Labels) -> Mapping[str, Any]:
    """The labels that are there, with their probabilities."""
    there = _there(cells[ANSWER])
    shown = ", ".join(f"{name} {cells[f'p({name})']:.3f}" for name in there)
    return {ANSWER: cells[ANSWER] if not there else shown}


def _there(answer: str) -> list[str]:
    return [] if answer in ("", NONE) else answer.split(";")


def _record(cells: Mapping[str, Any], labels: Labels) -> Mapping[str, Any]:
    given = {label.name: cells[f"p({label.name})"] for label in labels}
    return {
        "labels": _there(cells[ANSWER]),
        "probabilities": {name: p if isinstance(p, float) and math.isfinite(p) else None for name, p in given.items()},
    }


def _about(labels: Labels, fitted: Fitted) -> Mapping[str, Any]:
    lines = thresholds_of(fitted, labels)
    return {
        "labels": [label.name for label in labels],
        "thresholds": {label.name: float(line) for label, line in zip(labels, lines, strict=True)},
    }


def _opening(labels: Labels, fitted: Fitted) -> Sequence[str]:
    lines = thresholds_of(fitted, labels)
    some = ", ".join(f"{label.name} {line:.3f}" for label, line in list(zip(labels, lines, strict=True))[:_LISTED])
    return (f"a label is predicted where its probability is at least its threshold: {some}{_more(labels)}",)


def _more(labels: Labels) -> str:
    return f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""


def _worst(predictions: Predictions, _labels: Labels) -> NDArray[Any]:
    """How far the worst label's probability is from what is known of it."""
    apart = np.abs(predictions["probabilities"].astype(np.float64) - predictions["target"])
    return np.asarray(np.nan_to_num(apart, nan=0.0).max(1))


def _wrong(predictions: Predictions, _labels: Labels) -> NDArray[Any]:
    known = ~np.isnan(predictions["target"])
    return np.asarray((known & (predictions["present"] != (predictions["target"] == 1))).any(1))


def _caption(predictions: Predictions, labels: Labels, _fitted: Fitted) -> tuple[str, Sequence[str]]:
    """What is predicted, and what of it is wrong."""
    true, given, present = (predictions[name][0] for name in ("target", "probabilities", "present"))
    lines = [
        f"{'not predicted' if answer else 'wrongly predicted'}: {label.name}, p = {p:.3f}"
        for label, answer, p, there in zip(labels, true, given, present, strict=True)
        if not math.isnan(answer) and bool(answer) != bool(there)
    ]
    return f"predicted {_answer(present, labels)}", lines[:_LISTED]


def _tables(evaluation: Evaluation, _labels: Labels) -> Sequence[Table]:
    rows = tuple(
        (
            row.name,
            f"{row.positives:,} of {row.known:,}",
            _figure(row.ap),
            _figure(row.auroc),
            _figure(row.threshold),
            _figure(row.precision),
            _figure(row.recall),
            _figure(row.f1),
        )
        for row in rows_of(evaluation.details)
    )
    columns = ("Label", "Samples", "AP", "AUROC", "Threshold", "Precision", "Recall", "F1")
    return (Table(title="Per label", columns=columns, rows=rows),)


def _figure(value: float) -> str:
    return format_figure(value)


def _sections(evaluated: Evaluated, labels: Labels, _fitted: Fitted, _rule: str) -> Sequence[Any]:
    return [*_tables(evaluated.evaluation, labels), *plots.of_split(evaluated, labels)]


def _describe(labels: Labels, _fitted: Fitted, options: Mapping[str, Any]) -> Description:
    names = [label.name for label in labels]
    some = ", ".join(names[:_LISTED]) + _more(labels)
    balance = _BALANCE.get(str(options.get("multilabel_loss")), "")
    return Description(
        aim=f"find {some}",
        purpose=f"It finds which of {len(names)} labels an image has: {some}.",
        head=f"{len(names)} label{'s' if len(names) != 1 else ''}",
        note="labels don't exclude each other; what isn't known of a sample is left out of its figures",
        output=(
            "A probability for each label, and whether it is at least the label's threshold, which has the largest F1 "
            "on validation samples.",
        ),
        fitted="a threshold for each label",
        balance=(balance,) if balance else (),
    )


def _usage(labels: Labels, _fitted: Fitted, rule: str, group_name: str) -> Sequence[str]:
    names = f"labels = {[label.name for label in labels]!r}"
    if group_name and rule == "mean":
        lines = f"thresholds = np.array({thresholds_of(_fitted, labels).tolist()!r}, np.float32)"
        found = 'present = outputs["probabilities"].mean(0) >= thresholds'
        return [names, lines, found, "print([name for name, there in zip(labels, present) if there])"]
    return [
        names,
        'present, probabilities = outputs["present"].max(0), outputs["probabilities"].max(0)',
        "print([name for name, there in zip(labels, present) if there], probabilities)",
    ]


def _explain(outputs: Mapping[str, Tensor], _row: Mapping[str, Any], labels: Labels) -> tuple[Tensor, str]:
    """The likeliest label."""
    logits = outputs[HEAD][0]
    index = int(logits.detach().argmax())
    return logits[index], labels[index].name
