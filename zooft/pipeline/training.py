"""What all processes of a run do together: load the same model, train in folds or once, and predict.

Owns the way from samples to trained weights in the run's folder, which the main process alone writes; what comes before
and after is `hyperparameters`'s.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from zooft import config as configuration
from zooft.compute import machine
from zooft.contracts.plurals import pluralize
from zooft.data import samples as sample_tables
from zooft.data.split import Fold, Splits
from zooft.deploy import saved as finished
from zooft.errors import WeightsError
from zooft.evaluation.predictions import Predictions, join
from zooft.hooks.guard import call_plugin, part_place, within
from zooft.pipeline import resume
from zooft.pipeline import teacher as teachers
from zooft.pipeline.cache_key import feature_key
from zooft.run import checkpoint as checkpoints
from zooft.run import folder as runs
from zooft.run.checkpoint import CheckpointWriter
from zooft.run.record import ResolvedRecord, TrialRecord, read_record, update_record, write_record
from zooft.storage.cache import MemoryStore, default_store
from zooft.storage.lookup import Lookup
from zooft.storage.sequences import pick

if TYPE_CHECKING:
    from accelerate import Accelerator
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.optim import Optimizer

    from zooft.compute.profile import Stopwatch
    from zooft.config import FinetuneConfig, MachineOptions
    from zooft.contracts import EpochRecord, Labels, Problem, Sample
    from zooft.deploy.saved import SavedRun
    from zooft.features import FeatureCache, Placing, SampleDataset, Teacher
    from zooft.model.adapted import AdaptedModel
    from zooft.model.backbone import Backbone
    from zooft.pipeline.events import RunEvents
    from zooft.pipeline.plan import Plan
    from zooft.pipeline.reporter import Reporter
    from zooft.run.checkpoint import Checkpoint, Progress
    from zooft.train import Job, Watch
    from zooft.train.distillation import DistilledLoss
    from zooft.train.loss import TaskLoss
    from zooft.train.optimizer import Hyperparameters
    from zooft.train.search import Choice

T = TypeVar("T")
_TRIED = 32
"""Targets, about, that a loss is tried on before training."""
_FEW = 4
"""The same of samples that have to be read and run for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingContext:
    """What every part of the work needs to know: the plan, this process's place, the feature cache, who listens.

    Attributes:
        plan: the resolved settings.
        accelerator: this process's place among those of the run.
        backbone: as this process has built and checked it.
        feature_cache: how outputs of frozen stages are cached; None with ``--no-cache``.
        contents: of the samples that are trained on, as far as it is known.
        reporter: gets notes and progress.
        clock: measures what takes how long.
        events: of the run, for plugins.
        teacher: whose answers are learnt from too; None where there is none.
        teacher_cache: where they are cached.
    """

    plan: Plan
    accelerator: Accelerator
    backbone: Backbone
    feature_cache: FeatureCache | None
    contents: str | None
    reporter: Reporter
    clock: Stopwatch
    events: RunEvents
    teacher: SavedRun | None = None
    teacher_cache: FeatureCache | None = None

    def alone(self) -> TrainingContext:
        """For what one process does while the others wait."""
        feature_cache = self.feature_cache and replace(self.feature_cache, share=range, agree=bool)
        return replace(self, feature_cache=feature_cache)


