"""The head: features, less their mean over the training pictures, through a linear layer that turns slowly.

What all pictures share, such as being faces, would make every pair alike, so it is taken off. Weights stay at unit
variance and scaled in the forward pass (Karras et al. 2018, equalised learning rate): a step of the usual rate is then
a small turn, and what the pretrained features know of things that aren't in the training data stays.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MOMENTUM = 0.01


class Embedding(nn.Module):
    """``(N, width) -> (N, size)``; not normalised.

    Args:
        width: of the features.
        size: of an embedding.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        weight = torch.empty(size, width)
        nn.init.orthogonal_(weight)
        spread = float(weight.square().mean().sqrt())
        self.weight = nn.Parameter(weight / spread)
        self.bias = nn.Parameter(torch.zeros(size))
        self.scale = spread
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.mean: Tensor
        self.batches: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Of a batch; in training the mean follows the features."""
        if self.training:
            with torch.no_grad():
                self.batches += 1
                share = (1 / self.batches).clamp_min(_MOMENTUM).to(self.mean.dtype)
                self.mean += share * (x.detach().to(self.mean.dtype).mean(0) - self.mean)
        return nn.functional.linear(x - self.mean, self.weight * self.scale, self.bias)
