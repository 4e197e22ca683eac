"""Where records are, for millions of them in little memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from zooft.storage.cache.segments import Segment

_PLACE = np.dtype([("check", "<u8"), ("segment", "<i4"), ("row", "<i4")])
_NOWHERE = -1


class Index:
    """From a record's name to its segment and row: 24 bytes a record.

    Names are digests, distinguished by two numbers of 64 bits: Python's hash, and their last 16 digits.
    """

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._keys: NDArray[np.int64] = np.empty(0, np.int64)  # ascending
        self._places: NDArray[np.void] = np.empty(0, _PLACE)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.place(name) is not None

    def place(self, name: str) -> tuple[Segment, int] | None:
        """The place of one record; None where it isn't listed."""
        at = int(self._at([name])[0])
        return None if at == _NOWHERE else (self._segments[self._places["segment"][at]], int(self._places["row"][at]))

    def places(
        self, names: Sequence[str]
    ) -> tuple[dict[Segment, tuple[NDArray[np.int64], NDArray[np.int64]]], NDArray[np.int64]]:
        """By segment, the positions in `names` and the rows there; and the positions of names that aren't listed."""
        at = self._at(names)
        found = np.flatnonzero(at != _NOWHERE)
        segments, rows = (self._places[column][at[found]] for column in ("segment", "row"))
        order = np.argsort(segments, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(segments[order])) + 1) if len(order) else []
        return (
            {self._segments[segments[part[0]]]: (found[part], rows[part].astype(np.int64)) for part in parts},
            np.flatnonzero(at == _NOWHERE),
        )

    def add(self, more: Iterable[tuple[Segment, Sequence[str]]]) -> None:
        """Add segments with their records' names by row; of records with one name, the first listed stays."""
        all_keys, all_places = [self._keys], [self._places]
        for segment, names in more:
            places = np.empty(len(names), _PLACE)
            places["check"] = _checks(names)
            places["segment"], places["row"] = len(self._segments), np.arange(len(names))
            self._segments.append(segment)
            all_keys.append(_keys(names))
            all_places.append(places)
        keys, first = np.unique(np.concatenate(all_keys), return_index=True)  # the first of each
        self._keys, self._places = keys, np.concatenate(all_places)[first]

    def forget(self, names: Sequence[str]) -> None:
        """Remove names from the list."""
        at = self._at(names)
        staying = np.ones(len(self._keys), np.bool_)
        staying[at[at != _NOWHERE]] = False
        self._keys, self._places = self._keys[staying], self._places[staying]

    def clear(self) -> None:
        """Empty the list."""
        self._segments, self._keys, self._places = [], self._keys[:0], self._places[:0]

    def _at(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Positions in the list.

        Two names with the same hash share one place, so that one isn't found: at 10 million names, in one of 400,000
        lists.
        """
        keys = _keys(names)
        if not len(self._keys):
            return np.full(len(keys), _NOWHERE)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        right = (self._keys[at] == keys) & (self._places["check"][at] == _checks(names))
        return np.where(right, at, _NOWHERE)


def _keys(names: Iterable[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, names), np.int64)


def _checks(names: Iterable[str]) -> NDArray[np.uint64]:
    return np.fromiter((int(name[-16:], 16) for name in names), np.uint64)
