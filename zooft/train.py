"""The training loop: read `fit` from top to bottom.

Owns epochs, their steps, and the choice of the best one. What an epoch is fed comes from `features`, optimizers and rates
from `optimize`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zooft import features, freeze
from zooft.contracts import EpochRecord
from zooft.errors import TrainingError
from zooft.optimize import Recipe, make_optimizer, rate_factor

if TYPE_CHECKING:
    from accelerate import Accelerator
    from numpy.typing import NDArray
    from torch.utils.data import DataLoader

    from zooft.contracts import FreezePlan
    from zooft.features import Feed, Keeping, Views
    from zooft.model import AdaptedModel

USUAL_BATCH = 32
LARGEST_HEAD_BATCH = 256
HEAD_STEPS = 20
"""Steps an epoch that a head alone takes at least, before its batches grow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is learnt.

    Attributes:
        model: to be trained in place.
        train: the training samples' views.
        val: the validation samples' plain views; None where all samples are learnt from.
        keep_last: keep the last epoch, whatever validation says; always so without validation samples.
        loss: ``(logits, targets) -> scalar``.
        metrics: of targets and probabilities.
        primary: the metric that chooses the best epoch.
        activation: logits to probabilities.
        plan: epoch (from 0) to what stays frozen.
        keeping: how what leaves frozen stages is kept; None to compute it in every epoch.
        views: random views of each sample that are kept; None for fresh ones in every epoch.
    """

    model: AdaptedModel
    train: Views
    val: Views | None
    keep_last: bool
    loss: nn.Module
    metrics: Callable[[NDArray[Any], NDArray[Any]], Mapping[str, float]]
    primary: str
    activation: Callable[[Tensor], Tensor]
    plan: Callable[[int], FreezePlan]
    keeping: Keeping | None = None
    views: int | None = None


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


def fit(job: Job, recipe: Recipe, accelerator: Accelerator, watch: Watch, *, feed: Feed | None = None) -> None:
    """Train `job.model`, and prove that what was to stay has stayed.

    Args:
        job: what is learnt.
        recipe: how.
        accelerator: where.
        watch: told how it goes on.
        feed: what the first epoch is fed, where it has been computed already.

    Raises:
        TrainingError: the loss is no longer finite.
        FrozenChangedError: a frozen tensor moved.
    """
    always = always_frozen(job, recipe)
    job.model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = freeze.fingerprints(job.model, always)
    run_epochs(job, recipe, accelerator, watch, feed=feed)
    freeze.check_unchanged(job.model, before, always)


def always_frozen(job: Job, recipe: Recipe) -> list[str]:
    """The stages that no epoch trains."""
    plans = [job.plan(epoch) for epoch in range(recipe.epochs)]
    return [stage for stage in job.model.stages if all(stage in plan.frozen for plan in plans)]


def head_only(job: Job, recipe: Recipe) -> bool:
    """Whether the head alone learns, from features that are kept."""
    kept = job.keeping is not None and not (job.train.augment is not None and job.views is None)
    return kept and set(always_frozen(job, recipe)) >= set(freeze.learnable_stages(job.model))


def usual_batch(samples: int, *, head_only: bool) -> int:
    """The batch size where none is asked for: a head alone learns as well in larger ones, with steps enough."""
    if not head_only:
        return USUAL_BATCH
    largest = max(1, samples // HEAD_STEPS)
    return min(LARGEST_HEAD_BATCH, max(USUAL_BATCH, 1 << int(math.log2(largest))))


def run_epochs(job: Job, recipe: Recipe, accelerator: Accelerator, watch: Watch, *, feed: Feed | None = None) -> None:
    """The epochs alone, without the proof."""
    model = job.model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    plans = [job.plan(epoch) for epoch in range(recipe.epochs)]
    batch_size = recipe.batch_size
    if not isinstance(batch_size, int):
        batch_size = usual_batch(len(job.train), head_only=head_only(job, recipe))
    steps = math.ceil(len(job.train) / batch_size)
    optimizer = make_optimizer(model, recipe, plans)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, steps, recipe))
    best: tuple[float, float] | None = None
    loss = job.loss.to(accelerator.device)
    for epoch, plan in enumerate(plans):
        began = time.perf_counter()
        boundary = freeze.frozen_prefix(model, plan.frozen)
        if feed is None or feed.boundary != boundary:
            feed = features.feed(model, job.train, job.val, boundary=boundary, views=job.views, keeping=job.keeping)
        freeze.apply(model, plan.frozen)
        torch.manual_seed(recipe.seed + epoch)  # of dropout; an epoch is the same after a resume
        batches = features.loader(
            feed.train.at(epoch), batch_size=batch_size, workers=recipe.workers, shuffle_seed=recipe.seed + epoch
        )
        advance = watch.computing(f"epoch {epoch + 1} of {recipe.epochs}", steps)
        train_loss = _learn(
            model, loss, optimizer, scheduler, batches, accelerator, start=feed.start, epoch=epoch, advance=advance
        )
        val_loss, values = _validate(job, model, feed, recipe, accelerator, epoch=epoch)
        if job.keep_last or feed.val is None:
            is_best = epoch == recipe.epochs - 1
        else:
            rank = ranked(values[job.primary], val_loss)
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


def predict(
    model: nn.Module, data: DataLoader[Any], accelerator: Accelerator, *, start: int = 0
) -> tuple[Tensor, Tensor]:
    """Logits ``(N, outputs)`` and targets ``(N,)`` on the CPU."""
    model.eval()
    logits: list[Tensor] = []
    targets: list[Tensor] = []
    with torch.inference_mode():
        for x, y in data:
            logits.append(model(features.place(x, accelerator.device), start).float().cpu())
            targets.append(y)
    return torch.cat(logits).clone(), torch.cat(targets).clone()


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
        value = loss(model(features.place(x, accelerator.device), start), y.to(accelerator.device))
        if not bool(torch.isfinite(value)):
            rate = optimizer.param_groups[-1]["lr"]
            raise TrainingError(
                f"the loss became {float(value.detach())} in epoch {epoch + 1}, step {step + 1}, at a learning rate of {rate:.2g}; "
                "try a tenth of --lr and --backbone-lr, a longer --warmup, or a larger --batch-size"
            )
        value.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        total += value.detach() * len(y)
        count += len(y)
        advance(1)
    return float(total / count)


def _validate(
    job: Job, model: nn.Module, feed: Feed, recipe: Recipe, accelerator: Accelerator, *, epoch: int
) -> tuple[float, dict[str, float]]:
    """Loss and metrics over all validation samples; NaN and nothing where there are none."""
    if feed.val is None:
        return math.nan, {}
    batches = features.loader(feed.val, batch_size=features.AT_A_TIME, workers=recipe.workers)
    logits, targets = predict(model, batches, accelerator, start=feed.val_start)
    loss = float(job.loss(logits.to(accelerator.device), targets.to(accelerator.device)))
    if not math.isfinite(loss):
        raise TrainingError(
            f"the validation loss became {loss} after epoch {epoch + 1}; "
            "try a tenth of --lr and --backbone-lr, or a longer --warmup"
        )
    values = job.metrics(targets.numpy(), job.activation(logits).numpy())
    return loss, {name: float(value) for name, value in values.items()}


def _learning(model: AdaptedModel, plan: FreezePlan) -> tuple[str, ...]:
    return (*(name for name in freeze.learnable_stages(model) if name not in plan.frozen), "head")


def ranked(primary: float, val_loss: float) -> tuple[float, float]:
    """Epochs and trials by their worth: the larger one is better."""
    return (primary if math.isfinite(primary) else -math.inf, -val_loss)
