"""The steps of an epoch: how they run on this machine, and what happens where memory runs out.

Owns the choice of precision and batch size for what learns now, the forward pass, the backward pass and the optimizer's
step, in halves of a batch where a whole one doesn't fit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zooft import features
from zooft.compute import distributed, launcher, trees
from zooft.compute.profile import Stopwatch, step_flops
from zooft.contracts import Loss
from zooft.errors import DivergedError, TrainingError
from zooft.train import speed
from zooft.train.optimizer import penalise
from zooft.train.speed import Precision

if TYPE_CHECKING:
    from accelerate import Accelerator

    from zooft.compute.distributed import Batches
    from zooft.contracts import FreezePlan
    from zooft.train.distillation import DistilledLoss
    from zooft.train.loss import TaskLoss
    from zooft.train.optimizer import Hyperparameters

Batch = tuple[Tensor, Any]


@dataclass(slots=True, kw_only=True)
class Learner:
    """What the steps run while the same stages learn.

    Attributes:
        module: that trains: the model, or what exchanges its gradients.
        loss: ``(outputs, targets) -> scalar``.
        plan: what stays frozen, for which it was made.
        start: the first stage that runs.
        precision: of the forward pass.
        accelerator: where.
        clock: measures what takes how long.
        note: called with one sentence on what happens.
        gflop: of a forward and a backward pass, a sample; 0 where nobody counts.
        parts: into which a batch is cut; 2 once memory has run out.
        coupled: whether the loss needs the whole batch, so that it is never cut.
        summed: whether each of several processes computes the loss of its own samples, as sums.
    """

    module: nn.Module
    loss: TaskLoss | DistilledLoss
    plan: FreezePlan
    start: int
    precision: Precision
    accelerator: Accelerator
    clock: Stopwatch
    note: Callable[[str], None]
    gflop: float = 0.0
    parts: int = 1
    coupled: bool = False
    summed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A step that can be measured before it is run.

    Attributes:
        model: in the mode and with the frozen stages of training, not wrapped.
        loss: ``(outputs, targets) -> scalar``.
        hyperparameters: as set.
        accelerator: where.
        start: the first stage that runs.
        batch: gives one to measure with.
    """

    model: nn.Module
    loss: nn.Module
    hyperparameters: Hyperparameters
    accelerator: Accelerator
    start: int
    batch: Callable[[], Batch]

    def to_device(self) -> Batch:
        """A batch on the device."""
        x, y = self.batch()
        return features.to_device(x, self.accelerator.device), trees.to_device(y, self.accelerator.device)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The head's outputs, float32."""
        outputs: dict[str, Tensor] = trees.floats(self.model(x, self.start))
        return outputs


def choose_precision(probe: Probe, *, steps: int, small: bool) -> Precision:
    """As set, or by a short measurement in the main process; the head of a vector, alone, is too small to gain.

    Where a precision is set, our kernels aren't left to the clock: the same run gives the same numbers again.

    Args:
        probe: a step.
        steps: that are to come.
        small: whether nothing but such a head runs in a step.
    """
    if small and probe.hyperparameters.precision != "bf16":
        return Precision()
    if probe.hyperparameters.precision != "auto":
        dtype = torch.bfloat16 if probe.hyperparameters.precision == "bf16" else torch.float32
        kernels = probe.accelerator.device.type == "cpu" and probe.hyperparameters.compile != "on"
        return Precision(dtype=dtype, kernels=kernels)

    def measure() -> Precision:
        try:
            batch = probe.to_device()
            with _single_samples_named(len(batch[0]), probe.accelerator):
                return speed.choose_precision(probe.model, probe.forward, probe.loss, batch, steps=steps)
        except (RuntimeError, MemoryError) as error:
            if not speed.is_out_of_memory(error):
                raise
            return Precision(reason="float32, since memory ran out while other ways were measured")

    return distributed.first(probe.accelerator, measure)


