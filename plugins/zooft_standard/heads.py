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
