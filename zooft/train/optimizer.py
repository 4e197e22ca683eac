"""Optimizers and schedules: what `train` steps with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from zooft.model import freeze
from zooft.train.speed import optimizer_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from zooft.contracts import FreezePlan
    from zooft.model.adapted import AdaptedModel

_TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed")
"""Parameters of transformers that don't decay, as in timm's ``no_weight_decay``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """How to learn: the values behind the flags of the same names.

    `batch_size` is that of all processes together; None for the usual one.
    """

    epochs: int
    batch_size: int | Literal["auto"] | None
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
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    compile: Literal["auto", "on", "off"] = "off"
    sync_bn: bool = False


def make_optimizer(
    model: AdaptedModel,
    hyperparameters: Hyperparameters,
    plans: Sequence[FreezePlan],
    loss: nn.Module | None = None,
    *,
    penalty: float = 0.0,
) -> torch.optim.Optimizer:
    """One parameter group for each learning rate and decay; norms and biases don't decay.

    `penalty` times half the squares of the head's weights is added to the loss (`penalise`).

    The groups of the head and of the loss, which learn at the same rate, come last. Parameters that no epoch trains are
    left out.
    """
    groups: list[dict[str, Any]] = []
    for name, named in freeze.learning_by_stage(model, plans).items():
        groups += _groups(named, _stage_rate(hyperparameters, plans[0], name), hyperparameters.weight_decay, stage=name)
    for module, own in ((model.head, penalty), *(() if loss is None else ((loss, 0.0),))):
        learning = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        groups += _groups(learning, hyperparameters.lr, hyperparameters.weight_decay, penalty=own)
    settings = optimizer_settings(hyperparameters.optimizer, next(model.parameters()).device)
    if hyperparameters.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=hyperparameters.lr, momentum=hyperparameters.momentum, **settings)
    kind = torch.optim.AdamW if hyperparameters.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=hyperparameters.lr, **settings)


def set_rates(
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LambdaLR,
    hyperparameters: Hyperparameters,
    plan: FreezePlan,
) -> None:
    """Give each stage the rate that `plan` scales it to, in the epoch that is about to begin."""
    for number, group in enumerate(optimizer.param_groups):
        stage = group.get("stage")
        if not stage:
            continue
        rate = _stage_rate(hyperparameters, plan, stage)
        if {rate} != {scheduler.base_lrs[number], group["initial_lr"]}:
            scheduler.base_lrs[number] = group["initial_lr"] = rate
            group["lr"] = rate * scheduler.lr_lambdas[number](scheduler.last_epoch)


def _stage_rate(hyperparameters: Hyperparameters, plan: FreezePlan, stage: str) -> float:
    return hyperparameters.backbone_lr * float(plan.scales.get(stage, 1.0))


def rate_factor(step: int, steps_per_epoch: int, hyperparameters: Hyperparameters) -> float:
    """The learning rate at `step` (from 0) over the initial one.

    Rises linearly over the warm-up's share of the steps, then falls: ``cosine`` to 0 (Loshchilov and Hutter
    2017), ``step`` by a factor every few epochs, ``polynomial`` as (1 - t/T)^power, ``constant`` not at all.
    """
    total = max(1, steps_per_epoch * hyperparameters.epochs)
    rising = round(total * hyperparameters.warmup)
    if step < rising:
        return (step + 1) / rising
    done = min(1.0, (step - rising) / max(1, total - rising))
    if hyperparameters.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if hyperparameters.schedule == "polynomial":
        return float((1 - done) ** hyperparameters.power)
    if hyperparameters.schedule == "step":
        return float(hyperparameters.step_factor ** (step // (steps_per_epoch * hyperparameters.step_epochs)))
    return 1.0


def describe_continuation(hyperparameters: Hyperparameters, done: int, steps_per_epoch: int, *, last: float) -> str:
    """The schedule after resuming a run that ended after `done` epochs, in a sentence.

    Args:
        hyperparameters: of the longer run.
        done: epochs of the run that ended.
        steps_per_epoch: of either.
        last: the head's learning rate when it ended.
    """
    first = hyperparameters.lr * rate_factor(done * steps_per_epoch, steps_per_epoch, hyperparameters)
    final = hyperparameters.lr * rate_factor(
        hyperparameters.epochs * steps_per_epoch - 1, steps_per_epoch, hyperparameters
    )
    if first == last == final:
        return f"the learning rate of the head stays at {first:.2g}, as the schedule {hyperparameters.schedule} has it"
    return (
        f"the schedule {hyperparameters.schedule} is laid over all {hyperparameters.epochs} epochs: the head's "
        f"learning rate, which had come to {last:.2g} by epoch {done}, continues at {first:.2g} and comes to "
        f"{final:.2g}, as if there had been so many from the start"
    )


def penalise(optimizer: torch.optim.Optimizer) -> None:
    """Add the gradient of the penalty on the squares of weights, where a group has one."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("penalty") else ():
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach(), alpha=group["penalty"])


def _groups(
    named: Sequence[tuple[str, nn.Parameter]], lr: float, decay: float, *, stage: str = "", penalty: float = 0.0
) -> list[dict[str, Any]]:
    plain = [p for name, p in named if p.ndim <= 1 or name.endswith(_TOKENS)]
    ids = {id(p) for p in plain}
    decayed = [p for _, p in named if id(p) not in ids]
    groups = [
        {"params": decayed, "lr": lr, "weight_decay": decay, "stage": stage},
        {"params": plain, "lr": lr, "weight_decay": 0.0, "stage": stage},
    ]
    if penalty:
        groups[0]["penalty"] = penalty
    return [group for group in groups if group["params"]]
