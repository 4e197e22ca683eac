"""What a problem's loss gives: one number that depends on the head's outputs, and parameters of its own that learn too.

Apart from the loop because a loss is a stranger's code that runs in every step.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zooft.compute import trees
from zooft.contracts import Loss
from zooft.errors import ZooftError
from zooft.hooks.guard import ask, code_of, part_place, raised_in
from zooft.train.speed import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zooft.contracts import Labels, Task


class TaskLoss(nn.Module):
    """A problem's own loss under guard: ``(outputs, targets) -> scalar``.

    Args:
        task: whose problem's loss it is.
        own: the module that the problem has made.
    """

    def __init__(self, task: Task, own: nn.Module) -> None:
        super().__init__()
        self.own = own
        self._known = len(list(own.parameters()))
        self._place, self._code = part_place(task, "training", "loss"), code_of(task.problem.training, "loss")

    def forward(self, outputs: Mapping[str, Tensor], targets: Any) -> Tensor:
        """The mean loss of a batch.

        Raises:
            PluginError: it failed, or isn't one number that the outputs learn from.
        """
        found = self.sums(outputs, targets)
        if not isinstance(found, Loss):
            return found
        return found.total / found.weight if found.mean is None else found.mean

    def sums(self, outputs: Mapping[str, Tensor], targets: Any) -> Loss | Tensor:
        """The same as sums that add up, where the loss is one of sums; else the mean.

        Raises:
            PluginError: as `forward`.
        """
        try:
            found: Loss | Tensor = self.own(outputs, targets)
        except ZooftError:
            raise
        except Exception as error:  # plugin code
            if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and is_out_of_memory(error)):
                raise
            shapes = f"outputs {_shapes(outputs)} and targets {_shapes(targets)}"
            text = f"makes a loss that fails on {shapes}: {type(error).__name__}: {error}"
            raise self._place.error(text, code=raised_in(error, self.own) or self._code) from error
        if len(list(self.own.parameters())) > self._known:
            text = "makes a loss that makes parameters when it is called, which no optimizer knows; make them with the module"
            raise self._place.error(text, code=self._code)
        self._check(found.total if isinstance(found, Loss) else found, outputs)
        return found

    def _check(self, value: Any, outputs: Mapping[str, Tensor]) -> None:
        if not isinstance(value, Tensor):
            raise self._amiss(value)
        if value.ndim:
            raise self._amiss(tuple(value.shape), what="the shape of the loss")
        wanted = any(output.requires_grad for output in trees.tensors(outputs))
        if wanted and torch.is_grad_enabled() and not value.requires_grad:
            raise self._amiss(value, what="a loss that doesn't depend on the outputs, such as")

    def _amiss(self, came: Any, *, what: str = "the loss") -> Exception:
        return self._place.amiss(
            came, "one number, a torch.Tensor without axes made from the outputs", what=what, code=self._code
        )


def _shapes(tree: Any) -> str:
    if isinstance(tree, Mapping):
        return ", ".join(f"{name} {_shapes(value)}" for name, value in tree.items())
    return str(tuple(tree.shape)) if isinstance(tree, Tensor) else f"{len(tree)} of {type(tree).__name__}"


def make_loss(task: Task, labels: Labels, targets: Sequence[Any], options: Any, *, seed: int) -> TaskLoss:
    """The loss for some training targets; what is random in it is the same in every process and after a resume.

    Args:
        task: whose problem's loss.
        labels: what the targets mean.
        targets: of all training samples.
        options: the task's own.
        seed: of its initial values.
    """
    training = task.problem.training
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        own: nn.Module = ask(training, "loss", labels, targets, options)
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in own.parameters()):
        text = "makes a loss with parameters whose shapes aren't known yet; give them their shapes when it is made"
        raise part_place(task, "training", "loss").error(text, code=code_of(training, "loss"))
    try:
        own = copy.deepcopy(own)  # a problem may give one module again and again, and each fold learns from the start
    except Exception:  # plugin code: what can't be copied is most likely made anew
        return TaskLoss(task, own)
    return TaskLoss(task, own)


def learnt(loss: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters of a loss that learn, named."""
    return [(name, parameter) for name, parameter in loss.named_parameters() if parameter.requires_grad]
