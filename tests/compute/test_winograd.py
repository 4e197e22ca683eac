"""Convolutions in another basis: torch's own in float64 is the truth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zooft.compute.kernels import winograd
from zooft.compute.kernels.winograd import Winograd


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (8, 12), (14, 14), (28, 28), (5, 30)])
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_the_result_is_the_convolutions(size: tuple[int, int], images: int, bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(130, 140, 3, padding=1, bias=bias)
    x = torch.randn(images, 130, *size).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = Winograd(conv, nn.ReLU())(x)
        exact = conv.double()(x.double()).relu()
    assert found.shape == exact.shape
    assert float((found.double() - exact).norm() / exact.norm()) < 3e-6


@pytest.mark.parametrize(
    ("changes", "margins"),
    [
        ({"kernel_size": 5}, ((1, 1), (1, 1))),
        ({"stride": 2}, ((1, 1), (1, 1))),
        ({"dilation": 2}, ((1, 1), (1, 1))),
        ({"groups": 2}, ((1, 1), (1, 1))),
        ({"in_channels": 64}, ((1, 1), (1, 1))),
        ({"out_channels": 64}, ((1, 1), (1, 1))),
        ({}, ((0, 0), (0, 0))),
        ({}, ((0, 1), (0, 1))),
        ({"dtype": torch.bfloat16}, ((1, 1), (1, 1))),
    ],
)
def test_others_are_left_alone(changes: dict[str, Any], margins: Any) -> None:
    usual: dict[str, Any] = {"in_channels": 128, "out_channels": 128, "kernel_size": 3, "padding": 1}
    assert suits(nn.Conv2d(**usual), ((1, 1), (1, 1)))
    assert not suits(nn.Conv2d(**{**usual, **changes}), margins)


def suits(conv: nn.Conv2d, margins: Any) -> bool:
    return winograd.suits(conv.weight, stride=conv.stride, margins=margins, dilation=conv.dilation, groups=conv.groups)


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (14, 14), (5, 30), (28, 28)])
@pytest.mark.parametrize("images", [1, 9])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_are_the_convolutions(size: tuple[int, int], images: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    weight = torch.randn(140, 130, 3, 3) / 30
    x = torch.randn(images, 130, *size).to(memory_format=layout)
    flowing = torch.randn(images, 140, *size).to(memory_format=layout)
    exact = [part.double().requires_grad_() for part in (x, weight)]
    F.conv2d(*exact, padding=1).backward(flowing.double())
    found = (winograd.input_gradient(flowing, weight), winograd.weight_gradient(flowing, x))
    for one, true in zip(found, exact, strict=True):
        assert one.shape == true.shape
        assert true.grad is not None
        assert float((one.double() - true.grad).norm() / true.grad.norm()) < 4e-6


def test_no_images_are_no_results() -> None:
    conv = nn.Conv2d(130, 140, 3, padding=1)
    none = torch.zeros(0, 130, 7, 9)
    with torch.inference_mode():
        assert Winograd(conv, nn.ReLU())(none).shape == (0, 140, 7, 9)
    flowing = torch.zeros(0, 140, 7, 9)
    assert winograd.input_gradient(flowing, conv.weight.detach()).shape == none.shape
    assert not winograd.weight_gradient(flowing, none).any()
