"""Duplicate images: equal arrays, and pictures that differ no more than copies do.

A near duplicate is found by the correlation of small grey pictures (64 × 64) without their slow changes of brightness,
once over shapes and once over fine detail. Measured on photographs, CT slices and drawn phantoms: copies in JPEG
quality 30, at half the size, or brightened by a fifth correlate in fine detail at 0.94 and above (of copies at a
quarter of the size, nine in ten), different photographs and patients at 0.58 and below, phantoms of one drawing program
at 0.91 and below.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.audit.findings import MOST_SHOWN, Finding
from zooft.contracts.plurals import pluralize
from zooft.storage.sequences import stack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.audit.findings import Kind, Severity
    from zooft.audit.thumbnails import Seen
    from zooft.contracts import Computing, Sample

ALIKE = 0.93
"""Correlation from which two pictures are near duplicates."""
SHAPES, FINE = 4.0, 1.0
"""Standard deviation of the blur that is subtracted, pixels of the small picture."""
_LEAST_DETAIL = 1.0
"""Root mean square of a picture's detail, grey levels, below which it isn't compared (an empty image)."""
_COARSE = 16
"""Lowest frequencies per side that are compared first."""
_BLOCK = 1024


def find(seen: Seen, targets: NDArray[np.int64], splits: Sequence[str | None], computing: Computing) -> list[Finding]:
    """Exact duplicates, then near ones.

    Args:
        seen: samples that could be read, and their thumbnails.
        targets: of each of these, ``(n,)``: equal numbers for equal ones, -1 for unknown ones.
        splits: of each of these, where known.
        computing: for progress.
    """
    same = _Same(
        seen.samples,
        targets,
        _codes(splits),
        _codes(sample.group for sample in seen.samples),
        np.unique(seen.digests, return_inverse=True)[1],
    )
    return [*_exact(same), *_near(seen, same, computing)]


@dataclass(frozen=True, slots=True)
class _Same:
    """Samples, and numbers ``(n,)`` that are equal for equal targets, splits, groups or arrays; -1 where unknown."""

    samples: Sequence[Sample]
    target: NDArray[np.int64]
    split: NDArray[np.int64]
    group: NDArray[np.int64]
    content: NDArray[np.int64]


def _codes(values: Iterable[Any]) -> NDArray[np.int64]:
    """Equal numbers for equal values, -1 for None."""
    numbers: dict[Any, int] = {None: -1}
    return np.fromiter((numbers.setdefault(value, len(numbers)) for value in values), np.int64)


# equal arrays


def _exact(same: _Same) -> Iterator[Finding]:
    by_content: defaultdict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero(np.bincount(same.content)[same.content] > 1).tolist():
        by_content[same.content[row]].append(row)
    sets = list(by_content.values())
    found: set[int] = set()
    for kind, severity, key, words in _properties(same):
        divided = [(pair, rows) for rows in sets if (pair := _apart(rows, key)) is not None]
        if divided:
            found |= {rows[0] for _, rows in divided}
            yield _equal(kind, severity, divided, same.samples, words)
    rest = [((rows[0], rows[1]), rows) for rows in sets if rows[0] not in found]
    if rest:
        yield _equal("exact_duplicates", "info", rest, same.samples, "they count more than once; keep one of each")


def _properties(same: _Same) -> tuple[tuple[Kind, Severity, NDArray[np.int64], str], ...]:
    """What mustn't differ among equal images, and what a difference means."""
    return (
        (
            "contradictory_labels",
            "error",
            same.target,
            "under several labels; one of them is wrong, or the label isn't about the image",
        ),
        (
            "exact_duplicates",
            "error",
            same.split,
            "on both sides of the split, so figures are too good; keep one of each, or give the copies one group",
        ),
        (
            "exact_duplicates",
            "warning",
            same.group,
            "in several groups; a group seems to have two names, and a split may divide it",
        ),
    )


def _apart(rows: Sequence[int], key: NDArray[np.int64]) -> tuple[int, int] | None:
    """Two rows whose keys are known and differ."""
    known = [row for row in rows if key[row] >= 0]
    other = next((row for row in known if key[row] != key[known[0]]), None)
    return (known[0], other) if other is not None else None


def _equal(
    kind: Kind,
    severity: Severity,
    found: Sequence[tuple[tuple[int, int], Sequence[int]]],
    samples: Sequence[Sample],
    words: str,
) -> Finding:
    rows = [row for _, members in found for row in members]
    return Finding(
        kind=kind,
        severity=severity,
        text=f"{pluralize(len(found), 'image')} present more than once ({pluralize(len(rows), 'sample')}): {words}",
        samples=tuple(samples[row].id for row in rows[:MOST_SHOWN]),
        count=len(rows),
        pairs=tuple((samples[a].id, samples[b].id) for (a, b), _ in found[:MOST_SHOWN]),
    )


# nearly equal pictures


