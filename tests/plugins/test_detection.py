"""Boxes from data to deployed file: the whole way on small synthetic pictures, checked by pycocotools on written JSON."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import onnxruntime
import plugged
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from test_without_torch import modules_of_training, without

import zooft
from zooft import cli
from zooft_detection import demo

DEPLOY = example_data.REPOSITORY / "docs" / "deploy.md"
OPTIONS: dict[str, Any] = {
    "task": "detection", "backbone": "timm:tf_efficientnet_lite0", "freeze": "backbone", "epochs": 5, "batch_size": 8, "lr": 0.003,
    "bootstrap": 10, "views": 0, "size": (96, 128), "max_boxes": 20, "verify_samples": 8,
}  # fmt: skip # a table of options
NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium")


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plugged.install(monkeypatch, tmp_path / "site", "detection", "zooft_detection")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    demo.shapes(root, 0)
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from pretrained weights that a package carries."""
    with pytest.MonkeyPatch.context() as patch:
        plugged.install(patch, tmp_path_factory.mktemp("site"), "detection", "zooft_detection")
        result = zooft.finetune(data=data, out=tmp_path_factory.mktemp("runs") / "run", **OPTIONS)
    assert result.verification is not None
    assert result.verification.passed
    return result.path


def command(*words: Any) -> Result:
    done = CliRunner().invoke(cli.zooft, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done


def recorded(path: Path) -> dict[str, float]:
    metrics = json.loads((path / "run.json").read_text())["evaluation"]["val"]["metrics"]
    return {name: figure["value"] for name, figure in metrics.items()}


def session(run: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(run / "model.onnx"), providers=["CPUExecutionProvider"])


def judged_by_pycocotools(truth: Path, written: Path) -> list[float]:
    """The twelve figures of a folder that ``zooft predict --format coco`` has written; pictures by their names."""
    coco = pytest.importorskip("pycocotools.coco").COCO
    evaluator = pytest.importorskip("pycocotools.cocoeval").COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        given = coco(str(truth))
        ids = {Path(image["file_name"]).name: image["id"] for image in given.dataset["images"]}
        files = {
            image["id"]: ids[Path(image["file_name"]).name]
            for image in json.loads((written / "images.json").read_text())["images"]
        }
        results = json.loads((written / "boxes.json").read_text())
        found = evaluator(
            given, given.loadRes([each | {"image_id": files[each["image_id"]]} for each in results]), "bbox"
        )
        for step in (found.evaluate, found.accumulate, found.summarize):
            step()
    return list(found.stats)


def test_written_boxes_give_the_run_s_figures(run: Path, data: Path, tmp_path: Path) -> None:
    command("predict", run, data / "images" / "val", "--format", "coco", "--out", tmp_path / "boxes")
    stats = judged_by_pycocotools(data / "annotations" / "instances_val.json", tmp_path / "boxes")
    figures = recorded(run)
    assert [figures[name] for name in NAMES] == pytest.approx(stats[: len(NAMES)], abs=1e-6)
    assert figures["ap50"] > 0.05  # learnt from 64 pictures in a few seconds


def test_run_and_file_are_evaluated_alike(run: Path, data: Path) -> None:
    figures = recorded(run)
    for words in (("evaluate", run), ("evaluate", run / "model.onnx", "--data", data)):
        message = json.loads(command(*words, "--json").stdout)
        assert re.search(rf'"ap50":.*?{re.escape(str(figures["ap50"])[:8])}', json.dumps(message))


def test_other_formats(run: Path, data: Path, tmp_path: Path) -> None:
    some = [data / "images" / "val" / f"{n:02}.png" for n in range(3)]
    command("predict", run, *some, "--format", "overlays", "--out", tmp_path / "overlays")
    for path in some:
        with Image.open(path) as plain, Image.open(tmp_path / "overlays" / path.name) as painted:
            assert painted.size == plain.size
    command("predict", run, *some, "--format", "yolo", "--out", tmp_path / "yolo")
    assert (tmp_path / "yolo" / "classes.txt").read_text().split() == ["disc", "square", "triangle"]
    answers = json.loads(command("predict", run, *some, "--format", "json").stdout)
    for path, message in zip(some, answers["predictions"], strict=True):
        lines = (tmp_path / "yolo" / f"{path.stem}.txt").read_text().splitlines()
        assert len(lines) == sum(message["counts"])
        shares = np.array([[float(word) for word in line.split()[1:5]] for line in lines]).reshape(-1, 4)
        assert ((shares >= 0) & (shares <= 1)).all()


def test_boxes_are_predicted_and_evaluated_without_torch_as_with_it(run: Path, data: Path, tmp_path: Path) -> None:
    commands = [
        ["predict", run / "model.onnx", data / "images" / "val" / "00.png", "--format", "json"],
        ["evaluate", run / "model.onnx", "--data", data, "--json"],
        ["predict", run / "model.onnx", data / "images" / "val", "--format", "coco", "--out", tmp_path / "boxes"],
    ]
    blocked = [*modules_of_training(), "pycocotools", "faster_coco_eval"]
    *answers, boxes = without(blocked, *commands)
    for words, (status, out, err) in zip(commands, answers, strict=False):
        assert status == 0, err
        assert json.loads(out) == json.loads(command(*words).stdout)
    assert boxes[0] == 0, boxes[2]


@pytest.mark.parametrize("shape", [(1, 30, 200), (2, 96, 128), (3, 301, 47), (7, 64, 64)])
def test_boxes_come_in_the_pixels_of_any_size_and_batch(run: Path, shape: tuple[int, int, int]) -> None:
    opened, rng = session(run), np.random.default_rng(0)
    images = rng.integers(0, 256, (*shape, 3), np.uint8)
    names = ["boxes", "scores", "labels", "count"]
    boxes, scores, labels, count = opened.run(names, {"images": images})
    assert boxes.shape == (shape[0], 20, 4)
    assert (boxes >= 0).all()
    assert (boxes[..., [0, 2]] <= shape[2]).all()
    assert (boxes[..., [1, 3]] <= shape[1]).all()
    assert np.array_equal(count, (scores > 0).sum(1))
    assert np.array_equal(labels >= 0, scores > 0)
    assert (np.diff(scores, axis=1) <= 0).all()
    for row, image in enumerate(images):
        alone = dict(zip(names, opened.run(names, {"images": image[None]}), strict=True))
        assert alone["boxes"][0, : count[row]] == pytest.approx(boxes[row, : count[row]], abs=0.5)


def pictures_of(data: Path) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(Image.open(path)) for path in sorted((data / "images" / "val").iterdir())[:4]]


