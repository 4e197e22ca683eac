"""How good embeddings are.

Whether the nearest pictures show the same one, and whether distances separate the same from others.

Everything is a function of all given rows. A picture that is there several times (a copy, or a row drawn again by the
bootstrap) stands once among those that are searched, and counts that many times as a query: it is never found by
itself. Rows of several folds of a cross-validation come from several models, and are compared within their fold alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft_retrieval.identities import UNKNOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANKS = (1, 5)
FARS = (1e-2, 1e-3)
PRIMARY = "map_at_r"
AUROC = "verification_auroc"
_BLOCK = 1024
"""Queries that are compared at a time."""
_EXACT = 200_000
"""Pairs whose similarities are sorted; of more, they are counted in `_LEVELS` steps."""
_LEVELS = 1 << 16


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures by one model, each once.

    Attributes:
        rows: where they stand among what was given ``(n,)``.
        embeddings: ``(n, D)`` float32, of length 1.
        identities: ``(n,)``.
        weights: how often each was given ``(n,)``.
        pairs: of a list, ``(n, K)``.
    """

    rows: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    identities: NDArray[np.int64]
    weights: NDArray[np.float64]
    pairs: NDArray[np.int64]

    @property
    def others(self) -> NDArray[np.int64]:
        """How many other pictures of the same identity each has ``(n,)``."""
        _, inverse, counts = np.unique(self.identities, return_inverse=True, return_counts=True)
        found: NDArray[np.int64] = counts[inverse] - 1
        return found


def galleries(columns: Mapping[str, NDArray[Any]]) -> list[Gallery]:
    """One for each fold, of rows whose identity is known."""
    known = np.flatnonzero(columns["identity"] != UNKNOWN)
    folds = columns["fold"][known] if "fold" in columns else np.zeros(len(known), np.int64)
    return [_gallery(columns, known[folds == fold]) for fold in np.unique(folds)]


def _gallery(columns: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]) -> Gallery:
    _, first, counts = np.unique(columns["content"][rows], return_index=True, return_counts=True)
    order = np.argsort(first)  # as they were given
    chosen = rows[first[order]]
    return Gallery(
        rows=chosen,
        embeddings=normalise(columns["embedding"][chosen]),
        identities=columns["identity"][chosen],
        weights=counts[order].astype(np.float64),
        pairs=columns["pairs"][chosen],
    )


def normalise(embeddings: NDArray[Any]) -> NDArray[np.float32]:
    """``(N, D)`` of length 1, as the deployed file gives them."""
    wide = np.asarray(embeddings, np.float64)
    unit: NDArray[np.float32] = (wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)).astype(
        np.float32
    )
    return unit


