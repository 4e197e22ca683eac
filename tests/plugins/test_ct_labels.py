"""The table of labels: every spelling of it, and every way in which it can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

import zooft
from zooft_ct import labels


def table(folder: Path, text: str, *, name: str = "labels.csv", encoding: str = "utf-8") -> labels.Table:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return labels.read_table(path)


def refusal(folder: Path, text: str, **how: str) -> str:
    with pytest.raises(zooft.DataError) as caught:
        table(folder, text, **how)
    return str(caught.value)


PLAIN = "patient_id,series_uid,label\n007,1.2,yes\n8,1.3,no\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("patient_id", " Patient "),
        PLAIN.replace("yes", '"yes"') + "\n\n",
    ],
    ids=["plain", "byte order mark", "semicolons", "tabs", "windows", "alias", "quotes and blank lines"],
)
def test_every_spelling_is_read_and_leading_zeros_stay(tmp_path: Path, text: str) -> None:
    read = table(tmp_path, text)
    assert [(row.patient, row.series, row.label) for row in read.rows] == [("007", "1.2", "yes"), ("8", "1.3", "no")]
    assert not read.notes
    assert not read.rejected


def test_splits_slices_and_paths_are_read(tmp_path: Path) -> None:
    (row,) = table(tmp_path, "patient_id,path,sop_uid,label,split\n7,a/b.dcm,1.9,yes,Valid\n").rows
    assert row == labels.Row(line=2, label="yes", patient="7", path="a/b.dcm", sop="1.9", split="val")


def test_unused_columns_and_repeated_lines_are_reported(tmp_path: Path) -> None:
    read = table(tmp_path, "patient_id,series_uid,label,weight\n7,1.2,yes,3\n7,1.2,yes,4\n")
    assert len(read.rows) == 1
    assert read.notes == (
        "columns of labels.csv that aren't used: weight",
        "1 line of labels.csv repeats another one; each counts once",
    )


def test_an_unused_column_that_may_say_who_a_patient_is_is_pointed_out(tmp_path: Path) -> None:
    lines = "".join(f"1.{n},yes,{n // 2},s{n // 2},{30 + n // 2}\n" for n in range(6))
    read = table(tmp_path, "series_uid,label,study_uid,subject_id,age\n" + lines)
    messages = "columns of labels.csv that aren't used: study_uid, subject_id, age"
    (about,) = [note for note in read.notes if note != messages]
    assert about.startswith(
        "warning: the column subject_id of labels.csv isn't used; if it holds who a patient is, call it patient_id"
    )
    known = table(tmp_path, "series_uid,label,study_uid,patient_id,age\n" + lines)
    assert known.notes == ("columns of labels.csv that aren't used: study_uid, age",)
    assert [row.patient for row in known.rows] == ["s0", "s0", "s1", "s1", "s2", "s2"]


def test_lines_without_label_or_place_are_rejected_with_their_number(tmp_path: Path) -> None:
    read = table(tmp_path, "patient_id,series_uid,label\n7,1.2,\n8,,no\n9,1.4,no\n")
    assert [(one.id, one.reason) for one in read.rejected] == [
        ("labels.csv, line 2", "has no label"),
        ("labels.csv, line 3", "names neither a series nor a path"),
    ]
    assert len(read.rows) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLAIN + "007,1.2,no\n", "contradicts itself about 1 image (label, patient or split), first in lines 2 and 4"),
        (PLAIN + "9,1.2,yes\n", "contradicts itself about 1 image"),
        ("patient_id,label\n7,yes\n", "lacks the column series_uid or path; it has patient_id, label."),
        ("DOE^JANE,1.2,yes\n", "lacks the column label and series_uid or path; it has none that is known."),
        ("", "lacks the column label"),
        ("series_uid,label,split\n1.2,yes,DOE^JANE\n", "line 2, names a split that isn't train, val or test"),
        ("series_uid,label\n1.2,yes,DOE^JANE\n", "line 2, has more fields than the first line"),
        ("series_uid,label,label\n1.2,DOE^JANE,no\n", "has 1 column twice"),
        ("series_uid,label,patient,Patient_ID\n1.2,no,DOE^JANE,7\n", "has the columns patient_id and patient"),
    ],
)
def test_faults_are_reported_by_line_and_never_by_value(tmp_path: Path, text: str, words: str) -> None:
    message = refusal(tmp_path, text)
    assert words in message
    assert "DOE" not in message
    assert str(tmp_path) not in message


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    assert "line 2 has other bytes" in refusal(
        tmp_path, "patient_id,series_uid,label\n7,1.2,größer\n", encoding="latin-1"
    )
    with pytest.raises(zooft.DataError, match="can't be read"):
        labels.read_table(tmp_path)


def test_a_stray_quote_swallows_nobody(tmp_path: Path) -> None:
    """The cells of the lines behind it would become a class, and stand in every artefact."""
    message = refusal(tmp_path, 'patient_id,series_uid,label\n7,1.2,yes\n8,1.3,"no\nDOE^JANE,1.4,yes\nDOE^JIM,1.5,no\n')
    assert message.startswith("labels.csv, line 3: a cell that begins with a quotation mark")
    assert "DOE" not in message


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1.2,yes\n1.3,no\n1.4,Yes\n", "'Yes' (labels.csv, line 4) and 'yes' (labels.csv, line 2)"),
        ("1.2,1\n1.3,0\n1.4,1.0\n", "'1' (labels.csv, line 2) and '1.0' (labels.csv, line 4)"),
        ("1.2,yes\n1.3,no\n1.4,#N/A\n", "labels.csv, line 4: '#N/A' can't be the name of a class"),
        ('1.2,yes\n1.3,no\n1.4,"yes,DOE^JANE"\n', "labels.csv, line 4: the label can't be the name of a class"),
    ],
)
def test_a_class_has_one_spelling(tmp_path: Path, rows: str, words: str) -> None:
    message = refusal(tmp_path, f"series_uid,label\n{rows}")
    assert words in message
    assert "DOE" not in message


def test_a_name_of_ones_own_isnt_repeated(tmp_path: Path) -> None:
    assert refusal(tmp_path, "", name="DOE.csv").startswith("the table of labels lacks")


def test_slices_go_by_the_table_of_slices_where_there_is_one(tmp_path: Path) -> None:
    assert labels.table_of(tmp_path, by_slice=True) is None
    (tmp_path / "labels.csv").touch()
    assert labels.table_of(tmp_path, by_slice=True) == tmp_path / "labels.csv"
    (tmp_path / "slice_labels.csv").touch()
    assert labels.table_of(tmp_path, by_slice=True) == tmp_path / "slice_labels.csv"
    assert labels.table_of(tmp_path, by_slice=False) == tmp_path / "labels.csv"
    assert labels.table_of(tmp_path / "labels.csv", by_slice=True) == tmp_path / "labels.csv"


def test_folders_give_class_and_split(tmp_path: Path) -> None:
    (tmp_path / "Train" / "yes").mkdir(parents=True)
    (tmp_path / "__MACOSX").mkdir()
    assert labels.has_splits(tmp_path)
    assert labels.folder_label(tmp_path, tmp_path / "Train" / "yes" / "p" / "1.dcm", splits=True) == ("yes", "train")
    assert labels.folder_label(tmp_path, tmp_path / "Train" / "1.dcm", splits=True) is None
    assert labels.folder_label(tmp_path, tmp_path / "yes" / "1.dcm", splits=False) == ("yes", None)
    assert labels.folder_label(tmp_path, tmp_path / "1.dcm", splits=False) is None
    (tmp_path / "DOE^JANE").mkdir()
    with pytest.raises(zooft.DataError, match=r"split folders \(train\) and 1 others beside them"):
        labels.has_splits(tmp_path)
