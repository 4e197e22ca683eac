"""How several answers are shown: each as its own problem shows it, under its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import Answer, Description, PresentationPart, Table
from zooft.problems.combined.evaluation import PRIMARY
from zooft.problems.combined.parts import Kinds, Part
from zooft.report import formatting
from zooft.storage.sequences import spill_like

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Fitted, Labels
    from zooft.evaluation.evaluate import Evaluated, Evaluation
    from zooft.evaluation.predictions import Predictions


def presentation_part(kinds: Kinds) -> PresentationPart:
    """How several answers are shown."""
    return PresentationPart(
        cells=partial(_cells, kinds),
        columns=partial(_names, kinds),
        target=partial(_target, kinds),
        brief=partial(_brief, kinds),
        about=partial(_about, kinds),
        opening=partial(_opening, kinds),
        worst=partial(_worst, kinds),
        caption=partial(_caption, kinds),
        tables=partial(_tables, kinds),
        remarks=partial(_remarks, kinds),
        describe=partial(_describe, kinds),
        answers=partial(_answers, kinds),
    )


def _column(part: Part, name: str) -> str:
    """A number's and a grade's own column has the answer's name already, as in ``age [years]``."""
    return name if name == part.name or name.startswith(f"{part.name} [") else f"{part.name} {name}"


def _names(kinds: Kinds, labels: Labels) -> Sequence[str]:
    return [
        _column(part, name) for part in kinds.parts(labels) for name in part.problem.presentation.columns(part.labels)
    ]


def _own_cells(part: Part, predictions: Predictions, fitted: Fitted) -> Mapping[str, Sequence[Any]]:
    own = part.predictions(predictions)
    return part.problem.presentation.cells(own, part.labels, fitted.get(part.name, {}))


def _cells(kinds: Kinds, predictions: Predictions, labels: Labels, fitted: Fitted) -> Mapping[str, Sequence[Any]]:
    found: dict[str, Sequence[Any]] = {}
    for part in kinds.parts(labels):
        found |= {_column(part, name): column for name, column in _own_cells(part, predictions, fitted).items()}
    return found


def _brief(kinds: Kinds, cells: Mapping[str, Any], labels: Labels) -> Mapping[str, Any]:
    """Of each answer what it is, without its probabilities, for which a screen has no room."""
    found: dict[str, Any] = {}
    for part in kinds.parts(labels):
        shown = part.problem.presentation
        own = {name: cells[_column(part, name)] for name in shown.columns(part.labels)}
        found[part.name] = next(iter(shown.brief(own, part.labels).values()))
    return found


def _about(kinds: Kinds, labels: Labels, fitted: Fitted) -> Mapping[str, Any]:
    return {
        part.name: part.problem.presentation.about(part.labels, fitted.get(part.name, {}))
        for part in kinds.parts(labels)
    }


def _opening(kinds: Kinds, labels: Labels, fitted: Fitted) -> Sequence[str]:
    return [
        f"{part.name}: {text}"
        for part in kinds.parts(labels)
        for text in part.problem.presentation.opening(part.labels, fitted.get(part.name, {}))
    ]


def _target(kinds: Kinds, target: Any, labels: Labels) -> str:
    parts = list(kinds.parts(labels))
    if len(parts) == 1:
        return parts[0].problem.presentation.target(target[parts[0].name], parts[0].labels)
    known = [part for part in parts if target.get(part.name) is not None]
    return "; ".join(f"{p.name} {p.problem.presentation.target(target[p.name], p.labels)}" for p in known)


def _caption(kinds: Kinds, predictions: Predictions, labels: Labels, fitted: Fitted) -> tuple[str, Sequence[str]]:
    """What is predicted of a sample for each answer, and what is true."""
    target = predictions.samples[0].target
    lines = []
    for part in kinds.parts(labels):
        own = part.problem.presentation
        cells = {name: column[0] for name, column in _own_cells(part, predictions, fitted).items()}
        answer = next(iter(own.brief(cells, part.labels).values()))
        true = target.get(part.name)
        truth = "true answer unknown" if true is None else f"true {own.target(true, part.labels)}"
        lines.append(f"{part.name}: predicted {answer}, {truth}")
    return lines[0], lines[1:]


