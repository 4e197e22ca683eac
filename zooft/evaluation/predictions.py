"""A model's predictions for samples, as columns of rows: all that the core knows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.storage.sequences import pick, spill_like

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """A model's predictions for samples, in their order.

    Attributes:
        samples: what was predicted; empty where only columns are needed, as in the bootstrap.
        columns: name to array ``(N, …)``, as the problem made them.
    """

    samples: Sequence[Sample]
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A column ``(N, …)``."""
        return self.columns[name]

    @property
    def groups(self) -> list[str | None]:
        """The group of each sample."""
        return [sample.group for sample in self.samples]

    def take(self, rows: NDArray[Any]) -> Predictions:
        """Some of the predictions, by their positions."""
        return Predictions(samples=pick(self.samples, rows), columns=self.rows(rows))

    def rows(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Some rows of all columns."""
        return {name: column[rows] for name, column in self.columns.items()}

    def with_columns(self, **columns: NDArray[Any]) -> Predictions:
        """The same predictions with columns added or replaced."""
        return replace(self, columns={**self.columns, **columns})


def join(parts: Sequence[Predictions]) -> Predictions:
    """Several models' predictions for several samples as one, such as those of a cross-validation's folds.

    Columns that some parts lack are left out.
    """
    names = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    return Predictions(
        samples=spill_like([part.samples for part in parts], chain(*(part.samples for part in parts))),
        columns={name: np.concatenate([part.columns[name] for part in parts]) for name in names},
    )
