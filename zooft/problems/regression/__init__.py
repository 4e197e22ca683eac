"""One or several numbers with units: standardised in training, in their units everywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.contracts import Problem
from zooft.problems.regression.deployment import deployment_part
from zooft.problems.regression.evaluation import evaluation_part
from zooft.problems.regression.options import RegressionOptions
from zooft.problems.regression.presentation import presentation_part
from zooft.problems.regression.training import training_part

if TYPE_CHECKING:
    from zooft.problems.regression.evaluation import Primary


def regression(*, primary: Primary = "r2", tolerance: float = 0.01) -> Problem:
    """The problem of numbers.

    A target is a tuple with a number for each label; a number that isn't known is None, and left out of loss and
    figures.

    Args:
        primary: the figure that chooses the best epoch: ``r2``, ``mae`` or ``rmse``, of several numbers the mean over
        them.
        tolerance: how far the exported file may be from the model, root mean square, in standard deviations of each
            number's training targets.
    """
    return Problem(
        name="regression",
        training=training_part(),
        evaluation=evaluation_part(primary),
        deployment=deployment_part(tolerance),
        presentation=presentation_part(),
        options=RegressionOptions,
    )


__all__ = ["RegressionOptions", "regression"]
