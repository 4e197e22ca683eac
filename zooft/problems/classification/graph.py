"""The last piece of a deployed classifier's graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from zooft.problems.classification.calibration import Activation, Calibration


class ClassGraph(nn.Module):
    """Logits to probabilities and logits, both ``(N, classes)``, and the class ``(N,)`` int64.

    Args:
        activation: logits to probabilities.
        calibration: temperature, which divides the logits, and threshold.
    """

    def __init__(self, activation: Activation, calibration: Calibration) -> None:
        super().__init__()
        self.activation, self.calibration = activation, calibration

    def forward(self, outputs: Mapping[str, Tensor], _batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Of the head's output ``logits``; the inputs don't matter."""
        logits = outputs["logits"]
        if logits.dtype != torch.float64:  # which only float64 inputs have
            logits = logits.float()
        if self.calibration.temperature != 1:
            logits = logits / self.calibration.temperature
        probabilities = torch.sigmoid(logits) if self.activation == "sigmoid" else logits.softmax(1)
        return probabilities, logits, self._decide(probabilities)

    def _decide(self, probabilities: Tensor) -> Tensor:
        if self.calibration.threshold is None:
            return probabilities.argmax(1)
        return (probabilities[:, 1] >= self.calibration.threshold).to(torch.int64)
