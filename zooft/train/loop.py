"""The training loop: read `fit` from top to bottom.

Owns epochs, their steps, and the choice of the best one. An epoch's data comes from `features`, optimizers and
rates from `optimizer`; sharing among processes is `compute.distributed`'s, and what an interrupted run resumes from is
`run.checkpoint`'s.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from zooft import features
from zooft.compute import distributed, trees
from zooft.compute.profile import Stopwatch
from zooft.contracts import EpochRecord, Loss
from zooft.errors import DivergedError
from zooft.model import freeze
from zooft.model.adapted import load_zoo_state_dict
from zooft.run.checkpoint import Progress, restore_loss, restore_optimizer
from zooft.train import speed, step
from zooft.train.optimizer import Hyperparameters, make_optimizer, rate_factor, set_rates

if TYPE_CHECKING:
    from accelerate import Accelerator
    from numpy.typing import NDArray

    from zooft.contracts import Columns, FreezePlan
    from zooft.features import EpochData, FeatureCache, SampleDataset, Teacher
    from zooft.model.adapted import AdaptedModel
    from zooft.run.checkpoint import Checkpoint
    from zooft.train.distillation import DistilledLoss
    from zooft.train.loss import TaskLoss

USUAL_BATCH = 32
LARGEST_HEAD_BATCH = 256
HEAD_STEPS = 20
"""Steps an epoch that a head alone takes at least, before its batches grow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is trained.

    Attributes:
        model: to be trained in place.
        train: the training samples' views.
        val: the validation samples' plain views; None where all samples are trained on.
        keep_last: save the last epoch, not the best; always so without validation samples.
        loss: ``(outputs, targets) -> scalar``; its own parameters learn as the head does.
        metrics: of the head's outputs, name to array, and of targets as they stand in the samples.
        rows: where outputs are too large to be held for all samples: ``(outputs, targets of the batch)`` to small
            columns, of which `figures` are then computed in place of `metrics`; None elsewhere.
        figures: of the columns of all samples.
        primary: the metric that chooses the best epoch.
        plan: epoch (from 0) to what stays frozen.
        feature_cache: how outputs of frozen stages are cached; None to compute it in every epoch.
        views: random views of each sample that are cached; None for fresh ones in every epoch.
        smaller: whether the primary metric is better when smaller.
        coupled: whether the loss needs the whole batch at once.
        penalty: of the squares of the head's weights, beside the mean loss.
        order: ``(size of a batch, seed)`` to the samples of an epoch in their order; None for each once, at random.
        teacher: whose answers to the training samples are learnt from too; random views are then the same `views` ones
            in every epoch. None where there is none.
    """

    model: AdaptedModel
    train: SampleDataset
    val: SampleDataset | None
    keep_last: bool
    loss: TaskLoss | DistilledLoss
    metrics: Callable[[Mapping[str, NDArray[Any]], Sequence[Any]], Mapping[str, float]]
    primary: str
    plan: Callable[[int], FreezePlan]
    rows: Callable[[Mapping[str, NDArray[Any]], Sequence[Any]], Columns] | None = None
    figures: Callable[[Columns], Mapping[str, float]] | None = None
    feature_cache: FeatureCache | None = None
    views: int | None = None
    smaller: bool = False
    coupled: bool = False
    penalty: float = 0.0
    order: Callable[[int, int], Sequence[int]] | None = None
    teacher: Teacher | None = None


def _save_nothing(_progress: Progress, _optimizer: torch.optim.Optimizer) -> None:
    """Trials aren't resumed."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What the caller does during training.

    Attributes:
        computing: called with a description and a total; returns what to call with each number done.
        epoch: called with each record, while the model is as that epoch left it.
        note: called with one sentence.
        save: called before `epoch`, with all that resuming needs besides the model.
        clock: measures what takes how long.
    """

    computing: Callable[[str, int], Callable[[int], None]]
    epoch: Callable[[EpochRecord], None]
    note: Callable[[str], None]
    save: Callable[[Progress, torch.optim.Optimizer], None] = _save_nothing
    clock: Stopwatch = field(default_factory=lambda: Stopwatch(on=False))


@contextmanager
def _proof(
    job: Job, hyperparameters: Hyperparameters, accelerator: Accelerator, watch: Watch, checkpoint: Checkpoint | None
) -> Iterator[Watch]:
    """Around the epochs: what was to stay has stayed, and what an earlier process left is taken up in between.

    Raises:
        FrozenChangedError: a frozen tensor moved.
    """
    always, exempt = always_frozen(job, hyperparameters), exempt_parameters(job, hyperparameters)
    to_device(job.model, accelerator)
    before = freeze.fingerprints(job.model, always, exempt)
    if checkpoint is not None:  # behind the fingerprints: what an earlier process left must have stayed too
        load_zoo_state_dict(job.model, checkpoint.model, what="last/")
        restore_loss(job.loss, checkpoint.loss)
    resumed = 0 if checkpoint is None else checkpoint.progress.epoch

    def save(progress: Progress, optimizer: torch.optim.Optimizer) -> None:
        if (
            job.model.fixed and progress.epoch == resumed + 1
        ):  # a layer that moves what is fixed shouldn't cost a whole run
            freeze.check_unchanged(job.model, {name: before[name] for name in job.model.fixed}, ())
        watch.save(progress, optimizer)

    yield replace(watch, save=save)
    freeze.check_unchanged(job.model, before, always, exempt)


def to_device(model: AdaptedModel, accelerator: Accelerator) -> AdaptedModel:
    """The same model, on the device and in the layout of training."""
    return model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def always_frozen(job: Job, hyperparameters: Hyperparameters) -> list[str]:
    """The stages that every epoch freezes; what is exempt in them may learn."""
    plans = [job.plan(epoch) for epoch in range(hyperparameters.epochs)]
    return [stage for stage in job.model.stages if all(stage in plan.frozen for plan in plans)]


def exempt_parameters(job: Job, hyperparameters: Hyperparameters) -> frozenset[str]:
    """The parameters that one of the epochs trains though their stage is frozen."""
    return frozenset().union(*(job.plan(epoch).exempt for epoch in range(hyperparameters.epochs)))


def learns_in(job: Job, epochs: Iterable[int]) -> frozenset[str]:
    """The trunk's parameters that one of `epochs` (from 0) trains."""
    found = freeze.learning_by_stage(job.model, map(job.plan, epochs))
    return frozenset(name for named in found.values() for name, _ in named)


