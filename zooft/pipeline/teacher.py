"""A run as the teacher of another: what it must have in common with it, and what of the data it has seen before.

Owns ``--distill``: a teacher answers the same question by the same labels, and whatever this run's figures are of, the
teacher hasn't learnt from. Its answers hold what it knows of its own training samples; figures on these would be those
of a model that has seen them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft import config as configuration
from zooft.contracts.plurals import pluralize
from zooft.data import samples as sample_tables
from zooft.deploy import saved as finished
from zooft.errors import ConfigError, DataError, RunError, ZooftError
from zooft.hooks.guard import call_plugin, within
from zooft.run import folder as runs
from zooft.run.record import DistillationRecord, RunRecord, read_record
from zooft.storage import csv_files
from zooft.storage.sequences import pick, spill_like

if TYPE_CHECKING:
    from torch import nn

    from zooft.config import FinetuneConfig
    from zooft.contracts import Computing, Discovery, InputSpec, Label, Labels, Sample, Task
    from zooft.data.split import Splits
    from zooft.deploy.saved import SavedRun
    from zooft.features import FeatureCache, SampleDataset, Teacher
    from zooft.hooks.registry import Registry
    from zooft.model.adapted import AdaptedModel
    from zooft.model.backbone import Backbone
    from zooft.pipeline.plan import Plan
    from zooft.train.distillation import DistilledLoss
    from zooft.train.loss import TaskLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherRun:
    """A finished run, not yet opened.

    Attributes:
        path: its folder.
        record: its ``run.json``.
        sha256: of its weights' file.
    """

    path: Path
    record: RunRecord
    sha256: str

    def describe(self) -> DistillationRecord:
        """What the taught run records of it: no path, which may name people."""
        return DistillationRecord(
            backbone=self.record.backbone.reference,
            weights_sha256=self.sha256,
            data_fingerprint=self.record.data.fingerprint,
        )


# Whether it can teach.


def find(registry: Registry, config: FinetuneConfig, task: Task, options: Any, *, reads: str) -> TeacherRun | None:
    """The run that is to teach; None where none is.

    Args:
        registry: where the task's full name is found.
        config: as given.
        task: what is to be learnt.
        options: the task's own.
        reads: what the head reads.

    Raises:
        RunError: not a finished run.
        ConfigError: it is of another task or problem, or answers of this problem aren't taught.
    """
    path = config.distillation.distill
    if path is None:
        return None
    record = read_record(path)
    if not runs.is_finished(path):
        raise RunError(f"--distill {path}: the run isn't finished; finish it with --resume first")
    ours = (registry.qualified_name("task", config.task), task.problem.name)
    if (record.task, record.problem) != ours:
        raise ConfigError(
            f"--distill {path}: the teacher is of the task {record.task} (problem {record.problem}), and this run of "
            f"{ours[0]} (problem {ours[1]}); name a run of the same task"
        )
    if task.problem.training.distill is None:
        raise ConfigError(
            f"--distill: a teacher's answers of the kind {task.problem.name} can't be learnt from: its plugin defines "
            "no distance between them (TrainingPart.distill); leave --distill out"
        )
    theirs = configuration.build(task.options, record.options)
    if call_plugin(task, "bag", theirs) != call_plugin(task, "bag", options):
        raise ConfigError(
            f"--distill {path}: a sample is a bag of instances for one of the two and a single image for the other, by "
            "their options; name a run whose samples are the same"
        )
    if config.distillation.distill_features and reads != "vector":
        raise ConfigError(
            f"--distill-features compares the pooled features of one image, and the head of this run reads a {reads}; "
            "leave it out: the teacher's answers are learnt from without it"
        )
    return TeacherRun(path=path, record=record, sha256=_sha256(path / runs.WEIGHTS_FILE))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"{path} can't be read: {error.strerror}; bring it back as the run wrote it") from error


def refuse_other_labels(teacher: TeacherRun, labels: Labels) -> None:
    """Raise ConfigError where the teacher answers by other labels, or by the same ones in another order."""
    theirs, ours = ([_meaning(label) for label in some] for some in (teacher.record.labels, labels))
    if theirs == ours:
        return
    raise ConfigError(
        f"--distill {teacher.path}: the teacher's answers mean {_listed(teacher.record.labels)}, and this run's "
        f"{_listed(labels)}; they must be the same in the same order"
    )


def _meaning(label: Label) -> tuple[Any, ...]:
    return label.name, label.categories, label.unit, label.problem, label.answer


def _listed(labels: Labels) -> str:
    return "; ".join(map(_shown, labels)) or "nothing"


def _shown(label: Label) -> str:
    unit = f" [{label.unit}]" if label.unit else ""
    return label.name + unit + (f" ({', '.join(label.categories)})" if label.categories else "")


def check_same(before: RunRecord, teacher: TeacherRun | None) -> None:
    """Raise RunError where a run is resumed with another teacher than it was begun with."""
    was, now = before.distillation, None if teacher is None else teacher.describe()
    if was is None or now is None or was.weights_sha256 == now.weights_sha256:
        return
    raise RunError(
        f"the run was begun with another teacher: {was.backbone} with weights of SHA-256 {was.weights_sha256[:12]}…, "
        f"and --distill names {now.backbone} with {now.weights_sha256[:12]}…; bring that one back, or train anew"
    )


# What it has seen.


def with_its_split(teacher: TeacherRun, found: Discovery) -> Sequence[Sample] | None:
    """The samples in the teacher's own split, where they are its own data; else None.

    Raises:
        DataError: it has learnt from all of them.
    """
    if not _is_same_data(teacher, found):
        return None
    split_of: dict[str, Any] = {row["id"]: row["split"] for row in _rows(teacher)}
    if "val" not in split_of.values():
        raise DataError(
            f"the teacher {teacher.path} has learnt from all samples of this data but those of a test split (--folds), "
            "so none is left to choose and evaluate this run by; train the teacher without --folds, or give other data"
        )
    return spill_like([found.samples], (replace(sample, split=split_of[sample.id]) for sample in found.samples))


def in_its_order(teacher: TeacherRun, splits: Splits) -> Splits:
    """The same samples in the order of the teacher's: with its seed, as in a run without a teacher."""
    places = {row["id"]: number for number, row in enumerate(_rows(teacher))}

    def order(members: Sequence[Sample]) -> Sequence[Sample]:
        return pick(members, np.argsort([places[sample.id] for sample in members], kind="stable"))

    return replace(splits, train=order(splits.train), val=order(splits.val), test=order(splits.test))


