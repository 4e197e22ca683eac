"""Who trains and who judges.

Owns honouring a given split, making one that is stratified and keeps groups whole, and refusing one that leaks.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from zooft.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zooft.contracts import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Samples by purpose; no group in two of them.

    Attributes:
        train: to learn from.
        val: to choose the best epoch by.
        test: to report on, empty where the data has none.
        folds: of cross-validation: who learns and who is held out; `train` then has all of them, and `val` none.
        notes: what the run should say about how the split came to be.
    """

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    notes: tuple[str, ...]
    folds: tuple[Fold, ...] = ()

    def named(self) -> dict[str, tuple[Sample, ...]]:
        """Samples by the split's name."""
        return {"train": self.train, "val": self.val, "test": self.test}


@dataclass(frozen=True, slots=True)
class Fold:
    """One part of a cross-validation."""

    train: tuple[Sample, ...]
    held_out: tuple[Sample, ...]


def split(
    samples: Sequence[Sample], classes: Sequence[str], *, fraction: float, seed: int, folds: int | None = None
) -> Splits:
    """Use the data's own split, or hold out a validation share, or make folds for cross-validation.

    Args:
        samples: all of them.
        classes: their names, for messages.
        fraction: share of samples held out where the data has no validation split.
        seed: of the random choice.
        folds: how many, of all samples but those of the data's own test split.

    Raises:
        DataError: a group on both sides, a class that can't be learnt, too few samples to split.
    """
    parts, notes = _given(samples)
    if folds is not None:
        return _cross_validation(parts, notes, samples, classes, folds=folds, seed=seed)
    if not parts["val"]:
        parts["train"], parts["val"] = _hold_out(parts["train"], classes, fraction=fraction, seed=seed)
        notes.append(f"{len(parts['val'])} samples were held out for validation, stratified, with seed {seed}")
    notes += _about_groups(samples)
    _refuse_leaks(parts)
    _refuse_unlearnt(parts, classes)
    if not parts["test"]:
        notes.append("the best epoch is chosen on the validation samples, so their figures are a little optimistic")
    return Splits(train=tuple(parts["train"]), val=tuple(parts["val"]), test=tuple(parts["test"]), notes=tuple(notes))


def _cross_validation(
    parts: dict[str, list[Sample]],
    notes: list[str],
    samples: Sequence[Sample],
    classes: Sequence[str],
    *,
    folds: int,
    seed: int,
) -> Splits:
    everyone = [*parts["train"], *parts["val"]]
    _refuse_leaks({"train": everyone, "test": parts["test"]})
    made = _folds(everyone, classes, count=folds, seed=seed)
    return Splits(
        train=tuple(everyone),
        val=(),
        test=tuple(parts["test"]),
        folds=tuple(made),
        notes=(*notes, f"{folds} stratified folds with seed {seed}", *_about_groups(samples)),
    )


