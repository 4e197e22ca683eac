"""What a problem's loss gives: one number that depends on the head's outputs, and parameters of its own that learn too.

Apart from the loop because a loss is a stranger's code that runs in every step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from zooft.compute import trees
from zooft.contracts import Loss
from zooft.errors import ZooftError
from zooft.hooks.guard import call_plugin, code_of, error_location, part_place
from zooft.train.speed import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zooft.contracts import Labels, Task
    from zooft.hooks.guard import Place

_ROUNDING = 1e-4
"""Of sums over other samples, of their size."""


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
            raise self._place.error(text, code=error_location(error, _innermost(self.own)) or self._code) from error
        if len(list(self.own.parameters())) > self._known:
            text = (
                "makes a loss that makes parameters when it is called, which no optimizer knows; make them with the "
                "module"
            )
            raise self._place.error(text, code=self._code)
        self._check(found.total if isinstance(found, Loss) else found, outputs)
        return found

    def only_sums(self, outputs: Mapping[str, Tensor], targets: Any) -> Loss:
        """The sums, of a loss of which each process computes its own samples' part.

        Raises:
            PluginError: as `forward`, or the loss is no `Loss`.
        """
        found = self.sums(outputs, targets)
        if not isinstance(found, Loss):
            raise self._place.amiss(
                found,
                "a zooft.Loss, the sums over the samples: with places in the image, each of several processes "
                "computes the loss of its own; or coupled=True where it needs the whole batch",
                what="the loss",
                code=self._code,
            )
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


def _innermost(module: nn.Module) -> nn.Module:
    """What a problem has wrapped: the module of whoever wrote the task."""
    inner = getattr(module, "own", None)
    return _innermost(inner) if isinstance(inner, nn.Module) else module


def _shapes(tree: Any) -> str:
    if isinstance(tree, Mapping):
        return ", ".join(f"{name} {_shapes(value)}" for name, value in tree.items())
    if hasattr(tree, "shape"):
        return str(tuple(tree.shape))
    return f"{len(tree)} of {type(tree).__name__}" if isinstance(tree, list | tuple) else f"a {type(tree).__name__}"


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
        own: nn.Module = call_plugin(training, "loss", labels, targets, options)
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in own.parameters()):
        text = "makes a loss with parameters whose shapes aren't known yet; give them their shapes when it is made"
        raise part_place(task, "training", "loss").error(text, code=code_of(training, "loss"))
    try:
        own = copy.deepcopy(own)  # a problem may give one module again and again, and each fold learns from the start
    except Exception:  # plugin code: what can't be copied is most likely made anew
        return TaskLoss(task, own)
    return TaskLoss(task, own)


def try_out(
    loss: TaskLoss, task: Task, outputs: Mapping[str, Tensor], encoded: Any, *, what: str = "outputs near 0"
) -> float:
    """Raise PluginError where a loss isn't finite, leaves an output out, or doesn't add up.

    Args:
        loss: of the task's problem; it is left as it is.
        task: whose problem's loss.
        outputs: what a head may give for some samples, by name.
        encoded: these samples' targets, as a batch.
        what: the outputs in words.

    Returns:
        The weight of a sample in the loss's mean, as these have it on average: 1 for each that counts once.
    """
    training, place = task.problem.training, part_place(task, "training", "loss")
    outputs = {name: tensor.detach().clone().requires_grad_() for name, tensor in outputs.items()}
    with torch.random.fork_rng(devices=[]):
        module = copy.deepcopy(loss).eval()
        found = module.sums(outputs, encoded)
        value = found.total if isinstance(found, Loss) else found
        if not bool(torch.isfinite(value)):
            raise place.error(f"makes a loss that is {_number(value)} for {what}; expected a finite number")
        value.backward()  # type: ignore[no-untyped-call]
        unused = [name for name, tensor in outputs.items() if tensor.grad is None]
        if unused:
            raise place.error(
                f"makes a loss that doesn't use the outputs {', '.join(unused)}; expected all that `outputs` names: "
                f"{', '.join(outputs)}"
            )
        if isinstance(found, Loss) and not training.coupled and trees.length(outputs) > 1:
            _check_additive(module, place, {name: tensor.detach() for name, tensor in outputs.items()}, encoded, found)
    return _number(found.weight) / trees.length(outputs) if isinstance(found, Loss) else 1.0


def random_outputs(task: Task, labels: Labels, rows: int, options: Any) -> dict[str, Tensor]:
    """What a head that gives vectors may give for so many samples, by name ``(rows, size)``."""
    sizes = call_plugin(task.problem.training, "outputs", labels, options)
    if not sizes:
        raise part_place(task, "training", "outputs").amiss(sizes, "at least one output of the head")
    random = torch.Generator().manual_seed(0)
    return {name: torch.randn(rows, size, generator=random) for name, size in sizes.items()}


def collate(task: Task, labels: Labels, targets: Sequence[Any]) -> Any:
    """Targets as `encode` gives them, stacked.

    Raises:
        PluginError: they can't be.
    """
    encoded = [call_plugin(task.problem.training, "encode", target, labels) for target in targets]
    try:
        return default_collate(encoded)
    except (RuntimeError, TypeError, ValueError) as error:
        shapes = {_shapes(one) for one in encoded}
        raise part_place(task, "training", "encode").error(
            f"gives targets that can't be stacked to a batch: {', '.join(sorted(shapes)[:4])}; expected a number, an "
            "array, or a mapping of these, of the same shape for every sample",
            code=code_of(task.problem.training, "encode"),
        ) from error


def _check_additive(module: TaskLoss, place: Place, outputs: Mapping[str, Tensor], encoded: Any, whole: Loss) -> None:
    """Parts of a batch, of other sizes, give the loss of the whole."""
    count = trees.length(outputs)
    cuts = [slice(0, count // 3 + 1), slice(count // 3 + 1, count)]
    with torch.no_grad():
        parts = [module.sums(trees.rows(outputs, cut), trees.rows(encoded, cut)) for cut in cuts if cut.start < count]
    for name in ("total", "weight"):
        found = math.fsum(_number(getattr(part, name)) for part in parts)
        wanted = _number(getattr(whole, name))
        if not math.isclose(found, wanted, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
            raise place.error(
                f"makes a loss whose {name} doesn't add up: {found:.6g} for the parts of a batch, {wanted:.6g} for "
                "the whole; give sums over the samples, or set coupled=True where it needs the whole batch"
            )


def _number(value: Tensor | float) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else float(value)


def loss_parameters(loss: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters of a loss that learn, named."""
    return [(name, parameter) for name, parameter in loss.named_parameters() if parameter.requires_grad]