def nearest(gallery: Gallery, most: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Blocks of queries.

    Their places in the gallery ``(q,)``, and the places and similarities of others, nearest first ``(q, most)``.
    """
    count = len(gallery.rows)
    most = min(most, count - 1)
    for begin in range(0, count if most > 0 else 0, _BLOCK):
        queries = np.arange(begin, min(begin + _BLOCK, count))
        similar = gallery.embeddings[queries] @ gallery.embeddings.T
        similar[np.arange(len(queries)), queries] = -np.inf
        among = np.argpartition(-similar, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(similar, among, 1), axis=1, kind="stable")
        places = np.take_along_axis(among, order, 1)
        yield queries, places, np.take_along_axis(similar, places, 1)


def figures(columns: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """All of them; NaN where one isn't defined, as with pictures of one identity only."""
    parts = galleries(columns)
    return {**_ranking(parts), **_verification(roc(parts))}


def _ranking(parts: Sequence[Gallery]) -> dict[str, float]:
    """Recall at k, and mean average precision at R (Musgrave et al. 2020), over pictures whose identity has others."""
    hits, precision, weight = dict.fromkeys(RANKS, 0.0), 0.0, 0.0
    for part in parts:
        others = part.others
        depth = max(*RANKS, int(others.max(initial=0)))
        for queries, places, _ in nearest(part, depth):
            same = part.identities[places] == part.identities[queries][:, None]
            weights, wanted = part.weights[queries] * (others[queries] > 0), others[queries]
            for rank in RANKS:
                hits[rank] += float((same[:, :rank].any(1) * weights).sum())
            ranks = np.arange(1, same.shape[1] + 1)
            within = same & (ranks <= wanted[:, None])
            each = (within * np.cumsum(same, 1) / ranks).sum(1) / np.maximum(wanted, 1)
            precision += float((each * weights).sum())
            weight += float(weights.sum())
    shares = {f"recall_at_{rank}": hits[rank] / weight if weight else math.nan for rank in RANKS}
    return {**shares, PRIMARY: precision / weight if weight else math.nan}


@dataclass(frozen=True, slots=True)
class Roc:
    """How pairs of the same and of others are separated as the threshold falls.

    Attributes:
        thresholds: cosine similarities, falling ``(T,)``; a pair counts as the same from there on.
        same: weight of pairs of the same identity at or above each.
        other: the same of pairs of two.
    """

    thresholds: NDArray[np.float64]
    same: NDArray[np.float64]
    other: NDArray[np.float64]

    @property
    def defined(self) -> bool:
        """Whether there are pairs of both kinds."""
        return bool(len(self.thresholds)) and self.same[-1] > 0 and self.other[-1] > 0

    @property
    def tar(self) -> NDArray[np.float64]:
        """True accepts, a share ``(T,)``."""
        return np.asarray(self.same / self.same[-1])

    @property
    def far(self) -> NDArray[np.float64]:
        """False accepts, a share ``(T,)``."""
        return np.asarray(self.other / self.other[-1])

    def auroc(self) -> float:
        """The area below; pairs of equal similarity count by half."""
        far, tar = np.concatenate([[0.0], self.far]), np.concatenate([[0.0], self.tar])
        return float(np.trapezoid(tar, far))

    def tar_at(self, far: float) -> float:
        """The largest share of true accepts where at most `far` of the others are accepted."""
        return float(self.tar[self.far <= far].max(initial=0.0))

    def threshold(self, far: float) -> int:
        """Place of the threshold: the most true accepts at `far`, or for 0 the largest TAR - FAR (Youden 1950)."""
        if far <= 0:
            return int((self.tar - self.far).argmax())
        return max(0, int(np.searchsorted(self.far, far, side="right")) - 1)


def roc(parts: Sequence[Gallery]) -> Roc:
    """Of all pairs of pictures, or of those of a list where there is one."""
    counted = [_list(part) if part.pairs.shape[1] else _all_pairs(part) for part in parts]
    similar, same, weights = (np.concatenate([each[i] for each in counted] or [np.zeros(0)]) for i in range(3))
    order = np.argsort(-similar, kind="stable")
    similar, same, weights = similar[order], same[order].astype(bool), weights[order]
    last = np.flatnonzero(np.append(np.diff(similar) != 0, True)) if len(similar) else np.zeros(0, np.int64)
    return Roc(similar[last], np.cumsum(weights * same)[last], np.cumsum(weights * ~same)[last])


_Pairs = tuple["NDArray[np.float64]", "NDArray[np.bool_]", "NDArray[np.float64]"]
"""Similarity of pairs, whether they are of the same, and their weights."""


def _all_pairs(part: Gallery) -> _Pairs:
    count = len(part.rows)
    if count * (count - 1) // 2 > _EXACT:
        return _count_pairs(part)
    first, second = np.triu_indices(count, 1)
    similar = (part.embeddings @ part.embeddings.T)[first, second].astype(np.float64)
    return similar, part.identities[first] == part.identities[second], part.weights[first] * part.weights[second]


def _count_pairs(part: Gallery) -> _Pairs:
    """In steps of the similarity, block by block, so that all pairs are never held."""
    counts = np.zeros((2, _LEVELS))
    for begin in range(0, len(part.rows), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        similar = part.embeddings[rows] @ part.embeddings[begin:].T
        later = np.triu(np.ones(similar.shape, bool), 1)
        levels = np.rint((similar + 1) * ((_LEVELS - 1) / 2)).astype(np.int64).clip(0, _LEVELS - 1)[later]
        same = (part.identities[rows][:, None] == part.identities[begin:])[later]
        weights = (part.weights[rows][:, None] * part.weights[begin:])[later]
        for kind in (0, 1):
            chosen = same == bool(kind)
            counts[kind] += np.bincount(levels[chosen], weights[chosen], minlength=_LEVELS)
    found = [(np.flatnonzero(counts[kind]), kind) for kind in (0, 1)]
    levels, kinds = (np.concatenate(each) for each in zip(*((at, np.full(len(at), k)) for at, k in found), strict=True))
    return levels * (2 / (_LEVELS - 1)) - 1, kinds == 1, counts[kinds, levels]


def _list(part: Gallery) -> _Pairs:
    """Of pairs whose numbers two rows have."""
    places, slots = np.nonzero(part.pairs != UNKNOWN)
    numbers = part.pairs[places, slots]
    order = np.argsort(numbers, kind="stable")
    places, numbers = places[order], numbers[order]
    at = np.flatnonzero(numbers[1:] == numbers[:-1])
    first, second = places[at], places[at + 1]
    similar = (part.embeddings[first] * part.embeddings[second]).sum(1).astype(np.float64)
    return similar, part.identities[first] == part.identities[second], part.weights[first] * part.weights[second]


def _verification(found: Roc) -> dict[str, float]:
    names = [f"tar_at_far_{far:g}" for far in FARS]
    if not found.defined:
        return dict.fromkeys([AUROC, *names], math.nan)
    return {AUROC: found.auroc(), **{name: found.tar_at(far) for name, far in zip(names, FARS, strict=True)}}
