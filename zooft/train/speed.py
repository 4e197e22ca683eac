"""How to learn fast on this machine: by measuring the step that is to be repeated, not by belief.

Chooses the precision, compiling, the batch size and the optimizer's implementation, and distinguishes a lack of memory
from other errors. Nothing here trains; what is probed is left as it was.
"""

from __future__ import annotations

import contextlib
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from zooft.compute import machine, trees
from zooft.compute.kernels.operations import FastKernels

LARGEST_BATCH, SMALLEST_BATCH = 512, 8
_PROBE_SHARE = 0.06
"""Of the run that is to come: what a probe may cost."""
_MOST_PROBE_SHARE = 0.15
"""The same for the shortest probe of a short run, since bfloat16 may save two thirds."""
_WORTH = 1.1
"""How much faster bfloat16 must be: below it, exact is better."""
_WORTH_SECONDS = 1e-3
"""A step that gains less than this is short enough."""
_HOPELESS = 1.4
"""What has been this much slower once isn't measured again."""
_PREPARED = 0.3
"""CPU seconds that the library may take to prepare itself in a first step, most in the first of all."""
_OUTRUN = 2.0
"""So much slower in float32, a step isn't tried with our kernels too, which make it twice as fast at most."""
_LONG = 1.0
"""CPU seconds of first steps from which on they are taken as measured where a second one is dear.

What the library prepares in
them, some tenths for each precision alike, makes the choice more careful, not another one."""
_ROUNDS = 3
_FEWEST = 4
"""Samples in a probe on a CPU: fewer don't represent a whole batch."""
_MEMORY_SHARE = 0.7
_WORKING_COPIES = 3
"""Tensors of the largest activation's size that a backward pass holds at once beside the saved ones."""
_STEPS_FOR_COMPILING = 5000
_STATES = {"adamw": 2, "adam": 2, "sgd": 1}
"""Numbers an optimizer remembers for each weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """How a step's forward pass runs.

    Attributes:
        dtype: bfloat16 for autocast to it, else float32.
        kernels: whether `FastKernels` stand in for torch's own.
        reason: one sentence: what was measured, or why nothing was.
        seconds: what the measurement took.
    """

    dtype: torch.dtype = torch.float32
    kernels: bool = False
    reason: str = ""
    seconds: float = 0.0

    @contextlib.contextmanager
    def __call__(self, device: torch.device) -> Iterator[None]:
        """To be entered around a forward pass; the backward pass follows it by itself."""
        with contextlib.ExitStack() as entered:
            if self.dtype is not torch.float32:
                entered.enter_context(torch.autocast(device.type, self.dtype))
            if self.kernels:
                entered.enter_context(FastKernels())
            yield


def choose_precision(
    model: nn.Module,
    forward: Callable[[Tensor], Any],
    loss: Callable[[Any, Any], Tensor],
    batch: tuple[Tensor, Any],
    *,
    steps: int,
) -> Precision:
    """The fastest of float32 and bfloat16, each with and without our kernels, for this model and batch.

    Real forward and backward passes in turns, on a part of the batch where the run is short. Parameters, buffers,
    gradients and random numbers are as before afterwards.

    Args:
        model: in the mode and with the frozen stages of training.
        forward: inputs to the head's outputs in float32, through `model`.
        loss: of outputs and targets.
        batch: inputs and targets, on the model's device and in the layout of training.
        steps: that are to come; where they are few, nothing is measured and float32 is taken.
    """
    began = time.perf_counter()
    device = batch[0].device
    candidates = _candidates(device)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if len(candidates) == 1 or not learning:
        return Precision(kernels=False, reason=f"float32 on {device.type}, nothing to choose")
    least = 1.0 if device.type == "cuda" else min(1.0, _FEWEST / len(batch[0]))
    if steps * _MOST_PROBE_SHARE / len(candidates) < 2 * least:  # one to warm up and one to measure
        return Precision(
            reason=(
                f"float32, since a measurement of other ways would cost more than {_MOST_PROBE_SHARE:.0%} of {steps} "
                "steps"
            )
        )
    affordable = max(2 * least, steps * _PROBE_SHARE / len(candidates))
    share = 1.0 if device.type == "cuda" else min(1.0, max(affordable / (1 + _ROUNDS), least))
    size = max(min(_FEWEST, len(batch[0])), math.floor(len(batch[0]) * share))
    rounds = max(1, min(_ROUNDS, math.floor(affordable * len(batch[0]) / size) - 1))
    part = batch[0][:size], trees.rows(batch[1], slice(size))
    if part[0].ndim == 4 and batch[0].is_contiguous(memory_format=torch.channels_last):
        part = part[0].contiguous(memory_format=torch.channels_last), part[1]
    with preserve_state(model, device, loss=loss):
        times = _measure(candidates, lambda: loss(forward(part[0]), part[1]), learning, device, rounds)
    chosen = _fastest(times)
    text = _describe(chosen, times, size, " of CPU time" if device.type == "cpu" else "")
    return Precision(dtype=chosen.dtype, kernels=chosen.kernels, reason=text, seconds=time.perf_counter() - began)


def _candidates(device: torch.device) -> list[Precision]:
    if device.type == "cpu":
        both = (torch.float32, torch.bfloat16)
        return [Precision(dtype=both[d], kernels=k) for d, k in ((0, False), (1, False), (1, True), (0, True))]
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return [Precision(), Precision(dtype=torch.bfloat16)]
    return [Precision()]


def _measure(
    candidates: list[Precision],
    run: Callable[[], Tensor],
    learning: list[nn.Parameter],
    device: torch.device,
    rounds: int,
) -> dict[Precision, float]:
    """Seconds of a step for each candidate that is worth a thought; infinite where the loss isn't finite."""
    firsts: dict[Precision, float] = {}
    for candidate in candidates:
        if not _outrun(candidate, firsts):
            seconds = _warm_up(candidate, run, learning, device)
            firsts |= {} if seconds is None else {candidate: seconds}
    if rounds == 1 and device.type == "cpu" and min(firsts.values(), default=0.0) >= _LONG:
        return firsts
    behind = _HOPELESS * min(firsts.values(), default=0.0)
    times: dict[Precision, list[float]] = {c: [] for c, first in firsts.items() if first - _PREPARED < behind}
    for _ in range(rounds):
        best = min((min(taken) for taken in times.values() if taken), default=math.inf)
        for candidate, taken in times.items():
            if not taken or min(taken) < _HOPELESS * best:
                taken.append(_seconds(candidate, run, learning, device))
    return firsts | {candidate: statistics.median(taken) for candidate, taken in times.items()}


