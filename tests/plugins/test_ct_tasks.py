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
from zooft_ct.options import MultilabelOptions, MultitaskOptions, OrdinalOptions, RegressionOptions

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
    expected = ages(data)
    assert len(found.samples) == PATIENTS * SIZE.slices
    for sample in found.samples:
        assert sample.target == (expected[sample.source.slices[0].series_uid][1],)
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


def findings(data: Path) -> dict[str, tuple[str, bool, bool | None]]:
    """SeriesInstanceUID to PatientID, whether it is of a patient of odd number, and of a sharp kernel; that isn't known of every fourth."""
    found = {}
    for one in slices(data):
        number = int(one.PatientID[-4:])
        sharp = None if number % 4 == 3 else one.ConvolutionKernel == "SHARP"
        found[one.SeriesInstanceUID] = (one.PatientID, number % 2 == 1, sharp)
    return found


def write_findings(data: Path) -> None:
    message = {True: "1", False: "0", None: ""}
    rows = [
        (patient, series, message[odd], message[sharp], "x") for series, (patient, odd, sharp) in findings(data).items()
    ]
    write(data / "labels.csv", ("patient_id", "series_uid", "nodule", "sharp", "note"), rows)


def test_every_slice_has_the_labels_of_its_series_and_an_empty_cell_is_unknown(data: Path) -> None:
    write_findings(data)
    options = MultilabelOptions(mode="slice", targets=("nodule", "sharp"), hu_cache="off")
    found = find("ct-multilabel", data, options)
    expected = findings(data)
    assert len(found.samples) == PATIENTS * SIZE.slices
    for sample in found.samples:
        assert sample.target == expected[sample.source.slices[0].series_uid][1:]
    assert [label.name for label in found.labels] == ["nodule", "sharp"]
    assert (found.group_rule, found.group_name) == ("mean", "patient")  # as of classes
    assert any("3 of 12 rows don't know sharp (empty cells)" in note for note in found.notes)
    assert any("note" in note and "used" in note for note in found.notes)


def test_one_column_lists_labels_and_an_empty_one_is_left_out_unless_it_means_none(data: Path) -> None:
    expected = {
        series: ["nodule"] * odd + ["sharp"] * bool(sharp) for series, (_, odd, sharp) in findings(data).items()
    }
    write(data / "labels.csv", ("series_uid", "labels"), [(series, ";".join(own)) for series, own in expected.items()])
    empty = sum(not own for own in expected.values())
    assert empty
    known = find("ct-multilabel", data, MultilabelOptions(mode="volume", slices=4, hu_cache="off"))
    assert len(known.samples) == PATIENTS - empty
    faults = [one.reason for one in known.rejected if "line" in one.id]
    assert len(faults) == empty
    assert all("--empty-means none" in reason for reason in faults)
    options = MultilabelOptions(mode="volume", slices=4, empty_means="none", hu_cache="off")
    for sample in find("ct-multilabel", data, options).samples:
        own = expected[sample.source.slices[0].series_uid]
        assert sample.target == ("nodule" in own, "sharp" in own)


def test_labels_of_slices_make_a_patient_have_what_any_slice_has(data: Path) -> None:
    rows = [(one.SeriesInstanceUID, one.SOPInstanceUID, one.InstanceNumber % 2, "") for one in slices(data)]
    rows[0] = (*rows[0][:3], "1")
    write(data / "slice_labels.csv", ("series_uid", "sop_uid", "odd", "rare"), rows)
    found = find("ct-multilabel", data, MultilabelOptions(mode="slice", targets=("odd", "rare"), hu_cache="off"))
    assert found.group_rule == ""
    assert registry.load().task("ct-multilabel").problem.evaluation.rules[0] == "max"
    by_uid = {uid: bool(odd) for _, uid, odd, _ in rows}
    assert all(sample.target[0] is by_uid[sample.source.slices[0].sop_uid] for sample in found.samples)


def test_what_stands_in_a_cell_that_says_neither_yes_nor_no_is_not_shown(data: Path) -> None:
    rows = [[series, "1" if odd else "0", "0"] for series, (_, odd, _) in findings(data).items()]
    rows[1][1], rows[2][2] = "Miller, Anna", "1"
    write(data / "labels.csv", ("series_uid", "nodule", "other"), rows)
    options = MultilabelOptions(mode="volume", slices=4, targets=("nodule", "other"), hu_cache="off")
    found = find("ct-multilabel", data, options)
    reasons = {rejection.id: rejection.reason for rejection in found.rejected}
    assert reasons["labels.csv, line 3"].startswith("nodule is '…, …'; expected 1 or 0, yes or no")
    assert "Miller" not in repr(found)


def test_a_list_of_patients_names_is_refused(data: Path) -> None:
    names = {one.SeriesInstanceUID: str(one.PatientID) for one in slices(data)}
    write(data / "labels.csv", ("series_uid", "labels"), list(names.items()))
    with pytest.raises(zooft.DataError, match="what names their own patient or images") as caught:
        find("ct-multilabel", data, MultilabelOptions(hu_cache="off"))
    assert "PHANTOM" not in str(caught.value)


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


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("ct-regression", ("--units", "--loss")),
        ("ct-ordinal", ("--grades",)),
        ("ct-multilabel", ("--multilabel-loss", "--empty-means")),
    ],
)
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
        "finetune",
        "--task",
        "ct-regression",
        "--targets",
        "age [years]",
        "--mode",
        "slice",
        "--backbone",
        "timm:test_resnet",
        "--weights",
        "random",
        "--data",
        data,
        "--out",
        run,
        "--epochs",
        "3",
        "--bootstrap",
        "0",
        "--hu-cache",
        "off",
    )
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


