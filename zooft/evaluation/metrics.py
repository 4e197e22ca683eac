"""Figures of merit for classes, their intervals, and who they are about: samples, groups such as patients, subgroups.

The formulas are written out over the confusion matrix and the ranks, because the bootstrap evaluates them a
thousand times and scikit-learn's take 10 ms a time; tests compare each with scikit-learn's.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import GroupScore

    Metrics = Callable[[NDArray[Any], NDArray[Any]], Mapping[str, float]]

SMALLER_IS_BETTER = frozenset({"brier", "ece"})
"""Names of figures that are better when smaller; all others are better when larger."""

NOT_STATED = "not stated"
"""The value of a fact that a sample doesn't have."""

_ECE_BINS = 15
_FEWEST_IN_SUBGROUP = 10
_SUBGROUP_RESAMPLES = 200
_MOST_DISTINCT_NUMBERS = 6
_AGE_BANDS = {0: "0-17", 18: "18-39", 40: "40-59", 60: "60-79", 80: "80+"}
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the 95 % interval around it; both ends None where none was asked for or none exists."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """One class of the per-class table."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgroup:
    """How a model did on the samples that share one value of a fact.

    Attributes:
        fact: its name, such as ``manufacturer``.
        value: the shared value, a band of numbers, or ``not stated``.
        samples: how many.
        groups: how many groups, such as patients, they come from; 0 where none are known.
        positives: how many samples are of the last class.
        metric: the primary one, per sample; NaN where `small`.
        small: fewer than ten samples, or all of one class: too few to say anything.
    """

    fact: str
    value: str
    samples: int
    groups: int
    positives: int
    metric: Interval
    small: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How a model did on one split.

    Attributes:
        split: which samples.
        samples: how many.
        metrics: name to figure and interval, per sample.
        per_class: one row a class, per sample.
        confusion: per sample; rows are true classes, columns those said, at `threshold` where there is one.
        groups: how many groups, such as patients, a sample of unknown group counting as one; 0 where none are known.
        mixed_groups: how many of them have samples of several classes.
        group_metrics: as `metrics`, with one answer a group; empty where no group has two samples.
        group_confusion: as `confusion`, with one answer a group; empty where no group has two samples.
        threshold: the operating threshold of two classes; None where the likelier class is said.
        at_threshold: sensitivity, specificity, ppv and npv at `threshold`, per group where groups are known, else per
            sample; empty without a threshold.
        primary: name of the subgroups' metric.
        subgroups: rows by fact and value.
        group_name: what a group is, in the singular.
        one_class: the class that every group counts as, though samples are of several; there are no figures per group
            then, since saying it of everybody would be right always. "" elsewhere.
    """

    split: str
    samples: int
    metrics: Mapping[str, Interval]
    per_class: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...]
    groups: int = 0
    mixed_groups: int = 0
    group_metrics: Mapping[str, Interval] = field(default_factory=dict)
    group_confusion: tuple[tuple[int, ...], ...] = ()
    threshold: float | None = None
    at_threshold: Mapping[str, Interval] = field(default_factory=dict)
    primary: str = ""
    subgroups: tuple[Subgroup, ...] = ()
    group_name: str = "group"
    one_class: str = ""


class Grouped(NamedTuple):
    """One answer a group.

    Attributes:
        names: of the groups, in the order in which they first occur; None for a sample of unknown group, which is one
            of its own.
        targets: ``(G,)`` the largest class index among each group's samples: any positive makes it positive.
        probabilities: ``(G, classes)``.
        members: the samples' row numbers, ascending.
    """

    names: tuple[str | None, ...]
    targets: NDArray[Any]
    probabilities: NDArray[Any]
    members: tuple[NDArray[np.int64], ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """What lies at or above each score, from the largest score down; every curve and threshold is read off it.

    Attributes:
        scores: ``(K,)`` distinct, descending.
        hits: ``(K,)`` positives with at least that score.
        alarms: ``(K,)`` negatives with at least that score.
        positives: all of them.
        negatives: all of them.
    """

    scores: NDArray[Any]
    hits: NDArray[Any]
    alarms: NDArray[Any]
    positives: int
    negatives: int


# Figures


def classification_metrics(targets: NDArray[Any], probabilities: NDArray[Any]) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1 and AUROC, as scikit-learn defines them.

    Args:
        targets: ``(N,)`` class indices.
        probabilities: ``(N, classes)``.

    Returns:
        Name to value. Classes that don't occur among the targets are left out of the balanced accuracy; AUROC
        (one against the rest, macro average for three and more classes) is NaN where a class doesn't occur.
    """
    matrix = confusion(targets, probabilities)
    hits, truth, said = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    either = (truth + said) > 0
    f1 = 2 * hits[either] / (truth + said)[either]
    return {
        "accuracy": float(hits.sum() / matrix.sum()),
        "balanced_accuracy": _balanced_accuracy(matrix),
        "macro_f1": float(f1.mean()),
        "auroc": float(np.mean([_auroc(rank) for rank in _rankings(targets, probabilities)])),
    }


