"""Images that are there twice: equal arrays, and pictures that differ by no more than a copy does.

A near duplicate is told by the correlation of small grey pictures (64 × 64) without their slow changes of brightness,
once over shapes and once over fine detail. Measured on photographs, CT slices and drawn phantoms: copies in JPEG quality
30, at half the size, or brightened by a fifth correlate in fine detail at 0.94 and above (of copies at a quarter of the
size, nine in ten), different photographs and patients at 0.58 and below, phantoms of one drawing program at 0.91 and below.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.audit.findings import MOST_SHOWN, Finding, counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.audit.findings import Kind, Pair, Severity
    from zooft.audit.looks import Look
    from zooft.contracts import Computing, Sample

ALIKE = 0.93
"""Correlation from which two pictures are near duplicates."""
SHAPES, FINE = 4.0, 1.0
"""Standard deviation of the blur that is subtracted, pixels of the small picture."""
_LEAST_DETAIL = 1.0
"""Root mean square of a picture's detail, grey levels, below which it says nothing (an empty image)."""
_COARSE = 16
"""Lowest frequencies a side that are compared first."""
_BLOCK = 1024


def find(
    samples: Sequence[Sample], looks: Sequence[Look], splits: Mapping[str, str], computing: Computing
) -> list[Finding]:
    """Exact duplicates, then near ones.

    Args:
        samples: those that could be read.
        looks: one a sample.
        splits: sample id to split, where known.
        computing: told how far the comparison is.
    """
    return [*_exact(samples, looks, splits), *_near(samples, looks, splits, computing)]


# equal arrays


def _exact(samples: Sequence[Sample], looks: Sequence[Look], splits: Mapping[str, str]) -> Iterator[Finding]:
    by_digest: defaultdict[bytes, list[Sample]] = defaultdict(list)
    for sample, look in zip(samples, looks, strict=True):
        by_digest[look.digest].append(sample)
    sets = [members for members in by_digest.values() if len(members) > 1]
    told: set[str] = set()
    for kind, severity, key, words in _properties(splits):
        torn = [(pair, members) for members in sets if (pair := _apart(members, key)) is not None]
        if torn:
            told |= {members[0].id for _, members in torn}
            yield _equal(kind, severity, torn, words)
    rest = [((members[0].id, members[1].id), members) for members in sets if members[0].id not in told]
    if rest:
        yield _equal("exact_duplicates", "info", rest, "they count more than once; keep one of each")


def _properties(
    splits: Mapping[str, str],
) -> tuple[tuple[Kind, Severity, Callable[[Sample], Hashable | None], str], ...]:
    """What must not differ among equal images, and what it means where it does."""
    return (
        (
            "contradictory_labels",
            "error",
            lambda sample: sample.target,
            "under several labels; one of them is wrong, or the label isn't about the image",
        ),
        (
            "exact_duplicates",
            "error",
            lambda sample: splits.get(sample.id),
            "on both sides of the split, so figures are too good; keep one of each, or give the copies one group",
        ),
        (
            "exact_duplicates",
            "warning",
            lambda sample: sample.group,
            "in several groups; a group seems to have two names, and a split may tear it apart",
        ),
    )


def _apart(members: Sequence[Sample], key: Callable[[Sample], Hashable | None]) -> Pair | None:
    """Two members whose keys are known and differ."""
    known = [sample for sample in members if key(sample) is not None]
    other = next((sample for sample in known if key(sample) != key(known[0])), None)
    return (known[0].id, other.id) if other is not None else None


def _equal(kind: Kind, severity: Severity, found: Sequence[tuple[Pair, Sequence[Sample]]], words: str) -> Finding:
    ids = [sample.id for _, members in found for sample in members]
    return Finding(
        kind=kind,
        severity=severity,
        text=f"{counted(len(found), 'image')} there more than once ({counted(len(ids), 'sample')}): {words}",
        samples=tuple(ids[:MOST_SHOWN]),
        count=len(ids),
        pairs=tuple(pair for pair, _ in found[:MOST_SHOWN]),
    )


# nearly equal pictures


