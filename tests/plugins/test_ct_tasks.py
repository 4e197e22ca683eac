"""CT with numbers and grades in columns of the table of labels: targets in their places, and nobody's name in a message."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from commands import command
from sklearn import metrics as theirs

import zooft
from zooft.hooks import registry
from zooft_ct import demo, phantom
from zooft_ct.options import OrdinalOptions, RegressionOptions

SIZE = phantom.Size(pixels=64, slices=4)
PATIENTS = 12


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Phantoms without any labels."""
    root = tmp_path / "data"
    demo.generate(root, patients=PATIENTS, seed=2, size=SIZE)
    for name in ("labels.csv", "slice_labels.csv"):
        (root / name).unlink()
    return root


def slices(data: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(data.rglob("*.dcm"))]


def ages(data: Path) -> dict[str, tuple[str, float]]:
    """SeriesInstanceUID to PatientID and age, as the files have them."""
    return {one.SeriesInstanceUID: (one.PatientID, float(one.PatientAge.removesuffix("Y"))) for one in slices(data)}


def write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def write_ages(data: Path) -> None:
    write(
        data / "labels.csv",
        ("patient_id", "series_uid", "age [years]", "note"),
        [(patient, series, age, "x") for series, (patient, age) in ages(data).items()],
    )


def find(name: str, data: Path, options: object) -> zooft.Discovery:
    found: zooft.Discovery = registry.load().task(name).discover(data, options)
    return found


def test_every_slice_has_the_number_of_its_series(data: Path) -> None:
    write_ages(data)
    found = find("ct-regression", data, RegressionOptions(mode="slice", targets=("age [years]",), hu_cache="off"))
    wanted = ages(data)
    assert len(found.samples) == PATIENTS * SIZE.slices
    for sample in found.samples:
        assert sample.target == (wanted[sample.source.slices[0].series_uid][1],)
    assert found.labels == (zooft.Label(name="age", unit="years"),)
    assert (found.group_rule, found.group_name) == ("", "patient")
    assert len({sample.group for sample in found.samples}) == PATIENTS
    assert not any("PHANTOM" in f"{sample.id}{sample.group}" for sample in found.samples)


def test_numbers_of_slices_make_the_largest_speak_for_a_patient(data: Path) -> None:
    heights = {one.SOPInstanceUID: float(one.ImagePositionPatient[2]) for one in slices(data)}
    write(
        data / "slice_labels.csv",
        ("series_uid", "sop_uid", "height [mm]"),
        [(one.SeriesInstanceUID, one.SOPInstanceUID, heights[one.SOPInstanceUID]) for one in slices(data)],
    )
    found = find("ct-regression", data, RegressionOptions(mode="slice", hu_cache="off"))
    assert found.group_rule == "max"
    for sample in found.samples:
        assert sample.target == (heights[sample.source.slices[0].sop_uid],)


def test_grades_are_in_the_order_that_is_given(data: Path) -> None:
    rows = [(series, ("none", "mild", "severe")[number % 3]) for number, series in enumerate(ages(data))]
    write(data / "labels.csv", ("series_uid", "severity"), rows)
    options = OrdinalOptions(mode="volume", slices=4, grades=("none", "mild", "severe"), hu_cache="off")
    found = find("ct-ordinal", data, options)
    places = {series: ("none", "mild", "severe").index(grade) for series, grade in rows}
    assert [sample.target for sample in found.samples] == [
        places[sample.source.slices[0].series_uid] for sample in found.samples
    ]


def test_a_line_that_cannot_be_used_is_named_and_what_stands_in_it_is_not(data: Path) -> None:
    rows = [[series, age] for series, (_, age) in ages(data).items()]
    rows[1][1], rows[2][1] = "Miller, Anna", ""  # type: ignore[assignment, call-overload]
    write(data / "labels.csv", ("series_uid", "age"), rows)
    found = find("ct-regression", data, RegressionOptions(mode="volume", slices=4, hu_cache="off"))
    reasons = {rejection.id: rejection.reason for rejection in found.rejected}
    assert reasons["labels.csv, line 3"] == "age is '…, …', no number; expected one number without a unit, such as 12.5"
    assert reasons["labels.csv, line 4"] == "age is empty; expected one number without a unit, such as 12.5"
    assert len(found.samples) == PATIENTS - 2


