"""What listens to runs, tried on three.

One that finishes, one that resumes and fails, and one that is interrupted at once.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zooft.contracts import EpochRecord, Figure, RunEnded, RunEvaluated, RunStarted, Verification
from zooft.errors import ConformanceError
from zooft.hooks.guard import redirect_prints
from zooft.testing.breaches import report_breaches
from zooft.testing.registration import register

if TYPE_CHECKING:
    from pathlib import Path

    from zooft.hooks.registry import Registry

Event = tuple[str, dict[str, Any]]
_VERIFIED: Mapping[str, Any] = {
    "passed": True, "provider": "CPUExecutionProvider", "requested_provider": "cpu", "placement": {}, "onnx_sha256": "",
    "batch_sizes": (1,), "metrics": {}, "failures": (), "notes": (), "data": "real",
    "deviation": None,
}  # fmt: skip # a table of values
_MODEL = b"an ONNX file"


@report_breaches()
def check_listener(plugin: object, *, folder: Path) -> None:
    """No event makes a listener fail or exit, and listeners change neither the events nor the ONNX file.

    Three runs send events: one that finishes; one that resumes, with folds, without validation samples and with
    undefined metrics, and fails; one that is interrupted before its first epoch and leaves no folder.

    Args:
        plugin: the module.
        folder: of the run that finishes, after one epoch; those of the others lie in it.
    """
    found = register(plugin)
    runs = {"finished": _finish, "resumed": _resume, "interrupted": _interrupt}
    for name, events in runs.items():
        run = folder if name == "finished" else folder / name
        run.mkdir(parents=True, exist_ok=True)
        for event, facts in events(run):
            _notify(found, event, {"run": run, **facts}, doing=f"a run that {_WORDS[name]}")


_WORDS = {
    "finished": "finishes",
    "resumed": "resumes, without validation samples, and fails",
    "interrupted": "is interrupted at once",
}


def _notify(found: Registry, event: str, facts: dict[str, Any], *, doing: str) -> None:
    for listener in found.plugins.implementations(event):
        before = copy.deepcopy(facts)
        try:
            with redirect_prints():
                listener.function(*(facts[name] for name in listener.argnames))
        except KeyboardInterrupt:  # the author's
            raise
        except BaseException as error:  # plugin code, which may exit, or be cancelled, too
            raise ConformanceError(
                f"{event} failed in {doing}: {type(error).__name__}: {error}; a listener mustn't end a run"
            ) from error
        changed = [name for name in facts if repr(facts[name]) != repr(before[name])]  # NaN isn't equal to itself
        if changed:
            raise ConformanceError(
                f"{event} changes {', '.join(changed)}, which the run and other listeners use; take a copy"
            )
        model = facts.get("model")
        if model is not None and (not model.is_file() or model.read_bytes() != _MODEL):
            raise ConformanceError(
                f"{event} changes or removes the ONNX file, which is yet to be verified; take a copy"
            )


def _finish(run: Path) -> Iterator[Event]:
    yield "zooft_on_start", {"samples": 10, "started": _start(run)}
    yield "zooft_on_epoch_end", {"record": _epoch(1), "fold": None, "repeated": False}
    figures = {"val": {"accuracy": Figure(value=0.5, low=0.25, high=0.75), "auroc": Figure(value=math.nan)}}
    yield "zooft_on_evaluated", {"evaluated": RunEvaluated(best_epoch=1, figures=figures, group_figures={})}
    model = run / "model.onnx.candidate"
    model.write_bytes(_MODEL)
    yield "zooft_on_exported", {"model": model}
    verification = Verification(**{**dict.fromkeys(Verification.__dataclass_fields__, 0), **_VERIFIED})
    yield "zooft_on_verified", {"verification": verification}
    yield "zooft_on_end", {"ended": RunEnded(status="finished", error="", folder=run)}


def _resume(run: Path) -> Iterator[Event]:
    yield "zooft_on_start", {"samples": 10, "started": dataclasses.replace(_start(run), resumed=True, epochs_done=2)}
    record = dataclasses.replace(_epoch(1), val_loss=math.nan, metrics={})
    yield "zooft_on_epoch_end", {"record": record, "fold": 1, "repeated": True}
    yield "zooft_on_epoch_end", {"record": record, "fold": None, "repeated": False}
    yield "zooft_on_end", {"ended": RunEnded(status="failed", error="the disk is full", folder=run)}


def _interrupt(run: Path) -> Iterator[Event]:
    yield "zooft_on_start", {"samples": 10, "started": _start(run)}
    yield "zooft_on_end", {"ended": RunEnded(status="interrupted", error="", folder=None)}


def _start(run: Path) -> RunStarted:
    counts = {"train": {"a": 8}, "val": {"a": 2}}
    return RunStarted(name=run.name, config={"epochs": 2, "head": None}, counts=counts, resumed=False, epochs_done=0)


def _epoch(number: int) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        train_loss=1.0,
        val_loss=1.0,
        metrics={"accuracy": 0.5},
        learning_rate=0.1,
        seconds=1.0,
        learning=("head",),
        best=True,
    )
