"""The training loop: read `fit` from top to bottom.

Owns optimizers, schedules, epochs and the choice of the best one. accelerate places tensors and, under torchrun,
shards the data; the loop itself is plain.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zooft import features, freeze
from zooft.contracts import EpochRecord
from zooft.errors import TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from numpy.typing import NDArray
    from torch.utils.data import DataLoader, Dataset

    from zooft.contracts import FreezePlan
    from zooft.features import Views
    from zooft.model import AdaptedModel


_TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed")
"""Parameters of transformers that don't decay, as in timm's ``no_weight_decay``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to learn: the values behind the flags of the same names."""

    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    backbone_lr: float
    momentum: float
    weight_decay: float
    schedule: str
    warmup: float
    step_epochs: int
    step_factor: float
    power: float
    workers: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is learnt.

    Attributes:
        model: to be trained in place.
        train: the training samples' views, random ones where `augmented`.
        val: the validation samples' plain views; None where all samples are learnt from.
        keep_last: keep the last epoch, whatever validation says; always so without validation samples.
        augmented: whether training views change from epoch to epoch.
        loss: ``(logits, targets) -> scalar``.
        metrics: of targets and probabilities.
        primary: the metric that chooses the best epoch.
        activation: logits to probabilities.
        plan: epoch (from 0) to what stays frozen.
        memory: what frozen stages gave in earlier jobs with the same backbone and data, to be added to; None to
            keep nothing beyond this job.
    """

    model: AdaptedModel
    train: Views
    val: Views | None
    keep_last: bool
    augmented: bool
    loss: nn.Module
    metrics: Callable[[NDArray[Any], NDArray[Any]], Mapping[str, float]]
    primary: str
    activation: Callable[[Tensor], Tensor]
    plan: Callable[[int], FreezePlan]
    memory: features.Memory | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """What the caller does while training goes on.

    Attributes:
        computing: called with a description and a total; returns what to call with each number done.
        epoch: called with each record, while the model is as that epoch left it.
        note: called with one sentence.
    """

    computing: Callable[[str, int], Callable[[int], None]]
    epoch: Callable[[EpochRecord], None]
    note: Callable[[str], None]


def fit(job: Job, recipe: Recipe, accelerator: Accelerator, watch: Watch) -> None:
    """Train `job.model`, and prove that what was to stay has stayed.

    Raises:
        TrainingError: the loss is no longer finite.
        FrozenChangedError: a frozen tensor moved.
    """
    model = job.model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    plans = [job.plan(epoch) for epoch in range(recipe.epochs)]
    always = [stage for stage in model.stages if all(stage in plan.frozen for plan in plans)]
    before = freeze.fingerprints(model, always)
    optimizer = make_optimizer(model, recipe, plans)
    steps = math.ceil(len(job.train) / (recipe.batch_size * accelerator.num_processes))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, steps, recipe))
    freeze.apply(model, plans[0].frozen)
    wrapped, optimizer, loss = accelerator.prepare(model, optimizer, job.loss)
    best: tuple[float, float] | None = None
    feed: _Feed | None = None
    for epoch, plan in enumerate(plans):
        began = time.perf_counter()
        job.train.epoch = epoch
        feed = _feed(job, recipe, plan, always, accelerator, watch, before=feed)
        freeze.apply(model, plan.frozen)
        shuffled = features.loader(
            feed.train, batch_size=recipe.batch_size, workers=recipe.workers, shuffle_seed=recipe.seed + epoch
        )
        advance = watch.computing(f"epoch {epoch + 1} of {recipe.epochs}", steps)
        train_loss = _learn(
            wrapped, loss, optimizer, scheduler, accelerator.prepare(shuffled), accelerator,
            start=feed.start, epoch=epoch, advance=advance,
        )  # fmt: skip
        val_loss, values = math.nan, dict[str, float]()
        if feed.val is not None:
            val_loss, values = _validate(job, wrapped, feed.val, accelerator, start=feed.start, epoch=epoch)
        if job.keep_last or feed.val is None:
            is_best = epoch == recipe.epochs - 1
        else:
            rank = (_comparable(values[job.primary]), -val_loss)
            is_best = best is None or rank > best
            best = rank if is_best else best
        watch.epoch(
            EpochRecord(
                epoch=epoch + 1,
                train_loss=train_loss,
                val_loss=val_loss,
                metrics=values,
                learning_rate=optimizer.param_groups[-1]["lr"],
                seconds=time.perf_counter() - began,
                learning=_learning(model, plan),
                best=is_best,
            )
        )
    freeze.check_unchanged(model, before, always)


