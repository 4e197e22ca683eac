"""What a run has cost: wall time by part, and memory as the system counts it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from zooft.compute.resources import Clock


def test_each_lap_has_what_passed_since_the_one_before_and_laps_of_one_name_add_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter([100.0, 101.5, 101.75, 110.0, 110.254])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    clock = Clock()
    for name in ("data", "train", "data", "export"):
        clock.lap(name)
    assert clock.resources().seconds == {"data": 9.75, "train": 0.25, "export": 0.25}


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system has no /proc/self/status")
def test_the_peak_is_the_kernel_s_and_never_falls() -> None:
    def peak() -> int:
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) // 1024

    before = Clock().resources().peak_memory_mb
    much = bytearray(64 * 2**20)
    much[::4096] = b"x" * len(much[::4096])
    held = Clock().resources().peak_memory_mb
    assert before is not None
    assert held == pytest.approx(peak(), abs=2)
    del much
    after = Clock().resources().peak_memory_mb
    assert after is not None
    assert after >= held >= before


def test_where_the_system_does_not_say_it_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert Clock().resources().peak_memory_mb is None
