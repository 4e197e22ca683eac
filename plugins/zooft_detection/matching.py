"""Which found boxes are right, by COCO's rule (pycocotools' ``evaluateImg``), a picture at a time, as small rows.

Of our own, since figures must be functions of rows, to be drawn again and again by the bootstrap; faster-coco-eval and
pycocotools don't expose what a picture's boxes were matched with. Tests compare with both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

IOUS = np.linspace(0.5, 0.95, 10)
"""Overlaps from which on a box is right; the same numbers as COCO's, to the bit."""
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Square pixels of the boxes that figures are of."""
MOST_OF_A_CLASS = 100
"""The likeliest boxes of a class in a picture that count, as in COCO's figures."""
SCORES, LABELS, HITS, LEFT_OUT, TRUTHS = "scores", "labels", "hits", "left_out", "truths"
"""Columns."""


class Row(NamedTuple):
    """What the figures are made of, for one picture with K found boxes, A areas and C classes.

    Attributes:
        scores: ``(K,)`` the largest first; 0 for none.
        labels: ``(K,)``; -1 for none.
        hits: ``(K, A)`` uint16, bit t: right at ``IOUS[t]``.
        left_out: ``(K, A)`` uint16, bit t: counts neither as right nor as wrong.
        truths: ``(C, A)`` how many true boxes there are.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.int16]
    hits: NDArray[np.uint16]
    left_out: NDArray[np.uint16]
    truths: NDArray[np.int32]


class Truth(NamedTuple):
    """A picture's true boxes: corners ``(n, 4)``, classes ``(n,)``, and whether they count nowhere ``(n,)``."""

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    ignored: NDArray[np.bool_]


def row(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    truth: Truth | None,
    classes: int,
) -> Row:
    """Compare a picture's boxes with the truth.

    Args:
        boxes: ``(K, 4)`` corners, the likeliest first.
        scores: ``(K,)``.
        labels: ``(K,)``, -1 for none.
        truth: None where it isn't known.
        classes: how many there are.
    """
    hits = np.zeros((len(scores), len(AREAS)), np.uint16)
    left_out = np.zeros_like(hits)
    truths = np.zeros((classes, len(AREAS)), np.int32)
    if truth is not None:
        for number in np.union1d(labels[labels >= 0], truth.classes):
            own, true = np.flatnonzero(labels == number), truth.classes == number
            left_out[own[MOST_OF_A_CLASS:]] = 2 ** len(IOUS) - 1
            own = own[:MOST_OF_A_CLASS]
            found, spared, counts = _match(boxes[own], truth.boxes[true], truth.ignored[true])
            hits[own], left_out[own], truths[number] = found, spared, counts
    return Row(scores.astype(np.float64), labels.astype(np.int16), hits, left_out, truths)


def _match(
    boxes: NDArray[np.float64], true: NDArray[np.float64], crowd: NDArray[np.bool_]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.int32]]:
    """Of one class: bits of hits and of what is left out ``(K, A)``, and the number of true boxes ``(A,)``."""
    limits = np.array(list(AREAS.values()))  # (A, 2)
    sizes = (true[:, 2] - true[:, 0]) * (true[:, 3] - true[:, 1])
    spared = crowd[None] | (sizes[None] < limits[:, :1]) | (sizes[None] > limits[:, 1:])  # (A, n)
    overlaps = iou(boxes, true, crowd)
    own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    beside = (own[:, None] < limits[:, 0]) | (own[:, None] > limits[:, 1])  # (K, A)
    taken = np.zeros((len(limits), len(IOUS), len(true)), np.bool_)  # (A, T, n)
    bits = (1 << np.arange(len(IOUS))).astype(np.uint16)
    hits, left_out = (np.zeros((len(boxes), len(limits)), np.uint16) for _ in range(2))
    every = np.uint16(bits.sum())
    for number in range(len(boxes)):
        reached = overlaps[number][None] >= np.minimum(IOUS, 1 - 1e-10)[:, None]  # (T, n)
        if not reached.any():
            left_out[number] = np.where(beside[number], every, 0)
            continue
        free = reached[None] & (~taken | crowd)
        counted = free & ~spared[:, None]
        usual = counted.any(-1)
        # boxes that count before those that don't, whatever the overlap
        chosen = np.where(usual[..., None], counted, free)
        matched = chosen.any(-1)
        best = _last_largest(np.where(chosen, overlaps[number], -1.0))
        area, level = np.nonzero(matched)
        taken[area, level, best[area, level]] = True
        hits[number] = (usual * bits).sum(-1)
        left_out[number] = (((matched & ~usual) | (~matched & beside[number][:, None])) * bits).sum(-1)
    return hits, left_out, (~spared).sum(1).astype(np.int32)


def _last_largest(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """As COCO's loop, which takes the last of equal overlaps."""
    found: NDArray[np.int64] = values.shape[-1] - 1 - values[..., ::-1].argmax(-1)
    return found


def iou(
    boxes: NDArray[np.float64], true: NDArray[np.float64], crowd: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Overlaps ``(K, n)``; with a crowd, the share of the found box that lies in it."""
    low = np.maximum(boxes[:, None, :2], true[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], true[None, :, 2:])
    both = (high - low).clip(0).prod(-1)
    own, theirs = ((some[:, 2] - some[:, 0]) * (some[:, 3] - some[:, 1]) for some in (boxes, true))
    either = own[:, None] + theirs[None] - both
    if crowd is not None:
        either = np.where(crowd[None], own[:, None], either)
    found: NDArray[np.float64] = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    return found


def columns(rows: list[Row]) -> dict[str, NDArray[np.generic]]:
    """Of several pictures with as many boxes each."""
    names = (SCORES, LABELS, HITS, LEFT_OUT, TRUTHS)
    return {name: np.stack([each[place] for each in rows]) for place, name in enumerate(names)}
