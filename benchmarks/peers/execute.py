"""One process of one tool on one job: run, measured, and described when it fails."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from peers import measure, ours
from peers.environments import Environment
from peers.job import Job
from peers.measure import Cost
from peers.results import Epoch, Run

HOME = Path(__file__).resolve().parents[1]
TOOLS: dict[str, tuple[str, ...]] = {
    "zooft": tuple(ours.SETTINGS),
    "tutorial": (),
    "timm": ("bf16", "channels_last", "compile"),
    "hf": ("bf16", "channels_last", "compile"),
    "fastai": ("channels_last",),
    "ultralytics": ("compile",),
}
"""Tool to the settings that it has on a CPU."""

BEST: dict[str, tuple[str, ...]] = {
    "timm": ("channels_last", "bf16", "bf16+channels_last", "bf16+channels_last+compile"),
    "hf": ("channels_last", "bf16", "bf16+channels_last", "bf16+compile"),
    "fastai": ("channels_last",),
    "ultralytics": ("compile",),
}
"""Tool to the combinations among which its best settings are searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One run to be made.

    Attributes:
        tool: name and settings, joined by ``+``.
        kind: ``head``, ``last`` or ``full``.
        data: the data set in words.
        job: everything else; its log, scratch folder and settings are set here.
        threads: OMP_NUM_THREADS.
        limit: wall seconds.
    """

    tool: str
    kind: str
    data: str
    job: Job
    threads: int
    limit: float


@dataclass(slots=True)
class Caches:
    """zooft's caches of this comparison: a fresh one for each run, also used by the warm run that follows.

    Attributes:
        folder: that contains them.
        filled: what was computed, to its folder.
    """

    folder: Path
    filled: dict[tuple[str, str, str, str, int], Path] = field(default_factory=dict)


def parse_tool(text: str) -> tuple[str, tuple[str, ...]]:
    """Name and settings.

    Raises:
        ValueError: no such tool, or it has no such setting.
    """
    name, *settings = text.split("+")
    if name not in TOOLS:
        raise ValueError(f"there is no tool {name!r}; choose among {', '.join(TOOLS)}")
    for setting in settings:
        if setting not in TOOLS[name]:
            able = ", ".join(TOOLS[name]) or "none"
            raise ValueError(f"{name} has no setting {setting!r} on a CPU; it has: {able}")
    return name, tuple(settings)


def run(order: Order, environment: Environment, caches: Caches, *, extra: Sequence[str] = ()) -> Run:
    """Make the run; a failure is a result too.

    Args:
        order: the run.
        environment: the tool's.
        caches: zooft's.
        extra: more flags for zooft.
    """
    name, settings = parse_tool(order.tool)
    if environment.python is None:
        return _result(order, environment, problem=environment.reason)
    with tempfile.TemporaryDirectory(prefix="zooft-peers-") as scratch:
        job = _place(order.job, settings, Path(scratch))
        if name == "zooft":
            return _run_ours(order, job, settings, environment, caches, extra)
        path = Path(scratch) / "job.json"
        job.write(path)
        command = [str(environment.python), "-m", f"peers.tool_{name}", str(path)]
        cost = measure.run(command, environment=variables(order.threads), folder=HOME, limit=order.limit)
        epochs = peer_epochs(Path(job.log), cost)
    return _result(order, environment, cost=cost, epochs=epochs, problem=_problem(order, cost, epochs))


def peer_epochs(log: Path, cost: Cost) -> tuple[Epoch, ...]:
    """The epochs that a peer logged, by the clock of its process."""
    if not log.is_file():
        return ()
    found = []
    for line in log.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        seconds = values["time"] - cost.started
        found.append(Epoch(seconds, cost.cpu_at(seconds), values["accuracy"], values["balanced_accuracy"]))
    return tuple(found)


def machine() -> str:
    """Processor and cores."""
    name = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = next(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores"


def _run_ours(
    order: Order, job: Job, settings: tuple[str, ...], environment: Environment, caches: Caches, extra: Sequence[str]
) -> Run:
    cold = tuple(name for name in settings if name != "warm")
    key = ("+".join(cold), order.kind, order.data, job.model, job.seed)
    warm = "warm" in settings
    cache = caches.filled.get(key) if warm else None
    if cache is None:
        cache = Path(tempfile.mkdtemp(prefix="cache-", dir=caches.folder))
    out = Path(job.scratch) / "run"
    command = ours.command(job, order.kind, cold, out, extra)
    around = variables(order.threads) | {"ZOOFT_CACHE": str(cache)}
    if warm and key not in caches.filled:  # nobody has filled it yet
        measure.run(command, environment=around, folder=Path(job.scratch), limit=order.limit)
        shutil.rmtree(out, ignore_errors=True)
    cost = measure.run(command, environment=around, folder=Path(job.scratch), limit=order.limit)
    epochs = ours.epochs(out, cost) if cost.status == 0 else ()
    old = caches.filled.get(key)
    caches.filled[key] = cache
    if old is not None and old != cache:
        shutil.rmtree(old, ignore_errors=True)
    return _result(order, environment, cost=cost, epochs=epochs, problem=_problem(order, cost, epochs))


def _place(job: Job, settings: tuple[str, ...], scratch: Path) -> Job:
    work = scratch / "work"
    work.mkdir()
    return dataclasses.replace(job, settings=settings, log=str(scratch / "epochs.jsonl"), scratch=str(work))


def _problem(order: Order, cost: Cost, epochs: Sequence[Epoch]) -> str:
    if cost.status != 0:
        lines = [line.strip() for _, line in cost.lines if line.strip()] or ["it wrote nothing"]
        last = next((line for line in reversed(lines) if "Error" in line), lines[-1])
        if cost.wall > order.limit:
            return f"stopped after {order.limit:.0f} s"
        return f"exit status {cost.status}: {_without_paths(last)[:200]}"
    if len(epochs) != order.job.epochs and not order.tool.startswith("zooft"):
        return f"{len(epochs)} epochs were logged, not {order.job.epochs}"
    return ""


def _without_paths(text: str) -> str:
    """Results are shown to others: of a path only the name stays."""
    return " ".join(Path(word).name if word.count("/") > 1 else word for word in text.split())


def _result(
    order: Order, environment: Environment, *, cost: Cost | None = None, epochs: tuple[Epoch, ...] = (), problem: str
) -> Run:
    job = order.job
    run = Run(
        tool=order.tool,
        model=job.model,
        job=order.kind,
        data=order.data,
        epochs_wanted=job.epochs,
        batch=job.batch,
        size=job.size,
        threads=order.threads,
        seed=job.seed,
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        versions=environment.versions,
        problem=problem,
        epochs=epochs,
    )
    if cost is None:
        return run
    return dataclasses.replace(
        run,
        wall=cost.wall,
        cpu=cost.cpu,
        peak_process=cost.peak_process,
        peak_tree=cost.peak_tree,
        peak_held=cost.peak_held,
    )


def variables(threads: int) -> dict[str, str]:
    """The environment of every tool: offline, on the CPU, quiet, its settings in nobody's home."""
    return dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HOME), os.environ.get("PYTHONPATH")])),
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MPLBACKEND": "Agg",
        "NO_COLOR": "1",
        "YOLO_CONFIG_DIR": str(Path(tempfile.gettempdir()) / "zooft-peers-yolo"),
        "YOLO_OFFLINE": "true",
        "YOLO_VERBOSE": "false",
    }
