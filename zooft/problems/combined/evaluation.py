"""How good several answers are: each by its own figures, on the samples of which it is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import EvaluationPart
from zooft.evaluation.groups import members_of
from zooft.evaluation.predictions import Predictions
from zooft.problems.combined.parts import BETWEEN, KNOWN, Kinds, Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Columns, Fitted, Labels

PRIMARY = "score"
"""The mean over the answers of their primary figures, where smaller ones are better with their sign changed."""


def evaluation_part(kinds: Kinds) -> EvaluationPart:
    """How several answers are evaluated."""
    return EvaluationPart(
        columns=partial(_columns, kinds),
        metrics=partial(_metrics, kinds),
        primary=PRIMARY,
        smaller=frozenset().union(*(kind.evaluation.smaller for kind in kinds.problems.values())),
        group=partial(_group, kinds),
        rules=("",),
        fit=partial(_fit, kinds),
        apply=partial(_apply, kinds),
        details=partial(_details, kinds),
        guessing=partial(_chance_level, kinds),
    )


def part_columns(
    kinds: Kinds, targets: Sequence[Any], labels: Labels, make: Callable[[Part, Sequence[Any]], Columns]
) -> Columns:
    """Each part's columns under its name, and which rows have a target of it."""
    found: dict[str, NDArray[Any]] = {}
    for part in kinds.parts(labels):
        own = part.targets(targets)
        found |= part.rename(make(part, own))
        found[f"{part.name}{BETWEEN}{KNOWN}"] = np.array([target is not None for target in own])
    return found


def _columns(kinds: Kinds, outputs: Columns, targets: Sequence[Any], labels: Labels) -> Columns:
    def make(part: Part, own: Sequence[Any]) -> Columns:
        return part.problem.evaluation.columns(part.own(outputs), own, part.labels)

    return part_columns(kinds, targets, labels, make)


def _metrics(kinds: Kinds, predictions: Predictions, labels: Labels) -> Mapping[str, float]:
    found: dict[str, float] = {}
    primary = []
    for part in kinds.parts(labels):
        evaluation, rows = part.problem.evaluation, part.known_rows(predictions)
        own = Predictions(samples=(), columns=part.predictions(predictions).rows(rows))
        figures = dict(evaluation.metrics(own, part.labels)) if len(rows) else {evaluation.primary: float("nan")}
        found |= {part.figure(name): value for name, value in figures.items()}
        value = figures[evaluation.primary]
        primary.append(-value if evaluation.primary in evaluation.smaller else value)
    return {PRIMARY: float(np.mean(primary)), **found}


def _chance_level(kinds: Kinds, labels: Labels) -> Mapping[str, float]:
    return {
        part.figure(name): share
        for part in kinds.parts(labels)
        for name, share in part.problem.evaluation.guessing(part.labels).items()
    }


def _group(
    kinds: Kinds, predictions: Predictions, members: Sequence[NDArray[Any]], labels: Labels, _rule: str
) -> Columns:
    """Each part's by its usual rule, among the samples of a group of which it is known; all where it is of none."""
    found: dict[str, NDArray[Any]] = {}
    for part in kinds.parts(labels):
        group, own = part.problem.evaluation.group, part.predictions(predictions)
        known = np.zeros(len(predictions), bool)
        known[part.known_rows(predictions)] = True
        chosen = [rows[known[rows]] if known[rows].any() else rows for rows in members]
        rule = next(iter(part.problem.evaluation.rules), "")
        columns = (
            own.rows(np.array([rows[0] for rows in chosen])) if group is None else group(own, chosen, part.labels, rule)
        )
        found |= part.rename(columns)
        found[f"{part.name}{BETWEEN}{KNOWN}"] = np.array([bool(known[rows].any()) for rows in members])
    return found


def _fit(kinds: Kinds, predictions: Predictions, labels: Labels, _rule: str, options: Any) -> Fitted:
    found = {}
    for part in kinds.parts(labels):
        rows, evaluation = part.known_rows(predictions), part.problem.evaluation
        if len(rows):
            own = part.predictions(predictions).take(rows)
            found[part.name] = dict(evaluation.fit(own, part.labels, next(iter(evaluation.rules), ""), options))
    return {name: fitted for name, fitted in found.items() if fitted}


def _apply(kinds: Kinds, predictions: Predictions, fitted: Fitted, labels: Labels) -> Predictions:
    columns = dict(predictions.columns)
    for part in kinds.parts(labels):
        own = part.problem.evaluation.apply(part.predictions(predictions), fitted.get(part.name, {}), part.labels)
        columns |= part.rename(own.columns)
    return predictions.with_columns(**columns)


def _details(
    kinds: Kinds,
    predictions: Predictions,
    grouped: Predictions | None,
    labels: Labels,
    fitted: Fitted,
    intervals: bool,
) -> Mapping[str, Any]:
    found = {}
    for part in kinds.parts(labels):
        rows = part.known_rows(predictions)
        if not len(rows):
            continue
        own = part.predictions(predictions).take(rows)
        of_groups = None
        if grouped is not None:
            some = part.predictions(grouped)
            of_groups = some.take(part.known_rows(grouped)) if len(some.samples) else None
        found[part.name] = part.problem.evaluation.details(
            own, of_groups, part.labels, fitted.get(part.name, {}), intervals
        )
    return found


__all__ = ["PRIMARY", "evaluation_part", "members_of", "part_columns"]
