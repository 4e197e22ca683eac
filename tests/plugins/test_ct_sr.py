"""Structured reports from headers as anonymisers leave them: written, or refused without a word of what is in them."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import UID, ct, multiframe, write

import zooft
from zooft_ct import discover, sr, task_parts, whois
from zooft_ct.discover import gather
from zooft_ct.options import ClassificationOptions

FILE = zooft.DeployedFile(
    problem="classification",
    labels=zooft.class_labels(("clear", "nodule")),
    fitted={"threshold": 0.5},
    backbone="timm:any",
    version="1",
    weights_sha256="0" * 64,
)
ANSWER = {"class": "nodule", "p(clear)": 0.25, "p(nodule)": 0.75}
COLUMNS = {"probabilities": np.array([0.25, 0.75])}
OPTIONS = ClassificationOptions(mode="slice")

pytest.importorskip("highdicom", reason="needs the extra 'ct-sr'")


@pytest.fixture(autouse=True)
def _own_key(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOOFT_KEY_FILE", str(tmp_path_factory.mktemp("key") / "key"))


def result(folder: Path, name: str, **elements: Any) -> zooft.GroupResult:
    """An answer about one slice of one patient."""
    study = {"SeriesInstanceUID": UID.format(name), "StudyInstanceUID": UID.format(f"{name}.2")}
    write(folder / name, ct(seed=int(name), **(study | elements)))
    samples = gather([folder / name], OPTIONS).samples
    return zooft.GroupResult(
        group=f"patient{name}",
        answer=ANSWER,
        columns=COLUMNS,
        members=samples,
        decisive=samples[0],
    )


def test_a_report_is_valid_though_the_headers_say_nothing_of_the_patient(tmp_path: Path) -> None:
    answer = result(tmp_path / "in", "11", PatientID=None)
    (path,) = sr.write([answer], FILE, tmp_path / "out", OPTIONS)
    report = pydicom.dcmread(path)
    assert (report.PatientID, report.PatientName, report.StudyDate) == ("", "", "")
    assert report.StudyInstanceUID == UID.format("11.2")
    if shutil.which("dciodvfy") is None:
        pytest.skip("the program dciodvfy judges the report")
    message = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True).stderr
    assert [line for line in message.splitlines() if line.startswith("Error")] == []


def test_a_report_overwrites_nothing_but_a_report(tmp_path: Path) -> None:
    answer, out = result(tmp_path / "in", "13"), tmp_path / "out"
    for _ in range(2):
        (path,) = sr.write([answer], FILE, out, OPTIONS)
    slice_ = (tmp_path / "in" / "13").read_bytes()
    for other in (b"mine", slice_):
        path.write_bytes(other)
        with pytest.raises(zooft.DataError, match=r"patient13.dcm exists and isn't a report of ours"):
            sr.write([answer], FILE, out, OPTIONS)
        assert path.read_bytes() == other


def test_a_report_says_which_class_is_positive(tmp_path: Path) -> None:
    (path,) = sr.write([result(tmp_path / "in", "12")], FILE, tmp_path / "out", OPTIONS)
    messages = {
        item.ConceptNameCodeSequence[0].CodeMeaning: item.ConceptCodeSequence[0].CodeMeaning
        for item in pydicom.dcmread(path).iterall()
        if item.VR == "SQ"
        for item in item.value
        if item.get("ValueType") == "CODE"
    }
    assert messages["Class that is looked for"] == "nodule"


def test_a_header_that_makes_no_report_costs_the_others_nothing_and_is_not_repeated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answers = [
        result(tmp_path / "in", "21", StudyInstanceUID=None, PatientName="CANARY"),
        result(tmp_path / "in", "22", PatientName="CANARY"),
        result(tmp_path / "in", "23"),
    ]
    spoilt = tmp_path / "in" / "23"
    dated = spoilt.read_bytes().replace(b"\x08\x00\x60\x00CS", b"\x08\x00\x20\x00DA\x08\x00CANARY42\x08\x00\x60\x00CS")
    spoilt.write_bytes(dated)
    with pytest.raises(zooft.DataError) as caught:
        sr.write(answers, FILE, tmp_path / "out", OPTIONS)
    text = str(caught.value)
    assert text.startswith("2 of 3 structured reports couldn't be written (any others are): patient21 (AttributeError)")
    assert "patient23 (ValueError)" in text
    assert "CANARY" not in text + "".join(capfd.readouterr())
    assert caught.value.__cause__ is None
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["patient22.dcm"]


def test_a_source_that_has_gone_is_no_fault_of_headers(tmp_path: Path) -> None:
    answers = [result(tmp_path / "in", "31"), result(tmp_path / "in", "32")]
    (tmp_path / "in" / "31").unlink()
    with pytest.raises(zooft.DataError) as caught:
        sr.write(answers, FILE, tmp_path / "out", OPTIONS)
    text = str(caught.value)
    assert "patient31: files can't be read or written (No such file or directory)" in text
    assert str(tmp_path) not in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["patient32.dcm"]


def enhanced(path: Path, frames: int = 5) -> Path:
    """An enhanced CT of one patient."""
    dataset = multiframe([ct(5.0 * number, seed=number) for number in range(frames)])
    return write(path, dataset)


def test_the_frame_that_decided_is_named_from_one_in_report_identity_and_whois(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    path = enhanced(tmp_path / "data" / "a.dcm")
    samples = gather([path], OPTIONS).samples
    deciding = next(sample for sample in samples if sample.source.slices[0].position[2] == 15.0)
    answer = zooft.GroupResult(group="patient", answer=ANSWER, columns=COLUMNS, members=samples, decisive=deciding)
    report = pydicom.dcmread(sr.write([answer], FILE, tmp_path / "out", OPTIONS)[0])
    frames = [element.value for element in report.iterall() if element.keyword == "ReferencedFrameNumber"]
    assert [int(number) for number in frames] == [4], "at 15 mm lies the fourth of slices 5 mm apart"
    assert task_parts.identify(answer, OPTIONS)["frame"] == "4"
    (tmp_path / "data" / "labels.csv").write_text("path,label\na.dcm,clear\n")
    ids = {sample.id: sample for sample in discover.discover(tmp_path / "data", OPTIONS, learning=False).samples}
    known = whois.whois(list(ids.values()), tmp_path / "data", list(ids))
    assert {known[name]["frame"]: sample.source.slices[0].position[2] for name, sample in ids.items()} == {
        "1": 0.0,
        "2": 5.0,
        "3": 10.0,
        "4": 15.0,
        "5": 20.0,
    }


@pytest.mark.parametrize("elements", [{}, {"NumberOfFrames": 1}], ids=["none", "one"])
def test_a_file_of_one_slice_has_no_frame(elements: dict[str, int], tmp_path: Path) -> None:
    answer = result(tmp_path / "in", "11", **elements)
    report = pydicom.dcmread(sr.write([answer], FILE, tmp_path / "out", OPTIONS)[0])
    assert "ReferencedFrameNumber" not in {element.keyword for element in report.iterall()}
    assert "frame" not in task_parts.identify(answer, OPTIONS)


@pytest.mark.parametrize(
    ("missing", "words"), [(0, "All slices were judged"), (3, "INCOMPLETE: 3 slices couldn't be judged")]
)
def test_a_report_says_whether_slices_are_missing(missing: int, words: str, tmp_path: Path) -> None:
    lost = (zooft.Rejection("file 0", "torn", group="patient11", missing=missing),)
    answer = dataclasses.replace(result(tmp_path / "in", "11"), unjudged=lost)
    report = pydicom.dcmread(sr.write([answer], FILE, tmp_path / "out", OPTIONS)[0])
    message = [element.value for element in report.iterall() if element.keyword == "CodeMeaning"]
    assert words in message
    assert ("Slices that couldn't be judged" in message) == bool(missing)