def diagnostic_metrics(targets: NDArray[Any], probabilities: NDArray[Any]) -> dict[str, float]:
    """The figures of a diagnostic test, as scikit-learn defines them where it does.

    Args:
        targets: ``(N,)`` class indices; of two classes the second is the positive one.
        probabilities: ``(N, classes)``.

    Returns:
        Name to value.

        - ``auroc`` (Hanley and McNeil 1982) and ``auprc`` (average precision: the step sum, without interpolation);
          macro average of one against the rest for three and more classes; NaN where a class doesn't occur.
        - ``balanced_accuracy``, ``accuracy``: of the likelier class, whatever the operating threshold is.
        - ``sensitivity_at_specificity_90``, ``specificity_at_sensitivity_90``: two classes only. The largest one that a
          threshold reaches while the other is at least 0.9, read off the empirical ROC curve without interpolation.
        - ``brier`` (Brier 1950): the mean squared error of the positive class's probability; for three and more
          classes, of all classes' summed. Smaller is better.
        - ``ece``: the expected calibration error over 15 bins of equal width (Guo et al. 2017), of the positive class's
          probability for two classes and of the likeliest class's for more. Smaller is better.
    """
    matrix = confusion(targets, probabilities)
    rankings = _rankings(targets, probabilities)
    figures = {
        "auroc": float(np.mean([_auroc(rank) for rank in rankings])),
        "auprc": float(np.mean([_average_precision(rank) for rank in rankings])),
        "balanced_accuracy": _balanced_accuracy(matrix),
        "accuracy": float(np.diag(matrix).sum() / matrix.sum()),
    }
    if probabilities.shape[1] == 2:
        figures["sensitivity_at_specificity_90"] = _sensitivity_at_specificity(rankings[0], 0.9)
        figures["specificity_at_sensitivity_90"] = _specificity_at_sensitivity(rankings[0], 0.9)
    return {**figures, "brier": _brier(targets, probabilities), "ece": _calibration_error(targets, probabilities)}


def decide(probabilities: NDArray[Any], threshold: float | NDArray[Any] | None) -> NDArray[np.int64]:
    """Class indices ``(N,)`` for probabilities ``(N, classes)``: what a model is taken to say.

    Args:
        probabilities: of the classes, in their order.
        threshold: of two classes, the second is said where its probability is at least this, one for all or ``(N,)``;
            None for the likeliest class, the first of equals.
    """
    if threshold is None:
        likeliest: NDArray[np.int64] = probabilities.argmax(1)
        return likeliest
    assert probabilities.shape[1] == 2, "a threshold decides between two classes"  # noqa: S101 -- our own invariant
    said: NDArray[np.int64] = (probabilities[:, 1] >= threshold).astype(np.int64)
    return said


def confusion(
    targets: NDArray[Any], probabilities: NDArray[Any], *, threshold: float | NDArray[Any] | None = None
) -> NDArray[np.int64]:
    """``(classes, classes)`` counts; rows are true classes, columns those that `decide` says."""
    classes = probabilities.shape[1]
    said = decide(probabilities, threshold)
    return np.bincount(targets * classes + said, minlength=classes * classes).reshape(classes, classes)


