"""How a grade is shown: by its name, those that are farthest off first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import Description, PresentationPart, Table
from zooft.problems.ordinal.evaluation import details_of
from zooft.problems.ordinal.links import HEAD
from zooft.report.blocks import Row, Shaded

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from zooft.contracts import Fitted, Labels
    from zooft.evaluation.evaluate import Evaluated, Evaluation
    from zooft.evaluation.predictions import Predictions

_FEW = 4
"""Grades that have a column each on the screen."""


def presentation_part() -> PresentationPart:
    """How grades are shown."""
    return PresentationPart(
        cells=_cells,
        columns=_names,
        target=_target,
        brief=_brief,
        record=_record,
        entries=("grade",),
        about=_about,
        worst=_worst,
        wrong=_wrong,
        tables=_tables,
        sections=_sections,
        describe=_describe,
        usage=_usage,
        explained=_explain,
    )


def _names(labels: Labels) -> Sequence[str]:
    return (labels[0].name, *(f"p({name})" for name in labels[0].categories))


def _cells(predictions: Predictions, labels: Labels, _fitted: Fitted) -> Mapping[str, Sequence[Any]]:
    grades, each = labels[0].categories, predictions["probabilities"].T
    predicted = [grades[index] for index in predictions["prediction"]]
    return {labels[0].name: predicted} | {f"p({name})": [float(p) for p in each[i]] for i, name in enumerate(grades)}


def _target(target: Any, labels: Labels) -> str:
    return str(labels[0].categories[target])


def _brief(cells: Mapping[str, Any], labels: Labels) -> Mapping[str, Any]:
    """Of many grades the probability of the predicted one."""
    name = labels[0].name
    if len(labels[0].categories) <= _FEW:
        return cells
    return {name: cells[name], "probability": cells.get(f"p({cells[name]})", "")}


def _record(cells: Mapping[str, Any], labels: Labels) -> Mapping[str, Any]:
    given = {name: cells[f"p({name})"] for name in labels[0].categories}
    return {
        "grade": cells[labels[0].name],
        "probabilities": {name: p if math.isfinite(p) else None for name, p in given.items()},
    }


def _about(labels: Labels, _fitted: Fitted) -> Mapping[str, Any]:
    return {"grades": list(labels[0].categories)}


def _worst(predictions: Predictions, _labels: Labels) -> NDArray[Any]:
    """How far from the truth the grade is expected to be, by the answer's own probabilities."""
    given = predictions["probabilities"]
    apart = np.abs(np.arange(given.shape[1]) - predictions["target"][:, None])
    return np.asarray((given * apart).sum(1, dtype=np.float64))


def _wrong(predictions: Predictions, _labels: Labels) -> NDArray[Any]:
    return np.asarray(predictions["prediction"] != predictions["target"])


def _tables(evaluation: Evaluation, labels: Labels) -> Sequence[Table]:
    details, grades = details_of(evaluation.details), labels[0].categories
    tables = [_matrix("Grades per sample", details.confusion, grades)]
    if details.group_confusion:
        tables.append(_matrix(f"Grades per {evaluation.group_name}", details.group_confusion, grades))
    return (*tables, _per_grade(evaluation, labels))


def _matrix(title: str, counts: Sequence[Sequence[int]], grades: Sequence[str]) -> Table:
    rows = tuple((name, *(f"{count:,}" for count in row)) for name, row in zip(grades, counts, strict=True))
    return Table(title=title, columns=("True", *(f"predicted {name}" for name in grades)), rows=rows)


def _per_grade(evaluation: Evaluation, labels: Labels) -> Table:
    details = details_of(evaluation.details)
    rows = tuple(
        (name, f"{sum(row):,}", "undefined" if math.isnan(mae) else f"{mae:.3f}")
        for name, row, mae in zip(labels[0].categories, details.confusion, details.mae, strict=True)
    )
    return Table(title="Error of each grade", columns=("Grade", "Samples", "MAE in grades"), rows=rows)


def _sections(evaluated: Evaluated, labels: Labels, _fitted: Fitted, _rule: str) -> Sequence[Any]:
    evaluation, grades = evaluated.evaluation, labels[0].categories
    details = details_of(evaluation.details)
    tables = [_shade("Grades per sample", details.confusion, grades)]
    if details.group_confusion:
        tables.insert(0, _shade(f"Grades per {evaluation.group_name}", details.group_confusion, grades))
    together = (Row(blocks=tuple(tables)),) if len(grades) <= _FEW else tables
    return [*together, _per_grade(evaluation, labels)]


def _shade(title: str, counts: Sequence[Sequence[int]], grades: Sequence[str]) -> Shaded:
    shares = tuple(tuple(round(100 * count / max(sum(row), 1)) for count in row) for row in counts)
    return Shaded(title=title, names=tuple(grades), counts=tuple(map(tuple, counts)), shares=shares)


def _describe(labels: Labels, _fitted: Fitted, _options: Mapping[str, Any]) -> Description:
    grades = labels[0].categories
    scale = f"{grades[0]} to {grades[-1]}" if len(grades) > _FEW else ", ".join(grades)
    return Description(
        aim=f"grade {labels[0].name} ({scale})",
        purpose=f"It grades {labels[0].name} on the scale {', '.join(grades)}.",
        head=f"{len(grades)} grades",
        output=(
            "The file gives a probability for each grade and the median grade, which has the smallest expected error "
            "in grades; it needn't be the likeliest.",
        ),
    )


def _usage(labels: Labels, _fitted: Fitted, rule: str, group_name: str) -> Sequence[str]:
    grades = f"grades = {list(labels[0].categories)!r}"
    if not group_name:
        return [grades, 'print(grades[outputs["grade"][0]], outputs["probabilities"][0])']
    if rule == "max":
        return [grades, 'print(grades[outputs["grade"].max()])']
    return [
        grades,
        'probabilities = outputs["probabilities"].mean(0)',
        "print(grades[int((probabilities[:0:-1].cumsum() > 0.5).sum())], probabilities)",
    ]


def _explain(outputs: Mapping[str, Tensor], _row: Mapping[str, Any], labels: Labels) -> tuple[Tensor, str]:
    """The sum of all cumulative logits, which rises with the grade."""
    from zooft.problems.ordinal.losses import cumulative

    return cumulative(outputs[HEAD])[0].sum(), f"a higher {labels[0].name}"
