"""Who trains and who validates; the truth is scikit-learn's own split, and that no group is ever on two sides."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from zooft import DataError, Sample
from zooft.contracts import Strata
from zooft.data import split as splitting
from zooft.data.split import Splits

CLASSES = ("ant", "bee", "wasp")


def split(samples: Sequence[Sample], classes: Sequence[str], **more: Any) -> Splits:
    """By classes."""
    return splitting.split(samples, Strata([sample.target for sample in samples], tuple(classes)), **more)


def samples(
    targets: Sequence[int],
    groups: Sequence[str | None] | None = None,
    given_split: Sequence[str | None] | None = None,
) -> list[Sample]:
    groups = groups or [None] * len(targets)
    given_split = given_split or [None] * len(targets)
    return [
        Sample(id=f"{index:04}", source=None, target=target, group=group, split=name)  # type: ignore[arg-type]
        for index, (target, group, name) in enumerate(zip(targets, groups, given_split, strict=True))
    ]


def ids(members: Sequence[Sample]) -> list[str]:
    return [sample.id for sample in members]


def sides(found: Splits) -> dict[str, set[str]]:
    """Group to the splits that it is in."""
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for name in ("train", "val", "test"):
        for sample in getattr(found, name):
            if sample.group is not None:
                seen[sample.group].add(name)
    return dict(seen)


def everyone(found: Splits) -> list[str]:
    return sorted(ids([*found.train, *found.val, *found.test]))


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.33])
def test_the_held_out_samples_are_scikit_learns_stratified_choice(fraction: float) -> None:
    made = samples([0] * 100 + [1] * 40 + [2] * 15)
    found = split(made, CLASSES, fraction=fraction, seed=7)
    targets = [sample.target for sample in made]
    train, val = train_test_split(ids(made), test_size=fraction, stratify=targets, random_state=7)
    assert ids(found.train) == train
    assert ids(found.val) == val


def test_each_class_gives_its_share() -> None:
    made = samples([0] * 100 + [1] * 40 + [2] * 15)
    held_out = Counter(sample.target for sample in split(made, CLASSES, fraction=0.2, seed=0).val)
    assert held_out == {0: 20, 1: 8, 2: 3}


def test_the_seed_alone_decides() -> None:
    made = samples([0, 1] * 50)
    first, again, other = (split(made, CLASSES[:2], fraction=0.2, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert ids(first.val) != ids(other.val)


def test_groups_stay_whole_where_they_are_known() -> None:
    groups = [f"patient {index // 4}" for index in range(120)]
    found = split(samples([0, 1, 1] * 40, groups), CLASSES[:2], fraction=0.2, seed=0)
    assert all(len(names) == 1 for names in sides(found).values())
    assert math.isclose(len(found.val) / 120, 0.2, abs_tol=0.05)
    assert "30 groups, each on one side of the split" in found.notes


@given(
    members=st.lists(st.tuples(st.integers(0, 2), st.none() | st.integers(0, 12).map(str)), min_size=20, max_size=80),
    fraction=st.sampled_from([0.1, 0.2, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_groups_none_is_torn_and_nobody_is_lost(
    members: list[tuple[int, str | None]], fraction: float, seed: int
) -> None:
    made = samples([target for target, _ in members], [group for _, group in members])
    try:
        found = split(made, CLASSES, fraction=fraction, seed=seed)
    except DataError:
        return  # too little to split: an error, which the tests below check
    assert everyone(found) == ids(made)
    assert all(len(names) == 1 for names in sides(found).values())
    assert {sample.target for sample in found.train} == {0, 1, 2}
    assert found.val


def parts_with_all(made: Sequence[Sample], *, parts: int) -> bool:
    """Whether any assignment of groups to parts has every class in every part: tried one by one."""
    groups = sorted({str(sample.group) for sample in made})
    classes = {sample.target for sample in made}
    return any(
        all({s.target for s in made if chosen[groups.index(str(s.group))] == part} == classes for part in range(parts))
        for chosen in itertools.product(range(parts), repeat=len(groups))
    )


few_groups = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6).map(str)), min_size=4, max_size=24).filter(
    lambda members: {target for target, _ in members} == {0, 1, 2}
)


@given(members=few_groups, fraction=st.sampled_from([0.1, 0.2, 0.4]), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_every_class_is_held_out_wherever_any_choice_of_groups_does_and_reported_loudly_where_none(
    members: list[tuple[int, str]], fraction: float, seed: int
) -> None:
    made = samples([target for target, _ in members], [group for _, group in members])
    try:
        found = split(made, CLASSES, fraction=fraction, seed=seed)
    except DataError:
        of_class = [{s.group for s in made if s.target == target} for target in range(3)]
        assert all(len(groups) == 1 for groups in of_class) or not parts_with_all(made, parts=2)
        return
    absent = {0, 1, 2} - {sample.target for sample in found.val}
    assert not (absent and parts_with_all(made, parts=2))
    warnings = [note for note in found.notes if note.startswith("warning: no validation samples of class ")]
    assert len(warnings) == bool(absent)
    assert all(CLASSES[target] in warnings[0] for target in absent)
    assert {sample.target for sample in found.train} == {0, 1, 2}
    assert everyone(found) == ids(made)
    assert all(len(names) == 1 for names in sides(found).values())


@given(members=few_groups, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_every_fold_holds_out_every_class_wherever_any_choice_of_groups_does(
    members: list[tuple[int, str]], seed: int
) -> None:
    made = samples([target for target, _ in members], [group for _, group in members])
    possible = parts_with_all(made, parts=2)
    try:
        found = split(made, CLASSES, fraction=0.2, seed=seed, folds=2)
    except DataError:
        assert not possible
        return
    absent = [number for number, f in enumerate(found.folds, 1) if len({s.target for s in f.held_out}) < 3]
    assert not (absent and possible)
    assert [
        n for n in (1, 2) if any(note.startswith(f"warning: fold {n} holds out no") for note in found.notes)
    ] == absent


@pytest.mark.parametrize("seed", range(8))
def test_rare_classes_are_held_out_too_and_the_share_stays(seed: int) -> None:
    """scikit-learn's stratified splits leave out classes whose share of the held-out samples is less than a half."""
    made = samples([0] * 203 + [1] * 104 + [2] * 2)
    found = split(made, CLASSES, fraction=0.2, seed=seed)
    assert {sample.target for sample in found.val} == {0, 1, 2}
    assert len(found.val) == pytest.approx(0.2 * 309, abs=2)
    many = samples([0] * 200 + [1] * 100 + [2] * 2, [f"p{i // 2}" for i in range(301)] + ["last"])
    grouped = split(many, CLASSES, fraction=0.2, seed=seed)
    assert {sample.target for sample in grouped.val} == {sample.target for sample in grouped.train} == {0, 1, 2}
    assert len(grouped.val) / 302 == pytest.approx(0.2, abs=0.04)


