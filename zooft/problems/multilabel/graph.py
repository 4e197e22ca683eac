"""The last piece of a graph that gives labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from zooft.problems.multilabel.head import HEAD


class LabelsGraph(nn.Module):
    """Probabilities and logits, ``(N, L)``, and whether each label is there, ``(N, L)`` int64.

    Args:
        thresholds: of the L labels; one is there where its probability is at least that.
    """

    thresholds: Tensor

    def __init__(self, thresholds: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("thresholds", torch.tensor(thresholds, dtype=torch.float32))

    def forward(self, outputs: Mapping[str, Tensor], _batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Of the head's output; the inputs don't matter."""
        logits = outputs[HEAD]
        if logits.dtype != torch.float64:  # which only float64 inputs have
            logits = logits.float()
        probabilities = torch.sigmoid(logits)
        return probabilities, logits, (probabilities >= self.thresholds).to(torch.int64)