def ranking(positive: NDArray[np.bool_], scores: NDArray[Any]) -> Ranking:
    """Count what lies at or above each distinct score.

    Args:
        positive: ``(N,)``.
        scores: ``(N,)``, larger for what is likelier positive.
    """
    order = np.argsort(scores)[::-1]
    descending = scores[order]
    ends = np.append(np.flatnonzero(descending[1:] != descending[:-1]), len(order) - 1)
    hits = positive[order].cumsum()[ends]
    alarms = ends + 1 - hits
    return Ranking(descending[ends], hits, alarms, int(hits[-1]), int(alarms[-1]))


def one_against_rest(
    targets: NDArray[Any], probabilities: NDArray[Any], which: int
) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Who is of class `which`, ``(N,)``, and how likely that is said to be, ``(N,)``."""
    return targets == which, probabilities[:, which]


def bin_numbers(probabilities: NDArray[Any], bins: int) -> NDArray[np.int64]:
    """Which of `bins` equal widths between 0 and 1 each probability lies in; the right edge belongs to a bin."""
    return np.linspace(0, 1, bins + 1)[1:-1].searchsorted(probabilities)


def _rankings(targets: NDArray[Any], probabilities: NDArray[Any]) -> list[Ranking]:
    """Of the positive class, or of each class against the rest for three and more."""
    classes = probabilities.shape[1]
    chosen = [1] if classes == 2 else range(classes)
    return [ranking(*one_against_rest(targets, probabilities, which)) for which in chosen]


def _one_class_only(rank: Ranking) -> bool:
    return not (rank.positives and rank.negatives)


def _auroc(rank: Ranking) -> float:
    """The area by trapezoids: the share of pairs in the right order, ties counted half (Hanley and McNeil 1982)."""
    if _one_class_only(rank):
        return math.nan
    before = np.concatenate([[0], rank.hits[:-1]])
    twice = (np.diff(rank.alarms, prepend=0) * (rank.hits + before)).sum()
    return float(twice / (2 * rank.positives * rank.negatives))


def _average_precision(rank: Ranking) -> float:
    if _one_class_only(rank):
        return math.nan
    precision = rank.hits / (rank.hits + rank.alarms)
    return float((np.diff(rank.hits, prepend=0) * precision).sum() / rank.positives)


def _sensitivity_at_specificity(rank: Ranking, at_least: float) -> float:
    if _one_class_only(rank):
        return math.nan
    allowed = rank.hits[rank.alarms <= (1 - at_least) * rank.negatives + _TOLERANCE]
    return float(allowed.max(initial=0) / rank.positives)


def _specificity_at_sensitivity(rank: Ranking, at_least: float) -> float:
    if _one_class_only(rank):
        return math.nan
    allowed = rank.alarms[rank.hits >= at_least * rank.positives - _TOLERANCE]
    return float(1 - allowed.min() / rank.negatives)


def _balanced_accuracy(matrix: NDArray[np.int64]) -> float:
    hits, truth = np.diag(matrix), matrix.sum(1)
    occurs = truth > 0
    return float((hits[occurs] / truth[occurs]).mean())


def _brier(targets: NDArray[Any], probabilities: NDArray[Any]) -> float:
    if probabilities.shape[1] == 2:
        return float(((probabilities[:, 1] - (targets == 1)) ** 2).mean())
    truth = np.eye(probabilities.shape[1])[targets]
    return float(((probabilities - truth) ** 2).sum(1).mean())


def _calibration_error(targets: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """The distance between what was said and what came true, in each bin, weighed by the bins' sizes."""
    if probabilities.shape[1] == 2:
        true, said = one_against_rest(targets, probabilities, 1)
    else:
        true, said = probabilities.argmax(1) == targets, probabilities.max(1)
    return float(np.abs(np.bincount(bin_numbers(said, _ECE_BINS), weights=true - said)).sum() / len(said))


# Groups


def by_group(
    groups: Sequence[str | None], targets: NDArray[Any], probabilities: NDArray[Any], score: GroupScore
) -> Grouped:
    """One answer a group, such as a patient.

    Args:
        groups: one a sample; a sample of unknown group (None) is one of its own.
        targets: ``(N,)`` class indices.
        probabilities: ``(N, classes)``.
        score: ``mean`` of the probabilities, or ``max`` for those of the sample in which the last class is likeliest.
    """
    members = tuple(_members(groups))
    decisive = np.array([rows[probabilities[rows, -1].argmax()] for rows in members], dtype=np.int64)
    return Grouped(
        names=tuple(groups[rows[0]] for rows in members),
        targets=np.array([targets[rows].max() for rows in members], dtype=np.int64),
        probabilities=probabilities[decisive] if score == "max" else _means(probabilities, members),
        members=members,
    )


