"""How far a file's answers are from the model's, in units that mean something.

Owns the units: preprocessing is compared in levels of 255, logits by their spread. Limits are `verify`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import LevelDifference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import InputSpec

    Pair = tuple[NDArray[Any], NDArray[Any]]

_WHOLE = 1e-2
"""Levels; float32 gives levels back to 1e-4."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Three ways to the same answers, ``(N, classes)`` each, float64.

    Attributes:
        torch: the model in torch, from native units on.
        same: the network in torch, on what the file's own preprocessing made: against `file`, only the networks differ.
        file: the file.
    """

    torch: Pair
    same: Pair
    file: Pair

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Samples of which torch itself has an answer."""
        return np.asarray(np.isfinite(self.torch[1]).all(1) & np.isfinite(self.same[1]).all(1))

    def chosen(self, rows: NDArray[Any]) -> Answers:
        """Some of the samples."""
        return Answers(*((pair[0][rows], pair[1][rows]) for pair in (self.torch, self.same, self.file)))


def joined(rows: Sequence[Answers]) -> Answers:
    """Of many samples."""
    return Answers(*(_stacked([getattr(row, name) for row in rows]) for name in ("torch", "same", "file")))


def _stacked(pairs: Sequence[Pair]) -> Pair:
    probabilities, logits = (np.concatenate(column).astype(np.float64) for column in zip(*pairs, strict=True))
    return probabilities, logits


def spread(logits: NDArray[Any]) -> float:
    """The logits' standard deviation over the samples: what a model says of every image alike doesn't count.

    Of a single sample, over the classes.
    """
    if not len(logits):
        return 0.0
    return float(logits.std() if len(logits) == 1 else (logits - logits.mean(0)).std())


def rms(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Root mean square of a difference; 0 of nothing."""
    return float(np.sqrt(((ours - theirs) ** 2).mean())) if ours.size else 0.0


def levels(ours: NDArray[Any], theirs: NDArray[Any], spec: InputSpec) -> LevelDifference:
    """Two network inputs ``(N, C, H, W)`` or ``(N, Z, C, H, W)`` of the same batch, the first one torch's."""
    unit, zero = _scale(ours, spec)
    exact = ours / unit + zero
    whole = bool((np.abs(exact - np.rint(exact)) < _WHOLE).all())
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return LevelDifference(values=ours.size, differing=ours.size, largest=np.inf, mean=np.inf, whole=whole)
    apart = np.abs(theirs.astype(np.float64) - ours) / unit
    return LevelDifference(
        values=apart.size,
        differing=int((apart >= 0.5).sum()),
        largest=float(apart.max(initial=0)),
        mean=float(apart.mean()),
        whole=whole,
    )


def all_levels(found: Sequence[LevelDifference]) -> LevelDifference:
    """Of several batches as of one."""
    values = sum(one.values for one in found)
    return LevelDifference(
        values=values,
        differing=sum(one.differing for one in found),
        largest=max(one.largest for one in found),
        mean=sum(one.mean * one.values for one in found) / max(values, 1),
        whole=all(one.whole for one in found),
    )


def _scale(inputs: NDArray[Any], spec: InputSpec) -> Pair:
    """One level, and which level 0 of the input is, by channel where the channels are the backbone's."""
    std, mean = np.array(spec.std, np.float64), np.array(spec.mean, np.float64)
    if inputs.ndim < 3 or inputs.shape[-3] != len(std):
        std, mean = std.mean(), mean.mean()
    else:
        std, mean = std[:, None, None], mean[:, None, None]
    return 1 / (255 * std), 255 * mean
