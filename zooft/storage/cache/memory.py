"""The same as a store on disk, for as long as a process lives: where nothing is to be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zooft.storage.cache.shelf import key_of


@dataclass(frozen=True, slots=True)
class MemoryStore:
    """Shelves in memory; what exceeds its bound isn't stored, as where a disk is full.

    Attributes:
        most_bytes: what all of them may hold.
    """

    most_bytes: int
    _shelves: dict[str, MemoryShelf] = field(default_factory=dict, compare=False, repr=False)
    _room: list[int] = field(default_factory=list, compare=False, repr=False)

    def shelf(self, what: Mapping[str, Any]) -> MemoryShelf:
        """That of what was computed from `what`, as `Store.shelf` has it."""
        if not self._room:
            self._room.append(self.most_bytes)
        return self._shelves.setdefault(key_of(what), MemoryShelf(self._room))


class MemoryShelf:
    """Records by name, as a `Shelf` has them.

    Args:
        room: bytes that all shelves of the store may still take, in a list of one.
    """

    def __init__(self, room: list[int]) -> None:
        self._room = room
        self._records: dict[str, NDArray[Any]] = {}

    def __contains__(self, name: object) -> bool:
        """Whether it is there."""
        return name in self._records

    def missing(self, names: Sequence[str]) -> list[int]:
        """The positions in `names`, ascending, of records that aren't there."""
        return [position for position, name in enumerate(names) if name not in self._records]

    def get(self, name: str) -> NDArray[Any] | None:
        """A record; None where it is missing."""
        return self._records.get(name)

    def gather(self, names: Sequence[str]) -> NDArray[Any]:
        """Records of one shape, copied: ``(len(names), *shape)``."""
        return np.stack([self._records[name] for name in names])

    def put(self, names: Sequence[str], arrays: NDArray[Any] | Sequence[NDArray[Any]]) -> None:
        """Store records, copied, as far as there is room."""
        for name, array in zip(names, arrays, strict=True):
            if name not in self._records and array.nbytes <= self._room[0]:
                self._records[name] = np.array(array, order="C")
                self._room[0] -= array.nbytes

    def flush(self) -> None:
        """Nothing waits."""
