"""What a task found: its fingerprint, its digests, the tables that are written of it, and what is reported of the rest."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zooft
from zooft.data import samples as tables
from zooft.data.split import Splits
from zooft.errors import PluginError
from zooft.hooks import registry

LABELS = zooft.class_labels(("ant", "bee", "wasp"))


def task(**changes: Any) -> zooft.Task:
    return dataclasses.replace(registry.load().task("classification"), **changes)


def sample(name: str, target: int | None = 0, **more: Any) -> zooft.Sample:
    return zooft.Sample(id=name, source=name, target=target, **more)


def found(*samples: Any, rejected: tuple[zooft.Rejection, ...] = (), labels: Any = LABELS) -> zooft.Discovery:
    return zooft.Discovery(samples=samples, labels=labels, rejected=rejected)


# Fingerprint


def test_the_fingerprint_is_over_ids_targets_and_splits_whatever_their_order() -> None:
    members = [sample("b", 1, split="val"), sample("a", 0), sample("é", 2, split="train")]
    by_hand = hashlib.sha256("a\x000\x00None\nb\x001\x00val\né\x002\x00train\n".encode()).hexdigest()
    assert tables.fingerprint(found(*members)) == by_hand
    assert tables.fingerprint(found(*reversed(members))) == by_hand
    for other in (sample("a", 1), sample("A", 0), sample("a", 0, split="train")):
        assert tables.fingerprint(found(members[0], other, members[2])) != by_hand
    assert tables.fingerprint(found(*members), lambda target: 2 - target) != by_hand


# Reading


def test_a_sample_s_digest_is_the_task_s_or_one_of_its_arrays() -> None:
    arrays = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    plain = task(digest=None, read=lambda _source, _options: arrays)
    by_hand = hashlib.sha256(b"|u1 (2, 2, 3)\n" + arrays.tobytes()).hexdigest()
    assert tables.digest(plain, plain.options(), sample("a")) == by_hand
    own = task(digest=lambda source, _options: f"digest of {source}")
    assert tables.digest(own, None, sample("a")) == "digest of a"


def test_a_sample_that_is_gone_is_named() -> None:
    def gone(_source: Any, _options: Any) -> Any:
        raise zooft.DataError("no such file")

    words = "a.png was readable when the data was listed, and isn't any more: no such file"
    for work in (tables.read, tables.digest):
        with pytest.raises(zooft.DataError, match=f"^{words}$"):
            work(task(read=gone, digest=gone), None, sample("a.png"))


def test_people_see_what_a_task_has_redacted_and_others_what_was_read() -> None:
    levels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    plain = task(read=lambda _source, _options: levels)
    np.testing.assert_array_equal(tables.show(plain, plain.options(), sample("a")), levels)
    covered = task(read=plain.read, redact=lambda arrays, _options: tuple(array * 0 for array in arrays))
    assert not tables.show(covered, covered.options(), sample("a")).any()
    np.testing.assert_array_equal(tables.read(covered, covered.options(), sample("a"))[0], levels)


def test_arrays_without_pixels_are_refused() -> None:
    with pytest.raises(zooft.DataError, match=r"a has no pixels \(shape \(0, 4, 3\)\)"):
        tables.as_arrays(np.zeros((0, 4, 3), np.uint8), "a")
    whole = np.zeros((2, 4, 3), np.uint8)
    assert tables.as_arrays(whole, "a")[0] is whole
    assert len(tables.as_arrays([whole, whole], "a")) == 2  # type: ignore[arg-type]


def test_arrays_that_are_not_as_the_port_says_are_the_task_s_fault() -> None:
    odd = task(read=lambda _source, _options: np.zeros((2, 4), np.uint8))
    with pytest.raises(
        PluginError, match=r"a is uint8 of shape \(2, 4\); expected uint8 of shape \(height, width, 3\)"
    ):
        tables.read(odd, odd.options(), sample("a"))


# What may not be


def test_an_id_that_two_samples_have_is_the_task_s_fault(tmp_path: Path) -> None:
    twice = task(discover=lambda _root, _options: found(sample("a"), sample("b", 1), sample("a", 2)))
    with pytest.raises(PluginError, match=r"Sample.id of several samples \(1 such ids\) is 'a'"):
        tables.discover(twice, tmp_path, None)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ((), "no usable samples in the data; 2 files were rejected, the first: ant/1.png: torn"),
        ((sample("a", 0), sample("b", 2)), "no usable samples of class bee; 2 files were rejected"),
        ((sample("a", 3),), "the target of the sample a is 3"),
    ],
)
def test_data_that_nothing_can_be_learnt_from_is_refused_with_what_was_rejected(
    samples: tuple[zooft.Sample, ...], message: str, tmp_path: Path
) -> None:
    rejected = (zooft.Rejection("ant/1.png", "torn"), zooft.Rejection("x.gif", "an animation"))
    with pytest.raises(zooft.ZooftError, match=message):
        tables.discover(task(discover=lambda _root, _options: found(*samples, rejected=rejected)), tmp_path, None)


def test_of_many_rejections_one_of_the_most_frequent_kind_is_reported() -> None:
    reasons = ["torn", "has 300 pixels", "has 4,500 pixels", "an animation"]
    rejected = tuple(zooft.Rejection(f"{number}.png", reason) for number, reason in enumerate(reasons))
    assert tables.rejected_sentence(found(rejected=rejected)) == (
        "4 files were rejected, 2 of them like this one: 1.png: has 300 pixels"
    )
    assert tables.rejected_sentence(found(rejected=rejected[:1])) == "1 file was rejected, the first: 0.png: torn"
    assert tables.rejected_sentence(found()) == ""


# Tables


def test_the_tables_are_csv_with_a_row_each_and_nothing_that_computes(tmp_path: Path) -> None:
    train, val = [sample("=a", 0, group="p"), sample("b,c", 1)], [sample("d\ne", 2)]
    splits = Splits(train=train, val=val, test=[], notes=())
    tables.write_samples(tmp_path / "samples.csv", splits, lambda target: LABELS[0].categories[target])
    tables.write_rejected(tmp_path / "rejected.csv", [zooft.Rejection("x.png", "torn, twice")])
    with (tmp_path / "samples.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [tuple(row.values()) for row in rows] == [
        ("'=a", "ant", "p", "train"),
        ("b,c", "bee", "", "train"),
        ("d\\x0ae", "wasp", "", "val"),
    ]
    with (tmp_path / "rejected.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["id", "reason"], ["x.png", "torn, twice"]]


def test_strata_are_counted_and_absent_classes_warned_of() -> None:
    targets = [0, 2, 2, None, 0, 2]
    members = [sample(str(number), target) for number, target in enumerate(targets)]
    counts = tables.by_stratum(task().problem, members, LABELS)
    known = Counter(LABELS[0].categories[target] for target in targets if target is not None)
    assert counts == {name: known[name] for name in LABELS[0].categories}
    (warning,) = tables.about_absent(task().problem, members[:3], LABELS, where="the val samples")
    assert warning.startswith("warning: none of the val samples is of class bee,")
    assert tables.about_absent(task().problem, [*members[:3], sample("x", 1)], LABELS, where="them") == []
