"""The frozen prefix for inference: gives what the zoo's own module gives, and leaves that one alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zooft import InputSpec, Stage
from zooft.contracts import WeightsRecord
from zooft.features import prefix
from zooft.model.adapted import AdaptedModel
from zooft.model.backbone import Backbone
from zooft_timm.anatomy import anatomy as timm_anatomy
from zooft_torchvision.zoo import anatomy as torchvision_anatomy

EXACT = 2e-5
"""Well below what is allowed, since features of 50 layers in float32 leave only rounding."""
RECORD = WeightsRecord(kind="random", source="random", licence=None, file_sha256=None, tensors_sha256="")
SPEC = InputSpec(height=64, width=64, resize=64, mean=(0.5,) * 3, std=(0.5,) * 3)


def quiet(message: str) -> None:
    pytest.fail(message)


def images(count: int = 3, size: int = 96, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def randomised(module: nn.Module) -> nn.Module:
    """With batch norms that do something, so that leaving one out shows."""
    generator = torch.Generator().manual_seed(1)
    for norm in module.modules():
        if isinstance(getattr(norm, "running_mean", None), Tensor):
            state: Any = norm.state_dict()
            state["running_mean"].normal_(0, 0.2, generator=generator)
            state["running_var"].uniform_(0.5, 1.5, generator=generator)
            for name in ("weight", "bias"):
                if name in state:
                    state[name].uniform_(-0.3, 0.3, generator=generator).add_(1.0 if name == "weight" else 0.0)
    return module


def adapted(module: nn.Module, stages: dict[str, Stage], *, bag: bool = False) -> AdaptedModel:
    backbone = Backbone(
        family="test", name="test", module=module, stages=stages, slots=(), width=4, input=SPEC, weights=RECORD
    )
    return AdaptedModel(backbone, nn.Identity(), bag=bag)


def of_torchvision(name: str, *, bag: bool = False) -> AdaptedModel:
    from torchvision.models import get_model

    torch.manual_seed(0)
    module = randomised(get_model(name, weights=None))
    return adapted(module, dict(torchvision_anatomy(name, module).stages), bag=bag)


def of_timm(name: str, **options: Any) -> AdaptedModel:
    import timm

    torch.manual_seed(0)
    module = randomised(timm.create_model(name, **options))
    return adapted(module, dict(timm_anatomy(name, module).stages))


def single(module: nn.Module, *, bag: bool = False) -> AdaptedModel:
    """A hand-made module as one stage."""
    parts = tuple(name for name, _ in module.named_children())
    return adapted(randomised(module), {"all": Stage(parts, lambda m, x: m(x))}, bag=bag)


def unfolded(model: AdaptedModel, x: Tensor, stop: int | None = None) -> Tensor:
    """What torch says."""
    model.eval()
    with torch.no_grad():
        for stage in list(model.stages.values())[:stop]:
            x = stage(model.trunk, x)
    return x


def difference(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def fingerprint(model: AdaptedModel) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.stride()}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


ZOO: dict[str, tuple[Callable[[], AdaptedModel], int, int]] = {
    "resnet18": (lambda: of_torchvision("resnet18"), 20, 96),
    "vgg11_bn": (lambda: of_torchvision("vgg11_bn"), 8, 64),
    "mobilenet_v3_small": (lambda: of_torchvision("mobilenet_v3_small"), 34, 96),
    # uneven padding, and batch norms that hold the activation
    "tf_efficientnet_lite0": (lambda: of_timm("tf_efficientnet_lite0"), 49, 96),
    "resnet50 of timm": (lambda: of_timm("resnet50"), 53, 96),
    # the first norm of a block has an addition before it
    "resnetv2 with BatchNormAct2d": (lambda: of_timm("resnetv2_50"), 32, 96),
    "vit": (lambda: of_timm("vit_tiny_patch16_224", img_size=96), 0, 96),
}


@pytest.mark.parametrize("name", ZOO)
def test_folded_models_give_what_the_zoos_own_give(name: str) -> None:
    make, batch_norms, size = ZOO[name]
    model = make()
    x = images(size=size)
    found = prefix.runner(model, len(model.stages), images(size=size, seed=1), note=quiet)
    assert difference(found.run(x), unfolded(model, x)) < EXACT
    assert found.folded == batch_norms
    assert found.moved < EXACT


@pytest.mark.parametrize("size", [95, 112])
def test_uneven_padding_follows_the_size(size: int) -> None:
    """TensorFlow's padding of a stride of 2 is even for odd sizes and uneven for even ones."""
    model = of_timm("tf_efficientnet_lite0")
    x = images(size=size)
    found = prefix.runner(model, len(model.stages), x, note=quiet)
    assert found.folded == 49
    assert difference(found.run(x), unfolded(model, x)) < EXACT


def test_another_size_than_the_probes_is_right_too() -> None:
    model = of_timm("tf_efficientnet_lite0")
    found = prefix.runner(model, len(model.stages), images(size=96), note=quiet)
    other = images(size=97)
    assert difference(found.run(other), unfolded(model, other)) < EXACT