def test_several_labels_are_learnt_from_series_to_a_verified_file_that_finds_them(data: Path, tmp_path: Path) -> None:
    write_findings(data)
    run = tmp_path / "run"
    command(
        "finetune",
        "--task",
        "ct-multilabel",
        "--targets",
        "nodule,sharp",
        "--mode",
        "slice",
        "--backbone",
        "timm:tf_efficientnet_lite0",
        "--data",
        data,
        "--out",
        run,
        "--epochs",
        "4",
        "--lr",
        "0.05",
        "--bootstrap",
        "0",
        "--hu-cache",
        "off",
        "--val-fraction",
        "0.5",
    )
    assert json.loads((run / "verification.json").read_text())["passed"] is True
    with (run / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    figures = json.loads(command("evaluate", run, "--data", data, "--json", "--bootstrap", "0").stdout)
    of_file = json.loads(
        command("evaluate", run / "model.onnx", "--data", data, "--split", "val", "--json", "--bootstrap", "0").stdout
    )
    for values in (figures, of_file):
        assert values["metrics"]["map"]["value"] == pytest.approx(mean_ap(rows), abs=1e-3)
        assert values["group_metrics"]["map"]["value"] == pytest.approx(mean_ap(by_patient(rows)), abs=1e-3)
    text = "".join(path.read_text() for path in run.rglob("*") if path.suffix in {".json", ".csv", ".html", ".jsonl"})
    assert "PHANTOM-" not in text
    assert not any(series in text for series in findings(data))
    shown = command("predict", run / "model.onnx", data / "dicom" / "PHANTOM-0003", "--format", "json").stdout
    (patient,) = json.loads(shown)["predictions"]
    assert set(patient["probabilities"]) == {"nodule", "sharp"}
    assert "PHANTOM" not in shown


def mean_ap(rows: Sequence[dict[str, str]]) -> float:
    """The mean of scikit-learn's average precisions, each on the rows that know the label and where it is there in some."""
    found = []
    for name in ("nodule", "sharp"):
        known = [row for row in rows if f"?{name}" not in row["target"]]
        true = [name in row["target"].split(";") for row in known]
        if 0 < sum(true) < len(true):
            found.append(theirs.average_precision_score(true, [float(row[f"p({name})"]) for row in known]))
    return float(np.mean(found))


def by_patient(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """A row a patient, with the mean probabilities of its slices; all have the series' labels."""
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    columns = ("p(nodule)", "p(sharp)")
    return [
        {**own[0], **{name: str(np.mean([float(row[name]) for row in own])) for name in columns}}
        for own in groups.values()
    ]


TOML = """
[targets.kernel]
problem = "classification"

[targets.age]
problem = "regression"
unit = "years"
"""


def write_several(data: Path) -> None:
    rows = [
        (one.SeriesInstanceUID, one.ConvolutionKernel.lower(), float(one.PatientAge.removesuffix("Y")), "x")
        for one in {one.SeriesInstanceUID: one for one in slices(data)}.values()
    ]
    write(data / "labels.csv", ("series_uid", "kernel", "age", "note"), rows)


def test_several_answers_about_one_series_have_one_file(data: Path, tmp_path: Path) -> None:
    write_several(data)
    (tmp_path / "targets.toml").write_text(TOML)
    run = tmp_path / "run"
    command(
        "finetune",
        "--task",
        "ct-multitask",
        "--targets-file",
        tmp_path / "targets.toml",
        "--mode",
        "slice",
        "--backbone",
        "timm:test_resnet",
        "--weights",
        "random",
        "--data",
        data,
        "--out",
        run,
        "--epochs",
        "2",
        "--bootstrap",
        "0",
        "--hu-cache",
        "off",
        "--val-fraction",
        "0.5",
    )
    assert json.loads((run / "verification.json").read_text())["passed"] is True
    figures = json.loads(command("evaluate", run, "--data", data, "--json", "--bootstrap", "0").stdout)
    of_file = json.loads(
        command("evaluate", run / "model.onnx", "--data", data, "--split", "val", "--json", "--bootstrap", "0").stdout
    )
    with (run / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    true = [float(row["target"].partition("age ")[2].split()[0]) for row in rows]
    kernels = [row["target"].split()[1].rstrip(";") for row in rows]
    for values in (figures, of_file):
        found = values["metrics"]
        mae = theirs.mean_absolute_error(true, [float(row["age [years]"]) for row in rows])
        accuracy = theirs.accuracy_score(kernels, [row["kernel class"] for row in rows])
        assert found["mae/age"]["value"] == pytest.approx(mae, abs=1e-2)
        assert found["accuracy/kernel"]["value"] == pytest.approx(accuracy, abs=1e-6)
    text = "".join(path.read_text() for path in run.rglob("*") if path.suffix in {".json", ".csv", ".html", ".jsonl"})
    assert "PHANTOM-" not in text
    assert not any(series in text for series in ages(data))
    shown = command("predict", run / "model.onnx", data / "dicom" / "PHANTOM-0003").stdout
    assert " years" in shown
    assert "PHANTOM" not in shown


def test_one_of_several_columns_that_names_patients_is_refused(data: Path) -> None:
    rows = [(series, patient, age) for series, (patient, age) in ages(data).items()]
    write(data / "labels.csv", ("series_uid", "kernel", "age"), rows)
    with pytest.raises(zooft.DataError, match=r"in 12 of 12 lines.* what names their own patient") as caught:
        find("ct-multitask", data, MultitaskOptions(targets_toml=TOML, hu_cache="off"))
    assert "PHANTOM" not in str(caught.value)
