"""Who has a shelf open: locks on files, which end with their process.

Where the file system has no locks, a file that is open stays readable after its removal.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

LOCK = "lock"
_PATIENCE, _PAUSE = 200, 0.05  # tries, and seconds between them, while another process removes the shelf
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def share(folder: Path) -> int | None:
    """Hold a shelf against removal by others; None where nothing may be written there.

    Raises:
        OSError: the folder can't be made, or another process takes too long to remove it.
    """
    for _ in range(_PATIENCE):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # the folder was removed in between
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            return _share_reading(folder)
        if lock(descriptor, exclusive=False) and _is_still(descriptor, folder / LOCK):
            return descriptor
        os.close(descriptor)
        time.sleep(_PAUSE)
    raise TimeoutError(errno.EBUSY, "another process is removing a part of it")


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether nobody else has the shelf open, and nobody opens it within the block."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        yield False
        return
    try:
        yield lock(descriptor, exclusive=True) and _is_still(descriptor, folder / LOCK)
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether another process has a file locked.

    Raises:
        OSError: it can't be opened.
    """
    with path.open("rb") as file:
        return not lock(file.fileno(), exclusive=True)


def lock(descriptor: int, *, exclusive: bool) -> bool:
    """Lock an open file without waiting; False where another has it. True where there are no locks."""
    if sys.platform == "win32":
        return True  # there an open file can't be removed
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _share_reading(folder: Path) -> int | None:
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return None
    lock(descriptor, exclusive=False)
    return descriptor


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to the open file: it may have been removed, or made anew."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