def head_only(job: Job, hyperparameters: Hyperparameters) -> bool:
    """Whether the head alone learns, on cached features."""
    checkpoint = job.feature_cache is not None and not (job.train.augment is not None and job.views is None)
    return checkpoint and not learns_in(job, range(hyperparameters.epochs))


def usual_batch(samples: int, *, head_only: bool) -> int:
    """The batch size where none is set: a head alone learns as well in larger ones, with steps enough."""
    if not head_only:
        return USUAL_BATCH
    largest = max(1, samples // HEAD_STEPS)
    return min(LARGEST_HEAD_BATCH, max(USUAL_BATCH, 1 << int(math.log2(largest))))


def fit(
    job: Job,
    hyperparameters: Hyperparameters,
    accelerator: Accelerator,
    watch: Watch,
    *,
    epoch_data: EpochData | None = None,
    checkpoint: Checkpoint | None = None,
    prove: bool = True,
) -> None:
    """Train `job.model`, and prove that what was to stay has stayed.

    Args:
        job: what is trained.
        hyperparameters: how.
        accelerator: where.
        watch: called during training.
        epoch_data: what the first epoch is fed, where it has been computed already.
        checkpoint: what an earlier process saved to resume from.
        prove: False of a trial, whose weights nobody gets.

    Raises:
        DivergedError: the loss is no longer finite.
        TrainingError: memory has run out.
        FrozenChangedError: a frozen tensor moved.
    """
    with ExitStack() as around:
        if prove:
            watch = around.enter_context(_proof(job, hyperparameters, accelerator, watch, checkpoint))
        model = to_device(job.model, accelerator)
        plans = [job.plan(epoch) for epoch in range(hyperparameters.epochs)]
        first = min(0 if checkpoint is None else checkpoint.progress.epoch, hyperparameters.epochs - 1)
        epoch_data = epoch_data_of(job, plans[first], epoch_data)
        progress = (
            _begin(job, hyperparameters, accelerator, watch, epoch_data) if checkpoint is None else checkpoint.progress
        )
        batch_size = int(progress.resolved["batch_size"])
        steps = distributed.steps(len(job.train), batch_size)
        job.loss.to(accelerator.device)
        optimizer = make_optimizer(model, hyperparameters, plans, job.loss, penalty=job.penalty)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, steps, hyperparameters))
        if checkpoint is not None:
            if checkpoint.settings:
                restore_optimizer(optimizer, checkpoint.optimizer, checkpoint.settings)
            scheduler.last_epoch = steps * progress.epoch
            for group, rate in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
                group["lr"] = rate * rate_factor(scheduler.last_epoch, steps, hyperparameters)
        learner: step.Learner | None = None
        for epoch, plan in list(enumerate(plans))[progress.epoch :]:
            began = time.perf_counter()
            epoch_data = epoch_data_of(job, plan, epoch_data)
            freeze.apply(model, plan.frozen, plan.exempt)
            job.loss.train()
            set_rates(optimizer, scheduler, hyperparameters, plan)
            learner, progress = _learner(
                job, hyperparameters, accelerator, watch, plan, epoch_data, progress, before=learner
            )
            # of dropout, which several processes draw apart; an epoch is the same after a resume
            torch.manual_seed(distributed.seed_of(hyperparameters.seed, epoch, accelerator.process_index))
            batches = distributed.batches(
                accelerator,
                samples=len(job.train),
                size=batch_size,
                seed=hyperparameters.seed,
                epoch=epoch,
                order=job.order and job.order(batch_size, distributed.seed_of(hyperparameters.seed, epoch)),
            )
            data = features.loader(epoch_data.train.at(epoch), batches=batches, workers=hyperparameters.workers)
            advance = watch.computing(f"epoch {epoch + 1} of {hyperparameters.epochs}", steps)
            train_loss = step.run(learner, optimizer, scheduler, data, batches, epoch=epoch, advance=advance)
            distributed.broadcast_buffers(model, accelerator)
            distributed.broadcast_buffers(job.loss, accelerator)
            with watch.clock.part("validation"), _validating(job, hyperparameters, learner)(accelerator.device):
                val_loss, values = _validate(job, model, epoch_data, hyperparameters, accelerator, epoch=epoch)
            score = None if job.keep_last or epoch_data.val is None else score_of(job, values, val_loss)
            is_best = _is_best(score, progress, final=epoch == hyperparameters.epochs - 1)
            record = EpochRecord(
                epoch=epoch + 1,
                train_loss=train_loss,
                val_loss=val_loss,
                metrics=values,
                learning_rate=optimizer.param_groups[-1]["lr"],
                seconds=time.perf_counter() - began,
                learning=_learning(model, plan),
                best=is_best,
            )
            progress = progress.after(record, score)
            watch.save(progress, optimizer)
            watch.epoch(record)
        if (
            job.val is not None
            and not job.keep_last
            and not any(math.isfinite(r.metrics[job.primary]) for r in progress.records)
        ):
            watch.note(
                f"{job.primary} is undefined on the validation samples after every epoch, so the best epoch was "
                "chosen by the validation loss alone"
            )


