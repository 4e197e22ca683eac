"""Keeping stages as they are.

Owns putting a plan into force (no gradients, and evaluation mode, so that BatchNorm statistics and dropout stand
still too) and proving at the end that every frozen tensor is bit-equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.errors import FrozenChangedError
from zooft.model import owners
from zooft.weights import tensors_sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import nn

    from zooft.contracts import FreezePlan, Freezer
    from zooft.model import AdaptedModel


def learnable_stages(model: AdaptedModel) -> tuple[str, ...]:
    """The stages that hold parameters, shallow to deep."""
    holding = set(parameters_by_stage(model))
    return tuple(name for name in model.stages if name in holding)


def parameters_by_stage(model: AdaptedModel) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Stage to its named parameters; stages without any are left out."""
    named = dict(model.trunk.named_parameters())
    held: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, (stage,) in owners(named, model.stages).items():
        held.setdefault(stage, []).append((name, named[name]))
    return held


def plan(model: AdaptedModel, freezer: Freezer, argument: str | None, epoch: int) -> FreezePlan:
    """What `freezer` wants in `epoch` (from 0)."""
    return freezer.plan(learnable_stages(model), argument, epoch)


def apply(model: AdaptedModel, frozen: Iterable[str]) -> None:
    """Put the model in training mode, but for the frozen stages.

    To be called at the start of every epoch: `nn.Module.train` undoes the evaluation mode of all submodules.
    """
    still = set(frozen) | set(list(model.stages)[: frozen_prefix(model, frozen)])
    model.train()
    for stage, named in parameters_by_stage(model).items():
        for _, parameter in named:
            parameter.requires_grad_(stage not in still)
    for module in _still_modules(model, still):
        module.training = False


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
    tensors = model.trunk.state_dict()
    owned = owners(tensors, model.stages)
    return {name: tensors_sha256({name: t}) for name, t in tensors.items() if set(owned[name]) & set(stages)}


def prefix_sha256(model: AdaptedModel, stop: int) -> str:
    """SHA-256 of every parameter and buffer of the first `stop` stages."""
    tensors = model.trunk.state_dict()
    owned = owners(tensors, model.stages)
    prefix = set(list(model.stages)[:stop])
    return tensors_sha256({name: t for name, t in tensors.items() if set(owned[name]) & prefix})


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


def _still_modules(model: AdaptedModel, still: set[str]) -> Iterator[nn.Module]:
    """Every submodule with nothing below it that learns, and the trunk itself where anything is frozen.

    The mode of a module that holds no tensors counts too: dropout, and attention that drops by its own flag.
    """
    below: dict[str, set[str]] = {}
    for name, owned_by in owners([*_leaves(model.trunk), *model.trunk.state_dict()], model.stages).items():
        pieces = name.split(".")
        for length in range(len(pieces) + 1):
            below.setdefault(".".join(pieces[:length]), set()).update(owned_by)
    for name, module in model.trunk.named_modules():
        stages = below.get(name, set())
        if (stages and stages <= still) or (name == "" and stages & still):
            yield module


def _leaves(trunk: nn.Module) -> list[str]:
    return [name for name, module in trunk.named_modules() if name and not list(module.children())]
