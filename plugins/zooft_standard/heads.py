"""Modules that take a trunk's features to logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def linear(width: int, outputs: int) -> nn.Linear:
    """``(N, width) -> (N, outputs)``; small weights and no bias, so that training starts from even odds."""
    from torch import nn

    layer = nn.Linear(width, outputs)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def logistic(width: int, outputs: int) -> nn.Module:
    """``(N, width) -> (N, outputs)``: features standardised, then `linear`."""
    from torch import nn

    from zooft_standard.standardised import Standardise

    return nn.Sequential(Standardise(width), linear(width, outputs))


def mean(width: int, outputs: int) -> nn.Module:
    """``(N, Z, width) -> (N, outputs)``: the mean over the instances, then `linear`."""
    from zooft_standard.bags import Mean

    return Mean(linear(width, outputs))


def largest(width: int, outputs: int) -> nn.Module:
    """``(N, Z, width) -> (N, outputs)``: each feature's maximum over the instances, then `linear`."""
    from zooft_standard.bags import Max

    return Max(linear(width, outputs))


def attention(width: int, outputs: int) -> nn.Module:
    """``(N, Z, width) -> (N, outputs)``: a learnt weighted mean over the instances, then `linear`."""
    from zooft_standard.bags import GatedAttention

    return GatedAttention(width, linear(width, outputs))
