"""What a command costs: wall time, CPU time and memory of its whole process tree.

CPU time is the kernel's account of the process and of all descendants that it waited for. Memory is sampled: of
processes that share pages only the proportional share counts, so that forked loader workers aren't counted twice.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_EVERY = 1.0  # seconds between samples; walking the pages of some gigabytes takes a tenth of a second
_ROLLUP = {"Pss": "pss", "Pss_Anon": "anon", "Pss_Shmem": "shared"}


@dataclass(frozen=True, slots=True)
class Sample:
    """The process tree at one moment.

    Attributes:
        seconds: since the start.
        cpu: seconds used so far.
        pss: proportional set size, bytes: what is resident, mapped files included; 0 where the system doesn't report
            it.
        held: the part of it that isn't files and so can't be dropped, bytes.
        largest: the most that any one of its processes has had resident so far, bytes; 0 where the system doesn't
            report it.
    """

    seconds: float
    cpu: float
    pss: int
    held: int
    largest: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a finished command took.

    Attributes:
        status: exit status, negative for a signal.
        started: seconds since 1970.
        wall: seconds.
        cpu: user and system seconds, with all descendants.
        peak_process: resident bytes of the largest single process.
        peak_tree: most bytes of the tree at any sample, mapped files included; 0 where the system doesn't report it.
        peak_held: the same without mapped files.
        samples: in order.
        lines: what it wrote to standard error and output, with the second at which each line came.
    """

    status: int
    started: float
    wall: float
    cpu: float
    peak_process: int
    peak_tree: int
    peak_held: int
    samples: tuple[Sample, ...]
    lines: tuple[tuple[float, str], ...]

    def cpu_at(self, seconds: float) -> float:
        """CPU seconds used by then, between samples by proportion."""
        before = Sample(0.0, 0.0, 0, 0, 0)
        for sample in (*self.samples, Sample(self.wall, self.cpu, 0, 0, 0)):
            if sample.seconds >= seconds:
                width = sample.seconds - before.seconds
                share = (seconds - before.seconds) / width if width > 0 else 1.0
                return before.cpu + share * (sample.cpu - before.cpu)
            before = sample
        return self.cpu


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    limit: float,
    stop_at: Callable[[str], bool] | None = None,
) -> Cost:
    """Run a command to its end.

    Args:
        command: program and arguments.
        environment: the whole of it.
        folder: to run in.
        limit: wall seconds after which it is killed.
        stop_at: given each line; true ends the command there.
    """
    started, clock = time.time(), time.perf_counter()
    process = subprocess.Popen(
        command,
        env=dict(environment),
        cwd=folder,
        text=True,
        errors="replace",
        bufsize=1,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    lines: list[tuple[float, str]] = []
    samples: list[Sample] = []
    done = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as written:
            for line in written:
                lines.append((time.perf_counter() - clock, line.rstrip("\n")))
                if stop_at is not None and stop_at(line):
                    _kill(process.pid)

    def watch() -> None:
        try:
            tree = psutil.Process(process.pid)
        except psutil.NoSuchProcess:  # ended before the first sample
            return
        while not done.wait(_EVERY):
            now = time.perf_counter() - clock
            if now > limit:
                _kill(process.pid)
            samples.append(_sample(tree, now))

    threads = [threading.Thread(target=work, daemon=True) for work in (read, watch)]
    for thread in threads:
        thread.start()
    _, code, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - clock
    done.set()
    for thread in threads:
        thread.join(timeout=5)
    process.returncode = os.waitstatus_to_exitcode(code)  # reaped here, so that Popen doesn't wait for it
    return Cost(
        status=process.returncode,
        started=started,
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        # the kernel's own figure begins with the memory of whoever started the process
        peak_process=max((sample.largest for sample in samples), default=0) or usage.ru_maxrss * 1024,
        peak_tree=max((sample.pss for sample in samples), default=0),
        peak_held=max((sample.held for sample in samples), default=0),
        samples=tuple(samples),
        lines=tuple(lines),
    )


def rollup(text: str) -> tuple[int, int]:
    """Bytes that are resident, and those of them that aren't files, by Linux's ``smaps_rollup``."""
    found = {"pss": 0, "anon": 0, "shared": 0}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name in _ROLLUP:
            found[_ROLLUP[name]] = int(rest.split()[0]) * 1024
    return found["pss"], found["anon"] + found["shared"]


def high_water(text: str) -> int:
    """The most bytes that a process has had resident, by Linux's ``/proc/PID/status``; 0 if it doesn't report it."""
    lines = (line.partition(":") for line in text.splitlines())
    return next((int(rest.split()[0]) * 1024 for name, _, rest in lines if name == "VmHWM"), 0)


def _sample(tree: psutil.Process, now: float) -> Sample:
    cpu, pss, held, largest = 0.0, 0, 0, 0
    try:
        processes = [tree, *tree.children(recursive=True)]
    except psutil.Error:  # it has ended meanwhile
        processes = []
    for process in processes:
        try:
            times = process.cpu_times()
            resident = rollup(Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii"))
            largest = max(largest, high_water(Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")))
        except (psutil.Error, OSError):
            continue
        cpu += times.user + times.system + times.children_user + times.children_system
        pss, held = pss + resident[0], held + resident[1]
    return Sample(now, cpu, pss, held, largest)


def _kill(leader: int) -> None:
    """End the command's own session of processes."""
    import signal

    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
