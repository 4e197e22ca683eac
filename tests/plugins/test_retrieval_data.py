"""Whose pictures are found: folders, tables, LFW's pairs, and what can't be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_data import save, write_manifest
from PIL import Image

import zooft
from zooft.data.split import split

pytest.importorskip("pytorch_metric_learning")

import zooft_retrieval
from zooft_retrieval import pairs
from zooft_retrieval.options import RetrievalOptions

(TASK,) = zooft_retrieval.zooft_register_tasks()
OPTIONS: Any = RetrievalOptions()


def people(root: Path, counts: dict[str, int]) -> Path:
    """A folder each, no picture like another."""
    for name, count in counts.items():
        for index in range(count):
            seed = 16 * (int.from_bytes(name.encode(), "big") % 2**24) + index
            save(root / name / f"{name}_{index + 1:04}.png", 60 + seed % 7 * 20, seed=seed)
    return root


def found(root: Path, **options: Any) -> zooft.Discovery:
    return TASK.discover(root, RetrievalOptions(**options))


def reasons(discovery: zooft.Discovery) -> dict[str, str]:
    return {each.id: each.reason for each in discovery.rejected}


def test_a_folder_for_each(tmp_path: Path) -> None:
    discovery = found(people(tmp_path, {"ann": 3, "bob": 2}))
    assert [(s.id, s.target.name, s.group) for s in discovery.samples][:2] == [
        ("ann/ann_0001.png", "ann", "ann"),
        ("ann/ann_0002.png", "ann", "ann"),
    ]
    assert [label.name for label in discovery.labels] == ["identity"]
    assert all(not label.categories for label in discovery.labels)  # names stay out of the file


def test_people_of_a_split_are_on_one_side(tmp_path: Path) -> None:
    samples = found(people(tmp_path, {f"p{n}": 4 for n in range(10)})).samples
    strata = TASK.problem.training.strata([s.target for s in samples], ())
    parts = split(samples, strata, fraction=0.3, seed=0)
    train, val = ({s.target.name for s in part} for part in (parts.train, parts.val))
    assert len(train) == 7
    assert len(val) == 3
    assert not train & val
    assert not any("no validation samples" in note for note in parts.notes)


def test_split_folders(tmp_path: Path) -> None:
    people(tmp_path / "train", {"ann": 2, "bob": 2})
    people(tmp_path / "val", {"cy": 2})
    assert {s.target.name: s.split for s in found(tmp_path).samples} == {"ann": "train", "bob": "train", "cy": "val"}


def test_split_folders_beside_others_are_refused(tmp_path: Path) -> None:
    people(tmp_path / "train", {"ann": 2})
    people(tmp_path, {"cy": 2})
    with pytest.raises(zooft.DataError, match=r"split folders .train. and others beside them .cy."):
        found(tmp_path)


def test_a_person_of_one_picture_is_reported(tmp_path: Path) -> None:
    discovery = found(people(tmp_path, {"ann": 3, "bob": 1, "cy": 1}))
    assert len(discovery.samples) == 5
    assert any("2 identities have one picture only (bob, cy)" in note for note in discovery.notes)


def test_copies_are_reported_in_whatever_format(tmp_path: Path) -> None:
    people(tmp_path, {"ann": 2, "bob": 2})
    with Image.open(tmp_path / "ann" / "ann_0001.png") as image:
        image.save(tmp_path / "ann" / "copy.bmp")
    discovery = found(tmp_path)
    assert len(discovery.samples) == 5
    assert len({s.target.content for s in discovery.samples}) == 4
    assert any("1 picture is a copy" in note for note in discovery.notes)


def test_a_picture_under_two_names_is_used_for_none(tmp_path: Path) -> None:
    people(tmp_path, {"ann": 2, "bob": 2})
    (tmp_path / "bob" / "again.png").write_bytes((tmp_path / "ann" / "ann_0001.png").read_bytes())
    discovery = found(tmp_path)
    assert {s.id for s in discovery.samples} == {"ann/ann_0002.png", "bob/bob_0001.png", "bob/bob_0002.png"}
    assert "same picture is bob/again.png, of another identity" in reasons(discovery)["ann/ann_0001.png"]


def test_what_is_no_picture_is_listed(tmp_path: Path) -> None:
    people(tmp_path, {"ann": 2, "bob": 2})
    (tmp_path / "ann" / "torn.png").write_bytes((tmp_path / "ann" / "ann_0001.png").read_bytes()[:200])
    (tmp_path / "ann" / "notes.txt").write_text("hello")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "bob" / "deep.png")
    save(tmp_path / "stray.png")
    why = reasons(found(tmp_path))
    assert why["ann/torn.png"].startswith("can't be decoded")
    assert why["ann/notes.txt"] == "not a picture that Pillow knows"
    assert "no fixed range of levels" in why["bob/deep.png"]
    assert why["stray.png"] == "beside the identities' folders, so without a name"


def test_a_table(tmp_path: Path) -> None:
    people(tmp_path, {"ann": 2, "bob": 2})
    rows = [
        ("ann/ann_0001.png", "a", "train"),
        ("ann/ann_0002.png", "a", "train"),
        ("bob/bob_0001.png", "b", "val"),
        ("bob/none.png", "b", "val"),
        ("bob/bob_0002.png", "", "val"),
    ]
    write_manifest(tmp_path / "who.csv", ("path", "identity", "split"), rows)
    discovery = found(tmp_path / "who.csv")
    assert [(s.target.name, s.split) for s in discovery.samples] == [("a", "train"), ("a", "train"), ("b", "val")]
    assert reasons(discovery) == {
        "bob/none.png": "who.csv, line 5: no such file; paths are relative to the table's folder",
        "bob/bob_0002.png": "who.csv, line 6: no identity",
    }


def test_a_table_that_contradicts_itself(tmp_path: Path) -> None:
    people(tmp_path, {"ann": 2})
    rows = [("ann/ann_0001.png", "a"), ("ann/ann_0001.png", "b")]
    write_manifest(tmp_path / "labels.csv", ("path", "identity"), rows)
    with pytest.raises(zooft.DataError, match=r"line 3: ann/ann_0001\.png is 'b' here and 'a' in line 2"):
        found(tmp_path)


def test_a_table_without_the_column(tmp_path: Path) -> None:
    write_manifest(tmp_path / "t.csv", ("path", "who"), [("x.png", "a")])
    with pytest.raises(
        zooft.DataError, match="needs the columns path and identity, and has path, who; identity missing"
    ):
        found(tmp_path / "t.csv")
    with pytest.raises(zooft.DataError, match=r"no pictures of identities.*line 2: no such file"):
        found(tmp_path / "t.csv", identity_column="who")


def test_nothing_to_learn_is_refused(tmp_path: Path) -> None:
    unlearnable = TASK.problem.training.unlearnable
    alone = [s.target for s in found(people(tmp_path / "a", {"ann": 3})).samples]
    assert "all pictures show ann" in unlearnable(alone, ())
    singles = [s.target for s in found(people(tmp_path / "b", {"ann": 1, "bob": 1})).samples]
    assert "each of the 2 identities has a single picture" in unlearnable(singles, ())


LFW = "1\t2\nann\t1\t2\nbob\t1\t2\nann\t1\tbob\t1\nann\t2\tbob\t9\n"


def test_pairs_as_lfw_has_them(tmp_path: Path) -> None:
    """Its pairs.txt: a head of folds and pairs, tabs, names and numbers of pictures."""
    people(tmp_path / "lfw", {"ann": 3, "bob": 2})
    (tmp_path / "pairs.txt").write_text(LFW)
    discovery = found(tmp_path / "pairs.txt")
    assert {s.id: s.target.pairs for s in discovery.samples} == {
        "ann/ann_0001.png": (2, 4),
        "ann/ann_0002.png": (2, 5),
        "bob/bob_0001.png": (3, 4),
        "bob/bob_0002.png": (3,),
    }
    assert reasons(discovery) == {"bob/bob_0009": "pairs.txt, line 5: no such picture in lfw"}
    assert any("4 pairs of pairs.txt are compared" in note for note in discovery.notes)


def test_people_of_pairs_are_for_testing(tmp_path: Path) -> None:
    people(tmp_path, {"ann": 3, "bob": 2, "cy": 2, "dan": 2})
    (tmp_path / "pairs.txt").write_text(LFW)
    discovery = found(tmp_path)
    assert {s.target.name: s.split for s in discovery.samples} == {
        "ann": "test",
        "bob": "test",
        "cy": "train",
        "dan": "train",
    }
    assert not any(s.target.pairs for s in discovery.samples if s.split == "train")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 1\nann 1 2\nann one two\n", "line 3: 'ann one two' is no pair"),
        ("1 2\nann 1 2\nann 1 bob 1\n", "has 2 pairs, and its first line gives 4"),
    ],
)
def test_a_damaged_list_of_pairs(tmp_path: Path, text: str, why: str) -> None:
    people(tmp_path, {"ann": 2, "bob": 2})
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(zooft.DataError, match=why):
        found(tmp_path / "pairs.txt")


def test_pairs_lead_nowhere_else(tmp_path: Path) -> None:
    save(tmp_path / "secret" / "x_0001.jpg")
    assert pairs.picture_of(tmp_path / "lfw", "../secret", 1) is None


def test_a_picture_of_odd_orientation_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert TASK.read(tmp_path / "a.jpg", OPTIONS).shape == (8, 4, 3)
