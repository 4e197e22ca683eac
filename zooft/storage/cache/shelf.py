"""The store, and a shelf of it that is open."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import math
import mmap
import os
import shutil
import tempfile
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zooft.errors import DamagedError
from zooft.storage import atomic, locks
from zooft.storage.cache import folders, segments
from zooft.storage.cache.folders import Cleaned, ShelfInfo
from zooft.storage.cache.index import Index
from zooft.storage.cache.segments import Segment
from zooft.storage.cache.sizes import parse_size, size_text

SEGMENT_BYTES = 64 * 2**20
MOST_BYTES = 50 * 2**30
MOST_OF_THE_DISK = 0.2

_OPEN_MAPS = 64  # each holds a file descriptor, of which a process may have as few as 256
_RESIDENT_BYTES = 128 * 2**20
_FAULT_BYTES = 2 * 64 * 2**10  # what Linux maps around a touched page, before and behind it

_DAMAGED = "some of what was stored in the cache is damaged; it is computed again"
_FULL = (
    "the cache has reached its limit of {}; what doesn't fit is computed again where it is needed "
    "('zooft cache clean' makes room, ZOOFT_CACHE_BYTES raises the limit)"
)
_NOT_STORED = (
    "the cache can't be written ({}); what isn't stored is computed again where it is needed "
    "('zooft cache list' shows where it is, ZOOFT_CACHE moves it)"
)
_NOT_READ = "part of the cache can't be read ({}); what it held is computed again"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Store:
    """A bounded folder of shelves.

    Attributes:
        folder: made at the first use, closed to other users.
        most_bytes: what it may hold; the least recently used shelves are removed first.
        note: called with each fault once, a plain sentence.
        segment_bytes: what is collected in memory before it is written.
    """

    folder: Path
    most_bytes: int
    note: Callable[[str], None] = _log.warning
    segment_bytes: int = SEGMENT_BYTES
    _noted: set[str] = field(default_factory=set, compare=False, repr=False)

    def shelf(self, what: Mapping[str, Any]) -> Shelf:
        """The shelf of what was computed from `what`; where the disk fails it is empty, and no error.

        Args:
            what: everything that the records depend on, as JSON values. People read it in ``zooft cache list``: it
                holds no path and nothing of a patient.

        Raises:
            TypeError: JSON can't hold it.
            ValueError: a number in it isn't finite.
        """
        return Shelf(self, what)

    def shelves(self) -> list[ShelfInfo]:
        """The shelves that hold something, the most recently used first."""
        infos = [folders.info(folder) for folder in folders.shelves_in(self.folder) if any(folders.segments_in(folder))]
        return sorted(infos, key=lambda info: info.last_used, reverse=True)

    def nbytes(self) -> int:
        """Bytes on disk."""
        return sum(folders.bytes_of(folder) for folder in folders.shelves_in(self.folder))

    def clean(self, *, older_than: timedelta | None = None, most_bytes: int | None = None) -> Cleaned:
        """Remove shelves that are old, then the oldest until a size is reached, and what killed writers left.

        Args:
            older_than: how long a shelf may have lain unused; None for any time.
            most_bytes: what may stay; None for any size.
        """
        for folder in folders.shelves_in(self.folder):
            atomic.sweep(folder)
        cleaned = Cleaned(bytes=0, shelves=0, stayed=frozenset())
        if older_than is not None:
            until = time.time() - older_than.total_seconds()
            cleaned = folders.remove(
                [f for f in folders.shelves_in(self.folder) if folders.last_used(f) < until], math.inf
            )
        if most_bytes is not None:
            more = folders.remove(list(folders.shelves_in(self.folder)), self.nbytes() - most_bytes)
            cleaned = Cleaned(
                bytes=cleaned.bytes + more.bytes,
                shelves=cleaned.shelves + more.shelves,
                stayed=cleaned.stayed | more.stayed,
            )
        return cleaned

    def make_room(self, wanted: int, *, key: str) -> bool:
        """Remove others' oldest records until `wanted` bytes more fit for the shelf `key`; returns whether they do."""
        if folders.bytes_of(self.folder / key) + wanted > self.most_bytes:
            return False  # nothing is gained by emptying the others
        excess = self.nbytes() + wanted - self.most_bytes
        if excess <= 0:
            return True
        return folders.remove([f for f in folders.shelves_in(self.folder) if f.name != key], excess).bytes >= excess

    def note_once(self, text: str) -> None:
        """Call `note`, if it hasn't had this text before."""
        if text not in self._noted:
            self._noted.add(text)
            self.note(text)


