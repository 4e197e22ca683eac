"""How numbers are shown: with their units, the largest errors first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import Description, PresentationPart, Table
from zooft.problems.regression import plots
from zooft.problems.regression.evaluation import as_table, rows_of
from zooft.problems.regression.scaling import HEAD, scale_of
from zooft.problems.regression.training import name_with_unit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from zooft.contracts import Fitted, Labels
    from zooft.evaluation.evaluate import Evaluated, Evaluation
    from zooft.evaluation.predictions import Predictions


def presentation_part() -> PresentationPart:
    """How numbers are shown."""
    return PresentationPart(
        cells=_cells,
        columns=_names,
        target=_target,
        brief=_brief,
        record=_record,
        entries=("values",),
        about=_about,
        worst=_worst,
        caption=_caption,
        tables=_tables,
        sections=_sections,
        describe=_describe,
        usage=_usage,
        explained=_explain,
    )


def quantity(value: float, unit: str) -> str:
    """Such as ``12.5 mm``; four digits, as no model of images is surer."""
    number = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return f"{number} {unit}" if unit else number


def _names(labels: Labels) -> Sequence[str]:
    return [name_with_unit(label.name, label.unit) for label in labels]


def _cells(predictions: Predictions, labels: Labels, _fitted: Fitted) -> Mapping[str, Sequence[Any]]:
    numbers = as_table(predictions, "prediction")
    return {name: [float(value) for value in numbers[:, index]] for index, name in enumerate(_names(labels))}


def _target(target: Any, labels: Labels) -> str:
    """All digits, so that ``samples.csv`` has the numbers that were trained on."""
    each = [
        "unknown" if number is None else f"{number!r} {label.unit}".strip() for number, label in _pairs(target, labels)
    ]
    if len(labels) == 1:
        return each[0]
    return "; ".join(f"{label.name} {text}" for label, text in zip(labels, each, strict=True))


def _pairs(target: Any, labels: Labels) -> list[tuple[Any, Any]]:
    return list(zip(target, labels, strict=True))


def _brief(cells: Mapping[str, Any], labels: Labels) -> Mapping[str, Any]:
    return {
        label.name: quantity(value, label.unit) if isinstance(value, (int, float)) else value
        for label, value in zip(labels, (cells[name] for name in _names(labels)), strict=True)
    }


def _record(cells: Mapping[str, Any], labels: Labels) -> Mapping[str, Any]:
    numbers = {label.name: cells[name_with_unit(label.name, label.unit)] for label in labels}
    return {"values": {name: value if _is_finite(value) else None for name, value in numbers.items()}}


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _about(labels: Labels, _fitted: Fitted) -> Mapping[str, Any]:
    return {"numbers": [{"name": label.name, "unit": label.unit} for label in labels]}


def _worst(predictions: Predictions, labels: Labels) -> NDArray[Any]:
    """The largest error of a row, in standard deviations of the training targets; unknown numbers have none."""
    errors = np.abs(as_table(predictions, "prediction") - as_table(predictions, "target")) / scale_of(labels).std
    return np.asarray(np.nan_to_num(errors, nan=0.0).max(1))


def _caption(predictions: Predictions, labels: Labels, _fitted: Fitted) -> tuple[str, Sequence[str]]:
    """What is predicted of a sample, and what is true."""
    true, predicted = as_table(predictions, "target")[0], as_table(predictions, "prediction")[0]
    lines = [
        f"{label.name}: predicted {quantity(b, label.unit)}, "
        + (f"true {quantity(a, label.unit)}" if math.isfinite(a) else "true value unknown")
        for label, a, b in zip(labels, true, predicted, strict=True)
    ]
    return lines[0], lines[1:]


def _tables(evaluation: Evaluation, labels: Labels) -> Sequence[Table]:
    rows = tuple(
        (
            row.name,
            f"{row.samples:,}",
            _figure(row.r2, ""),
            _figure(row.mae, row.unit),
            _figure(row.rmse, row.unit),
            _figure(row.bias, row.unit),
            "undefined" if math.isnan(row.low) else f"{row.low:.4g} to {quantity(row.high, row.unit)}",
        )
        for row in rows_of(evaluation.details)
    )
    columns = ("Number", "Samples", "R²", "MAE", "RMSE", "Mean error", "95 % of errors")
    return (Table(title="Errors, predicted less true", columns=columns, rows=rows),)


def _figure(value: float, unit: str) -> str:
    return "undefined" if math.isnan(value) else quantity(value, unit) if unit else f"{value:.4g}"


def _sections(evaluated: Evaluated, labels: Labels, _fitted: Fitted, _rule: str) -> Sequence[Any]:
    return [*_tables(evaluated.evaluation, labels), *plots.of_split(evaluated, labels)]


def _describe(labels: Labels, _fitted: Fitted, options: Mapping[str, Any]) -> Description:
    names = " and ".join(_names(labels))
    known = [
        f"{label.name} was between {quantity(label.constants['lower_quartile'], label.unit)} and "
        f"{quantity(label.constants['upper_quartile'], label.unit)} in half of the training samples."
        for label in labels
        if "lower_quartile" in label.constants
    ]
    return Description(
        aim=f"predict {names}",
        purpose=f"It predicts {names}.",
        head=names,
        output=(f"The file gives {names} as it is, in the unit; nothing is to be scaled.", *known),
    )


def _usage(labels: Labels, _fitted: Fitted, rule: str, group_name: str) -> Sequence[str]:
    one = "[0]" if not group_name else ".max(0)" if rule == "max" else ".mean(0)"
    each = (f"print({label.name!r}, values[{index}], {label.unit!r})" for index, label in enumerate(labels))
    return [f'values = outputs["value"]{one}', *each]


def _explain(outputs: Mapping[str, Tensor], _row: Mapping[str, Any], labels: Labels) -> tuple[Tensor, str]:
    """The number that is farthest from its mean."""
    found = outputs[HEAD][0]
    index = int(found.detach().abs().argmax())
    return found[index], f"{labels[index].name}, larger where it is warm"
