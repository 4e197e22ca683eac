"""The targets of samples as the audit needs them: numbers that are equal where targets are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Labels, Problem, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The targets of samples.

    Attributes:
        name: of the target, such as ``class``.
        categories: of a single label whose targets are one of several names, in order; else nothing.
        numbers: ``(N,)``, equal for equal targets; where there are categories, the index of one. -1 for unknown ones.
    """

    name: str
    categories: tuple[str, ...]
    numbers: NDArray[np.int64]

    def counts(self) -> dict[str, int]:
        """How many samples each category has."""
        known = self.numbers[self.numbers >= 0]
        return dict(zip(self.categories, np.bincount(known, minlength=len(self.categories)).tolist(), strict=True))


def targets_of(samples: Sequence[Sample], problem: Problem, labels: Labels) -> Targets:
    """The targets of all samples, distinguished by the problem's text for each."""
    categories = labels[0].categories if len(labels) == 1 else ()
    known = {name: index for index, name in enumerate(categories)}
    numbers = np.full(len(samples), -1, np.int64)
    for row, sample in enumerate(samples):
        if sample.target is not None:
            text = problem.presentation.target(sample.target, labels)
            numbers[row] = known.setdefault(text, len(known))
    names = dict.fromkeys(label.answer or label.name for label in labels)
    return Targets(name=", ".join(names) or "target", categories=categories, numbers=numbers)
