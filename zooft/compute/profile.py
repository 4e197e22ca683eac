"""Where the time of a run went: wall and CPU seconds by part, and the learning part's share of the machine's peak.

Owns the stopwatch behind ``--profile``, what this machine can do at best, and the figures made of both. Loads torch
only to measure.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")
START_UP = "start-up"
REST = "the rest"
LEARNING = ("forward", "backward", "optimizer")
"""Parts that the steps of the learning part are made of."""
_WORTH_TELLING = 0.5
"""Seconds of training below which a rate is mostly the clock's error."""
_PEAK_SECONDS = 0.3
_GEMM, _CHANNELS, _SIDE, _IMAGES = 1024, 256, 28, 8


@dataclass(frozen=True, slots=True)
class Part:
    """The time of a part, without the parts inside it.

    Attributes:
        name: such as "the rest".
        wall: seconds.
        cpu: seconds of all threads of this process; loader processes aren't in it.
        times: how often it was entered.
    """

    name: str
    wall: float
    cpu: float
    times: int


class Stopwatch:
    """Adds up named parts, which may nest: the time of an inner part isn't counted for the outer one too.

    Args:
        on: otherwise nothing is measured, and a part costs a function call.
        wait: called where a part begins and ends, to let a device finish its work.
    """

    def __init__(self, *, on: bool = True, wait: Callable[[], None] | None = None) -> None:
        self.on = on
        self.gflop, self.dtype = 0.0, "float32"  # of the learning steps so far, and the dtype of the last ones
        self._wait = wait
        self._sums: dict[str, list[float]] = {}
        self._open: list[str] = []
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def part(self, name: str) -> contextlib.AbstractContextManager[None]:
        """A context for the work called `name`."""
        return self._part(name) if self.on else _NOTHING

    def each(self, items: Iterable[T], name: str) -> Iterator[T]:
        """Yield `items`, and count the wait for each for `name`."""
        iterator = iter(items)
        while True:
            with self.part(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def count_startup(self) -> None:
        """Count the time since the process began as start-up; imports are most of it."""
        if self.on:
            self._lap()
            self._sums.clear()
            self._sums[START_UP] = [process_age(), time.process_time(), 1]

    def parts(self) -> tuple[Part, ...]:
        """All parts so far, in the order of their first end; the time outside all of them comes last."""
        self._lap()
        rows = [Part(name, wall, cpu, int(times)) for name, (wall, cpu, times) in self._sums.items()]
        return tuple(sorted(rows, key=lambda row: row.name == REST))

    @contextlib.contextmanager
    def _part(self, name: str) -> Iterator[None]:
        self._lap()
        self._open.append(name)
        try:
            yield
        finally:
            self._lap()
            self._open.pop()
            self._sums.setdefault(name, [0.0, 0.0, 0])[2] += 1

    def _lap(self) -> None:
        """Count the time since the last call for the innermost open part."""
        if self._wait is not None:
            self._wait()
        wall, cpu = time.perf_counter(), time.process_time()
        sums = self._sums.setdefault(self._open[-1] if self._open else REST, [0.0, 0.0, 0])
        sums[0] += wall - self._wall
        sums[1] += cpu - self._cpu
        self._wall, self._cpu = wall, cpu


_NOTHING: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


def process_age() -> float:
    """Wall seconds since this process began; where the system doesn't report that, its CPU seconds."""
    if sys.platform != "linux":
        return time.process_time()
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:  # noqa: PTH123  -- one read, no Path
            ticks = int(file.read().rpartition(")")[2].split()[19])  # field 22 of the line, the 20th after the name
    except (OSError, ValueError, IndexError):
        return time.process_time()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Peak:
    """The most that this machine does with the threads in use, in GFLOP a second.

    Attributes:
        float32: the faster of a matrix product and a convolution.
        bfloat16: the same; None where the device can't.
        threads: of torch, on a CPU.
        of_cpu: whether the seconds are a CPU's, summed over its threads: what other programs use of a shared machine
            isn't in them. Otherwise they are wall time.
    """

    float32: float
    bfloat16: float | None
    threads: int
    of_cpu: bool

    def of(self, dtype: torch.dtype) -> float | None:
        """The peak for steps that compute in `dtype`."""
        return self.bfloat16 if str(dtype) == "torch.bfloat16" else self.float32


def measure_peak(device: torch.device) -> Peak:
    """Run a large matrix product and a large convolution, each in float32 and bfloat16, for less than two seconds."""
    import torch

    of_cpu = device.type == "cpu"
    clock = time.process_time if of_cpu else time.perf_counter
    best: dict[torch.dtype, float | None] = {}
    for dtype in (torch.float32, torch.bfloat16):
        try:
            best[dtype] = max(_rate(run, flops, device, clock) for run, flops in _probes(device, dtype))
        except RuntimeError:  # no such kernels on this device
            best[dtype] = None
    return Peak(best[torch.float32] or 0.0, best[torch.bfloat16], torch.get_num_threads(), of_cpu)


def _probes(device: torch.device, dtype: torch.dtype) -> list[tuple[Callable[[], Tensor], int]]:
    """Work and its floating-point operations, twice the multiplications."""
    import torch

    factor = 4 if device.type == "cuda" else 1
    side, images = _GEMM * factor, _IMAGES * factor * factor
    a, b = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
    x = torch.ones(images, _CHANNELS, _SIDE, _SIDE, dtype=dtype, device=device)
    w = torch.ones(_CHANNELS, _CHANNELS, 3, 3, dtype=dtype, device=device)
    x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))
    return [
        (lambda: a @ b, 2 * side**3),
        (lambda: torch.conv2d(x, w, padding=1), 2 * images * _SIDE**2 * _CHANNELS**2 * 9),
    ]


