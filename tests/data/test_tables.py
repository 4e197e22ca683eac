"""CSV files that people give: every cell as Python's own writer wrote it, and nothing that can't be trusted."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

import zooft


def written(folder: Path, text: str | bytes, *, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(folder: Path, text: str | bytes, **how: bool) -> str:
    with pytest.raises(zooft.DataError) as caught:
        zooft.read_csv(written(folder, text), **how)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_cells_are_what_pythons_own_writer_was_given(tmp_path: Path, separator: str, encoding: str) -> None:
    drawn = random.Random(7)  # noqa: S311 -- not a secret
    letters = "a0 .,;|'\"\\/üµ中🙂e\u0301\u200b"
    cells = [["".join(drawn.choices(letters, k=drawn.randrange(9))).strip() for _ in range(3)] for _ in range(200)]
    path = tmp_path / "t.csv"
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=separator).writerows([["a", "b", "c"], *cells])
    table = zooft.read_csv(path)
    assert [list(row.values()) for _, row in table.rows] == [row for row in cells if any(row)]
    assert table.notes == (("t.csv is in UTF-16, and read as that",) if encoding == "utf-16" else ())


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_rows_have_the_numbers_that_an_editor_shows(tmp_path: Path, ending: str) -> None:
    text = "Path , LABEL\n\na.png,x\n , \n\nb.png,007\n".replace("\n", ending)
    table = zooft.read_csv(written(tmp_path, text))
    assert table.columns == ("path", "label")
    assert table.rows == ((3, {"path": "a.png", "label": "x"}), (6, {"path": "b.png", "label": "007"}))


def test_excels_first_line_says_what_separates(tmp_path: Path) -> None:
    table = zooft.read_csv(written(tmp_path, "sep=;\na;b,c\n1;2\n"))
    assert table.rows == ((3, {"a": "1", "b,c": "2"}),)


def test_missing_cells_and_names_of_columns_are_reported(tmp_path: Path) -> None:
    table = zooft.read_csv(written(tmp_path, ",a,b,\n0,1,2,\n1,3\n"))
    assert [row for _, row in table.rows] == [{"a": "1", "b": "2"}, {"a": "3", "b": ""}]
    assert "1 line of t.csv with fewer fields than columns, the first line 3" in table.notes[0]
    assert table.notes[1] == "2 columns of t.csv without a name, not used"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('a,b\n1,2\n3,"4\n5,6\n7,8\n', "line 3: a cell that begins with a quotation mark"),
        ('a,b\n1,"2\n3",4\n', "line 2: a cell that begins with a quotation mark"),
        ('a,b\n1,"2"3\n', "line 2: a cell that begins with a quotation mark"),
        ('"a,b\n1,2\n', "line 1: a cell that begins with a quotation mark"),
        ("a,b\n" + '1,"2\n' + "3,4\n" * 100_000, "line 2: a cell that begins with a quotation mark"),
        ("a,b\n1,DOE^J,2\n", "line 2, has more fields than the first line has columns: 3 and 2"),
        ("a,b,A\n1,2,3\n", "has the column a twice"),
        ("a,b\n1,2\n3,x\0DOE\n", "line 3, holds NUL characters"),
        ("a,b\n1,2\n".encode("utf-16-le"), "line 1, holds NUL characters"),
        ("a,b\n1,DOE\x1b[31m\n", "line 2, column 2, holds a tab, a line break or another control character"),
        ("a,b\n1,DOE\u2028JANE\n", "line 2, column 2, holds a tab, a line break"),
        ("a,b\n1," + "x" * 2001 + "\n", "line 2, has a cell of more than 2,000 characters"),
        ("a,b\n1,2\nü,x\n".encode("cp1252"), "isn't a CSV file in UTF-8: line 3 has other bytes, such as Windows-1252"),
        (b"PK\x03\x04 and so on", "isn't a CSV file but an Excel workbook"),
    ],
)
def test_what_cant_be_trusted_is_refused_by_its_line_and_never_repeated(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    message = refusal(tmp_path, text)
    assert words in message
    assert "DOE" not in message


def test_a_private_tables_columns_arent_repeated(tmp_path: Path) -> None:
    assert "has 1 column twice" in refusal(tmp_path, "DOE,DOE\n1,2\n", private=True)


def test_a_file_that_cant_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(zooft.DataError, match="can't be read: Is a directory"):
        zooft.read_csv(tmp_path)


def test_paths_of_other_systems_lead_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "bilder").mkdir()
    there = tmp_path / "bilder" / "gru\u0308n.png"
    there.touch()
    odd = tmp_path / "odd\\name.png"
    odd.touch()
    assert zooft.path_in_table(tmp_path, "bilder\\gr\u00fcn.png") == there
    assert zooft.path_in_table(tmp_path, "bilder/gru\u0308n.png") == there
    assert zooft.path_in_table(tmp_path, "odd\\name.png") == odd
    assert zooft.path_in_table(tmp_path, "bilder\\other.png") == tmp_path / "bilder\\other.png"
