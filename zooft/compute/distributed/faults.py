"""What happens in a process when another one, of the run or of a loader, has ended."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from torch import distributed

from zooft.errors import TrainingError, ZooftError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accelerate import Accelerator

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
"""Messages of gloo and NCCL for a process at the other end that doesn't exist any more."""


@contextlib.contextmanager
def faults(accelerator: Accelerator, *, advice: str = "") -> Iterator[None]:
    """Turn the loss of another process, or of a loader's, into an error that names it and who reports it.

    Args:
        accelerator: of this process.
        advice: how to continue, the end of the message.

    Raises:
        TrainingError: a process of the run or of a loader has ended.
    """
    who = f"process {accelerator.process_index} of {accelerator.num_processes}"
    with _report_sigterm(who, advice, several=accelerator.num_processes > 1):
        try:
            yield
        except ZooftError:
            raise
        except (RuntimeError, OSError, EOFError) as raised:
            error = _error_of_loader(raised)
            meant = _describe(error, who, several=accelerator.num_processes > 1)
            if meant is None:
                raise
            fault = TrainingError("; ".join(filter(None, (meant, advice))))
            for note in getattr(raised, "__notes__", ()):  # where the checkpoint is
                fault.add_note(note)
            raise fault from error


def _error_of_loader(error: Exception) -> Exception:
    """Where a pipe ended: torch's own error about a loader's process, which comes a moment later."""
    if isinstance(error, (EOFError, ConnectionError)):
        try:
            time.sleep(0.2)
        except RuntimeError as late:
            return late
    return error


def _describe(error: Exception, who: str, *, several: bool) -> str | None:
    """The message for an error about a process that has ended; None where the error is about something else."""
    text = str(error)
    if "DataLoader worker" in text and ("exited unexpectedly" in text or "killed by signal" in text):
        whose = f" of {who}" if several else ""
        return (
            f"a loader process{whose} has ended: {first_line(error)} (the system may have run out of memory: "
            "try fewer --workers, or --workers 0)"
        )
    lost = isinstance(error, distributed.DistError) or any(word in text.lower() for word in _LOST)
    if several and lost:
        return (
            f"{who} has lost another process of the run: {first_line(error)} (the launcher's output names the one "
            "that ended first, and why)"
        )
    return None


@contextlib.contextmanager
def _report_sigterm(who: str, advice: str, *, several: bool) -> Iterator[None]:
    """Report the SIGTERM, silent by itself, by which launchers end the other processes of a run that has lost one."""
    if not several or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise TrainingError(
            "; ".join(
                filter(
                    None,
                    (
                        f"{who} was ended by its launcher (SIGTERM), as launchers do when another process has ended",
                        advice,
                    ),
                )
            )
        )

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # this process is ending: let it report why
        raise
    signal.signal(signal.SIGTERM, before)


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
