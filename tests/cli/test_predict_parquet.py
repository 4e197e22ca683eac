"""``zooft predict --out a.parquet``: the columns of CSV with types, read by pyarrow; resumed, and over nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from commands import command
from test_predict import CLASSES, count_asked, model, pictures, several, truth

from zooft.contracts import Label
from zooft.deploy import formats, parquet
from zooft.deploy import predict as answers
from zooft.deploy.journal import Journal
from zooft.problems.regression import regression

pq = pytest.importorskip("pyarrow.parquet", reason="pip install 'zooft[parquet]' to read what is written")
__all__ = ["model", "pictures"]


def test_numbers_are_numbers_and_blanks_are_null(model: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    command("predict", model, pictures, "--out", out, status=3)
    table = pq.read_table(out)
    assert table.column_names == ["file", "class", *(f"p({name})" for name in CLASSES), "error"]
    assert [str(field.type) for field in table.schema] == ["string", "string", *["double"] * len(CLASSES), "string"]
    *whole, torn = table.to_pylist()
    for row, path in zip(whole, sorted(pictures.glob("[012].png")), strict=True):
        found = [row[f"p({name})"] for name in CLASSES]
        assert found == pytest.approx(truth(path), abs=1e-7)
        assert (row["file"], row["class"], row["error"]) == (str(path), CLASSES[found.index(max(found))], None)
    assert torn["file"].endswith("torn.png")
    assert torn["error"]
    assert all(value is None for name, value in torn.items() if name not in ("file", "error"))
    assert json.loads(table.schema.metadata[b"zooft_predict"])["classes"] == CLASSES


def test_a_stopped_command_is_resumed(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many, out = several(tmp_path / "p", 6), tmp_path / "a.parquet"
    command("predict", model, many, "--out", tmp_path / "whole.parquet")
    with monkeypatch.context() as patch:
        real = Journal.add

        def add(self: Journal, *given: Any) -> None:
            real(self, *given)
            if len(self) == 4:
                raise OSError(28, "No space left on device")

        patch.setattr(Journal, "add", add)
        command("predict", model, many, "--out", out, status=1)
    assert not out.exists()
    assert count_asked(lambda: command("predict", model, many, "--out", out, "--resume")) == 2
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))


def test_only_a_file_is_written_and_over_nothing_but_a_result(model: Path, pictures: Path, tmp_path: Path) -> None:
    import pyarrow as pa

    assert "name it with --out" in command("predict", model, pictures, "--format", "parquet", status=2).stderr
    inside = command("predict", model, pictures, "--out", pictures / "a.parquet", status=2)
    assert "would take a Parquet file for data" in inside.stderr
    out = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"file": ["a.png"], "class": ["ant"], "error": [None]}), out)
    mine = out.read_bytes()
    assert "isn't what predict writes" in command("predict", model, pictures, "--out", out, status=2).stderr
    assert out.read_bytes() == mine
    again = tmp_path / "again.parquet"
    for _ in range(2):
        command("predict", model, pictures, "--out", again, status=3)
    assert sorted(path.name for path in tmp_path.glob("*again*")) == ["again.parquet"]


def test_without_pyarrow_nothing_is_computed(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet.importlib.util, "find_spec", lambda _name: None)
    done = command("predict", model, pictures, "--out", tmp_path / "a.parquet", status=2)
    assert "pip install 'zooft[parquet]'" in done.stderr
    assert list(tmp_path.glob("a.parquet*")) == []


def test_more_answers_than_a_group_of_rows_and_facts_of_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_ROWS", 7)
    labels = (Label(name="diameter", unit="mm"),)
    layout = formats.Layout(
        key="patient", labels=labels, presentation=regression().presentation, facts=("samples", "decisive"), about={}
    )
    (column,) = layout.columns

    def made() -> Iterable[answers.Answer]:
        for number in range(20):
            yield answers.Answer(
                key=f"p{number}\udcff",
                cells={} if number == 3 else {column: number if number % 2 else number / 4},
                facts={"samples": number, "decisive": "" if number == 3 else f"s{number}"},
                error="unreadable" if number == 3 else "",
            )

    with (tmp_path / "a.parquet").open("wb") as file:
        parquet.write(file, layout, made)
    read = pq.ParquetFile(tmp_path / "a.parquet")
    assert (read.num_row_groups, read.metadata.num_rows) == (3, 20)
    rows = read.read().to_pylist()
    assert [row["samples"] for row in rows] == list(range(20))
    assert rows[3] == {"patient": "p3\\udcff", column: None, "samples": 3, "decisive": None, "error": "unreadable"}
    assert [row[column] for row in rows[:3]] == [0.0, 1.0, 0.5]
