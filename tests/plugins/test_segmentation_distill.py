"""A teacher of masks: each place's probabilities are learnt, in the view that the student sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import plugged
import pytest
import torch
from scipy.special import softmax

import zooft
from zooft.contracts import View
from zooft.deploy import saved
from zooft.errors import ConfigError
from zooft.hooks import registry
from zooft.storage import csv_files

pytest.importorskip("segmentation_models_pytorch")
from zooft_segmentation import demo

USUAL: dict[str, Any] = {
    "task": "segmentation",
    "weights": "random",
    "head": "linear",
    "epochs": 1,
    "batch_size": 512,
    "lr": 0.01,
    "bootstrap": 0,
    "workers": 0,
    "audit": False,
    "export": False,
    "report": False,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plugged.install(monkeypatch, tmp_path / "site", "segmentation", "zooft_segmentation")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    demo.shapes(tmp_path / "shapes", 0)
    return tmp_path / "shapes"


def answers(run: Path, samples: list[zooft.Sample]) -> np.ndarray[Any, Any]:
    """Maps of logits of the plain views."""
    opened = saved.open_run(run, registry.load())
    views = saved.make_views(opened, samples)
    with torch.inference_mode():
        found = [opened.model(views[number][0][None])["logits"] for number in range(len(samples))]
    array: np.ndarray[Any, Any] = torch.cat(found).double().numpy()
    return array


def test_the_loss_is_the_divergence_at_each_place_of_a_teacher_with_another_size(data: Path, tmp_path: Path) -> None:
    """In one step with a learning rate of nothing: the saved weights are those that the loss was computed with."""
    teacher = zooft.finetune(
        **{**USUAL, "batch_size": 8, "epochs": 2},
        backbone="timm:test_resnet",
        size=(96, 96),
        data=data,
        out=tmp_path / "teacher",
    )
    run = zooft.finetune(
        **{**USUAL, "lr": 1e-12},
        backbone="timm:test_vit",
        size=(64, 64),
        data=data,
        out=tmp_path / "run",
        distill=teacher.path,
        distill_weight=1.0,
        temperature=2.0,
    )
    task = registry.load().task("segmentation")
    trained = {row["id"] for row in csv_files.read(run.path / "samples.csv") if row["split"] == "train"}
    samples = [sample for sample in task.discover(data, task.options()).samples if sample.id in trained]
    ours, theirs = answers(run.path, samples), answers(teacher.path, samples)
    assert ours.shape[-2:] != theirs.shape[-2:]
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(theirs), ours.shape[-2:], mode="bilinear", align_corners=False, antialias=True
    ).numpy()
    p, q = softmax(resized / 2, axis=1), softmax(ours / 2, axis=1)
    wanted = 4 * (p * (np.log(p) - np.log(q))).sum(1).mean()
    found = json.loads((run.path / "metrics.jsonl").read_text())["train_loss"]
    assert wanted > 1e-3
    assert found == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
def test_the_same_random_numbers_place_a_picture_alike_at_two_sizes(mode: Any) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8)
    specs = [
        zooft.InputSpec(height=side, width=side, resize=side, mean=(0.5,) * 3, std=(0.5,) * 3, mode=mode)
        for side in (64, 96)
    ]
    augments = [zooft.image_view(spec, scales=(0.5, 2.0), colour=0.2) for spec in specs]
    for seed in range(20):
        made = []
        for augment in augments:
            torch.manual_seed(seed)
            made.append(augment(picture))
        small, large = (view.geometry.matrix for view in made if isinstance(view, View) and view.geometry is not None)
        corners = np.array([[0, 90, 0, 90], [0, 0, 120, 120], [1, 1, 1, 1]])
        assert np.abs(small @ corners * 1.5 - large @ corners).max() < 4, (
            seed
        )  # pixels of 96, as each rounds to its own


def test_inputs_of_other_shapes_are_refused(data: Path, tmp_path: Path) -> None:
    given = {**USUAL, "backbone": "timm:test_resnet", "fit": "letterbox", "data": data}
    teacher = zooft.finetune(**given, size=(96, 64), out=tmp_path / "teacher")
    with pytest.raises(ConfigError, match="letterbox in 96x64 and this run by letterbox in 64x64"):
        zooft.finetune(**given, size=(64, 64), out=tmp_path / "run", distill=teacher.path)
