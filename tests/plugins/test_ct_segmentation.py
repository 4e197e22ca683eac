"""Segmentation of CT from phantoms to deployed file: figures against counts on written NIfTI, and nobody's name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import plugged
import pydicom
import pytest
import SimpleITK
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from test_without_torch import modules_of_training, without

import zooft
import zooft_ct_segmentation
import zooft_segmentation
from zooft import cli, testing
from zooft_ct import demo, phantom

highdicom: Any = pytest.importorskip("highdicom", reason="needs the extra 'ct-sr'")
SIZE = phantom.Size(pixels=64, slices=6)
SOFT = -300
"""HU: what is denser is the structure that is learnt here, so that an epoch is enough."""
VOXEL = SIZE.spacing**2 * SIZE.increment
OPTIONS: dict[str, Any] = {
    "task": "ct-segmentation", "backbone": "timm:tf_efficientnet_lite0", "mode": "slice", "freeze": "backbone", "epochs": 2, "batch_size": 8,
    "lr": 0.005, "bootstrap": 20, "views": 0, "size": (64,), "hu_cache": "off", "verify_samples": 6, "precision": "fp32", "audit": False,
}  # fmt: skip # a table of options


def install(patch: pytest.MonkeyPatch, site: Path, keys: Path) -> None:
    plugged.install(patch, site / "one", "segmentation", "zooft_segmentation")
    plugged.install(patch, site / "two", "ct_segmentation", "zooft_ct_segmentation")
    patch.setenv("ZOOFT_KEY_FILE", str(keys / "key"))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("key")


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keys: Path) -> None:
    install(monkeypatch, tmp_path / "site", keys)


def image_of(folder: Path) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms")
    demo.generate(root, patients=4, test_patients=2, seed=0, size=SIZE, masks=True)
    (root / "classes.csv").write_text("name,value\nbackground,0\nsoft tissue,1\n")
    for path in (root / "masks").iterdir():
        image = image_of(root / "dicom" / path.name.partition(".")[0])
        mask = SimpleITK.Cast(image > SOFT, SimpleITK.sitkUInt8)
        mask.CopyInformation(image)
        SimpleITK.WriteImage(mask, str(path))
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        install(patch, tmp_path_factory.mktemp("site"), keys)
        result = zooft.finetune(data=data, out=tmp_path_factory.mktemp("runs") / "run", **OPTIONS)
    assert result.verification is not None
    assert result.verification.passed, result.verification.failures
    return result.path


def command(*words: Any, status: int = 0) -> Result:
    done = CliRunner().invoke(cli.zooft, [str(word) for word in words])
    assert done.exit_code == status, done.output
    return done


def labels(path: Path) -> NDArray[Any]:
    return np.asarray(nibabel.load(path).dataobj)


def written(run: Path, data: Path, patient: str, out: Path) -> Path:
    command("predict", run, data / "dicom" / patient, "--format", "nifti", "--out", out)
    (path,) = out.glob("*.nii.gz")
    return path


def test_the_task_passes_the_kit(data: Path) -> None:
    (task,) = zooft_ct_segmentation.zooft_register_tasks()
    testing.check_task(task, data, heads=zooft_segmentation.zooft_register_heads())


def test_the_plugin_passes_the_kit(tmp_path: Path) -> None:
    testing.check_plugin(zooft_ct_segmentation, folder=tmp_path)


def test_figures_of_patients_are_those_of_an_independent_count_on_written_nifti(
    run: Path, data: Path, tmp_path: Path
) -> None:
    evaluation = json.loads((run / "run.json").read_text())["evaluation"]["test"]
    recorded = {row["patient"]: row for row in evaluation["details"]["patients"]}
    assert len(recorded) == 2
    dices, errors = [], []
    for patient in ("PHANTOM-0004", "PHANTOM-0005"):
        path = written(run, data, patient, tmp_path / patient)
        found, true = labels(path) == 1, labels(data / "masks" / f"{patient}.nii.gz") == 1
        assert np.allclose(
            nibabel.load(path).affine, nibabel.load(data / "masks" / f"{patient}.nii.gz").affine, atol=1e-4
        )
        row = recorded[path.name.split("-")[0]]
        assert row["true_mm3"] == pytest.approx(true.sum() * VOXEL, rel=1e-5)
        assert row["found_mm3"] == pytest.approx(found.sum() * VOXEL, rel=1e-5)
        errors.append((found.sum() - true.sum()) * VOXEL)
        assert row["error_mm3"] == pytest.approx(errors[-1], rel=1e-5)
        dices.append(2 * (found & true).sum() / (found.sum() + true.sum()))
        assert row["dice"] == pytest.approx(dices[-1], abs=1e-9)
    figures = {name: figure["value"] for name, figure in evaluation["group_metrics"].items()}
    assert dices[0] > 0.3  # of a run this short: something was found, so that the figures are of more than nothing
    assert figures["dice/soft tissue"] == pytest.approx(np.mean(dices), abs=1e-9)
    assert figures["volume_error/soft tissue"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-5)
    assert figures["volume_bias/soft tissue"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_predict_gives_mm3_and_both_formats_hold_one_mask(run: Path, data: Path, tmp_path: Path) -> None:
    folder = data / "dicom" / "PHANTOM-0005"
    mask = labels(written(run, data, "PHANTOM-0005", tmp_path / "nifti"))
    command("predict", run, folder, "--out", tmp_path / "answers.json")
    (answer,) = json.loads((tmp_path / "answers.json").read_text())["predictions"]
    assert answer["structures"] == "soft tissue"
    messages = answer["mm3"]["soft tissue"] if isinstance(answer["mm3"], dict) else answer["mm3"][0]
    assert messages == pytest.approx((mask == 1).sum() * VOXEL, rel=1e-4)
    command("predict", run, folder, "--format", "dicom-seg", "--out", tmp_path / "seg")
    (path,) = (tmp_path / "seg").glob("*.dcm")
    seg = highdicom.seg.segread(path)
    ordered = sorted((pydicom.dcmread(one) for one in folder.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    pixels = seg.get_pixels_by_source_instance([one.SOPInstanceUID for one in ordered])
    assert np.array_equal(pixels[..., 0].transpose(2, 1, 0), mask)
    assert seg.PatientID == "PHANTOM-0005"
    image, back = image_of(folder), SimpleITK.ReadImage(str(next((tmp_path / "nifti").glob("*.nii.gz"))))
    assert back.GetOrigin() == pytest.approx(image.GetOrigin(), abs=1e-3)
    assert back.GetSpacing() == pytest.approx(image.GetSpacing(), abs=1e-5)
    assert back.GetDirection() == pytest.approx(image.GetDirection(), abs=1e-6)


def test_masks_are_the_same_without_torch(run: Path, data: Path, tmp_path: Path) -> None:
    series, blocked = data / "dicom" / "PHANTOM-0001", [*modules_of_training(), "segmentation_models_pytorch"]
    words = ["predict", run / "model.onnx", series, "--format", "nifti", "--out"]
    command(*words, tmp_path / "with")
    ((status, _, errors),) = without(blocked, [*words, tmp_path / "without"])
    assert status == 0, errors
    found, wanted = (next((tmp_path / name).glob("*.nii.gz")) for name in ("without", "with"))
    assert found.name == wanted.name
    assert np.array_equal(labels(found), labels(wanted))


def test_nothing_is_overwritten(run: Path, data: Path, tmp_path: Path) -> None:
    path = written(run, data, "PHANTOM-0001", tmp_path / "out")
    before = path.read_bytes()
    done = command(
        "predict", run, data / "dicom" / "PHANTOM-0001", "--format", "nifti", "--out", tmp_path / "out", status=1
    )
    assert "nothing is overwritten" in str(done.exception)
    assert path.read_bytes() == before


def test_a_series_with_a_slice_that_cannot_be_read_is_not_written_and_others_are(
    run: Path, data: Path, tmp_path: Path
) -> None:
    for patient in ("PHANTOM-0000", "PHANTOM-0001"):
        shutil.copytree(data / "dicom" / patient, tmp_path / "in" / patient)
    torn = sorted((tmp_path / "in" / "PHANTOM-0001").iterdir())[2]
    dataset = pydicom.dcmread(torn)
    dataset.PixelData = np.full(SIZE.pixels**2, 4000, "<u2").tobytes()  # no body is all bone
    dataset.save_as(torn, enforce_file_format=True)
    done = command("predict", run, tmp_path / "in", "--format", "nifti", "--out", tmp_path / "out", status=1)
    assert "1 of 2 series weren't written" in str(done.exception)
    assert "1 of its 6 slices have no prediction" in str(done.exception)
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 1
    assert not list((tmp_path / "out").glob("*partial*"))


def test_nifti_in_gives_nifti_back_with_the_same_header(run: Path, data: Path, tmp_path: Path) -> None:
    SimpleITK.WriteImage(image_of(data / "dicom" / "PHANTOM-0005"), str(tmp_path / "in.nii.gz"))
    command("predict", run, tmp_path / "in.nii.gz", "--format", "nifti", "--out", tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.nii.gz")
    source, back = nibabel.load(tmp_path / "in.nii.gz"), nibabel.load(path)
    assert np.array_equal(source.affine, back.affine)
    assert source.shape == back.shape
    by_dicom = labels(written(run, data, "PHANTOM-0005", tmp_path / "dicom"))
    assert np.array_equal(labels(path), by_dicom)
    done = command("predict", run, tmp_path / "in.nii.gz", "--format", "dicom-seg", "--out", tmp_path / "seg", status=1)
    assert "these are NIfTI" in str(done.exception)


def test_no_file_of_a_run_names_a_patient(run: Path, data: Path) -> None:
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in (data / "dicom").rglob("*.dcm")]
    names = {
        str(part).encode()
        for header in headers
        for part in (header.PatientID, header.PatientName, header.SeriesInstanceUID, header.SOPInstanceUID)
    }
    for path in run.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [name for name in names if name in content], path


def test_the_file_alone_gives_the_same_figures_on_labelled_data(run: Path, data: Path) -> None:
    done = command("evaluate", run / "model.onnx", "--data", data, "--split", "test", "--json")
    evaluated = json.loads(done.output[done.output.index("{") :])
    before = json.loads((run / "run.json").read_text())["evaluation"]["test"]["group_metrics"]
    now = evaluated["group_metrics"] if "group_metrics" in evaluated else evaluated["evaluation"]["group_metrics"]
    assert now["dice/soft tissue"]["value"] == pytest.approx(before["dice/soft tissue"]["value"], abs=1e-9)


@pytest.mark.parametrize(
    ("given", "words"), [({"mode": "volume"}, "masks are of slices"), ({"spacing": 1.0}, "no way back")]
)
def test_options_without_a_meaning_are_refused(data: Path, tmp_path: Path, given: Any, words: str) -> None:
    with pytest.raises(zooft.ConfigError, match=words):
        zooft.finetune(data=data, out=tmp_path / "run", **{**OPTIONS, **given})


def test_the_demo_with_masks_is_that_of_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        demo, "generate", lambda root, **given: (root.mkdir(), (root / "seen").write_text(str(given["masks"])))
    )
    done = command("demo", "ct", "--masks", tmp_path / "data")
    assert "--task ct-segmentation" in done.output
    assert (tmp_path / "data" / "seen").read_text() == "True"