def _begin(
    job: Job, hyperparameters: Hyperparameters, accelerator: Accelerator, watch: Watch, epoch_data: EpochData
) -> Progress:
    """Before the first epoch, with what was resolved, which a resumed run doesn't change."""
    size = hyperparameters.batch_size
    if size == "auto":
        # of all epochs the one in which most learns
        plan = min((job.plan(epoch) for epoch in range(hyperparameters.epochs)), key=lambda plan: len(plan.frozen))
        then = (
            epoch_data
            if freeze.frozen_prefix(job.model, plan.frozen, plan.exempt) == epoch_data.boundary
            else _without_cache(job)
        )
        freeze.apply(job.model, plan.frozen, plan.exempt)
        size, reason = step.find_batch_size(_probe(job, hyperparameters, accelerator, then, 4), samples=len(job.train))
        watch.note(reason)
    if not isinstance(size, int):
        size = usual_batch(len(job.train), head_only=head_only(job, hyperparameters))
    resolved = {
        "batch_size": size,
        "lr": hyperparameters.lr,
        "weight_decay": hyperparameters.weight_decay,
        "views": job.views,
    }
    return Progress(records=(), score=None, best=0, resolved=resolved)


def epoch_data_of(job: Job, plan: FreezePlan, before: EpochData | None = None) -> EpochData:
    """What an epoch is fed: the same as before, unless the boundary has moved.

    Then what leaves the new one is computed.
    """
    boundary = freeze.frozen_prefix(job.model, plan.frozen, plan.exempt)
    if before is not None and before.boundary == boundary:
        return before
    return _feed(job, boundary, job.feature_cache)