@dataclass(slots=True)
class _Tally:
    """Pairs of one kind, counted; only the most similar are stored."""

    count: int
    involved: NDArray[np.bool_]
    best: list[tuple[float, int, int]]

    def add(self, alike: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        """Count more pairs."""
        self.count += len(rows)
        self.involved[rows] = self.involved[columns] = True
        top = np.argsort(-alike, kind="stable")[:MOST_SHOWN]
        pairs = zip(alike[top].tolist(), rows[top].tolist(), columns[top].tolist(), strict=True)
        self.best = sorted([*self.best, *pairs], key=lambda pair: (-pair[0], pair[1:]))[:MOST_SHOWN]


_SORTS: tuple[tuple[Severity, str], ...] = (
    ("warning", "on both sides of the split; if they show one thing, figures are too good: give the two one group"),
    ("warning", "under two labels; check them, one label may be wrong"),
    ("warning", "in two groups; check them, one group may have two names"),
    ("info", "check them; where they show one subject, name it in the group column, so that no split divides it"),
)
"""For pairs that differ in split, in label, in group, or in none of these; a pair counts for the first that fits."""


def _near(seen: Seen, same: _Same, computing: Computing) -> Iterator[Finding]:
    where = np.flatnonzero(seen.pictured)
    if len(where) < 2:
        return
    pictures = seen.pictures
    if len(where) < len(pictures):
        pictures = stack(seen.pictures[where[start : start + _BLOCK]] for start in range(0, len(where), _BLOCK))
    split, group, target = same.split, same.group, same.target
    tallies = [_Tally(0, np.zeros(len(seen.pictures), dtype=np.bool_), []) for _ in _SORTS]
    for alike, *pairs in pairs_alike(pictures, computing):
        rows, columns = (where[one] for one in pairs)
        known = (group[rows] >= 0) & (group[columns] >= 0)
        natural = (known & (group[rows] == group[columns])) | (same.content[rows] == same.content[columns])
        divided = (split[rows] >= 0) & (split[columns] >= 0) & (split[rows] != split[columns])
        sort = np.select([divided, target[rows] != target[columns], known], [0, 1, 2], default=3)
        for index, tally in enumerate(tallies):
            here = (sort == index) & ~natural
            tally.add(alike[here], rows[here], columns[here])
    for (severity, words), tally in zip(_SORTS, tallies, strict=True):
        if tally.count:
            yield _nearly_equal(severity, words, tally, same.samples)


def _nearly_equal(severity: Severity, words: str, tally: _Tally, samples: Sequence[Sample]) -> Finding:
    involved = np.flatnonzero(tally.involved)
    return Finding(
        kind="near_duplicates",
        severity=severity,
        text=f"{pluralize(tally.count, 'pair')} of nearly equal images ({pluralize(len(involved), 'sample')}): {words}",
        samples=tuple(samples[index].id for index in involved[:MOST_SHOWN].tolist()),
        count=len(involved),
        pairs=tuple((samples[row].id, samples[column].id) for _, row, column in tally.best),
    )


def pairs_alike(
    pictures: NDArray[np.uint8], computing: Computing
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of pictures that correlate at 0.93 and above in shapes and in fine detail, block by block.

    The lowest frequencies are compared first. By Parseval's theorem they can't be further apart than the whole
    pictures are, so no pair is missed; memory grows with the number of pictures, not of pairs.

    Args:
        pictures: ``(N, 64, 64)`` grey levels.
        computing: for progress.

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
                yield _correlate(pictures, near, start, other)
        advance(min(_BLOCK, len(pictures) - start))


def _distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared, between all rows."""
    squares: NDArray[np.float32] = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * (a @ b.T) - np.float32(1e-5)
    return squares


def _correlate(
    pictures: NDArray[np.uint8], near: NDArray[np.bool_], start: int, other: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of a block that correlate as whole pictures too."""
    rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    left, right = pictures[start + rows], pictures[other + columns]
    shapes, fine = (details(left, blur)[0] @ details(right, blur)[0].T for blur in (SHAPES, FINE))
    i, j = np.nonzero(near[np.ix_(rows, columns)] & (shapes >= ALIKE) & (fine >= ALIKE))
    return fine[i, j], start + rows[i], other + columns[j]


def _coarse(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The lowest frequencies of every picture's detail, ``(N, 256)``, and whether there is any detail."""
    from scipy.fft import dctn

    detailed, side = [], pictures.shape[1]

    def frequencies() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(pictures), _BLOCK):
            block, strength = details(pictures[start : start + _BLOCK], SHAPES)
            detailed.append(strength >= _LEAST_DETAIL)
            low = dctn(block.reshape(-1, side, side), axes=(1, 2), norm="ortho")[:, :_COARSE, :_COARSE]
            yield low.reshape(len(block), -1).astype(np.float32)

    coarse = stack(frequencies())
    return coarse, np.concatenate(detailed)


def details(pictures: NDArray[np.uint8], blur: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pictures minus their blurred copies, as rows of mean 0 and length 1, and each one's root mean square."""
    from scipy.ndimage import gaussian_filter

    levels = pictures.astype(np.float32)
    rows = (levels - gaussian_filter(levels, (0, blur, blur), mode="nearest")).reshape(len(levels), -1)
    rows -= rows.mean(1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1)
    return rows / np.maximum(lengths, 1e-6)[:, None], lengths / np.sqrt(rows.shape[1])