def _outrun(candidate: Precision, firsts: dict[Precision, float]) -> bool:
    """Whether our kernels can't make up for what float32 itself is behind bfloat16."""
    plain = firsts.get(Precision())
    if not candidate.kernels or candidate.dtype is not torch.float32 or plain is None:
        return False
    return plain >= _OUTRUN * min(
        (seconds for one, seconds in firsts.items() if one.dtype != candidate.dtype), default=math.inf
    )


def _warm_up(
    candidate: Precision, run: Callable[[], Tensor], learning: list[nn.Parameter], device: torch.device
) -> float | None:
    """Seconds of a first step, in which the library prepares itself; None where there is nothing to measure further."""
    kernels = FastKernels()
    began = _now(device)
    with Precision(dtype=candidate.dtype)(device), kernels if candidate.kernels else contextlib.nullcontext():
        value = run()
    if (candidate.kernels and not kernels.used) or not bool(torch.isfinite(value)):
        return None  # nothing in this model that the kernels stand in for, or a loss that isn't finite
    torch.autograd.grad(value, learning, allow_unused=True)
    return _now(device) - began


def _seconds(
    candidate: Precision, run: Callable[[], Tensor], learning: list[nn.Parameter], device: torch.device
) -> float:
    began = _now(device)
    with candidate(device):
        value = run()
    torch.autograd.grad(value, learning, allow_unused=True)
    return _now(device) - began


def _now(device: torch.device) -> float:
    """Seconds; of a CPU's own time, which is often shared: another program's turn isn't a candidate's fault."""
    synchronize(device)
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def _fastest(times: dict[Precision, float]) -> Precision:
    if not times:
        return Precision()
    exact = {candidate: seconds for candidate, seconds in times.items() if candidate.dtype is torch.float32}
    best_exact = min(exact, key=exact.__getitem__) if exact else None
    best = min(times, key=times.__getitem__)
    if best_exact is None:
        return best
    gained = times[best_exact] - times[best]
    return best if times[best] * _WORTH < times[best_exact] and gained > _WORTH_SECONDS else best_exact


def _describe(chosen: Precision, times: dict[Precision, float], size: int, unit: str) -> str:
    if not times:
        return "float32, since no loss of the measured steps was finite"
    listed = ", ".join(f"{_name(candidate)} {seconds * 1000:.0f} ms" for candidate, seconds in times.items())
    return f"the learning part runs in {_name(chosen)}: a step on {size} samples took {listed}{unit}"


def _name(precision: Precision) -> str:
    word = "bfloat16" if precision.dtype is torch.bfloat16 else "float32"
    return word + (" with our kernels" if precision.kernels else "")


@contextlib.contextmanager
def preserve_state(model: nn.Module, device: torch.device, *, loss: Any = None) -> Iterator[None]:
    """What runs inside leaves no trace: buffers, gradients and all random numbers are as before.

    Of a loss's own too.
    """
    modules = [model, loss] if isinstance(loss, nn.Module) else [model]
    buffers = [(buffer, buffer.detach().clone()) for module in modules for buffer in module.buffers()]
    gradients = [(parameter, parameter.grad) for module in modules for parameter in module.parameters()]
    of_python, of_numpy = random.getstate(), np.random.get_state()  # models may draw from them
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for parameter, gradient in gradients:
            parameter.grad = gradient


