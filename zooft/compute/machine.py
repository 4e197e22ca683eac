"""What this process may use of the machine: cores and memory, as containers and affinity limit them; without torch.

A container's limits stand in the files of the kernel's control groups, of version 1 or 2.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = 2**60
"""Version 1 writes a number as large as this for "no limit"."""
_MOST_WORKERS = 8
_CORES_A_WORKER = 4
"""On a CPU. Reading a photograph takes 4 to 5 ms of one core, ResNet-18's frozen stages 25 to 30 ms of all: beyond some
four cores, computation would wait for reading."""

_OUT_OF_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "failed to allocate memory",
    "unable to allocate",
    "std::bad_alloc",
    "bad allocation",
    "memoryerror",
    "could not create a memory object",  # of oneDNN
    "failed to map segment",  # of the dynamic linker, where a library doesn't fit
    "can't start new thread",  # of Python, where a thread's stack doesn't fit
)
"""Libraries' messages, in lower case, where memory ran out; few of them raise MemoryError."""
_NO_PRIMITIVE = "could not create a primitive"
"""oneDNN's, where a kernel that it has chosen finds no memory; for what it doesn't support it has "primitive
descriptor"."""


def lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, means that memory ran out."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        text = str(error).lower()
        if any(words in text for words in _OUT_OF_MEMORY) or text.endswith(_NO_PRIMITIVE):
            return True
        error = error.__cause__ or error.__context__
    return False


def address_limit() -> int | None:
    """Bytes that ``ulimit -v`` allows this process; None without such a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def cores(root: Path = Path("/")) -> int:
    """Whole cores that this process may keep busy; at least one.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    allowed = _affinity()
    quota = _quota(root)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def memory(root: Path = Path("/")) -> int | None:
    """Free bytes that this process may take without swapping or being killed; None where that is unknown."""
    if sys.platform != "linux" and root == Path("/"):
        return _physical()
    limits = [value for value in (_available(root), *_bytes_left(root)) if value is not None]
    return max(0, min(limits)) if limits else None


def threads(processes: int = 1, root: Path = Path("/")) -> int:
    """Compute threads for each of `processes` on this machine."""
    return max(1, cores(root) // processes)


def loader_workers(device: str, *, processes: int = 1, root: Path = Path("/")) -> int:
    """Loader processes for each of `processes` on this machine.

    On a CPU the loader shares the cores: with few of them training never waits for it. Other devices need more of it.

    Args:
        device: its type, such as ``cpu`` or ``cuda``.
        processes: that train here.
        root: where ``proc`` and ``sys`` are.
    """
    own = threads(processes, root)
    return min(_MOST_WORKERS, own // _CORES_A_WORKER if device == "cpu" else own)


def quota_below_affinity(root: Path = Path("/")) -> bool:
    """Whether a container gives this process less CPU time than the cores that it sees."""
    return cores(root) < _affinity()


def _affinity() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(root: Path) -> float | None:
    """CPU time in cores, by the strictest of all groups that this process is in; None without a limit."""
    found = []
    for folder in _groups(root, "cpu"):
        amount, _, period = _text(folder / "cpu.max").partition(" ")  # version 2: "max 100000"
        found.append((amount, period))
        found.append((_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")))
    limits = [
        int(amount) / int(period) for amount, period in found if amount.isdigit() and period.isdigit() and int(period)
    ]
    return min(limits, default=None)


def _bytes_left(root: Path) -> Iterator[int]:
    """Bytes below each group's limit; files that the kernel merely caches don't count as used."""
    for folder in _groups(root, "memory"):
        for limit, used, idle in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most, taken = _text(folder / limit), _text(folder / used)
            if most.isdigit() and taken.isdigit() and int(most) < _UNLIMITED:
                yield int(most) - int(taken) + _entry(_text(folder / "memory.stat"), idle)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control groups that this process is in, and of those around them."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            base = root / "sys/fs/cgroup"
        elif controller in names.split(","):
            base = root / "sys/fs/cgroup" / controller
        else:
            continue
        # a container may see its group's path on the host, which doesn't exist inside: then the base is the group
        own = base / path.strip("/")
        yield own
        while own != base and base in own.parents:
            own = own.parent
            yield own


def _available(root: Path) -> int | None:
    kilobytes = _entry(_text(root / "proc/meminfo").replace(":", " "), "MemAvailable")
    return kilobytes * 1024 or None


def _entry(text: str, name: str) -> int:
    """The number after `name` in lines of names and numbers; 0 where it isn't there."""
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _physical() -> int | None:
    """Half of the physical memory, for systems without a file that states what is free."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # Windows
        return None
