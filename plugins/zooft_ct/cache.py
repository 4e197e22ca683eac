"""Decoded slices on disk, so that a slow decoder runs once.

Entries are ``.npy`` files under names that are hashes, each followed by its SHA-256: numpy alone reads them, and a
torn or changed one counts as missing. Safe among processes: an entry appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_BYTES = 20 * 2**30
_DIGEST = 32
_RULES = 2
"""Raised where the reader refuses more: what an older one let pass isn't believed."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of decoded slices.

    Attributes:
        folder: made at the first write, closed to other users.
        most_bytes: what it may hold; the oldest entries leave first.
    """

    folder: Path
    most_bytes: int = MOST_BYTES

    def get(self, key: str) -> NDArray[np.int16] | None:
        """The slice ``(H, W)`` int16, or None where there is none or it isn't sound."""
        import numpy as np

        try:
            content = self._entry(key).read_bytes()
        except OSError:
            return None
        payload, digest = content[:-_DIGEST], content[-_DIGEST:]
        if hashlib.sha256(payload).digest() != digest:
            return None
        array: NDArray[np.int16] = np.load(io.BytesIO(payload), allow_pickle=False)
        return array if array.dtype == np.int16 and array.ndim == 2 else None

    def put(self, key: str, hu: NDArray[np.int16]) -> None:
        """Store a slice; a disk that can't is reported once and not used."""
        import numpy as np

        buffer = io.BytesIO()
        np.save(buffer, hu, allow_pickle=False)
        payload = buffer.getvalue()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(self._entry(key), payload + hashlib.sha256(payload).digest())
            if key.startswith("00"):  # one in 256, without counting: keys are hashes
                self.trim()
        except OSError as error:
            _say_once(error.strerror or type(error).__name__)

    def trim(self) -> None:
        """Remove the oldest entries until the folder is within its size."""
        entries = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(OSError):  # another process may have removed it
                entries.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        excess = sum(size for _, size, _ in entries) - self.most_bytes
        for _, size, path in sorted(entries):
            if excess <= 0:
                return
            with contextlib.suppress(OSError):
                Path(path).unlink()
            excess -= size

    def _entry(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def _write(self, entry: Path, content: bytes) -> None:
        descriptor, draft = tempfile.mkstemp(prefix="draft-", dir=self.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(draft).replace(entry)
        except OSError:
            Path(draft).unlink(missing_ok=True)
            raise


def from_option(hu_cache: str) -> Cache | None:
    """What the option of this name sets: ``auto`` is the user's cache folder, ``off`` none, else a folder.

    None, too, for a user without a cache folder: pictures of patients don't belong into the working directory.
    """
    if hu_cache == "off":
        return None
    if hu_cache != "auto":
        return Cache(Path(hu_cache))
    own = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    with contextlib.suppress(RuntimeError):  # a user without a home
        own = own.expanduser()
    return Cache(own / "zooft" / "hu") if own.is_absolute() else None


def key_of(content: str, frame: int, how: str = "") -> str:
    """The name of a slice's entry.

    A file is known by its content: names, sizes and times are the same for changed ones.

    Args:
        content: hash of the file's bytes.
        frame: of the slice in it.
        how: options that the values depend on.
    """
    return hashlib.sha256(f"{_RULES}\0{content}\0{frame}\0{how}".encode()).hexdigest()


@functools.cache
def _say_once(why: str) -> None:
    _logger.warning("decoded slices can't be cached (%s): reading continues, slower; see --hu-cache", why)
