"""Going on with a killed run, or a finished one for more epochs: its options, and whether it stands on the same ground.

Owns ``--resume``: a run's own options, which others may be given with it, and refuses to mix training on
other data or other weights. What an epoch saves to resume from is `run.checkpoint`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft import config as configuration
from zooft.data import samples as sample_tables
from zooft.errors import ConfigError, DataError, RunError, WeightsError
from zooft.hooks.guard import call_plugin
from zooft.pipeline import teacher as teachers
from zooft.pipeline.plan import Beginning
from zooft.run import checkpoint as checkpoints
from zooft.run import folder as runs
from zooft.run.record import RunRecord, read_record

if TYPE_CHECKING:
    from zooft.contracts import Discovery, Labels, PrunedSizes
    from zooft.hooks.registry import Registry
    from zooft.model.adapted import AdaptedModel
    from zooft.model.backbone import Backbone
    from zooft.pipeline.plan import Plan
    from zooft.run.checkpoint import Checkpoint

ALLOWED = ("data", "device", "provider", "workers")
"""Options for where things are or run, besides those of the task that do; all others are the run's own."""
_LOCAL, _UNSAVED = "local_options", "asked_again"
"""In the file for resuming.

The task's options for where things lie, and those of them that aren't saved.
"""
_PRUNING = "pruning"
"""The same, where ``zooft prune`` is at work."""


def settings(plan: Plan) -> dict[str, Any]:
    """A run's settings for its ``settings.toml``: nothing of where things lie on this machine."""
    weights = plan.config.model.weights
    return {**configuration.plain(plan.config), "weights": Path(weights).name, **configuration.plain(plan.options)}


def local_settings(plan: Plan) -> dict[str, Any]:
    """Where things lie, for as long as the run isn't finished; of private data, whose path may name people, nothing."""
    weights = Path(plan.config.model.weights)
    own = {name: value for name, value in configuration.local(plan.options).items() if value is not None}
    if plan.teacher is not None:
        own["distill"] = plan.teacher.path.resolve()
    held = {"weights": str(weights.resolve()) if weights.is_file() else plan.config.model.weights}
    saved = {name: str(value) for name, value in own.items() if not plan.task.private or _names_nobody(str(value))}
    if not plan.task.private:
        held["data"] = str(plan.config.data.resolve())
    unsaved = [name for name in own if name not in saved]
    pruning = {_PRUNING: True} if is_nothing_yet(plan) else {}
    return {**held, **saved, _LOCAL: list(own), _UNSAVED: unsaved, **pruning}


def is_nothing_yet(plan: Plan) -> bool:
    """Whether the run is nothing until its figures are accepted, so that no half of it is of use."""
    return plan.begin is not None and plan.begin.accept is not None


def beginning(run: Path) -> Beginning | None:
    """The model that a run to be resumed is of, where it was pruned; its weights are in the state to resume from."""
    record = _record(runs.working_or_final(run))
    if record is None or record.pruned is None:
        return None
    return Beginning(before=run, model=partial(_rebuilt, record), pruned=record.pruned)


def _rebuilt(record: RunRecord, plan: Plan, labels: Labels) -> tuple[Backbone, AdaptedModel]:
    return build_pruned(record, None if record.pruned is None else record.pruned.sizes, plan, labels)


def build_pruned(
    record: RunRecord, sizes: PrunedSizes | None, plan: Plan, labels: Labels
) -> tuple[Backbone, AdaptedModel]:
    """A run's backbone in other sizes, and its model with a head; weights are to be loaded.

    Args:
        record: of the run.
        sizes: to build it in.
        plan: of what is to be trained.
        labels: of its targets.
    """
    import torch

    from zooft.model import adapted
    from zooft.model.backbone import for_task, rebuild_backbone

    torch.manual_seed(plan.config.seed)
    backbone = rebuild_backbone(
        plan.family,
        plan.model,
        channels=plan.task.channels(plan.options),
        record=record.weights,
        pruned=sizes,
    )
    backbone = for_task(backbone, plan.task, plan.options)
    outputs = call_plugin(plan.task.problem.training, "outputs", labels, plan.options)
    model = adapted.adapt(backbone, plan.registry.head(plan.head), outputs, known_taps=record.backbone.taps)
    return backbone, model


def _names_nobody(value: str) -> bool:
    """A word, such as auto or off, and no path."""
    return value.isalnum()


