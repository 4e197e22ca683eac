"""The learning curves of a report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.report import drawing, formatting
from zooft.report.blocks import Drawing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray


def losses(epochs: Sequence[Mapping[str, Any]]) -> Drawing:
    """Training and validation loss by epoch."""
    x = [record["epoch"] for record in epochs]
    with drawing.axes(width=4.2, height=3.6) as axes:
        series = (
            ("train_loss", "training", drawing.BLUE, "o", "-"),
            ("val_loss", "validation", drawing.ORANGE, "s", "--"),
        )
        for key, label, colour, marker, dash in series:
            values = _numbers(record.get(key) for record in epochs)
            if np.isfinite(values).any():
                axes.plot(x, values, color=colour, marker=marker, markersize=4, linestyle=dash, label=label)
        axes.set(xlabel="epoch", ylabel="loss")
        axes.set_ylim(0, 1.08 * axes.dataLim.ymax)
        _by_epoch(axes, x)
        drawing.legend_below(axes)
        svg = drawing.to_svg(axes, name="loss", label="Loss by epoch, for training and validation samples")
    return Drawing(title="Loss", svg=svg)


def progress(epochs: Sequence[Mapping[str, Any]], names: Sequence[str], *, best: int | None) -> Drawing | None:
    """Those of the validation metrics by epoch, as many as there are colours; None where there are none."""
    shown = [name for name in names if name in epochs[0].get("metrics", {})][: len(drawing.SERIES)]
    if not shown:
        return None
    x = [record["epoch"] for record in epochs]
    with drawing.axes(width=4.2, height=3.6) as axes:
        for index, name in enumerate(shown):
            values = _numbers(record["metrics"].get(name) for record in epochs)
            axes.plot(
                x,
                values,
                color=drawing.SERIES[index],
                linestyle=drawing.DASHES[index],
                label=formatting.metric(name),
                marker=".",
            )
        if best is not None:
            axes.axvline(best, color=drawing.MUTED, linewidth=1, linestyle=":")
        axes.set(xlabel="epoch", ylabel="on validation samples")
        _by_epoch(axes, x)
        drawing.legend_below(axes)
        svg = drawing.to_svg(axes, name="progress", label="Metrics on validation samples by epoch")
    caption = f"The dotted line marks epoch {best}, whose weights were saved." if best is not None else ""
    return Drawing(title="Metrics", svg=svg, caption=caption)


def _by_epoch(axes: Axes, epochs: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.grid(visible=False, axis="x")


def _numbers(values: Any) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
