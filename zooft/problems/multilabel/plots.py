"""Precision-recall curves of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zooft.problems.multilabel import metrics
from zooft.problems.ranking import precision_recall, ranking
from zooft.report import drawing
from zooft.report.blocks import Drawing

if TYPE_CHECKING:
    from zooft.contracts import Labels
    from zooft.evaluation.evaluate import Evaluated
    from zooft.report.blocks import Block

MOST_CURVES = 6
"""Labels with a curve of their own; of more, those with the smallest average precision."""
_LONGEST = 22


def of_split(evaluated: Evaluated, labels: Labels) -> list[Block]:
    """One drawing with a curve a label; nothing where no label is there in some samples and not in others."""
    predictions, split = evaluated.predictions, evaluated.evaluation.split
    targets, given = predictions["target"], predictions["probabilities"].astype(np.float64)
    precisions, _ = metrics.areas(targets, given)
    defined = [index for index in np.argsort(precisions, kind="stable") if not np.isnan(precisions[index])]
    shown = sorted(int(index) for index in defined[:MOST_CURVES])
    if not shown:
        return []
    with drawing.axes(width=4.2, height=4.2) as axes:
        for place, index in enumerate(shown):
            known = ~np.isnan(targets[:, index])
            scores = given[known, index]
            curve = precision_recall(ranking(targets[known, index] > 0, scores))
            name = labels[index].name
            axes.plot(
                curve.x,
                curve.y,
                color=drawing.SERIES[place],
                linestyle=drawing.DASHES[place],
                drawstyle="steps-pre",
                label=name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…",
            )
        axes.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        drawing.legend_below(axes)
        svg = drawing.to_svg(axes, name=f"pr-labels-{split}", label="Precision by recall of each label")
    of = f"the {len(shown)} of {len(labels)} labels that are found worst" if len(shown) < len(labels) else "each label"
    return [Drawing(title="Precision and recall, per sample", svg=svg, caption=f"Of {of}, where it is known.")]
