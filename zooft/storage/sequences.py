"""Sequences that may be too long for memory: beyond some length, items lie in a temporary file, decoded one by one."""

from __future__ import annotations

import mmap
import pickle
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from zooft.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

IN_MEMORY = 10_000
"""Items that stay in memory: of samples some 25 MB."""
BYTES_IN_MEMORY = 16 * 2**20
"""Of stacked arrays."""
_BUFFER = 2**20
T = TypeVar("T")


def spill(items: Iterable[T]) -> Sequence[T]:
    """Items in order: as a tuple where they are few, else from a file without a name, which ends with the process.

    In the file, an item takes eight bytes of memory, and about ten microseconds to be decoded into an equal object.

    Args:
        items: such as `pickle` takes; taken one at a time.

    Raises:
        DataError: the system's temporary folder can't take them.
    """
    rest = iter(items)
    few = tuple(islice(rest, IN_MEMORY + 1))
    if len(few) <= IN_MEMORY:
        return few
    file = _File(*_write(chain(few, rest)))
    return _OnDisk(file, range(len(file.ends)))


def spill_like(like: Iterable[Sequence[T]], items: Iterable[T]) -> Sequence[T]:
    """`items` stored as `like` is: as a tuple where all of it are tuples, else `spill`."""
    return tuple(items) if all(isinstance(one, tuple) for one in like) else spill(items)


def pick(items: Sequence[T], rows: Sequence[int] | NDArray[Any]) -> Sequence[T]:
    """The items at `rows`, in that order: of those on disk a view, of others a tuple."""
    import numpy as np

    chosen = np.asarray(rows, np.int64)
    if not isinstance(items, _OnDisk):
        return tuple(items[row] for row in chosen.tolist())
    return _OnDisk(items.file, np.asarray(items.rows)[chosen])


def _pickle(item: object) -> bytes:
    return pickle.dumps(item, pickle.HIGHEST_PROTOCOL)


def stack(blocks: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Arrays of one dtype that differ in their first axis at most, as one: in memory, or mapped from such a file.

    Args:
        blocks: at least one; taken one at a time.

    Raises:
        DataError: the system's temporary folder can't take them.
    """
    import numpy as np

    few: list[NDArray[Any]] = []
    rest, size = iter(blocks), 0
    for block in rest:
        few.append(block)
        size += block.nbytes
        if size > BYTES_IN_MEMORY:
            break
    else:
        return np.concatenate(few)
    like = few[0]
    content, _ = _write((block.tobytes() for block in chain(few, rest)), encode=bytes)
    return np.frombuffer(content, like.dtype).reshape(-1, *like.shape[1:])


def _write(items: Iterable[Any], encode: Callable[[Any], bytes] = _pickle) -> tuple[mmap.mmap, array[int]]:
    """The items' bytes, one behind the other, and where each ends."""
    ends, end = array("Q"), 0
    with _disk_faults():
        file = tempfile.TemporaryFile(prefix="zooft-", buffering=_BUFFER)  # noqa: SIM115 -- closed below
    try:
        for item in items:
            content = encode(item)
            with _disk_faults():
                end += file.write(content)
            ends.append(end)
        with _disk_faults():
            file.flush()
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), ends
    finally:
        with suppress(OSError):  # a full disk fails the flush on closing too
            file.close()


@contextmanager
def _disk_faults() -> Iterator[None]:
    """Report a full disk as a `DataError`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the list of samples doesn't fit into the system's temporary folder: {error.strerror}; make room there, "
            "or name another folder in TMPDIR"
        ) from error


@dataclass(frozen=True, slots=True)
class _File:
    """Items' bytes, and where each ends."""

    content: mmap.mmap
    ends: array[int]

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets the bytes and writes its own file, since this one has no name."""
        return _again, (self.content[:], self.ends)

    def item(self, row: int) -> Any:
        """One item, decoded."""
        begin = self.ends[row - 1] if row else 0
        return pickle.loads(self.content[begin : self.ends[row]])  # noqa: S301 -- this process wrote it


def _again(content: bytes, ends: array[int]) -> _File:
    return _File(_write([content], encode=bytes)[0], ends)


class _OnDisk(Sequence[T], Generic[T]):
    """Items in a file: all of them, or those at some rows."""

    def __init__(self, file: _File, rows: range | NDArray[Any]) -> None:
        self.file, self.rows = file, rows

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (tuple, _OnDisk)):
            return NotImplemented
        return len(self) == len(other) and all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return tuple(self.file.item(int(row)) for row in self.rows[index])
        item: T = self.file.item(int(self.rows[index]))
        return item

    def __iter__(self) -> Iterator[T]:
        return (self.file.item(int(row)) for row in self.rows)
