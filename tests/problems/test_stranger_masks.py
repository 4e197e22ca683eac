"""A stranger's problem of masks: targets with places, a head that reads a pyramid, answers in the samples' own pixels."""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import plugged
import pytest
from click.testing import CliRunner
from PIL import Image

import zooft
from zooft import cli, testing
from zooft.errors import ConfigError, ModelError
from zooft.hooks import registry
from zooft.hooks.loading import discover

PACKAGE = Path(__file__).parent / "stranger_masks"
SOURCE = PACKAGE / "zooft_spots.py"
OPTIONS: dict[str, Any] = {
    "task": "spots", "backbone": "timm:test_efficientnet", "weights": "random", "epochs": 2, "batch_size": 8, "lr": 0.003,
    "bootstrap": 0, "views": 2,
}  # fmt: skip # a table of options


@pytest.fixture
def spots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The package as if it were installed."""
    monkeypatch.syspath_prepend(PACKAGE)
    monkeypatch.delitem(sys.modules, SOURCE.stem, raising=False)
    plugged.install(monkeypatch, tmp_path / "site", "spots", SOURCE.stem)
    import zooft_spots

    return zooft_spots


@pytest.fixture
def data(spots: ModuleType, tmp_path: Path) -> Path:
    spots.demo(tmp_path / "data", 0)
    return tmp_path / "data"


def read(path: Path) -> Any:
    """The pixels of a picture."""
    with Image.open(path) as picture:
        return np.array(picture)


def overlap(masks: Path, data: Path, names: list[str]) -> float:
    """Intersection over union of PNGs, counted with numpy alone."""
    both = either = 0
    for name in names:
        found, true = read(masks / name) == 1, read(data / name.replace("picture", "mask")) == 1
        both, either = both + int((found & true).sum()), either + int((found | true).sum())
    return both / either


def test_it_takes_250_lines_of_public_names() -> None:
    tree = ast.parse(SOURCE.read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "zooft"
    }
    assert used <= set(zooft.__all__)
    assert [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import)] == ["import zooft"]
    assert len(SOURCE.read_text().splitlines()) <= 250


def test_it_passes_the_kit(spots: ModuleType, data: Path) -> None:
    (task,), heads = spots.zooft_register_tasks(), spots.zooft_register_heads()
    testing.check_task(task, data, heads=heads)
    testing.check_head(heads[0], {"logits": 2})


@pytest.mark.parametrize("freeze", ["backbone", "last:2"])
def test_the_file_s_masks_give_the_run_s_figure(spots: ModuleType, data: Path, tmp_path: Path, freeze: str) -> None:
    result = zooft.finetune(data=data, freeze=freeze, out=tmp_path / "run", **OPTIONS)
    assert result.verification is not None
    assert result.verification.passed
    rows = [line.split(",")[0] for line in (result.path / "predictions.csv").read_text().splitlines()[1:]]
    pictures = [str(data / name) for name in rows]
    masks = tmp_path / "masks"
    done = CliRunner().invoke(
        cli.zooft, ["predict", str(result.path), *pictures, "--format", "masks", "--out", str(masks)]
    )
    assert done.exit_code == 0, done.output
    figure = json.loads((result.path / "run.json").read_text())["evaluation"]["val"]["metrics"]["iou"]["value"]
    assert overlap(masks, data, rows) == pytest.approx(figure, abs=1e-6)
    for name in rows:  # every answer has its picture's own size
        assert read(masks / name).shape == read(data / name).shape[:2]


def test_cached_maps_and_targets_give_what_is_computed_in_every_epoch(
    spots: ModuleType, data: Path, tmp_path: Path
) -> None:
    """Half precision of what is cached moves features by 2e-4."""
    found = []
    for cache in (True, False):
        result = zooft.finetune(
            data=data,
            freeze="backbone",
            out=tmp_path / f"run{cache}",
            export=False,
            **{**OPTIONS, "views": 0, "cache": cache},
        )
        found.append([json.loads(line) for line in (result.path / "metrics.jsonl").read_text().splitlines()])
    assert [each["val_loss"] for each in found[0]] == pytest.approx([each["val_loss"] for each in found[1]], rel=0.5)


def test_a_run_that_is_done_again_computes_no_frozen_stage(
    spots: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zooft.finetune(data=data, freeze="backbone", out=tmp_path / "first", export=False, **OPTIONS)
    from zooft.features import prefix

    def refuse(*_args: Any, **_more: Any) -> Any:
        raise AssertionError("the frozen stages were computed again")

    monkeypatch.setattr(prefix, "runner", refuse)
    again = zooft.finetune(data=data, freeze="backbone", out=tmp_path / "again", export=False, **OPTIONS)
    first, second = ((path / "metrics.jsonl").read_text() for path in (tmp_path / "first", again.path))
    keys = ("train_loss", "val_loss", "metrics")
    assert [[json.loads(line)[key] for key in keys] for line in first.splitlines()] == [
        [json.loads(line)[key] for key in keys] for line in second.splitlines()
    ]


def test_masks_of_any_size_come_out_of_any_batch(spots: ModuleType, data: Path, tmp_path: Path) -> None:
    result = zooft.finetune(data=data, freeze="backbone", out=tmp_path / "run", **OPTIONS)
    session = onnxruntime.InferenceSession(str(result.path / "model.onnx"), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for count, rows, columns in ((1, 30, 200), (3, 128, 128), (2, 301, 47)):
        images = rng.integers(0, 256, (count, rows, columns, 3), np.uint8)
        (masks,) = session.run(None, {"images": images})
        assert masks.shape == (count, rows, columns)
        assert masks.dtype == np.uint8
        one = np.concatenate([session.run(None, {"images": image[None]})[0] for image in images])
        assert (one != masks).mean() < 1e-3


def _task_with(spots: ModuleType, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    (task,) = spots.zooft_register_tasks()
    monkeypatch.setattr(spots, "zooft_register_tasks", zooft.hookimpl(lambda: [replace(task, **fields)]))
    registry.load(discover())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"geometry": None}, "doesn't define how it places samples"),
        ({"input": lambda spec, options: spec}, "crops its samples"),
        ({"head": lambda options: "standard/linear"}, "needs a map for each output; use one of .*sum"),
        (
            {"augment": lambda spec, options: lambda array: spots_view(spec, array)},
            "augment doesn't report how it moves pixels",
        ),
    ],
)
def test_a_task_that_can_t_have_targets_with_places_is_refused_with_the_reason(
    spots: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], words: str
) -> None:
    _task_with(spots, monkeypatch, **fields)
    with pytest.raises(ConfigError, match=words):
        zooft.finetune(data=data, freeze="backbone", out=tmp_path / "run", **OPTIONS)


def spots_view(spec: zooft.InputSpec, array: Any) -> Any:
    """A view without its geometry."""
    import torch

    return zooft.image_preprocess(spec, None)(torch.from_numpy(array)[None])[0]


FLAT = """
import zooft

def build(name):
    from collections import OrderedDict
    from torch import nn
    return nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(4), flatten=nn.Flatten(), mix=nn.Linear(48, 32), classifier=nn.Linear(32, 9)))

def anatomy(name, module):
    return zooft.Anatomy(
        stages={"mix": zooft.Stage(("pool", "flatten", "mix"))}, classifier=("classifier",),
        input=zooft.InputSpec(height=64, width=64, resize=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    )

@zooft.hookimpl
def zooft_register_families():
    return [zooft.Family(name="flat", summary="", models=lambda: ("small",), build=build, anatomy=anatomy)]
"""


def test_a_backbone_that_keeps_no_map_is_refused(
    spots: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged.install(monkeypatch, tmp_path / "more", "flat", "zooft_flat", code=FLAT)
    with pytest.raises(ModelError, match="has no map of the image behind any of its stages"):
        zooft.finetune(data=data, freeze="backbone", out=tmp_path / "run", **{**OPTIONS, "backbone": "flat:small"})