def prepare_context(
    plan: Plan,
    backbone: Backbone,
    splits: Splits,
    accelerator: Accelerator,
    reporter: Reporter,
    clock: Stopwatch,
    digests: Lookup,
    events: RunEvents,
    *,
    teacher: SavedRun | None = None,
) -> TrainingContext:
    """A context with every sample's digest, of which each process computes its share, and has the same weights.

    Raises:
        WeightsError: the processes have loaded different ones.
    """
    from zooft.compute import distributed

    feature_cache = _feature_cache(plan, backbone, accelerator, reporter, clock, digests)
    contents = None
    if feature_cache is not None:
        for members in splits.by_name().values():
            feature_cache.compute_digests(pick(members, distributed.shard(len(members), accelerator)))
        if accelerator.num_processes > 1:
            for theirs in distributed.all_gather_object(list(feature_cache.digests.items()), accelerator):
                feature_cache.digests.update(theirs)
        contents = feature_cache.digests.sha256()
    same = set(distributed.all_gather_object(backbone.weights.tensors_sha256, accelerator))
    if len(same) > 1:
        raise WeightsError(
            f"the processes have loaded {len(same)} different versions of {backbone.reference}; give all the same with "
            "--weights FILE"
        )
    teacher_cache = None
    if teacher is not None:
        teacher_cache = _teacher_cache(plan, teacher, backbone, accelerator, reporter, clock, digests)
    return TrainingContext(
        plan=plan,
        accelerator=accelerator,
        backbone=backbone,
        feature_cache=feature_cache,
        contents=contents,
        reporter=reporter,
        clock=clock,
        events=events,
        teacher=teacher,
        teacher_cache=teacher_cache,
    )


def adapt(plan: Plan, labels: Labels) -> tuple[Backbone, AdaptedModel]:
    """The backbone, and its model with a new head: the same in every process, by the seed."""
    if plan.begin is not None:
        return plan.begin.model(plan, labels)
    import torch

    from zooft.model import adapted
    from zooft.model.backbone import for_task, load_backbone

    torch.manual_seed(plan.config.seed)
    backbone = load_backbone(
        plan.family,
        plan.model,
        weights=plan.config.model.weights,
        channels=plan.task.channels(plan.options),
        sources=[entry.value for entry in plan.registry.weights],
    )
    backbone = for_task(backbone, plan.task, plan.options)
    torch.manual_seed(plan.config.seed)
    outputs = call_plugin(plan.task.problem.training, "outputs", labels, plan.options)
    return backbone, adapted.adapt(backbone, plan.registry.head(plan.head), outputs)


def prepare(plan: Plan, labels: Labels, members: Sequence[Sample]) -> Labels:
    """Labels with what the problem computes from the targets of `members`, which are trained on."""
    found: Labels = call_plugin(
        plan.task.problem.training, "prepare", labels, sample_tables.targets(members), plan.options
    )
    return found


def cross_validate(context: TrainingContext, splits: Splits, labels: Labels, path: Path | None) -> Predictions | None:
    """Predictions of every sample by a model that wasn't trained on its group, with nothing fitted yet.

    Each fold uses its last epoch: choosing one by the samples that it is evaluated on would be optimistic. None but in
    the main process.
    """
    from zooft.compute.distributed import main_only, main_process_first

    parts = []
    for number, fold in enumerate(splits.folds, 1):
        context.reporter.step(f"fold {number} of {len(splits.folds)}")
        own = path / runs.FOLDS_FOLDER / str(number) if path is not None else None
        prepared = prepare(context.plan, labels, fold.train)  # not from what is held out
        checkpoint = load_checkpoint(context, own)
        if checkpoint is None or checkpoint.progress.epoch < context.plan.config.training.epochs:
            backbone, adapted = main_process_first(context.accelerator, lambda: adapt(context.plan, labels))
            fit_model(
                context,
                backbone,
                adapted,
                prepared,
                fold.train,
                fold.held_out,
                own,
                checkpoint=checkpoint,
                keep_last=True,
                fold=number,
            )
        answers = partial(_fold_answers, context.alone(), fold, prepared, path, own)
        found = main_only(context.accelerator, answers)
        parts.append(found and found.with_columns(fold=np.full(len(found), number)))
    return join([on_main(part) for part in parts]) if context.accelerator.is_main_process else None


def _fold_answers(
    context: TrainingContext, fold: Fold, labels: Labels, whole: Path | None, own: Path | None
) -> Predictions:
    """A fold's model's predictions for the samples that it hasn't seen, from a folder that stands by itself."""
    whole, own = on_main(whole), on_main(own)
    write_record(own, replace(read_record(whole), labels=labels))
    parted = Splits(train=fold.train, val=fold.held_out, test=(), notes=())
    show = partial(_target_text, context.plan, labels)
    sample_tables.write_samples(own / runs.SAMPLES_FILE, parted, show)
    return predict(context, finished.open_run(own, context.plan.registry, like=context.backbone), fold.held_out)


