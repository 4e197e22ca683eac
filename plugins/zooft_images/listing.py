"""Which pictures there are and what they are called, before any of them is looked into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import zooft
from zooft_images.shards import Member


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture with a label, not yet looked into."""

    id: str
    source: Path | Member
    label: str
    split: Literal["train", "val", "test"] | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Pictures in their order, classes, whether these are in an order that was given, and what can't be used."""

    candidates: Sequence[Candidate]
    classes: tuple[str, ...]
    rejected: Sequence[zooft.Rejection]
    notes: Sequence[str]
    ordered: bool = False


def folders(root: Path) -> list[Path]:
    """Folders right below, hidden ones left out, in order.

    Raises:
        DataError: `root` can't be read.
    """
    return sorted(path for path in _entries(root) if path.is_dir() and not path.name.startswith("."))


def others(root: Path) -> list[Path]:
    """Files, and whatever else is no folder, hidden ones left out, in order.

    Raises:
        DataError: `root` can't be read.
    """
    return sorted(path for path in _entries(root) if not path.is_dir() and not path.name.startswith("."))


def _entries(root: Path) -> list[Path]:
    try:
        return list(root.iterdir())
    except OSError as error:
        raise zooft.DataError(f"{root} can't be read: {error.strerror}") from error
