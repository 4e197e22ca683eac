"""The right to write a file or folder: one process has it at a time, and the system frees it when that one dies."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from zooft.errors import RunError

if TYPE_CHECKING:
    from filelock import BaseFileLock


def hold(target: Path, *, refusal: str) -> BaseFileLock | None:
    """The right to write `target`: a file beside it, since it may be renamed while it is held.

    Args:
        target: a file or a folder; it needn't be there.
        refusal: the message of the error where another process has it.

    Returns:
        None where the file system has no locks, or the folder can't be written.

    Raises:
        RunError: another process has it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(f".{target.name}.lock"), thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RunError(refusal) from None
    except (OSError, NotImplementedError):
        return None
    return lock


def release(lock: BaseFileLock | None) -> None:
    """Give the right back. The file goes first: one that another process has opened meanwhile no longer counts."""
    if lock is None:
        return
    with contextlib.suppress(OSError):  # Windows removes no open file
        Path(lock.lock_file).unlink()
    lock.release()
