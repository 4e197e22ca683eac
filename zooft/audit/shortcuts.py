"""Labels that can be predicted without the image: from a file's format, a scanner's maker, a tag.

Each fact predicts the category of samples in groups it wasn't fitted on; its AUROC is what a model could reach by the
fact's traces in the image instead of the subject.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.audit.findings import MOST_SHOWN, FactRow, Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.audit.targets import Targets
    from zooft.contracts import Computing, Sample

TELLING = 0.65
"""AUROC from which there is a warning, where its interval excludes 0.5."""
NOT_STATED = "not stated"
TOGETHER = "all facts together"
_BANDS = 8
"""Of a number's values."""
_FOLDS, _REPEATS = 5, 3
_RESAMPLES, _AT_A_TIME = 200, 67
_MOST_SAMPLES = 20_000
_LEAST_OF_A_VALUE = 10
_CHANCE = 0.05
"""For the hypothesis that a value by chance has one category only; divided by the number of values (Bonferroni)."""


def find(
    samples: Sequence[Sample], targets: Targets, *, seed: int, computing: Computing
) -> tuple[tuple[FactRow, ...], list[Finding]]:
    """A row for each fact, and warnings about those that predict the category too well.

    Args:
        samples: all of them; at most 20,000, drawn at random, are used.
        targets: theirs; without categories, such as of numbers, nothing is searched.
        seed: of folds and resamples.
        computing: for progress.
    """
    if not targets.categories:
        return (), []
    rows_drawn = _draw(len(samples), seed)
    drawn, own = [samples[row] for row in rows_drawn.tolist()], targets.numbers[rows_drawn]
    columns = {name: [_value(s.facts.get(name)) for s in drawn] for name in sorted({n for s in drawn for n in s.facts})}
    varied = {name: _categories(column) for name, column in columns.items() if len(set(column)) > 1}
    trial = _trial(drawn, own, len(targets.categories), seed) if varied else None
    advance = computing(f"predicting the {targets.name} from facts alone", len(columns) + 1)
    rows = []
    for name, column in columns.items():
        rows.append(_row(name, column, _predict(trial, [varied[name]]) if trial and name in varied else _UNKNOWN))
        advance(1)
    if trial and len(varied) > 1:
        rows.append(_together(len(drawn), _predict(trial, list(varied.values()))))
    advance(1)
    quiet = [row.name for row in rows if row.kind == "category" and row.name in varied and not row.shortcut]
    pure = [
        finding for name in quiet for finding in _one_category_only(name, varied[name], drawn, own, targets.categories)
    ]
    return tuple(rows), [*_warnings(rows, targets.name), *pure, *_hints(rows, targets.name)]


def _hints(rows: Sequence[FactRow], label: str) -> list[Finding]:
    """A note on facts that predict a little, too little for a warning: of many facts, one in twenty does by chance."""
    faint = [row for row in rows if not row.shortcut and row.name != TOGETHER and row.low is not None and row.low > 0.5]
    if not faint:
        return []
    listed = ", ".join(f"{row.name} {row.auroc:.2f}" for row in sorted(faint, key=lambda row: -(row.auroc or 0)))
    return [
        Finding(
            kind="hint",
            severity="info",
            text=f"facts that predict the {label} a little without the image, by AUROC: {listed}",
        )
    ]


def notes(rows: Sequence[FactRow], targets: Targets, samples: int) -> list[str]:
    """Notes on what wasn't or couldn't be tested."""
    found = []
    if not targets.categories:
        found.append(
            f"shortcuts are searched where each sample has one of several categories, which isn't so of {targets.name}"
        )
    elif not rows:
        found.append("the task states no facts, so shortcuts weren't searched")
    blind = [row.name for row in rows if row.auroc is None and row.values > 1]
    if blind:
        found.append(f"too few groups of a {targets.name} to test {', '.join(blind)}")
    if rows and samples > _MOST_SAMPLES:
        found.append(f"shortcuts were searched in {_MOST_SAMPLES:,} of {samples:,} samples, drawn at random")
    return found


# facts as columns


def _draw(samples: int, seed: int) -> NDArray[np.int64]:
    """Positions of the samples that are used."""
    if samples <= _MOST_SAMPLES:
        return np.arange(samples)
    return np.sort(np.random.default_rng(seed).choice(samples, _MOST_SAMPLES, replace=False))


def _value(value: Any) -> str | float:
    """A text or a number; missing, blank or NaN is a value of its own, since that alone may give the category away."""
    if value is None or value == "" or value != value:
        return NOT_STATED
    return value if isinstance(value, str) else float(value)


def _is_number(column: Sequence[str | float]) -> bool:
    return all(isinstance(value, float) or value == NOT_STATED for value in column)


def _categories(column: Sequence[str | float]) -> list[str]:
    """Texts as they are, numbers in at most eight bands of about equal size."""
    if not _is_number(column):
        return [str(value) for value in column]
    numbers = np.array([value for value in column if isinstance(value, float)])
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, _BANDS + 1)[1:-1])) if len(numbers) else numbers
    if len(np.unique(numbers)) <= _BANDS:
        edges = np.unique(numbers)
    return [value if isinstance(value, str) else str(np.searchsorted(edges, value, side="right")) for value in column]