def load_checkpoint(context: TrainingContext, folder: Path | None) -> Checkpoint | None:
    """What an earlier process saved to resume from, the same in every process.

    Raises:
        DataError: it was trained on other files.
    """
    from zooft.compute.distributed import first

    if context.plan.config.resume is None:
        return None

    def find() -> checkpoints.Found:
        here = checkpoints.load(on_main(folder))
        if here.checkpoint is None:
            checkpoints.start_again(on_main(folder))
        else:
            resume.check_contents(here.checkpoint, context.contents)
            checkpoints.restore(on_main(folder), here.checkpoint)
        return here

    answer = first(context.accelerator, find)
    for note in answer.notes:
        context.reporter.note(note)
    return answer.checkpoint


def fit_model(
    context: TrainingContext,
    backbone: Backbone,
    adapted: AdaptedModel,
    labels: Labels,
    members: Sequence[Sample],
    val: Sequence[Sample],
    folder: Path | None,
    *,
    checkpoint: Checkpoint | None,
    keep_last: bool = False,
    fold: int | None = None,
) -> None:
    """Train `adapted`, into a folder.

    Args:
        context: who does it.
        backbone: of the model.
        adapted: trained in place.
        labels: of the targets.
        members: the training samples.
        val: what chooses the best epoch.
        folder: of the weights and the curve; None but in the main process.
        checkpoint: what an earlier process saved to resume from.
        keep_last: use the last epoch, not the best.
        fold: which one is trained, from 1; None for the training that the run is made for.
    """
    from zooft import train
    from zooft.compute.kernels import numerics
    from zooft.model import freeze
    from zooft.train.loss import make_loss

    plan, accelerator, problem = context.plan, context.accelerator, context.plan.task.problem
    augment = plan.task.augment(backbone.input, plan.options)
    if augment is not None:
        augment = within(plan.task, "augment", augment)
    freezer, argument = plan.registry.freezer(plan.config.model.freeze)
    targets = sample_tables.targets(members)
    loss = make_loss(plan.task, labels, targets, plan.options, seed=plan.config.seed)
    views = _views(plan, backbone, labels, members, augment=augment)
    outputs, each = _try_loss(plan, adapted, labels, loss, views, targets)
    planned = functools.cache(lambda epoch: freeze.plan(adapted, freezer, argument, epoch))
    teacher = _teacher(context, backbone, members, augmented=augment is not None)
    taught: TaskLoss | DistilledLoss = loss
    if context.teacher is not None:
        learning = freeze.learning_by_stage(adapted, map(planned, range(plan.config.training.epochs)))
        teachers.refuse_idle_features(plan, learning=any(learning.values()))
        taught = teachers.distilled(
            plan, context.teacher, loss, labels, outputs, weight=each, model=adapted, backbone=backbone
        )
    placed = problem.training.move is not None
    job = train.Job(
        model=adapted,
        train=views,
        val=_views(plan, backbone, labels, val, augment=None) if val else None,
        keep_last=keep_last,
        loss=taught,
        metrics=partial(_metrics, problem, labels),
        rows=partial(_columns, problem, labels) if placed else None,
        figures=partial(_figures, problem, labels) if placed else None,
        primary=problem.evaluation.primary,
        smaller=problem.evaluation.primary in problem.evaluation.smaller,
        coupled=problem.training.coupled,
        penalty=weight_penalty(adapted, backbone.width, len(targets) * each),
        order=partial(_order, plan, targets) if problem.training.order is not None else None,
        plan=planned,
        feature_cache=context.feature_cache,
        teacher=teacher,
    )
    watch = _watch(context, job, folder, frozen=_never_trained(plan, adapted), fold=fold)
    hyperparameters = _hyperparameters(plan.config, accelerator)
    with numerics.fast_matmul(context.reporter.note):
        if checkpoint is not None:
            way, checkpoint = _resume(context, job, hyperparameters, checkpoint)
        else:
            way = _choose(context, job, hyperparameters, watch, folder)
        if teacher is not None and way.job.views is not None:
            context.reporter.note(
                f"every epoch sees each sample in one of {pluralize(way.job.views + 1, 'view')}, the plain one among "
                "them, to which the teacher answers once"
            )
        train.fit(way.job, way.hyperparameters, accelerator, watch, epoch_data=way.epoch_data, checkpoint=checkpoint)