def test_openvino_gives_the_same_boxes(run: Path, data: Path) -> None:
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(run / "model.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    opened = session(run)
    for images in (np.stack(pictures_of(data)[:3]), pictures_of(data)[3][None, :60, :100]):
        found = compiled({"images": images})
        boxes, scores = opened.run(["boxes", "scores"], {"images": images})
        for row in range(len(images)):
            likely = int((scores[row] > 0.2).sum())
            assert found["boxes"][row, :likely] == pytest.approx(boxes[row, :likely], abs=0.5)
            assert found["scores"][row, :likely] == pytest.approx(scores[row, :likely], abs=1e-3)


def test_the_shortest_program_of_the_docs(run: Path, data: Path, tmp_path: Path) -> None:
    block = next(b for b in re.findall(r"```python\n(.*?)```", DEPLOY.read_text(), re.DOTALL) if '"boxes"' in b)
    imports = set(re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE))
    assert imports == {"json", "sys", "pathlib", "numpy", "onnxruntime", "PIL"}
    some = [data / "images" / "val" / f"{n:02}.png" for n in range(4)]
    words = [sys.executable, "-c", block, run / "model.onnx", *some]
    message = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    command("predict", run, *some, "--format", "yolo", "--out", tmp_path / "yolo")
    names = (tmp_path / "yolo" / "classes.txt").read_text().split()
    found = [line.split() for line in message.splitlines()]
    expected = [
        (path.name, names[int(words[0])], np.array(words[1:5], float), float(words[5]))
        for path in some
        for words in map(str.split, (tmp_path / "yolo" / f"{path.stem}.txt").read_text().splitlines())
    ]
    assert len(found) == len(expected) > 0
    for ours, (name, label, shares, score) in zip(found, expected, strict=True):
        assert (Path(ours[0]).name, ours[1]) == (name, label)
        assert float(ours[2]) == pytest.approx(score, abs=1e-2)
        left, top, right, bottom = (float(word) for word in ours[3:])
        centre = [(left + right) / 2 / 128, (top + bottom) / 2 / 96, (right - left) / 128, (bottom - top) / 96]
        assert centre == pytest.approx(shares.tolist(), abs=1e-2)
    assert all((tmp_path / f"{path.stem}_boxes.png").is_file() for path in some)


def test_files_are_answered_without_torch(run: Path, data: Path, tmp_path: Path) -> None:
    words = [
        "zooft",
        "predict",
        str(run / "model.onnx"),
        str(data / "images" / "val"),
        "--format",
        "coco",
        "--out",
        "boxes",
    ]
    code = f"""import sys
sys.modules.update(dict.fromkeys(["torch", "torchvision", "timm"]))
sys.argv = {words!r}
from zooft.cli import main
main()"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment, capture_output=True)
    assert json.loads((tmp_path / "boxes" / "boxes.json").read_text())


def test_the_report_shows_figures_curves_and_pictures(run: Path) -> None:
    page = (run / "report.html").read_text()
    words = (
        "Per class",
        "By size of the objects",
        "FROC",
        "Precision and recall",
        "triangle",
        "find disc, square, triangle",
    )
    for each in words:
        assert each in page
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {"prediction", "count(disc)", "count(square)", "count(triangle)"} <= set(rows[0])


def test_the_file_says_what_its_classes_and_thresholds_are(run: Path) -> None:
    about = session(run).get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["disc", "square", "triangle"]
    assert len(json.loads(about["zooft"])["fitted"]["thresholds"]) == 3


def test_the_graph_is_the_standard_operator_s(run: Path) -> None:
    onnx = pytest.importorskip("onnx")
    nodes = [node.op_type for node in onnx.load(run / "model.onnx").graph.node]
    assert nodes.count("NonMaxSuppression") == 1
