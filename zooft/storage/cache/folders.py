"""Shelves' folders: made, described, listed, removed."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zooft.storage import atomic, locks
from zooft.storage.cache import segments

_WHAT = "what.json"
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by zooft; backups may leave this folder out.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShelfInfo:
    """What stands on one shelf.

    Attributes:
        key: its folder's name.
        what: what its records depend on; empty where that can't be read.
        bytes: on disk.
        records: in its sound segments; one that two processes wrote counts twice.
        last_used: when it was last opened.
    """

    key: str
    what: Mapping[str, Any]
    bytes: int
    records: int
    last_used: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What cleaning removed.

    Attributes:
        bytes: freed.
        shelves: removed wholly.
        stayed: keys of shelves that should have been removed, in part or wholly, but a process has them open, or they
            can't be removed.
    """

    bytes: int
    shelves: int
    stayed: frozenset[str]


def make(folder: Path) -> None:
    """Make the store's folder, closed to other users.

    Raises:
        OSError: it can't be made, or belongs to somebody who could have put anything there.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(OSError):
            (folder / "CACHEDIR.TAG").write_text(_TAG, encoding="utf-8")
    if hasattr(os, "geteuid") and os.geteuid() not in {0, folder.stat().st_uid}:
        raise PermissionError(errno.EPERM, "its folder belongs to another user")


def describe(folder: Path, what: Mapping[str, Any]) -> None:
    """Write down, for people, what the shelf's records depend on."""
    if (folder / _WHAT).exists():
        return
    with atomic.whole(folder / _WHAT) as file:
        file.write(json.dumps(what, indent=2, sort_keys=True).encode())


def info(folder: Path) -> ShelfInfo:
    """What a shelf is and holds."""
    try:
        what = json.loads((folder / _WHAT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        what = {}
    return ShelfInfo(
        key=folder.name,
        what=what if isinstance(what, dict) else {},
        bytes=bytes_of(folder),
        records=sum(segments.count(path, folder.name) for path in segments_in(folder)),
        last_used=datetime.fromtimestamp(last_used(folder), UTC),
    )


def shelves_in(store: Path) -> Iterator[Path]:
    """Shelves' folders; nothing else in the store may be touched."""
    return (path for path in _entries(store) if re.fullmatch("[0-9a-f]{64}", path.name) and path.is_dir())


def segments_in(folder: Path) -> Iterator[Path]:
    """A shelf's files of records."""
    return (path for path in _entries(folder) if path.suffix == segments.SUFFIX)


def bytes_of(folder: Path) -> int:
    """Bytes of a shelf on disk, drafts included."""
    return sum(_size_of(path) for path in _entries(folder))


def last_used(folder: Path) -> float:
    """When it was last opened or closed, in seconds since 1970."""
    for path in (folder / locks.LOCK, folder):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def touch(folder: Path) -> None:
    """Record that it is used now."""
    with contextlib.suppress(OSError):
        os.utime(folder / locks.LOCK)


def remove(folders: Sequence[Path], excess: float) -> Cleaned:
    """Remove segments, those of the least recently used shelf first, until `excess` bytes are gone."""
    freed = shelves = 0
    stayed = set()
    for folder in sorted(folders, key=last_used):
        if freed >= excess:
            break
        filled = any(segments_in(folder))
        with locks.alone(folder) as alone:
            if alone:
                freed += _unlink(sorted(segments_in(folder)), excess - freed)
                freed += 0 if any(segments_in(folder)) else _remove_folder(folder)
        if any(segments_in(folder)) and freed < excess:
            stayed.add(folder.name)
        shelves += filled and not any(segments_in(folder))
    return Cleaned(bytes=freed, shelves=shelves, stayed=frozenset(stayed))


def _remove_folder(folder: Path) -> int:
    """Remove what is left of a shelf that only this process has open; the bytes freed."""
    freed = _unlink([path for path in _entries(folder) if path.name != locks.LOCK], math.inf)
    with contextlib.suppress(OSError):
        (folder / locks.LOCK).unlink()
        folder.rmdir()  # fails where another process has just made a new lock, as it should
    return freed


def _unlink(paths: Sequence[Path], excess: float) -> int:
    freed = 0
    for path in paths:
        if freed >= excess:
            break
        size = _size_of(path)
        with contextlib.suppress(OSError):
            path.unlink()
            freed += size
    return freed


def _entries(folder: Path) -> list[Path]:
    try:
        return [Path(entry) for entry in os.scandir(folder)]
    except OSError:
        return []


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
