"""Images of nothing, of the size that a backbone wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from zooft.model.backbone import Backbone


def noise(backbone: Backbone, count: int, *, seed: int = 1) -> Tensor:
    """``(count, C, H, W)`` of the standard normal distribution, the same for the same seed."""
    spec = backbone.input
    return torch.randn(count, spec.channels, spec.height, spec.width, generator=torch.Generator().manual_seed(seed))