class Shelf:
    """Records by name, in one folder: read from memory-mapped files, written many at a time.

    Use it as a context manager, so that the last records are written. Several processes may read and fill one shelf at
    once; within a process it belongs to one thread. A copy that is sent to another process sees what is on disk.
    """

    def __init__(self, store: Store, what: Mapping[str, Any]) -> None:
        self.what, self.key = what, key_of(what)
        self._store, self._folder = store, store.folder / self.key
        self._index = Index()
        self._known: set[str] = set()  # file names of segments that were read
        self._maps: dict[Segment, mmap.mmap] = {}  # the most recently used last
        self._touched = 0  # bytes, at most, that became resident since the last release
        self._waiting: dict[str, NDArray[Any]] = {}
        self._waiting_bytes = 0
        self._writing, self._trusted = True, False
        self._unlock: Callable[[], object] = lambda: None
        try:
            self._open()
        except OSError as error:
            self._stop_writing(_NOT_STORED.format(_reason(error)))

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process it is opened anew and logs its faults, since `note` belongs to this process."""
        return Shelf, (replace(self._store, note=_log.warning, _noted=set()), self.what)

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, name: object) -> bool:
        """Whether it is listed; that a record is damaged shows when it is read, or by `missing`."""
        return name in self._index or name in self._waiting

    def missing(self, names: Sequence[str]) -> list[int]:
        """The positions in `names`, ascending, of records that aren't there.

        Writes what is waiting, lists what other processes wrote, and reads every named record that this process
        hasn't read yet: what isn't missing now can be gathered from now on.
        """
        self.flush()
        self._list_new_segments()
        places, absent = self._index.places(names)
        gone = [at[self._find_damaged(segment, rows)] for segment, (at, rows) in places.items()]
        self._forget(names, np.concatenate([absent[:0], *gone]))
        positions: list[int] = np.sort(np.concatenate([absent, *gone])).tolist()
        return positions

    def get(self, name: str) -> NDArray[Any] | None:
        """A record, read-only, without a copy where it is on disk; None where it is missing."""
        if name in self._waiting:
            array = self._waiting[name].view()
            array.flags.writeable = False
            return array
        place = self._index.place(name)
        if place is None:
            return None
        segment, row = place
        if self._find_damaged(segment, np.array([row])).any():
            self._index.forget([name])
            return None
        self._count_resident(1, int(segment.sizes[row]))
        return segment.array(self._maps[segment], row)

    def gather(self, names: Sequence[str]) -> NDArray[Any]:
        """Records of one shape and dtype, copied: ``(len(names), *shape)``.

        Raises:
            KeyError: some are missing; `missing` returns them beforehand.
            ValueError: no names, or records of several shapes or dtypes.
        """
        places, missing = self._index.places(names)
        absent = missing.tolist()
        waiting = {position: self._waiting[names[position]] for position in absent if names[position] in self._waiting}
        gone = {names[position] for position in absent if position not in waiting}
        if gone:
            raise _missing(gone, names)
        formats = {(array.dtype, array.shape) for array in waiting.values()}
        for segment, (_, rows) in places.items():
            formats |= {segment.formats[kind] for kind in np.unique(segment.kinds[rows]).tolist()}
        if len(formats) != 1:
            raise ValueError(f"records must have one shape and dtype, these have {len(formats)}")
        ((dtype, shape),) = formats
        gathered = np.empty((len(names), *shape), dtype)
        for segment, (at, rows) in places.items():
            damaged = at[self._find_damaged(segment, rows)]
            if len(damaged):
                self._forget(names, damaged)
                gone |= {names[position] for position in damaged.tolist()}
            else:
                gathered[at] = segment.stack(self._maps[segment], rows)
                self._count_resident(len(rows), gathered[0].nbytes)
        if gone:
            raise _missing(gone, names)
        for position, array in waiting.items():
            gathered[position] = array
        return gathered

    def put(self, names: Sequence[str], arrays: NDArray[Any] | Sequence[NDArray[Any]]) -> None:
        """Store records, in files of about the store's `segment_bytes`; what is there already stays as it is.

        Args:
            names: digests of what the records were computed from: up to 64 hexadecimal digits.
            arrays: one each, of numbers; copied.

        Raises:
            ValueError: another name, another number of arrays, or arrays of other things than numbers.
        """
        if not self._writing:
            return
        for name, array in zip(names, _copy_each(arrays), strict=True):
            segments.check(name, array)
            if name in self:
                continue
            if self._waiting and self._waiting_bytes + array.nbytes > self._store.segment_bytes:
                self.flush()
            self._waiting[name] = array
            self._waiting_bytes += segments.room(array)

    def flush(self) -> None:
        """Write what is waiting. Each call leaves a file if anything is: call it at the end, not after each batch."""
        if not self._waiting:
            return
        self._list_new_segments()  # another process may have written some of it
        fresh = {name: array for name, array in self._waiting.items() if name not in self._index}
        wanted, self._waiting, self._waiting_bytes = self._waiting_bytes, {}, 0
        if not fresh or not self._writing:
            return
        try:
            if not self._store.make_room(wanted, key=self.key):
                self._stop_writing(_FULL.format(size_text(self._store.most_bytes)))
                return
            segments.write(self._folder, self.key, fresh)
        except OSError as error:
            self._stop_writing(_NOT_STORED.format(_reason(error)))
            return
        self._list_new_segments()

    def release(self) -> None:
        """Let the system take back the memory of what was read; it is mapped again when it is read.

        Done by itself after every 128 MiB, since mapped pages count as the process's memory.
        """
        self._touched = 0
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._maps.values():
                mapped.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Write what is waiting and release the shelf; arrays that were given out stay valid."""
        self.flush()
        self._index.clear()
        self._maps.clear()
        self._writing = False
        folders.touch(self._folder)
        self._unlock()

    def _open(self) -> None:
        folders.make(self._store.folder)
        descriptor = locks.share(self._folder)
        if descriptor is not None:
            self._unlock = weakref.finalize(self, os.close, descriptor)
        self._trusted = True
        folders.touch(self._folder)
        self._list_new_segments()
        folders.describe(self._folder, self.what)
        atomic.sweep(self._folder)

    def _stop_writing(self, why: str) -> None:
        self._writing = False
        self._waiting, self._waiting_bytes = {}, 0
        self._store.note_once(why)

    def _list_new_segments(self) -> None:
        """List what is in segments that weren't there before; where records share a name, the newest."""
        if not self._trusted:
            return
        fresh = [path for path in folders.segments_in(self._folder) if path.name not in self._known]
        if fresh:
            self._index.add(self._read(sorted(fresh, reverse=True)))

    def _read(self, paths: Sequence[Path]) -> Iterator[tuple[Segment, list[str]]]:
        for path in paths:
            self._known.add(path.name)
            try:
                yield segments.read(path, self.key)
            except FileNotFoundError:
                continue  # cleaned away since
            except OSError as error:
                self._store.note_once(_NOT_READ.format(_reason(error)))
            except DamagedError:
                self._store.note_once(_DAMAGED)
                with contextlib.suppress(OSError):
                    path.unlink()

    def _find_damaged(self, segment: Segment, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """For each row, whether its bytes differ from what was written; all True where the file can't be read ."""
        try:
            mapped = self._map(segment)
        except (OSError, ValueError) as error:
            self._store.note_once(_NOT_READ.format(_reason(error)))
            return np.ones(len(rows), np.bool_)
        with memoryview(mapped) as content:
            for row, begin, size, crc in segment.about(np.unique(rows[~segment.sound[rows]])):
                self._count_resident(1, size)
                with content[begin : begin + size] as record:
                    segment.sound[row] = zlib.crc32(record) == crc
        damaged = ~segment.sound[rows]
        if damaged.any():
            self._store.note_once(_DAMAGED)
        return damaged

    def _forget(self, names: Sequence[str], positions: NDArray[np.int64]) -> None:
        """Remove damaged records from the list, so that one written anew takes their place."""
        if len(positions):
            self._index.forget([names[position] for position in positions.tolist()])

    def _map(self, segment: Segment) -> mmap.mmap:
        mapped = self._maps.pop(segment, None)
        if mapped is None:
            with segment.path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if len(mapped) != segment.size:
                raise OSError(errno.EIO, "a file has another length than before")
        self._maps[segment] = mapped
        if len(self._maps) > _OPEN_MAPS:
            del self._maps[next(iter(self._maps))]  # unmapped when the last array into it goes
        return mapped

    def _count_resident(self, records: int, size: int) -> None:
        self._touched += records * (size + _FAULT_BYTES)
        if self._touched > _RESIDENT_BYTES and sum(map(len, self._maps.values())) > _RESIDENT_BYTES:
            self.release()


def default_store(note: Callable[[str], None] = _log.warning) -> Store:
    """The user's own store: ``ZOOFT_CACHE`` or the system's folder for caches, of at most ``ZOOFT_CACHE_BYTES``.

    Without the latter it may hold 50 GiB or a fifth of what the disk could give it, whichever is less.

    Raises:
        ConfigError: ``ZOOFT_CACHE_BYTES`` isn't a size.
    """
    store = Store(default_folder(), 0, note)
    limit = os.environ.get("ZOOFT_CACHE_BYTES")
    most = _affordable(store) if limit is None else parse_size(limit, what="ZOOFT_CACHE_BYTES")
    return Store(store.folder, most, note)


def default_folder() -> Path:
    """``store`` in ``ZOOFT_CACHE``, or in ``zooft`` in ``XDG_CACHE_HOME`` or ``~/.cache``."""
    own = os.environ.get("ZOOFT_CACHE")
    if own:
        return Path(os.path.expanduser(own)).absolute() / "store"  # noqa: PTH111  -- Path's own fails without a home
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if Path(caches).is_absolute():  # the specification ignores a relative one
        return Path(caches) / "zooft" / "store"
    try:
        return Path.home() / ".cache" / "zooft" / "store"
    except RuntimeError:  # a user without a home, as in many containers
        return Path(tempfile.gettempdir()) / f"zooft-{_user()}" / "store"


def key_of(what: Mapping[str, Any]) -> str:
    """SHA-256 of canonical JSON of `what` and of this module's format."""
    text = json.dumps({"format": segments.FORMAT, "what": what}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _missing(gone: set[str], names: Sequence[str]) -> KeyError:
    return KeyError(f"{len(gone)} of {len(names)} records are missing, such as {min(gone)}")


def _copy_each(arrays: NDArray[Any] | Sequence[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Contiguous arrays of our own, a batch copied at once."""
    if isinstance(arrays, np.ndarray):
        batch = np.array(arrays, order="C")
        return (batch[index, ...] for index in range(len(batch)))
    return (np.array(array, order="C") for array in arrays)


def _affordable(store: Store) -> int:
    there = next((path for path in (store.folder, *store.folder.parents) if _exists(path)), None)
    free = shutil.disk_usage(there).free if there is not None else 0
    # the store's own bytes count as free: otherwise the limit would sink as the store fills
    return min(MOST_BYTES, int((free + store.nbytes()) * MOST_OF_THE_DISK))


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 -- Path's own fails where it may not look


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "user"


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
