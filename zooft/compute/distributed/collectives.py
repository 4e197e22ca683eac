"""What processes send each other: results of the main one, votes, one object from each."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed

from zooft.compute import launcher
from zooft.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerate import Accelerator

T = TypeVar("T")


def first(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """What `work` gives in the main process, in every process; the others wait.

    Raises:
        Exception: whatever `work` raised, in every process; `launcher.is_reported_by_main` recognises the copies.
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
        except Exception as error:  # of any kind: the others mustn't wait for ever
            failed = error
            message = [pickle.dumps((False, _pack(error)))]
    distributed.broadcast_object_list(message, src=0, device=torch.device("cpu"))
    if failed is not None:
        raise failed
    if made:
        return made[0]
    succeeded, content = pickle.loads(message[0] or b"")  # noqa: S301 -- from our own main process, never from a file
    if not succeeded:
        raise _unpack(*content)
    return content  # type: ignore[no-any-return]


def main_only(accelerator: Accelerator, work: Callable[[], T]) -> T | None:
    """What `work` gives in the main process; None in the others, which wait and don't need it.

    Raises:
        Exception: as `first` does.
    """
    made: list[T] = []
    first(accelerator, lambda: made.append(work()))
    return made[0] if made else None


def main_process_first(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """What `work` gives in each process; the others begin once the main one has finished it without error.

    For work that leaves files that the others find, such as a download, or that fails alike in all.

    Raises:
        Exception: as `first` does.
    """
    made: list[T] = []
    first(accelerator, lambda: made.append(work()))
    return made[0] if made else work()


def all_true(accelerator: Accelerator, yes: bool) -> bool:
    """Whether `yes` holds in all processes; each waits for the others."""
    if accelerator.num_processes == 1:
        return yes
    votes = torch.tensor([int(yes)])
    distributed.all_reduce(votes, distributed.ReduceOp.MIN)
    return bool(votes)


def all_gather_object(own: T, accelerator: Accelerator) -> list[T]:
    """One small object from each process."""
    if accelerator.num_processes == 1:
        return [own]
    group: list[Any] = [None] * accelerator.num_processes
    for number in range(accelerator.num_processes):
        box = [own if number == accelerator.process_index else None]
        # one broadcast each: torch's gather of objects uses the GPU where the run has one, its broadcast the given
        # device
        distributed.broadcast_object_list(box, src=number, device=torch.device("cpu"))
        group[number] = box[0]
    return group


def _pack(error: Exception) -> tuple[Any, ...]:
    """An error as what can be pickled: the parts that make it, or its message where they can't be."""
    # some of our own errors have arguments that pickle loses; the system's hold some outside `args`
    for parts in (_parts_of_the_system_s(error), _parts_of(error)):
        try:
            if parts and str(_unpack(*pickle.loads(pickle.dumps(parts)))) == str(error):  # noqa: S301 -- our own
                return parts
        except Exception:  # noqa: S112 -- an attribute that can't be sent: try the next way
            continue
    return (TrainingError, (f"{type(error).__name__}: {error}",), {})


def _parts_of_the_system_s(error: Exception) -> tuple[Any, ...]:
    return tuple(error.__reduce__()) if isinstance(error, OSError) else ()


def _parts_of(error: Exception) -> tuple[Any, ...]:
    return (type(error), error.args, dict(error.__dict__))


def _unpack(kind: type[Exception], args: tuple[Any, ...], attributes: dict[str, Any] | None = None) -> Exception:
    error = kind.__new__(kind, *args)
    if not isinstance(error, OSError):  # which has taken the file's name out of `args`
        error.args = args
    error.__dict__.update(attributes or {})
    launcher.mark_reported(error)
    return error
