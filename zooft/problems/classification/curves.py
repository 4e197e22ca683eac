"""The curves of a classification's report: ROC, precision and recall, reliability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.problems.classification import calibration
from zooft.report import drawing
from zooft.report.blocks import Drawing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from zooft.problems.ranking import Curve

MOST_CURVES = 6
"""Classes with a curve of their own; of more, those that are recognised worst."""


def roc(
    targets: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    *,
    name: str,
    threshold: float | None,
    level: str,
) -> Drawing | None:
    """The ROC curve, of two classes for the second one, else one against the rest; None where it is undefined."""
    curves = {k: calibration.roc_points(targets, probabilities, which=k) for k in _curves(targets, probabilities)}
    if not curves:
        return None
    with drawing.axes(width=3.7, height=3.7) as axes:
        axes.plot([0, 1], [0, 1], color=drawing.LINE, linewidth=1, linestyle="--")
        _draw(axes, curves, classes)
        if threshold is not None:
            _mark(axes, curves[1], threshold)
        axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        if len(curves) > 1 or threshold is not None:
            drawing.legend_below(axes)
        svg = drawing.to_svg(axes, name=f"roc-{name}", label="Receiver operating characteristic")
    return Drawing(title=f"ROC curve, {level}", svg=svg, caption=_whose(curves, classes, "Dashed: a coin toss."))


def precision_recall(
    targets: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    *,
    name: str,
    threshold: float | None,
    level: str,
) -> Drawing | None:
    """The precision-recall curve, as `roc`."""
    curves = {k: calibration.pr_points(targets, probabilities, which=k) for k in _curves(targets, probabilities)}
    if not curves:
        return None
    with drawing.axes(width=3.7, height=3.7) as axes:
        _draw(axes, curves, classes, steps=True)
        if threshold is not None:
            _mark(axes, curves[1], threshold)
        if len(curves) == 1:
            axes.axhline(float((targets == 1).mean()), color=drawing.LINE, linewidth=1, linestyle="--")
        axes.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        if len(curves) > 1 or threshold is not None:
            drawing.legend_below(axes)
        svg = drawing.to_svg(axes, name=f"pr-{name}", label="Precision by recall")
    dashed = "Dashed: the share of this class among the samples." if len(curves) == 1 else ""
    return Drawing(title=f"Precision and recall, {level}", svg=svg, caption=_whose(curves, classes, dashed))


def reliability(
    targets: NDArray[Any],
    probabilities: NDArray[Any],
    before: NDArray[Any] | None,
    *,
    name: str,
    of: str,
) -> Drawing:
    """Predicted probabilities against observed frequencies.

    Args:
        targets: ``(N,)`` class indices.
        probabilities: ``(N, classes)``.
        before: the same without temperature, where there is one.
        name: of the drawing.
        of: whose probability it is: the last class's of two, else the likeliest class's.
    """
    with drawing.axes(width=3.7, height=3.7) as axes:
        axes.plot([0, 1], [0, 1], color=drawing.LINE, linewidth=1, linestyle="--")
        if before is not None:
            bins = _reliability_bins(targets, before)
            axes.plot(
                bins.predicted,
                bins.observed,
                color=drawing.ORANGE,
                linestyle="--",
                marker="s",
                markersize=4,
                label="before temperature",
            )
        bins = _reliability_bins(targets, probabilities)
        label = "after temperature" if before is not None else "as deployed"
        axes.plot(bins.predicted, bins.observed, color=drawing.BLUE, marker="o", markersize=4, label=label)
        for x, y, number in zip(bins.predicted, bins.observed, bins.samples, strict=True):
            axes.annotate(
                str(number),
                (x, y),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=drawing.MUTED,
            )
        axes.set(
            xlabel=f"probability of {of}" if len(of) <= 24 else "probability",
            ylabel="observed frequency",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.08),
            aspect="equal",
        )
        if before is not None:
            drawing.legend_below(axes)
        svg = drawing.to_svg(axes, name=f"reliability-{name}", label="Observed frequency by probability")
    return Drawing(
        title="Reliability, per sample",
        svg=svg,
        caption=f"The predicted probability of {of} in ten bins, against how often it was right; "
        "small numbers count the samples. "
        "Dashed: perfectly calibrated.",
    )


def _reliability_bins(targets: NDArray[Any], probabilities: NDArray[Any]) -> calibration.Reliability:
    """Of the last class of two, else of the likeliest class: then whether it was right."""
    if probabilities.shape[1] == 2:
        return calibration.reliability_bins(targets, probabilities)
    sure = probabilities.max(1)
    right = (probabilities.argmax(1) == targets).astype(int)
    return calibration.reliability_bins(right, np.stack([1 - sure, sure], 1))


def _curves(targets: NDArray[Any], probabilities: NDArray[Any]) -> list[int]:
    """Classes to draw a curve for: both kinds of samples occur, and of many classes the worst."""
    number = probabilities.shape[1]
    there = [k for k in ([1] if number == 2 else range(number)) if 0 < int((targets == k).sum()) < len(targets)]
    if len(there) <= MOST_CURVES:
        return there
    areas = {k: _area(calibration.roc_points(targets, probabilities, which=k)) for k in there}
    return sorted(sorted(there, key=lambda k: areas[k])[:MOST_CURVES])


def _area(curve: Curve) -> float:
    return float(np.trapezoid(curve.y, curve.x))


def _draw(axes: Axes, curves: Mapping[int, Curve], classes: Sequence[str], *, steps: bool = False) -> None:
    for place, (index, curve) in enumerate(curves.items()):
        axes.plot(
            curve.x,
            curve.y,
            color=drawing.SERIES[place],
            linestyle=drawing.DASHES[place],
            drawstyle="steps-pre" if steps else "default",
            label=_short(classes[index]) if len(curves) > 1 else None,
        )


def _mark(axes: Axes, curve: Curve, threshold: float) -> None:
    """The operating point: the last one whose threshold is at least the chosen one."""
    at = int(np.flatnonzero(curve.thresholds >= threshold)[-1])
    axes.plot(
        curve.x[at],
        curve.y[at],
        color=drawing.ORANGE,
        marker="o",
        markersize=8,
        markerfacecolor="none",
        markeredgewidth=2,
        clip_on=False,
        zorder=5,
        linestyle="none",
        label=f"threshold {threshold:.3f}",
    )


def _whose(curves: Mapping[int, Curve], classes: Sequence[str], more: str) -> str:
    if len(curves) == 1:
        first = f"For {classes[next(iter(curves))]}."
    elif len(curves) < len(classes):
        first = f"Each class against the rest: the {len(curves)} of {len(classes)} that are recognised worst."
    else:
        first = "Each class against the rest."
    return f"{first} {more}".strip()


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"
