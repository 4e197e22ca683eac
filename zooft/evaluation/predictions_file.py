"""``predictions.csv``: the predictions for every sample that the model wasn't trained on, to evaluate anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.storage import csv_files

if TYPE_CHECKING:
    from pathlib import Path

    from zooft.contracts import Fitted, Labels, Problem
    from zooft.evaluation.evaluate import Evaluated
    from zooft.evaluation.predictions import Predictions

_BLOCK = 4096
"""Rows whose cells are in memory at once."""


def write(
    path: Path,
    evaluated: Mapping[str, Evaluated],
    problem: Problem,
    labels: Labels,
    fitted: Fitted,
    fold_of: Mapping[str, int],
) -> None:
    """Write the table: each sample's id, group and target, and the problem's columns, floats with six digits.

    Args:
        path: of the file.
        evaluated: by split.
        problem: whose columns; the first of them is called ``prediction`` where it is the whole prediction.
        labels: what the predictions mean.
        fitted: on validation data.
        fold_of: id to the fold, from 1, that it was held out in; empty without folds.
    """
    names = tuple(problem.presentation.columns(labels))
    columns = ("id", "group", "split", "fold", "target", *_header(names, labels))
    rows = (
        row
        for split, part in evaluated.items()
        for row in _rows(split, part.predictions, names, problem, labels, fitted, fold_of)
    )
    csv_files.write(path, columns, rows)


def _header(names: tuple[str, ...], labels: Labels) -> tuple[str, ...]:
    """The columns' names; where several labels or answers have columns each, none is ``prediction``."""
    first = labels[0].answer or labels[0].name
    one_of_several = len(labels) > 1 and (names[0] == first or names[0].startswith(f"{first} "))
    return names if one_of_several else ("prediction", *names[1:])


def _rows(
    split: str,
    predictions: Predictions,
    names: tuple[str, ...],
    problem: Problem,
    labels: Labels,
    fitted: Fitted,
    fold_of: Mapping[str, int],
) -> Iterator[tuple[Any, ...]]:
    shown = problem.presentation
    for start in range(0, len(predictions), _BLOCK):
        block = predictions.take(np.arange(start, min(start + _BLOCK, len(predictions))))
        cells = shown.cells(block, labels, fitted)
        for row, sample in enumerate(block.samples):
            fold = fold_of.get(sample.id, "") if split == "cross-validation" else ""
            target = "" if sample.target is None else shown.target(sample.target, labels)
            own = (_cell(cells[name][row]) for name in names)
            yield (sample.id, sample.group or "", split, fold, target, *own)


def _cell(value: Any) -> Any:
    return f"{value:.6f}" if isinstance(value, (float, np.floating)) else value