def _teacher(
    context: TrainingContext, backbone: Backbone, members: Sequence[Sample], *, augmented: bool
) -> Teacher | None:
    """Who answers to these samples too; None where nobody does."""
    saved, cache = context.teacher, context.teacher_cache
    if saved is None or cache is None:
        return None
    return teachers.with_teacher(context.plan, saved, backbone, members, cache, augmented=augmented)


def _resume(
    context: TrainingContext, job: Job, hyperparameters: Hyperparameters, checkpoint: Checkpoint
) -> tuple[Choice, Checkpoint]:
    """From where an earlier process has stopped, in the way that it had chosen."""
    from zooft.train.search import Choice

    _repeat_epochs(context, checkpoint)
    resolved = checkpoint.progress.resolved
    job = replace(job, views=resolved["views"])
    hyperparameters = replace(hyperparameters, lr=resolved["lr"], weight_decay=resolved["weight_decay"])
    before = context.plan.config.resume
    if before is not None and runs.is_finished(before):
        checkpoint = _extend(job, hyperparameters, checkpoint, context.reporter)
    return Choice(job=job, hyperparameters=hyperparameters), checkpoint


def _choose(
    context: TrainingContext, job: Job, hyperparameters: Hyperparameters, watch: Watch, folder: Path | None
) -> Choice:
    """From the start, in the way that validation chooses, where something is left to it."""
    from zooft.train import search

    config = context.plan.config
    choice = search.choose(
        job, hyperparameters, context.accelerator, watch, views=config.caching.views, sweep=config.training.sweep
    )
    if choice.trials and folder is not None:
        update_record(folder, trials=tuple(TrialRecord(**asdict(trial)) for trial in choice.trials))
    return choice


def _extend(job: Job, hyperparameters: Hyperparameters, checkpoint: Checkpoint, reporter: Reporter) -> Checkpoint:
    """A finished run's end as the middle of a longer one, and what the schedule makes of it."""
    from zooft.compute import distributed
    from zooft.train.loop import learns_in
    from zooft.train.optimizer import describe_continuation

    done = checkpoint.progress.epoch
    steps = distributed.steps(len(job.train), int(checkpoint.progress.resolved["batch_size"]))
    reporter.note(
        describe_continuation(hyperparameters, done, steps, last=checkpoint.progress.records[-1].learning_rate)
    )
    if learns_in(job, range(done)) == learns_in(job, range(hyperparameters.epochs)):
        return checkpoint
    reporter.note(
        "stages learn from here on that didn't before, so the optimizer begins without a memory of earlier steps"
    )
    return replace(checkpoint, optimizer={}, settings={})


def _repeat_epochs(context: TrainingContext, checkpoint: Checkpoint) -> None:
    """The records of the epochs that an earlier process finished."""
    done, epochs = checkpoint.progress.epoch, context.plan.config.training.epochs
    context.reporter.note(f"{done} of {epochs} epochs were finished before")
    for one in checkpoint.progress.records:
        context.reporter.epoch(one, epochs)


