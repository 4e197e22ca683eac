"""Which label is of which kind, and names with a label in front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.evaluation.predictions import Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Labels, Problem

BETWEEN = "_"
KNOWN = "known"
"""The column that marks the rows whose target is known."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of the answers.

    Attributes:
        name: of it, and in front of the names of its outputs and columns.
        problem: its kind.
        labels: its own, alone.
    """

    name: str
    problem: Problem
    labels: Labels

    def own(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What of named values is this part's, under the names that its problem knows."""
        start = self.name + BETWEEN
        return {key[len(start) :]: value for key, value in values.items() if key.startswith(start)}

    def rename(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The way back of `own`."""
        return {f"{self.name}{BETWEEN}{key}": value for key, value in values.items()}

    def figure(self, name: str) -> str:
        """What one of its figures is called, as those of one of several labels are: ``mae/age``."""
        return f"{name}/{self.name}"

    def figures(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The part's figures, under the names that its problem knows."""
        end = f"/{self.name}"
        return {name.removesuffix(end): value for name, value in values.items() if name.endswith(end)}

    def targets(self, targets: Sequence[Any]) -> list[Any]:
        """Of all samples, None where this one isn't known."""
        return [None if target is None else target.get(self.name) for target in targets]

    def predictions(self, given: Predictions) -> Predictions:
        """The part's columns of all rows."""
        columns = self.own(given.columns)
        return replace(given, columns={name: column for name, column in columns.items() if name != KNOWN})

    def known_rows(self, given: Predictions) -> NDArray[np.int64]:
        """Rows whose target is known."""
        return np.flatnonzero(given.columns[f"{self.name}{BETWEEN}{KNOWN}"])


@dataclass(frozen=True, slots=True)
class Kinds:
    """The problems that labels may be of, by name."""

    problems: Mapping[str, Problem]

    def parts(self, labels: Labels) -> Iterator[Part]:
        """One an answer, in order. Names never begin with another's and an underscore: discovery refuses them."""
        for name, own in groupby(labels, key=lambda label: label.answer or label.name):
            several = tuple(own)
            alone = tuple(replace(label, problem="", answer="") for label in several)
            yield Part(name, self.problems[several[0].problem], alone)