def as_values(precision: Precision) -> Mapping[str, Any]:
    """What a resumed run must know of it."""
    return {"dtype": str(precision.dtype).removeprefix("torch."), "kernels": precision.kernels}


def from_values(values: Mapping[str, Any]) -> Precision:
    """The way back of `as_values`."""
    return Precision(dtype=getattr(torch, values["dtype"]), kernels=bool(values["kernels"]))


def find_batch_size(probe: Probe, *, samples: int) -> tuple[int, str]:
    """``--batch-size auto``: the largest that fits into the main process's memory, for all processes, and a sentence.

    Args:
        probe: a step.
        samples: to train on; an epoch has at least twenty steps.
    """
    accelerator, hyperparameters = probe.accelerator, probe.hyperparameters
    processes = accelerator.num_processes

    def find() -> tuple[int, str]:
        available = speed.available_memory(accelerator.device)
        if available is None:
            return 32 * processes, "batch size 32: this system doesn't report how much memory it has"
        precision = Precision(dtype=torch.bfloat16 if hyperparameters.precision == "bf16" else torch.float32)
        cost = speed.footprint(
            probe.model,
            probe.forward,
            probe.loss,
            probe.to_device(),
            optimizer=hyperparameters.optimizer,
            precision=precision,
        )
        share = available // (processes if accelerator.device.type == "cpu" else 1)
        size, reason = speed.find_batch_size(cost, share, at_most=max(8, samples // (20 * processes)))
        return size * processes, reason + (f", {processes} times for as many processes" if processes > 1 else "")

    return distributed.first(accelerator, find)


def gflop_of(probe: Probe) -> float:
    """Of a forward and a backward pass, a sample: 10^9 floating-point operations."""
    x, y = probe.to_device()
    learning = [parameter for parameter in probe.model.parameters() if parameter.requires_grad]
    with speed.preserve_state(probe.model, probe.accelerator.device, loss=probe.loss):
        return step_flops(lambda: probe.loss(probe.forward(x), y), learning) / len(x) / 1e9


def run(
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    data: Iterable[Batch],
    batches: Batches,
    *,
    epoch: int,
    advance: Callable[[int], None],
) -> float:
    """The steps of one epoch; the mean loss over its samples, of all processes.

    Raises:
        DivergedError: the loss is no longer finite.
        TrainingError: memory has run out for half a batch too.
    """
    accelerator, clock = learner.accelerator, learner.clock
    total, count = torch.zeros((), device=accelerator.device), 0
    for step, given in enumerate(clock.each(data, "reading")):
        counts = batches.counts(step)
        x, y = features.to_device(given[0], accelerator.device), trees.to_device(given[1], accelerator.device)
        with _single_samples_named(len(x), accelerator):
            value = _gradients(learner, optimizer, x, y, counts)
        if not bool(torch.isfinite(value)):
            raise _overflow(float(value), epoch, step, optimizer, accelerator)
        with clock.part("optimizer"):
            penalise(optimizer)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
        clock.gflop += learner.gflop * len(x)
        total += value * sum(counts)
        count += sum(counts)
        advance(1)
    return float(total / count)


def _gradients(
    learner: Learner, optimizer: torch.optim.Optimizer, x: Tensor, y: Any, counts: tuple[int, ...]
) -> Tensor:
    """Loss of the global batch, its gradients set; where memory runs out, once more in two halves."""
    try:
        return _backward(learner, x, y, counts) if learner.parts == 1 else _in_parts(learner, x, y)
    except (RuntimeError, MemoryError) as error:
        if not speed.is_out_of_memory(error):
            raise
        if learner.parts > 1 or len(x) < 2 or learner.coupled or learner.accelerator.num_processes > 1:
            raise _no_memory(learner, len(x)) from error
    optimizer.zero_grad(set_to_none=True)
    if x.device.type == "cuda":
        torch.cuda.empty_cache()
    learner.parts = 2
    learner.note(
        f"memory ran out with {len(x)} samples at once, so every batch is computed in two halves from here on; "
        "BatchNorm that learns sees half a batch then"
    )
    return _gradients(learner, optimizer, x, y, counts)


def _in_parts(learner: Learner, x: Tensor, y: Any) -> Tensor:
    halves = list(zip(torch.chunk(x, learner.parts), trees.chunks(y, learner.parts), strict=True))
    sums = [_backward_of_part(learner, a, b, share=len(a) / len(x)) for a, b in halves]
    total, weight = torch.stack([part.total for part in sums]).sum(), sum(part.weight for part in sums)
    _divide_gradients(learner, weight)  # only now is it known what the sums are to be divided by
    return total / weight


def _backward_of_part(learner: Learner, x: Tensor, y: Any, *, share: float) -> Loss:
    """The sums of a part of a batch, their gradients added.

    A loss that is no sum counts by the part's `share` of the samples.
    """
    with learner.clock.part("forward"):
        with learner.precision(learner.accelerator.device):
            outputs = learner.module(x, learner.start)
        found = learner.loss.sums(trees.floats(outputs), y)
        sums = found if isinstance(found, Loss) else Loss(found * share, share)
    with learner.clock.part("backward"):
        sums.total.backward()  # type: ignore[no-untyped-call]
    weight = sums.weight.detach() if isinstance(sums.weight, Tensor) else sums.weight
    return Loss(sums.total.detach(), weight)


def _divide_gradients(learner: Learner, weight: Tensor | float) -> None:
    for module in (learner.module, learner.loss):
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.grad /= weight


def _backward(learner: Learner, x: Tensor, y: Any, counts: tuple[int, ...]) -> Tensor:
    accelerator = learner.accelerator
    with learner.clock.part("forward"):
        with learner.precision(accelerator.device):
            outputs = learner.module(x, learner.start)
        value = _global_loss(learner, trees.floats(outputs), y, counts)
    with learner.clock.part("backward"):
        value.backward()  # type: ignore[no-untyped-call]
        distributed.average_gradients(learner.loss, accelerator, summed=learner.summed)
    own: Tensor = value.detach() / accelerator.num_processes
    return own


def _global_loss(learner: Learner, outputs: Any, y: Any, counts: tuple[int, ...]) -> Tensor:
    if learner.summed and learner.accelerator.num_processes > 1:
        return distributed.global_sums(learner.loss.only_sums, outputs, y, learner.accelerator, counts=counts)
    return distributed.global_loss(learner.loss, outputs, y, learner.accelerator, counts=counts)


@contextlib.contextmanager
def _single_samples_named(size: int, accelerator: Accelerator) -> Iterator[None]:
    """Explain torch's error where BatchNorm on pooled features is given a single sample."""
    try:
        yield
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        processes = accelerator.num_processes
        apart = f" in each of {processes} processes" if processes > 1 else ""
        instead = f"--batch-size {8 * processes} or more" + (", or --sync-bn on CUDA" if processes > 1 else "")
        raise TrainingError(
            f"a batch of {size}{apart} has a single sample for a BatchNorm that learns behind the pooling, and one "
            f"sample has no spread to normalise by; give {instead}, or freeze more stages"
        ) from error


def _overflow(
    value: float, epoch: int, step: int, optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> DivergedError:
    rate = optimizer.param_groups[-1]["lr"]
    error = DivergedError(
        f"the loss became {value} in epoch {epoch + 1}, step {step + 1}, at a learning rate of {rate:.2g}; "
        "try a tenth of --lr and --backbone-lr, a longer --warmup, or a larger --batch-size"
    )
    if not accelerator.is_main_process:  # it is everyone's loss
        launcher.mark_reported(error)
    return error


def _no_memory(learner: Learner, size: int) -> TrainingError:
    tried = "also in two halves, " if learner.parts > 1 else ""
    return TrainingError(
        f"memory ran out with {size} samples in a batch, {tried}so training stopped; last/ holds the last finished "
        "epoch: take a smaller --batch-size, --precision bf16, or freeze more stages"
    )
