"""Losses of numbers as sums over those that are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zooft.contracts import Loss
from zooft.problems.regression.scaling import HEAD

if TYPE_CHECKING:
    from zooft.problems.regression.scaling import Scale


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


class TaughtNumbers(nn.Module):
    """The squared distance of a teacher's numbers from these, in standard deviations of the training targets.

    Args:
        theirs: how the teacher's are standardised.
        ours: how these are.
    """

    factor: Tensor
    shift: Tensor

    def __init__(self, theirs: Scale, ours: Scale) -> None:
        super().__init__()
        factor, shift = theirs.std / ours.std, (theirs.mean - ours.mean) / ours.std
        self.register_buffer("factor", torch.tensor(factor, dtype=torch.float32), persistent=False)
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32), persistent=False)

    def forward(self, outputs: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Loss:
        """Of the output ``(N, L)`` and the teacher's."""
        found, wanted = outputs[HEAD], theirs[HEAD] * self.factor + self.shift
        return Loss(F.mse_loss(found, wanted, reduction="sum"), float(found.numel()))
