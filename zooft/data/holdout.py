"""Which samples are held out: stratified, groups whole, and every class on every side wherever that can be.

scikit-learn's splits are used where they suffice. They don't check for classes that are missing on one side, which is
common with few groups; groups are then moved, and where no split has all classes, the best one found is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

_MOST_STEPS, _MOST_NEEDS = 5_000, 300
"""Steps of a search for a split that has all classes."""
_MOST_GROUPS_BALANCED, _MOST_MOVES, _MOST_COMPARED = 300, 100, 256
"""Groups that are moved to balance shares: beyond the largest ones a group is too small to matter."""
TRAIN, VAL = 0, 1
_Need = tuple[int, int]
"""A class and a part that must have it."""


def hold_out(
    targets: Rows, groups: Rows, *, grouped: bool, classes: int, fraction: float, seed: int
) -> tuple[Rows, Rows]:
    """Rows to train on and rows held out, the latter empty where every split leaves a class without training samples.

    Args:
        targets: ``(N,)``.
        groups: ``(N,)``, numbers.
        grouped: whether any group can have several samples.
        classes: how many there are.
        fraction: share of samples to hold out.
        seed: of the random split.

    Raises:
        ValueError: too few samples without groups.
    """
    chosen = _stratify(targets, groups, grouped=grouped, fraction=fraction, seed=seed)
    if chosen is not None and _both_have_all(targets, chosen[1], classes):
        return chosen
    if not grouped and (np.unique(targets, return_counts=True)[1] < 2).any():
        raise ValueError("a class of one sample")
    train, val = chosen or (np.arange(len(targets)), np.empty(0, np.int64))
    sides = np.full(len(targets), TRAIN)
    sides[val] = VAL
    found = _with_all(targets, groups, sides, shares=(1 - fraction, fraction), seed=seed)
    return _in_order(train, found == TRAIN), _in_order(val, found == VAL)


def fold(targets: Rows, groups: Rows, *, count: int, seed: int) -> list[Rows]:
    """Rows that each of `count` folds holds out.

    Args:
        targets: ``(N,)``.
        groups: ``(N,)``, numbers.
        count: how many folds.
        seed: of the random split.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # warns of classes with fewer samples than folds; checked by the caller
        made = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(targets, targets, groups)
        parts = [held for _, held in made]
    names = np.unique(targets)
    if all(len(np.unique(targets[part])) == len(names) for part in parts):
        return parts
    sides = np.empty(len(targets), np.int64)
    for number, part in enumerate(parts):
        sides[part] = number
    found = _with_all(targets, groups, sides, shares=(1 / count,) * count, seed=seed)
    return [np.flatnonzero(found == number) for number in range(count)]


def _stratify(targets: Rows, groups: Rows, *, grouped: bool, fraction: float, seed: int) -> tuple[Rows, Rows] | None:
    """scikit-learn's split; None where it refuses so few samples."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # warns of classes with fewer groups than folds; fixed below
            if not grouped:
                train, val = next(
                    StratifiedShuffleSplit(1, test_size=fraction, random_state=seed).split(targets, targets)
                )
                return train, val
            share = Fraction(fraction).limit_denominator(10) if fraction >= 0.1 else Fraction(1, round(1 / fraction))
            folds = StratifiedGroupKFold(max(2, share.denominator), shuffle=True, random_state=seed)
            parts = [held for _, held in folds.split(targets, targets, groups)]
            val = np.sort(np.concatenate(parts[: max(1, share.numerator)]))
            return np.setdiff1d(np.arange(len(targets)), val), val
    except ValueError:
        return None


def _both_have_all(targets: Rows, held: Rows, classes: int) -> bool:
    of_held = np.bincount(targets[held], minlength=classes)
    return bool(of_held.all() and (np.bincount(targets, minlength=classes) > of_held).all())


def _in_order(chosen: Rows, here: NDArray[np.bool_]) -> Rows:
    """Rows that are here: those that scikit-learn chose, in its order, then those that were added."""
    return np.concatenate([chosen[here[chosen]], np.setdiff1d(np.flatnonzero(here), chosen)])


# every class in every part


@dataclass(slots=True)
class _Choice:
    """Which part each group is in, and how many samples of each class that gives.

    Attributes:
        of_group: group to its classes and how many samples of each it has.
        groups: class to its groups.
        shares: of all samples, that each part should have.
        part: of each group.
        samples: of each class, in each part.
        having: groups of each class, in each part.
    """

    of_group: list[dict[int, int]]
    groups: list[list[int]]
    shares: Sequence[float]
    part: list[int]
    samples: list[list[int]]
    having: list[list[int]]

    @staticmethod
    def of(targets: Rows, groups: Rows, sides: Rows, shares: Sequence[float]) -> _Choice:
        names, first, numbers = np.unique(groups, return_index=True, return_inverse=True)
        labels, indices = np.unique(targets, return_inverse=True)
        pairs, counts = np.unique(np.stack([numbers.reshape(-1), indices.reshape(-1)]), axis=1, return_counts=True)
        of_group: list[dict[int, int]] = [{} for _ in names]
        of_class: list[list[int]] = [[] for _ in labels]
        for group, label, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
            of_group[group][label] = count
            of_class[label].append(group)
        choice = _Choice(of_group, of_class, shares, sides[first].tolist(), [], [])
        choice.count()
        return choice

    def count(self) -> None:
        """Count again, after `part` was set."""
        self.samples = [[0] * len(self.shares) for _ in self.groups]
        self.having = [[0] * len(self.shares) for _ in self.groups]
        for group, part in enumerate(self.part):
            for label, count in self.of_group[group].items():
                self.samples[label][part] += count
                self.having[label][part] += 1

    def move(self, group: int, part: int) -> None:
        """One group to another part."""
        before, self.part[group] = self.part[group], part
        for label, count in self.of_group[group].items():
            self.samples[label][before] -= count
            self.samples[label][part] += count
            self.having[label][before] -= 1
            self.having[label][part] += 1

    def may_leave(self, group: int, needs: set[_Need]) -> bool:
        """Whether its part meets all its needs without it."""
        part = self.part[group]
        return all((label, part) not in needs or self.having[label][part] > 1 for label in self.of_group[group])

    def cost(self, group: int, part: int) -> float:
        """The change by a move in the sum over classes and parts of squared deviations from the target share."""
        before, total = self.part[group], 0.0
        for label, count in self.of_group[group].items():
            of_class = sum(self.samples[label])
            moved = count / of_class
            here, there = (self.samples[label][p] / of_class - self.shares[p] for p in (before, part))
            total += 2 * moved * (moved + there - here)
        return total

    def missing(self, needs: Iterable[_Need]) -> list[_Need]:
        """Needs that aren't met."""
        return [(label, part) for label, part in needs if not self.having[label][part]]