def _order(plan: Plan, targets: Sequence[Any], size: int, seed: int) -> Sequence[int]:
    """The samples of an epoch as the problem has them.

    Raises:
        PluginError: they aren't as many as there are, or aren't samples.
    """
    found: Sequence[int] = call_plugin(plan.task.problem.training, "order", targets, plan.options, size, seed)
    if len(found) == len(targets) and all(0 <= number < len(targets) for number in found):
        return found
    expected = f"{len(targets)} numbers of samples, from 0 to {len(targets) - 1}"
    raise part_place(plan.task, "training", "order").amiss(found, expected)


def _metrics(
    problem: Problem, labels: Labels, outputs: Mapping[str, NDArray[Any]], targets: Sequence[Any]
) -> Mapping[str, float]:
    """Figures of the head's outputs, nothing fitted."""
    return _figures(problem, labels, _columns(problem, labels, outputs, targets))


def _columns(
    problem: Problem, labels: Labels, outputs: Mapping[str, NDArray[Any]], targets: Sequence[Any]
) -> Mapping[str, NDArray[Any]]:
    return problem.evaluation.columns(outputs, targets, labels)


def _figures(problem: Problem, labels: Labels, columns: Mapping[str, NDArray[Any]]) -> Mapping[str, float]:
    return problem.evaluation.metrics(Predictions(samples=(), columns=columns), labels)


def _try_loss(
    plan: Plan, adapted: AdaptedModel, labels: Labels, loss: TaskLoss, views: SampleDataset, targets: Sequence[Any]
) -> tuple[Mapping[str, Tensor], float]:
    """The loss on random outputs and some targets; these outputs, and the weight of a sample in its mean.

    Where these have places, on outputs of the head that is to learn, of a few samples.
    """
    import torch

    from zooft.train.loss import collate, random_outputs, try_out

    if plan.task.problem.training.move is None:
        some = targets[:: math.ceil(len(targets) / _TRIED)]
        outputs = random_outputs(plan.task, labels, len(some), plan.options)
        return outputs, try_out(loss, plan.task, outputs, collate(plan.task, labels, some))
    x, encoded = views.with_view(0).__getitems__(range(min(_FEW, len(views))))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        outputs = copy.deepcopy(adapted).cpu().eval()(x)
    return outputs, try_out(loss, plan.task, outputs, encoded, what="what the untrained head gives")


def weight_penalty(adapted: AdaptedModel, width: int, weight: float) -> float:
    """Of the squares of the head's weights, beside the mean loss of samples that weigh `weight` together.

    Of a Gaussian prior: `width` standardised features make outputs of variance logit_std² where each weight's variance
    is logit_std² / width.
    """
    return width / (adapted.logit_std**2 * weight) if adapted.logit_std and weight else 0.0


def _target_text(plan: Plan, labels: Labels, target: Any) -> str:
    return plan.task.problem.presentation.target(target, labels)


def _encode(plan: Plan, labels: Labels, target: Any) -> Any:
    """A target as it is stacked to a batch; a number for samples without one, whose targets aren't used."""
    return 0 if target is None else plan.task.problem.training.encode(target, labels)


def _views(plan: Plan, backbone: Backbone, labels: Labels, samples: Sequence[Any], *, augment: Any) -> SampleDataset:
    from zooft.features import SampleDataset, reader
    from zooft.model.preprocess import ImagePreprocess

    return SampleDataset(
        samples,
        read=reader(plan.task, plan.options),
        preprocess=within(plan.task, "preprocess", plan.task.preprocess(backbone.input, plan.options)),
        augment=augment,
        scale=ImagePreprocess(backbone.input).normalise_,
        decode_small=partial(sample_tables.decode_small, plan.task, backbone.input, plan.options),
        seed=plan.config.seed,
        encode=partial(_encode, plan, labels),
        placing=_make_placing(plan, backbone),
    )


def _make_placing(plan: Plan, backbone: Backbone) -> Placing | None:
    """How targets follow their image, where the problem's have places in it.

    Raises:
        ConfigError: the task doesn't define how it places samples in the network's input.
    """
    from torch.utils.data import default_collate

    from zooft.features import Placing

    training = plan.task.problem.training
    if training.move is None:
        return None
    geometry = finished.geometry_of(plan.task, backbone.input, plan.options)
    return Placing(geometry=geometry.of, move=training.move, collate=training.collate or default_collate)


