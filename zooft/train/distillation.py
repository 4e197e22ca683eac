"""The loss of a model that learns from a teacher too: its targets', its distance from the teacher's answers, or both.

Hinton, Vinyals and Dean 2015, Distilling the Knowledge in a Neural Network. What that distance is, the problem says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zooft.compute import trees
from zooft.contracts import Loss
from zooft.features.teaching import TARGET, TEACHER
from zooft.hooks.guard import call_plugin, code_of, part_place, part_within
from zooft.model.adapted import FEATURES

if TYPE_CHECKING:
    from zooft.contracts import Labels, Task
    from zooft.train.loss import TaskLoss

_NOTHING = 1e-4
"""Of a divergence of outputs from themselves, a sample."""


class DistilledLoss(nn.Module):
    """``(1 - share) · task loss + share · divergence + features · (1 - cosine)``, as sums over samples.

    On batches without a teacher's answers, which validation has, the task's loss alone: its values compare with those
    of a run without a teacher.

    Args:
        own: of the task.
        divergence: ``(outputs, teacher's outputs) -> Loss``.
        share: of the divergence, from 0 to 1.
        worth: what a sample weighs in the task loss's mean, over what it weighs in that of the divergence: 1 where
            both count samples.
        features: weight of the last term.
        projection: from what the head reads to what the teacher's reads; None where `features` is 0.
    """

    def __init__(
        self,
        own: TaskLoss,
        divergence: nn.Module,
        *,
        share: float,
        worth: float = 1.0,
        features: float = 0.0,
        projection: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.own, self.divergence, self.projection = own, divergence, projection
        self.share, self.worth, self.features = share, worth, features

    def forward(self, outputs: Mapping[str, Tensor], targets: Any) -> Tensor:
        """The mean loss of a batch."""
        if not _is_taught(targets):
            return self.own(outputs, targets)  # type: ignore[no-any-return]
        found = self.sums(outputs, targets)
        return found.total / found.weight if isinstance(found, Loss) else found

    def sums(self, outputs: Mapping[str, Tensor], targets: Any) -> Loss | Tensor:
        """The same as sums that add up, where the task's loss is one of sums; else the mean."""
        if not _is_taught(targets):
            return self.own.sums(outputs, targets)
        found = self.own.sums(_without_features(outputs), targets[TARGET])
        taught = self._taught(outputs, targets[TEACHER])
        if isinstance(found, Loss):
            return self._both(found, taught)
        return (1 - self.share) * found + taught.total / taught.weight

    def only_sums(self, outputs: Mapping[str, Tensor], targets: Any) -> Loss:
        """The sums, of a task's loss of which each process computes its own samples' part."""
        if not _is_taught(targets):
            return self.own.only_sums(outputs, targets)
        found = self.own.only_sums(_without_features(outputs), targets[TARGET])
        return self._both(found, self._taught(outputs, targets[TEACHER]))

    def _both(self, found: Loss, taught: Loss) -> Loss:
        # one weight for both, so that parts of a batch add up: the task's, at a fixed rate of exchange
        return Loss((1 - self.share) * found.total + self.worth * taught.total, found.weight)

    def _taught(self, outputs: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Loss:
        """What the teacher adds, in the divergence's own weight."""
        found: Loss = self.divergence(_without_features(outputs), _without_features(theirs))
        total = self.share * found.total
        if self.projection is not None:
            ours = self.projection(outputs[FEATURES])
            far = (1 - F.cosine_similarity(ours, theirs[FEATURES], dim=1)).sum()
            total = total + self.features * far * (found.weight / len(ours))
        return Loss(total, found.weight)


def _is_taught(targets: Any) -> bool:
    return isinstance(targets, Mapping) and TEACHER in targets


def _without_features(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in outputs.items() if name != FEATURES}


def make_divergence(task: Task, labels: Labels, theirs: Labels, options: Any, *, temperature: float) -> nn.Module:
    """The problem's distance between answers.

    Args:
        task: whose problem defines one.
        labels: of what is trained.
        theirs: the teacher's.
        options: the task's own.
        temperature: that softens both.
    """
    made: nn.Module = call_plugin(task.problem.training, "distill", labels, theirs, options, temperature)
    return made


def try_divergence(task: Task, divergence: nn.Module, outputs: Mapping[str, Tensor]) -> float:
    """Raise PluginError where outputs aren't 0 away from themselves; else the weight of a sample in the mean.

    Args:
        task: whose problem's.
        divergence: as `make_divergence` gives it.
        outputs: what a head may give for some samples.
    """
    place, code = part_place(task, "training", "distill"), code_of(task.problem.training, "distill")
    with torch.no_grad():
        found = part_within(task, "training", "distill", divergence)(dict(outputs), dict(outputs))
    if not isinstance(found, Loss):
        raise place.amiss(found, "a zooft.Loss, sums over samples", what="what its module makes", code=code)
    count = trees.length(outputs)
    if not abs(float(found.total)) <= _NOTHING * count:
        raise place.error(
            f"makes a loss that is {float(found.total):.4g} between the same outputs of {count} samples; expected 0",
            code=code,
        )
    return float(found.weight) / count
