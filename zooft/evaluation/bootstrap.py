"""How certain a figure is: intervals by resampling groups, and for proportions by a formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from zooft.evaluation.groups import members_of
from zooft.evaluation.predictions import Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

Metrics = Callable[[Predictions], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the 95 % interval around it; both ends None where none was requested or none exists."""

    value: float
    low: float | None
    high: float | None


def intervals(
    metrics: Metrics, predictions: Predictions, *, groups: Sequence[str | None], resamples: int, seed: int
) -> dict[str, Interval]:
    """Percentile bootstrap over groups, or over samples where no groups are known (Efron 1979).

    Args:
        metrics: of predictions; uses columns only.
        predictions: N of them.
        groups: one a row.
        resamples: 0 for no intervals.
        seed: of the draws.
    """
    values = {name: float(value) for name, value in metrics(predictions).items()}
    members = members_of(groups)
    if resamples == 0 or len(members) < 2:
        return {name: Interval(value, None, None) for name, value in values.items()}
    drawn: dict[str, list[float]] = {name: [] for name in values}
    for rows in _resample(members, resamples, seed):
        for name, value in metrics(Predictions(samples=(), columns=predictions.rows(rows))).items():
            drawn[name].append(value)
    return {name: _interval(value, drawn[name]) for name, value in values.items()}


def share(part: int, whole: int, *, interval: bool) -> Interval:
    """A share of independent cases with its score interval (Wilson 1927).

    The bootstrap would give 10 of 10 an interval of no width. Without scipy, which evaluating a file shouldn't need.
    """
    if not whole:
        return Interval(math.nan, None, None)
    if not interval:
        return Interval(part / whole, None, None)
    z2 = NormalDist().inv_cdf(0.975) ** 2
    middle = (part + z2 / 2) / (whole + z2)
    reach = math.sqrt(z2) / (whole + z2) * math.sqrt(part * (whole - part) / whole + z2 / 4)
    # for none and for all of them, the ends are exact
    return Interval(part / whole, middle - reach if part else 0.0, middle + reach if part < whole else 1.0)


def _resample(members: Sequence[NDArray[np.int64]], resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """The samples' rows of as many groups as there are, drawn with replacement, `resamples` times."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate(members)
    sizes = np.array([len(group) for group in members])
    starts = sizes.cumsum() - sizes
    for _ in range(resamples):
        drawn = rng.integers(0, len(members), len(members))
        counts = sizes[drawn]
        before = counts.cumsum() - counts
        yield rows[np.repeat(starts[drawn] - before, counts) + np.arange(counts.sum())]


def _interval(value: float, drawn: list[float]) -> Interval:
    finite = np.array([v for v in drawn if np.isfinite(v)])
    if not len(finite):
        return Interval(value, None, None)
    low, high = np.percentile(finite, [2.5, 97.5])
    return Interval(value, float(low), float(high))