def _feature_cache(
    plan: Plan, backbone: Backbone, accelerator: Accelerator, reporter: Reporter, clock: Stopwatch, digests: Lookup
) -> FeatureCache | None:
    """Where outputs of frozen stages are cached; None with ``--no-cache``."""
    import torch

    from zooft.compute import distributed
    from zooft.features import FeatureCache

    if not plan.config.caching.cache:
        return None
    return FeatureCache(
        store=default_store(reporter.note),
        of=feature_key(plan, backbone),
        digest=partial(sample_tables.digest, plan.task, plan.options),
        dtype=torch.bfloat16 if plan.config.caching.features == "bf16" else torch.float32,
        device=accelerator.device,
        workers=_workers(plan.config.machine, accelerator),
        computing=reporter.computing,
        note=reporter.note,
        share=partial(distributed.shard, accelerator=accelerator),
        agree=partial(distributed.all_true, accelerator),
        clock=clock,
        digests=digests,
        unchanged=partial(sample_tables.is_unchanged, plan.task, plan.options),
    )


def _teacher_cache(
    plan: Plan,
    teacher: SavedRun,
    backbone: Backbone,
    accelerator: Accelerator,
    reporter: Reporter,
    clock: Stopwatch,
    digests: Lookup,
) -> FeatureCache:
    """Where a teacher's answers are cached: with ``--no-cache`` in memory, since they are computed once in any case."""
    from zooft.compute import distributed
    from zooft.features import FeatureCache
    from zooft.features.cache import HELD_BYTES

    theirs = replace(plan, options=teacher.options, family=plan.registry.family(teacher.record.backbone.family))
    of = feature_key(theirs, teacher.record.backbone)
    if plan.task.augment(backbone.input, plan.options) is not None:  # random views are made by this run's options
        of |= {"views by": [configuration.plain(plan.options), runs.to_json(backbone.input)]}
    alike = teacher.options == plan.options  # else what a digest is of may differ
    return FeatureCache(
        store=default_store(reporter.note) if plan.config.caching.cache else MemoryStore(HELD_BYTES),
        of=of,
        digest=partial(sample_tables.digest, plan.task, teacher.options),
        device=accelerator.device,
        workers=_workers(plan.config.machine, accelerator),
        computing=reporter.computing,
        note=reporter.note,
        share=partial(distributed.shard, accelerator=accelerator),
        agree=partial(distributed.all_true, accelerator),
        clock=clock,
        digests=digests if alike else Lookup(),
        unchanged=partial(sample_tables.is_unchanged, plan.task, teacher.options),
    )


def _hyperparameters(config: FinetuneConfig, accelerator: Accelerator) -> Hyperparameters:
    from zooft.train.optimizer import Hyperparameters

    training, rates = config.training, config.optimization
    return Hyperparameters(
        epochs=training.epochs,
        batch_size=training.batch_size,
        precision=training.precision,
        compile=training.compile,
        sync_bn=training.sync_bn,
        optimizer=rates.optimizer,
        lr=rates.lr,
        backbone_lr=rates.backbone_lr,
        momentum=rates.momentum,
        weight_decay=rates.weight_decay,
        schedule=rates.schedule,
        warmup=rates.warmup,
        step_epochs=rates.step_epochs,
        step_factor=rates.step_factor,
        power=rates.power,
        workers=_workers(config.machine, accelerator),
        seed=config.seed,
    )


def _workers(options: MachineOptions, accelerator: Accelerator) -> int:
    """As set, else what suits the machine."""
    if options.workers is not None:
        return options.workers
    return machine.loader_workers(accelerator.device.type, processes=accelerator.num_processes)