def _row(name: str, column: Sequence[str | float], found: _Predictive) -> FactRow:
    return FactRow(
        name=name,
        kind="number" if _is_number(column) else "category",
        values=len(set(column)),
        stated=sum(value != NOT_STATED for value in column),
        auroc=found.auroc,
        low=found.low,
        high=found.high,
        shortcut=found.is_predictive,
    )


def _together(samples: int, found: _Predictive) -> FactRow:
    return FactRow(
        name=TOGETHER,
        kind="all",
        values=0,
        stated=samples,
        auroc=found.auroc,
        low=found.low,
        high=found.high,
        shortcut=found.is_predictive,
    )


# prediction from facts alone


@dataclass(frozen=True, slots=True)
class _Predictive:
    """AUROC and the ends of its interval."""

    auroc: float | None
    low: float | None
    high: float | None

    @property
    def is_predictive(self) -> bool:
        """Whether it is high enough for a warning."""
        return self.auroc is not None and self.low is not None and self.auroc >= TELLING and self.low > 0.5


_UNKNOWN = _Predictive(None, None, None)


@dataclass(frozen=True, slots=True)
class _Trial:
    """The samples and folds that every fact is tested on.

    Attributes:
        rows: of the samples whose category enough groups have.
        targets: ``(N,)`` from 0, of these.
        folds: ``(N, repeats)`` from 0; a group is in one of them.
        groups: ``(N,)`` from 0.
        weights: ``(groups, 1 + resamples)``, how often a group is drawn; once in the first column.
    """

    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    folds: NDArray[np.int64]
    groups: NDArray[np.int64]
    weights: NDArray[np.int64]


def _trial(samples: Sequence[Sample], targets: NDArray[np.int64], categories: int, seed: int) -> _Trial | None:
    """None where fewer than two categories have five groups."""
    groups = np.unique([f"{known} {name}" for known, name in map(_name, samples)], return_inverse=True)[1]
    enough = [k for k in range(categories) if len(np.unique(groups[targets == k])) >= _FOLDS]
    if len(enough) < 2:
        return None
    rows = np.flatnonzero(np.isin(targets, enough))
    classes, numbered = np.searchsorted(enough, targets[rows]), np.unique(groups[rows], return_inverse=True)[1]
    number = int(numbered.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), _RESAMPLES)
    return _Trial(
        rows=rows,
        targets=classes,
        folds=np.stack([_folds(classes, numbered, (seed + repeat) % 2**32) for repeat in range(_REPEATS)], axis=1),
        groups=numbered,
        weights=np.concatenate([np.ones((1, number), dtype=np.int64), drawn]).T,
    )


def _folds(targets: NDArray[np.int64], groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if len(np.unique(groups)) == len(
        groups
    ):  # the same folds where groups are single samples, in a moment instead of minutes
        parts = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(targets, targets)
    else:
        parts = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed).split(targets, targets, groups)
    folds = np.zeros(len(targets), dtype=np.int64)
    for fold, (_, held) in enumerate(parts):
        folds[held] = fold
    return folds


def _predict(trial: _Trial, columns: Sequence[Sequence[str]]) -> _Predictive:
    """How well columns predict the category; the interval is a percentile bootstrap over groups (Efron 1979)."""
    table = np.stack([np.unique(column, return_inverse=True)[1][trial.rows] for column in columns], axis=1)
    scores = _out_of_fold(table, trial.targets, trial.folds)
    drawn = np.concatenate(
        [
            aurocs(trial.targets, trial.folds, scores, trial.groups, trial.weights[:, start : start + _AT_A_TIME])
            for start in range(0, trial.weights.shape[1], _AT_A_TIME)
        ]
    )
    low, high = np.nanpercentile(drawn[1:], [2.5, 97.5])
    return _Predictive(float(drawn[0]), float(low), float(high))