def test_a_column_of_names_is_refused_without_naming_anybody(data: Path) -> None:
    rows = [(series, f"Miller-{number}") for number, series in enumerate(ages(data))]
    write(data / "labels.csv", ("series_uid", "severity"), rows)
    with pytest.raises(zooft.DataError, match=r"labels\.csv: .*severity.* aren't whole numbers") as caught:
        find("ct-ordinal", data, OrdinalOptions(hu_cache="off"))
    assert "Miller" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_column_of_patients_numbers_is_refused(data: Path) -> None:
    for path in data.rglob("*.dcm"):
        one = pydicom.dcmread(path)
        one.PatientID = str(9000 + int(one.PatientID[-4:]))
        one.save_as(path)
    rows = [(series, patient) for series, (patient, _) in ages(data).items()]
    write(data / "labels.csv", ("series_uid", "age"), rows)
    with pytest.raises(zooft.DataError, match="what names their own patient or images") as caught:
        find("ct-regression", data, RegressionOptions(hu_cache="off"))
    assert "9001" not in str(caught.value)


def test_what_is_to_be_learnt_must_be_clear(data: Path) -> None:
    with pytest.raises(zooft.DataError, match=r"write labels\.csv \(patient_id, series_uid or path, and the columns"):
        find("ct-regression", data, RegressionOptions(hu_cache="off"))
    write_ages(data)
    with pytest.raises(zooft.DataError, match=r"2 columns that may be targets.*--targets"):
        find("ct-regression", data, RegressionOptions(hu_cache="off"))
    with pytest.raises(zooft.DataError, match=r"no column 'age \[year\]' to learn; nearest: age \[years\]"):
        find("ct-regression", data, RegressionOptions(targets=("age [year]",), hu_cache="off"))


@pytest.mark.parametrize(("name", "flags"), [("ct-regression", ("--units", "--loss")), ("ct-ordinal", ("--grades",))])
def test_help_has_the_options_of_ct_and_of_the_problem(name: str, flags: Sequence[str]) -> None:
    shown = command("finetune", "--task", name, "--help").stdout
    for flag in ("--mode", "--window", "--group-by", "--targets", *flags):
        assert f"  {flag} " in shown
    assert "--operating-point" not in shown


def test_help_of_classes_is_as_it_was() -> None:
    shown = command("finetune", "--task", "ct", "--help").stdout
    for flag in (
        "--mode",
        "--window",
        "--group-by",
        "--positive",
        "--operating-point",
        "--class-weights",
        "--hu-cache",
    ):
        assert f"  {flag} " in shown
    assert "--targets" not in shown


def test_numbers_are_learnt_from_series_to_a_verified_file_that_predicts_them(data: Path, tmp_path: Path) -> None:
    write_ages(data)
    run = tmp_path / "run"
    command(
        "finetune", "--task", "ct-regression", "--targets", "age [years]", "--mode", "slice", "--backbone", "timm:test_resnet",
        "--weights", "random", "--data", data, "--out", run, "--epochs", "3", "--bootstrap", "0", "--hu-cache", "off",
    )  # fmt: skip
    assert json.loads((run / "verification.json").read_text())["passed"] is True
    with (run / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    true, predicted = (np.array([float(row[name].split()[0]) for row in rows]) for name in ("target", "prediction"))
    figures = json.loads(command("evaluate", run, "--data", data, "--json", "--bootstrap", "0").stdout)["metrics"]
    assert figures["mae"]["value"] == pytest.approx(theirs.mean_absolute_error(true, predicted), abs=1e-2)
    text = "".join(path.read_text() for path in run.rglob("*") if path.suffix in {".json", ".csv", ".html", ".jsonl"})
    assert "PHANTOM-" not in text
    assert not any(series in text for series in ages(data))
    shown = command("predict", run / "model.onnx", data / "dicom" / "PHANTOM-0003").stdout
    assert " years" in shown
    assert "PHANTOM" not in shown
