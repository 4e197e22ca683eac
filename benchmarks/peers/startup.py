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

_FED = "the first batch is in the network"
_STEPPED = "the first optimizer step begins"
_KINDS = ("help", "floor", _FED, _STEPPED)
_FLOOR = "import sys, torch, timm; timm.create_model(sys.argv[1])"
_FIRST_STEP = f"""
import os
import sys
import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook
def report(what):
    print(what, sum(os.times()[:4]), flush=True)
def fed(module, _args):
    if module.training and torch.is_grad_enabled():
        report({_FED!r})
        hook.remove()
hook = register_module_forward_pre_hook(fed)
register_optimizer_step_pre_hook(lambda *_: report({_STEPPED!r}))
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
        fed_wall: ``zooft finetune`` until its first training step begins: with discovery, audit and reading.
        fed_cpu: the same in CPU time.
        step_wall: until that step's forward and backward pass are done too.
        step_cpu: the same in CPU time.
    """

    model: str
    help_wall: Spread
    help_cpu: Spread
    floor_wall: Spread
    floor_cpu: Spread
    fed_wall: Spread
    fed_cpu: Spread
    step_wall: Spread
    step_cpu: Spread


def measure_startup(job: Job, *, rounds: int, environment: Mapping[str, str], folder: Path) -> Startup:
    """Run the three in turn.

    Args:
        job: of a few images and one epoch, in which everything learns.
        rounds: of all three.
        environment: the whole of it.
        folder: an empty one; runs are begun in it.

    Raises:
        RuntimeError: one of them failed, or no step was seen.
    """
    walls: dict[str, list[float]] = {what: [] for what in _KINDS}
    cpus: dict[str, list[float]] = {what: [] for what in _KINDS}
    for number in range(rounds):
        commands = {
            "help": [sys.executable, "-m", "zooft", "--help"],
            "floor": [sys.executable, "-c", _FLOOR, job.model],
            _STEPPED: [
                sys.executable,
                "-c",
                _FIRST_STEP,
                "finetune",
                "--backbone",
                f"timm:{job.model}",
                "--task",
                "classification",
                "--data",
                job.data,
                "--freeze",
                "none",
                "--weights",
                job.weights,
                "--epochs",
                "1",
                "--batch-size",
                str(job.batch),
                "--no-export",
                "--out",
                str(folder / str(number)),
            ],
        }
        for what, command in commands.items():
            variables = dict(environment) | {"ZOOFT_CACHE": str(folder / f"cache-{number}")}
            cost = measure.run(
                command, environment=variables, folder=folder, limit=600, stop_at=lambda line: _STEPPED in line
            )
            seen = _times(cost) if what == _STEPPED else {what: (cost.wall, cost.cpu)}
            if (what == _STEPPED and len(seen) < 2) or (what != _STEPPED and cost.status):
                last = cost.lines[-1][1] if cost.lines else "it wrote nothing"
                raise RuntimeError(f"{what} couldn't be measured; exit status {cost.status}: {last}")
            for kind, (wall, cpu) in seen.items():
                walls[kind].append(wall)
                cpus[kind].append(cpu)
    found = [spread(kind[what]) for what in _KINDS for kind in (walls, cpus)]
    return Startup(job.model, *(value for value in found if value is not None))


def _times(cost: measure.Cost) -> dict[str, tuple[float, float]]:
    """When each sign was written, wall and CPU seconds."""
    return {
        sign: (seconds, float(line.rpartition(" ")[2]))
        for seconds, line in cost.lines
        for sign in (_FED, _STEPPED)
        if line.startswith(sign)
    }


def parse(values: dict[str, Any]) -> Startup:
    """What was written as JSON."""
    made: dict[str, Any] = {name: Spread(**v) if isinstance(v, dict) else v for name, v in values.items()}
    return Startup(**made)


def table(found: Startup) -> str:
    """In Markdown."""
    rows = [
        ("`zooft --help`", found.help_wall, found.help_cpu),
        (f"`import torch, timm` and building {found.model}", found.floor_wall, found.floor_cpu),
        ("`zooft finetune` until its first training step begins", found.fed_wall, found.fed_cpu),
        ("… until that step's gradients are there", found.step_wall, found.step_cpu),
    ]
    lines = ["| | wall s | CPU s |", "|---|---|---|"]
    lines += [f"| {what} | {_cell(wall)} | {_cell(cpu)} |" for what, wall, cpu in rows]
    ratio = found.fed_wall.middle / found.floor_wall.middle, found.fed_cpu.middle / found.floor_cpu.middle
    return "\n".join(lines) + (
        f"\n\nThe first step begins after {ratio[0]:.2f} times the wall time and {ratio[1]:.2f} times the CPU "
        "time of the second line."
    )


def _cell(value: Spread) -> str:
    return f"{value.middle:.2f} ({value.low:.2f} to {value.high:.2f})"
