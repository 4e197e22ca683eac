"""Runs side by side, in the terminal, as JSON and as a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from browser import browser
from click.testing import CliRunner, Result
from run_records import data_record, run_record

from zooft.cli.compare import compare as command
from zooft.compute.resources import Resources
from zooft.contracts import class_labels
from zooft.errors import ConfigError, RunError
from zooft.report import comparison
from zooft.run import folder as runs
from zooft.run.record import write_record

FIGURE = {"value": 0.91, "low": 0.85, "high": 0.97}


def write(
    folder: Path,
    *,
    config: Mapping[str, Any] = {},
    evaluation: Mapping[str, Any] | None = None,
    fingerprint: str = "f",
    held_out: Sequence[str] = ("a", "b"),
    verified: bool | None = True,
    classes: Sequence[str] = ("no", "yes"),
) -> Path:
    """A run folder with what a comparison reads of it."""
    folder.mkdir(parents=True)
    if evaluation is None:
        evaluation = {
            "val": {
                "metrics": {"auroc": FIGURE, "brier": {"value": None, "low": None, "high": None}},
                "smaller": ["brier"],
            }
        }
    write_record(
        folder,
        run_record(
            labels=class_labels(classes),
            data=data_record(fingerprint=fingerprint),
            evaluation=evaluation,
            config={"lr": 0.005, "epochs": 2, "data": "/somewhere", "out": str(folder), **config},
            resources=Resources(seconds={"training": 75.0}, peak_memory_mb=900),
            fitted={"temperature": 1.0, "threshold": None, "fitted_on": ""},
        ),
    )
    runs.write_json_lines(folder / runs.EPOCHS_FILE, ({"epoch": n, "seconds": float(n)} for n in (1, 2, 3)))
    rows = "".join(f"{name},no,,val\n" for name in held_out)
    (folder / runs.SAMPLES_FILE).write_text(f"id,target,group,split\n{rows}", encoding="utf-8")
    if verified is not None:
        (folder / runs.ONNX_FILE).write_bytes(bytes(2_500_000))
        runs.write_json(
            folder / runs.VERIFICATION_FILE,
            {
                "passed": verified,
                "samples": 40,
                "data": "real",
                "relative_rms": 2e-7,
                "agreement": 1.0,
                "outputs": {"probabilities": {"measure": "absolute", "whole": 2e-7}},
            },
        )
    return folder


def called(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


def test_only_the_settings_that_differ_are_listed(tmp_path: Path) -> None:
    found = comparison.compare([write(tmp_path / "a"), write(tmp_path / "b", config={"lr": 0.01, "folds": 5})])
    assert {line.name: line.values for line in found.settings} == {"lr": (0.005, 0.01), "folds": (None, 5)}


def test_figures_stand_beside_each_other_with_their_intervals(tmp_path: Path) -> None:
    other = {
        "test": {"metrics": {"auroc": {"value": 0.8, "low": 0.7, "high": 0.9}}, "group_metrics": {"auroc": FIGURE}},
        "val": {"metrics": {"auroc": {**FIGURE, "value": 0.5}}},
    }
    found = comparison.compare([write(tmp_path / "a"), write(tmp_path / "b", evaluation=other)])
    shown = {table.title: table.rows for table in comparison.tables(found)}
    assert shown["Validation samples, per sample"][0] == ("AUROC", "0.910 (0.850 to 0.970)", "0.500 (0.850 to 0.970)")
    assert shown["Validation samples, per sample"][1] == ("Brier (smaller is better)", "undefined", "")
    assert shown["Test samples, per group"] == (("AUROC", "", "0.910 (0.850 to 0.970)"),)


def test_runs_on_the_same_samples_are_compared_without_a_warning(tmp_path: Path) -> None:
    evaluation = {"test": {"metrics": {"auroc": FIGURE}}}
    found = comparison.compare([write(tmp_path / name, evaluation=evaluation) for name in "ab"])
    assert found.notes == ()
    assert all(part.comparable for part in found.figures)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"fingerprint": "g"}, "different data"),
        ({"held_out": ("a", "c")}, "hold out different samples"),
        ({"classes": ("no", "maybe")}, "different labels"),
    ],
)
def test_a_comparison_that_misleads_says_so(tmp_path: Path, other: dict[str, Any], words: str) -> None:
    found = comparison.compare([write(tmp_path / "a"), write(tmp_path / "b", **other)])
    assert any(words in note for note in found.notes)
    if "classes" not in other:
        assert not any(part.comparable for part in found.figures)
        assert "measured on different samples" in comparison.tables(found)[0].title


def test_the_best_of_several_runs_by_validation_is_reported_to_be_optimistic(tmp_path: Path) -> None:
    found = comparison.compare([write(tmp_path / "a"), write(tmp_path / "b")])
    assert any("optimistic" in note for note in found.notes)


def test_time_size_and_verification_are_shown(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a"), write(tmp_path / "b", verified=False), write(tmp_path / "c", verified=None)]
    shown = {row[0]: row[1:] for table in comparison.tables(comparison.compare(paths)) for row in table.rows}
    assert shown["An epoch, median"] == ("2.0 s",) * 3
    assert shown["Training"] == ("1 min 15 s",) * 3
    assert shown["Peak memory (MB)"] == ("900",) * 3
    assert shown["ONNX file"] == ("verified", "refused", "no file")
    assert shown["Size of the ONNX file"] == ("2.5 MB", "2.5 MB", "")
    assert shown["Largest difference of probabilities"] == ("2.0e-07", "2.0e-07", "")


def test_the_terminal_the_page_and_json_say_the_same(tmp_path: Path) -> None:
    first, second = write(tmp_path / "<b>a"), write(tmp_path / "second", config={"lr": 0.01})
    page = tmp_path / "page.html"
    printed = called(first, second, "--html", page)
    assert printed.exit_code == 0
    assert "0.910 (0.850 to 0.970)" in printed.stdout
    html = page.read_text(encoding="utf-8")
    assert "0.910 (0.850 to 0.970)" in html
    assert "&lt;b&gt;a" in html
    assert "<b>a" not in html
    found = json.loads(called(first, second, "--json").stdout)
    assert found["runs"] == ["<b>a", "second"]
    assert found["figures"][0]["metrics"]["auroc"][0] == FIGURE
    assert found["settings"] == [{"name": "lr", "values": [0.005, 0.01]}]


def test_one_run_alone_is_refused(tmp_path: Path) -> None:
    refused = called(write(tmp_path / "a"))
    assert refused.exit_code == 2
    assert "name two or more" in refused.stderr


def test_a_run_that_did_not_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="didn't end"):
        comparison.compare([write(tmp_path / "a"), write(tmp_path / "b", evaluation={})])


def test_a_damaged_run_is_refused(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a"), write(tmp_path / "b")]
    (paths[1] / runs.EPOCHS_FILE).write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="can't be read"):
        comparison.compare(paths)


def test_folders_of_one_name_are_distinguished(tmp_path: Path) -> None:
    found = comparison.compare([write(tmp_path / "x" / "run"), write(tmp_path / "y" / "run")])
    assert len(set(found.runs)) == 2


def test_the_page_fits_a_phone(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    paths = [write(tmp_path / f"a run with a rather long name {i}", config={"lr": i}) for i in range(5)]
    page.write_text(comparison.to_html(comparison.compare(paths)), encoding="utf-8")
    with browser(tmp_path / "profile") as shown:
        shown.open(page, width=390)
        assert shown.evaluate("document.documentElement.scrollWidth") == 390
        assert shown.complaints == []


def test_a_page_overwrites_nothing_but_a_page(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name) for name in ("a", "b"))
    page, model = tmp_path / "page.html", tmp_path / "model.onnx"
    model.write_bytes(b"a model")
    for wrong, words in (
        (model, "exists and isn't a page"),
        (tmp_path, "is a folder; name a file in it"),
        (tmp_path / "none" / "page.html", "there is no folder"),
    ):
        with pytest.raises(ConfigError, match=words):
            called(first, second, "--html", wrong)
    assert model.read_bytes() == b"a model"
    for _ in range(2):  # a page of an earlier command is written anew
        called(first, second, "--html", page)
        assert page.read_bytes().startswith(b"<!DOCTYPE html>")
