"""The likelihood of grades, as a sum over samples, and the cumulative logits in torch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zooft.contracts import Loss
from zooft.problems.ordinal.links import HEAD, NARROWEST


def cumulative(steps: Tensor) -> Tensor:
    """As `links.cumulative_logits`."""
    gaps = F.softplus(steps[:, 1:]) + NARROWEST
    return torch.cat([steps[:, :1], steps[:, :1] - gaps.cumsum(1)], dim=1)


class CumulativeLinkLoss(nn.Module):
    """The negative log-likelihood of the true grades (McCullagh 1980)."""

    def forward(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Loss:
        """Of the output ``(N, K - 1)`` and the grades ``(N,)``.

        With a = l_k and b = l_k+1, sigmoid(a) - sigmoid(b) is sigmoid(a) · sigmoid(-b) · (1 - exp(b - a)), whose
        logarithm stays exact where the difference itself would round to 0.
        """
        steps = outputs[HEAD]
        logits = cumulative(steps)
        lower, upper = targets > 0, targets < logits.shape[1]
        above = logits.gather(1, (targets - 1).clamp(min=0)[:, None])[:, 0]
        below = logits.gather(1, targets.clamp(max=logits.shape[1] - 1)[:, None])[:, 0]
        # not above - below, which rounds to 0 among large logits; the column behind stands for a gap that nobody looks
        # at
        gaps = torch.cat([F.softplus(steps[:, 1:]) + NARROWEST, torch.ones_like(steps[:, :1])], dim=1)
        gap = gaps.gather(1, (targets - 1).clamp(0, gaps.shape[1] - 1)[:, None])[:, 0]
        log_likelihood = (
            torch.where(lower, F.logsigmoid(above), 0.0)
            + torch.where(upper, F.logsigmoid(-below), 0.0)
            + torch.where(lower & upper, torch.log(-torch.expm1(-gap)), 0.0)
        )
        return Loss(-log_likelihood.sum(), float(len(targets)))


class SoftenedGrades(nn.Module):
    """The divergence of a teacher's probabilities of grades from these, both at a temperature.

    It divides the cumulative logits, which stay in their order. Times its square, as of classes (Hinton et al. 2015).

    Args:
        temperature: that divides the cumulative logits.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, outputs: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Loss:
        """Of the output ``(N, K - 1)`` and the teacher's."""
        ours, wanted = (_log_probabilities(each[HEAD], self.temperature) for each in (outputs, theirs))
        total = F.kl_div(ours, wanted, reduction="sum", log_target=True)
        return Loss(self.temperature**2 * total, float(len(ours)))


def _log_probabilities(steps: Tensor, temperature: float) -> Tensor:
    """Of each grade ``(N, K)``, exact where probabilities themselves would round to 0, as `CumulativeLinkLoss` is."""
    logits = cumulative(steps) / temperature
    gaps = (F.softplus(steps[:, 1:]) + NARROWEST) / temperature
    inner = F.logsigmoid(logits[:, :-1]) + F.logsigmoid(-logits[:, 1:]) + torch.log(-torch.expm1(-gaps))
    return torch.cat([F.logsigmoid(-logits[:, :1]), inner, F.logsigmoid(logits[:, -1:])], dim=1)
