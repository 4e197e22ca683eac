"""Which files are meant by what was typed, and what was left out of the folders among it."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zooft.contracts import Rejection
from zooft.data.hidden_files import is_hidden
from zooft.data.sources import source_of
from zooft.errors import DataError

if TYPE_CHECKING:
    from zooft.contracts import Source


@dataclass(frozen=True, slots=True)
class Meant:
    """What was typed, as files.

    Attributes:
        files: each once, in order; those that were named stay, also where they lead nowhere.
        left_out: what lies in folders and isn't predicted, with the reason.
        sources: those of the files, and folders among them, that were typed and that a data source reads.
    """

    files: tuple[Path, ...]
    left_out: tuple[Rejection, ...]
    sources: Mapping[Path, Source]


def files(typed: Sequence[str], *, leave: Collection[Path] = (), sources: Sequence[Source] = ()) -> Meant:
    """Files, those below folders, and what patterns match.

    Args:
        typed: paths and patterns.
        leave: files that this very command writes.
        sources: that may read what was typed, a file or a folder, as a whole.

    Raises:
        DataError: nothing was found in what was typed.
    """
    found: dict[Path, Source | None] = {}
    left_out: list[Rejection] = []
    ours = {path.absolute() for path in leave}
    for place in (place for text in typed for place in _matches(text) or [Path(text)]):
        source = source_of(place, sources)
        for each in _below(place) if place.is_dir() and source is None else [(place, "")]:
            path, reason = each
            reason = reason or ("written by this command" if path.absolute() in ours else "")
            if reason:
                left_out.append(Rejection(str(path), reason))
            else:
                found[path] = found.get(path) or source
    if not found:
        raise DataError(f"there are no files in {' '.join(typed)}{_sum_up(left_out)}")
    return Meant(tuple(found), tuple(left_out), {path: source for path, source in found.items() if source is not None})


def places(typed: Sequence[str]) -> list[Path]:
    """Files and folders, for a task that reads folders by itself.

    Raises:
        DataError: a path that leads nowhere, or a pattern that matches nothing.
    """
    found = []
    for text in typed:
        matches = _matches(text)
        if not matches:
            raise DataError(f"there is nothing at {text}")
        found += matches
    return list(dict.fromkeys(found))


def summary(left_out: Sequence[Rejection]) -> str:
    """How many, by reason, and the first of them; nothing where there are none."""
    return _sum_up(left_out).removeprefix("; ")


def _sum_up(left_out: Sequence[Rejection]) -> str:
    if not left_out:
        return ""
    counts: dict[str, int] = {}
    for each in left_out:
        counts[each.reason] = counts.get(each.reason, 0) + 1
    reasons = ", ".join(f"{count}: {reason}" for reason, count in counts.items())
    return f"; left out: {reasons}; the first: {left_out[0].id}"


def _matches(text: str) -> list[Path]:
    path = Path(text)
    if os.path.lexists(path):
        return [path]
    return sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207 -- absolute patterns too


def _below(folder: Path) -> list[tuple[Path, str]]:
    """Every file at any depth, sorted, and why it is left out where it is.

    Links to folders aren't followed, so that the walk ends.
    """
    found: list[tuple[Path, str]] = []

    def note(error: OSError) -> None:
        found.append((Path(error.filename), f"can't be read: {error.strerror}"))

    for top, inner, names in os.walk(folder, onerror=note):
        here = Path(top)
        entries = [*names, *(name for name in inner if is_hidden(name) or (here / name).is_symlink())]
        inner[:] = [name for name in inner if not is_hidden(name)]
        found += ((here / name, _reason(here / name)) for name in entries)
    return sorted(found)


def _reason(path: Path) -> str:
    if is_hidden(path.name):
        return "hidden" if path.name.startswith(".") else "made by a system, not data"
    try:
        mode = path.stat().st_mode
    except OSError:
        return "a link that leads nowhere"
    if stat.S_ISDIR(mode):
        return "a link to a folder, which isn't followed"
    return "" if stat.S_ISREG(mode) else "not a regular file"
