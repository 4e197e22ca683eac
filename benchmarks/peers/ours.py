"""zooft as one of the tools: its command line, and its epochs as the others log theirs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from peers.job import Job
from peers.measure import Cost
from peers.results import Epoch
from peers.start import FREEZERS

SETTINGS: dict[str, tuple[str, ...]] = {
    "warm": (),
    "plain": ("--no-cache",),
    "exact": ("--precision", "fp32"),
    "bf16": ("--features", "bf16", "--precision", "bf16"),
    "views": ("--augment", "light", "--views", "auto"),
    "sweep": ("--sweep",),
    "compile": ("--compile", "on"),
}
"""Settings after ``zooft+``, to flags; ``warm`` is a second run over the same cache."""

_EPOCH = re.compile(r"\bepoch (\d+)/\d+:")


def command(job: Job, kind: str, settings: Sequence[str], out: Path, extra: Sequence[str]) -> list[str]:
    """``zooft finetune …`` for a job; where everything learns, with random views, as the other tools have them."""
    augment = ("--augment", "light") if kind == "full" and "views" not in settings else ()
    chosen = [flag for name in settings for flag in SETTINGS[name]]
    return [
        sys.executable,
        "-m",
        "zooft",
        "finetune",
        "--backbone",
        f"timm:{job.model}",
        "--task",
        "classification",
        "--data",
        job.data,
        "--freeze",
        FREEZERS[kind],
        "--weights",
        job.weights,
        "--epochs",
        str(job.epochs),
        "--batch-size",
        str(job.batch),
        "--seed",
        str(job.seed),
        "--no-export",
        "--out",
        str(out),
        *augment,
        *chosen,
        *extra,
    ]


def lacking(flags: Sequence[str], help_text: str) -> list[str]:
    """The flags that this zooft doesn't have."""
    known = set(re.findall(r"--[a-z][a-z-]*", help_text))
    return [flag for flag in flags if flag.startswith("--") and flag not in known]


def epochs(out: Path, cost: Cost) -> tuple[Epoch, ...]:
    """Validation figures from the run folder; times from the lines printed meanwhile."""
    path = out / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    times = {int(found[1]): seconds for seconds, line in cost.lines if (found := _EPOCH.search(line))}
    return tuple(
        _epoch(record["metrics"], times.get(record["epoch"]), cost) for record in records if record.get("metrics")
    )


def _epoch(values: dict[str, float], seconds: float | None, cost: Cost) -> Epoch:
    return Epoch(
        seconds=seconds,
        cpu=None if seconds is None else cost.cpu_at(seconds),
        accuracy=values["accuracy"],
        balanced_accuracy=values["balanced_accuracy"],
    )
