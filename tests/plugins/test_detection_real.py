"""What boxes must reach on real data, and the way to a verified file for each kind of backbone; minutes each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import example_data
import plugged
import pytest
from test_detection import command, judged_by_pycocotools, recorded

import zooft
from zooft_detection import demo
from zooft_detection.discover import discover
from zooft_detection.options import DetectionOptions

pytestmark = pytest.mark.slow
CELLS = ("Platelets", "RBC", "WBC")
BACKBONES = (
    "torchvision:resnet18",
    "timm:vit_tiny_patch16_224",
    "timm:swin_tiny_patch4_window7_224",
    "timm:convnext_atto",
)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plugged.install(monkeypatch, tmp_path / "site", "detection", "zooft_detection")


def cells_of(split: str) -> list[tuple[str, tuple[int, int], list[tuple[str, list[float]]]]]:
    """Name, rows and columns, and boxes of each picture, by Python's own reader of XML; boxes without area left out."""
    root = example_data.real("bccd")
    found = []
    for name in (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
        sheet = ElementTree.parse(root / "Annotations" / f"{name}.xml").getroot()  # noqa: S314 -- of a known data set
        size = int(sheet.findtext("size/height", "")), int(sheet.findtext("size/width", ""))
        boxes = []
        for each in sheet.iter("object"):
            box = [float(each.findtext(f"bndbox/{tag}", "")) for tag in ("xmin", "ymin", "xmax", "ymax")]
            if box[2] > box[0] and box[3] > box[1]:
                boxes.append((each.findtext("name", ""), box))
        found.append((f"{name}.jpg", size, boxes))
    return found


def as_coco(split: str) -> dict[str, Any]:
    images, annotations = [], []
    for number, (name, (rows, columns), boxes) in enumerate(cells_of(split), 1):
        images.append({"id": number, "file_name": name, "height": rows, "width": columns})
        for word, (left, top, right, bottom) in boxes:
            box = [left, top, right - left, bottom - top]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": CELLS.index(word) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(CELLS, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def blood_cells_as_coco(root: Path) -> Path:
    for split in ("train", "val"):
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(as_coco(split)))
    (root / "images").symlink_to(example_data.real("bccd") / "JPEGImages")
    return root


def blood_cells_as_yolo(root: Path) -> Path:
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for name, (rows, columns), boxes in cells_of(split):
            (root / "images" / split / name).symlink_to(example_data.real("bccd") / "JPEGImages" / name)
            lines = [
                f"{CELLS.index(word)} {(left + right) / 2 / columns!r} {(top + bottom) / 2 / rows!r} "
                f"{(right - left) / columns!r} {(bottom - top) / rows!r}\n"
                for word, (left, top, right, bottom) in boxes
            ]
            (root / "labels" / split / name).with_suffix(".txt").write_text("".join(lines))
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: [{', '.join(CELLS)}]\n")
    return root


def test_blood_cells(tmp_path: Path) -> None:
    result = zooft.finetune(
        data=example_data.real("bccd"),
        out=tmp_path / "run",
        task="detection",
        backbone="timm:tf_efficientnet_lite0",
        freeze="none",
        size=(256, 320),
        batch_size=4,
        epochs=12,
        lr=1e-3,
        backbone_lr=3e-4,
        seed=0,
        bootstrap=100,
    )
    assert result.verification is not None
    assert result.verification.passed
    figures = recorded(result.path)
    assert figures["ap50"] >= 0.85
    assert figures["ap"] >= 0.52
    (tmp_path / "val.json").write_text(json.dumps(as_coco("val")))
    names = [example_data.real("bccd") / "JPEGImages" / name for name, _, _ in cells_of("val")]
    command("predict", result.path, *names, "--format", "coco", "--out", tmp_path / "boxes")
    stats = judged_by_pycocotools(tmp_path / "val.json", tmp_path / "boxes")
    assert [figures[name] for name in ("ap", "ap50", "ap75")] == pytest.approx(stats[:3], abs=1e-6)


def test_blood_cells_are_the_same_samples_in_every_form(tmp_path: Path) -> None:
    roots = (example_data.real("bccd"), blood_cells_as_coco(tmp_path / "coco"), blood_cells_as_yolo(tmp_path / "yolo"))
    found = [discover(root, DetectionOptions()) for root in roots]
    message = [{Path(sample.id).name: (sample.split, sample.target) for sample in each.samples} for each in found]
    assert {tuple(label.name for label in each.labels) for each in found} == {CELLS}
    for name, (split, target) in message[0].items():
        for other in message[1:]:
            assert other[name][0] == split
            assert other[name][1].classes == target.classes
            for ours, theirs in zip(other[name][1].corners, target.corners, strict=True):
                assert ours == pytest.approx(theirs, abs=1e-9)
    assert len({len(each) for each in message}) == 1


def test_blood_cells_give_the_same_figures_in_every_form(tmp_path: Path) -> None:
    roots = {
        "voc": example_data.real("bccd"),
        "coco": blood_cells_as_coco(tmp_path / "coco"),
        "yolo": blood_cells_as_yolo(tmp_path / "yolo"),
    }
    result = zooft.finetune(
        data=roots["voc"],
        out=tmp_path / "run",
        task="detection",
        backbone="timm:tf_efficientnet_lite0",
        freeze="backbone",
        size=(96, 128),
        epochs=2,
        batch_size=8,
        bootstrap=0,
        report=False,
        lr=3e-3,
        verify_samples=8,
    )
    figures = recorded(result.path)
    for root in roots.values():
        message = json.loads(
            command("evaluate", result.path / "model.onnx", "--data", root, "--split", "val", "--json").stdout
        )
        for name in ("ap", "ap50", "recall"):
            assert message["metrics"][name]["value"] == pytest.approx(figures[name], abs=1e-6)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_kind_of_backbone_comes_to_a_verified_file(tmp_path: Path, backbone: str) -> None:
    demo.shapes(tmp_path / "data", 0)
    result = zooft.finetune(
        data=tmp_path / "data",
        out=tmp_path / "run",
        task="detection",
        backbone=backbone,
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


def test_coco128_goes_to_the_end(tmp_path: Path) -> None:
    """80 classes, of which few are learnt from 128 pictures: the path, not the figure."""
    result = zooft.finetune(
        data=example_data.real("coco128") / "object_detection" / "config.yaml",
        out=tmp_path / "run",
        task="detection",
        backbone="timm:tf_efficientnet_lite0",
        freeze="backbone",
        epochs=2,
        batch_size=8,
        bootstrap=0,
        report=False,
        lr=2e-3,
        verify_samples=20,
    )
    assert result.verification is not None
    assert result.verification.passed, result.verification.failures
    assert 0 <= recorded(result.path)["ap"] <= 1
