"""Files below a folder: the walk ends, and opens nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import zooft

_INDEX = "DICOMDIR"


def walk(root: Path) -> Iterator[Path]:
    """Whatever lies below `root` and isn't a folder, in the order of the names; `root` itself where it is no folder.

    Links to folders are followed, each folder once, so that loops end. Hidden names and DICOMDIR are left out.
    Pipes and dangling links are named too: who reads the files refuses them.

    Raises:
        DataError: a folder can't be listed.
    """
    if not root.is_dir():
        yield root
        return
    seen: set[tuple[int, int]] = set()
    for folder, inner, names in os.walk(root, onerror=_refuse, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            inner.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        inner[:] = sorted(name for name in inner if not zooft.is_hidden(name))
        yield from (Path(folder, name) for name in sorted(names) if _is_wanted(name))


def _is_wanted(name: str) -> bool:
    return not zooft.is_hidden(name) and name.upper() != _INDEX


def _refuse(error: OSError) -> None:
    raise zooft.DataError(
        f"a folder of the data can't be listed: {error.strerror}. Mend its permissions, or move it elsewhere"
    ) from None
