"""The last piece of a graph that gives grades."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from zooft.problems.ordinal.links import HEAD
from zooft.problems.ordinal.losses import cumulative


class GradeGraph(nn.Module):
    """Probabilities ``(N, K)``, cumulative logits ``(N, K - 1)`` and the grade ``(N,)`` int64."""

    def forward(self, outputs: Mapping[str, Tensor], _batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Of the head's output; the inputs don't matter."""
        steps = outputs[HEAD]
        if steps.dtype != torch.float64:  # which only float64 inputs have
            steps = steps.float()
        logits = cumulative(steps)
        at_least = torch.sigmoid(logits)
        inner = at_least[:, :-1] - at_least[:, 1:]
        probabilities = torch.cat([1 - at_least[:, :1], inner.clamp(min=0), at_least[:, -1:]], dim=1)
        return probabilities, logits, (logits > 0).to(torch.int64).sum(1)