def _rate(run: Callable[[], Tensor], flops: int, device: torch.device, clock: Callable[[], float]) -> float:
    """GFLOP/s of the fastest of several runs."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with torch.inference_mode():
        run()
        wait()
        best, end = float("inf"), time.perf_counter() + _PEAK_SECONDS
        while time.perf_counter() < end:
            began = clock()
            run()
            wait()
            best = min(best, clock() - began)
    return flops / best / 1e9


def step_flops(run: Callable[[], Tensor], learning: Sequence[nn.Parameter]) -> int:
    """Floating-point operations of a forward pass and its backward pass.

    Args:
        run: one forward pass up to the loss, in float32 with torch's own kernels; its inputs mustn't require gradients.
        learning: parameters that require gradients.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # torch counts the weight gradient of a grouped convolution as that of a dense one
    known = {torch.ops.aten.convolution_backward: _convolution_backward_flops}
    # the counter doesn't count the CPU's fused attention; the plain one consists of products that it counts
    with FlopCounterMode(display=False, custom_mapping=known) as counter, sdpa_kernel(SDPBackend.MATH):
        torch.autograd.grad(run(), list(learning), allow_unused=True)
    return int(counter.get_total_flops())


def _convolution_backward_flops(
    gradient: Sequence[int], x: Sequence[int], weight: Sequence[int], *others: Any, **_shapes: Any
) -> int:
    """From shapes: each required gradient takes as many operations as the forward pass."""
    transposed, wanted = others[4], others[7]
    places = math.prod((x if transposed else gradient)[2:])
    return int(2 * gradient[0] * places * math.prod(weight) * sum(wanted[:2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where a run's time went.

    Attributes:
        parts: in the order of the run; their wall times sum to the whole.
        dtype: that the learning part computed in, such as ``bfloat16``.
        learning_gflop: of all its steps; 0 where nothing was counted.
        peak: what the machine does at best.
    """

    parts: tuple[Part, ...]
    dtype: str
    learning_gflop: float
    peak: Peak | None

    @property
    def wall(self) -> float:
        """Seconds of the whole."""
        return sum(part.wall for part in self.parts)

    @property
    def rate(self) -> float | None:
        """GFLOP a second of the learning steps, in seconds of the peak's kind; None where none were counted."""
        of_cpu = self.peak is not None and self.peak.of_cpu
        seconds = sum(part.cpu if of_cpu else part.wall for part in self.parts if part.name in LEARNING)
        return self.learning_gflop / seconds if seconds and self.learning_gflop else None

    @property
    def share_of_peak(self) -> float | None:
        """The rate as a share of the machine's peak in the same dtype."""
        best = None if self.peak is None else self.peak.bfloat16 if self.dtype == "bfloat16" else self.peak.float32
        return self.rate / best if self.rate and best else None


COLUMNS = ("part", "seconds", "share", "CPU seconds", "times")


def rows(profile: Profile) -> list[tuple[str, ...]]:
    """A table's rows: every part, then the whole."""
    whole = profile.wall or 1.0
    listed = [
        (part.name, f"{part.wall:.2f}", f"{part.wall / whole:.1%}", f"{part.cpu:.2f}", str(part.times or ""))
        for part in profile.parts
    ]
    cpu = sum(part.cpu for part in profile.parts)
    return [*listed, ("whole", f"{profile.wall:.2f}", "100.0%", f"{cpu:.2f}", "")]


def sentence(profile: Profile) -> str:
    """The learning part's share of the peak in words; empty where unknown, or where learning was too short."""
    learning = sum(part.wall for part in profile.parts if part.name in LEARNING)
    if profile.rate is None or profile.share_of_peak is None or profile.peak is None or learning < _WORTH_TELLING:
        return ""
    second = "CPU second" if profile.peak.of_cpu else "second"
    return (
        f"the learning steps did {profile.rate:,.0f} GFLOP a {second}, {profile.share_of_peak:.0%} of the "
        f"{profile.rate / profile.share_of_peak:,.0f} that the best {profile.dtype} product or convolution reaches here"
    )


def as_record(profile: Profile) -> Mapping[str, object]:
    """For ``run.json``."""
    return {
        "parts": [
            {"name": p.name, "wall_seconds": round(p.wall, 3), "cpu_seconds": round(p.cpu, 3), "times": p.times}
            for p in profile.parts
        ],
        "dtype": profile.dtype,
        "learning_gflop": round(profile.learning_gflop, 3),
        "learning_gflop_per_second": None if profile.rate is None else round(profile.rate, 1),
        "share_of_peak": None if profile.share_of_peak is None else round(profile.share_of_peak, 4),
        "peak_gflop_per_second": None
        if profile.peak is None
        else {
            "float32": round(profile.peak.float32, 1),
            "bfloat16": None if profile.peak.bfloat16 is None else round(profile.peak.bfloat16, 1),
            "threads": profile.peak.threads,
            "of_cpu_seconds": profile.peak.of_cpu,
        },
    }