def _worst(kinds: Kinds, predictions: Predictions, labels: Labels) -> NDArray[Any]:
    """By the place among the rows that know an answer, so that a number's error and a class's probability compare."""
    found = np.zeros(len(predictions))
    for part in kinds.parts(labels):
        rows = part.known_rows(predictions)
        own = part.problem.presentation.worst(part.predictions(predictions).take(rows), part.labels)
        places = np.empty(len(rows))
        places[np.argsort(own)] = np.arange(len(rows)) / max(1, len(rows))
        found[rows] = np.maximum(found[rows], places)
    return found


def _own(part: Part, evaluation: Evaluation) -> Evaluation | None:
    if part.name not in evaluation.details:
        return None
    return replace(
        evaluation,
        metrics=part.figures(evaluation.metrics),
        group_metrics=part.figures(evaluation.group_metrics),
        details=evaluation.details[part.name],
        primary=part.problem.evaluation.primary,
        smaller=part.problem.evaluation.smaller,
        one_class="",
    )


def _tables(kinds: Kinds, evaluation: Evaluation, labels: Labels) -> Sequence[Table]:
    found: list[Table] = []
    for part in kinds.parts(labels):
        own = _own(part, evaluation)
        if own is not None:
            tables = part.problem.presentation.tables(own, part.labels)
            found += [replace(table, title=f"{part.name}: {table.title}".rstrip(": ")) for table in tables]
    return found


def _remarks(kinds: Kinds, evaluation: Evaluation, labels: Labels) -> Sequence[str]:
    found: list[str] = []
    for part in kinds.parts(labels):
        own = _own(part, evaluation)
        if own is not None:
            found += [f"{part.name}: {text}" for text in part.problem.presentation.remarks(own, part.labels)]
    return found


def _describe(kinds: Kinds, labels: Labels, fitted: Fitted, options: Mapping[str, Any]) -> Description:
    """Each answer's own words, one after the other."""
    each = [
        (part.name, part.problem.presentation.describe(part.labels, fitted.get(part.name, {}), options))
        for part in kinds.parts(labels)
    ]
    aims = [one.aim for _, one in each]
    return Description(
        aim=_list(aims),
        purpose=" ".join(one.purpose for _, one in each),
        head=_list([one.head if one.head.startswith(name) else f"{name} ({one.head})" for name, one in each]),
        note="; ".join([_about_score(kinds, labels), *(f"{name}: {one.note}" for name, one in each if one.note)]),
        output=tuple(f"{name}: {text}" for name, one in each for text in one.output),
        fitted=_list([f"{one.fitted} of {name}" for name, one in each if one.fitted]),
        balance=tuple(f"{name}: {text}" for name, one in each for text in one.balance),
    )


def _about_score(kinds: Kinds, labels: Labels) -> str:
    names = []
    for part in kinds.parts(labels):
        evaluation = part.problem.evaluation
        turned = " with its sign changed" if evaluation.primary in evaluation.smaller else ""
        names.append(formatting.metric(part.figure(evaluation.primary)) + turned)
    return f"{PRIMARY} is the mean of {_list(names)}" if len(names) > 1 else f"{PRIMARY} is {names[0]}"


def _list(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def _answers(kinds: Kinds, labels: Labels) -> Sequence[Answer]:
    return [
        Answer(
            name=part.name,
            problem=part.problem,
            labels=part.labels,
            primary=part.figure(part.problem.evaluation.primary),
            outputs=part.own,
            evaluated=partial(_own_evaluated, part),
            fitted=partial(_own_fitted, part),
        )
        for part in kinds.parts(labels)
    ]


def _own_evaluated(part: Part, evaluated: Evaluated) -> Evaluated | None:
    evaluation = _own(part, evaluated.evaluation)
    if evaluation is None:
        return None
    rows = part.known_rows(evaluated.predictions)
    own = part.predictions(evaluated.predictions).take(rows)
    samples = (replace(sample, target=sample.target[part.name]) for sample in own.samples)
    own = replace(own, samples=spill_like([own.samples], samples))
    return replace(evaluated, predictions=own, evaluation=replace(evaluation, samples=len(rows)))


def _own_fitted(part: Part, fitted: Fitted) -> Fitted:
    return dict(fitted.get(part.name, {}))
