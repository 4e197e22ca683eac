"""The last piece of a graph that gives numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zooft.problems.regression.scaling import HEAD

if TYPE_CHECKING:
    from zooft.problems.regression.scaling import Scale


class NumbersGraph(nn.Module):
    """Standardised numbers to numbers in their units, ``(N, L)``.

    Args:
        scale: of the L numbers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(scale.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(scale.std, dtype=torch.float32))

    def forward(self, outputs: Mapping[str, Tensor], _batch: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Of the head's output; the inputs don't matter."""
        found = outputs[HEAD]
        if found.dtype != torch.float64:  # which only float64 inputs have
            found = found.float()
        return (found * self.std + self.mean,)