def test_a_thousand_rare_classes_are_held_out_in_seconds() -> None:
    made = samples([label for label in range(1000) for _ in range(2 + label % 7)])
    found = split(made, [f"c{label}" for label in range(1000)], fraction=0.2, seed=0)
    assert len({sample.target for sample in found.val}) == len({sample.target for sample in found.train}) == 1000


def test_a_class_of_one_group_is_learnt_from_and_not_evaluated_and_that_is_reported_loudly() -> None:
    made = samples([0, 1, 2] * 20, [f"p{i}" if i % 3 else "the only one" for i in range(60)])
    for seed in range(10):
        found = split(made, CLASSES, fraction=0.2, seed=seed)
        assert {sample.target for sample in found.val} == {1, 2}
        assert any(
            note.startswith("warning: no validation samples of class ant")
            and "all its samples are in one group" in note
            for note in found.notes
        )


@pytest.mark.parametrize(("part", "word"), [("val", "validation"), ("test", "test")])
def test_a_class_that_the_datas_own_split_leaves_out_is_reported_loudly(part: str, word: str) -> None:
    given_split = ["train"] * 6 + [part] * 3 + ["test" if part == "val" else "val"] * 3
    made = samples([0, 1, 2] * 2 + [0, 2, 2] + [0, 1, 2], given_split=given_split)
    (warning,) = [note for note in split(made, CLASSES, fraction=0.2, seed=0).notes if note.startswith("warning")]
    assert f"no {word} samples of class bee" in warning
    assert "the data's own split has none" in warning


