"""Long work and who watches it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    pass

Advance = Callable[[int], None]


class Computing(Protocol):
    """A progress bar: from a title and a number of units to what is called with each number done."""

    def __call__(self, title: str, total: int, /) -> Advance:
        """Begin."""


def unseen(_title: str, _total: int) -> Advance:
    """A progress bar that isn't shown."""
    return lambda _done: None
