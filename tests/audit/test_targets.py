"""Targets as numbers: equal where targets are, the categories' own where there are any."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

import zooft
from zooft.audit.targets import Targets, targets_of


def samples(*targets: Any) -> list[zooft.Sample]:
    return [zooft.Sample(id=str(number), source=None, target=target) for number, target in enumerate(targets)]


def test_classes_have_their_own_numbers_and_what_is_not_known_none() -> None:
    drawn = np.random.default_rng(0).integers(0, 4, 50).tolist()
    labels = zooft.class_labels(("a", "b", "c", "d", "nobody"))
    found = targets_of(samples(*drawn, None), zooft.classification(), labels)
    assert found.numbers.tolist() == [*drawn, -1]
    assert (found.name, found.categories) == ("class", ("a", "b", "c", "d", "nobody"))
    known = Counter("abcd"[target] for target in drawn)
    assert found.counts() == {**{name: known[name] for name in "abcd"}, "nobody": 0}


def test_numbers_that_are_equal_are_equal_and_others_are_not() -> None:
    labels = (zooft.Label(name="width", unit="mm"), zooft.Label(name="age"))
    given = [(1.5, 60.0), (1.5, 61.0), (1.5, 60.0), (None, 60.0), None]
    found = targets_of(samples(*given), zooft.regression(), labels)
    alike = [[a == b for b in given] for a in given]
    assert (found.numbers[:, None] == found.numbers[None]).tolist() == alike
    assert found.numbers[-1] == -1
    assert (found.numbers[:-1] >= 0).all()
    assert (found.name, found.categories) == ("width, age", ())


def test_what_nobody_knows_is_counted_nowhere() -> None:
    assert Targets(name="x", categories=("a",), numbers=np.array([-1, -1])).counts() == {"a": 0}
