"""One picture of a run: how it learnt, what it confuses, and its most confident mistakes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.report.answers import mistakes
from zooft.report.answers import said as answered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from zooft.contracts import Sample
    from zooft.judge import Predictions
    from zooft.metrics import Evaluation

MISTAKES = 6
_INK, _BLUE, _ORANGE = "#222222", "#1f5fa8", "#c8651b"


def draw(
    path: Path,
    *,
    title: str,
    epochs: Path,
    evaluation: Evaluation,
    classes: Sequence[str],
    predictions: Predictions,
    show: Callable[[Sample], NDArray[np.uint8]],
) -> None:
    """Write the picture of a run as PNG.

    Args:
        path: of the PNG.
        title: what was trained on what, and how well it did.
        epochs: the run's ``metrics.jsonl``.
        evaluation: of the validation samples.
        classes: their names.
        predictions: of the validation samples.
        show: a sample as a picture for people, ``(H, W)`` or ``(H, W, 3)``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = [json.loads(line) for line in epochs.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(13, 8.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, weight="bold", color=_INK)
    above, below = np.ravel(figure.subfigures(2, 1, height_ratios=(1.5, 1)))  # type: ignore[arg-type]
    grid = above.add_gridspec(1, 3)
    _losses(above.add_subplot(grid[0]), records)
    _metrics(above.add_subplot(grid[1]), records)
    _confusion(above.add_subplot(grid[2]), evaluation, classes)
    worst = mistakes(predictions, evaluation.threshold, MISTAKES)
    said = answered(predictions, evaluation.threshold)
    below.suptitle(f"{'Most confident' if worst else 'No'} mistakes on {evaluation.split}", fontsize=12, color=_INK)
    for column, axes in enumerate(below.subplots(1, MISTAKES)):
        axes.axis("off")
        if column < len(worst):
            row = worst[column]
            _mistake(axes, predictions, row, int(said[row]), classes, show)
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png", dpi=110)
    partial.replace(path)


def _losses(axes: Axes, records: Sequence[dict[str, Any]]) -> None:
    x = [record["epoch"] for record in records]
    axes.plot(x, [record["train_loss"] for record in records], color=_BLUE, marker=".", label="training")
    axes.plot(x, [record["val_loss"] for record in records], color=_ORANGE, marker=".", label="validation")
    axes.set(title="Loss", xlabel="epoch", ylim=(0, None))
    axes.legend(frameon=False)
    _plain(axes, x)


def _metrics(axes: Axes, records: Sequence[dict[str, Any]]) -> None:
    x = [record["epoch"] for record in records]
    for name in records[0]["metrics"]:
        values = [record["metrics"][name] for record in records]
        axes.plot(x, [np.nan if v is None else v for v in values], marker=".", label=name.replace("_", " "))
    best = max(record["epoch"] for record in records if record["best"])
    axes.axvline(best, color=_INK, linewidth=0.8, linestyle=":")
    axes.set(title=f"Validation (dotted: best epoch, {best})", xlabel="epoch")
    if records[0]["metrics"]:
        axes.legend(frameon=False, fontsize=8)
    _plain(axes, x)


def _plain(axes: Axes, epochs: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)


def _confusion(axes: Axes, evaluation: Evaluation, classes: Sequence[str]) -> None:
    matrix = np.array(evaluation.confusion)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(
        title=f"Confusion on {evaluation.split} ({evaluation.samples} samples)",
        xlabel="predicted",
        ylabel="true",
    )
    if len(classes) > 20:
        return
    names = [name if len(name) <= 14 else name[:13] + "…" for name in classes]
    axes.set_xticks(
        range(len(classes)),
        names,
        rotation=45 if len(classes) > 4 else 0,
        ha="right" if len(classes) > 4 else "center",
    )
    axes.set_yticks(range(len(classes)), names)
    for row, column in np.ndindex(matrix.shape):
        if matrix[row, column]:
            color = "white" if share[row, column] > 0.5 else _INK
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=color, fontsize=9)


def _mistake(
    axes: Axes,
    predictions: Predictions,
    row: int,
    said: int,
    classes: Sequence[str],
    show: Callable[[Sample], NDArray[np.uint8]],
) -> None:
    picture = show(predictions.samples[row])
    axes.imshow(picture, cmap="gray" if picture.ndim == 2 else None)
    share = predictions.probabilities[row, said]
    true = classes[int(predictions.targets[row])]
    axes.set_title(f"true: {true}\ntaken for {classes[said]} ({share:.0%})", fontsize=9, color=_INK)
