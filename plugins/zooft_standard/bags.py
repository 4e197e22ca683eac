"""Modules that take a bag's instances, such as the slices of a volume, to one row of logits.

Apart from `heads`, which is loaded with the registry and therefore without torch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mean(nn.Module):
    """The features' mean over the instances, then `classifier`: ``(N, Z, width) -> (N, outputs)``."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, features: Tensor) -> Tensor:
        """Logits of each bag."""
        logits: Tensor = self.classifier(features.mean(1))
        return logits


class Max(nn.Module):
    """Each feature's largest value over the instances, then `classifier`: ``(N, Z, width) -> (N, outputs)``."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, features: Tensor) -> Tensor:
        """Logits of each bag."""
        logits: Tensor = self.classifier(features.amax(1))
        return logits


class GatedAttention(nn.Module):
    """A learnt weighted mean over the instances, then `classifier`: ``(N, Z, width) -> (N, outputs)``.

    Equation 9 of Ilse, Tomczak and Welling, Attention-based Deep Multiple Instance Learning, ICML 2018: instance h
    weighs softmax over the bag of ``w · (tanh(V h) ⊙ sigmoid(U h))``. Their hidden size is 128.

    Args:
        width: of the features.
        classifier: ``(N, width) -> (N, outputs)``.
        hidden: rows of V and U.
    """

    def __init__(self, width: int, classifier: nn.Module, *, hidden: int = 128) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)  # a bias would cancel in the softmax
        self.classifier = classifier
        for layer in (self.value, self.gate):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.score.weight, std=0.01)  # so that training starts close to the mean

    def forward(self, features: Tensor) -> Tensor:
        """Logits of each bag."""
        logits: Tensor = self.classifier((self.weights(features) * features).sum(1))
        return logits

    def weights(self, features: Tensor) -> Tensor:
        """How much each instance counts, ``(N, Z, 1)``; the sum over a bag is 1."""
        scores: Tensor = self.score(torch.tanh(self.value(features)) * torch.sigmoid(self.gate(features)))
        return scores.softmax(1)