@dataclass(slots=True)
class _Tally:
    """Pairs of one sort, counted; only the most alike are kept."""

    count: int
    involved: NDArray[np.bool_]
    best: list[tuple[float, int, int]]

    def add(self, alike: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        """More pairs."""
        self.count += len(rows)
        self.involved[rows] = self.involved[columns] = True
        top = np.argsort(-alike, kind="stable")[:MOST_SHOWN]
        pairs = zip(alike[top].tolist(), rows[top].tolist(), columns[top].tolist(), strict=True)
        self.best = sorted([*self.best, *pairs], key=lambda pair: (-pair[0], pair[1:]))[:MOST_SHOWN]


_SORTS: tuple[tuple[Severity, str], ...] = (
    ("warning", "on both sides of the split; if they show one thing, figures are too good: give the two one group"),
    ("warning", "under two labels; look at them, one label may be wrong"),
    ("warning", "in two groups; look at them, one group may have two names"),
    ("info", "look at them; where they show one subject, name it in the group column, so that no split tears it apart"),
)
"""Of pairs that differ in split, label, group, or in nothing that is known; a pair counts where it fits first."""


def _near(
    samples: Sequence[Sample], looks: Sequence[Look], splits: Mapping[str, str], computing: Computing
) -> Iterator[Finding]:
    seen = [index for index, look in enumerate(looks) if look.picture is not None]
    if len(seen) < 2:
        return
    pictures = np.stack([look.picture for look in looks if look.picture is not None])
    chosen = [samples[index] for index in seen]
    digest = _codes([looks[index].digest for index in seen])
    target = np.array([sample.target for sample in chosen])
    split = _codes([splits.get(sample.id) for sample in chosen])
    group = _codes([sample.group for sample in chosen])
    tallies = [_Tally(0, np.zeros(len(seen), dtype=np.bool_), []) for _ in _SORTS]
    for alike, rows, columns in pairs_alike(pictures, computing):
        known = (group[rows] >= 0) & (group[columns] >= 0)
        natural = (known & (group[rows] == group[columns])) | (digest[rows] == digest[columns])
        torn = (split[rows] >= 0) & (split[columns] >= 0) & (split[rows] != split[columns])
        sort = np.select([torn, target[rows] != target[columns], known], [0, 1, 2], default=3)
        for index, tally in enumerate(tallies):
            here = (sort == index) & ~natural
            tally.add(alike[here], rows[here], columns[here])
    for (severity, words), tally in zip(_SORTS, tallies, strict=True):
        if tally.count:
            yield _nearly_equal(severity, words, tally, [sample.id for sample in chosen])


def _codes(values: Sequence[Any]) -> NDArray[np.int64]:
    """Equal numbers for equal values, -1 for None."""
    numbers: dict[Any, int] = {None: -1}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])


def _nearly_equal(severity: Severity, words: str, tally: _Tally, ids: Sequence[str]) -> Finding:
    involved = np.flatnonzero(tally.involved)
    return Finding(
        kind="near_duplicates",
        severity=severity,
        text=f"{counted(tally.count, 'pair')} of nearly equal images ({counted(len(involved), 'sample')}): {words}",
        samples=tuple(ids[index] for index in involved[:MOST_SHOWN]),
        count=len(involved),
        pairs=tuple((ids[row], ids[column]) for _, row, column in tally.best),
    )


def pairs_alike(
    pictures: NDArray[np.uint8], computing: Computing
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of pictures that correlate at 0.93 and above in shapes and in fine detail, block by block.

    The lowest frequencies are compared first. By Parseval's theorem they can't be further apart than the whole
    pictures are, so no pair is missed; memory grows with the number of pictures, not of pairs.

    Args:
        pictures: ``(N, 64, 64)`` grey levels.
        computing: told how far it is.

    Yields:
        Correlations of fine detail, rows, columns.
    """
    starts = range(0, len(pictures), _BLOCK)
    coarse, detailed = _coarse(pictures)
    advance = computing("comparing the images", len(pictures))
    for start in starts:
        for other in range(start, len(pictures), _BLOCK):
            near = _distances(coarse[start : start + _BLOCK], coarse[other : other + _BLOCK]) <= 2 - 2 * ALIKE
            near &= detailed[start : start + _BLOCK, None] & detailed[None, other : other + _BLOCK]
            if start == other:
                near = np.triu(near, k=1)
            if near.any():
                yield _correlated(pictures, near, start, other)
        advance(min(_BLOCK, len(pictures) - start))


def _distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared, between all rows."""
    squares: NDArray[np.float32] = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * (a @ b.T) - np.float32(1e-5)
    return squares


def _correlated(
    pictures: NDArray[np.uint8], near: NDArray[np.bool_], start: int, other: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """The whole pictures of a block's candidates."""
    rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    left, right = pictures[start + rows], pictures[other + columns]
    shapes, fine = (details(left, blur)[0] @ details(right, blur)[0].T for blur in (SHAPES, FINE))
    i, j = np.nonzero(near[np.ix_(rows, columns)] & (shapes >= ALIKE) & (fine >= ALIKE))
    return fine[i, j], start + rows[i], other + columns[j]


def _coarse(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The lowest frequencies of every picture's detail, ``(N, 256)``, and whether there is any detail."""
    from scipy.fft import dctn

    coarse, detailed = [], []
    for start in range(0, len(pictures), _BLOCK):
        block, strength = details(pictures[start : start + _BLOCK], SHAPES)
        side = pictures.shape[1]
        frequencies = dctn(block.reshape(-1, side, side), axes=(1, 2), norm="ortho")[:, :_COARSE, :_COARSE]
        coarse.append(frequencies.reshape(len(block), -1).astype(np.float32))
        detailed.append(strength >= _LEAST_DETAIL)
    return np.concatenate(coarse), np.concatenate(detailed)


def details(pictures: NDArray[np.uint8], blur: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pictures less their blurred selves, as rows of mean 0 and length 1, and each one's root mean square."""
    from scipy.ndimage import gaussian_filter

    levels = pictures.astype(np.float32)
    rows = (levels - gaussian_filter(levels, (0, blur, blur), mode="nearest")).reshape(len(levels), -1)
    rows -= rows.mean(1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1)
    return rows / np.maximum(lengths, 1e-6)[:, None], lengths / np.sqrt(rows.shape[1])
