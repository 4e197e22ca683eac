"""Events of one run for plugins that listen, in order: an end for every beginning, and repeated epochs marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft.contracts import Figure, RunEnded, RunEvaluated, RunStarted
from zooft.errors import ZooftError
from zooft.hooks import registry as registries
from zooft.run import folder as runs

if TYPE_CHECKING:
    from typing import Literal

    from zooft.contracts import EpochRecord, Verification
    from zooft.evaluation.bootstrap import Interval
    from zooft.evaluation.evaluate import Evaluation
    from zooft.hooks.registry import Registry


class RunEvents:
    """Announces one run's events, in the process that writes its folder.

    In others, where there is no folder, nothing happens.

    Args:
        registry: whose plugins listen.
        folder: the run's, as it was found before training; None but in the main process.
        private: whether an error's text may name people.
    """

    def __init__(self, registry: Registry, folder: runs.WorkingFolder | None, *, private: bool) -> None:
        self._registry, self._folder, self._private = registry, folder, private
        self._faults = set[tuple[str, str]]()
        self._begun = False
        # the curve is cut back to what was saved when training resumes: what was announced is known only now
        self._announced = {} if folder is None else _announced_epochs(folder.path)

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Announce how the work inside has ended, whatever ends it."""
        try:
            yield
        except BaseException as error:
            status: Literal["failed", "interrupted"] = (
                "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            )
            self._end(status, _one_line(error, private=self._private))
            raise
        self._end("finished", "")

    def on_start(
        self, *, samples: int, config: Mapping[str, Any], counts: Mapping[str, Mapping[str, int]], resumed: bool
    ) -> None:
        """The run is about to train."""
        if self._folder is None:
            return
        self._begun = True
        started = RunStarted(
            name=self._folder.final.name,
            config=config,
            counts=counts,
            resumed=resumed,
            epochs_done=self._announced.get(None, 0),
        )
        self._announce("zooft_on_start", samples=samples, started=started)

    def epoch_ended(self, record: EpochRecord, *, fold: int | None) -> None:
        """An epoch of a fold (from 1), or of the training that the run is made for."""
        repeated = record.epoch <= self._announced.get(fold, 0)
        self._announce("zooft_on_epoch_end", record=record, fold=fold, repeated=repeated)

    def on_evaluated(self, evaluations: Mapping[str, Evaluation], *, best_epoch: int) -> None:
        """The saved weights have been evaluated."""
        grouped = {split: one.group_metrics for split, one in evaluations.items() if one.group_metrics}
        evaluated = RunEvaluated(
            best_epoch=best_epoch,
            figures={split: _figures(one.metrics) for split, one in evaluations.items()},
            group_figures={split: _figures(metrics) for split, metrics in grouped.items()},
        )
        self._announce("zooft_on_evaluated", evaluated=evaluated)

    def on_exported(self, model: Path) -> None:
        """An ONNX file has been written."""
        self._announce("zooft_on_exported", model=model)

    def on_verified(self, verification: Verification) -> None:
        """The file has been compared with the model."""
        self._announce("zooft_on_verified", verification=verification)

    def _end(self, status: Literal["finished", "failed", "interrupted"], error: str) -> None:
        if self._folder is None or not self._begun:
            return
        working, final = self._folder.path, self._folder.final
        # the final name may be that of an empty folder, which was there before
        left = working if working.exists() else final if runs.is_finished(final) else None
        self._announce("zooft_on_end", ended=RunEnded(status=status, error=error, folder=left))

    def _announce(self, event: str, **facts: Any) -> None:
        if self._folder is not None:
            registries.announce(self._registry, event, named=self._faults, run=self._folder.path, **facts)


def _announced_epochs(run: Path) -> dict[int | None, int]:
    """How many epochs an earlier process finished, by fold, None standing for the training that the run is made for."""
    curves: dict[int | None, Path] = {None: run / runs.EPOCHS_FILE}
    for path in run.glob(f"{runs.FOLDS_FOLDER}/*/{runs.EPOCHS_FILE}"):
        if path.parent.name.isdigit():
            curves[int(path.parent.name)] = path
    found = {fold: path for fold, path in curves.items() if path.is_file()}
    return {fold: len(path.read_text(encoding="utf-8").splitlines()) for fold, path in found.items()}


def _figures(metrics: Mapping[str, Interval]) -> dict[str, Figure]:
    return {name: Figure(value=float(one.value), low=one.low, high=one.high) for name, one in metrics.items()}


def _one_line(error: BaseException, *, private: bool) -> str:
    kind = type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    first = str(error).strip().partition("\n")[0]
    if private or not first:
        return kind
    return first if isinstance(error, ZooftError) else f"{kind}: {first}"