def predict(
    model: nn.Module, data: DataLoader[Any], accelerator: Accelerator, *, start: int = 0
) -> tuple[Tensor, Tensor]:
    """Logits ``(N, outputs)`` and targets ``(N,)`` on the CPU, gathered from all processes, none twice."""
    model.eval()
    logits: list[Tensor] = []
    targets: list[Tensor] = []
    with torch.inference_mode():
        for x, y in data:
            z, t = accelerator.gather_for_metrics((model(features.place(x, accelerator.device), start), y))
            logits.append(z.float().cpu())
            targets.append(t.cpu())
    return torch.cat(logits).clone(), torch.cat(targets).clone()


def make_optimizer(model: AdaptedModel, recipe: Recipe, plans: Sequence[FreezePlan]) -> torch.optim.Optimizer:
    """One parameter group for each learning rate and decay; norms and biases don't decay.

    The head's groups come last. Parameters that no epoch trains are left out.
    """
    groups: list[dict[str, Any]] = []
    for name, named in freeze.parameters_by_stage(model).items():
        if all(name in plan.frozen for plan in plans):
            continue
        groups += _groups(named, recipe.backbone_lr * plans[0].scales.get(name, 1.0), recipe.weight_decay)
    groups += _groups(list(model.head.named_parameters()), recipe.lr, recipe.weight_decay)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr)


