"""How long until something happens: ``zooft --help``, and the first training step beside what no tool can avoid."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import measure
from peers.job import Job
from peers.results import Spread, spread

_SIGN = "the first optimizer step begins"
_FLOOR = "import sys, torch, timm; timm.create_model(sys.argv[1])"
_FIRST_STEP = f"""
import sys
from torch.optim.optimizer import register_optimizer_step_pre_hook
register_optimizer_step_pre_hook(lambda *_: print({_SIGN!r}, flush=True))
from zooft.cli import main
sys.argv = ["zooft", *sys.argv[1:]]
main()
"""


@dataclass(frozen=True, slots=True)
class Startup:
    """Medians and ranges over the rounds, seconds.

    Attributes:
        model: timm's name.
        help_wall: of ``zooft --help``.
        help_cpu: the same in CPU time.
        floor_wall: importing torch and timm and building the model, in a process of its own.
        floor_cpu: the same in CPU time.
        step_wall: ``zooft finetune`` until its first optimizer step: with discovery,
            audit, reading and the first batch's forward and backward pass.
        step_cpu: the same in CPU time.
    """

    model: str
    help_wall: Spread
    help_cpu: Spread
    floor_wall: Spread
    floor_cpu: Spread
    step_wall: Spread
    step_cpu: Spread


def measured(job: Job, *, rounds: int, environment: Mapping[str, str], folder: Path) -> Startup:
    """Run the three in turn.

    Args:
        job: of a few images and one epoch, in which everything learns.
        rounds: of all three.
        environment: the whole of it.
        folder: an empty one; runs are begun in it.

    Raises:
        RuntimeError: one of them failed, or no step was seen.
    """
    walls: dict[str, list[float]] = {"help": [], "floor": [], "step": []}
    cpus: dict[str, list[float]] = {"help": [], "floor": [], "step": []}
    for number in range(rounds):
        commands = {
            "help": [sys.executable, "-m", "zooft", "--help"],
            "floor": [sys.executable, "-c", _FLOOR, job.model],
            "step": [
                sys.executable, "-c", _FIRST_STEP, "finetune", "--backbone", f"timm:{job.model}", "--task", "classification",
                "--data", job.data, "--freeze", "none", "--weights", job.weights, "--epochs", "1", "--batch-size",
                str(job.batch), "--no-export", "--out", str(folder / str(number)),
            ],
        }  # fmt: skip
        for what, command in commands.items():
            variables = dict(environment) | {"ZOOFT_CACHE": str(folder / f"cache-{number}")}
            cost = measure.run(
                command, environment=variables, folder=folder, limit=600, stop_at=lambda line: _SIGN in line
            )
            seen = next((seconds for seconds, line in cost.lines if _SIGN in line), None)
            if (what == "step" and seen is None) or (what != "step" and cost.status):
                last = cost.lines[-1][1] if cost.lines else "it wrote nothing"
                raise RuntimeError(f"{what} couldn't be measured; exit status {cost.status}: {last}")
            walls[what].append(cost.wall if seen is None else seen)
            cpus[what].append(cost.cpu)
    found = [spread(kind[what]) for what in ("help", "floor", "step") for kind in (walls, cpus)]
    return Startup(job.model, *(value for value in found if value is not None))


def parse(values: dict[str, Any]) -> Startup:
    """What was written as JSON."""
    made: dict[str, Any] = {name: Spread(**v) if isinstance(v, dict) else v for name, v in values.items()}
    return Startup(**made)


def table(found: Startup) -> str:
    """In Markdown."""
    rows = [
        ("`zooft --help`", found.help_wall, found.help_cpu),
        (f"`import torch, timm` and building {found.model}", found.floor_wall, found.floor_cpu),
        ("`zooft finetune` until the first step", found.step_wall, found.step_cpu),
    ]
    lines = ["| | wall s | CPU s |", "|---|---|---|"]
    lines += [f"| {what} | {_cell(wall)} | {_cell(cpu)} |" for what, wall, cpu in rows]
    ratio = found.step_wall.middle / found.floor_wall.middle, found.step_cpu.middle / found.floor_cpu.middle
    return (
        "\n".join(lines)
        + f"\n\nThe first step comes after {ratio[0]:.2f} times the wall time and {ratio[1]:.2f} times the CPU time of the second line."
    )


def _cell(value: Spread) -> str:
    return f"{value.middle:.2f} ({value.low:.2f} to {value.high:.2f})"
