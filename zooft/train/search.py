"""Several ways to train a head on cached features, tried one after the other; validation chooses.

Owns ``--sweep`` and ``--views auto``. A trial costs a fraction of a second once the features are there, which is why
only heads are searched here.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zooft.contracts import unseen
from zooft.errors import ConfigError, DivergedError
from zooft.train.loop import Job, Watch, epoch_data_of, fit, head_only, score, score_of, to_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerate import Accelerator

    from zooft.contracts import EpochRecord
    from zooft.features import EpochData
    from zooft.train.optimizer import Hyperparameters

RATES = (1.0, 0.1, 0.3, 3.0, 10.0)
"""Factors of ``--lr``; the value set comes first and wins a tie."""
DECAYS = (0.01, 0.0, 0.1)
SOME_VIEWS = 4
"""Random views beside the plain one. Measured on three CT data sets, they gained 3 points, gained 1 and lost 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One way that was tried, and its best epoch on the validation samples.

    Attributes:
        lr: the head's learning rate.
        weight_decay: of the head.
        views: random views of each sample beside the plain one.
        epoch: from 1.
        primary: the task's first metric.
        val_loss: mean over the validation samples.
    """

    lr: float
    weight_decay: float
    views: int
    epoch: int
    primary: float
    val_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to train with.

    Attributes:
        job: with the number of views settled.
        hyperparameters: with rate and decay settled.
        epoch_data: what the first epoch is fed, where it has been computed already.
        trials: what was tried; empty where nothing was to be chosen.
    """

    job: Job
    hyperparameters: Hyperparameters
    epoch_data: EpochData | None = None
    trials: tuple[Trial, ...] = ()


def choose(
    job: Job, hyperparameters: Hyperparameters, accelerator: Accelerator, watch: Watch, *, views: int | str, sweep: bool
) -> Choice:
    """Settle what was left open.

    Args:
        job: what is trained.
        hyperparameters: as set.
        accelerator: where.
        watch: notified of what was chosen.
        views: a number, or ``auto``.
        sweep: whether rates and decays are to be tried.

    Raises:
        ConfigError: a sweep where more than a head learns, or without validation samples.
    """
    resolved = replace(job, views=_views(job, views))
    able = head_only(resolved, hyperparameters) and job.val is not None and not job.keep_last
    if sweep and not able:
        raise ConfigError(_why_not(job))
    counts = [0, SOME_VIEWS] if able and views == "auto" and resolved.views is not None else [resolved.views]
    choice = Choice(job=resolved, hyperparameters=hyperparameters)
    if len(counts) > 1:
        choice = _try_all(choice, [(hyperparameters, count) for count in counts], accelerator, watch)
    if sweep:
        choice = _try_all(choice, [(way, choice.job.views) for way in _ways(hyperparameters)], accelerator, watch)
    if choice.trials:
        watch.note(_describe(choice, job.primary))
    return choice


def _views(job: Job, count: int | str) -> int | None:
    """How many random views there are where validation doesn't choose; None for fresh ones, or none at all."""
    if job.train.augment is None or (job.feature_cache is None and job.teacher is None):
        return None
    return SOME_VIEWS if count == "auto" else int(count)


def _try_all(
    given: Choice, ways: Sequence[tuple[Hyperparameters, int | None]], accelerator: Accelerator, watch: Watch
) -> Choice:
    """The best of `ways`, each trained from the same initial head and loss, which are put back after each."""
    to_device(given.job.model, accelerator)
    learning = (given.job.model.head, given.job.loss.to(accelerator.device))
    initial = [copy.deepcopy(module.state_dict()) for module in learning]
    feeds = {} if given.epoch_data is None else {given.job.views: given.epoch_data}
    advance = watch.computing("trying", len(ways))
    best, best_score, trials = given, None, []
    diverged: DivergedError | None = None
    for hyperparameters, views in ways:
        job = replace(given.job, views=views)
        epoch_data = feeds[views] = feeds.get(views) or epoch_data_of(job, job.plan(0))
        try:
            with watch.clock.part("trying heads"):
                record = _best_epoch(job, hyperparameters, epoch_data, accelerator)
        except DivergedError as error:  # too fast a rate is a bad way, not the end
            diverged, record = error, None
        for module, values in zip(learning, initial, strict=True):
            module.load_state_dict(values)
        advance(1)
        if record is None:
            continue
        trials.append(_trial(record, hyperparameters, views, job.primary))
        score = score_of(job, record.metrics, record.val_loss)
        if best_score is None or score > best_score:
            best_score, best = score, Choice(job=job, hyperparameters=hyperparameters, epoch_data=epoch_data)
    if best_score is None and diverged is not None:
        raise diverged
    return replace(best, trials=(*given.trials, *trials))


def _best_epoch(
    job: Job, hyperparameters: Hyperparameters, epoch_data: EpochData, accelerator: Accelerator
) -> EpochRecord:
    records: list[EpochRecord] = []
    quiet = Watch(computing=unseen, epoch=records.append, note=lambda _text: None)
    fit(job, hyperparameters, accelerator, quiet, epoch_data=epoch_data, prove=False)
    return next(record for record in reversed(records) if record.best)


def _trial(record: EpochRecord, hyperparameters: Hyperparameters, views: int | None, primary: str) -> Trial:
    return Trial(
        lr=hyperparameters.lr,
        weight_decay=hyperparameters.weight_decay,
        views=views or 0,
        epoch=record.epoch,
        primary=float(record.metrics[primary]),
        val_loss=record.val_loss,
    )


def _ways(hyperparameters: Hyperparameters) -> list[Hyperparameters]:
    """The values set come first."""
    decays = dict.fromkeys([hyperparameters.weight_decay, *DECAYS])
    return [
        replace(hyperparameters, lr=hyperparameters.lr * factor, weight_decay=decay)
        for decay in decays
        for factor in RATES
    ]


def _why_not(job: Job) -> str:
    what = "--sweep trains many heads on cached features, and chooses by validation samples"
    if job.keep_last or job.val is None:
        return f"{what}; with --folds every sample is evaluated on; leave out one of the two"
    if job.feature_cache is None:
        return f"{what}; with --no-cache there are none; leave out one of the two"
    return f"{what}; with this --freeze more than the head learns; use --freeze backbone, or leave out --sweep"


def _describe(chosen: Choice, primary: str) -> str:
    """What a user should know of the choice."""
    best = max(chosen.trials, key=lambda trial: score(trial.primary, trial.val_loss, smaller=chosen.job.smaller))
    text = (
        f"of {len(chosen.trials)} ways validation chose the learning rate {chosen.hyperparameters.lr:.2g}, the weight "
        f"decay {chosen.hyperparameters.weight_decay:g}"
    )
    if chosen.job.views is not None:
        text += f" and {chosen.job.views} augmented views of each sample beside the plain one"
    return f"{text} ({primary.replace('_', ' ')} {best.primary:.4f}, which the choice flatters a little)"