def rate_factor(step: int, steps_per_epoch: int, recipe: Recipe) -> float:
    """The learning rate at `step` (from 0) over the initial one.

    Rises linearly over the warm-up's share of the steps, then falls: ``cosine`` to 0 (Loshchilov and Hutter
    2017), ``step`` by a factor every few epochs, ``polynomial`` as (1 - t/T)^power, ``constant`` not at all.
    """
    total = max(1, steps_per_epoch * recipe.epochs)
    rising = round(total * recipe.warmup)
    if step < rising:
        return (step + 1) / rising
    done = min(1.0, (step - rising) / max(1, total - rising))
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if recipe.schedule == "polynomial":
        return float((1 - done) ** recipe.power)
    if recipe.schedule == "step":
        return float(recipe.step_factor ** (step // (steps_per_epoch * recipe.step_epochs)))
    return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Feed:
    """What an epoch is fed.

    Attributes:
        boundary: how many leading stages are frozen.
        start: the first stage that runs: the boundary where what leaves it is kept, or 0.
        train: the inputs of that stage.
        val: the same, in batches.
    """

    boundary: int
    start: int
    train: Dataset[Any]
    val: DataLoader[Any] | None


def _feed(
    job: Job,
    recipe: Recipe,
    plan: FreezePlan,
    always: Sequence[str],
    accelerator: Accelerator,
    watch: Watch,
    *,
    before: _Feed | None,
) -> _Feed:
    """The same as in the epoch before, unless the boundary has moved: then what leaves the new one is computed."""
    boundary = freeze.frozen_prefix(job.model, plan.frozen)
    if before is not None and before.boundary == boundary:
        return before
    fixed = boundary <= freeze.frozen_prefix(job.model, always)  # else it may have learnt since `memory` was filled
    if job.augmented and boundary and before is None:
        watch.note("the frozen stages run in every epoch, because augmentation changes what they see")
    start, train, val = 0, job.train, job.val
    if boundary and not job.augmented:
        start, train, val = _kept(job, recipe, boundary, job.memory if fixed else None, accelerator.device, watch)  # type: ignore[assignment]
    batches = None if val is None else accelerator.prepare(
        features.loader(val, batch_size=recipe.batch_size, workers=recipe.workers)
    )  # fmt: skip
    return _Feed(boundary=boundary, start=start, train=train, val=batches)


def _kept(
    job: Job, recipe: Recipe, boundary: int, memory: features.Memory | None, device: torch.device, watch: Watch
) -> tuple[int, Dataset[Any], Dataset[Any] | None]:
    """What leaves the frozen stages for every sample; the samples themselves where that doesn't fit into memory."""
    wanted = [views for views in (job.train, job.val) if views is not None]
    advance = watch.computing("frozen stages, once", sum(map(len, wanted)))
    kept = [
        features.precompute(
            job.model, views, stop=boundary, batch_size=recipe.batch_size, workers=recipe.workers,
            device=device, memory=memory, advance=advance,
        )
        for views in wanted
    ]  # fmt: skip
    if any(part is None for part in kept):
        watch.note("the frozen stages run in every epoch, because their outputs don't fit into memory")
        return 0, job.train, job.val
    return boundary, kept[0], kept[1] if job.val is not None else None  # type: ignore[return-value]


def _learn(
    model: nn.Module,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    data: Iterable[tuple[Tensor, Tensor]],
    accelerator: Accelerator,
    *,
    start: int,
    epoch: int,
    advance: Callable[[int], None],
) -> float:
    """One epoch; the mean loss over its samples."""
    total, count = torch.zeros((), device=accelerator.device), 0
    for step, (x, y) in enumerate(data):
        value = loss(model(features.place(x, accelerator.device), start), y)
        if not bool(torch.isfinite(value)):
            rate = optimizer.param_groups[-1]["lr"]
            raise TrainingError(
                f"the loss became {float(value.detach())} in epoch {epoch + 1}, step {step + 1}, at a learning rate of {rate:.2g}; "
                "try a tenth of --lr and --backbone-lr, a longer --warmup, or a larger --batch-size"
            )
        accelerator.backward(value)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        total += value.detach() * len(y)
        count += len(y)
        advance(1)
    sums = accelerator.reduce(torch.stack([total, torch.tensor(float(count), device=total.device)]))
    return float(sums[0] / sums[1])


def _validate(
    job: Job, model: nn.Module, data: DataLoader[Any], accelerator: Accelerator, *, start: int, epoch: int
) -> tuple[float, dict[str, float]]:
    """Loss and metrics over all validation samples."""
    logits, targets = predict(model, data, accelerator, start=start)
    loss = float(job.loss(logits.to(accelerator.device), targets.to(accelerator.device)))
    if not math.isfinite(loss):
        raise TrainingError(
            f"the validation loss became {loss} after epoch {epoch + 1}; "
            "try a tenth of --lr and --backbone-lr, or a longer --warmup"
        )
    values = job.metrics(targets.numpy(), job.activation(logits).numpy())
    return loss, {name: float(value) for name, value in values.items()}


def _groups(named: Sequence[tuple[str, nn.Parameter]], lr: float, decay: float) -> list[dict[str, Any]]:
    plain = [p for name, p in named if p.ndim <= 1 or name.endswith(_TOKENS)]
    ids = {id(p) for p in plain}
    decayed = [p for _, p in named if id(p) not in ids]
    groups = [
        {"params": decayed, "lr": lr, "weight_decay": decay},
        {"params": plain, "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _learning(model: AdaptedModel, plan: FreezePlan) -> tuple[str, ...]:
    return (*(name for name in freeze.learnable_stages(model) if name not in plan.frozen), "head")


def _comparable(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
