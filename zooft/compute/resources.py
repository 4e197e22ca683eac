"""What a run has cost: wall time by part, and peak memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a run has cost.

    Attributes:
        seconds: wall time by part.
        peak_memory_mb: the most memory that the process held; None where the system doesn't report it.
    """

    seconds: Mapping[str, float]
    peak_memory_mb: int | None


class Clock:
    """A stopwatch with a lap for each part."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Count the time since the last call for `name`."""
        now = time.perf_counter()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._last
        self._last = now

    def resources(self) -> Resources:
        """What has been used up to the last lap."""
        return Resources(seconds={name: round(s, 2) for name, s in self._seconds.items()}, peak_memory_mb=_peak())


def _peak() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
