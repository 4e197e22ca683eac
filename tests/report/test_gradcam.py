"""Grad-CAM of networks so small that what they respond to is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from run_records import run_record
from torch import Tensor, nn

import zooft
from zooft.contracts import InputSpec, Port, Sample, Stage, WeightsRecord
from zooft.deploy.saved import SavedRun
from zooft.hooks import registry
from zooft.model.adapted import AdaptedModel, adapt
from zooft.model.backbone import Backbone, Slot, load_backbone
from zooft.report.gradcam import GradCam, grad_cam

SIDE = 16
SPEC = InputSpec(height=SIDE, width=SIDE, resize=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)


class Scaled(nn.Module):
    """Levels 0..255 of ``(N, H, W, 3)``, or of a bag ``(N, Z, H, W, 3)``, to the network's input."""

    def forward(self, levels: Tensor) -> Tensor:
        return (levels.float().movedim(-1, -3) / 255 - 0.5) / 0.25


class Convolution(nn.Module):
    """Brightness, taken at every pixel by two channels, then the mean over all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 2, 1, bias=False)
        self.body.weight.data = torch.tensor([1.0, -0.2])[:, None, None, None].expand(2, 3, 1, 1).clone()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.flat(self.pool(self.body(x)))
        return pooled


class Block(nn.Module):
    """The class token takes up the mean of all patches; the patches stay."""

    def forward(self, tokens: Tensor) -> Tensor:
        taken = tokens[:, :1] + tokens[:, 1:].mean(1, keepdim=True)
        return torch.cat([taken, tokens[:, 1:]], 1)


class Transformer(nn.Module):
    """Patches of 4x4 pixels and a class token, two blocks, and nothing but the class token read at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 2, 4, 4, bias=False)
        self.embed.weight.data = torch.tensor([1.0, -0.2])[:, None, None, None].expand(2, 3, 4, 4).clone()
        self.block0, self.block1 = Block(), Block()

    def tokens(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        return torch.cat([torch.zeros_like(patches[:, :1]), patches], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.block1(self.block0(self.tokens(x)))[:, 0]  # type: ignore[no-any-return]


CONVOLUTION = {"body": Stage(("body",)), "pool": Stage(("pool", "flat"))}
TRANSFORMER = {
    "embed": Stage(("embed",), lambda m, x: m.tokens(x)),
    "block0": Stage(("block0",)),
    "block1": Stage(("block1",)),
    "pool": Stage((), lambda _m, x: x[:, 0]),
}
WHOLE = {"features": Stage(("embed", "block0", "block1"), lambda m, x: m(x))}


class MeanOfBag(nn.Module):
    """Instances' mean, then a linear layer."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.mean(1))
        return logits


def never(*_: Any) -> Any:
    raise AssertionError


def run(module: nn.Module, stages: Mapping[str, Stage], *, bag: bool = False) -> SavedRun:
    linear = nn.Linear(2, 2)
    linear.weight.data, linear.bias.data = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.zeros(2)
    record = WeightsRecord(kind="random", source="", licence=None, file_sha256=None, tensors_sha256="")
    backbone = Backbone(
        family="toy",
        name="toy",
        module=module,
        stages=stages,
        slots=(Slot("head", convolution=False, bias=True),),
        width=2,
        input=SPEC,
        weights=record,
    )
    task = zooft.Task(
        name="toy",
        summary="",
        discover=never,
        read=lambda source, _options: source,
        problem=zooft.classification(),
        port=lambda _o: Port(name="x", dtype="uint8", axes=("n", *(["z"] if bag else []), SIDE, SIDE, 3), meaning=""),
        preprocess=lambda _spec, _options: Scaled(),
    )
    model = AdaptedModel(backbone, MeanOfBag(linear) if bag else linear, bag=bag).eval()
    return SavedRun(
        path=Path(),
        record=run_record(labels=zooft.class_labels(("dark", "light"))),
        task=task,
        options=None,
        labels=zooft.class_labels(("dark", "light")),
        model=model,
        input=SPEC,
        fitted={},
        group_rule="mean",
    )


def spot(row: int, column: int) -> NDArray[np.uint8]:
    """Dark, with one bright patch of 4x4 pixels."""
    array = np.full((SIDE, SIDE, 3), 20, np.uint8)
    array[row : row + 4, column : column + 4] = 240
    return array


def row(class_index: int) -> dict[str, Any]:
    """The columns of a sample that was predicted to be of a class."""
    return {"target": 1, "probabilities": np.eye(2)[class_index]}


def explained(saved: SavedRun, array: NDArray[np.uint8], class_index: int = 1) -> GradCam:
    found = grad_cam(saved, Sample(id="s", source=array, target=1), row(class_index))
    assert found is not None
    return found


def test_what_a_task_redacts_is_explained_and_not_shown() -> None:
    plain = run(Convolution(), CONVOLUTION)
    task = dataclasses.replace(plain.task, redact=lambda arrays, _options: (np.zeros_like(arrays[0]),))
    found, shown = explained(dataclasses.replace(plain, task=task), spot(4, 8)), explained(plain, spot(4, 8))
    np.testing.assert_array_equal(found.heat, shown.heat)
    assert shown.picture.max() > 0
    assert not found.picture.any()


def test_the_heat_of_a_convolution_is_grad_cam_s_formula_worked_out_by_hand() -> None:
    array = spot(4, 8)
    found = explained(run(Convolution(), CONVOLUTION), array)
    brightness = (
        3 * (array[..., 0] / 255 - 0.5) / 0.25
    )  # the first channel; the head's slope is 1 for it and 0 for the other
    expected = np.maximum(brightness, 0)
    np.testing.assert_allclose(found.heat, expected / expected.max(), atol=1e-6)
    assert found.heat.dtype == np.float32
    assert found.instance is None


def test_the_picture_is_what_the_network_saw() -> None:
    array = spot(4, 8)
    np.testing.assert_array_equal(explained(run(Convolution(), CONVOLUTION), array).picture, array)


def test_a_class_that_nothing_supports_leaves_the_picture_cold() -> None:
    dark = np.full((SIDE, SIDE, 3), 20, np.uint8)
    assert explained(run(Convolution(), CONVOLUTION), dark, 1).heat.max() == 0


@pytest.mark.parametrize("stages", [TRANSFORMER, WHOLE], ids=["in stages", "as one stage"])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (4, 12), (12, 8)])
def test_a_transformer_that_reads_its_class_token_is_hot_at_the_patch_that_decides(
    stages: Mapping[str, Stage], row: int, column: int
) -> None:
    found = explained(run(Transformer(), stages), spot(row, column))
    inside = found.heat[row : row + 4, column : column + 4]
    outside = found.heat.copy()
    outside[max(0, row - 4) : row + 8, max(0, column - 4) : column + 8] = 0
    assert inside.max() == pytest.approx(1, abs=0.05)
    assert inside.mean() > 0.5
    assert outside.max() < 0.05


def test_where_everything_contradicts_a_class_the_least_of_it_is_shown_and_reported() -> None:
    found = explained(run(Convolution(), CONVOLUTION), np.maximum(spot(4, 8), 140), 0)  # all brighter than grey
    assert found.against
    assert found.words == "dark"
    assert found.heat[5:7, 9:11].max() == 0
    assert found.heat.max() == 1
    assert not explained(run(Convolution(), CONVOLUTION), spot(4, 8)).against


def test_a_class_token_that_mixes_only_inside_the_last_stage_is_followed_to_the_layer_where_patches_still_count() -> (
    None
):
    stages = {
        "embed": Stage(("embed",), lambda m, x: m.tokens(x)),
        "blocks": Stage(("block0", "block1"), lambda m, x: m.block1(m.block0(x))),
        "pool": Stage((), lambda _m, x: x[:, 0]),
    }
    saved = run(
        Transformer(), {"features": Stage(("embed", "block0", "block1"), stages_of(stages)), "pool": stages["pool"]}
    )
    found = explained(saved, spot(4, 12))
    assert np.unravel_index(found.heat.argmax(), found.heat.shape)[0] in range(4, 8)
    assert found.heat[4:8, 12:16].mean() > 0.5


def stages_of(stages: Mapping[str, Stage]) -> Any:
    """The first two, as one."""
    return lambda m, x: stages["blocks"](m, stages["embed"](m, x))


def test_of_a_bag_the_instance_that_contributed_most_is_shown() -> None:
    dark = np.full((SIDE, SIDE, 3), 20, np.uint8)
    bag = np.stack([dark, spot(0, 0)[..., :], dark, spot(8, 8), dark])
    bag[3, 8:12, 8:12] = 255
    found = explained(run(Convolution(), CONVOLUTION, bag=True), bag)
    assert found.instance == 3
    np.testing.assert_array_equal(found.picture, bag[3])
    assert np.unravel_index(found.heat.argmax(), found.heat.shape) == (8, 8)


def test_grad_cam_leaves_the_model_as_it_was() -> None:
    saved = run(Transformer(), WHOLE)
    x = torch.rand(1, 3, SIDE, SIDE)
    before = saved.model(x)["logits"]
    explained(saved, spot(0, 0))
    assert torch.equal(saved.model(x)["logits"], before)
    assert all(parameter.grad is None for parameter in saved.model.parameters())
    assert not any(module._forward_hooks for module in saved.model.modules())


def test_a_backbone_without_places_is_not_explained() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(3 * SIDE * SIDE, 2)

    stages = {"body": Stage(("body",), lambda m, x: m.body(x.flatten(1)))}
    assert grad_cam(run(Flat(), stages), Sample(id="s", source=spot(0, 0), target=1), row(1)) is None


@pytest.mark.parametrize(
    "reference",
    [
        "timm:resnet18",
        "timm:vit_tiny_patch16_224",
        "timm:swin_tiny_patch4_window7_224",
        "torchvision:vit_b_16",
        "torchvision:mobilenet_v3_small",
    ],
)
@pytest.mark.slow
def test_real_backbones_of_either_zoo_are_explained(reference: str) -> None:
    from dataclasses import replace

    known = registry.load()
    family, name = reference.split(":")
    torch.manual_seed(0)
    backbone = load_backbone(known.family(family), name, weights="random", sources=())
    model = adapt(backbone, known.head("standard/linear"), {"logits": 2}).eval()
    saved = replace(run(Convolution(), CONVOLUTION), model=model, input=backbone.input)
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (backbone.input.height, backbone.input.width, 3), dtype=np.uint8)
    found = explained(saved, array)
    assert found.heat.shape == array.shape[:2]
    assert found.heat.max() == 1
    assert len(np.unique(found.heat)) > 100
