"""1x1 convolutions that skip places: the same numbers, without the library's kernel that writes beyond its memory."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from zooft.compute.kernels import strided

if TYPE_CHECKING:
    from collections.abc import Sequence

LAST = torch.channels_last

STEP = """
import torch
from torch import nn
from zooft import InputSpec, Stage
from zooft.contracts import WeightsRecord
from zooft.model.adapted import AdaptedModel
from zooft.model.backbone import Backbone

trunk = nn.Sequential(nn.Conv2d(3, 48, 1, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
weights = WeightsRecord(kind="random", source="random", licence=None, file_sha256=None, tensors_sha256="")
spec = InputSpec(height=224, width=224, resize=224, mean=(0.5,) * 3, std=(0.5,) * 3)
stages = {"all": Stage(("0", "1", "2"))}
backbone = Backbone(
    family="toy", name="stem", module=trunk, stages=stages, slots=(), width=48, input=spec, weights=weights
)
model = AdaptedModel(backbone, nn.Linear(48, 2, bias=False)).to(memory_format=torch.channels_last)
for precision in (torch.float32, torch.bfloat16):
    for _ in range(5):
        with torch.autocast("cpu", precision, enabled=precision is torch.bfloat16):
            logits = model(torch.randn(8, 3, 224, 224).contiguous(memory_format=torch.channels_last))["logits"]
        logits.float().square().mean().backward()
"""


def run(x: torch.Tensor, weight: torch.Tensor, stride: int | Sequence[int], groups: int) -> list[torch.Tensor]:
    """The result, and the gradients of what was given."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    y = F.conv2d(x, weight, stride=stride, groups=groups)
    y.square().sum().backward()
    return [y, *(given.grad for given in (x, weight) if given.grad is not None)]


@pytest.mark.parametrize(
    ("channels", "stride", "groups", "size"),
    [(3, 2, 1, (9, 8)), (3, (2, 1), 1, (8, 8)), (15, 3, 1, (7, 11)), (12, 4, 4, (8, 8)), (16, 2, 1, (8, 8))],
    ids=str,
)
def test_results_and_gradients_are_those_in_float64(
    channels: int, stride: int | tuple[int, int], groups: int, size: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, *size, generator=generator)
    weight = torch.randn(8, channels // groups, 1, 1, generator=generator)
    expected = run(x.double(), weight.double(), stride, groups)
    with strided.picking():
        found = run(x.contiguous(memory_format=LAST), weight.contiguous(memory_format=LAST), stride, groups)
    assert found[0].is_contiguous(memory_format=LAST)
    for ours, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-4)


def test_other_convolutions_are_left_alone() -> None:
    x = torch.randn(1, 3, 9, 9, requires_grad=True)
    for kernel, padding in ((3, 1), (1, 1)):
        conv = nn.Conv2d(3, 4, kernel, stride=2, padding=padding)
        with strided.picking():
            assert torch.equal(conv(x), F.conv2d(x, conv.weight, conv.bias, 2, padding))


@pytest.mark.parametrize(
    ("name", "needed"),
    [("repvgg_a0", True), ("mobileone_s0", True), ("fastvit_t8", True), ("resnet18", False), ("test_vit", False)],
)
def test_it_is_known_which_models_need_it(name: str, needed: bool) -> None:
    with torch.device("meta"):
        assert strided.is_needed(timm.create_model(name)) is needed


def test_a_step_through_such_a_stem_never_ends_by_a_signal() -> None:
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
