"""Pictures of the report's sections: precision against recall, sensitivity against wrong boxes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import zooft
from zooft_detection import evaluation, matching
from zooft_detection.drawing import colour_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 12
"""Classes whose curves are drawn: those with the most objects."""
_LEVELS = ((0, "-", "overlap 0.5"), (5, "--", "overlap 0.75"))


def precision_recall(predictions: zooft.Predictions, names: Sequence[str]) -> zooft.Picture:
    """A curve a class and overlap."""
    axes, figure = _axes()
    for number in _most_frequent(predictions, names):
        curves, _ = evaluation.precisions(evaluation.of_class(predictions, number, areas=1))
        for level, style, _words in _LEVELS:
            axes.plot(
                evaluation.RECALLS, curves[:, 0, level], style, color=_rgb(number), label=_only(style, names[number])
            )
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    _finish(axes)
    styles = "; ".join(f"{'solid' if style == '-' else 'dashed'}: {words}" for _, style, words in _LEVELS)
    return zooft.Picture(
        title="Precision and recall",
        png=_png(figure),
        caption=f"As the threshold falls from left to right; {styles}.{_about(names)}",
    )


def froc(predictions: zooft.Predictions, names: Sequence[str]) -> zooft.Picture:
    """A curve a class."""
    axes, figure = _axes()
    for number in _most_frequent(predictions, names):
        own = evaluation.of_class(predictions, number, areas=1)
        found, wrong = evaluation.froc_curve(own, len(predictions))
        axes.step(wrong, found, where="post", color=_rgb(number), label=names[number])
    axes.set(xlabel="wrong boxes an image", ylabel="share of the objects that are found", ylim=(0, 1.02))
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_xlim(left=0)
    axes.set_xticks([0, 0.1, 1, 10], ["0", "0.1", "1", "10"])
    _finish(axes)
    return zooft.Picture(
        title="Sensitivity and wrong boxes (FROC)",
        png=_png(figure),
        caption=f"As the threshold falls from left to right, at an overlap of 0.5.{_about(names)}",
    )


def _most_frequent(predictions: zooft.Predictions, names: Sequence[str]) -> list[int]:
    counts = predictions[matching.TRUTHS][:, :, 0].sum(0)
    most = sorted(range(len(names)), key=lambda number: (-int(counts[number]), number))[:_MOST]
    return [number for number in sorted(most) if counts[number]]


def _about(names: Sequence[str]) -> str:
    return f" The {_MOST} classes with the most objects." if len(names) > _MOST else ""


def _only(style: str, name: str) -> str:
    """A class is in the legend once; names with a leading underscore aren't shown."""
    return name if style == "-" else f"_{name}"


def _rgb(number: int) -> tuple[float, float, float]:
    red, green, blue = colour_of(number)
    return red / 255, green / 255, blue / 255


def _axes() -> tuple[Axes, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.2), layout="constrained")
    return figure.subplots(), figure


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right" if "wrong" in axes.get_xlabel() else "lower left", fontsize=8)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
