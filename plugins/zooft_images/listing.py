"""Which pictures there are and what they are called, before any of them is opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import zooft
from zooft_images.names import describe_hidden, kind_of_hidden, looks_like_picture, why_hidden
from zooft_images.shards import Member
from zooft_images.source_image import Stored

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture with a label, not yet opened."""

    id: str
    source: Path | Member | Stored
    label: str
    split: Split | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Pictures in their order, classes, whether these are in an order that was given, and what can't be used."""

    candidates: Sequence[Candidate]
    classes: tuple[str, ...]
    rejected: Sequence[zooft.Rejection]
    notes: Sequence[str]
    ordered: bool = False


@dataclass(slots=True)
class LeftOut:
    """Hidden files, and what systems and programs put beside pictures.

    Counted, and listed where they look like pictures.

    Attributes:
        root: the data folder.
        names: of all of them, with how often they were there.
        rejected: those that look like pictures, and folders that hold such.
    """

    root: Path
    names: dict[str, int] = field(default_factory=dict)
    rejected: list[zooft.Rejection] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """One more."""
        kind = printable(kind_of_hidden(path.name))
        self.names[kind] = self.names.get(kind, 0) + 1
        if path.is_dir() and not path.is_symlink():
            pictures = sum(looks_like_picture(name) for _, _, names in os.walk(path) for name in names)
            if pictures:
                why = (
                    f"hidden, or made by a system: what looks like {pictures:,} picture{'s' * (pictures > 1)} in this "
                    "folder isn't used"
                )
                self.rejected.append(zooft.Rejection(identity(self.root, path), why))
        elif looks_like_picture(path.name):
            self.rejected.append(zooft.Rejection(identity(self.root, path), why_hidden(path.name)))

    def notes(self) -> list[str]:
        """How many, and what they are called."""
        return describe_hidden(self.names)


def folders(root: Path, left_out: LeftOut | None = None) -> list[Path]:
    """Folders right below, hidden ones left out, in order.

    Raises:
        DataError: `root` can't be read.
    """
    found = [path for path in _entries(root) if path.is_dir()]
    return _visible(found, left_out)


def others(root: Path, left_out: LeftOut | None = None) -> list[Path]:
    """Files, and whatever else is no folder, hidden ones left out, in order.

    Raises:
        DataError: `root` can't be read.
    """
    found = [path for path in _entries(root) if not path.is_dir()]
    return _visible(found, left_out)


def identity(root: Path, path: Path) -> str:
    """What the files of a run call it: the path relative to the data folder, with forward slashes."""
    return printable(os.path.relpath(path, root).replace(os.sep, "/"))


def printable(name: str) -> str:
    """A name whose bytes aren't Unicode, in characters that every file of a run can hold."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _visible(found: list[Path], left_out: LeftOut | None) -> list[Path]:
    for path in sorted(path for path in found if zooft.is_hidden(path.name)):
        if left_out is not None:
            left_out.add(path)
    return sorted(path for path in found if not zooft.is_hidden(path.name))


def _entries(root: Path) -> list[Path]:
    try:
        return list(root.iterdir())
    except OSError as error:
        raise zooft.DataError(f"{printable(str(root))} can't be read: {error.strerror}") from error
