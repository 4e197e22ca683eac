"""What a run has cost: wall time by part, and the most memory that was held."""

from __future__ import annotations

import sys
import time
from typing import Any


class Clock:
    """A stopwatch that is told when a part has ended."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """What has passed since the last call counts for `name`."""
        now = time.perf_counter()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._last
        self._last = now

    def resources(self) -> dict[str, Any]:
        """Seconds by part, and the process's peak memory in MB (None where the system doesn't say)."""
        return {"seconds": {name: round(s, 2) for name, s in self._seconds.items()}, "peak_memory_mb": _peak()}


def _peak() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
