"""Heads that read maps: what they are given, what frozen stages hand on, which stages never run, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zooft
from zooft.contracts import Tap
from zooft.errors import PluginError
from zooft.hooks import registry
from zooft.model import freeze, taps
from zooft.model.adapted import AdaptedModel, adapt, load_zoo_state_dict, zoo_state_dict
from zooft.model.backbone import Backbone, load_backbone

MODELS = ["torchvision:resnet18", "timm:vit_tiny_patch16_224", "timm:mobilenetv3_small_050"]


class Sum(nn.Module):
    """All maps by a 1x1 convolution, at the size of the first."""

    def __init__(self, taps: Sequence[Tap], sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(tap.channels, sizes["logits"], 1) for tap in taps)

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """By name."""
        size = maps[0].shape[-2:]
        made = [nn.functional.interpolate(layer(x), size) for layer, x in zip(self.layers, maps, strict=True)]
        return {"logits": torch.stack(made).sum(0)}


def head(build: Any = Sum, reads: Any = "pyramid", gives: Any = "map") -> zooft.Head:
    return zooft.Head(name="sum", summary="a sum", build=build, reads=reads, gives=gives)


def backbone(name: str) -> Backbone:
    family, _, model = name.partition(":")
    torch.manual_seed(0)
    return load_backbone(registry.load().family(family), model, weights="random", sources=())


def image() -> Tensor:
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> AdaptedModel:
    return adapt(backbone(request.param), head(), {"logits": 4}).eval()


def test_a_pyramid_s_maps_double_their_stride(model: AdaptedModel) -> None:
    with torch.no_grad():
        maps = model.maps(image())
    assert [tuple(each.shape[-2:]) for each in maps] == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert [reading.seen.stride for reading in model.readings] == [4, 8, 16, 32]
    assert [each.shape[1] for each in maps] == [reading.seen.channels for reading in model.readings]


@pytest.mark.parametrize(
    ("shape", "size", "layout", "stride"),
    [
        ((1, 40, 36, 48), (288, 384), "map", 8),
        ((1, 36, 48, 40), (288, 384), "channels last", 8),
        ((1, 48, 48, 36), (384, 288), "map", 8),
        ((1, 9, 12, 768), (288, 384), "channels last", 32),
        ((1, 768, 14, 14), (224, 224), "map", 16),
        ((1, 14, 14, 768), (224, 224), "channels last", 16),
    ],
)
def test_rows_and_columns_have_the_shape_of_the_image(shape: Any, size: Any, layout: str, stride: int) -> None:
    """Also where there are as many channels as columns, nearly."""
    spec = zooft.InputSpec(height=size[0], width=size[1], resize=size[0], mean=(0.5,) * 3, std=(0.5,) * 3)
    tap = taps.tap_of("stage", shape, spec)
    assert tap is not None
    assert (tap.layout, tap.stride) == (layout, stride)
    assert (tap.rows, tap.columns) == (size[0] // stride, size[1] // stride)


def test_from_every_boundary_on_the_answer_is_that_of_the_whole(model: AdaptedModel) -> None:
    x = image()
    with torch.no_grad():
        expected = model(x)["logits"]
        for stop in range(1, len(model.stages) + 1):
            row = model.prefix(x, stop)
            assert row.ndim == 2
            assert torch.equal(model(row, stop)["logits"], expected), stop


def test_the_maps_are_what_leaves_the_stages(model: AdaptedModel) -> None:
    """By the zoo's own modules, watched from outside."""
    seen: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
        for name, module in model.trunk.named_modules()
    ]
    with torch.no_grad():
        maps = model.maps(image())
    for hook in hooks:
        hook.remove()
    deepest = model.stages[model.readings[-1].tap.stage].parts[-1]
    out = seen[deepest]
    if out.ndim == 3:  # tokens, the first of which is the class's, pooled to half the size
        out = nn.functional.max_pool2d(out[:, 1:].transpose(1, 2).reshape(2, -1, 14, 14), 2)
    assert torch.equal(maps[-1], out)


def test_stages_behind_the_deepest_map_never_run_and_stay(model: AdaptedModel) -> None:
    unread = model.unread
    assert "pool" in unread
    learnable = freeze.learnable_by_stage(model)
    assert not set(learnable) & unread
    freeze.apply(model, ())
    for stage, named in freeze.parameters_by_stage(model).items():
        assert all(parameter.requires_grad == (stage not in unread) for _, parameter in named)
    model.eval()
    held = [name for name in model.trunk.state_dict() if name.startswith(("norm.", "conv_head."))]
    assert set(held) <= set(freeze.fingerprints(model, ()))


def test_weights_go_to_the_zoo_s_names_and_come_back(model: AdaptedModel) -> None:
    tensors = zoo_state_dict(model)
    assert {name for name in tensors if name.startswith("zooft_head.")} == {
        f"zooft_head.layers.{index}.{kind}" for index in range(4) for kind in ("weight", "bias")
    }
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    load_zoo_state_dict(model, before, what="the test")
    assert all(torch.equal(tensor, before[name]) for name, tensor in zoo_state_dict(model).items())


def test_a_head_of_one_map_gets_the_deepest() -> None:
    found = adapt(backbone("torchvision:resnet18"), head(reads="map"), {"logits": 4})
    assert [reading.tap.stage for reading in found.readings] == ["layer4"]


def test_several_outputs_of_vectors_from_a_map() -> None:
    class Pool(nn.Module):
        def __init__(self, taps: Sequence[Tap], sizes: Mapping[str, int]) -> None:
            super().__init__()
            self.layers = nn.ModuleDict({name: nn.Linear(taps[0].channels, size) for name, size in sizes.items()})

        def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
            return {name: layer(maps[0].amax((2, 3))) for name, layer in self.layers.items()}

    found = adapt(backbone("torchvision:resnet18"), head(Pool, "map", "vector"), {"age": 1, "view": 3}).eval()
    with torch.no_grad():
        made = found(image())
    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == {"age": (2, 1), "view": (2, 3)}


class Wrong(nn.Module):
    """Makes of maps what it is given."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made = made

    def forward(self, maps: list[Tensor]) -> Any:
        """That."""
        return self.made


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"logits": torch.zeros(2, 4)}, r"the shape of the output logits .* \(2, 4\).*expected \(2, 4, h, w\)"),
        ({"logits": torch.zeros(2, 5, 7, 7)}, r"\(2, 5, 7, 7\).*expected \(2, 4, h, w\)"),
        ({"other": torch.zeros(2, 4, 7, 7)}, "other.*expected a mapping with logits"),
        (torch.zeros(2, 4, 7, 7), "expected a mapping with logits"),
        ({"logits": torch.full((2, 4, 7, 7), float("nan"))}, "logits isn't finite"),
        ({"logits": "no"}, r"the output logits .*'no'.*expected a tensor"),
    ],
)
def test_what_a_head_gives_of_maps_is_checked(made: Any, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        adapt(backbone("torchvision:resnet18"), head(lambda taps, sizes: Wrong(made)), {"logits": 4})


def test_places_have_their_numbers_last() -> None:
    made = {"logits": torch.zeros(2, 30, 4)}
    found = adapt(
        backbone("torchvision:resnet18"), head(lambda taps, sizes: Wrong(made), gives="places"), {"logits": 4}
    )
    assert found.outputs == ("logits",)
