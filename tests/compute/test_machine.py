"""Limits of containers, read from files laid out as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zooft.compute import machine

MEMINFO = "MemTotal:       32000000 kB\nMemFree:  1000 kB\nMemAvailable:   16000000 kB\n"
GIB = 2**30


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="ascii")
    return root


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)


CPU = {
    "no limit": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 8),
    "second generation": ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "250000 100000"}, 2),
    "less than a core": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
    "more than there are": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "6400000 100000"}, 8),
    "a group around it": (
        {
            "proc/self/cgroup": "0::/a/b",
            "sys/fs/cgroup/a/cpu.max": "300000 100000",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000",
        },
        3,
    ),
    "first generation": (
        {
            "proc/self/cgroup": "4:memory:/x\n1:cpu,cpuacct:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        4,
    ),
    "first generation, no limit": (
        {
            "proc/self/cgroup": "1:cpu:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        8,
    ),
    "the host's path": (
        {
            "proc/self/cgroup": "1:cpu:/docker/abc",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        2,
    ),
    "nothing to read": ({}, 8),
    "nonsense": ({"proc/self/cgroup": "??\n0::/", "sys/fs/cgroup/cpu.max": "a b c"}, 8),
}
MEMORY = {
    "no limit": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max"}, 16_000_000 * 1024),
    "second generation": (
        {
            "proc/self/cgroup": "0::/a",
            "sys/fs/cgroup/a/memory.max": str(4 * GIB),
            "sys/fs/cgroup/a/memory.current": str(3 * GIB),
            "sys/fs/cgroup/a/memory.stat": f"anon 5\ninactive_file {GIB}",
        },
        2 * GIB,
    ),
    "first generation": (
        {
            "proc/self/cgroup": "4:memory:/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(4 * GIB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB),
        },
        3 * GIB,
    ),
    "first generation, no limit": (
        {
            "proc/self/cgroup": "4:memory:/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB),
        },
        16_000_000 * 1024,
    ),
    "more used than allowed": (
        {
            "proc/self/cgroup": "0::/",
            "sys/fs/cgroup/memory.max": str(GIB),
            "sys/fs/cgroup/memory.current": str(2 * GIB),
        },
        0,
    ),
}


@pytest.mark.parametrize(("files", "expected"), CPU.values(), ids=CPU)
def test_cores(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    root = lay(tmp_path, files)
    assert machine.cores(root) == expected
    assert machine.quota_below_affinity(root) is (expected < 8)


@pytest.mark.parametrize(("files", "expected"), MEMORY.values(), ids=MEMORY)
def test_memory(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert machine.memory(lay(tmp_path, files)) == expected


def test_memory_that_nobody_reports(tmp_path: Path) -> None:
    assert machine.memory(tmp_path) is None


def test_this_machine() -> None:
    assert machine.cores() >= 1
    found = machine.memory()
    assert found is not None
    assert found > 2**26


def test_threads_and_workers_are_shared_out(tmp_path: Path) -> None:
    root = lay(tmp_path, {})
    assert machine.threads(root=root) == 8
    assert machine.threads(3, root) == 2
    assert machine.threads(100, root) == 1
    assert machine.loader_workers("cpu", root=root) == 2
    assert machine.loader_workers("cpu", processes=3, root=root) == 0  # two cores each
    assert machine.loader_workers("cuda", root=root) == 8
    assert machine.loader_workers("cuda", processes=4, root=root) == 2
