"""Features brought to mean 0 and standard deviation 1 before a head takes them.

Apart from `heads`, which is loaded with the registry and therefore without torch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SLOWEST = 0.02
"""Least weight of a new batch in the running statistics, which follow features that learn.

At first all batches weigh alike.
"""
_SMALLEST = 1e-3
"""Least standard deviation, of the mean one of all features: what hardly varies carries nothing, and isn't blown up."""


class Standardise(nn.Module):
    """``(..., width)`` by running mean and variance of what was seen in training; nothing of it learns by gradient.

    Not a batch norm: a batch isn't standardised by itself, so a single sample may be one, and batches add no noise.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """The same, standardised."""
        if self.training:
            self._follow(features.detach())
        spread = self.variance.sqrt()
        return (features - self.mean) / torch.maximum(spread, _SMALLEST * spread.mean()).clamp_min(1e-6)

    def _follow(self, features: Tensor) -> None:
        rows = features.reshape(-1, features.shape[-1]).to(self.mean.dtype)
        share = max(_SLOWEST, 1 / (float(self.batches) + 1))
        new, old = rows.mean(0), self.mean.clone()
        self.mean.lerp_(new, share)
        # of both, around the new mean
        within = (rows - new).square().mean(0) + (new - self.mean).square()
        before = self.variance + (old - self.mean).square() if self.batches else torch.zeros_like(within)
        self.variance.copy_(torch.lerp(before, within, share))
        self.batches += 1
