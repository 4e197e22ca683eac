"""What frozen stages gave for the samples of one view.

On a shelf of the store, or in memory where the disk is full or read-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.features.dataset import Take
    from zooft.storage.cache import MemoryShelf, Shelf

LOADED_BYTES = 256 * 2**20
"""Features up to this are read into memory; more stay on disk, memory-mapped."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """One row for each sample.

    Attributes:
        names: the samples', in order; equal ones share a row.
        shelf: of rows, on disk or, where nothing is to be written, in memory.
        held: rows in memory that couldn't be stored, by name.
    """

    names: Sequence[str]
    shelf: Shelf | MemoryShelf
    held: dict[str, NDArray[Any]] = field(default_factory=dict)

    def absent(self) -> list[int]:
        """Positions of samples that are neither stored nor held, of equal samples the first."""
        absent = [index for index in self.shelf.missing(self.names) if self.names[index] not in self.held]
        first = np.unique(np.fromiter((hash(self.names[index]) for index in absent), np.int64), return_index=True)[1]
        return [absent[at] for at in np.sort(first).tolist()]

    def put(self, positions: Sequence[int], rows: NDArray[Any]) -> int:
        """Store `rows` ``(n, …)``, hold in memory what can't be stored, and return the bytes held more than before."""
        names = [self.names[index] for index in positions]
        self.shelf.put(names, rows)
        held = {name: row for name, row in zip(names, rows, strict=True) if name not in self.shelf}
        self.held.update(held)
        return sum(row.nbytes for row in held.values())

    def rows(self, names: Sequence[str]) -> NDArray[Any]:
        """Those of `names`, ``(n, …)``."""
        if not self.held or not any(name in self.held for name in names):
            return self._read(names)
        return np.stack([self.held[name] if name in self.held else self.shelf.gather([name])[0] for name in names])

    def _read(self, names: Sequence[str]) -> NDArray[Any]:
        try:
            return self.shelf.gather(names)
        except ValueError:  # some are stored in halves, and some exceed their range
            return np.stack([self.shelf.gather([name])[0].astype(np.float32) for name in names])

    def taker(self) -> Take:
        """Positions to float32 tensors, out of memory where all rows are few bytes."""
        name = self.names[0]
        first = self.held[name] if name in self.held else self.shelf.get(name)
        size = 0 if first is None else first.nbytes
        if size * len(self.names) <= LOADED_BYTES:
            return _Loaded(torch.from_numpy(self.rows(self.names)))
        return _Mapped(self)


def to_half(rows: NDArray[np.float32]) -> NDArray[Any]:
    """In half precision, which moves features by 2e-4 at most; as they are where they exceed its range."""
    with np.errstate(over="ignore"):
        halves = rows.astype(np.float16)
    return halves if bool(np.isfinite(halves).all()) else rows


@dataclass(frozen=True, slots=True)
class _Loaded:
    """In memory, as they were stored."""

    rows: Tensor

    def __call__(self, indices: Sequence[int]) -> Tensor:
        return self.rows[list(indices)].float()


@dataclass(frozen=True, slots=True)
class _Mapped:
    """Reads from the disk, but for what couldn't be stored."""

    outputs: Outputs

    def __call__(self, indices: Sequence[int]) -> Tensor:
        names = self.outputs.names
        return torch.from_numpy(self.outputs.rows([names[i] for i in indices])).float()