def test_a_given_split_is_used_as_it_is() -> None:
    made = samples([0, 1, 0, 1, 0, 1], given_split=["train", "train", "val", "val", "test", "test"])
    found = split(made, CLASSES[:2], fraction=0.5, seed=0)
    assert (ids(found.train), ids(found.val), ids(found.test)) == (["0000", "0001"], ["0002", "0003"], ["0004", "0005"])
    assert "the data's own split is used" in found.notes


def test_validation_samples_come_from_training_where_only_a_test_split_is_given() -> None:
    made = samples([0, 1] * 30, given_split=["train"] * 40 + ["test"] * 20)
    found = split(made, CLASSES[:2], fraction=0.25, seed=0)
    assert ids(found.test) == ids(made[40:])
    assert "the data's own split is used, which has no validation samples" in found.notes
    assert everyone(found) == ids(made)
    assert Counter(sample.target for sample in found.val) == {0: 5, 1: 5}


def test_a_split_that_only_some_samples_have_is_an_error() -> None:
    made = samples([0, 1, 0, 1], given_split=["train", None, "val", "val"])
    with pytest.raises(DataError, match="1 of 4 samples have no split while the others do"):
        split(made, CLASSES[:2], fraction=0.2, seed=0)


@pytest.mark.parametrize("across", [("train", "val"), ("train", "test"), ("val", "test")])
def test_a_group_that_crosses_the_given_split_is_an_error(across: tuple[str, str]) -> None:
    made = samples(
        [0, 1, 0, 1, 0, 1, 0, 0],
        ["a", "b", "c", "d", "e", "f", "x", "x"],
        ["train", "train", "val", "val", "test", "test", *across],
    )
    with pytest.raises(DataError, match="1 group is on both sides of the given split"):
        split(made, CLASSES[:2], fraction=0.2, seed=0)


def test_a_group_in_training_and_test_is_an_error_when_validation_is_made_here() -> None:
    groups = [f"{index}" for index in range(20)] + ["0"]
    made = samples([0, 1] * 10 + [0], groups, ["train"] * 20 + ["test"])
    with pytest.raises(DataError, match="group is on both sides"):
        split(made, CLASSES[:2], fraction=0.2, seed=0)


def test_a_class_without_training_samples_is_an_error_that_counts_the_others() -> None:
    made = samples([0, 0, 1, 0], given_split=["train", "train", "val", "val"])
    with pytest.raises(DataError, match=r"no training samples of class bee.*training has ant 2, bee 0"):
        split(made, CLASSES[:2], fraction=0.2, seed=0)


def test_a_given_split_without_training_samples_is_an_error() -> None:
    with pytest.raises(DataError, match="no training samples, only 2 of val"):
        split(samples([0, 1], given_split=["val", "val"]), CLASSES[:2], fraction=0.2, seed=0)


@pytest.mark.parametrize("targets", [[0, 1], [0, 0, 0, 1], [0, 1, 2, 0]])
def test_too_few_samples_to_split_is_an_error_and_not_scikit_learns_traceback(targets: list[int]) -> None:
    with pytest.raises(DataError, match=r"are too few to hold out .* for validation; add samples"):
        split(samples(targets), CLASSES[: max(targets) + 1], fraction=0.2, seed=0)


def test_one_group_of_everything_cannot_be_split() -> None:
    with pytest.raises(DataError):
        split(samples([0, 1] * 10, ["the only patient"] * 20), CLASSES[:2], fraction=0.2, seed=0)


