"""Tables of pictures as tired people write them: each fault in words that lead to it, nothing read in silence as something else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import example_data
import pytest
from commands import command

import zooft
from zooft_images.discover import discover
from zooft_images.options import ClassificationOptions

OPTIONS = ClassificationOptions()


def table(root: Path, *rows: Sequence[str], head: str = "path,label", name: str = "labels.csv") -> Path:
    """A table beside img/A.png, img/b.png and img/c.PNG."""
    for index, picture in enumerate(("A.png", "b.png", "c.PNG")):
        example_data.save(root / "img" / picture, seed=index)
    (root / name).write_text("\n".join([head, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return root / name


def reasons(found: zooft.Discovery) -> dict[str, str]:
    return {rejection.id: rejection.reason for rejection in found.rejected}


GOOD = (("img/A.png", "x"), ("img/b.png", "y"))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("img/a.png", "there is img/A.png"),
        ("IMG/B.png", "there is img/b.png"),
        ("img/c", "there is img/c.PNG"),
        ("c", "there is img/c.PNG"),
        ("c.PNG", "there is img/c.PNG; paths are relative to the table's folder"),
        ("/img/c.PNG", "there is img/c.PNG"),
        ("beside.png", "there is ../beside.png; paths are relative"),
        ("'img/c.PNG'", "there is img/c.PNG, without quotation marks"),
        ("https://example.org/c.png", "it is a URL; download the picture"),
        ("s3://bucket/c.png", "it is a URL"),
        ("C:\\data\\img\\c.PNG", "a machine with Windows"),
        ("\\\\server\\share\\c.PNG", "a machine with Windows"),
        ("img\\gone.png", "neither with the backslashes as they are nor as slashes"),
        ("img/gone.png", "no such file"),
    ],
)
def test_a_file_that_is_not_there_is_named_with_what_may_be_meant(tmp_path: Path, path: str, text: str) -> None:
    example_data.save(tmp_path / "beside.png")
    found = discover(table(tmp_path / "d", *GOOD, (path, "x")), OPTIONS)
    assert len(found.samples) == 2
    assert text in reasons(found)[path]
    assert "1 of 3 lines of labels.csv name files that aren't there" in found.notes


def test_when_no_file_is_there_the_error_says_where_paths_start(tmp_path: Path) -> None:
    path = table(tmp_path, ("A.png", "x"), ("b.png", "y"))
    with pytest.raises(zooft.DataError) as refused:
        discover(path, OPTIONS)
    assert (
        "none of the 2 files that labels.csv names is there; the first: A.png: no such file: there is img/A.png"
        in str(refused.value)
    )
    assert f"relative to the table's folder, {tmp_path}" in str(refused.value)


def test_backslashes_are_read_as_slashes_and_that_is_reported(tmp_path: Path) -> None:
    found = discover(table(tmp_path, ("img\\A.png", "x"), ("img\\b.png", "y"), ("img/c.PNG", "y")), OPTIONS)
    assert [sample.id for sample in found.samples] == ["img/A.png", "img/b.png", "img/c.PNG"]
    assert "backslashes in 2 paths of labels.csv are read as slashes" in found.notes


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_are_read(tmp_path: Path, separator: str) -> None:
    path = table(tmp_path)
    path.write_text("\n".join(separator.join(row) for row in (("path", "label"), *GOOD)) + "\n")
    assert discover(path, OPTIONS).classes == ("x", "y")


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ("img/A.png,x", "Its first line names a picture already: put the line path,label above it"),
        ("filename,class", "In its first line, call filename path and class label, or give --label-column class"),
        ("image,label", "In its first line, call image path"),
        ("path,target", "In its first line, call target label"),
        ("foo,bar", "path and label are missing"),
    ],
)
def test_a_first_line_without_the_columns_is_answered_with_what_to_write(tmp_path: Path, head: str, text: str) -> None:
    with pytest.raises(zooft.DataError) as refused:
        discover(table(tmp_path, *GOOD, head=head), OPTIONS)
    assert text in str(refused.value)


def test_the_column_of_the_classes_can_be_named_in_any_case(tmp_path: Path) -> None:
    rows = (("img/A.png", "1", "good", "p"), ("img/b.png", "2", "bad", "q"), ("img/c.PNG", "3", "bad", "q"))
    path = table(tmp_path, *rows, head="path,label,Verdict,group")
    found = discover(path, ClassificationOptions(label_column="Verdict", positive="bad"))
    assert [(sample.id, found.classes[sample.target]) for sample in found.samples] == [
        ("img/A.png", "good"),
        ("img/b.png", "bad"),
        ("img/c.PNG", "bad"),
    ]
    assert any("aren't used: label" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "verdikt",
            "needs the columns path and verdikt, and has path, label, verdict; verdikt is missing; nearest: verdict",
        ),
        ("xyz", "xyz is missing$"),
    ],
)
def test_a_column_of_classes_that_is_not_there_gets_the_nearest(tmp_path: Path, name: str, message: str) -> None:
    path = table(tmp_path, *((*row, "good") for row in GOOD), head="path,label,verdict")
    with pytest.raises(zooft.DataError, match=message):
        discover(path, ClassificationOptions(label_column=name))


def test_a_column_of_groups_that_is_not_there_gets_the_nearest(tmp_path: Path) -> None:
    path = table(tmp_path, *((*row, "p") for row in GOOD), head="path,label,patient")
    with pytest.raises(
        zooft.DataError, match=r"no column 'pateint' to group by; it has .*; nearest: patient; name one"
    ):
        discover(path, ClassificationOptions(group_column="pateint"))


def test_one_column_of_a_table_does_not_mean_two_things(tmp_path: Path) -> None:
    with pytest.raises(zooft.ConfigError, match="label-column: the column 'label' is what a split must not divide"):
        discover(table(tmp_path, *GOOD), ClassificationOptions(group_column="Label"))


@pytest.mark.parametrize("name", ["labels.xlsx", "labels.xls", "labels.ods"])
def test_a_spreadsheet_is_answered_with_csv(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    messages = command("audit", tmp_path / name, "--task", "classification", status=1)
    assert "is a spreadsheet: save it as CSV (UTF-8)" in " ".join(messages.stderr.split())


def test_one_file_with_two_labels_is_an_error_that_names_both_lines(tmp_path: Path) -> None:
    path = table(tmp_path, *GOOD, ("img/../img/A.png", "y"))
    with pytest.raises(zooft.DataError, match=r"labels.csv, line 4: .*has the label 'y' here and 'x' in line 2"):
        discover(path, OPTIONS)


def test_a_misspelt_split_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = table(tmp_path, ("img/A.png", "x", "train"), ("img/b.png", "y", "trian"), head="path,label,split")
    with pytest.raises(zooft.DataError, match=r"labels.csv, line 3: img/b.png is in the split 'trian'"):
        discover(path, OPTIONS)


def test_splits_of_some_lines_only_are_an_error(tmp_path: Path) -> None:
    rows = (("img/A.png", "x", "train"), ("img/b.png", "y", ""), ("img/c.PNG", "y", "val"))
    messages = command(
        "finetune",
        "--backbone",
        "timm:test_resnet",
        "--weights",
        "random",
        "--task",
        "classification",
        "--data",
        table(tmp_path, *rows, head="path,label,split"),
        "--out",
        tmp_path / "run",
        status=1,
    )
    assert "1 of 3 samples have no split while the others do" in messages.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("one", "other"), [("P1", "p1"), ("P-1", "P-01"), ("7", "007"), ("M\u00fc", "Mu\u0308"), ("a b", "ab")]
)
def test_groups_that_resemble_each_other_are_warned_of(tmp_path: Path, one: str, other: str) -> None:
    rows = (("img/A.png", "x", one), ("img/b.png", "y", other), ("img/c.PNG", "y", "else"))
    found = discover(table(tmp_path, *rows, head="path,label,group"), OPTIONS)
    assert {sample.group for sample in found.samples} == {one, other, "else"}
    (messages,) = [note for note in found.notes if note.startswith("warning: groups")]
    assert ascii(one) in messages
    assert "both sides of the split" in messages
