"""How far a file's answers are from the model's, in units that mean something.

Owns the units: preprocessing is compared in levels of 255, numbers by their spread among samples. Limits are
`verify`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import LevelDifference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Columns, InputSpec

_WHOLE = 1e-2
"""Levels; float32 gives levels back to 1e-4."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Three ways to the same answers of N samples, outputs by name, ``(N, …)`` each.

    Of an output whose size differs from sample to sample, ``(N,)`` arrays.

    Attributes:
        torch: the model in torch, from native units on.
        same: the network in torch, on what the file's own preprocessing made: against `file`, only the networks differ.
        file: the file.
    """

    torch: Columns
    same: Columns
    file: Columns

    def not_finite(self, names: Iterable[str]) -> list[str]:
        """Those of the outputs `names` of which torch itself has no answer."""
        return [name for name in names if not (is_finite(self.torch[name]) and is_finite(self.same[name]))]


def join(rows: Sequence[Answers]) -> Answers:
    """Of many samples."""
    return Answers(*(_join([getattr(row, name) for row in rows]) for name in ("torch", "same", "file")))


def _join(parts: Sequence[Columns]) -> Columns:
    return {name: stack([part[name] for part in parts]) for name in parts[0]}


def stack(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Rows of several batches as of one; ``(N,)`` arrays where the sizes of their rows differ."""
    if len({part.shape[1:] for part in parts}) <= 1:
        return np.concatenate(parts)
    rows = [row for part in parts for row in part]
    found = np.empty(len(rows), dtype=object)
    found[:] = rows
    return found


def is_finite(answers: NDArray[Any]) -> bool:
    """Whether all numbers are."""
    return bool(np.isfinite(_numbers(answers)).all())


def spread(answers: NDArray[Any]) -> float:
    """The standard deviation over the samples: what a model gives for every image alike doesn't count.

    Of a single sample, and of those of several sizes, over all numbers.
    """
    if not len(answers):
        return 0.0
    numbers = _numbers(answers)
    return float(numbers.std() if len(answers) == 1 or answers.dtype == object else (numbers - numbers.mean(0)).std())


def rms(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Root mean square of a difference; 0 of nothing."""
    apart = _numbers(ours) - _numbers(theirs)
    return float(np.sqrt((apart**2).mean())) if apart.size else 0.0


def largest(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """The largest difference; 0 of nothing."""
    return float(np.abs(_numbers(theirs) - _numbers(ours)).max(initial=0))


def largest_by_row(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.float64]:
    """Of each sample ``(N,)``."""
    return np.array([largest(one, other) for one, other in zip(ours, theirs, strict=True)])


def same_rows(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.bool_]:
    """Samples ``(N,)`` of which both are the same."""
    return np.array([np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True)], dtype=bool)


def wide(answers: Columns) -> Columns:
    """The same with numbers in float64, as figures are computed from."""
    return {name: found.astype(np.float64) if found.dtype.kind == "f" else found for name, found in answers.items()}


def _numbers(answers: NDArray[Any]) -> NDArray[np.float64]:
    """In float64; of samples of several sizes one after the other."""
    if answers.dtype == object:
        return np.concatenate([np.ravel(row) for row in answers]).astype(np.float64)
    return answers.astype(np.float64)


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


def _scale(inputs: NDArray[Any], spec: InputSpec) -> tuple[NDArray[Any], NDArray[Any]]:
    """One level, and which level 0 of the input is, by channel where the channels are the backbone's."""
    std, mean = np.array(spec.std, np.float64), np.array(spec.mean, np.float64)
    if inputs.ndim < 3 or inputs.shape[-3] != len(std):
        std, mean = std.mean(), mean.mean()
    else:
        std, mean = std[:, None, None], mean[:, None, None]
    return 1 / (255 * std), 255 * mean
