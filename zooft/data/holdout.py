"""Which samples are held out: stratified, groups whole, and every class on every side wherever that can be.

scikit-learn's choices are taken where they do. They don't look for classes that are nowhere on one side, which is
usual among few groups; these are then moved, and where no choice has all classes, as many as can be found.
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
"""Of a search for a choice that has all classes. Data that needs more is a puzzle."""
_MOST_GROUPS_BALANCED, _MOST_MOVES, _MOST_COMPARED = 300, 100, 256
"""Beyond these a group is too small to matter for shares."""
TRAIN, VAL = 0, 1
_Need = tuple[int, int]
"""A class and a part that must have it."""


def hold_out(
    targets: Rows, groups: Rows, *, grouped: bool, classes: int, fraction: float, seed: int
) -> tuple[Rows, Rows]:
    """Rows to learn from and rows held out, the latter empty where every choice leaves a class nothing to learn from.

    Args:
        targets: ``(N,)``.
        groups: ``(N,)``, numbers.
        grouped: whether any group can have several samples.
        classes: how many there are.
        fraction: share of samples to hold out.
        seed: of the choice.

    Raises:
        ValueError: too few samples without groups.
    """
    chosen = _stratified(targets, groups, grouped=grouped, fraction=fraction, seed=seed)
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
        seed: of the choice.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer samples than folds; checked by the caller
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


def _stratified(targets: Rows, groups: Rows, *, grouped: bool, fraction: float, seed: int) -> tuple[Rows, Rows] | None:
    """scikit-learn's choice; None where it refuses so few samples."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of classes with fewer groups than folds; mended below
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
    """Rows that are here: those that were chosen in that order, then what was added."""
    return np.concatenate([chosen[here[chosen]], np.setdiff1d(np.flatnonzero(here), chosen)])


# every class in every part


@dataclass(slots=True)
class _Choice:
    """Which part each group is in, and what that makes of the classes.

    Attributes:
        of_group: group to its classes and how many samples of each it has.
        groups: class to its groups.
        shares: of all samples, that each part ought to have.
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
        """Anew, after parts were given."""
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
        """Whether its part then still has what it needs."""
        part = self.part[group]
        return all((label, part) not in needs or self.having[label][part] > 1 for label in self.of_group[group])

    def cost(self, group: int, part: int) -> float:
        """What a move changes in the sum of squares of each class's share in each part, less what it ought to be."""
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
    """Parts ``(N,)`` like `sides`, with every class in every part if that can be; the first part's need comes first."""
    choice, rng = _Choice.of(targets, groups, sides, shares), np.random.default_rng(seed)
    for members in choice.groups:
        rng.shuffle(members)
    labels, parts = range(len(choice.groups)), range(len(shares))
    # of a class with one group only the first part can be sure; of one with fewer groups than parts, the first ones
    needs = [(label, part) for part in parts for label in labels if len(choice.groups[label]) > part]
    met = set(needs)
    if not _moved(choice, needs) and not _searched(choice, met):
        met -= set(choice.missing(needs))
        if len(needs) <= _MOST_NEEDS:
            met = {need for need in needs if need[1] == 0}
            for need in needs:
                if need not in met and _searched(choice, met | {need}):
                    met.add(need)
            _searched(choice, met)
    _balance(choice, met)
    return np.asarray(choice.part)[np.unique(groups, return_inverse=True)[1].reshape(-1)]


def _moved(choice: _Choice, needs: Sequence[_Need]) -> bool:
    """Meet needs by moving one group after the other; whether that met all of them. The first part's it always meets."""
    everything, first = set(needs), {need for need in needs if need[1] == 0}
    for label, part in choice.missing(needs):
        for kept in (everything, first)[: 2 if part == 0 else 1]:
            able = [group for group in choice.groups[label][:_MOST_COMPARED] if choice.may_leave(group, kept)]
            if able and not choice.having[label][part]:
                choice.move(min(able, key=lambda group: choice.cost(group, part)), part)
    return not choice.missing(needs)


def _searched(choice: _Choice, needs: set[_Need]) -> bool:
    """Meet all needs by trying every choice, the present one first; False where none does, or none was found soon."""
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
    """Needs that the groups given so far don't meet: who may still, and for which part; None where too few may."""
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
    """Bring shares nearer to what they ought to be, as long as one group's move does and takes nothing needed away."""
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