def _out_of_fold(table: NDArray[np.int64], targets: NDArray[np.int64], folds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probabilities ``(N, classes, repeats)``, each fitted on the other folds.

    By naive Bayes with add-one smoothing: for one fact, how often each class has the value.
    """
    from sklearn.naive_bayes import CategoricalNB

    scores = np.zeros((len(targets), int(targets.max()) + 1, folds.shape[1]))
    for repeat, fold in np.ndindex(folds.shape[1], _FOLDS):
        held = folds[:, repeat] == fold
        model = CategoricalNB(fit_prior=False, min_categories=table.max(0) + 1).fit(table[~held], targets[~held])
        scores[np.ix_(held, model.classes_, [repeat])] = model.predict_proba(table[held])[:, :, None]
    return scores


def aurocs(
    targets: NDArray[np.int64],
    folds: NDArray[np.int64],
    scores: NDArray[np.float64],
    groups: NDArray[np.int64],
    weights: NDArray[np.int64],
) -> NDArray[np.float64]:
    """AUROC, one class against the rest, averaged over the classes that occur: one for each column of weights.

    The Mann-Whitney statistic (Hanley and McNeil 1982), over pairs of one fold only: a class that is rarer in one fold
    is likelier by the others' fit, which would push an uninformative fact below 0.5.

    Args:
        targets: ``(N,)`` class indices.
        folds: ``(N, repeats)`` from 0.
        scores: ``(N, classes, repeats)`` within 0..1.
        groups: ``(N,)`` from 0.
        weights: ``(groups, R)``.

    Returns:
        ``(R,)``; NaN where no two classes occur in one fold.
    """
    classes, repeats = scores.shape[1:]
    total, occurring = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for k in range(1 if classes == 2 else 0, classes):  # both of two classes have the same AUROC
        above, pairs = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
        for repeat in range(repeats):
            won, met = _pairs(targets == k, folds[:, repeat], scores[:, k, repeat], groups, weights)
            above, pairs = above + won, pairs + met
        total += np.divide(above, pairs, out=np.zeros_like(above), where=pairs > 0)
        occurring += pairs > 0
    return np.divide(total, occurring, out=np.full_like(total, np.nan), where=occurring > 0)


def _pairs(
    positive: NDArray[np.bool_],
    fold: NDArray[np.int64],
    score: NDArray[np.float64],
    groups: NDArray[np.int64],
    weights: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pairs of a positive and a negative in one fold: those that the positive wins, ties as a half, and all."""
    from scipy.sparse import csr_array

    levels, level = np.unique(2 * fold + score, return_inverse=True)
    starts = np.searchsorted(levels, 2 * np.unique(fold))

    def draw(members: NDArray[np.bool_]) -> NDArray[np.float64]:
        ones, shape = np.ones(int(members.sum())), (len(levels), len(weights))
        counts: NDArray[np.float64] = csr_array((ones, (level[members], groups[members])), shape=shape) @ weights
        return counts

    positives, negatives = draw(positive), draw(~positive)
    before = np.cumsum(negatives, axis=0) - negatives
    sizes = np.diff([*starts, len(levels)])
    below = before - np.repeat(before[starts], sizes, axis=0)
    won = (positives * (below + negatives / 2)).sum(0)
    return won, (np.add.reduceat(positives, starts) * np.add.reduceat(negatives, starts)).sum(0)


# findings


def _warnings(rows: Sequence[FactRow], label: str) -> Iterator[Finding]:
    predictive = [row for row in rows if row.shortcut]
    single = [row for row in predictive if row.name != TOGETHER]
    for row in single:
        yield Finding(
            kind="shortcut",
            severity="warning",
            auroc=row.auroc,
            text=(
                f"{row.name} alone predicts the {label} with AUROC {_figures(row)}, without the image: a model may "
                f"learn its traces; collect each {label} with all its values, or evaluate within each value"
            ),
        )
    if predictive and not single:
        alone = sorted((row for row in rows if row.auroc is not None and row.name != TOGETHER), key=_weaker)[:3]
        best = ", ".join(f"{row.name} {row.auroc:.2f}" for row in alone)
        yield Finding(
            kind="shortcut",
            severity="warning",
            auroc=predictive[0].auroc,
            text=(
                f"all facts together predict the {label} with AUROC {_figures(predictive[0])}, without the image, "
                f"though none does alone (most: {best}): a model may learn their traces; check its figures within "
                "each value"
            ),
        )


def _weaker(row: FactRow) -> float:
    return -(row.auroc or 0.0)


def _figures(row: FactRow) -> str:
    return f"{row.auroc:.2f} ({row.low:.2f} to {row.high:.2f})"


def _one_category_only(
    name: str, column: Sequence[str], samples: Sequence[Sample], targets: NDArray[np.int64], categories: Sequence[str]
) -> Iterator[Finding]:
    """Values that only one category has, and too many groups of it for chance.

    A rare tag that gives one category away hardly moves the AUROC over all samples.
    """
    by_value: defaultdict[str, list[int]] = defaultdict(list)
    for row, value in enumerate(column):
        by_value[value].append(row)
    for value, rows in sorted(by_value.items()):
        which = int(targets[rows[0]])
        if len(rows) < _LEAST_OF_A_VALUE or which < 0 or (targets[rows] != which).any():
            continue
        members = [samples[row] for row in rows]
        share = _share_of_groups(samples, targets == which)
        if share ** len(_names(members)) <= _CHANCE / len(by_value):
            yield Finding(
                kind="shortcut",
                severity="warning",
                text=f"{name} {value}: all {len(members)} samples are {categories[which]}; a model may learn "
                "the value's traces; collect other samples with it too, or leave it out",
                samples=tuple(member.id for member in members[:MOST_SHOWN]),
                count=len(members),
            )


def _name(sample: Sample) -> tuple[str, str]:
    return ("sample", sample.id) if sample.group is None else ("group", sample.group)


def _names(samples: Sequence[Sample]) -> set[tuple[str, str]]:
    return {_name(sample) for sample in samples}


def _share_of_groups(samples: Sequence[Sample], among: NDArray[np.bool_]) -> float:
    own = [sample for sample, one in zip(samples, among.tolist(), strict=True) if one]
    return len(_names(own)) / len(_names(samples))
