"""What segmentation of CT must reach on phantoms of unseen patients, and the way through real CT; minutes each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import example_data
import nibabel
import numpy as np
import pytest
from test_ct_segmentation import command, install

import zooft
from zooft_ct import demo, phantom

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    install(monkeypatch, tmp_path / "site", tmp_path / "keys")


def test_nodules_of_unseen_phantoms(tmp_path: Path) -> None:
    """Trained on the demo, evaluated on twenty other patients with nodules and twenty without."""
    command("demo", "ct", "--masks", tmp_path / "data")
    result = zooft.finetune(
        data=tmp_path / "data",
        out=tmp_path / "run",
        task="ct-segmentation",
        backbone="timm:tf_efficientnet_lite0",
        freeze="none",
        epochs=6,
        batch_size=16,
        lr=2e-3,
        backbone_lr=5e-4,
        seed=0,
    )
    assert result.verification is not None
    assert result.verification.passed, result.verification.failures
    demo.generate(tmp_path / "unseen", patients=40, seed=123, size=phantom.Size(slices=12), masks=True)
    done = command("evaluate", result.path / "model.onnx", "--data", tmp_path / "unseen", "--split", "all", "--json")
    figures = json.loads(done.output[done.output.index("{") :])["group_metrics"]
    assert figures["dice/nodule"]["value"] >= 0.70, figures
    dices = []
    command("predict", result.path, tmp_path / "unseen" / "dicom", "--format", "nifti", "--out", tmp_path / "out")
    rows = {row["patient"]: row for row in json.loads(done.output[done.output.index("{") :])["patients"]}
    for path in (tmp_path / "out").glob("*.nii.gz"):
        row, found = rows[path.name.split("-")[0]], np.asarray(nibabel.load(path).dataobj) == 1
        assert row["found_mm3"] == pytest.approx(found.sum() * np.prod(nibabel.load(path).header.get_zooms()), rel=1e-4)
        dices += [row["dice"]] if row["dice"] is not None else []
    assert len(dices) == 20
    assert np.mean(dices) == pytest.approx(figures["dice/nodule"]["value"], abs=1e-9)


def test_totalsegmentator_s_example_is_read_learnt_and_written_back(tmp_path: Path) -> None:
    """Its 30 segmented slices as two volumes, one of them for validation; 41 structures."""
    root = example_data.real("nifti_ct")
    image, mask = (nibabel.load(root / f"totalseg_example_{kind}.nii.gz") for kind in ("ct", "seg"))
    parts: Any = {"train/lower": slice(0, 15), "val/upper": slice(15, 30)}
    for name, part in parts.items():
        for kind, volume in (("images", image), ("masks", mask)):
            path = tmp_path / "data" / kind / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(volume.slicer[:, :, part], path)
    result = zooft.finetune(
        data=tmp_path / "data",
        out=tmp_path / "run",
        task="ct-segmentation",
        backbone="timm:tf_efficientnet_lite0",
        freeze="backbone",
        epochs=2,
        batch_size=8,
        lr=2e-3,
        window=("mediastinum",),
        group_by="series",
        bootstrap=0,
        verify_samples=8,
    )
    assert result.verification is not None
    assert result.verification.passed, result.verification.failures
    ct = root / "totalseg_example_ct.nii.gz"
    command("predict", result.path, ct, "--format", "nifti", "--out", tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.nii.gz")
    back = nibabel.load(path)
    assert np.array_equal(back.affine, image.affine)
    assert back.shape == image.shape
    assert set(np.unique(np.asarray(back.dataobj))) <= set(np.unique(np.asarray(mask.dataobj)))
