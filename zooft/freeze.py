"""Keeping stages as they are.

Owns putting a plan into force (no gradients, and evaluation mode, so that BatchNorm statistics and dropout stand
still too) and proving at the end that every frozen tensor is bit-equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.errors import FrozenChangedError
from zooft.model import stage_tensors
from zooft.weights import tensors_sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn

    from zooft.contracts import FreezePlan, Freezer
    from zooft.model import AdaptedModel


def learnable_stages(model: AdaptedModel) -> tuple[str, ...]:
    """The stages that hold parameters, shallow to deep."""
    owned = {name for name, _ in model.trunk.named_parameters()}
    return tuple(name for name, stage in model.stages.items() if any(stage.owns(tensor) for tensor in owned))


def plan(model: AdaptedModel, freezer: Freezer, argument: str | None, epoch: int) -> FreezePlan:
    """What `freezer` wants in `epoch` (from 0)."""
    return freezer.plan(learnable_stages(model), argument, epoch)


def apply(model: AdaptedModel, frozen: Iterable[str]) -> None:
    """Put the model in training mode, but for the frozen stages.

    To be called at the start of every epoch: `nn.Module.train` undoes the evaluation mode of all submodules.
    """
    stuck = set(frozen)
    model.train()
    if stuck:
        model.trunk.training = False  # what the zoo's own forward asks; submodules are set below
    for name, stage in model.stages.items():
        still = name in stuck
        for tensor, parameter in model.trunk.named_parameters():
            if stage.owns(tensor):
                parameter.requires_grad_(not still)
        for module in _modules(model.trunk, stage.parts):
            module.train(not still)


def frozen_prefix(model: AdaptedModel, frozen: Iterable[str]) -> int:
    """How many leading stages don't learn: frozen ones, and those without parameters among or behind them."""
    still = set(frozen) | (set(model.stages) - set(learnable_stages(model)))
    count = 0
    for name in model.stages:
        if name not in still:
            break
        count += 1
    return count


def fingerprints(model: AdaptedModel, stages: Sequence[str]) -> dict[str, str]:
    """SHA-256 of every parameter and buffer of `stages`."""
    return {
        name: tensors_sha256({name: tensor})
        for stage in stages
        for name, tensor in stage_tensors(model.trunk, model.stages[stage]).items()
    }


def check_unchanged(model: AdaptedModel, before: Mapping[str, str], stages: Sequence[str]) -> None:
    """Compare with `fingerprints` taken before training.

    Raises:
        FrozenChangedError: names every tensor that moved.
    """
    after = fingerprints(model, stages)
    moved = [name for name in before if after.get(name) != before[name]]
    if moved:
        listed = ", ".join(moved[:5])
        raise FrozenChangedError(
            f"{len(moved)} frozen tensors changed during training, among them {listed}; this is a defect of zooft "
            "or of the backbone's plugin, and the run can't be trusted",
            moved,
        )


def _modules(trunk: nn.Module, parts: Sequence[str]) -> list[nn.Module]:
    """The submodules among a stage's parts; bare parameters have no mode."""
    named = dict(trunk.named_modules())
    return [named[part] for part in parts if part in named]
