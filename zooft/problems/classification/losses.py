"""Losses of logits and targets as sums over samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from zooft.contracts import Loss

if TYPE_CHECKING:
    pass


def sums_of(own: nn.Module) -> nn.Module:
    """A module ``(outputs, targets) -> Loss`` of one ``(logits, targets)``.

    One that gives a mean stays a mean of the whole batch.
    """
    if not isinstance(own, nn.Module):
        return own  # which the caller chose
    return _CrossEntropySums(own) if _is_mean_cross_entropy(own) else _OfLogits(own)


def _is_mean_cross_entropy(own: nn.Module) -> bool:
    return type(own) is nn.CrossEntropyLoss and own.reduction == "mean" and own.ignore_index < 0


class _OfLogits(nn.Module):
    """A loss of logits, whatever it gives."""

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.own = own

    def forward(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Loss | Tensor:
        found: Loss | Tensor = self.own(outputs["logits"], targets)
        return found


class _CrossEntropySums(nn.Module):
    """Cross entropy, as its sum and the sum of the samples' weights."""

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.own = own

    def forward(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Loss:
        own = self.own
        assert isinstance(own, nn.CrossEntropyLoss)  # noqa: S101 -- `sums_of` has checked
        mean = F.cross_entropy(outputs["logits"], targets, own.weight, label_smoothing=own.label_smoothing)
        weight = float(len(targets)) if own.weight is None else own.weight[targets].sum()
        return Loss(mean * weight, weight, mean)


class SoftenedClasses(nn.Module):
    """The divergence of a teacher's probabilities from these, both at a temperature (Hinton et al. 2015).

    Times the square of the temperature, so that gradients stay as large as they are at temperature 1.

    Args:
        temperature: that divides the logits.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, outputs: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Loss:
        """Of logits ``(N, C)`` and the teacher's."""
        ours, wanted = (F.log_softmax(each["logits"] / self.temperature, dim=1) for each in (outputs, theirs))
        total = F.kl_div(ours, wanted, reduction="sum", log_target=True)
        return Loss(self.temperature**2 * total, float(len(ours)))
