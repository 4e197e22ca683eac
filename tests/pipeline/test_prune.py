"""Pruned runs: what goes and what stays, the gate, and that whatever takes a run takes them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import plugged
import pytest
import torch
from commands import command
from example_data import save
from safetensors.torch import load_file
from torch import Tensor, nn

from zooft.contracts import PrunedSizes
from zooft.deploy import saved
from zooft.errors import ModelError
from zooft.hooks import registry
from zooft.model import pruning, relatives
from zooft.model.adapted import adapt, load_zoo_state_dict, zoo_state_dict
from zooft.model.backbone import Backbone, load_backbone, rebuild_backbone
from zooft.run.record import read_record

ORCHARD = '''
"""A family of a stranger's: residual blocks with a gate of their own, in three sizes, and one that only shuffles."""

import zooft


def build(name):
    import torch
    from torch import nn

    class Gated(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.up, self.norm = nn.Conv2d(width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width)
            self.deep = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
            self.squeeze, self.excite = nn.Conv2d(2 * width, 8, 1), nn.Conv2d(8, 2 * width, 1)
            self.down = nn.Conv2d(2 * width, width, 1)

        def forward(self, x):
            y = torch.nn.functional.silu(self.deep(self.norm(self.up(x))))
            gate = self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True))))
            return x + self.down(y * torch.sigmoid(gate))

    class Net(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.stem, self.first, self.second = nn.Conv2d(3, width, 3, 2, 1), Gated(width), Gated(width)
            self.classifier = nn.Linear(width, 10)

        def forward(self, x):
            return self.classifier(self.second(self.first(torch.relu(self.stem(x)))).mean((2, 3)))

    return Net({"tree_large": 16, "tree_base": 12, "tree_small": 8}[name])


def anatomy(name, module):
    import torch

    return zooft.Anatomy(
        stages={
            "stem": zooft.Stage(("stem",), lambda net, x: torch.relu(net.stem(x))),
            "first": zooft.Stage(("first",)),
            "second": zooft.Stage(("second",)),
            "pool": zooft.Stage((), lambda net, x: x.mean((2, 3))),
        },
        classifier=("classifier",),
        input=zooft.InputSpec(height=32, width=32, resize=32, mean=(0.5,) * 3, std=(0.25,) * 3),
        first_convolution="stem",
    )


@zooft.hookimpl
def zooft_register_families():
    models = ("tree_large", "tree_base", "tree_small")
    return [zooft.Family(name="orchard", summary="blocks", models=lambda: models, build=build, anatomy=anatomy)]
'''
TRAIN = (
    "--task", "classification", "--backbone", "orchard:tree_large", "--weights", "random", "--freeze", "none",
    "--epochs", "6", "--backbone-lr", "0.01", "--batch-size", "8", "--no-audit", "--no-report", "--workers", "0",
    "--bootstrap", "0",
)  # fmt: skip


@pytest.fixture(scope="module")
def _orchard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        plugged.install(patch, tmp_path_factory.mktemp("site"), "orchard", "zooft_orchard", code=ORCHARD)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that differ in brightness, a little."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 24), ("val", 20)):
        for name, level in (("dark", 100), ("light", 150)):
            for index in range(count):
                save(root / split / name / f"{index:02}.png", level, seed=index + 100 * (split == "val"))
    return root


@pytest.fixture(scope="module")
def run(_orchard: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "whole"
    command("finetune", *TRAIN, "--data", data, "--out", path)
    return path


@pytest.fixture(scope="module")
def pruned(run: Path) -> Path:
    done = command("prune", run, "--ratio", "0.4", "--epochs", "2", "--max-drop", "0.05", "--json")
    made = json.loads(done.stdout)
    assert list(made["table"]) == ["original", "pruned", "tree_base"]
    return Path(made["path"])


def test_the_smaller_run_stands_beside_it(run: Path, pruned: Path) -> None:
    assert pruned == run.with_name("whole-pruned")
    assert read_record(run.with_name("whole-pruned-tree_base")).config["epochs"] == 8
    record = read_record(pruned)
    assert record.config["freeze"] == "standard/none"
    assert record.pruned is not None
    assert record.pruned.gate["max_drop"] == 0.05
    rows = record.pruned.table
    assert rows["original"]["parameters"] > rows["pruned"]["parameters"]
    by_hand = sum(t.numel() for n, t in load_file(pruned / "model.safetensors").items() if "running" not in n)
    assert rows["pruned"]["parameters"] == by_hand - _counters(pruned)
    assert set(rows["pruned"]["latency"]["1"]) == {"1", "8"}


def _counters(path: Path) -> int:
    return sum(1 for name in load_file(path / "model.safetensors") if name.endswith("num_batches_tracked"))


class ByHand(nn.Module):
    """The pruned network, written down from the shapes of its tensors alone."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.t = tensors

    def block(self, x: Tensor, name: str) -> Tensor:
        t, f = {k.removeprefix(name): v for k, v in self.t.items() if k.startswith(name)}, nn.functional
        y = f.conv2d(x, t["up.weight"])
        y = f.batch_norm(y, t["norm.running_mean"], t["norm.running_var"], t["norm.weight"], t["norm.bias"])
        y = f.silu(f.conv2d(y, t["deep.weight"], t["deep.bias"], padding=1, groups=len(t["deep.weight"])))
        gate = f.relu(f.conv2d(y.mean((2, 3), keepdim=True), t["squeeze.weight"], t["squeeze.bias"]))
        gate = f.conv2d(gate, t["excite.weight"], t["excite.bias"]).sigmoid()
        return x + f.conv2d(y * gate, t["down.weight"], t["down.bias"])

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.conv2d(x, self.t["stem.weight"], self.t["stem.bias"], stride=2, padding=1).relu()
        x = self.block(self.block(x, "first."), "second.").mean((2, 3))
        return nn.functional.linear(x, self.t["classifier.weight"], self.t["classifier.bias"])


@torch.no_grad()
def test_a_run_is_built_again_to_the_bit_and_its_file_answers_the_same(pruned: Path) -> None:
    tensors = load_file(pruned / "model.safetensors")
    # 16 × 2 inner channels lose 0.4 of them, to a multiple of 4; eight of the gate lose 3; what the head reads stays
    assert tensors["first.deep.weight"].shape == (20, 1, 3, 3)
    assert tensors["second.squeeze.weight"].shape == (5, 20, 1, 1)
    assert tensors["second.down.weight"].shape == (16, 20, 1, 1)
    assert tensors["stem.weight"].shape == (16, 3, 3, 3)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    x = ((torch.from_numpy(images).float() / 255 - 0.5) / 0.25).permute(0, 3, 1, 2).contiguous()
    expected = ByHand(tensors)(x)
    opened = saved.open_run(pruned, registry.load())
    assert torch.equal(opened.model(x)["logits"], expected)
    session = onnxruntime.InferenceSession(pruned / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {session.get_inputs()[0].name: images})
    assert np.allclose(logits, expected.numpy(), atol=1e-4)
    assert json.loads((pruned / "verification.json").read_text())["passed"]


def test_whatever_takes_a_run_takes_a_pruned_one(run: Path, pruned: Path, data: Path, tmp_path: Path) -> None:
    figures = json.loads(command("evaluate", pruned, "--data", data, "--json").stdout)
    assert figures["figures"]["accuracy"]["value"] == pytest.approx(
        read_record(pruned).figures("val")["figures"]["accuracy"]["value"]
    )
    command("verify", pruned)
    command("compare", run, pruned)
    shutil.copytree(pruned, tmp_path / "copy")
    command("export", tmp_path / "copy")
    answers = command("predict", pruned / "model.onnx", data / "val" / "dark", "--json").stdout
    assert len(json.loads(answers)["predictions"]) == 20
    command("finetune", "--resume", pruned, "--epochs", "3", "--out", tmp_path / "longer")
    longer = read_record(tmp_path / "longer")
    assert longer.ended_at == (2,)
    assert longer.pruned == read_record(pruned).pruned
    assert load_file(tmp_path / "longer" / "model.safetensors")["first.deep.weight"].shape == (20, 1, 3, 3)


def test_a_pruned_run_is_pruned_further(pruned: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    command(
        "prune", pruned, "--ratio", "0.5", "--epochs", "1", "--max-drop", "1", "--no-smaller", "--out", again
    )  # fmt: skip
    assert load_file(again / "model.safetensors")["first.deep.weight"].shape == (8, 1, 3, 3)
    command("verify", again)