def _means(probabilities: NDArray[Any], members: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    means = [probabilities[rows].mean(0, dtype=np.float64) for rows in members]
    return np.array(means).reshape(len(members), probabilities.shape[1])


def _members(groups: Sequence[str | None]) -> list[NDArray[np.int64]]:
    rows: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        rows.setdefault(f"group {group}" if group is not None else f"sample {index}", []).append(index)
    return [np.array(indices) for indices in rows.values()]


def _known(groups: Sequence[str | None]) -> bool:
    return any(group is not None for group in groups)


# Evaluation


def evaluate(
    metrics: Metrics,
    targets: NDArray[Any],
    probabilities: NDArray[Any],
    *,
    split: str,
    classes: Sequence[str],
    groups: Sequence[str | None],
    resamples: int,
    seed: int,
    group_score: GroupScore = "mean",
    threshold: float | None = None,
    facts: Sequence[Mapping[str, str | float]] = (),
    subgroups: Sequence[str] = (),
    primary: str = "",
    group_name: str = "group",
    thresholds: NDArray[Any] | None = None,
) -> Evaluation:
    """All figures of one split.

    Args:
        metrics: the task's.
        targets: ``(N,)`` class indices.
        probabilities: ``(N, classes)``.
        split: its name.
        classes: their names, in order.
        groups: one a sample; whole groups are drawn where they are known.
        resamples: of the bootstrap; 0 for no intervals.
        seed: of the bootstrap.
        group_score: how a group's samples make one answer.
        threshold: of two classes, the second is said where its probability is at least this.
        facts: one mapping a sample; nothing for no subgroups.
        subgroups: names of facts whose values get a row each.
        primary: the metric of the subgroups; the first one where none is named.
        group_name: what a group is, in the singular.
        thresholds: ``(N,)`` where samples were decided by thresholds of their own, those of one group alike.
    """
    line = threshold if thresholds is None else thresholds
    matrix = confusion(targets, probabilities, threshold=line)
    grouped = by_group(groups, targets, probabilities, group_score)
    group_line = threshold if thresholds is None else thresholds[[rows[0] for rows in grouped.members]]
    each = intervals(metrics, targets, probabilities, groups=groups, resamples=resamples, seed=seed)
    chosen = primary or next(iter(each))
    alike = len(np.unique(grouped.targets)) == 1 < len(np.unique(targets))
    several = _known(groups) and len(grouped.members) < len(targets) and not alike
    return Evaluation(
        split=split,
        samples=len(targets),
        metrics=each,
        per_class=tuple(_row(name, matrix, index) for index, name in enumerate(classes)),
        confusion=_plain(matrix),
        groups=len(grouped.members) if _known(groups) else 0,
        mixed_groups=sum(len(np.unique(targets[rows])) > 1 for rows in grouped.members),
        group_metrics=_group_intervals(metrics, grouped, resamples=resamples, seed=seed) if several else {},
        group_confusion=_plain(confusion(grouped.targets, grouped.probabilities, threshold=group_line))
        if several
        else (),
        threshold=threshold,
        at_threshold={} if alike else _at_threshold(grouped, group_line, resamples=resamples),
        primary=chosen,
        subgroups=_subgroups(
            metrics, targets, probabilities, groups=groups, facts=facts, names=subgroups,
            primary=chosen, resamples=min(resamples, _SUBGROUP_RESAMPLES), seed=seed,
        ),
        group_name=group_name, one_class=classes[grouped.targets[0]] if alike else "",
    )  # fmt: skip


def intervals(
    metrics: Metrics,
    targets: NDArray[Any],
    probabilities: NDArray[Any],
    *,
    groups: Sequence[str | None],
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    """Percentile bootstrap over groups, or over samples where no groups are known (Efron 1979)."""
    values = {name: float(value) for name, value in metrics(targets, probabilities).items()}
    members = _members(groups)
    if resamples == 0 or len(members) < 2:
        return {name: Interval(value, None, None) for name, value in values.items()}
    drawn: dict[str, list[float]] = {name: [] for name in values}
    for rows in _resampled(members, resamples, seed):
        for name, value in metrics(targets[rows], probabilities[rows]).items():
            drawn[name].append(value)
    return {name: _interval(value, drawn[name]) for name, value in values.items()}


def _group_intervals(metrics: Metrics, grouped: Grouped, *, resamples: int, seed: int) -> dict[str, Interval]:
    """The same seed draws the same groups as for the samples' figures."""
    alone = [None] * len(grouped.members)
    return intervals(metrics, grouped.targets, grouped.probabilities, groups=alone, resamples=resamples, seed=seed)


def _resampled(members: Sequence[NDArray[np.int64]], resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
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


def _at_threshold(grouped: Grouped, threshold: float | NDArray[Any] | None, *, resamples: int) -> dict[str, Interval]:
    if threshold is None:
        return {}
    (quiet, alarms), (missed, hits) = _plain(confusion(grouped.targets, grouped.probabilities, threshold=threshold))
    shares = {
        "sensitivity": (hits, hits + missed),
        "specificity": (quiet, quiet + alarms),
        "ppv": (hits, hits + alarms),
        "npv": (quiet, quiet + missed),
    }
    return {name: _share(part, whole, interval=resamples > 0) for name, (part, whole) in shares.items()}


def _share(part: int, whole: int, *, interval: bool) -> Interval:
    """A share of independent cases with its score interval (Wilson 1927).

    The bootstrap would give no width to 10 of 10. In plain numbers: judging a file shouldn't need scipy.
    """
    from statistics import NormalDist

    if not whole:
        return Interval(math.nan, None, None)
    if not interval:
        return Interval(part / whole, None, None)
    z2 = NormalDist().inv_cdf(0.975) ** 2
    middle = (part + z2 / 2) / (whole + z2)
    reach = math.sqrt(z2) / (whole + z2) * math.sqrt(part * (whole - part) / whole + z2 / 4)
    # of none and of all, the ends are exact
    return Interval(part / whole, middle - reach if part else 0.0, middle + reach if part < whole else 1.0)


def _plain(matrix: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(n) for n in row) for row in matrix)


def _row(name: str, matrix: NDArray[np.int64], index: int) -> ClassRow:
    hits, truth, said = int(matrix[index, index]), int(matrix[index].sum()), int(matrix[:, index].sum())
    return ClassRow(
        name=name,
        precision=hits / said
        if said
        else math.nan,  # a class that is never said, or has no samples: 0 would be a verdict
        recall=hits / truth if truth else math.nan,
        f1=2 * hits / (truth + said) if truth + said else math.nan,
        support=truth,
    )


# Subgroups


def _subgroups(
    metrics: Metrics,
    targets: NDArray[Any],
    probabilities: NDArray[Any],
    *,
    groups: Sequence[str | None],
    facts: Sequence[Mapping[str, str | float]],
    names: Sequence[str],
    primary: str,
    resamples: int,
    seed: int,
) -> tuple[Subgroup, ...]:
    if not facts:
        return ()

    def only(truth: NDArray[Any], said: NDArray[Any]) -> dict[str, float]:
        return {primary: metrics(truth, said)[primary]}

    def row(fact: str, value: str, rows: NDArray[np.int64]) -> Subgroup:
        truth, members = targets[rows], [groups[index] for index in rows]
        small = len(rows) < _FEWEST_IN_SUBGROUP or len(np.unique(truth)) < 2
        return Subgroup(
            fact=fact,
            value=value,
            samples=len(rows),
            groups=len(_members(members)) if _known(groups) else 0,
            positives=int((truth == probabilities.shape[1] - 1).sum()),
            metric=Interval(math.nan, None, None)
            if small
            else intervals(only, truth, probabilities[rows], groups=members, resamples=resamples, seed=seed)[primary],
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
        fact: its name. ``age``, in years, has bands of its own; other numbers stand for themselves, rounded to
            hundredths, where there are at most six of them, and in quarters of equal size otherwise.
        values: one a sample.

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
