"""Going on with a run that was killed: what it was told, and whether it still stands on the same ground.

Owns ``--resume``: a run's own options, which others may be given with it, and the refusal to mix what was learnt from
other data or other weights. What an epoch leaves to go on from is `state`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft import config as configuration
from zooft import run as runs
from zooft import samples as sample_tables
from zooft.errors import ConfigError, DataError, WeightsError

if TYPE_CHECKING:
    from zooft.contracts import Discovery
    from zooft.model import Backbone
    from zooft.plan import Plan
    from zooft.state import Kept

ALLOWED = ("data", "device", "provider", "workers")
"""Options that say where things are or run, besides those of the task that do; all others are the run's own."""
_LOCAL, _ASKED = "local_options", "asked_again"
"""In the file for resuming: the task's options that say where things lie, and those of them that aren't written down."""


def settings(plan: Plan) -> dict[str, Any]:
    """What a run was told, as its ``settings.toml`` has it: nothing of where things lie on this machine."""
    weights = plan.config.weights
    return {**configuration.plain(plan.config), "weights": Path(weights).name, **configuration.plain(plan.options)}


def local_settings(plan: Plan) -> dict[str, Any]:
    """Where things lie, for as long as the run isn't finished; of private data, whose path may name people, nothing."""
    weights = Path(plan.config.weights)
    own = {name: value for name, value in configuration.local(plan.options).items() if value is not None}
    held = {"weights": str(weights.resolve()) if weights.is_file() else plan.config.weights}
    told = {name: str(value) for name, value in own.items() if not plan.task.private or _names_nobody(str(value))}
    if not plan.task.private:
        held["data"] = str(plan.config.data.resolve())
    asked = [name for name in own if name not in told]
    return {**held, **told, _LOCAL: list(own), _ASKED: asked}


def _names_nobody(value: str) -> bool:
    """A word, such as auto or off, and no path."""
    return value.isalnum()


def resumed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the run named by `resume`, with the few that may be given anew.

    Raises:
        RunError: no such run, or one that can't be gone on with.
        ConfigError: other options were given, or it isn't known where the data is.
    """
    run = Path(values["resume"])
    finished = runs.cut_off(run)
    if finished is not None:
        runs.complete(finished, forget)
    given = {name: value for name, value in values.items() if name != "resume" and value is not None}
    own = dict(runs.told(run))
    local, asked = own.pop(_LOCAL, []), own.pop(_ASKED, [])
    foreign = [f"--{name.replace('_', '-')}" for name in given if name not in {*ALLOWED, *local}]
    if foreign:
        may = ", ".join(f"--{name.replace('_', '-')}" for name in (*ALLOWED, *local))
        raise ConfigError(
            f"--resume goes on with the options that the run was begun with, and {', '.join(foreign)} can't be given with it; "
            f"leave it out ({may} may be given), or train anew"
        )
    wanted = [name for name in ("data", *asked) if name not in {**own, **given}]
    if wanted:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in wanted)
        raise ConfigError(
            f"the run {run} doesn't record where things lie, because the task {own.get('task')} is private; "
            f"give {flags} as when it was begun"
        )
    return {**own, **given, "resume": run}


def forget(run: Path) -> None:
    """Remove what only served to go on, of a finished run and of its folds."""
    from zooft import state

    for folder in (run, *(run / runs.FOLDS_FOLDER).glob("*")):
        state.forget(folder)


def check_data(folder: Path, found: Discovery) -> None:
    """Raise DataError where the samples aren't those that the run in `folder` was begun with."""
    before = _record(folder)
    if before is None:
        return
    if before["data"]["fingerprint"] != sample_tables.fingerprint(found.samples):
        was = sum(before["data"][split] for split in ("train", "val", "test"))
        raise DataError(
            f"the data has changed since the run was begun: it had {was} samples and has {len(found.samples)} now, or their labels or "
            "splits differ; bring the data back as it was, or train anew with another --out"
        )


def check_weights(folder: Path, backbone: Backbone) -> None:
    """Raise WeightsError where the backbone isn't the one that the run in `folder` was begun with."""
    before = _record(folder)
    if before is None:
        return
    was, now = before["weights"], backbone.weights
    if (before["backbone"]["name"], was["tensors_sha256"]) != (backbone.name, now.tensors_sha256):
        raise WeightsError(
            f"the backbone's weights have changed since the run was begun: they were {was['source']} (SHA-256 "
            f"{was['tensors_sha256'][:12]}…) and are {now.source} ({now.tensors_sha256[:12]}…) now; bring them back, or train anew "
            "with another --out"
        )


def check_contents(kept: Kept, contents: str | None) -> None:
    """Raise DataError where files have changed under the samples' names."""
    was = kept.progress.resolved.get("contents")
    if was is not None and contents is not None and was != contents:
        raise DataError(
            f"files of the data have changed since the run finished epoch {kept.progress.epoch}, though their names are the same; "
            "bring them back as they were, or train anew with another --out"
        )


def carried_over(folder: Path) -> dict[str, Any]:
    """What the record of a resumed run keeps of the one before: what was tried and settled, how often it was resumed."""
    before = _record(folder) or {}
    kept: dict[str, Any] = {name: before[name] for name in ("trials", "settled") if name in before}
    return {**kept, "resumed": int(before.get("resumed", 0)) + 1}


def _record(folder: Path) -> dict[str, Any] | None:
    """None where the run was killed before it had read its data: it then begins afresh."""
    return runs.read(folder) if (folder / runs.RUN_FILE).is_file() else None