def _folds(samples: Sequence[Sample], classes: Sequence[str], *, count: int, seed: int) -> list[Fold]:
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold

    targets = np.array([sample.target for sample in samples])
    groups = np.array([_group(sample) for sample in samples])
    for index, name in enumerate(classes):
        having = len(set(groups[targets == index]))
        if having < count:
            raise DataError(
                f"class {name} has samples of {having} groups, too few for {count} folds; "
                f"use --folds {having} or less, or add data"
                if having >= 2
                else f"class {name} has samples of {having} groups, too few for cross-validation; add data"
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        parts = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(targets, targets, groups)
        made = [
            Fold(tuple(samples[i] for i in train), tuple(samples[i] for i in held_out)) for train, held_out in parts
        ]
    for fold in made:
        _refuse_unlearnt({"train": list(fold.train), "val": list(fold.held_out)}, classes)
    return made


def _given(samples: Sequence[Sample]) -> tuple[dict[str, list[Sample]], list[str]]:
    parts: dict[str, list[Sample]] = {"train": [], "val": [], "test": []}
    named = [sample for sample in samples if sample.split is not None]
    if not named:
        parts["train"] = list(samples)
        return parts, []
    if len(named) < len(samples):
        raise DataError(
            f"{len(samples) - len(named)} of {len(samples)} samples have no split while the others do; "
            "give every sample one of train, val and test, or none"
        )
    for sample in named:
        parts[str(sample.split)].append(sample)
    if not parts["train"]:
        raise DataError("the data's own split has no training samples")
    return parts, ["the data's own split is used"]


def _hold_out(
    samples: Sequence[Sample], classes: Sequence[str], *, fraction: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

    targets = np.array([sample.target for sample in samples])
    grouped = any(sample.group is not None for sample in samples)
    groups = np.array([_group(sample) for sample in samples])
    try:
        with warnings.catch_warnings():
            # scikit-learn warns of a class with fewer groups than folds; our own check below decides
            warnings.simplefilter("ignore", UserWarning)
            if grouped:
                share = (
                    Fraction(fraction).limit_denominator(10) if fraction >= 0.1 else Fraction(1, round(1 / fraction))
                )
                folds = StratifiedGroupKFold(max(2, share.denominator), shuffle=True, random_state=seed)
                parts = [held for _, held in folds.split(targets, targets, groups)]
                val = np.sort(np.concatenate(parts[: max(1, share.numerator)]))
                train = np.setdiff1d(np.arange(len(samples)), val)
            else:
                shuffle = StratifiedShuffleSplit(1, test_size=fraction, random_state=seed)
                train, val = next(shuffle.split(targets, targets))
    except ValueError as error:
        what = f"{len(set(groups))} groups" if grouped else f"classes of {_listed(Counter(map(int, targets)), classes)}"
        raise DataError(
            f"{len(samples)} samples in {what} are too few to hold out {fraction:.0%} for validation; "
            "add samples, or give a split of your own"
        ) from error
    return [samples[i] for i in train], [samples[i] for i in val]


def _about_groups(samples: Sequence[Sample]) -> list[str]:
    if all(sample.group is None for sample in samples):
        return [
            "no groups are known: if several samples show one subject (a patient, a part, a place), figures on "
            "held-out samples are too good; name the subject in the data's group column"
        ]
    named = {sample.group for sample in samples if sample.group is not None}
    alone = sum(sample.group is None for sample in samples)
    notes = [f"{len(named)} groups, each kept on one side of the split"]
    return [*notes, f"{alone} samples name no group and count as one each"] if alone else notes


def _group(sample: Sample) -> str:
    return f"group {sample.group}" if sample.group is not None else f"sample {sample.id}"


def _refuse_leaks(parts: dict[str, list[Sample]]) -> None:
    sides: defaultdict[str, set[str]] = defaultdict(set)
    for name, members in parts.items():
        for sample in members:
            if sample.group is not None:
                sides[sample.group].add(name)
    torn = [group for group, names in sides.items() if len(names) > 1]
    if torn:
        raise DataError(
            f"{len(torn)} groups are on both sides of the given split, so its figures would be too good; "
            "move each group to one side, or leave the split out and let zooft make one"
        )


def _refuse_unlearnt(parts: dict[str, list[Sample]], classes: Sequence[str]) -> None:
    counts = {name: Counter(sample.target for sample in members) for name, members in parts.items()}
    empty = [label for index, label in enumerate(classes) if not counts["train"][index]]
    if empty:
        raise DataError(
            f"no training samples of class {', '.join(empty)}; remove the class or add samples "
            f"(training has {_listed(counts['train'], classes)})"
        )
    if not parts["val"]:
        raise DataError("no validation samples; add some, or raise --val-fraction")


def _listed(counts: Counter[int], classes: Sequence[str]) -> str:
    return ", ".join(f"{label} {counts[index]}" for index, label in enumerate(classes))
