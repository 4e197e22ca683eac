"""How good a model is on the samples that share a value of a fact, such as a scanner's maker."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from zooft.evaluation.bootstrap import Interval, Metrics, intervals
from zooft.evaluation.groups import are_known, members_of
from zooft.evaluation.predictions import Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOT_STATED = "not stated"
"""The value of a fact that a sample doesn't have."""
RESAMPLES = 200
_FEWEST = 10
_MOST_DISTINCT_NUMBERS = 6
_AGE_BANDS = {0: "0-17", 18: "18-39", 40: "40-59", 60: "60-79", 80: "80+"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgroup:
    """How good a model is on the samples that share one value of a fact.

    Attributes:
        fact: its name, such as ``manufacturer``.
        value: the shared value, a band of numbers, or ``not stated``.
        samples: how many.
        groups: how many groups, such as patients, they come from; 0 where none are known.
        positives: how many samples are of the last class; 0 where targets aren't classes.
        metric: the primary one, per sample; NaN where `small`.
        small: fewer than ten samples, or all with the same target: too few for a figure.
    """

    fact: str
    value: str
    samples: int
    groups: int
    positives: int
    metric: Interval
    small: bool


def subgroups(
    metrics: Metrics,
    predictions: Predictions,
    *,
    facts: Sequence[Mapping[str, str | float]],
    names: Sequence[str],
    primary: str,
    last: int | None,
    resamples: int,
    seed: int,
) -> tuple[Subgroup, ...]:
    """A row for each value of each fact.

    Args:
        metrics: of predictions.
        predictions: with samples.
        facts: one mapping per sample; empty for no subgroups.
        names: of the facts.
        primary: the metric.
        last: the target that counts as positive; None where targets aren't classes.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    if not facts:
        return ()
    everyone = predictions.groups

    def only(some: Predictions) -> dict[str, float]:
        return {primary: metrics(some)[primary]}

    def row(fact: str, value: str, rows: NDArray[np.int64]) -> Subgroup:
        some = Predictions(samples=(), columns=predictions.rows(rows))
        groups, targets = [everyone[index] for index in rows], some.columns.get("target")
        alike = targets is not None and targets.ndim == 1 and len(np.unique(targets)) < 2
        small = len(rows) < _FEWEST or alike
        return Subgroup(
            fact=fact,
            value=value,
            samples=len(rows),
            groups=len(members_of(groups)) if are_known(everyone) else 0,
            positives=0 if last is None or targets is None else int((targets == last).sum()),
            metric=Interval(math.nan, None, None)
            if small
            else intervals(only, some, groups=groups, resamples=resamples, seed=seed)[primary],
            small=small,
        )

    return tuple(
        row(fact, value, rows)
        for fact in names
        for value, rows in by_value(fact, [stated.get(fact) for stated in facts]).items()
    )


def by_value(fact: str, values: Sequence[str | float | None]) -> dict[str, NDArray[np.int64]]:
    """The rows of the samples that share a value of a fact; numbers in bands.

    Args:
        fact: its name. ``age``, in years, has bands of its own; other numbers are their own value, rounded to
            hundredths, where there are at most six of them, and in quarters of equal size otherwise.
        values: one per sample.

    Returns:
        The value, or the band's name, to rows; numbers ascending, then texts, then ``not stated``.
    """
    numbers = [number for number in map(_number, values) if number is not None]
    band = _age_band if fact == "age" else _bands(numbers)
    rows: dict[tuple[int, float, str], list[int]] = {}
    for index, value in enumerate(values):
        rows.setdefault(_place(value, band), []).append(index)
    return {key[2]: np.array(rows[key]) for key in sorted(rows)}


def _place(value: str | float | None, band: Callable[[float], tuple[int, str]]) -> tuple[int, float, str]:
    number = _number(value)
    if number is not None:
        return (0, *band(number))
    if isinstance(value, str) and value.strip():
        return (1, 0, value.strip())
    return (2, 0, NOT_STATED)


def _number(value: str | float | None) -> float | None:
    return None if value is None or isinstance(value, str) or not math.isfinite(value) else float(value)


def _age_band(years: float) -> tuple[int, str]:
    place = max(bisect_right(list(_AGE_BANDS), years) - 1, 0)
    return place, list(_AGE_BANDS.values())[place]


def _bands(numbers: Sequence[float]) -> Callable[[float], tuple[int, str]]:
    distinct = sorted({round(number, 2) for number in numbers})
    if len(distinct) <= _MOST_DISTINCT_NUMBERS:
        return lambda number: (distinct.index(round(number, 2)), f"{round(number, 2):g}")
    cuts = [float(cut) for cut in np.unique(np.quantile(numbers, [0.25, 0.5, 0.75]))]
    inner = [f"over {low:g} to {high:g}" for low, high in pairwise(cuts)]
    names = [f"up to {cuts[0]:g}", *inner, f"over {cuts[-1]:g}"]

    def quarter(number: float) -> tuple[int, str]:
        place = bisect_left(cuts, number)
        return place, names[place]

    return quarter
