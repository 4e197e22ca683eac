"""A regression's plots: predicted against true, and errors by what was predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.problems.regression.evaluation import as_table
from zooft.problems.regression.training import name_with_unit
from zooft.report import drawing
from zooft.report.blocks import Drawing, Folded, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from zooft.contracts import Label, Labels
    from zooft.evaluation.evaluate import Evaluated
    from zooft.report.blocks import Block

MOST_POINTS = 2000
"""Of more samples, evenly many are drawn: the page would grow, and points hide each other."""
MOST_OPEN = 4
"""Numbers whose plots stand on the page; those of more are folded."""


def of_split(evaluated: Evaluated, labels: Labels) -> list[Block]:
    """Two plots for each number; nothing of numbers that no sample has."""
    predictions, split = evaluated.predictions, evaluated.evaluation.split
    true, predicted = as_table(predictions, "target"), as_table(predictions, "prediction")
    rows = []
    for index, label in enumerate(labels):
        known = np.flatnonzero(~np.isnan(true[:, index]))
        if len(known):
            shown = known[:: -(-len(known) // MOST_POINTS)]
            pair = true[shown, index], predicted[shown, index]
            name = f"{split}-{index}"
            rows.append(Row(blocks=(_against_true(*pair, label, name=name), _errors(*pair, label, name=name))))
    return [
        *rows[:MOST_OPEN],
        *([Folded(f"Plots of {len(rows) - MOST_OPEN} more", tuple(rows[MOST_OPEN:]))] if rows[MOST_OPEN:] else []),
    ]


def _against_true(true: NDArray[Any], predicted: NDArray[Any], label: Label, *, name: str) -> Drawing:
    shown = name_with_unit(label.name, label.unit)
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    with drawing.axes(width=3.7, height=3.7) as axes:
        axes.plot([low, high], [low, high], color=drawing.MUTED, linewidth=1, linestyle="--")
        _points(axes, true, predicted)
        axes.set(xlabel=f"true {shown}", ylabel=f"predicted {shown}", aspect="equal")
        svg = drawing.to_svg(axes, name=f"predicted-{name}", label=f"Predicted against true {shown}")
    return Drawing(
        title=f"{label.name}: predicted and true",
        svg=svg,
        caption="A point a sample; on the dashed line both are the same.",
    )


def _errors(true: NDArray[Any], predicted: NDArray[Any], label: Label, *, name: str) -> Drawing:
    """By what was predicted: by what is true, errors of every model that shrinks towards the mean would slope."""
    shown, errors = name_with_unit(label.name, label.unit), predicted - true
    with drawing.axes(width=3.7, height=3.7) as axes:
        axes.axhline(0, color=drawing.MUTED, linewidth=1, linestyle="--")
        axes.axhline(float(errors.mean()), color=drawing.ORANGE, linewidth=1)
        _points(axes, predicted, errors)
        axes.set(xlabel=f"predicted {shown}", ylabel=f"predicted less true {shown}")
        svg = drawing.to_svg(axes, name=f"errors-{name}", label=f"Errors of {shown} by what was predicted")
    return Drawing(
        title=f"{label.name}: errors",
        svg=svg,
        caption="The line is the mean error; a slope or a bend is something that the model could still learn.",
    )


def _points(axes: Axes, x: NDArray[Any], y: NDArray[Any]) -> None:
    axes.plot(x, y, color=drawing.BLUE, marker="o", markersize=3, linestyle="", alpha=0.6)
