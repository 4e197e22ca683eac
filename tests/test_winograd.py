"""Convolutions in another basis: torch's own in float64 is the truth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from zooft import winograd
from zooft.winograd import Winograd


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
        ({"kernel_size": 5}, ((1, 1), (1, 1))), ({"stride": 2}, ((1, 1), (1, 1))), ({"dilation": 2}, ((1, 1), (1, 1))),
        ({"groups": 2}, ((1, 1), (1, 1))), ({"in_channels": 64}, ((1, 1), (1, 1))), ({"out_channels": 64}, ((1, 1), (1, 1))),
        ({}, ((0, 0), (0, 0))), ({}, ((0, 1), (0, 1))), ({"dtype": torch.bfloat16}, ((1, 1), (1, 1))),
    ],
)  # fmt: skip
def test_others_are_left_alone(changes: dict[str, Any], margins: Any) -> None:
    usual: dict[str, Any] = {"in_channels": 128, "out_channels": 128, "kernel_size": 3, "padding": 1}
    assert winograd.suits(nn.Conv2d(**usual), ((1, 1), (1, 1)))
    assert not winograd.suits(nn.Conv2d(**{**usual, **changes}), margins)
