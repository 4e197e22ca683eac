"""Several processes as one run: who works, who waits, and how their parts become one result.

Owns all that is said between processes. torchrun or ``accelerate launch`` start them; with a single one every function
here does the plain thing and costs nothing. Batches are global: a run gives the same result however many
processes share it, up to rounding and to what is random or normalised within a process.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import pickle
import signal
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

from zooft import launcher
from zooft.errors import ConfigError, TrainingError, ZooftError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from accelerate import Accelerator

T = TypeVar("T")

PATIENCE = timedelta(hours=24)
"""How long a process waits for another: reading a million files is the main process's work, and the others wait for
it. One that has died is noticed by its connection, at once."""
PIECE = 64 * 2**20
"""Bytes that each process hands over at a time where much is gathered."""
_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")  # the newer torch's word and the older one's
    if name in inspect.signature(nn.parallel.DistributedDataParallel).parameters
)
"""Whether buffers are exchanged at every step. We don't: nobody looks at them before `same_buffers`."""
_LOST = (
    "connection closed by peer",
    "connection reset by peer",
    "connection was likely closed",
    "connection refused",
    "broken pipe",
    "gloo/transport",
    "remote process exited",
    "communicator was aborted",
)
"""Words of gloo and NCCL for a process at the other end that isn't there any more."""


def start(*, cpu: bool) -> Accelerator:
    """This process's place among those of the run.

    Args:
        cpu: no GPU, even where there are some.

    Raises:
        TrainingError: the others can't be reached.
    """
    from accelerate import Accelerator

    cpu = cpu or not torch.cuda.is_available()
    if launcher.processes() > 1 and not distributed.is_initialized():
        # two backends: what lies on the CPU, results of Python among it, goes by gloo and needs no GPU
        try:
            distributed.init_process_group("gloo" if cpu else "cpu:gloo,cuda:nccl", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"process {launcher.process()} of {launcher.processes()} can't reach the others: {_first_line(error)}; "
                "check the launcher's address and port, and that every node started"
            ) from error
    return Accelerator(cpu=cpu)


def finish() -> None:
    """Take leave of the other processes."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def first(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """What `work` gives in the main process, in every process; the others wait.

    Raises:
        Exception: whatever `work` raised, in every process; `launcher.told_by_main` knows the copies.
    """
    if accelerator.num_processes == 1:
        return work()
    message: list[bytes | None] = [None]
    failed: Exception | None = None
    made: list[T] = []
    if accelerator.is_main_process:
        try:
            made.append(work())
            message = [pickle.dumps((True, made[0]))]
        except Exception as error:  # whatever it is, the others mustn't wait for ever
            failed = error
            message = [pickle.dumps((False, _packed(error)))]
    distributed.broadcast_object_list(message, src=0, device=torch.device("cpu"))
    if failed is not None:
        raise failed
    if made:
        return made[0]
    succeeded, content = pickle.loads(message[0] or b"")  # noqa: S301 -- from our own main process, never from a file
    if not succeeded:
        raise _unpacked(*content)
    return content  # type: ignore[no-any-return]


def main_only(accelerator: Accelerator, work: Callable[[], T]) -> T | None:
    """What `work` gives in the main process; None in the others, which wait and need nothing of it.

    Raises:
        Exception: as `first` does.
    """
    made: list[T] = []
    first(accelerator, lambda: made.append(work()))
    return made[0] if made else None


def main_first(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """What `work` gives in each process; the others begin when the main one has done it, without fault.

    For what leaves something behind that the others find, such as a download, and for what fails in all alike.

    Raises:
        Exception: as `first` does.
    """
    made: list[T] = []
    first(accelerator, lambda: made.append(work()))
    return made[0] if made else work()


def agree(accelerator: Accelerator, yes: bool) -> bool:
    """Whether all processes say yes; each waits for the others."""
    if accelerator.num_processes == 1:
        return yes
    votes = torch.tensor([int(yes)])
    distributed.all_reduce(votes, distributed.ReduceOp.MIN)
    return bool(votes)


def from_each(own: T, accelerator: Accelerator) -> list[T]:
    """One small object from each process."""
    if accelerator.num_processes == 1:
        return [own]
    group: list[Any] = [None] * accelerator.num_processes
    for number in range(accelerator.num_processes):
        box = [own if number == accelerator.process_index else None]
        # one after the other: torch gathers objects on the GPU where the run has one, and broadcasts where it is told
        distributed.broadcast_object_list(box, src=number, device=torch.device("cpu"))
        group[number] = box[0]
    return group


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Index lists of one epoch: this process's part of every global batch, for a loader's ``batch_sampler``.

    The order is a permutation by `seed` and `epoch` alone. Every global batch is cut into contiguous parts whose
    lengths differ by one at most; nothing is repeated and nothing left out. Where a batch has fewer samples than there are
    processes, those at the end have none of their own: they are given one that isn't theirs, so that the step runs
    everywhere, and `counts` says that it doesn't count.

    Attributes:
        samples: how many there are.
        size: of a global batch; the last one may be smaller.
        seed: of the order.
        epoch: from 0.
        process: this one's number.
        processes: how many there are.
    """

    samples: int
    size: int
    seed: int
    epoch: int = 0
    process: int = 0
    processes: int = 1

    def __len__(self) -> int:
        return -(-self.samples // self.size)

    def __iter__(self) -> Iterator[list[int]]:
        """Each step's samples."""
        order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(seed_of(self.seed, self.epoch)))
        for step, batch in enumerate(torch.split(order, self.size)):
            counts = self.counts(step)
            begin = sum(counts[: self.process])
            own: list[int] = batch[begin : begin + counts[self.process]].tolist()
            yield own or [int(batch[0])]

    def counts(self, step: int) -> tuple[int, ...]:
        """How many samples of the global batch of `step` each process has."""
        length = min(self.size, self.samples - step * self.size)
        return tuple(len(part) for part in _parts(length, self.processes))


