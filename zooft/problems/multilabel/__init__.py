"""Labels that don't exclude each other: each is there or not, or not known."""

from __future__ import annotations

from zooft.contracts import Problem
from zooft.problems.multilabel.deployment import deployment_part
from zooft.problems.multilabel.evaluation import evaluation_part
from zooft.problems.multilabel.options import MultilabelOptions
from zooft.problems.multilabel.presentation import presentation_part
from zooft.problems.multilabel.training import training_part


def multilabel(*, probability_limit: float = 1e-2) -> Problem:
    """The problem of several labels at once.

    A target is a tuple with True, False or None for each label; one that isn't known is None, and left out of loss and
    figures.

    Args:
        probability_limit: how much a probability of the exported file may differ from the model's; the default leaves
            room for rounding to whole levels of 8-bit images inside the graph.
    """
    return Problem(
        name="multilabel",
        training=training_part(),
        evaluation=evaluation_part(),
        deployment=deployment_part(probability_limit),
        presentation=presentation_part(),
        options=MultilabelOptions,
    )


__all__ = ["MultilabelOptions", "multilabel"]
