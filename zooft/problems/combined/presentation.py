"""How several answers are shown: each as its own problem shows it, under its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import PresentationPart, Table
from zooft.problems.combined.parts import Kinds, Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Fitted, Labels
    from zooft.evaluation.evaluate import Evaluation
    from zooft.evaluation.predictions import Predictions


def presentation_part(kinds: Kinds) -> PresentationPart:
    """How several answers are shown."""
    return PresentationPart(
        cells=partial(_cells, kinds),
        columns=partial(_names, kinds),
        target=partial(_target, kinds),
        worst=partial(_worst, kinds),
        caption=partial(_caption, kinds),
        tables=partial(_tables, kinds),
        remarks=partial(_remarks, kinds),
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


def _target(kinds: Kinds, target: Any, labels: Labels) -> str:
    known = [part for part in kinds.parts(labels) if target.get(part.name) is not None]
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
        rows = part.known(predictions)
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
