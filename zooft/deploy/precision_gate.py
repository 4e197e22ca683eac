"""Whether a file in lower precision is still good enough: the problem's own figure, against the float32 file's.

Owns what a drop is, and its interval: both files answer the same samples, and groups are drawn for both at once. On few
samples, one of them may weigh more than what is allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zooft.evaluation.bootstrap import intervals
from zooft.evaluation.predictions import Predictions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zooft.contracts import Labels, Problem

_OURS, _THEIRS = "fp32 ", "other "


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """By how much a file's figure is worse than the float32 file's.

    Attributes:
        metric: the problem's primary figure.
        before: the float32 file's.
        now: the other's.
        value: how much worse; negative where it is better. Where smaller figures are better, as a share of `before`.
        low: end of the 95 % interval of `value`, by a paired bootstrap over groups; None where there is none.
        high: its other end.
        samples: how many were answered.
        relative: whether it is a share.
    """

    metric: str
    before: float
    now: float
    value: float
    low: float | None
    high: float | None
    samples: int
    relative: bool

    def holds(self, most: float) -> bool:
        """Whether it is at most so much; not where a figure isn't defined."""
        return self.value <= most + 1e-12

    def describe(self, of: str = "the float32 file's") -> str:
        """In words, with the interval; `of` is whose figure it is a share of."""
        kind = f" of {of}" if self.relative else ""
        ends = "" if self.low is None or self.high is None else f" (95 % interval {self.low:+.4f} … {self.high:+.4f})"
        return (
            f"{self.metric.replace('_', ' ')} {self.now:.4f} instead of {self.before:.4f}, worse by "
            f"{self.value:+.4f}{kind}{ends}"
        )


def drop(
    problem: Problem,
    labels: Labels,
    before: Predictions,
    now: Predictions,
    *,
    resamples: int = 0,
    seed: int = 0,
) -> Drop:
    """Compare two files' answers to the same samples.

    Args:
        problem: whose figure.
        labels: what the answers mean.
        before: the float32 file's answers.
        now: the other's, to the same samples in the same order.
        resamples: of the bootstrap; 0 for no interval.
        seed: of its draws.
    """
    part, count = problem.evaluation, len(before)
    name = part.primary

    def figures(both: Predictions) -> Mapping[str, float]:
        values = [float(part.metrics(_side(both, prefix), labels)[name]) for prefix in (_OURS, _THEIRS)]
        return {
            "before": values[0],
            "now": values[1],
            "drop": worse(values[0], values[1], smaller=name in part.smaller),
        }

    columns = {
        prefix + column: rows
        for prefix, side in ((_OURS, before), (_THEIRS, now))
        for column, rows in side.columns.items()
    }
    pair = Predictions(samples=before.samples, columns=columns)
    found = intervals(figures, pair, groups=before.groups, resamples=resamples, seed=seed)
    return Drop(
        metric=name,
        before=found["before"].value,
        now=found["now"].value,
        value=found["drop"].value,
        low=found["drop"].low,
        high=found["drop"].high,
        samples=count,
        relative=name in part.smaller,
    )


def heaviest(problem: Problem, labels: Labels, before: Predictions, now: Predictions) -> float:
    """The largest drop that one sample alone makes, answered by the other file and all others by the float32 file.

    Where it is more than what is allowed, the gate goes by one sample's chance. Arguments as `drop`'s.
    """
    part = problem.evaluation
    name, smaller = part.primary, part.primary in part.smaller
    columns = {column: np.array(rows) for column, rows in before.columns.items()}
    mixed = Predictions(samples=before.samples, columns=columns)
    reference, most = float(part.metrics(before, labels)[name]), 0.0
    for row in range(len(before)):
        for column, rows in columns.items():
            rows[row] = now.columns[column][row]
        most = max(most, worse(reference, float(part.metrics(mixed, labels)[name]), smaller=smaller))
        for column, rows in columns.items():
            rows[row] = before.columns[column][row]
    return most


def worse(before: float, now: float, *, smaller: bool) -> float:
    """How much worse a figure is; as a share where smaller ones are better, infinite where it is no longer defined."""
    if math.isnan(now):
        return math.nan if math.isnan(before) else math.inf
    return (now - before) / max(abs(before), 1e-12) if smaller else before - now


def _side(both: Predictions, prefix: str) -> Predictions:
    own = {name.removeprefix(prefix): rows for name, rows in both.columns.items() if name.startswith(prefix)}
    return Predictions(samples=both.samples, columns=own)
