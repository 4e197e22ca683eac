"""What a task's loss gives: one number that depends on the logits, and parameters of its own that learn too.

Apart from the loop because a loss is a stranger's code that runs in every step.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zooft.errors import ZooftError
from zooft.hooks.guard import ask, code_of, place_of, raised_in
from zooft.train.speed import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from zooft.contracts import Task


class TaskLoss(nn.Module):
    """A task's own loss under guard: ``(logits, targets) -> scalar``.

    Args:
        task: whose loss it is.
        own: the module that the task has made.
    """

    def __init__(self, task: Task, own: nn.Module) -> None:
        super().__init__()
        self.own = own
        self._known = len(list(own.parameters()))
        self._place, self._code = place_of(task, "loss"), code_of(task, "loss")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss.

        Raises:
            PluginError: it failed, or isn't one number that the logits learn from.
        """
        try:
            value = self.own(logits, targets)
        except ZooftError:
            raise
        except Exception as error:  # plugin code
            if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and is_out_of_memory(error)):
                raise
            shapes = f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)}"
            told = f"makes a loss that fails on {shapes}: {type(error).__name__}: {error}"
            raise self._place.error(told, code=raised_in(error, self.own) or self._code) from error
        if len(list(self.own.parameters())) > self._known:
            told = "makes a loss that makes parameters when it is called, which no optimizer knows; make them with the module"
            raise self._place.error(told, code=self._code)
        if not isinstance(value, Tensor):
            raise self._amiss(value)
        if value.ndim:
            raise self._amiss(tuple(value.shape), what="the shape of the loss")
        if logits.requires_grad and torch.is_grad_enabled() and not value.requires_grad:
            raise self._amiss(value, what="a loss that doesn't depend on the logits, such as")
        return value

    def _amiss(self, came: Any, *, what: str = "the loss") -> Exception:
        return self._place.amiss(
            came, "one number, a torch.Tensor without axes made from the logits", what=what, code=self._code
        )


def make_loss(task: Task, targets: Sequence[int], options: Any, *, seed: int) -> TaskLoss:
    """The loss for some training targets; what is random in it is the same in every process and after a resume.

    Args:
        task: whose loss.
        targets: of all training samples.
        options: the task's own.
        seed: of its initial values.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        own: nn.Module = ask(task, "loss", targets, options)
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in own.parameters()):
        told = "makes a loss with parameters whose shapes aren't known yet; give them their shapes when it is made"
        raise place_of(task, "loss").error(told, code=code_of(task, "loss"))
    try:
        own = copy.deepcopy(own)  # a task may give one module again and again, and each fold learns from the start
    except Exception:  # plugin code: what can't be copied is most likely made anew
        return TaskLoss(task, own)
    return TaskLoss(task, own)


def learnt(loss: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters of a loss that learn, named."""
    return [(name, parameter) for name, parameter in loss.named_parameters() if parameter.requires_grad]
