"""LFW's list of pairs: ``NAME N M`` for two pictures of one person, ``NAME N OTHER M`` for those of two.

Huang et al., Labeled Faces in the Wild, 2007. Its first line counts folds and pairs, or pairs alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import zooft

_FIRST = re.compile(r"\s*\d+(\s+\d+)?\s*")
_MOST = 4096
"""Bytes in which the first two lines of a list end."""
_SUFFIXES = (".jpg", ".png", ".jpeg", ".pgm", ".ppm", ".bmp", ".webp")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures, by name and number, and the line that names them."""

    first: tuple[str, int]
    second: tuple[str, int]
    line: int


def is_list(path: Path) -> bool:
    """Whether a file begins as such a list does."""
    with path.open("rb") as file:
        lines = file.read(_MOST).decode("utf-8", "replace").splitlines()
    return len(lines) > 1 and _FIRST.fullmatch(lines[0]) is not None and _pair(lines[1], 2) is not None


def read(path: Path) -> list[Pair]:
    """All pairs, in order.

    Raises:
        DataError: a line is none, or there are fewer or more than the first line gives.
    """
    lines = path.read_text(encoding="utf-8", errors="backslashreplace").splitlines()
    found: list[Pair] = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        pair = _pair(line, number)
        if pair is None:
            raise zooft.DataError(
                f"{path.name}, line {number}: {line.strip()[:60]!r} is no pair; expected NAME N M, or NAME N OTHER M"
            )
        found.append(pair)
    counts = [int(word) for word in lines[0].split()]
    wanted = 2 * counts[0] * (counts[1] if len(counts) > 1 else 1)  # as many of two people as of one
    if len(found) != wanted:
        raise zooft.DataError(
            f"{path.name} has {len(found):,} pairs, and its first line gives {wanted:,}; it may be cut off"
        )
    return found


def _pair(line: str, number: int) -> Pair | None:
    words = line.split("\t") if "\t" in line else line.split()
    words = [word.strip() for word in words]
    if len(words) == 3 and words[1].isdigit() and words[2].isdigit():
        return Pair((words[0], int(words[1])), (words[0], int(words[2])), number)
    if len(words) == 4 and words[1].isdigit() and words[3].isdigit():
        return Pair((words[0], int(words[1])), (words[2], int(words[3])), number)
    return None


def root_of(folder: Path, listed: Sequence[Pair]) -> Path:
    """The folder that holds the people's: this one, or one right below it.

    Raises:
        DataError: there is none.
    """
    names = {pair.first[0] for pair in listed}
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in names)]
    for place in places:
        if any((place / name).is_dir() for name in names):
            return place
    first = next(iter(sorted(names)), "")
    raise zooft.DataError(
        f"{folder} holds no folders of the people that the pairs name, such as {first}; put the list beside them"
    )


def picture_of(root: Path, name: str, number: int) -> Path | None:
    """``NAME/NAME_0001.jpg``, or with another suffix of pictures; None where there is none."""
    if Path(name).name != name:  # no way out of the folder
        return None
    stem = root / name / f"{name}_{number:04}"
    return next((path for suffix in _SUFFIXES if (path := stem.with_name(stem.name + suffix)).is_file()), None)