def _feed(job: Job, boundary: int, feature_cache: FeatureCache | None) -> EpochData:
    data = features.feed(
        job.model,
        job.train,
        job.val,
        boundary=boundary,
        views=job.views,
        feature_cache=feature_cache,
        pooled=job.teacher is not None,
    )
    return data if job.teacher is None else features.with_teacher(data, job.teacher, views=job.views)


def _without_cache(job: Job) -> EpochData:
    """The samples themselves."""
    return _feed(job, 0, None)


def _is_best(score: tuple[float, float] | None, progress: Progress, *, final: bool) -> bool:
    """Without a score, the last epoch is the best."""
    if score is None:
        return final
    return progress.score is None or score > progress.score


def _learner(
    job: Job,
    hyperparameters: Hyperparameters,
    accelerator: Accelerator,
    watch: Watch,
    plan: FreezePlan,
    epoch_data: EpochData,
    progress: Progress,
    *,
    before: step.Learner | None,
) -> tuple[step.Learner, Progress]:
    """The one before, unless other stages learn now; how it computes is saved for resuming."""
    if before is not None and (before.plan.frozen, before.plan.exempt) == (plan.frozen, plan.exempt):
        return before, progress
    resolved = progress.resolved.get("precision", {})
    known = resolved.get(str(epoch_data.boundary))
    size = int(progress.resolved["batch_size"])
    left = distributed.steps(len(job.train), size) * (hyperparameters.epochs - progress.epoch)
    probe = _probe(job, hyperparameters, accelerator, epoch_data, size)
    small = epoch_data.start == len(job.model.stages) and not job.model.readings
    chosen = step.from_values(known) if known else step.choose_precision(probe, steps=left, small=small)
    if chosen.reason:
        watch.note(chosen.reason)
    progress = replace(
        progress,
        resolved={**progress.resolved, "precision": {**resolved, str(epoch_data.boundary): step.as_values(chosen)}},
    )
    module = distributed.wrap(job.model, accelerator, sync_bn=hyperparameters.sync_bn)
    if speed.compile_wanted(hyperparameters.compile, accelerator.device, steps=left):
        module = torch.compile(module)  # type: ignore[assignment]
    learner = step.Learner(
        module=module,
        loss=job.loss,
        plan=plan,
        start=epoch_data.start,
        precision=chosen,
        accelerator=accelerator,
        clock=watch.clock,
        note=watch.note,
        coupled=job.coupled,
        summed=job.rows is not None and not job.coupled,
    )
    if watch.clock.on:
        watch.clock.dtype = str(chosen.dtype).removeprefix("torch.")
        learner.gflop = step.gflop_of(_probe(job, hyperparameters, accelerator, epoch_data, 2))
    return learner, progress


def _probe(
    job: Job, hyperparameters: Hyperparameters, accelerator: Accelerator, epoch_data: EpochData, size: int
) -> step.Probe:
    def batch() -> tuple[Tensor, Tensor]:
        first = [list(range(min(size, len(epoch_data.train))))]
        return next(iter(features.loader(epoch_data.train.at(0), batches=first, workers=0)))  # type: ignore[no-any-return]

    return step.Probe(
        model=job.model,
        loss=job.loss,
        hyperparameters=hyperparameters,
        accelerator=accelerator,
        start=epoch_data.start,
        batch=batch,
    )


def predict(
    model: nn.Module, data: Iterable[Any], accelerator: Accelerator, *, start: int = 0
) -> tuple[dict[str, Tensor], Any]:
    """The head's outputs ``(N, …)`` and targets, stacked, on the CPU."""
    model.eval()
    outputs: list[Any] = []
    targets: list[Any] = []
    with torch.inference_mode():
        for x, y in data:
            found = model(features.to_device(x, accelerator.device), start)
            outputs.append(trees.tree_map(lambda tensor: tensor.float().cpu(), found))
            targets.append(y)
    return trees.tree_map(torch.clone, trees.tree_cat(outputs)), trees.tree_map(torch.clone, trees.tree_cat(targets))