def synchronize(device: torch.device) -> None:
    """Wait for what the device has been given; a CPU has nothing waiting."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def compile_wanted(choice: Literal["auto", "on", "off"], device: torch.device, *, steps: int) -> bool:
    """Whether to hand the model to torch.compile.

    Never by itself on a CPU: measured gains lie between -9 and 4 %, at 13 to 29 CPU seconds for the first step. On
    CUDA where the steps are many enough to earn the minute that it can take.
    """
    return choice == "on" or (choice == "auto" and device.type == "cuda" and steps >= _STEPS_FOR_COMPILING)


def optimizer_settings(kind: str, device: torch.device) -> dict[str, Any]:
    """Arguments for torch's ``AdamW``, ``Adam`` or ``SGD``: the fused implementation where there is one.

    It computes the same numbers to rounding, in one pass over the memory in place of a dozen.
    """
    return {"fused": True} if kind in _STATES and device.type in {"cpu", "cuda"} else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a training step holds in memory, in bytes.

    Attributes:
        fixed: gradients, the optimizer's state, and what doesn't depend on the batch.
        per_sample: what a sample adds.
    """

    fixed: int
    per_sample: int

    def of(self, size: int) -> int:
        """Bytes of a step on `size` samples."""
        return self.fixed + size * self.per_sample


def footprint(
    model: nn.Module,
    forward: Callable[[Tensor], Any],
    loss: Callable[[Any, Any], Tensor],
    batch: tuple[Tensor, Any],
    *,
    optimizer: str,
    precision: Precision,
) -> Footprint:
    """What a step would hold, from what autograd saves for two and for four samples.

    Args:
        model: in the mode and with the frozen stages of training.
        forward: inputs to the head's outputs in float32, through `model`.
        loss: of outputs and targets.
        batch: at least one sample, on the model's device and in the layout of training; repeated to two and four.
        optimizer: adamw, adam or sgd.
        precision: of the forward pass.
    """
    device = batch[0].device
    known = {_storage(t) for t in (*model.parameters(), *model.buffers())}
    saved = []
    with preserve_state(model, device, loss=loss):
        for size in (2, 4):
            rows = torch.arange(size, device=device) % len(batch[0])
            x, y = batch[0][rows], trees.rows(batch[1], rows)
            if x.ndim == 4 and batch[0].is_contiguous(memory_format=torch.channels_last):
                x = x.contiguous(memory_format=torch.channels_last)
            saved.append(_save(lambda x=x, y=y: loss(forward(x), y), known, precision, device))  # type: ignore[misc]
    slope = (sum(saved[1]) - sum(saved[0])) // 2
    learning = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return Footprint(
        fixed=learning * (1 + _STATES[optimizer]) + max(0, sum(saved[0]) - 2 * slope),
        per_sample=slope + _WORKING_COPIES * max(saved[1], default=0) // 4,
    )


def _save(run: Callable[[], Tensor], known: set[int], precision: Precision, device: torch.device) -> list[int]:
    """Bytes of every storage that autograd saves for the backward pass, but for those in `known`."""
    found: dict[int, int] = {}
    saved: list[Tensor] = []  # else an address could serve twice

    def pack(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in known:
            found[_storage(tensor)] = tensor.untyped_storage().nbytes()
            saved.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), precision(device):
        run()
    return list(found.values())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def find_batch_size(cost: Footprint, available: int, *, at_most: int = LARGEST_BATCH) -> tuple[int, str]:
    """The largest power of two from 8 to 512 whose step takes 70 % of the memory at most, and one sentence.

    Args:
        cost: of a step.
        available: bytes.
        at_most: a smaller limit, such as for few samples, where large batches would mean too few steps.
    """
    size = SMALLEST_BATCH
    while size * 2 <= min(at_most, LARGEST_BATCH) and cost.of(size * 2) <= _MEMORY_SHARE * available:
        size *= 2
    text = (
        f"batch size {size}: a step takes about {_gigabytes(cost.of(size))} of the {_gigabytes(available)} at hand "
        f"({cost.per_sample / 2**20:.1f} MB a sample)"
    )
    if cost.of(size) > _MEMORY_SHARE * available:
        text += "; that may not fit, freeze more stages or take a smaller --batch-size"
    return size, text


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GB"


def available_memory(device: torch.device) -> int | None:
    """Bytes that a device has left for this process; None where it isn't known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + unused)

    return machine.memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that memory ran out, on a device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True

    return isinstance(error, RuntimeError) and machine.lacks_memory(error)