def batches(accelerator: Accelerator, *, samples: int, size: int, seed: int, epoch: int) -> Batches:
    """This process's batches of an epoch."""
    return Batches(
        samples=samples, size=size, seed=seed, epoch=epoch,
        process=accelerator.process_index, processes=accelerator.num_processes,
    )  # fmt: skip


def seed_of(*numbers: int) -> int:
    """One seed from several, such as seed, epoch and process: no two tuples share one by a sum."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def share(n: int, accelerator: Accelerator) -> range:
    """The samples, of `n`, that this process computes."""
    number: int = accelerator.process_index
    return _parts(n, accelerator.num_processes)[number]


def global_loss(
    loss: Callable[[Tensor, Tensor], Tensor],
    logits: Tensor,
    targets: Tensor,
    accelerator: Accelerator,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """The loss of the global batch, times the number of processes: what is to be sent backward.

    Computed on everybody's logits, of which only the own ones carry a gradient. DistributedDataParallel takes the
    mean of the processes' gradients, so each parameter gets exactly the gradient that one process would have
    computed on the whole batch, for any loss, weighted ones too, and however the batch is cut. Divided by
    the number of processes, the value is the global batch's loss, the same everywhere.

    Args:
        loss: ``(logits, targets) -> scalar``.
        logits: of this process's samples, ``(n, outputs)``.
        targets: theirs, ``(n,)``.
        accelerator: of this process.
        counts: how many of each process's rows count, as `Batches.counts` gives it; all of them where None.
    """
    if accelerator.num_processes == 1:
        return loss(logits, targets)
    known = tuple(counts) if counts is not None else _counted(len(logits), accelerator)
    rows = [part[:n] for part, n in zip(_rows_of_all(logits.detach(), max(known)), known, strict=True)]
    labels = [part[:n] for part, n in zip(_rows_of_all(targets, max(known)), known, strict=True)]
    own = known[accelerator.process_index]
    rows[accelerator.process_index] = logits[:own]
    number: int = accelerator.num_processes
    # rows that are left out get zeros for a gradient: a process without samples takes part in the exchange all the same
    return loss(torch.cat(rows), torch.cat(labels)) * number


def wrap(model: nn.Module, accelerator: Accelerator, *, sync_bn: bool = False) -> nn.Module:
    """The module whose forward pass trains: the model itself, or one that exchanges gradients.

    To be called again, with what it gave before let go, when other parameters learn than before.

    Args:
        model: placed, with what learns set to.
        accelerator: of this process.
        sync_bn: BatchNorm layers that learn take their statistics from all processes.

    Raises:
        ConfigError: `sync_bn` on a CPU, for which torch has no such layer.
    """
    if accelerator.num_processes == 1:
        return model
    if sync_bn:
        _synchronise_norms(model, accelerator)
    device = accelerator.device
    options: dict[str, Any] = {_SYNC_BUFFERS: False}
    return nn.parallel.DistributedDataParallel(
        model, device_ids=[device.index] if device.type == "cuda" else None, **options
    )


def same_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the main one's running statistics, as they differ after an epoch on different samples.

    To be called in training mode: layers that stand still have changed nothing.
    """
    if accelerator.num_processes == 1:
        return
    moving = [buffer for module in model.modules() if module.training for buffer in module.buffers(recurse=False)]
    for dtype in dict.fromkeys(buffer.dtype for buffer in moving):
        own = [buffer for buffer in moving if buffer.dtype == dtype]
        together = torch.cat([buffer.reshape(-1) for buffer in own])
        distributed.broadcast(together, src=0)
        with torch.no_grad():
            for buffer, values in zip(own, torch.split(together, [buffer.numel() for buffer in own]), strict=True):
                buffer.copy_(values.view_as(buffer))


