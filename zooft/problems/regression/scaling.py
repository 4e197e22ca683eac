"""How numbers are standardised.

By the mean and the standard deviation of the training targets, which stand in the labels.

There they are in the run's record and in the exported file too, and everybody who gets labels has the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import Label
from zooft.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from zooft.contracts import Labels

QUARTILES = {"lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75}

HEAD = "standardised"
"""The head's output, ``(N, L)``."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and standard deviation of each number, ``(L,)`` float64, in its unit."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    def standardise(self, numbers: NDArray[Any]) -> NDArray[np.float64]:
        """``(…, L)`` in units to standard deviations from the mean."""
        return (np.asarray(numbers, np.float64) - self.mean) / self.std

    def restore(self, standardised: NDArray[Any]) -> NDArray[np.float64]:
        """The way back."""
        return np.asarray(standardised, np.float64) * self.std + self.mean


def scale_of(labels: Labels) -> Scale:
    """Scales from labels; numbers stay as they are where labels have none."""
    mean = [label.constants.get("mean", 0.0) for label in labels]
    std = [label.constants.get("std", 1.0) for label in labels]
    return Scale(np.array(mean, np.float64), np.array(std, np.float64))


def numbers_of(targets: Sequence[Any], labels: Labels) -> NDArray[np.float64]:
    """Targets as ``(N, L)``; NaN for numbers, and samples, that aren't known."""
    unknown = (None,) * len(labels)
    rows = [[np.nan if number is None else number for number in target or unknown] for target in targets]
    return np.array(rows, np.float64).reshape(len(targets), len(labels))


def prepare(labels: Labels, targets: Sequence[Any], _options: Any) -> Labels:
    """Labels with mean, standard deviation and quartiles of the training targets.

    Raises:
        DataError: no training sample has one of the numbers.
    """
    numbers = numbers_of(targets, labels)
    return tuple(_prepare(label, column[~np.isnan(column)]) for label, column in zip(labels, numbers.T, strict=True))


def _prepare(label: Label, known: NDArray[np.float64]) -> Label:
    if not len(known):
        raise DataError(f"no training sample has a value of {label.name}; add some, or leave the column out")
    # a number that never varies is trained as it is
    constants = {"mean": float(known.mean()), "std": float(known.std()) or 1.0}
    quartiles = {name: float(np.quantile(known, share)) for name, share in QUARTILES.items()}
    return replace(label, constants=constants | quartiles)