def refuse_seen(
    teacher: TeacherRun, task: Task, options: Any, found: Discovery, splits: Splits, computing: Computing
) -> tuple[str, ...]:
    """Raise DataError where the teacher has learnt from samples that this run's figures would be of.

    Args:
        teacher: whose training samples.
        task: that reads the data of both.
        options: of this run.
        found: this run's data.
        splits: of it.
        computing: a progress bar.

    Returns:
        Notes on what couldn't be compared.
    """
    same_data = _is_same_data(teacher, found)
    held_out = [*splits.val, *splits.test, *(sample for fold in splits.folds for sample in fold.held_out)]
    learnt = [row for row in _rows(teacher) if row["split"] == "train"]
    groups = {row["group"] for row in learnt if row["group"]}
    by_group = [sample for sample in held_out if sample.group is not None and sample.group in groups]
    if by_group:
        names = len({sample.group for sample in by_group})
        _refuse(teacher, len(by_group), len(held_out), f"of {pluralize(names, 'group')} by name", splits)
    ids = {row["id"] for row in learnt}
    contents = None if same_data else _contents(teacher, task, ids, computing)
    notes = _about_its_own_teacher(teacher)
    if contents is None:
        same = [sample for sample in held_out if sample.id in ids]
        _refuse(teacher, len(same), len(held_out), "by id", splits)
        if same_data:
            return notes
        return (
            *notes,
            "the teacher's data isn't where it was, so that its training samples were compared with this run's by id "
            "and group, and not by content",
        )
    advance = computing("comparing with the teacher's data", len(held_out))
    seen = 0
    for sample in held_out:
        seen += sample_tables.digest(task, options, sample) in contents
        advance(1)
    _refuse(teacher, seen, len(held_out), "by content", splits)
    return notes


