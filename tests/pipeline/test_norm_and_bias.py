"""Runs in which only norms or only biases learn: everything else ends bit-equal, and record and report say what learnt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from example_data import write_classes
from safetensors.torch import load_file, save_file
from test_plugin_faults import Stranger, family, load
from torch import Tensor, nn

import zooft

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_classes(tmp_path / "pictures", {"dark": 7, "light": 7})
    return tmp_path


def finetuned(folder: Path, stranger: Stranger | None = None, **values: Any) -> Path:
    given = {
        "task": "classification", "data": folder.parent / "pictures", "epochs": 2, "batch_size": 4, "bootstrap": 0, "export": False,
        "report": False, "audit": False, "device": "cpu", "workers": 0, "out": folder, "lr": 0.1, "backbone_lr": 0.1, "weight_decay": 0.5,
    }  # fmt: skip # a table of options
    registry = load(stranger=stranger) if stranger is not None else None
    return zooft.finetune(
        registry=registry, **({"resume": values["resume"]} if "resume" in values else {**given, **values})
    ).path


def start(folder: Path, name: str) -> tuple[nn.Module, str]:
    """A model of timm's with all weights drawn, and the file of them."""
    torch.manual_seed(5)
    module = timm.create_model(name)
    for inner in module.modules():  # of a branch that ends in a scale of 0, as zoos begin with, no bias has a gradient
        if isinstance(inner, NORMS):
            nn.init.uniform_(inner.weight, 0.5, 1.5)
    save_file(module.state_dict(), folder / "start.safetensors")
    return module, str(folder / "start.safetensors")


@pytest.mark.parametrize("rule", ["norm", "bias"])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_every_tensor_but_those_of_the_kind_and_the_head_s_ends_bit_equal(name: str, rule: str, folder: Path) -> None:
    """The kind is given by torch's own classes; BatchNorm's statistics are not."""
    module, file = start(folder, name)
    made = finetuned(folder / "run", backbone=f"timm:{name}", weights=file, freeze=rule)
    learnt = load_file(made / "model.safetensors")
    expected = {
        f"{holder}.{leaf}"
        for holder, inner in module.named_modules()
        for leaf, _ in inner.named_parameters(recurse=False)
        if (isinstance(inner, NORMS) if rule == "norm" else leaf == "bias")
    }
    head = {"head.weight", "head.bias", "fc.weight", "fc.bias"}
    moved = {
        key for key, tensor in module.state_dict().items() if key not in head and not torch.equal(tensor, learnt[key])
    }
    assert moved == expected - head


def test_the_record_and_the_report_say_how_much_of_a_stage_learnt(folder: Path) -> None:
    module, file = start(folder, "test_resnet")
    made = finetuned(folder / "run", backbone="timm:test_resnet", weights=file, freeze="norm", report=True, epochs=1)
    epoch = json.loads((made / "metrics.jsonl").read_text().splitlines()[0])
    assert epoch["learning"] == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    page = (made / "report.html").read_text()
    layer4 = module.get_submodule("layer4")
    norms = sum(p.numel() for m in layer4.modules() if isinstance(m, NORMS) for p in m.parameters())
    whole = sum(p.numel() for p in layer4.parameters())
    assert f"<b>layer4</b><span>{norms} of {whole / 1e3:.0f} k</span><em>learning</em>" in page


class Cut(Stranger):
    """Stops the run after its second epoch, once."""

    cut: bool = True

    @zooft.hookimpl
    def zooft_on_epoch_end(self, record: zooft.EpochRecord) -> None:
        if record.epoch == 2 and self.cut:
            self.cut = False
            raise KeyboardInterrupt


def test_an_interrupted_run_ends_with_the_same_bits_as_an_unbroken_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zooft.run.checkpoint.SHARE", 1e9)  # every epoch is saved
    values = {"backbone": "toy:one", "weights": "random", "freeze": "norm", "epochs": 4}
    whole = finetuned(folder / "whole", Stranger(families=[normed()]), **values)
    stranger = Cut(families=[normed()])
    with pytest.raises(KeyboardInterrupt):
        finetuned(folder / "cut", stranger, **values)
    cut = finetuned(folder / "cut", stranger, resume=folder / "cut.incomplete")
    for name in ("model.safetensors", "last/model.safetensors"):
        one, other = load_file(whole / name), load_file(cut / name)
        assert list(one) == list(other)
        assert all(torch.equal(one[key], other[key]) for key in one)


def normed(forward: Any = None) -> zooft.Family:
    """A toy with a convolution, a BatchNorm and a pooling, in one stage."""

    def build(_name: str) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
        )

    def anatomy(_name: str, _module: nn.Module) -> zooft.Anatomy:
        spec = zooft.InputSpec(height=16, width=16, resize=16, mean=(0.5,) * 3, std=(0.5,) * 3)
        stages = {"all": zooft.Stage(("0", "1", "2", "3"), forward)}
        return zooft.Anatomy(stages=stages, classifier=("4",), input=spec)

    return replace(family(), build=build, anatomy=anatomy)


@pytest.mark.parametrize("tensor", ["0.weight", "1.running_mean"])
def test_a_frozen_tensor_beside_learning_norms_that_moves_ends_the_run(tensor: str, folder: Path) -> None:
    def forward(module: nn.Module, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            module.state_dict()[tensor].add_(0.1)
        for layer in list(module.children())[:4]:
            x = layer(x)
        return x

    stranger = Stranger(families=[normed(forward)])
    with pytest.raises(zooft.ZooftError, match=f"1 frozen tensors changed during training, among them {tensor}"):
        finetuned(folder / "run", stranger, backbone="toy:one", weights="random", freeze="norm")