def test_every_boundary_is_right_and_other_batch_sizes_are() -> None:
    model = of_torchvision("resnet18")
    for stop in range(1, len(model.stages)):
        found = prefix.runner(model, stop, images(), note=quiet)
        for count in (1, 5):
            x = images(count)
            assert difference(found.run(x), unfolded(model, x, stop)) < EXACT


def test_no_stage_is_the_identity() -> None:
    x = images()
    found = prefix.runner(of_torchvision("resnet18"), 0, x, note=quiet)
    assert found.run(x) is x
    assert (found.folded, found.moved) == (0, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_stays_bit_equal_and_learns_on(dtype: torch.dtype) -> None:
    model = of_timm("tf_efficientnet_lite0").train()
    before = fingerprint(model)
    prefix.runner(model, 4, images(), dtype=dtype, note=quiet).run(images())
    assert fingerprint(model) == before
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and not p.is_inference() for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    model(images())["logits"].sum().backward()


def test_batch_norms_run_on_what_they_have_learnt_whatever_the_models_mode() -> None:
    model = of_torchvision("resnet18").train()
    found = prefix.runner(model, 3, images(), note=quiet).run(images())
    assert difference(found, unfolded(model, images(), 3)) < EXACT


def test_tensors_that_arent_folded_are_shared() -> None:
    model = of_timm("vit_tiny_patch16_224", img_size=96)
    twin = prefix._twin(model)
    own = {p.data_ptr() for p in model.parameters()}
    assert {p.data_ptr() for p in twin.parameters()} == own
    folded = of_torchvision("resnet18")
    twin = prefix._twin(folded)
    assert prefix._fold_norms(twin, 2, images()) == 5
    own = {p.data_ptr() for p in folded.parameters()}
    new = sum(p.nbytes for p in twin.parameters() if p.data_ptr() not in own)
    convolutions = list(nn.Sequential(folded.trunk.conv1, folded.trunk.layer1).modules())
    assert new == sum(m.weight.nbytes + 64 * 4 for m in convolutions if isinstance(m, nn.Conv2d))  # and biases


# Bags.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bags_keep_their_axes(dtype: torch.dtype) -> None:
    model = of_torchvision("resnet18", bag=True)
    bags = images(2 * 40, size=48).unflatten(0, (2, 40))  # more instances than run at a time
    found = prefix.runner(model, 3, bags, dtype=dtype, note=quiet)
    assert found.folded == 10
    expected = unfolded(model, bags.flatten(0, 1), 3).unflatten(0, (2, 40))
    assert difference(found.run(bags), expected) < (EXACT if dtype == torch.float32 else 0.05)
    assert difference(found.run(bags[:, :7]), expected[:, :7]) < (EXACT if dtype == torch.float32 else 0.05)


# Layers by hand.


class Chain(nn.Module):
    """One layer after the other."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def pooled(*layers: nn.Module) -> nn.Module:
    return Chain(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())


def frozen_norm(channels: int) -> nn.Module:
    from torchvision.ops import FrozenBatchNorm2d

    return FrozenBatchNorm2d(channels)


def frozen_norm_and_activation(channels: int) -> nn.Module:
    from timm.layers import FrozenBatchNormAct2d

    return FrozenBatchNormAct2d(channels)


def grouped_transposed() -> nn.Module:
    return nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2, bias=False)


FOLDABLE: dict[str, Callable[[], nn.Module]] = {
    "a bias": lambda: pooled(nn.Conv2d(3, 8, 3, bias=True), nn.BatchNorm2d(8), nn.SiLU()),
    "groups": lambda: pooled(nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
    "dilation": lambda: pooled(nn.Conv2d(3, 6, 3, dilation=2, padding=2), nn.BatchNorm2d(6), nn.Hardswish()),
    "padding by name": lambda: pooled(nn.Conv2d(3, 6, 3, padding="same"), nn.BatchNorm2d(6), nn.ReLU6()),
    "padding by reflection": lambda: pooled(
        nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6), nn.ReLU()
    ),
    "no affine": lambda: pooled(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)),
    "a transposed one": lambda: pooled(nn.Conv2d(3, 6, 3, stride=2), grouped_transposed(), nn.BatchNorm2d(4)),
    "frozen": lambda: pooled(nn.Conv2d(3, 8, 3, bias=False), frozen_norm(8), nn.GELU()),
    "frozen with activation": lambda: pooled(nn.Conv2d(3, 8, 3, bias=False), frozen_norm_and_activation(8)),
    "linear": lambda: Chain(
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 7, bias=False), nn.BatchNorm1d(7), nn.ReLU()
    ),
    "one dimension": lambda: Chain(nn.Flatten(2), nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5), nn.Flatten()),
    "three dimensions": lambda: Chain(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 4, 2), nn.BatchNorm3d(4), nn.Flatten()),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", FOLDABLE)
def test_layers_of_all_kinds_are_folded(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = single(FOLDABLE[kind]())
    x = images(size=24)
    found = prefix.runner(model, 1, x, dtype=dtype, note=quiet)
    assert found.folded == 1
    assert difference(found.run(x), unfolded(model, x)) < (EXACT if dtype == torch.float32 else 0.05)


class Twice(nn.Module):
    """The convolution's result is normalised and also added as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (self.norm(y) + y).flatten(1)


class Shared(nn.Module):
    """One convolution before two norms, and one norm behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norms = nn.Conv2d(3, 3, 3), nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])
        self.convs, self.norm = nn.ModuleList([nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)]), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        for norm in self.norms:
            x = norm(self.conv(x))
        for conv in self.convs:
            x = self.norm(conv(x))
        return x.flatten(1)


class Between(nn.Module):
    """Something happens to the convolution's result, in place, before the norm sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).abs_()).flatten(1)


class Rows(nn.Module):
    """A linear layer over the last axis, and a norm over the other one, of the same length."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(24, 24), nn.BatchNorm1d(24)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x.mean(1))).flatten(1)


NOT_FOLDABLE: dict[str, Callable[[], nn.Module]] = {
    "used twice": Twice,
    "shared": Shared,
    "changed between": Between,
    "another axis": Rows,
    "statistics of the batch": lambda: pooled(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)),
    "first in line": lambda: pooled(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.ReLU()),
}


def test_a_tensor_that_is_gone_and_had_the_same_identity_doesnt_hinder_folding() -> None:
    """Python gives an address again; which one, no test can choose, so this one says what was watched."""
    earlier, conv, norm = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
    reused = (1, 0)
    watch = prefix._Watch()
    for module, took, gave in [(earlier, reused, (2, 0)), (conv, (2, 0), reused), (norm, reused, (3, 0))]:
        watch.times[module] += 1
        watch.calls.append(prefix._Call(module, took, gave, (1, 3, 8, 8), 4, None))
    watch.uses[reused] = 1
    assert watch.follower(watch.calls[1], prefix._is_norm) is norm


@pytest.mark.parametrize("kind", NOT_FOLDABLE)
def test_what_cant_be_folded_is_left_and_right(kind: str) -> None:
    torch.manual_seed(0)
    model = single(NOT_FOLDABLE[kind]())
    x = images(2, size=24)  # as many as are compared: statistics of the batch depend on it
    found = prefix.runner(model, 1, x, note=quiet)
    assert found.folded == 0
    assert difference(found.run(x), unfolded(model, x)) < EXACT


class Standardised(nn.Conv2d):
    """A subclass whose weights aren't what it convolves with."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.weight.norm(), self.bias)


def test_what_only_the_comparison_finds_is_reported_and_done_without() -> None:
    torch.manual_seed(0)
    model = single(pooled(Standardised(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()))
    text: list[str] = []
    x = images(size=24)
    found = prefix.runner(model, 1, x, note=text.append)
    assert found.folded == 0
    assert difference(found.run(x), unfolded(model, x)) < EXACT
    assert len(text) == 1
    assert "moves the features" in text[0]


class Fussy(nn.Module):
    """Its forward reads a batch norm's attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).flatten(1) * self.norm.eps


def test_a_model_that_fails_when_folded_runs_unfolded_and_says_so() -> None:
    torch.manual_seed(0)
    model = single(Fussy())
    text: list[str] = []
    x = images(size=24)
    found = prefix.runner(model, 1, x, note=text.append)
    assert difference(found.run(x), unfolded(model, x)) < EXACT
    assert len(text) == 1
    assert "eps" in text[0]


def test_shared_activations_arent_taken_out() -> None:
    torch.manual_seed(0)
    relu = nn.ReLU()
    layers = pooled(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), relu, nn.BatchNorm2d(4), relu)
    model, x = single(layers), images(size=24)
    found = prefix.runner(model, 1, x, note=quiet)
    assert found.folded == 1
    assert difference(found.run(x), unfolded(model, x)) < EXACT


# bfloat16.


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "vit"])
def test_bfloat16_says_what_it_moved(name: str) -> None:
    model, x = ZOO[name][0](), images()
    found = prefix.runner(model, len(model.stages), x, dtype=torch.bfloat16, note=quiet)
    y, expected = found.run(x), unfolded(model, x)
    assert y.dtype == torch.float32
    assert found.folded == ZOO[name][1]
    moved = float((y - expected)[:2].norm() / expected[:2].norm())
    assert found.moved == pytest.approx(moved, rel=0.2)
    assert 1e-4 < found.moved < 0.2


def test_a_model_that_makes_its_own_float32_runs_in_bfloat16_too() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(24, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.mean(1) @ torch.eye(24)).flatten(1)

    model, x = single(Own()), images(size=24)
    found = prefix.runner(model, 1, x, dtype=torch.bfloat16, note=quiet)
    assert difference(found.run(x), unfolded(model, x)) < 0.05


def test_a_callers_autocast_and_gradients_stay_outside() -> None:
    model, x = of_torchvision("resnet18"), images()
    with torch.autocast("cpu", torch.bfloat16):
        y = prefix.runner(model, 3, x, note=quiet).run(x)
    assert difference(y, unfolded(model, x, 3)) < EXACT
    assert not y.requires_grad
    with torch.inference_mode():
        y = prefix.runner(model, 3, x.clone(), note=quiet).run(x)
    assert difference(y, unfolded(model, x, 3)) < EXACT
