"""Grades in order, such as those of a disease: a wrong answer is worse the farther it is from the truth."""

from __future__ import annotations

from zooft.contracts import Problem
from zooft.problems.ordinal.deployment import deployment_part
from zooft.problems.ordinal.evaluation import evaluation_part
from zooft.problems.ordinal.options import OrdinalOptions
from zooft.problems.ordinal.presentation import presentation_part
from zooft.problems.ordinal.training import training_part


def ordinal(*, probability_limit: float = 1e-2) -> Problem:
    """The problem of ordered grades.

    A target is the index of a grade in its scale, from 0; the label's categories are the grades, the lowest first.

    Args:
        probability_limit: how much a probability of the exported file may differ from the model's; the default leaves
            room for rounding to whole levels of 8-bit images inside the graph.
    """
    return Problem(
        name="ordinal",
        training=training_part(),
        evaluation=evaluation_part(),
        deployment=deployment_part(probability_limit),
        presentation=presentation_part(),
        options=OrdinalOptions,
    )


__all__ = ["OrdinalOptions", "ordinal"]
