"""Losses of numbers as sums over those that are known."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zooft.contracts import Loss
from zooft.problems.regression.scaling import HEAD


class NumbersLoss(nn.Module):
    """The squared error, or the smooth absolute one (Girshick 2015), of standardised numbers.

    Args:
        squared: for the former.
    """

    def __init__(self, *, squared: bool) -> None:
        super().__init__()
        self.squared = squared

    def forward(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Loss:
        """Of the output ``(N, L)`` and targets ``(N, L)``, where NaN isn't known and counts for nothing."""
        found, known = outputs[HEAD], ~torch.isnan(targets)
        # no gradient comes from where the target is the output itself
        wanted = torch.where(known, targets.to(found.dtype), found.detach())
        each = F.mse_loss if self.squared else F.smooth_l1_loss
        return Loss(each(found, wanted, reduction="sum"), known.sum())
