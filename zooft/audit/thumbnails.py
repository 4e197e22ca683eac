"""Each sample is read once, into a digest of its arrays and a small grey picture, so that memory stays small."""

from __future__ import annotations

import hashlib
import warnings
from array import array
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.audit.findings import MOST_SHOWN, Finding
from zooft.compute.machine import cores
from zooft.contracts import Rejection
from zooft.contracts.plurals import pluralize
from zooft.errors import DataError, PluginError, ZooftError
from zooft.storage.sequences import pick, stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from zooft.contracts import Advance, Arrays, Sample
    from zooft.storage.cache import Shelf

SIDE = 64
"""Of the small pictures, pixels."""
_AT_A_TIME = 1024
_DIGEST = 16
"""Bytes."""
_RECORD = np.dtype([("digest", f"S{_DIGEST}"), ("pictured", "?"), ("picture", "u1", (SIDE, SIDE))])
_NO_PICTURE = np.zeros((SIDE, SIDE), np.uint8)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """What the audit compares samples by.

    Attributes:
        digest: equal for equal arrays.
        picture: ``(64, 64)`` uint8; None where there is none to compare.
    """

    digest: bytes
    picture: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True)
class ThumbnailCache:
    """Thumbnails of earlier audits, on disk.

    Attributes:
        shelf: of this task's reader and options.
        digest: a sample's content, without decoding it.
        unchanged: whether it still has this digest.
    """

    shelf: Shelf
    digest: Callable[[Sample], str]
    unchanged: Callable[[Sample, str], bool] = lambda _sample, _digest: True

    def get(self, name: str) -> Thumbnail | None:
        """The thumbnail of a name; None where there is none."""
        record = self.shelf.get(name)
        if record is None:
            return None
        flat = np.array(record)
        picture = flat[_DIGEST:].reshape(SIDE, SIDE) if len(flat) > _DIGEST else None
        return Thumbnail(flat[:_DIGEST].tobytes(), picture)

    def put(self, name: str, thumbnail: Thumbnail) -> None:
        """Store one."""
        picture = thumbnail.picture
        parts = [np.frombuffer(thumbnail.digest, np.uint8)] + ([picture.ravel()] if picture is not None else [])
        self.shelf.put([name], [np.concatenate(parts)])


@dataclass(frozen=True, slots=True)
class Seen:
    """The samples that could be read, and those that couldn't.

    Attributes:
        samples: that could be read.
        rows: ``(n,)``, their positions among all samples.
        digests: ``(n,)`` of 16 bytes each.
        pictured: ``(n,)``, whether there is a picture to compare.
        pictures: ``(n, 64, 64)`` uint8, mapped from a file where they are many; black where there is none.
        unread: samples that couldn't be read.
    """

    samples: Sequence[Sample]
    rows: NDArray[np.int64]
    digests: NDArray[np.bytes_]
    pictured: NDArray[np.bool_]
    pictures: NDArray[np.uint8]
    unread: tuple[Rejection, ...]


def make(
    samples: Sequence[Sample],
    read: Callable[[Sample], Arrays],
    show: Callable[[Arrays], NDArray[Any]],
    advance: Advance,
    cache: ThumbnailCache | None = None,
) -> Seen:
    """Read every sample that isn't cached, in threads, since decoders release the interpreter's lock."""

    def one(sample: Sample) -> Thumbnail | Rejection:
        answer = _thumbnail(sample, read, show)
        advance(1)
        return answer

    rows, unread = array("q"), list[Rejection]()

    def records(pool: ThreadPoolExecutor) -> Iterator[NDArray[np.void]]:
        yield np.empty(0, _RECORD)
        for start in range(0, len(samples), _AT_A_TIME):
            part = samples[start : start + _AT_A_TIME]
            answers = pool.map(one, part) if cache is None else _load_or_make(part, one, cache, pool, advance)
            seen = []
            for row, answer in enumerate(answers, start):
                if isinstance(answer, Rejection):
                    unread.append(answer)
                else:
                    rows.append(row)
                    seen.append(_record(answer))
            yield np.array(seen, _RECORD)

    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=cores()) as pool:
        # once around all threads: the filters belong to the process, and readers that set their own in threads
        # restore them in any order
        warnings.simplefilter("ignore")
        table = stack(records(pool))
    if cache is not None:
        cache.shelf.flush()
    return Seen(
        samples=pick(samples, rows),
        rows=np.array(rows, np.int64),
        digests=table["digest"].copy(),
        pictured=table["pictured"].copy(),
        pictures=table["picture"],
        unread=tuple(unread),
    )


