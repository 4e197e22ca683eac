"""What masks must reach on real data, and the way to a verified file for each kind of backbone; minutes each."""

from __future__ import annotations

import json
import re
import resource
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import plugged
import pytest
from test_segmentation import command, independent_miou, pixels, recorded

import zooft
from zooft_segmentation import demo

pytestmark = pytest.mark.slow
CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
BACKBONES = (
    "torchvision:resnet18",
    "timm:vit_tiny_patch16_224",
    "timm:swin_tiny_patch4_window7_224",
    "timm:convnext_atto",
    "timm:tf_efficientnet_lite0",
)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plugged.install(monkeypatch, tmp_path / "site", "segmentation", "zooft_segmentation")


def street_scenes(tmp_path: Path, **more: Any) -> zooft.FinetuneResult:
    (tmp_path / "classes.txt").write_text("\n".join(CAMVID))
    options = {
        "task": "segmentation", "backbone": "timm:tf_efficientnet_lite0", "classes_file": tmp_path / "classes.txt", "ignore_index": ("11",),
        "size": (240, 320), "batch_size": 8, "epochs": 12, "lr": 2e-3, "backbone_lr": 5e-4, "seed": 0,
    }  # fmt: skip # a table of options
    return zooft.finetune(data=example_data.real("camvid"), out=tmp_path / "run", **{**options, **more})


def test_street_scenes(tmp_path: Path) -> None:
    result = street_scenes(tmp_path, freeze="none")
    assert result.verification is not None
    assert result.verification.passed
    figures = recorded(result.path)
    assert figures["miou"] >= 0.58
    data = example_data.real("camvid")
    command("predict", result.path, data / "val", "--format", "masks", "--out", tmp_path / "masks")
    names = sorted(path.name for path in (data / "valannot").iterdir())
    found = [pixels(tmp_path / "masks" / name) for name in names]
    true = [pixels(data / "valannot" / name) for name in names]
    assert {mask.shape for mask in found} == {(360, 480)}
    assert independent_miou(found, true, void=11) == pytest.approx(figures["miou"], abs=1e-6)


@pytest.mark.parametrize("head", ["fpn", "unet", "upernet", "linear"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_kind_of_backbone_comes_to_a_verified_file(tmp_path: Path, backbone: str, head: str) -> None:
    demo.shapes(tmp_path / "data", 0)
    result = zooft.finetune(
        data=tmp_path / "data",
        out=tmp_path / "run",
        task="segmentation",
        backbone=backbone,
        head=head,
        weights="random",
        freeze="none",
        epochs=1,
        batch_size=8,
        bootstrap=0,
        report=False,
        verify_samples=8,
    )
    assert result.verification is not None
    assert result.verification.passed, result.verification.failures


@pytest.mark.parametrize("head", ["fpn", "unet", "upernet"])
@pytest.mark.parametrize("backbone", ["torchvision:resnet18", "timm:convnext_atto"])
def test_sizes_that_strides_do_not_divide_come_to_a_verified_file(tmp_path: Path, backbone: str, head: str) -> None:
    """Strides of the one round up, of the other down."""
    demo.shapes(tmp_path / "data", 0)
    result = zooft.finetune(
        data=tmp_path / "data",
        out=tmp_path / "run",
        task="segmentation",
        backbone=backbone,
        head=head,
        weights="random",
        freeze="none",
        size=(100, 180),
        epochs=1,
        batch_size=8,
        bootstrap=0,
        report=False,
        verify_samples=8,
    )
    assert result.verification is not None
    assert result.verification.passed, result.verification.failures


def test_a_second_run_on_a_frozen_backbone_saves_the_trunk_s_time(tmp_path: Path) -> None:
    """CPU seconds of all threads; ten epochs. The decoder learns in both."""
    demo.shapes(tmp_path / "data", 0)
    seconds = {}
    for name, cache in (("first", True), ("second", True), ("plain", False)):
        before = resource.getrusage(resource.RUSAGE_SELF)
        zooft.finetune(
            data=tmp_path / "data",
            out=tmp_path / name,
            task="segmentation",
            backbone="timm:tf_efficientnet_lite0",
            freeze="backbone",
            epochs=10,
            batch_size=8,
            size=(192, 256),
            augment="none",
            bootstrap=0,
            report=False,
            export=False,
            cache=cache,
        )
        after = resource.getrusage(resource.RUSAGE_SELF)
        seconds[name] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds["plain"] / seconds["second"] >= 2, seconds


def test_coco128_goes_to_the_end(tmp_path: Path) -> None:
    """130 classes, of which few are learnt from a hundred pictures: the path, not the figure."""
    root = example_data.real("coco128")
    masks, images = root / "semantic_segmentation" / "masks", root / "images"
    lines, names = ["path,mask,split"], {}
    for split in ("train", "val"):
        for mask in sorted((masks / f"{split}2017").iterdir()):
            image = next((images / f"{split}2017").glob(f"{mask.stem}.*"))
            lines.append(f"{image},{mask},{split}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    for number, name in re.findall(r"^  (\d+): (.+)$", (masks.parent / "config.yaml").read_text(), re.MULTILINE):
        names[name.strip()] = int(number)
    (tmp_path / "classes.json").write_text(json.dumps(names))
    result = zooft.finetune(
        data=tmp_path / "pairs.csv",
        out=tmp_path / "run",
        task="segmentation",
        backbone="timm:tf_efficientnet_lite0",
        freeze="backbone",
        epochs=3,
        batch_size=8,
        bootstrap=0,
        report=False,
        ignore_index=("0",),
        lr=2e-3,
        verify_samples=20,
    )
    assert result.verification is not None
    assert result.verification.passed, result.verification.failures
    assert np.isfinite(recorded(result.path)["miou"])
