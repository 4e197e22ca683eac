"""Several losses as one sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zooft.compute import trees
from zooft.contracts import Loss
from zooft.problems.combined.parts import BETWEEN


class SummedLosses(nn.Module):
    """The weighted sum of each answer's loss over the samples of which it is known, per sample of the batch.

    An answer that few samples know thus counts as little as it is known; its weight can make up for that.

    Args:
        losses: name of an answer to its loss.
        weights: the same names.
    """

    def __init__(self, losses: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.losses, self.weights = nn.ModuleDict(losses), dict(weights)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Any]) -> Loss:
        """Of outputs under the answers' names, and of encoded targets with what is known."""
        total = (
            torch.stack([tensor.sum() for tensor in outputs.values()]).sum() * 0.0
        )  # zero, and every output takes part
        for name, loss in self.losses.items():
            known = torch.nonzero(targets[name]["known"]).flatten()
            if not len(known):
                continue
            own = {key: tensor[known] for key, tensor in _own(outputs, name).items()}
            found = loss(own, trees.rows(targets[name]["target"], known))
            summed = found.total if isinstance(found, Loss) else found * len(known)
            total = total + self.weights[name] * summed
        return Loss(total, float(trees.length(outputs)))


class SummedDivergences(nn.Module):
    """The weighted sum of how far each answer is from the teacher's, per sample; also where its target isn't known.

    Args:
        divergences: name of an answer to its own.
        weights: the same names.
    """

    def __init__(self, divergences: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.divergences, self.weights = nn.ModuleDict(divergences), dict(weights)

    def forward(self, outputs: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Loss:
        """Of outputs under the answers' names, and the teacher's."""
        totals = [
            self.weights[name] * own(_own(outputs, name), _own(theirs, name)).total
            for name, own in self.divergences.items()
        ]
        return Loss(torch.stack(totals).sum(), float(trees.length(outputs)))


def _own(outputs: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Those of one answer, under the names that its problem knows."""
    start = name + BETWEEN
    return {key[len(start) :]: tensor for key, tensor in outputs.items() if key.startswith(start)}
