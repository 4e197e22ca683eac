"""What is written into event files, and where: a folder a run, one below it for each fold."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zooft

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

VARIABLE = "ZOOFT_TENSORBOARD"
NAME_FILE = "tensorboard.txt"
"""In the run's folder: the name of the folder of its curves, for whoever resumes it."""


@dataclass(frozen=True, slots=True)
class Curves:
    """One run's event files.

    Attributes:
        folder: of the run's curves; folds stand below it.
        continued: whether an earlier process has written there what comes again after a resume.
        options: the run's, as TensorBoard takes them.
        writers: by fold, opened when they are first needed.
    """

    folder: Path
    continued: bool
    options: Mapping[str, Any]
    writers: dict[int | None, SummaryWriter] = field(default_factory=dict)

    def writer(self, fold: int | None = None) -> SummaryWriter:
        """Of a fold, or of the training that the run is made for."""
        from torch.utils.tensorboard import SummaryWriter

        if fold not in self.writers:
            self.writers[fold] = SummaryWriter(str(self.folder if fold is None else self.folder / f"fold-{fold}"))
        return self.writers[fold]


class Tracker:
    """Listens to runs and writes their event files."""

    def __init__(self) -> None:
        self._open: dict[Path, Curves] = {}

    @zooft.hookimpl
    def zooft_on_start(self, run: Path, started: zooft.RunStarted) -> None:
        """Open the run's folder where one is set."""
        root = os.environ.get(VARIABLE)
        if not root:
            return
        try:
            import torch.utils.tensorboard  # noqa: F401 -- to fail at once where it is missing
        except ImportError as error:
            raise zooft.ConfigError(
                f"{VARIABLE} is set and TensorBoard can't be loaded ({error}); pip install 'zooft[tensorboard]', or "
                "unset it"
            ) from error
        folder, continued = _folder_of(run, Path(root).expanduser(), started)
        options = {name: _plain(value) for name, value in started.config.items() if value is not None}
        self._open[run] = curves = Curves(folder, continued, options)
        if not continued:
            samples = {split: sum(counts.values()) for split, counts in started.counts.items()}
            curves.writer().add_text("options", _table({**options, **{f"samples, {k}": v for k, v in samples.items()}}))

    @zooft.hookimpl
    def zooft_on_epoch_end(self, run: Path, record: zooft.EpochRecord, fold: int | None, repeated: bool) -> None:
        """A point of every curve."""
        curves = self._open.get(run)
        if curves is None or (repeated and curves.continued):
            return
        points = {
            "loss/train": record.train_loss,
            "loss/val": record.val_loss,
            "learning_rate": record.learning_rate,
            "seconds": record.seconds,
            **{f"metrics/{name}": value for name, value in record.metrics.items()},
        }
        _add(curves.writer(fold), points, step=record.epoch)

    @zooft.hookimpl
    def zooft_on_evaluated(self, run: Path, evaluated: zooft.RunEvaluated) -> None:
        """The figures, beside the options among the hyperparameters."""
        curves = self._open.get(run)
        if curves is None:
            return
        values, ends = dict[str, float](), dict[str, float]()
        for split, figures in evaluated.figures.items():
            for name, figure in figures.items():
                values[f"{split}/{name}"] = figure.value
                if figure.low is not None and figure.high is not None:
                    ends |= {f"{split}/{name}-low": figure.low, f"{split}/{name}-high": figure.high}
        _add(curves.writer(), ends, step=evaluated.best_epoch)
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        curves.writer().add_hparams(
            dict(curves.options), finite, run_name=".", global_step=evaluated.best_epoch
        )  # writes the figures as scalars, too

    @zooft.hookimpl
    def zooft_on_end(self, run: Path, ended: zooft.RunEnded) -> None:
        """How it ended, and nothing after that."""
        curves = self._open.pop(run, None)
        if curves is None:
            return
        curves.writer().add_text("status", f"{ended.status}: {ended.error}" if ended.error else ended.status)
        for writer in curves.writers.values():
            writer.close()


def _folder_of(run: Path, root: Path, started: zooft.RunStarted) -> tuple[Path, bool]:
    """Where a run's curves go, and whether they continue: of two runs of one name each has a folder of its own."""
    note = run / NAME_FILE
    if started.resumed and note.is_file() and (known := root / note.read_text(encoding="utf-8")).is_dir():
        return known, True
    root.mkdir(parents=True, exist_ok=True)
    folder, number = root / started.name, 1
    while True:
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
            folder = root / f"{started.name}-{number}"
        else:
            note.write_text(folder.name, encoding="utf-8")
            return folder, False


def _add(writer: SummaryWriter, points: Mapping[str, float], *, step: int) -> None:
    for name, value in points.items():
        if math.isfinite(value):
            writer.add_scalar(name, value, step)
    writer.flush()


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _table(values: Mapping[str, Any]) -> str:
    """In Markdown, which TensorBoard draws."""
    return "\n".join(("| option | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in values.items())))