def test_a_run_says_that_groups_are_unknown_and_that_validation_chose_the_epoch() -> None:
    notes = " ".join(split(samples([0, 1] * 20), CLASSES[:2], fraction=0.2, seed=5).notes)
    assert "no groups are known" in notes
    assert "8 samples were held out for validation, stratified, with seed 5" in notes
    assert "a little optimistic" in notes


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.integers(0, 11), min_size=30, max_size=60),
    folds=st.integers(2, 3),
    seed=st.integers(0, 5),
)
def test_each_sample_is_held_out_once_and_never_beside_its_group(groups: list[int], folds: int, seed: int) -> None:
    names = [f"p{group}" for group in groups]
    made = samples([group % 2 for group in groups], names)
    try:
        found = split(made, CLASSES[:2], fraction=0.2, seed=seed, folds=folds)
    except DataError:
        return
    held_out = [sample.id for fold in found.folds for sample in fold.held_out]
    assert sorted(held_out) == ids(made)
    for fold in found.folds:
        assert not {sample.group for sample in fold.train} & {sample.group for sample in fold.held_out}
        assert len(fold.train) + len(fold.held_out) == len(made)
    assert (ids(found.train), found.val) == (ids(made), ())


@pytest.mark.parametrize("groups", [None, ["g9", "g1", None, "g5", "g3", None]], ids=["alone", "grouped"])
def test_folds_are_scikit_learns_whatever_the_order_of_the_samples(groups: list[str | None] | None) -> None:
    """A run that is resumed after its manifest was sorted must find the folds that it began with."""
    made = samples([0, 1, 1] * 12, groups and groups * 6)
    named = [f"sample {s.id}" if s.group is None else f"group {s.group}" for s in made]
    targets = [s.target for s in made]
    parts = StratifiedGroupKFold(2, shuffle=True, random_state=4).split(targets, targets, named)
    truth = [{made[row].id for row in held} for _, held in parts]
    assert [set(ids(f.held_out)) for f in split(made, CLASSES[:2], fraction=0.2, seed=4, folds=2).folds] == truth
    found = split(made[::-1], CLASSES[:2], fraction=0.2, seed=4, folds=2)
    assert [set(ids(f.held_out)) for f in found.folds] == truth


def test_folds_leave_a_given_test_split_alone() -> None:
    given_split = ["train"] * 12 + ["val"] * 6 + ["test"] * 4
    found = split(samples([0, 1] * 11, None, given_split), CLASSES[:2], fraction=0.2, seed=0, folds=3)
    assert len(found.test) == 4
    assert len(found.train) == 18
    assert not {s.id for s in found.test} & {s.id for fold in found.folds for s in (*fold.train, *fold.held_out)}


def test_folds_refuse_a_group_that_is_in_the_test_split_too() -> None:
    with pytest.raises(DataError, match="both sides"):
        split(samples([0, 1] * 5, ["a", "b"] * 5, ["train"] * 9 + ["test"]), CLASSES[:2], fraction=0.2, seed=0, folds=2)


def test_fewer_patients_of_a_class_than_folds_is_an_error_before_anything_is_learnt() -> None:
    made = samples([0] * 20 + [1] * 20, [f"p{i}" for i in range(20)] + ["q0", "q1"] * 10)
    with pytest.raises(DataError, match=r"class bee has samples of 2 groups, too few for 5 folds; use --folds 2"):
        split(made, CLASSES[:2], fraction=0.2, seed=0, folds=5)


@pytest.mark.parametrize("fraction", [0.03, 0.05, 0.2, 0.5])
def test_a_small_share_of_groups_is_held_out_as_small(fraction: float) -> None:
    found = split(samples([0, 1] * 200, [f"p{i // 2}" for i in range(400)]), CLASSES[:2], fraction=fraction, seed=0)
    assert len(found.val) / 400 == pytest.approx(fraction, rel=0.25)
