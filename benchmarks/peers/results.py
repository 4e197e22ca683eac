"""One finished run as a line of JSON, and the summary of many.

Ratios are taken within a round, in which the tools took turns, and only then summarised: what slowed the machine down
in one round slowed all of them.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Epoch:
    """Validation after an epoch: its time and its figures.

    Attributes:
        seconds: since the process started; None where the tool doesn't report it.
        cpu: CPU seconds used by then.
        accuracy: share of correct predictions.
        balanced_accuracy: its mean over the classes.
    """

    seconds: float | None
    cpu: float | None
    accuracy: float
    balanced_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One process.

    Attributes:
        tool: as on the command line: name, and settings after ``+``.
        model: timm's name.
        job: ``head``, ``last`` or ``full``.
        data: the data, in words.
        epochs_wanted: passes over the data.
        batch: images a step.
        size: of the images, pixels.
        threads: OMP_NUM_THREADS.
        seed: of the round.
        date: day of the run, ISO.
        machine: processor and cores.
        versions: of the tool and of the packages that all share.
        problem: why it failed or didn't run; empty if it did.
        wall: seconds.
        cpu: user and system seconds with all descendants.
        peak_process: resident bytes of the largest process.
        peak_tree: bytes of the whole tree, mapped files included; 0 if unknown.
        peak_held: the same without mapped files.
        epochs: in order.
    """

    tool: str
    model: str
    job: str
    data: str
    epochs_wanted: int
    batch: int
    size: int
    threads: int
    seed: int
    date: str
    machine: str
    versions: dict[str, str]
    problem: str = ""
    wall: float = 0.0
    cpu: float = 0.0
    peak_process: int = 0
    peak_tree: int = 0
    peak_held: int = 0
    epochs: tuple[Epoch, ...] = ()

    @property
    def best(self) -> Epoch | None:
        """The epoch with the best balanced accuracy, the first of equals."""
        return max(self.epochs, key=lambda epoch: epoch.balanced_accuracy, default=None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs that are compared: everything but tool, seed and date is the same."""

    data: str
    model: str
    job: str
    epochs: int
    batch: int
    size: int
    threads: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of a few values."""

    middle: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Row:
    """One tool in one comparison.

    Attributes:
        tool: with its settings.
        cpu: seconds.
        wall: seconds.
        peak: bytes of the process tree without mapped files, or of the largest process where that is unknown.
        accuracy: balanced, of the best epoch.
        ratios: zooft's rows to how many times their CPU seconds this tool needed.
        problem: why there are no figures.
    """

    tool: str
    cpu: Spread | None
    wall: Spread | None
    peak: Spread | None
    accuracy: Spread | None
    ratios: dict[str, Spread]
    problem: str


def is_ours(tool: str) -> bool:
    """Whether it is zooft, with whatever settings."""
    return tool.split("+")[0] == "zooft"


def append(path: Path, run: Run) -> None:
    """Add a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(run)) + "\n")


def read(paths: Iterable[Path]) -> list[Run]:
    """All runs of some files.

    Raises:
        ValueError: a line isn't a run; names it.
    """
    runs = []
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                runs.append(_parse(json.loads(line)))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number} isn't a run: {error}; remove the line or the file") from error
    return runs


def group(runs: Iterable[Run]) -> dict[Comparison, list[Run]]:
    """Runs by comparison, in the order of the first runs. Of equal tool and seed the last run counts."""
    groups: dict[Comparison, dict[tuple[str, int], Run]] = {}
    for run in runs:
        key = Comparison(run.data, run.model, run.job, run.epochs_wanted, run.batch, run.size, run.threads)
        groups.setdefault(key, {})[run.tool, run.seed] = run
    return {key: list(members.values()) for key, members in groups.items()}


def rows(runs: Sequence[Run]) -> list[Row]:
    """One row for each tool, zooft first, then by CPU time, those without figures last."""
    by_tool: dict[str, list[Run]] = {}
    for run in runs:
        by_tool.setdefault(run.tool, []).append(run)
    made = [_row(tool, members, by_tool) for tool, members in by_tool.items()]
    return sorted(made, key=lambda row: (row.cpu is None, not is_ours(row.tool), row.cpu.middle if row.cpu else 0))


def ratios(of: Sequence[Run], to: Sequence[Run]) -> Spread | None:
    """How many times the CPU seconds of `to` the runs `of` needed, seed by seed."""
    ours = {run.seed: run.cpu for run in to if not run.problem and run.cpu > 0}
    return spread([run.cpu / ours[run.seed] for run in of if not run.problem and run.seed in ours])


def fastest(table: Sequence[Row]) -> Row | None:
    """The tool other than ours with the least CPU time."""
    peers = [row for row in table if row.cpu is not None and not is_ours(row.tool)]
    return min(peers, key=lambda row: row.cpu.middle if row.cpu else 0.0, default=None)


def spread(values: Sequence[float]) -> Spread | None:
    """None for no values."""
    return Spread(statistics.median(values), min(values), max(values), len(values)) if values else None


def _row(tool: str, members: Sequence[Run], by_tool: dict[str, list[Run]]) -> Row:
    good = [run for run in members if not run.problem]
    own = [] if is_ours(tool) else [name for name in by_tool if is_ours(name)]
    ours = {name: ratios(good, by_tool[name]) for name in own}
    return Row(
        tool=tool,
        cpu=spread([run.cpu for run in good]),
        wall=spread([run.wall for run in good]),
        peak=spread([float(run.peak_held or run.peak_process) for run in good]),
        accuracy=spread([run.best.balanced_accuracy for run in good if run.best is not None]),
        ratios={name: value for name, value in ours.items() if value is not None},
        problem="" if good else members[-1].problem,
    )


def _parse(values: dict[str, Any]) -> Run:
    epochs = tuple(Epoch(**epoch) for epoch in values.pop("epochs"))
    return Run(**values, epochs=epochs)