def _about_its_own_teacher(teacher: TeacherRun) -> tuple[str, ...]:
    its_own = teacher.record.distillation
    if its_own is None or its_own.data_fingerprint == teacher.record.data.fingerprint:
        return ()
    return (
        f"the teacher has learnt from another, {its_own.backbone} on other data, of which nobody knows here whether it "
        "has seen the samples that this run's figures are of",
    )


def _refuse(teacher: TeacherRun, seen: int, held_out: int, how: str, splits: Splits) -> None:
    if not seen:
        return
    advice = (
        "leave out --folds, and the teacher's own split is used"
        if splits.folds
        else "leave these samples out of the data, or name a teacher that was trained without them"
    )
    raise DataError(
        f"the teacher {teacher.path} has learnt from {seen} of the {held_out} samples that this run's figures would be "
        f"of ({how}), and they would be too good; {advice}"
    )


def _rows(teacher: TeacherRun) -> Sequence[dict[str, str]]:
    """Of its ``samples.csv``."""
    table = teacher.path / runs.SAMPLES_FILE
    try:
        rows = list(csv_files.read(table))
        return [{name: row[name] for name in ("id", "group", "split")} for row in rows]
    except (OSError, KeyError, ValueError) as error:
        raise RunError(
            f"{table} can't be read ({error}), and without it nobody knows what the teacher has seen; bring it back"
        ) from error


def _is_same_data(teacher: TeacherRun, found: Discovery) -> bool:
    return teacher.record.data.fingerprint == sample_tables.fingerprint(found)


def _contents(teacher: TeacherRun, task: Task, ids: set[str], computing: Computing) -> set[str] | None:
    """Digests of the teacher's training samples; None where its data can't be found as it was."""
    path = teacher.record.data.path
    if path is None or not Path(path).exists():
        return None
    try:
        options = configuration.build(task.options, teacher.record.options)
        there = sample_tables.discover(task, Path(path), options)
        if teacher.record.data.fingerprint != sample_tables.fingerprint(there):
            return None
        advance = computing("the teacher's data", len(ids))
        contents = set()
        for sample in there.samples:
            if sample.id in ids:
                contents.add(sample_tables.digest(task, options, sample))
                advance(1)
    except ZooftError:  # of data that has changed since; ids and groups are compared then
        return None
    return contents


# What it is in training.


def is_heard(config: FinetuneConfig) -> bool:
    """Whether anything of a teacher counts in the loss."""
    options = config.distillation
    return options.distill is not None and (options.distill_weight > 0 or options.distill_features > 0)


def open_teacher(plan: Plan) -> SavedRun | None:
    """Its model; None where there is none to hear."""
    if plan.teacher is None or not is_heard(plan.config):
        return None
    return finished.open_run(plan.teacher.path, plan.registry)


def with_teacher(
    plan: Plan,
    saved: SavedRun,
    backbone: Backbone,
    members: Sequence[Sample],
    feature_cache: FeatureCache,
    *,
    augmented: bool,
) -> Teacher:
    """The teacher of some samples.

    Args:
        plan: of the run that is taught.
        saved: the teacher.
        backbone: that is taught.
        members: what is trained on.
        feature_cache: where its answers are cached.
        augmented: whether random views are learnt from.
    """
    from zooft.features import Teacher

    assert plan.teacher is not None  # noqa: S101 -- the caller has opened it
    if plan.task.problem.training.move is not None:
        _refuse_other_places(backbone.input, saved.input)
    if augmented:
        _refuse_other_views(plan, saved)
    return Teacher(
        model=saved.model,
        sha256=plan.teacher.sha256,
        views=_views(plan, saved, backbone, members, augmented=augmented),
        feature_cache=feature_cache,
        features=plan.config.distillation.distill_features > 0,
        exact=plan.task.problem.training.gives == "vector",
    )