def gather(parts: Sequence[Tensor], order: Sequence[int], accelerator: Accelerator) -> Tensor:
    """Rows that the processes have computed, in the samples' order, on the CPU in every process.

    Args:
        parts: this process's rows, ``(n, …)`` each; none at all where it had no samples.
        order: which sample each of these rows is of; over all processes every number from 0 once.
        accelerator: of this process.
    """
    places = torch.tensor(list(order), dtype=torch.long)
    own = torch.cat([part.cpu() for part in parts]) if len(parts) else None
    if accelerator.num_processes == 1 and own is not None:
        return _arranged(own, places)
    others = from_each((places, None if own is None else (own.dtype, own.shape[1:])), accelerator)
    total = sum(len(theirs) for theirs, _ in others)
    dtype, shape = next(kind for _, kind in others if kind is not None)
    result = torch.empty((total, *shape), dtype=dtype)
    own = own if own is not None else torch.empty((0, *shape), dtype=dtype)
    longest = max(len(theirs) for theirs, _ in others)
    step = min(longest, max(1, PIECE // max(1, result[:1].nbytes)))
    for begin in range(0, longest, step):
        pieces = _rows_of_all(own[begin : begin + step], step)
        for piece, (theirs, _) in zip(pieces, others, strict=True):
            into = theirs[begin : begin + step]
            result[into] = piece[: len(into)]
    once = torch.bincount(torch.cat([theirs for theirs, _ in others]), minlength=total)
    assert bool((once == 1).all()), "every sample belongs to one process"  # noqa: S101 -- our own invariant
    return result


@contextlib.contextmanager
def faults(accelerator: Accelerator, *, advice: str = "") -> Iterator[None]:
    """Turn the loss of another process, or of a loader's, into an error that says so and by whom it is told.

    Args:
        accelerator: of this process.
        advice: how to go on, the end of the message.

    Raises:
        TrainingError: a process of the run or of a loader has ended.
    """
    who = f"process {accelerator.process_index} of {accelerator.num_processes}"
    with _told_to_end(who, advice, several=accelerator.num_processes > 1):
        try:
            yield
        except ZooftError:
            raise
        except (RuntimeError, OSError, EOFError) as raised:
            error = _late_word(raised)
            meant = _meant(error, who, several=accelerator.num_processes > 1)
            if meant is None:
                raise
            told = TrainingError("; ".join(filter(None, (meant, advice))))
            for note in getattr(raised, "__notes__", ()):  # where what was learnt lies
                told.add_note(note)
            raise told from error


def _late_word(error: Exception) -> Exception:
    """Where a pipe ended: what torch says of a loader's process a moment later, when the system tells it of its death."""
    if isinstance(error, (EOFError, ConnectionError)):
        try:
            time.sleep(0.2)
        except RuntimeError as late:
            return late
    return error


def _meant(error: Exception, who: str, *, several: bool) -> str | None:
    """What an error says of a process that isn't there any more; None where it speaks of something else."""
    text = str(error)
    if "DataLoader worker" in text and ("exited unexpectedly" in text or "killed by signal" in text):
        return (
            f"a loader process of {who} has ended: {_first_line(error)} (the system may have run out of memory: "
            "try fewer --workers, or --workers 0)"
        )
    lost = isinstance(error, distributed.DistError) or any(word in text.lower() for word in _LOST)
    if several and lost:
        return (
            f"{who} has lost another process of the run: {_first_line(error)} (the launcher's output names the one that ended "
            "first, and why)"
        )
    return None


@contextlib.contextmanager
def _told_to_end(who: str, advice: str, *, several: bool) -> Iterator[None]:
    """Launchers end the other processes of a run that has lost one by SIGTERM, which is silent by itself."""
    if not several or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise TrainingError(
            "; ".join(
                filter(
                    None, (f"{who} was told to end (SIGTERM), as launchers do when another process has ended", advice)
                )
            )
        )

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # this process is ending: let it say why
        raise
    signal.signal(signal.SIGTERM, before)


def _parts(n: int, number: int) -> list[range]:
    """`n` things cut into `number` contiguous parts, larger ones first."""
    short, longer = divmod(n, number)
    edges = [index * short + min(index, longer) for index in range(number + 1)]
    return [range(begin, end) for begin, end in itertools.pairwise(edges)]


def _rows_of_all(own: Tensor, length: int) -> list[Tensor]:
    """Each process's rows, filled up to `length`; what is beyond its own number of rows means nothing."""
    padded = own.new_zeros((length, *own.shape[1:]))
    padded[: min(len(own), length)] = own[:length]
    received = [torch.empty_like(padded) for _ in range(distributed.get_world_size())]
    distributed.all_gather(received, padded)
    return received


def _counted(own: int, accelerator: Accelerator) -> tuple[int, ...]:
    counts = _rows_of_all(torch.tensor([own], device=accelerator.device), 1)
    return tuple(int(count) for count in counts)


def _arranged(rows: Tensor, places: Tensor) -> Tensor:
    if torch.equal(places, torch.arange(len(places))):
        return rows
    result = torch.empty_like(rows)
    result[places] = rows
    return result


def _synchronise_norms(model: nn.Module, accelerator: Accelerator) -> None:
    norms = (nn.modules.batchnorm._BatchNorm,)
    learning = [name for name, module in model.named_modules() if isinstance(module, norms) and module.training]
    if not learning:
        return
    if accelerator.device.type != "cuda":
        raise ConfigError(
            f"--sync-bn works on CUDA only, and this run is on {accelerator.device.type} with {len(learning)} BatchNorm layers "
            "that learn; leave --sync-bn out: each process then normalises by its own samples"
        )
    from timm.layers import convert_sync_batchnorm  # torch's own drops the activation that timm keeps inside a norm

    convert_sync_batchnorm(model)


def _packed(error: Exception) -> tuple[Any, ...]:
    """An error as what can be sent: the parts that make it, or its words where they can't be sent."""
    # some of our own take arguments that pickle doesn't give back to them; the system's keep some outside `args`
    for parts in (_parts_of_the_system_s(error), _parts_of(error)):
        try:
            if parts and str(_unpacked(*pickle.loads(pickle.dumps(parts)))) == str(error):  # noqa: S301 -- our own
                return parts
        except Exception:  # noqa: S112 -- an attribute that can't be sent: try the next way
            continue
    return (TrainingError, (f"{type(error).__name__}: {error}",), {})


def _parts_of_the_system_s(error: Exception) -> tuple[Any, ...]:
    return tuple(error.__reduce__()) if isinstance(error, OSError) else ()


def _parts_of(error: Exception) -> tuple[Any, ...]:
    return (type(error), error.args, dict(error.__dict__))


def _unpacked(kind: type[Exception], args: tuple[Any, ...], attributes: dict[str, Any] | None = None) -> Exception:
    error = kind.__new__(kind, *args)
    if not isinstance(error, OSError):  # which has taken a file's name out of them
        error.args = args
    error.__dict__.update(attributes or {})
    launcher.mark_told(error)
    return error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
