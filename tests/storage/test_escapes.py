"""Names that a terminal would obey or a spreadsheet would compute: harmless where they are shown, and found again."""

from __future__ import annotations

import csv
import io
import json
import logging
from pathlib import Path

import example_data
import pytest
from commands import command
from hypothesis import given
from hypothesis import strategies as st

from zooft.storage import csv_files, escapes

# Few characters, so that marks that look like ours come up by chance; file names that aren't UTF-8 hold surrogates.
NASTY = st.text(st.sampled_from("\\xu01bn'=+-@.5 \t\r\n\x1b\x85\u202e\u2028\udcffaé\uff1d"), max_size=12)
FORMULAS = ['=HYPERLINK("http:x","y")', "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", " =1", "＝1+1", "'=1"]
ORDERS = ["\x1b[31mred", "bell\x07", "back\x08", "\x9b5m", "two\nlines", "return\r", "\u202etxt.exe", "line\u2028break"]
QUICK = (
    "--backbone",
    "timm:test_resnet",
    "--weights",
    "random",
    "--epochs",
    "1",
    "--bootstrap",
    "0",
    "--no-report",
    "--no-audit",
    "--no-export",
    "--device",
    "cpu",
)


@given(NASTY)
def test_what_is_hidden_is_found_again(text: str) -> None:
    assert escapes.unescape(escapes.visible(text)) == text
    assert escapes.from_cell(escapes.cell(text)) == text


@given(NASTY)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    """By Python's own word for it: neither control characters nor line breaks nor surrogates can be printed."""
    left = [c for c in escapes.visible(text) if not c.isprintable()]
    assert left == []


@given(NASTY)
def test_no_cell_begins_as_a_formula_does(text: str) -> None:
    cell = escapes.cell(text).lstrip()
    assert not cell.startswith(("=", "+", "@", "\t", "\r", "＝"))
    if cell.startswith("-"):
        float(cell)  # a number


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_gets_an_apostrophe(text: str) -> None:
    assert escapes.cell(text).startswith("'")


@pytest.mark.parametrize(
    "text", ["a", "", "2=1+1", "folder/-1.png", "C:\\new\\x.png", "it's", "'quoted'", "Ω", "-1", "-2.5e-3"]
)
def test_what_is_harmless_stays_as_it_is(text: str) -> None:
    assert escapes.cell(text) == text


@given(st.lists(st.tuples(NASTY, NASTY), max_size=5))
def test_a_table_goes_there_and_back_a_line_each_record(rows: list[tuple[str, str]]) -> None:
    file = io.StringIO(newline="")
    writer = csv_files.Writer(file)
    for row in rows:
        writer.row(row)
    assert len(file.getvalue().splitlines()) == len(rows)
    again = [tuple(map(escapes.from_cell, row)) for row in csv.reader(io.StringIO(file.getvalue()))]
    assert again == rows


def test_numbers_stay_numbers_with_all_their_digits(tmp_path: Path) -> None:
    csv_files.write(tmp_path / "t.csv", ("=a", "b"), [(-1.5, 0.1 + 0.2)])
    assert (tmp_path / "t.csv").read_text() == "'=a,b\n-1.5,0.30000000000000004\n"
    assert list(csv_files.read(tmp_path / "t.csv")) == [{"=a": "-1.5", "b": "0.30000000000000004"}]


def test_a_table_that_is_torn_is_not_read_as_a_whole_one(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n1,2\n"3')
    with pytest.raises(ValueError):
        list(csv_files.read(tmp_path / "t.csv"))


@given(NASTY)
def test_json_stays_the_same_json(text: str) -> None:
    shown = escapes.in_json(json.dumps({"a": [text]}, indent=2, ensure_ascii=False))
    assert json.loads(shown) == {"a": [text]}
    assert [c for c in shown if not c.isprintable() and c != "\n"] == []


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    """Class folders and files with the names of this test."""
    folder = tmp_path / "data"
    for label in (FORMULAS[0].replace("/", ""), "[red]b\x1b[31m\n  run:     /elsewhere"):
        for k in range(8):
            example_data.save(folder / label / f"=1+{k}.png", 40 if "HYPER" in label else 210, seed=k)
        (folder / label / "=bad\x1b[5m\nzooft: all is well.png").write_bytes(b"x")
    return folder


def test_a_run_on_such_names_writes_and_shows_them_harmless_and_knows_its_split_again(
    nasty: Path, tmp_path: Path
) -> None:
    done = command("finetune", "--task", "classification", "--data", nasty, "--out", tmp_path / "run", *QUICK)
    assert_harmless(done.stdout + done.stderr)
    for name in ("predictions.csv", "samples.csv", "rejected.csv"):
        text = (tmp_path / "run" / name).read_text(encoding="utf-8")
        assert_harmless(text)
        assert [c for row in csv.reader(io.StringIO(text)) for c in row if c.startswith(("=", "+", "@"))] == []
    evaluated = json.loads(command("evaluate", tmp_path / "run", "--bootstrap", "0", "--json").stdout)
    with (tmp_path / "run" / "samples.csv").open(newline="") as file:
        held_out = sum(row["split"] == "val" for row in csv.DictReader(file))
    assert (evaluated["split"], evaluated["samples"]) == ("val", held_out)
    assert_harmless(command("evaluate", tmp_path / "run", "--bootstrap", "0").stdout)


def assert_harmless(text: str) -> None:
    assert "\x1b" not in text
    assert [line for line in text.splitlines() if line.startswith(("zooft: all", "  run:     /elsewhere"))] == []


@pytest.mark.parametrize("name", ORDERS)
def test_an_error_shows_such_a_name_harmless(name: str) -> None:
    done = command("predict", f"{name}.onnx", "a.png", status=1)
    assert [c for c in done.stderr if not c.isprintable() and c != "\n"] == []
    assert done.stderr.startswith("zooft: there is no file")


def test_a_log_line_that_nobody_handles_is_harmless_too(capsys: pytest.CaptureFixture[str]) -> None:
    from zooft.cli import process

    assert logging.lastResort is not None
    before = logging.lastResort.formatter
    process.write_safely()
    try:
        logging.lastResort.handle(logging.makeLogRecord({"msg": "left out \x1b[31m\nzooft: all is well"}))
    finally:
        logging.lastResort.setFormatter(before)
    assert capsys.readouterr().err == "left out \\x1b[31m\n  zooft: all is well\n"


def test_a_log_line_is_reported_once_in_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    from zooft.cli import process

    assert logging.lastResort is not None
    before, filters = logging.lastResort.formatter, list(logging.lastResort.filters)
    try:
        for _command in range(2):
            process.write_safely()
            for text in ("the plugin mine is left out", "another", "the plugin mine is left out"):
                logging.lastResort.handle(logging.makeLogRecord({"msg": text}))
    finally:
        logging.lastResort.setFormatter(before)
        logging.lastResort.filters[:] = filters
    assert capsys.readouterr().err == "the plugin mine is left out\nanother\n" * 2


def test_only_one_module_of_the_command_line_writes() -> None:
    """So that nothing reaches a terminal but through it."""
    folder = example_data.REPOSITORY / "zooft" / "cli"
    allowed = {"screen.py", "exit_status.py"}
    writing = [
        path.name
        for path in folder.glob("*.py")
        if path.name not in allowed
        and any(word in path.read_text() for word in ("click.echo", "click.secho", "stdout.write", " print("))
    ]
    assert writing == []