def _watch(
    context: TrainingContext, job: Job, folder: Path | None, *, frozen: frozenset[str], fold: int | None
) -> Watch:
    """What happens as epochs end: the main process saves them, reports them, and notifies plugins."""
    from zooft.model.adapted import zoo_state_dict
    from zooft.train import Watch

    plan, reporter = context.plan, context.reporter
    if folder is None:
        return Watch(computing=reporter.computing, epoch=lambda _record: None, note=reporter.note)
    folder.mkdir(parents=True, exist_ok=True)
    writer = CheckpointWriter(folder, frozen=frozen, loss=job.loss)

    def save(progress: Progress, optimizer: Optimizer) -> None:
        final = progress.epoch == plan.config.training.epochs
        if progress.epoch == 1 and (folder / runs.RUN_FILE).is_file():
            update_record(folder, resolved=_resolve(progress))
        whole = replace(progress, resolved={**progress.resolved, "contents": context.contents})
        runs.write_json_lines(folder / runs.EPOCHS_FILE, progress.records)
        writer.after(whole, lambda: zoo_state_dict(job.model), optimizer, final=final)

    def after_epoch(record: EpochRecord) -> None:
        reporter.epoch(record, plan.config.training.epochs)
        context.events.epoch_ended(record, fold=fold)

    return Watch(computing=reporter.computing, epoch=after_epoch, note=reporter.note, save=save, clock=context.clock)


def _resolve(progress: Progress) -> ResolvedRecord:
    """What the run chose or measured by itself, for its record."""
    chosen = progress.resolved
    return ResolvedRecord(
        batch_size=chosen["batch_size"],
        lr=chosen["lr"],
        weight_decay=chosen["weight_decay"],
        views=chosen["views"],
        precision=chosen.get("precision", {}),
    )


def _never_trained(plan: Plan, adapted: AdaptedModel) -> frozenset[str]:
    """The zoo's names of tensors that no epoch changes."""
    frozen = set(list(adapted.stages)[: _untrained_prefix(plan, adapted)])
    return frozenset(name for name, stages in adapted.owners.items() if stages and set(stages) <= frozen)


def predict(context: TrainingContext, saved: SavedRun, members: Sequence[Sample]) -> Predictions:
    """A trained model's predictions, by the calling process: in float32, as the exported file computes."""
    exact = context.plan.config.caching.features == "fp32"
    answers = _predict(context, saved, members, context.feature_cache if exact else None)
    if not exact and context.feature_cache is not None:
        moved = _predict(context, saved, members, context.feature_cache)
        shown = [_answers(context.plan, saved, found) for found in (answers, moved)]
        flipped = float(np.mean([one != other for one, other in zip(*shown, strict=True)]))
        context.reporter.note(
            f"features in bf16 change {flipped:.1%} of {len(members)} answers; the figures are of float32"
        )
    return answers


def _answers(plan: Plan, saved: SavedRun, found: Predictions) -> list[Any]:
    """The answers themselves, such as classes."""
    cells = plan.task.problem.presentation.cells(found, saved.labels, saved.fitted)
    return list(next(iter(cells.values())))


def _predict(
    context: TrainingContext, saved: SavedRun, members: Sequence[Sample], feature_cache: FeatureCache | None
) -> Predictions:
    return finished.predict_run(
        saved,
        members,
        device=str(context.accelerator.device),
        workers=_workers(context.plan.config.machine, context.accelerator),
        advance=context.reporter.computing("held-out samples", len(members)),
        feature_cache=feature_cache,
        stop=_untrained_prefix(context.plan, saved.model),
    )


def _untrained_prefix(plan: Plan, adapted: AdaptedModel) -> int:
    """How many leading stages no epoch has trained."""
    from zooft.model import freeze

    freezer, argument = plan.registry.freezer(plan.config.model.freeze)
    plans = [freeze.plan(adapted, freezer, argument, epoch) for epoch in range(plan.config.training.epochs)]
    return min(freeze.frozen_prefix(adapted, each.frozen, each.exempt) for each in plans)


def on_main(value: T | None) -> T:
    """What the main process alone has, in the main process."""
    assert value is not None  # noqa: S101 -- only the main process calls
    return value
