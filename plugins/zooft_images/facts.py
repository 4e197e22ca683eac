"""Facts of very many pictures in little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

Value = str | float


@dataclass(frozen=True, slots=True, eq=False)
class Facts(Mapping[str, Value]):
    """A mapping whose names are shared by all samples, which halves what a dict takes; equal to a dict of the same."""

    names: tuple[str, ...]
    row: tuple[Value, ...]

    def __getitem__(self, name: str) -> Value:
        try:
            return self.row[self.names.index(name)]
        except ValueError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def sharing() -> Callable[[Mapping[str, Value]], Facts]:
    """What makes `Facts` of mappings, with one object for equal names and values."""
    known: dict[Value, Value] = {}
    orders: dict[tuple[str, ...], tuple[str, ...]] = {}

    def share(facts: Mapping[str, Value]) -> Facts:
        names = tuple(facts)
        return Facts(orders.setdefault(names, names), tuple(known.setdefault(v, v) for v in facts.values()))

    return share