def _validate(
    job: Job,
    model: nn.Module,
    epoch_data: EpochData,
    hyperparameters: Hyperparameters,
    accelerator: Accelerator,
    *,
    epoch: int,
) -> tuple[float, dict[str, float]]:
    """Loss and metrics over all validation samples; NaN and nothing where there are none."""
    if epoch_data.val is None:
        return math.nan, {}
    total = len(epoch_data.val)  # type: ignore[arg-type]
    own = distributed.shard(total, accelerator)
    part = epoch_data.val if len(own) == total else Subset(epoch_data.val, own)
    if job.rows is not None:
        batches = features.loader(part, batch_size=features.AT_A_TIME, workers=hyperparameters.workers)
        return _validate_by_batch(job, model, batches, accelerator, start=epoch_data.val_start, epoch=epoch)
    answered = []
    if len(own):
        batches = features.loader(part, batch_size=features.AT_A_TIME, workers=hyperparameters.workers)
        answered = [predict(model, batches, accelerator, start=epoch_data.val_start)]
    outputs = distributed.gather([z for z, _ in answered], own, accelerator)
    targets = distributed.gather([t for _, t in answered], own, accelerator)
    # one process evaluates, so that all continue alike: other processors may round otherwise
    return distributed.first(accelerator, lambda: _worth(job, outputs, targets, accelerator.device, epoch))


def _worth(
    job: Job, outputs: dict[str, Tensor], targets: Any, device: torch.device, epoch: int
) -> tuple[float, dict[str, float]]:
    job.loss.eval()  # what validation samples are is nothing to learn from: neither statistics nor centres of classes
    with torch.no_grad():
        loss = float(job.loss(trees.to_device(outputs, device), trees.to_device(targets, device)))
    _check_finite(loss, epoch)
    assert job.val is not None  # noqa: S101 -- the caller has checked
    truth = [sample.target for sample in job.val.samples]
    values = job.metrics({name: tensor.numpy() for name, tensor in outputs.items()}, truth)
    return loss, {name: float(value) for name, value in values.items()}


def _check_finite(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"the validation loss became {loss} after epoch {epoch + 1}; "
            "try a tenth of --lr and --backbone-lr, or a longer --warmup"
        )


def _validate_by_batch(
    job: Job, model: nn.Module, batches: Iterable[Any], accelerator: Accelerator, *, start: int, epoch: int
) -> tuple[float, dict[str, float]]:
    """Loss and metrics of outputs that are never held for more than one batch."""
    assert job.rows is not None  # noqa: S101 -- the caller has checked
    assert job.figures is not None  # noqa: S101 -- given with `rows`
    model.eval()
    job.loss.eval()
    columns, total, weight = [], 0.0, 0.0
    with torch.inference_mode():
        for x, y in batches:
            outputs = trees.floats(model(features.to_device(x, accelerator.device), start))
            sums = job.loss.sums(outputs, trees.to_device(y, accelerator.device))
            loss = sums if isinstance(sums, Loss) else Loss(sums * len(x), len(x))
            total, weight = total + float(loss.total), weight + float(loss.weight)
            moved = [trees.arrays(trees.rows(y, row)) for row in range(len(x))]
            columns.append(job.rows({name: tensor.cpu().numpy() for name, tensor in outputs.items()}, moved))
    parts = distributed.all_gather_object((columns, total, weight), accelerator)

    def figures() -> tuple[float, dict[str, float]]:
        loss = sum(part[1] for part in parts) / sum(part[2] for part in parts)
        _check_finite(loss, epoch)
        rows = [each for part in parts for each in part[0]]
        joined = {name: np.concatenate([each[name] for each in rows]) for name in rows[0]}
        assert job.figures is not None  # noqa: S101 -- as above
        return loss, {name: float(value) for name, value in job.figures(joined).items()}

    return distributed.first(accelerator, figures)


def _validating(job: Job, hyperparameters: Hyperparameters, learner: step.Learner) -> speed.Precision:
    """Float32, as the deployed file computes; of a head alone on cached float32 features that of its steps is as near.

    A backbone answers otherwise in bfloat16, so that the best epoch would be chosen by figures that aren't the file's.
    """
    return learner.precision if head_only(job, hyperparameters) else replace(learner.precision, dtype=torch.float32)


def _learning(model: AdaptedModel, plan: FreezePlan) -> tuple[str, ...]:
    return (*freeze.learning_by_stage(model, [plan]), "head")


def score_of(job: Job, values: Mapping[str, float], val_loss: float) -> tuple[float, float]:
    """The score of an epoch or a trial: the larger one is better."""
    return score(values[job.primary], val_loss, smaller=job.smaller)


def score(primary: float, val_loss: float, *, smaller: bool = False) -> tuple[float, float]:
    """By the primary metric, where it is a number, then by the loss."""
    signed = -primary if smaller else primary
    return (signed if math.isfinite(signed) else -math.inf, -val_loss)
