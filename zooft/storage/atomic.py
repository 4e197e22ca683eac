"""Files that appear whole or not at all, and clean-up of the drafts that killed writers left."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from zooft.storage import locks

_DRAFT = "draft-"
_LEFTOVER_SECONDS = 3600


@contextlib.contextmanager
def whole(final: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its name after the block, and is removed if the block fails."""
    descriptor, name = tempfile.mkstemp(prefix=_DRAFT, dir=final.parent)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb", buffering=2**20) as file:
            locks.lock(descriptor, exclusive=True)  # a sign that its writer lives
            yield file
            file.flush()
            os.fsync(descriptor)
        draft.replace(final)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def sweep(folder: Path) -> None:
    """Remove drafts that are old and whose writer is gone."""
    for path in folder.glob(f"{_DRAFT}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS and not locks.is_locked(path):
                path.unlink()
