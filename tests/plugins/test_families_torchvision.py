"""The family torchvision: against torchvision itself."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_weights

from zooft import Family, testing
from zooft.errors import UnknownNameError
from zooft.model import freeze
from zooft.model.adapted import AdaptedModel, zoo_state_dict
from zooft.model.backbone import Backbone, load_backbone, outline_backbone
from zooft.model.names import full_name
from zooft_torchvision import zoo, zooft_register_families

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FINE = {
    "resnet18": ("stem", "layer1", "layer2", "layer3", "layer4", "pool"),
    "vgg11": ("block1", "block2", "block3", "block4", "block5", "hidden"),
    "vgg11_bn": ("block1", "block2", "block3", "block4", "block5", "hidden"),
}
SMALL = ["resnet18", "shufflenet_v2_x0_5", "mobilenet_v3_small", "regnet_y_400mf"]
# the smallest of each of torchvision's classes
EVERY_CLASS = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18",
    "resnext50_32x4d", "wide_resnet50_2", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vgg11_bn", "vit_b_32",
]  # fmt: skip # a table of models


@cache
def family() -> Family:
    """As registered, but for tensors that no longer are as they were initialised."""
    (only,) = zooft_register_families()
    return replace(only, build=lambda name: shaken(zoo.build(name)))


def shaken(module: nn.Module) -> nn.Module:
    """Give BatchNorm statistics, biases and scales values that show in the output, as training does."""
    generator = torch.Generator().manual_seed(2)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            size = 0.1 if name.endswith("running_var") else 0.02
            tensor.add_(torch.rand(tensor.shape, generator=generator) * size)
    return module


def load(name: str, *, channels: int = 3) -> Backbone:
    torch.manual_seed(0)
    return load_backbone(family(), name, weights="random", sources=(), channels=channels)


def adapted(name: str) -> AdaptedModel:
    backbone = load(name)
    return AdaptedModel(backbone, nn.Linear(backbone.width, 2)).eval()


def noise(model: AdaptedModel | Backbone, samples: int = 2, size: int = 224) -> torch.Tensor:
    return torch.randn(samples, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["resnet18"])
def test_a_model_keeps_every_promise_up_to_its_onnx_file(name: str, tmp_path: Path) -> None:
    testing.check_family(family(), name, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["vgg11", "vgg11_bn", "convnext_tiny", "swin_t", "regnet_y_400mf", "densenet121", "vit_b_32"]
)
def test_every_kind_of_map_keeps_every_promise_up_to_its_onnx_file(name: str, tmp_path: Path) -> None:
    testing.check_family(family(), name, folder=tmp_path)


@pytest.mark.parametrize(("name", "stages"), FINE.items())
def test_resnet_and_vgg_have_fine_stages(name: str, stages: tuple[str, ...]) -> None:
    with torch.device("meta"):
        assert tuple(zoo.anatomy(name, zoo.build(name)).stages) == stages


@pytest.mark.parametrize("name", [*SMALL, pytest.param("vgg11_bn", marks=pytest.mark.slow)])
def test_frozen_stages_stay_and_the_others_learn(name: str) -> None:
    testing.check_freezing(load(name))


@pytest.mark.parametrize("name", [*SMALL, pytest.param("vgg11_bn", marks=pytest.mark.slow)])
def test_a_checkpoint_for_two_classes_loads_strictly_into_plain_torchvision(name: str) -> None:
    model = adapted(name)
    plain = get_model(name, num_classes=2).eval()
    plain.load_state_dict(zoo_state_dict(model), strict=True)
    with torch.inference_mode():
        expected = plain(noise(model))
        assert float(expected.std()) > 0
        torch.testing.assert_close(
            model(noise(model))["logits"], expected, rtol=1e-4, atol=1e-4 * float(expected.std())
        )


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "resnet18"])
def test_statistics_of_frozen_batchnorms_stand_still_and_others_move(name: str) -> None:
    model = adapted(name)
    before = {n: b.clone() for n, b in model.trunk.named_buffers()}
    freeze.apply(model, freeze.learnable_stages(model))
    model(noise(model, 4))
    assert all(torch.equal(b, before[n]) for n, b in model.trunk.named_buffers())
    freeze.apply(model, ())
    model(noise(model, 4))
    assert all(not torch.equal(b, before[n]) for n, b in model.trunk.named_buffers() if "running_mean" in n)


@pytest.mark.parametrize("name", ["mobilenet_v3_small"])
def test_frozen_stages_drop_nothing(name: str) -> None:
    model = adapted(name)
    x = noise(model)
    freeze.apply(model, freeze.learnable_stages(model))
    assert torch.equal(model(x)["logits"], model(x)["logits"])
    freeze.apply(model, ())
    assert not torch.equal(model(x)["logits"], model(x)["logits"])


def test_one_channel_gives_what_the_grey_image_over_three_channels_gives() -> None:
    wide, narrow = load("resnet18"), load("resnet18", channels=1)
    tensors = dict(wide.module.state_dict())
    tensors["conv1.weight"] = tensors["conv1.weight"].sum(1, keepdim=True)
    narrow.module.load_state_dict(tensors)
    grey = torch.randn(2, 1, 224, 224)
    with torch.inference_mode():
        expected = wide.module.eval()(grey.repeat(1, 3, 1, 1))
        torch.testing.assert_close(narrow.module.eval()(grey), expected, rtol=1e-4, atol=1e-5)
    assert (narrow.input.channels, wide.input.channels) == (1, 3)


@pytest.mark.parametrize("name", ["resnet18", "vit_b_32", "efficientnet_b0"])
def test_the_input_is_what_torchvisions_own_transform_would_make(name: str) -> None:
    spec = zoo.anatomy(name, zoo.build(name)).input
    transform = get_model_weights(name).DEFAULT.transforms()
    assert (spec.height, spec.resize) == (transform.crop_size[0], transform.resize_size[0])
    assert (list(spec.mean), list(spec.std)) == (transform.mean, transform.std)
    assert spec.interpolation == transform.interpolation.value


def test_every_classification_model_is_offered() -> None:
    assert set(torchvision.models.list_models(module=torchvision.models)) == set(zoo.models())


@pytest.mark.parametrize("name", ["regnet_x_16gf", "regnet_y_128gf", "squeezenet1_0", "resnet18"])
def test_a_model_is_checked_without_memory_for_its_tensors(name: str) -> None:
    backbone = outline_backbone(family(), name)
    assert all(tensor.is_meta for tensor in backbone.module.state_dict().values())
    assert backbone.width == {"regnet_x_16gf": 2048, "regnet_y_128gf": 7392}.get(name, 512)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", zoo.models())
def test_every_model_of_torchvision_is_checked_without_memory_too(name: str) -> None:
    assert outline_backbone(family(), name).width > 0


def test_squeezenet_answers_as_torchvisions_own_but_for_the_cut_below_zero() -> None:
    model = adapted("squeezenet1_1")
    plain = get_model("squeezenet1_1", num_classes=2).eval()
    plain.load_state_dict(zoo_state_dict(model), strict=True)
    with torch.inference_mode():
        features = plain.features(noise(model))
        uncut = plain.classifier[1](features)
        assert float(uncut.min()) < 0, "nothing is cut here, so this proves nothing"
        torch.testing.assert_close(model(noise(model))["logits"], uncut.mean((2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet81", "squeezenet1_3"])
def test_an_unknown_model_gets_the_nearest_names(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"torchvision has no model .*nearest: "):
        full_name(family(), name)


def test_weights_are_at_hand_once_torch_has_downloaded_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    assert not zoo.at_hand("resnet18")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").touch()
    assert zoo.at_hand("resnet18")


@pytest.mark.network
def test_torchvisions_own_weights_are_downloaded_and_recorded() -> None:
    (plain,) = zooft_register_families()
    backbone = load_backbone(plain, "shufflenet_v2_x0_5", weights="pretrained", sources=())
    assert backbone.weights.kind == "zoo"
    assert "IMAGENET1K_V1" in backbone.weights.source
    assert zoo.at_hand(backbone.name)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", zoo.models())
def test_every_model_of_torchvision_loads(name: str) -> None:
    assert load(name).width > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_CLASS)
def test_one_model_of_every_class_of_torchvision_keeps_its_promises(name: str) -> None:
    testing.check_freezing(load(name))
    testing.check_round_trip(family(), load(name))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_models_that_transform_their_input_see_what_they_were_trained_on(name: str) -> None:
    """With pretrained weights, torchvision builds these with ``transform_input=True``."""
    levels = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    theirs = get_model(name, weights=None, aux_logits=False, init_weights=False, transform_input=True)
    statistics = get_model_weights(name).DEFAULT.transforms()
    expected = theirs._transform_input((levels - column(statistics.mean)) / column(statistics.std))
    spec = outline_backbone(family(), name).input
    torch.testing.assert_close((levels - column(spec.mean)) / column(spec.std), expected)


def column(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values)[:, None, None]
