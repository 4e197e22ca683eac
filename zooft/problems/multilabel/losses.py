"""Losses of labels as sums over those that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zooft.contracts import Loss
from zooft.problems.multilabel.head import HEAD


class WeightedLoss(nn.Module):
    """Binary cross-entropy, where a label that is there counts as often as its weight gives.

    Args:
        weights: of the L labels; None for 1 each.
    """

    weights: Tensor | None

    def __init__(self, weights: Sequence[float] | None) -> None:
        super().__init__()
        self.register_buffer("weights", None if weights is None else torch.tensor(weights, dtype=torch.float32))

    def forward(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Loss:
        """Of logits ``(N, L)`` and targets ``(N, L)``: 1, 0, or NaN, which counts for nothing."""
        logits, known = outputs[HEAD], ~torch.isnan(targets)
        wanted = torch.where(known, targets, 0.0).to(logits.dtype)
        each = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=self.weights, reduction="none")
        return Loss((each * known).sum(), known.sum())


class AsymmetricLoss(nn.Module):
    """The asymmetric loss (Ridnik et al. 2021), which takes easy negatives out of the gradient.

    Args:
        negative: focusing exponent of absent labels; that of present ones is 0, as in the paper.
        margin: by which the probability of an absent label is shifted down before it counts.
    """

    def __init__(self, *, negative: float = 4.0, margin: float = 0.05) -> None:
        super().__init__()
        self.negative, self.margin = negative, margin

    def forward(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Loss:
        """As `WeightedLoss`."""
        logits, known = outputs[HEAD], ~torch.isnan(targets)
        shifted = (torch.sigmoid(logits) - self.margin).clamp(min=0)
        absent = shifted**self.negative * torch.log1p(
            -shifted
        )  # finite, since no shifted probability is above 1 - margin
        each = torch.where(targets == 1, F.logsigmoid(logits), absent)
        return Loss(-(each * known).sum(), known.sum())


class SoftenedLabels(nn.Module):
    """The divergence of a teacher's probability of each label from this one, both at a temperature.

    As of two classes (Hinton et al. 2015), the mean over labels: also of those that aren't known of a sample, since
    the teacher answers about all.

    Args:
        temperature: that divides the logits.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, outputs: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Loss:
        """Of logits ``(N, L)`` and the teacher's."""
        ours, wanted = (each[HEAD] / self.temperature for each in (outputs, theirs))
        present = torch.sigmoid(wanted) * (F.logsigmoid(wanted) - F.logsigmoid(ours))
        absent = torch.sigmoid(-wanted) * (F.logsigmoid(-wanted) - F.logsigmoid(-ours))
        return Loss(self.temperature**2 * (present + absent).sum(), float(ours.numel()))
