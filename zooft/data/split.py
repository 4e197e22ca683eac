"""Which samples are trained on, and which are held out.

Owns using the data's own split, making one that is stratified and keeps groups whole, and refusing one that leaks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zooft.contracts.plurals import pluralize
from zooft.contracts.words import list_some
from zooft.data import holdout
from zooft.errors import DataError
from zooft.storage.sequences import pick

if TYPE_CHECKING:
    from zooft.contracts import Sample, SplitName, Strata

_Parts = dict[str, NDArray[np.int64]]
"""Rows of samples by the split's name."""
_ORDER: tuple[SplitName, ...] = ("train", "val", "test")
_NONE = np.empty(0, np.int64)
_NAMED = 8
"""Classes that a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Samples by purpose; no group in two of them.

    Attributes:
        train: to train on.
        val: to choose the best epoch by.
        test: to report on, empty where the data has none.
        folds: of cross-validation: training and held-out samples; `train` then has all of them, and `val` none.
        notes: on how the split was made, for the user.
        names: of every sample that was split, in order, the name of its part; empty where nothing was split.
    """

    train: Sequence[Sample]
    val: Sequence[Sample]
    test: Sequence[Sample]
    notes: tuple[str, ...]
    names: Sequence[str] = field(default=(), compare=False, repr=False)
    folds: tuple[Fold, ...] = ()

    def by_name(self) -> dict[str, Sequence[Sample]]:
        """Samples by the split's name."""
        return {"train": self.train, "val": self.val, "test": self.test}


@dataclass(frozen=True, slots=True)
class Fold:
    """One part of a cross-validation."""

    train: Sequence[Sample]
    held_out: Sequence[Sample]


def split(
    samples: Sequence[Sample],
    strata: Strata,
    *,
    fraction: float,
    seed: int,
    folds: int | None = None,
    given: str = "the data's own split",
) -> Splits:
    """Use the data's own split, or hold out a validation share, or make folds for cross-validation.

    Args:
        samples: all of them.
        strata: what is distributed evenly, such as classes.
        fraction: share of samples held out where the data has no validation split.
        seed: of the random choice.
        folds: their number, made of all samples but the data's own test split.
        given: what a split that samples have is, in words.

    Raises:
        DataError: a group on both sides, a class without training samples, too few samples to split.
    """
    known = _Known.of(samples, strata)
    parts, notes = _own_split(samples, given)
    if folds is not None:
        return _cross_validation(parts, notes, known, folds=folds, seed=seed)
    own = bool(len(parts["val"]))
    if not own:
        parts["train"], parts["val"] = _hold_out(parts["train"], known, fraction=fraction, seed=seed)
        notes.append(f"{len(parts['val'])} samples were held out for validation, stratified, with seed {seed}")
    notes += _about_groups(samples)
    _refuse_leaks(parts, known)
    _refuse_unlearnable(parts, known)
    notes += _about_absent(parts, known, given={"val": own, "test": True})
    if not len(parts["test"]):
        notes.append("the best epoch is chosen on the validation samples, so their figures are a little optimistic")
    return _splits(parts, known, notes)


