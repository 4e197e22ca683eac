"""What is sent to MLflow, and when: a run is RUNNING there exactly as long as it is here."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import zooft

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

VARIABLE = "ZOOFT_MLFLOW"
ID_FILE = "mlflow.txt"
"""In the run's folder: the run's id there, for whoever resumes it."""
STATUS: Mapping[str, str] = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_AT_ONCE = 100
"""Parameters or points of one request; MLflow's limit for parameters."""
_LONGEST = 500
"""Characters of a parameter; old servers take no more."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """One run, as MLflow has it.

    Attributes:
        client: of the tracking server or store.
        id: the run's there.
        continued: whether an earlier process has sent what comes again after a resume.
        unsent: points that a request has failed to bring; the next one takes them along.
    """

    client: MlflowClient
    id: str
    continued: bool
    unsent: list[Metric] = field(default_factory=list)

    def describe(self, started: zooft.RunStarted) -> None:
        """Options, and how many samples each split has."""
        from mlflow.entities import Param

        samples = {f"samples/{split}": sum(counts.values()) for split, counts in started.counts.items()}
        values = {name: value for name, value in {**started.config, **samples}.items() if value is not None}
        params = [Param(_key(name), str(value)[:_LONGEST]) for name, value in values.items()]
        for start in range(0, len(params), _AT_ONCE):
            self.client.log_batch(self.id, params=params[start : start + _AT_ONCE])

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Points of curves; what isn't a number is left out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.unsent.extend(
            Metric(_key(name), float(value), now, step) for name, value in values.items() if math.isfinite(value)
        )
        while self.unsent:
            part = self.unsent[:_AT_ONCE]
            self.client.log_batch(self.id, metrics=part)
            del self.unsent[: len(part)]


class Tracker:
    """Listens to runs and sends what becomes of them."""

    def __init__(self) -> None:
        self._open: dict[Path, Tracked] = {}

    @zooft.hookimpl
    def zooft_on_start(self, run: Path, started: zooft.RunStarted) -> None:
        """Begin a run where tracking is set up, or take up the one of before."""
        experiment = os.environ.get(VARIABLE)
        if not experiment:
            return
        # whoever tracks runs hasn't agreed to MLflow's telemetry
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise zooft.ConfigError(
                f"{VARIABLE} is set and MLflow can't be loaded ({error}); pip install 'zooft[mlflow]', or unset it"
            ) from error
        client = MlflowClient()
        known = _find_run(client, run) if started.resumed else None
        if known is not None:
            client.update_run(known, status="RUNNING")
            self._open[run] = Tracked(client, known, continued=True)
            return
        self._open[run] = tracked = Tracked(client, _create(client, experiment, run, started.name), continued=False)
        tracked.describe(started)

    @zooft.hookimpl
    def zooft_on_epoch_end(self, run: Path, record: zooft.EpochRecord, fold: int | None, repeated: bool) -> None:
        """A point of every curve; those of folds have names of their own."""
        tracked = self._open.get(run)
        if tracked is None or (repeated and tracked.continued):
            return
        values = {
            "train_loss": record.train_loss,
            "val_loss": record.val_loss,
            "learning_rate": record.learning_rate,
            "seconds": record.seconds,
            **record.metrics,
        }
        before = "" if fold is None else f"fold-{fold}/"
        tracked.log({before + name: value for name, value in values.items()}, step=record.epoch)

    @zooft.hookimpl
    def zooft_on_evaluated(self, run: Path, evaluated: zooft.RunEvaluated) -> None:
        """The figures of the weights that are saved."""
        tracked = self._open.get(run)
        if tracked is None:
            return
        values = dict[str, float]()
        for split, figures in evaluated.figures.items():
            for name, figure in figures.items():
                values[f"{split}/{name}"] = figure.value
                if figure.low is not None and figure.high is not None:
                    values |= {f"{split}/{name}-low": figure.low, f"{split}/{name}-high": figure.high}
        tracked.log(values, step=evaluated.best_epoch)

    @zooft.hookimpl
    def zooft_on_verified(self, run: Path, verification: zooft.Verification) -> None:
        """Whether the file answers as the model does."""
        tracked = self._open.get(run)
        if tracked is not None:
            tracked.client.set_tag(tracked.id, "zooft.verified", "passed" if verification.passed else "failed")

    @zooft.hookimpl
    def zooft_on_end(self, run: Path, ended: zooft.RunEnded) -> None:
        """How it ended, last."""
        tracked = self._open.pop(run, None)
        if tracked is None:
            return
        try:
            tracked.log({}, step=0)
            if ended.error or tracked.continued:  # an earlier end had one, perhaps
                tracked.client.set_tag(tracked.id, "zooft.error", ended.error)
        finally:  # whatever of it fails
            tracked.client.set_terminated(tracked.id, STATUS[ended.status])


def _find_run(client: MlflowClient, run: Path) -> str | None:
    """The run's id, where an earlier process has begun it in the same store."""
    from mlflow.exceptions import MlflowException

    note = run / ID_FILE
    if not note.is_file():
        return None
    try:
        found = client.get_run(note.read_text(encoding="utf-8"))
    except MlflowException:  # another store, or it was removed there
        return None
    return str(found.info.run_id) if found.info.lifecycle_stage == "active" else None


def _create(client: MlflowClient, experiment: str, run: Path, name: str) -> str:
    found = client.get_experiment_by_name(experiment)
    number = found.experiment_id if found is not None else client.create_experiment(experiment)
    created = client.create_run(number, run_name=name, tags={"zooft.version": zooft.__version__})
    (run / ID_FILE).write_text(created.info.run_id, encoding="utf-8")
    return str(created.info.run_id)


def _key(name: str) -> str:
    """A name of a metric or an option that MLflow takes."""
    return re.sub(r"[^\w\-./: ]", "_", name)