def resume_options(registry: Registry, values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the run named by `resume`, with the few that may be given anew.

    Raises:
        RunError: no such run, or one that can't be resumed.
        ConfigError: other options were given, or it isn't known where the data is.
    """
    run = Path(values["resume"])
    cut_off = runs.find_cut_off(run)
    if cut_off is not None:
        runs.complete(cut_off)
    given = {name: value for name, value in values.items() if name != "resume" and value is not None}
    if "epochs" in given and runs.is_finished(run):
        return _extend(registry, run, given)
    own = dict(runs.read_settings(run))
    if own.pop(_PRUNING, False):
        raise RunError(
            f"{run} is what 'zooft prune' was at work on when it was killed, and can't be resumed; remove the folder "
            "and run 'zooft prune' again"
        )
    local, unsaved = own.pop(_LOCAL, []), own.pop(_UNSAVED, [])
    _refuse_foreign(given, (*ALLOWED, *local))
    wanted = [name for name in ("data", *unsaved) if name not in {**own, **given}]
    if wanted:
        flags = " and ".join(map(_flag, wanted))
        raise ConfigError(
            f"the run {run} doesn't record where things lie, because the task {own.get('task')} is private; "
            f"give {flags} as when it was started"
        )
    return {**own, **given, "resume": run}


def _extend(registry: Registry, run: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run that continues where a finished one ended."""
    before = read_record(run)
    own = configuration.read_toml(run / runs.SETTINGS_FILE)
    # where things lie was removed when the run was finished
    local = configuration.local_names(registry.task(before.task).options)
    placed = () if before.pruned is not None or own["weights"] in {"pretrained", "random"} else ("weights",)
    if before.distillation is not None:
        placed = (*placed, "distill")
    _refuse_foreign(given, (*ALLOWED, "epochs", "out", *placed, *local))
    done = int(before.config["epochs"])
    if int(given["epochs"]) <= done:
        raise ConfigError(f"{run} has {done} epochs already; give --epochs the number of all, more than {done}")
    checkpoints.refuse_unfit(run)
    where = {"data": before.data.path} if before.data.path is not None else {}
    missing = [name for name in ("data", *placed) if name not in {**where, **given}]
    if missing:
        raise ConfigError(
            f"{run} doesn't record where things lie; give {' and '.join(map(_flag, missing))} as when it was started"
        )
    return {**own, **where, **given, "resume": run}


def _refuse_foreign(given: Mapping[str, Any], allowed: Sequence[str]) -> None:
    foreign = [_flag(name) for name in given if name not in allowed]
    if foreign:
        raise ConfigError(
            f"--resume uses the options that the run was started with, and {', '.join(foreign)} can't be given "
            f"with it; leave it out ({', '.join(map(_flag, allowed))} may be given), or train anew"
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def check_data(folder: Path, found: Discovery) -> None:
    """Raise DataError where the samples aren't those that the run in `folder` was started with."""
    before = _record(folder)
    if before is None:
        return
    if before.data.fingerprint != sample_tables.fingerprint(found):
        was = before.data.train + before.data.val + before.data.test
        raise DataError(
            f"the data has changed since the run was started: it had {was} samples and now {len(found.samples)}, or "
            "their labels or splits differ; bring the data back as it was, or train anew with another --out"
        )


def check_weights(folder: Path, backbone: Backbone) -> None:
    """Raise WeightsError where the backbone isn't the one that the run in `folder` was started with."""
    before = _record(folder)
    if before is None:
        return
    was, now = before.weights, backbone.weights
    if (before.backbone.name, was.tensors_sha256) != (backbone.name, now.tensors_sha256):
        raise WeightsError(
            f"the backbone's weights have changed since the run was started: they were {was.source} (SHA-256 "
            f"{was.tensors_sha256[:12]}…) and are {now.source} ({now.tensors_sha256[:12]}…) now; bring them back, or "
            "train anew with another --out"
        )


def check_teacher(folder: Path, plan: Plan) -> None:
    """Raise RunError where the teacher isn't the one that the run in `folder` was started with."""
    before = _record(folder)
    if before is not None:
        teachers.check_same(before, plan.teacher)


def check_stages(folder: Path, backbone: Backbone) -> None:
    """Raise RunError where the backbone has other stages than when the run in `folder` was begun.

    Rules of freezing would mean other layers, and the optimizer has other groups.
    """
    before = _record(folder)
    if before is not None and before.backbone.stages != tuple(backbone.stages):
        raise RunError(
            f"the run was begun by zooft {before.zooft}, in which {backbone.reference} had the stages "
            f"{', '.join(before.backbone.stages)}; here they are {', '.join(backbone.stages)}, and can't go on from "
            "there; finish it with that version, or train anew with another --out"
        )


def check_contents(checkpoint: Checkpoint, contents: str | None) -> None:
    """Raise DataError where files have changed under the samples' names."""
    was = checkpoint.progress.resolved.get("contents")
    if was is not None and contents is not None and was != contents:
        raise DataError(
            f"files of the data have changed since the run finished epoch {checkpoint.progress.epoch}, though their "
            "names are the same; bring them back as they were, or train anew with another --out"
        )


def carry_over(folder: Path, begun: RunRecord, *, epochs: int) -> RunRecord:
    """The record of a resumed run, with what was tried and resolved before, and how often it was resumed.

    Of a finished one that continues, also after how many epochs it had ended.
    """
    before = _record(folder)
    if before is None:
        return replace(begun, resumed=1)
    was = int(before.config["epochs"])
    return replace(
        begun,
        trials=before.trials,
        resolved=before.resolved,
        resumed=before.resumed + 1,
        ended_at=before.ended_at if was == epochs else (*before.ended_at, was),
    )


def _record(folder: Path) -> RunRecord | None:
    """None where the run was killed before it had read its data: it then begins afresh."""
    return read_record(folder) if (folder / runs.RUN_FILE).is_file() else None
