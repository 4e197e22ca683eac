"""Sequences that may be too long for memory: few items stay there, many lie in a temporary file and are decoded one by one."""

from __future__ import annotations

import mmap
import pickle
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
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


def spilled(items: Iterable[T]) -> Sequence[T]:
    """Items in order: as a tuple where they are few, else from a file without a name, which ends with the process.

    Beyond, an item takes eight bytes of memory, and about ten microseconds to come back as an equal object.

    Args:
        items: such as `pickle` takes; taken one at a time.

    Raises:
        DataError: the system's temporary folder can't take them.
    """
    rest = iter(items)
    few = tuple(islice(rest, IN_MEMORY + 1))
    return few if len(few) <= IN_MEMORY else _OnDisk(*_written(chain(few, rest)))


def pick(items: Sequence[T], rows: Sequence[int] | NDArray[Any]) -> Sequence[T]:
    """The items at `rows`, in that order: of those on disk a view, of others a tuple."""
    import numpy as np

    chosen = np.asarray(rows, np.int64)
    if isinstance(items, _Picked):
        return _Picked(items.items, items.rows[chosen])
    return _Picked(items, chosen) if isinstance(items, _OnDisk) else tuple(items[row] for row in chosen.tolist())


def _pickled(item: object) -> bytes:
    return pickle.dumps(item, pickle.HIGHEST_PROTOCOL)


def stacked(blocks: Iterable[NDArray[Any]]) -> NDArray[Any]:
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
    content, _ = _written((block.tobytes() for block in chain(few, rest)), encode=bytes)
    return np.frombuffer(content, like.dtype).reshape(-1, *like.shape[1:])


def _written(items: Iterable[Any], encode: Callable[[Any], bytes] = _pickled) -> tuple[mmap.mmap, array[int]]:
    """The items' bytes, one behind the other, and where each ends."""
    ends, end = array("Q"), 0
    with _refused():
        file = tempfile.TemporaryFile(prefix="zooft-", buffering=_BUFFER)  # noqa: SIM115 -- closed below
    try:
        for item in items:
            content = encode(item)
            with _refused():
                end += file.write(content)
            ends.append(end)
        with _refused():
            file.flush()
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), ends
    finally:
        with suppress(OSError):  # a full disk refuses what is still to be written once more
            file.close()


@contextmanager
def _refused() -> Iterator[None]:
    """The disk's refusal, in words."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the list of samples doesn't fit into the system's temporary folder: {error.strerror}; make room there, or "
            "name another folder in TMPDIR"
        ) from error


def _again(content: bytes, ends: array[int]) -> _OnDisk[Any]:
    return _OnDisk(_written([content], encode=bytes)[0], ends)


def _equal(items: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(items) == len(other) and all(one == another for one, another in zip(items, other, strict=True))


class _OnDisk(Sequence[T], Generic[T]):
    """Items in a file."""

    def __init__(self, content: mmap.mmap, ends: array[int]) -> None:
        self._content, self._ends = content, ends

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets the bytes, and writes a file of its own: this one has no name."""
        return _again, (self._content[:], self._ends)

    def __eq__(self, other: object) -> bool:
        return _equal(self, other) if isinstance(other, (tuple, _OnDisk, _Picked)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return tuple(self[row] for row in range(*index.indices(len(self))))
        row = range(len(self))[index]
        begin = self._ends[row - 1] if row else 0
        item: T = pickle.loads(self._content[begin : self._ends[row]])  # noqa: S301 -- this process wrote it
        return item

    def __iter__(self) -> Iterator[T]:
        return (self[row] for row in range(len(self)))


class _Picked(Sequence[T], Generic[T]):
    """Some of the items in a file."""

    def __init__(self, items: _OnDisk[T], rows: NDArray[Any]) -> None:
        self.items, self.rows = items, rows

    def __eq__(self, other: object) -> bool:
        return _equal(self, other) if isinstance(other, (tuple, _OnDisk, _Picked)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return tuple(self.items[int(row)] for row in self.rows[index])
        return self.items[int(self.rows[index])]

    def __iter__(self) -> Iterator[T]:
        return (self.items[int(row)] for row in self.rows)
