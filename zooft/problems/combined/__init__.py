"""Several answers at once.

A head for each on one trunk, one file with all of them, and samples that know some of the targets only.
"""

from __future__ import annotations

from collections.abc import Mapping

from zooft.contracts import Problem
from zooft.problems.combined.deployment import deployment_part
from zooft.problems.combined.evaluation import evaluation_part
from zooft.problems.combined.options import CombinedOptions
from zooft.problems.combined.parts import Kinds
from zooft.problems.combined.presentation import presentation_part
from zooft.problems.combined.training import training_part


def combined(kinds: Mapping[str, Problem]) -> Problem:
    """A problem of several, one for each answer.

    A sample's target is a mapping from the answers' names to their targets; those that aren't known are left out or
    None. Which kind an answer is of stands in `Label.problem` of its labels; where it has several, such as a multilabel
    one, its name stands in `Label.answer`, and else is its label's.

    Args:
        kinds: name to problem, such as ``{"classification": classification(), "regression": regression()}``.
    """
    known = Kinds(kinds)
    return Problem(
        name="combined",
        training=training_part(known),
        evaluation=evaluation_part(known),
        deployment=deployment_part(known),
        presentation=presentation_part(known),
        options=CombinedOptions,
    )


__all__ = ["CombinedOptions", "combined"]
