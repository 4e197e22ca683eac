"""Which Parquet files are data, and which split each of them is by its folder's or its own name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import zooft

_SUFFIXES = (".parquet", ".parq", ".pq")
_PLAIN = "data"
"""The folder that data hubs put the files into."""
Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class File:
    """A Parquet file as it was when it was listed: where, bytes, and nanoseconds of its last change."""

    path: str
    size: int
    changed: int


@dataclass(frozen=True, slots=True)
class Found:
    """A file, what a run calls it, and its split."""

    file: File
    name: str
    split: Split | None


def recognises(path: Path) -> bool:
    """Whether a path is a Parquet file by its name, or a folder of them, or of split folders of them, and of no others.

    Parquet files beside class folders count as tables about those.
    """
    if path.is_file():
        return _is_parquet(path)
    if not path.is_dir():
        return False
    folders = [inner for inner in _visible(path) if inner.is_dir()]
    return bool(_paths(path)) and all(_is_ours(folder) for folder in folders)


def find(path: Path) -> list[Found]:
    """The files at a path, in order.

    Raises:
        DataError: splits by some names and not by others, or a file that can't be read.
    """
    if path.is_file():
        return [Found(_stamp(path), path.name, None)]
    splits = {each: _split_of(each, path) for each in _paths(path)}
    without = [each.name for each, split in splits.items() if split is None]
    if without and len(without) < len(splits):
        named = next(each.name for each, split in splits.items() if split)
        raise zooft.DataError(
            f"{path}: {named} names its split and {without[0]} doesn't; name all files, or their folders, after "
            "train, val or test, or none; one file alone can be given with --data"
        )
    return [Found(_stamp(each), each.relative_to(path).as_posix(), split) for each, split in splits.items()]


def _paths(root: Path) -> list[Path]:
    """Right in the folder, and in those that are splits or hold nothing else."""
    inner = [folder for folder in _visible(root) if folder.is_dir() and _is_ours(folder)]
    return [path for folder in (root, *inner) for path in _visible(folder) if _is_parquet(path)]


def _is_ours(folder: Path) -> bool:
    """Whether it is named as a split or as data, and holds Parquet files and no folders."""
    if folder.name.lower() not in {*zooft.SPLIT_NAMES, _PLAIN}:
        return False
    within = list(_visible(folder))
    return any(_is_parquet(path) for path in within) and not any(path.is_dir() for path in within)


def _split_of(path: Path, root: Path) -> Split | None:
    """By the folder, else by the words of the name, such as train in ``train-00000-of-00004.parquet``."""
    if path.parent != root and (split := zooft.SPLIT_NAMES.get(path.parent.name.lower())):
        return split
    words = re.split(r"[^a-z]+", path.name.lower())
    found = {zooft.SPLIT_NAMES[word] for word in words if word in zooft.SPLIT_NAMES}
    if len(found) > 1:
        raise zooft.DataError(f"{path} names several splits: {' and '.join(sorted(found))}; rename it after one")
    return next(iter(found), None)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def _visible(folder: Path) -> Iterator[Path]:
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise zooft.DataError(f"{folder} can't be read: {error.strerror}") from error
    return (path for path in found if not zooft.is_hidden(path.name))


def _stamp(path: Path) -> File:
    try:
        about = path.stat()
    except OSError as error:
        raise zooft.DataError(f"{path} can't be read: {error.strerror}") from error
    return File(str(path), about.st_size, about.st_mtime_ns)