def _record(thumbnail: Thumbnail) -> tuple[bytes, bool, NDArray[np.uint8]]:
    picture = thumbnail.picture
    return thumbnail.digest, picture is not None, _NO_PICTURE if picture is None else picture


def _load_or_make(
    samples: Sequence[Sample],
    one: Callable[[Sample], Thumbnail | Rejection],
    cache: ThumbnailCache,
    pool: ThreadPoolExecutor,
    advance: Advance,
) -> list[Thumbnail | Rejection]:
    """Thumbnails of earlier audits, and fresh ones where there are none."""
    names = list(pool.map(partial(_name, cache), samples))
    found = [None if name is None else cache.get(name) for name in names]
    advance(sum(answer is not None for answer in found))
    fresh = pool.map(one, [sample for sample, answer in zip(samples, found, strict=True) if answer is None])
    answers: list[Thumbnail | Rejection] = []
    for sample, name, answer in zip(samples, names, found, strict=True):
        answers.append(answer or next(fresh))
        last = answers[-1]
        if answer is None and name is not None and isinstance(last, Thumbnail) and cache.unchanged(sample, name):
            cache.put(name, last)
    return answers


def _name(cache: ThumbnailCache, sample: Sample) -> str | None:
    try:
        return cache.digest(sample)
    except ZooftError:
        return None  # reading it will show why


def unreadable(seen: Seen) -> list[Finding]:
    """Samples that couldn't be read."""
    if not seen.unread:
        return []
    ids = tuple(rejection.id for rejection in seen.unread)
    return [
        Finding(
            kind="unreadable",
            severity="warning",
            text=(
                f"{pluralize(len(ids), 'sample')}"
                f" can't be read, the first because: {seen.unread[0].reason}; fix or remove them"
            ),
            samples=ids[:MOST_SHOWN],
            count=len(ids),
        )
    ]


def notes(seen: Seen) -> list[str]:
    """Samples that couldn't be compared."""
    blind = int((~seen.pictured).sum())
    if not blind:
        return []
    return [
        f"near duplicates weren't searched among {pluralize(blind, 'sample')} with fewer than {SIDE} pixels a side, or "
        "without a picture in 8 bits a level"
    ]


def _thumbnail(
    sample: Sample, read: Callable[[Sample], Arrays], show: Callable[[Arrays], NDArray[Any]]
) -> Thumbnail | Rejection:
    try:
        arrays = read(sample)
        return Thumbnail(_digest(arrays), _small(show(arrays)))
    except (DataError, PluginError) as error:
        return Rejection(sample.id, str(error))
    except Exception as error:  # plugin code; its message may hold anything
        return Rejection(sample.id, f"the task failed with {type(error).__name__}")


def _digest(arrays: Arrays) -> bytes:
    """A digest of shapes, types and bytes."""
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for one in arrays:
        digest.update(f"{one.shape}{one.dtype.str}".encode())
        digest.update(np.ascontiguousarray(one).data)
    return digest.digest()


def _small(picture: NDArray[Any]) -> NDArray[np.uint8] | None:
    """A picture in grey, 64 by 64 pixels, antialiased; None for a smaller one, since small pictures are often alike."""
    from PIL import Image

    flat = picture.squeeze()
    known = flat.ndim == 2 or (flat.ndim == 3 and flat.shape[2] == 3)
    if flat.dtype != np.uint8 or not known or min(flat.shape[:2]) < SIDE:
        return None
    return np.asarray(Image.fromarray(flat).convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