@dataclass(frozen=True, slots=True)
class _Known:
    """Samples, and of each the class and a number for its group.

    Attributes:
        samples: all of them.
        targets: ``(N,)``.
        groups: ``(N,)``, numbers; each sample without one counts as one.
        grouped: ``(N,)``, whether a sample has one.
        classes: names of the strata.
        needed: whether each must have training samples.
    """

    samples: Sequence[Sample]
    targets: NDArray[np.int64]
    groups: NDArray[np.int64]
    grouped: NDArray[np.bool_]
    classes: Sequence[str]
    needed: bool = True

    @staticmethod
    def of(samples: Sequence[Sample], strata: Strata) -> _Known:
        classes: Sequence[str] = strata.names
        needed = strata.needed
        targets = np.fromiter(strata.numbers, np.int64)
        if not needed:
            targets, classes = _without_single_samples(targets, classes)
        grouped = np.fromiter((sample.group is not None for sample in samples), np.bool_)
        if not grouped.any():
            return _Known(samples, targets, np.arange(len(targets)), grouped, classes, needed)
        numbers = {name: number for number, name in enumerate(sorted({_group(sample) for sample in samples}))}
        return _Known(
            samples, targets, np.fromiter((numbers[_group(s)] for s in samples), np.int64), grouped, classes, needed
        )

    def in_order(self) -> NDArray[np.int64]:
        """Numbers of groups in the order of their names, so that folds don't depend on the order of the samples."""
        if self.grouped.any():
            return self.groups
        ids, ranks = [sample.id for sample in self.samples], np.empty(len(self.samples), np.int64)
        ranks[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
        return ranks


def _without_single_samples(strata: NDArray[np.int64], names: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Strata without empty ones, each with a single sample merged with a neighbour, since it can't be on both sides."""
    merged: list[list[int]] = []
    sizes = np.bincount(strata, minlength=len(names))
    for index in np.flatnonzero(sizes):
        alone = merged and (sizes[index] < 2 or sizes[merged[-1]].sum() < 2)
        if alone:
            merged[-1].append(int(index))
        else:
            merged.append([int(index)])
    numbers = np.zeros(len(names), np.int64)
    for number, members in enumerate(merged):
        numbers[members] = number
    return numbers[strata], [" or ".join(names[index] for index in members) for members in merged]


def _splits(parts: _Parts, known: _Known, notes: Sequence[str], folds: Sequence[Fold] = ()) -> Splits:
    names = np.full(len(known.samples), "train", object)
    names[parts["val"]], names[parts["test"]] = "val", "test"
    of = {name: pick(known.samples, rows) for name, rows in parts.items()}
    return Splits(
        train=of["train"], val=of["val"], test=of["test"], notes=tuple(notes), folds=tuple(folds), names=names.tolist()
    )


def _cross_validation(parts: _Parts, notes: list[str], known: _Known, *, folds: int, seed: int) -> Splits:
    everyone = np.concatenate([parts["train"], parts["val"]])
    together = {"train": everyone, "val": everyone[:0], "test": parts["test"]}
    _refuse_leaks(together, known)
    made, absent = _folds(everyone, known, count=folds, seed=seed)
    notes = [*notes, f"{folds} stratified folds with seed {seed}", *absent, *_about_groups(known.samples)]
    return _splits(together, known, notes, made)


def _folds(everyone: NDArray[np.int64], known: _Known, *, count: int, seed: int) -> tuple[list[Fold], list[str]]:
    targets, groups = known.targets[everyone], known.in_order()[everyone]
    for index, name in enumerate(known.classes if known.needed else ()):
        having = len(np.unique(groups[targets == index]))
        if having < count:
            raise DataError(
                f"class {name} has samples of {pluralize(int(having), 'group')}, too few for {count} folds; "
                f"use --folds {having} or less, or add data"
                if having >= 2
                else (
                    f"class {name} has samples of {pluralize(int(having), 'group')}"
                    ", too few for cross-validation; add data"
                )
            )
    parts = holdout.fold(targets, groups, count=count, seed=seed)
    rest = [np.setdiff1d(np.arange(len(everyone)), held_out) for held_out in parts]
    for train, held_out in zip(rest, parts, strict=True):
        _refuse_unlearnable({"train": everyone[train], "val": everyone[held_out]}, known)
    made = [
        Fold(pick(known.samples, everyone[train]), pick(known.samples, everyone[held_out]))
        for train, held_out in zip(rest, parts, strict=True)
    ]
    return made, [
        f"warning: fold {number} holds out no samples of class "
        f"{list_some([known.classes[label] for label in absent], _NAMED)}, "
        "since groups aren't torn"
        for number, held_out in enumerate(parts, 1)
        if (absent := _absent(everyone[held_out], known))
    ]


def _own_split(samples: Sequence[Sample], given: str) -> tuple[_Parts, list[str]]:
    numbers = np.fromiter((-1 if s.split is None else _ORDER.index(s.split) for s in samples), np.int8)
    unnamed = int((numbers < 0).sum())
    if unnamed == len(numbers):
        return {"train": np.arange(unnamed), "val": _NONE, "test": _NONE}, []
    if unnamed:
        raise DataError(
            f"{unnamed} of {len(samples)} samples have no split while the others do; "
            "give every sample one of train, val and test, or none"
        )
    parts: _Parts = {name: np.flatnonzero(numbers == number) for number, name in enumerate(_ORDER)}
    if not len(parts["train"]):
        having = " and ".join(f"{len(parts[name])} of {name}" for name in _ORDER if len(parts[name]))
        raise DataError(
            f"the data's own split has no training samples, only {having}; name the part to train on 'train', or "
            "name no split"
        )
    if not len(parts["val"]):
        return parts, [f"{given} is used, which has no validation samples"]
    return parts, [f"{given} is used"]


def _hold_out(
    everyone: NDArray[np.int64], known: _Known, *, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    targets, groups = known.targets[everyone], known.groups[everyone]
    grouped = bool(known.grouped[everyone].any())
    try:
        train, val = holdout.hold_out(
            targets, groups, grouped=grouped, classes=len(known.classes), fraction=fraction, seed=seed
        )
    except ValueError as error:
        alone = [name for index, name in enumerate(known.classes) if (targets == index).sum() == 1]
        raise DataError(
            f"{pluralize(len(everyone), 'sample')}"
            f" in classes of {_count_classes(targets, known.classes)} are too few to hold out "
            f"{fraction:.0%} for validation; add samples{f' of {list_some(alone, _NAMED)}' if alone else ''}, "
            "or give a split of your own"
        ) from error
    if not len(val):
        raise DataError(
            f"{pluralize(len(everyone), 'sample')}"
            f" in {pluralize(len(np.unique(groups)), 'group')} are too few to hold out {fraction:.0%} for "
            f"validation: {'all lie in one' if len(np.unique(groups)) == 1 else 'each class lies in one'}, and a group "
            "isn't torn; add groups, or name what the samples of one subject have in common more finely"
        )
    return everyone[train], everyone[val]


def _about_absent(parts: _Parts, known: _Known, *, given: Mapping[str, bool]) -> list[str]:
    """Warnings about classes that can't be evaluated: figures don't show that they are missing."""
    notes = []
    for name, word in (("val", "validation"), ("test", "test")):
        absent = _absent(parts[name], known) if len(parts[name]) else []
        if not absent:
            continue
        why = f"the data's own split has none there; move some there, or leave {name} out of the split"
        if not given[name]:
            alone = {label for label in absent if len(np.unique(known.groups[known.targets == label])) == 1}
            why = "all its samples are in one group" if len(alone) == len(absent) else "its groups can't be divided"
            why += " and are needed for training; add groups of it"
        names = [known.classes[label] for label in absent]
        notes.append(
            f"warning: no {word} samples of class {list_some(names, _NAMED)}, so no figure shows how well it is "
            f"predicted: {why}"
        )
    return notes


def _absent(rows: NDArray[np.int64], known: _Known) -> list[int]:
    """Strata that none of these rows has, though each should be on every side."""
    if not known.needed:
        return []
    return np.flatnonzero(np.bincount(known.targets[rows], minlength=len(known.classes)) == 0).tolist()


def _about_groups(samples: Sequence[Sample]) -> list[str]:
    named = {sample.group for sample in samples if sample.group is not None}
    if not named:
        return [
            "no groups are known: if several samples show one subject (a patient, a part, a place), figures on "
            "held-out samples are too good; name the subject in the data's group column"
        ]
    alone = sum(sample.group is None for sample in samples)
    notes = [f"{len(named)} groups, each on one side of the split"]
    return [*notes, f"{alone} samples name no group and count as one each"] if alone else notes


def _group(sample: Sample) -> str:
    return f"group {sample.group}" if sample.group is not None else f"sample {sample.id}"


def _refuse_leaks(parts: _Parts, known: _Known) -> None:
    sides = [np.unique(known.groups[rows]) for rows in parts.values()]
    torn = int((np.unique(np.concatenate(sides), return_counts=True)[1] > 1).sum())
    if torn:
        raise DataError(
            f"{pluralize(torn, 'group is', 'groups are')}"
            " on both sides of the given split, so its figures would be too good; "
            "move each group to one side, or leave the split out and let zooft make one"
        )


def _refuse_unlearnable(parts: _Parts, known: _Known) -> None:
    targets = known.targets[parts["train"]]
    counts = np.bincount(targets, minlength=len(known.classes))
    empty = [label for label, count in zip(known.classes, counts, strict=False) if not count]
    if empty and known.needed:
        raise DataError(
            f"no training samples of class {', '.join(empty)}; remove the class or add samples "
            f"(training has {_count_classes(targets, known.classes)})"
        )
    if not len(parts["val"]):
        raise DataError("no validation samples; add some, or raise --val-fraction")


def _count_classes(targets: NDArray[np.int64], classes: Sequence[str]) -> str:
    return ", ".join(f"{label} {(targets == index).sum()}" for index, label in enumerate(classes))