def _views(
    plan: Plan, saved: SavedRun, backbone: Backbone, members: Sequence[Sample], *, augmented: bool
) -> SampleDataset:
    """The samples as the teacher sees them: the plain view by its own options, random ones by the run's.

    Random ones are made of the same arrays with the same random numbers, at the teacher's size.
    """
    from zooft.features import SampleDataset, reader
    from zooft.model.preprocess import ImagePreprocess

    task = plan.task
    augment = task.augment(saved.input, plan.options) if augmented else None
    return SampleDataset(
        members,
        read=reader(task, saved.options),
        preprocess=within(task, "preprocess", task.preprocess(saved.input, saved.options)),
        augment=None if augment is None else within(task, "augment", augment),
        scale=ImagePreprocess(saved.input).normalise_,
        decode_small=partial(sample_tables.decode_small, task, backbone.input, plan.options),
        seed=plan.config.seed,
        encode=_without_target,
    )


def _without_target(_target: Any) -> int:
    """What a teacher answers doesn't depend on targets."""
    return 0


def _refuse_other_places(ours: InputSpec, theirs: InputSpec) -> None:
    """Raise ConfigError where a place of the one network's input is another of the other's."""
    same_shape = ours.height * theirs.width == theirs.height * ours.width
    if ours.mode == theirs.mode and (ours.mode == "stretch" or same_shape):
        return
    raise ConfigError(
        f"--distill: the teacher sees its samples by {theirs.mode} in {theirs.height}x{theirs.width} and this run by "
        f"{ours.mode} in {ours.height}x{ours.width}, so that their places don't lie on each other; give both the same "
        "shape of input"
    )


def _refuse_other_views(plan: Plan, saved: SavedRun) -> None:
    """Raise ConfigError where the run's options don't give the teacher the views that it knows."""
    task = plan.task
    seen = [
        (task.explain(saved.input, options), sample_tables.ports(task, options))
        for options in (plan.options, saved.options)
    ]
    if seen[0] != seen[1]:
        raise ConfigError(
            "--distill: random views are made by this run's options, by which the teacher would see something else "
            f"than it was trained on ({seen[0][0]}, in place of {seen[1][0]}); give both runs the same options, or "
            "--augment none"
        )


def distilled(
    plan: Plan,
    saved: SavedRun,
    loss: TaskLoss,
    labels: Labels,
    outputs: Any,
    *,
    weight: float,
    model: AdaptedModel,
    backbone: Backbone,
) -> DistilledLoss:
    """The loss with what the teacher adds to it.

    Args:
        plan: of the run that is taught.
        saved: the teacher.
        loss: of the targets.
        labels: of the targets.
        outputs: what a head may give for some samples.
        weight: of a sample in the loss's mean.
        model: that is taught; where features are learnt too, it gives them from here on.
        backbone: its own.
    """
    from zooft.train.distillation import DistilledLoss, make_divergence, try_divergence

    options = plan.config.distillation
    divergence = make_divergence(plan.task, labels, saved.labels, plan.options, temperature=options.temperature)
    own = try_divergence(plan.task, divergence, outputs)
    model.gives_features = options.distill_features > 0
    return DistilledLoss(
        loss,
        divergence,
        share=options.distill_weight,
        worth=weight / own,
        features=options.distill_features,
        projection=_projection(plan, backbone, saved) if model.gives_features else None,
    )


def _projection(plan: Plan, backbone: Backbone, saved: SavedRun) -> nn.Module:
    """From this run's features to the teacher's; the same in every process and after a resume."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.config.seed)
        return torch.nn.Linear(backbone.width, saved.record.backbone.width)


def refuse_idle_features(plan: Plan, learning: bool) -> None:
    """Raise ConfigError where features are to be learnt and no epoch trains what gives them."""
    if plan.config.distillation.distill_features and not learning:
        raise ConfigError(
            f"--distill-features teaches the backbone, and with --freeze {plan.config.model.freeze} nothing of it "
            "learns; give --freeze none or last:2, or leave --distill-features out"
        )