def _with_all(targets: Rows, groups: Rows, sides: Rows, *, shares: Sequence[float], seed: int) -> Rows:
    """Parts ``(N,)`` like `sides`, with every class in every part if possible; the first part's needs come first."""
    choice, rng = _Choice.of(targets, groups, sides, shares), np.random.default_rng(seed)
    for members in choice.groups:
        rng.shuffle(members)
    labels, parts = range(len(choice.groups)), range(len(shares))
    # a class with a single group is in the first part only; one with fewer groups than parts is in the first parts
    needs = [(label, part) for part in parts for label in labels if len(choice.groups[label]) > part]
    met = set(needs)
    if not _meet_by_moves(choice, needs) and not _meet_by_search(choice, met):
        met -= set(choice.missing(needs))
        if len(needs) <= _MOST_NEEDS:
            met = {need for need in needs if need[1] == 0}
            for need in needs:
                if need not in met and _meet_by_search(choice, met | {need}):
                    met.add(need)
            _meet_by_search(choice, met)
    _balance(choice, met)
    return np.asarray(choice.part)[np.unique(groups, return_inverse=True)[1].reshape(-1)]


def _meet_by_moves(choice: _Choice, needs: Sequence[_Need]) -> bool:
    """Meet needs by moving one group after another, those of the first part always; whether all were met."""
    everything, first = set(needs), {need for need in needs if need[1] == 0}
    for label, part in choice.missing(needs):
        for met in (everything, first)[: 2 if part == 0 else 1]:
            able = [group for group in choice.groups[label][:_MOST_COMPARED] if choice.may_leave(group, met)]
            if able and not choice.having[label][part]:
                choice.move(min(able, key=lambda group: choice.cost(group, part)), part)
    return not choice.missing(needs)


def _meet_by_search(choice: _Choice, needs: set[_Need]) -> bool:
    """Meet all needs by backtracking over all splits, the present one first; False where none is found soon."""
    if len(needs) > _MOST_NEEDS:
        return False
    given: dict[int, int] = {}
    steps = iter(range(_MOST_STEPS))

    def solve() -> bool:
        open_needs = _open(choice, needs, given) if next(steps, None) is not None else None
        if not open_needs:
            return open_needs is not None
        free, part = min(open_needs, key=lambda need: (len(need[0]), need[1]))
        for group in sorted(free, key=lambda group: choice.part[group] != part):
            given[group] = part
            if solve():
                return True
            del given[group]
        return False

    if not solve():
        return False
    for group, part in given.items():
        choice.part[group] = part
    choice.count()
    return True


def _open(choice: _Choice, needs: set[_Need], given: Mapping[int, int]) -> list[tuple[list[int], int]] | None:
    """Needs that the assigned groups don't meet: the groups that still may, and the part; None where too few may."""
    found: list[tuple[list[int], int]] = []
    for label in sorted({label for label, _ in needs}):
        having = {given[group] for group in choice.groups[label] if group in given}
        unmet = [part for name, part in sorted(needs) if name == label and part not in having]
        free = [group for group in choice.groups[label] if group not in given]
        if len(free) < len(unmet):
            return None
        found += [(free, part) for part in unmet]
    return found


def _balance(choice: _Choice, needs: set[_Need]) -> None:
    """Move groups while that brings the parts' shares nearer to their targets and breaks no need."""
    if len(choice.part) > _MOST_GROUPS_BALANCED:
        return
    for _ in range(_MOST_MOVES):
        moves = [
            (choice.cost(group, part), group, part)
            for group, now in enumerate(choice.part)
            if choice.may_leave(group, needs)
            for part in range(len(choice.shares))
            if part != now
        ]
        best = min(moves, default=(0.0, 0, 0))
        if best[0] >= -1e-9:
            return
        choice.move(best[1], best[2])
