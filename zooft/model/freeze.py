"""Keeping stages as they are.

Owns what freezers plan, putting a plan into force (no gradients, and evaluation mode, so that BatchNorm statistics and
dropout stand still too) and proving at the end that every frozen tensor is bit-equal. A plan may exempt parameters:
they learn, and all else in their stage stays, statistics too. Parameters that the zoo itself has fixed stay as they are
whatever is planned.
"""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING

from zooft.errors import FrozenChangedError
from zooft.hooks.guard import call_plugin, code_of, place_of
from zooft.model.parameter_kinds import stage_infos
from zooft.model.stages import owners
from zooft.model.weights import tensors_sha256

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from torch import nn

    from zooft.contracts import FreezePlan, Freezer, StageInfo
    from zooft.model.adapted import AdaptedModel


def learnable_stages(model: AdaptedModel) -> tuple[StageInfo, ...]:
    """The stages that hold parameters which may learn, shallow to deep, and these parameters."""
    held = learnable_by_stage(model)
    return stage_infos(
        model.trunk, {stage: [name for name, _ in held[stage]] for stage in model.stages if stage in held}
    )


def learnable_by_stage(model: AdaptedModel) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Stage to its named parameters that the zoo hasn't fixed.

    Stages without any, and those that never run, are left out.
    """
    held = {
        stage: [(name, parameter) for name, parameter in named if name not in model.fixed]
        for stage, named in parameters_by_stage(model).items()
        if stage not in model.unread
    }
    return {stage: named for stage, named in held.items() if named}


def parameters_by_stage(model: AdaptedModel) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Stage to its named parameters; stages without any are left out."""
    held: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.trunk.named_parameters():
        (stage,) = model.owners[name]
        held.setdefault(stage, []).append((name, parameter))
    return held


def plan(model: AdaptedModel, freezer: Freezer, argument: str | None, epoch: int) -> FreezePlan:
    """What `freezer` wants in `epoch` (from 0).

    Raises:
        PluginError: it isn't a plan for this model's stages, or not twice the same.
    """
    stages = learnable_stages(model)
    wanted: FreezePlan = call_plugin(freezer, "plan", stages, argument, epoch)
    check_plan(freezer, wanted, stages, epoch, idle=_idle(model))
    if call_plugin(freezer, "plan", stages, argument, epoch) != wanted:
        raise place_of(freezer, "plan").error(
            f"gives two different plans for epoch {epoch}; expected the same each time, from stages, argument and "
            "epoch alone",
            code=code_of(freezer, "plan"),
        )
    return wanted


def check_plan(
    freezer: Freezer,
    given: FreezePlan,
    stages: Sequence[StageInfo],
    epoch: int,
    *,
    idle: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Raise PluginError where a plan names what isn't a stage or a parameter, or scales a rate by what is no factor.

    Args:
        freezer: whose plan.
        given: the plan.
        stages: that may learn.
        epoch: that it is for, from 0.
        idle: all stages of the model, with the parameters that never learn.
    """
    place, code = place_of(freezer, "plan"), code_of(freezer, "plan")
    held = {one.name: str(stage) for stage in stages for one in stage.parameters}
    fixed = {name: stage for stage, parameters in (idle or {}).items() for name in parameters}
    known = list(idle or map(str, stages))
    for field, names in (("frozen", sorted(given.frozen)), ("scales", list(given.scales))):
        for name in (name for name in names if name not in known):
            expected = f"a stage{_nearest_stage(name, known, held | fixed)}"
            raise place.amiss(name, expected, what=f"FreezePlan.{field} in epoch {epoch}", code=code)
    for name in (name for name in sorted(given.exempt) if name not in held):
        expected = f"a parameter that may learn{_nearest_parameter(name, held, fixed)}"
        raise place.amiss(name, expected, what=f"FreezePlan.exempt in epoch {epoch}", code=code)
    for stage, scale in given.scales.items():
        if not (math.isfinite(scale) and scale >= 0):
            what = f"FreezePlan.scales[{str(stage)!r}] in epoch {epoch}"
            raise place.amiss(scale, "a factor of the learning rate: finite, 0 or larger", what=what, code=code)


def _nearest_stage(name: str, stages: Sequence[str], held: Mapping[str, str]) -> str:
    """How the stage that may be meant is called, and which ones there are."""
    holder = next((stage for parameter, stage in held.items() if f"{parameter}.".startswith(f"{name}.")), None)
    if holder is not None:
        return f" and not a parameter or module; {holder} holds it"
    near = difflib.get_close_matches(name, stages, n=3, cutoff=0.6)
    return (f", nearest: {', '.join(near)}" if near else "") + f"; there are {', '.join(stages) or 'none'}"


def _nearest_parameter(name: str, held: Mapping[str, str], fixed: Mapping[str, str]) -> str:
    """What may be meant instead of `name`, which isn't in `held`, parameters to their stages."""
    if name in fixed:
        return "; the zoo has fixed this one"
    of_stage = [parameter for parameter, stage in held.items() if stage == name]
    inside = of_stage or [parameter for parameter in held if parameter.startswith(f"{name}.")]
    near = inside[:3] or difflib.get_close_matches(name, held, n=3, cutoff=0.6)
    return f", such as {', '.join(near)}" if near else f"; there are {len(held)}, none of a name like that"


def _idle(model: AdaptedModel) -> dict[str, list[str]]:
    """Every stage of a model to the parameters in it that the zoo has fixed."""
    held = parameters_by_stage(model)
    return {stage: [name for name, _ in held.get(stage, []) if name in model.fixed] for stage in model.stages}


def learns(given: FreezePlan, stage: str, parameter: str) -> bool:
    """Whether a plan lets a parameter of a stage learn."""
    return stage not in given.frozen or parameter in given.exempt


def learning_by_stage(model: AdaptedModel, plans: Iterable[FreezePlan]) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Stage to its named parameters that one of `plans` lets learn; stages without any are left out."""
    plans = list(plans)
    found = {
        stage: [(name, p) for name, p in named if any(learns(each, stage, name) for each in plans)]
        for stage, named in learnable_by_stage(model).items()
    }
    return {stage: named for stage, named in found.items() if named}


def apply(model: AdaptedModel, frozen: Iterable[str], exempt: Collection[str] = ()) -> None:
    """Put the model in training mode, but for the frozen stages, of which only the exempt parameters learn.

    To be called at the start of every epoch: `nn.Module.train` undoes the evaluation mode of all submodules.
    """
    # a stage that holds nothing to learn goes with the stages before it, whether or not parameters in these are exempt
    all_frozen = set(frozen) | set(list(model.stages)[: frozen_prefix(model, frozen)]) | model.unread
    model.train()
    for stage, named in parameters_by_stage(model).items():
        for name, parameter in named:
            parameter.requires_grad_((stage not in all_frozen or name in exempt) and name not in model.fixed)
    for module in _frozen_modules(model, all_frozen):
        module.training = False


def frozen_prefix(model: AdaptedModel, frozen: Iterable[str], exempt: Collection[str] = ()) -> int:
    """How many leading stages hold nothing that learns.

    Frozen ones, and those without parameters among or behind them.
    """
    all_frozen = set(frozen) | (set(model.stages) - learnable_by_stage(model).keys())
    if exempt:
        all_frozen -= {
            stage for stage, named in learnable_by_stage(model).items() if any(n in exempt for n, _ in named)
        }
    count = 0
    for name in model.stages:
        if name not in all_frozen:
            break
        count += 1
    return count


def fingerprints(model: AdaptedModel, stages: Sequence[str], exempt: Collection[str] = ()) -> dict[str, str]:
    """SHA-256 of tensors of `stages` that aren't exempt, of stages that never run, and of what the zoo has fixed."""
    tensors = model.trunk.state_dict()
    held = {*stages, *model.unread}
    proven = [
        name for name in tensors if (held & set(model.owners[name]) and name not in exempt) or name in model.fixed
    ]
    return {name: tensors_sha256({name: tensors[name]}) for name in proven}


def prefix_sha256(model: AdaptedModel, stop: int) -> str:
    """SHA-256 of every parameter and buffer of the first `stop` stages."""
    tensors = model.trunk.state_dict()
    prefix = set(list(model.stages)[:stop])
    return tensors_sha256({name: t for name, t in tensors.items() if set(model.owners[name]) & prefix})


def check_unchanged(
    model: AdaptedModel, before: Mapping[str, str], stages: Sequence[str], exempt: Collection[str] = ()
) -> None:
    """Compare with `fingerprints` of the same stages and exemptions, taken before training.

    Raises:
        FrozenChangedError: names every tensor that moved.
    """
    after = fingerprints(model, stages, exempt)
    moved = [name for name in before if after.get(name) != before[name]]
    if moved:
        advice = (
            "; where a layer moves what the zoo has fixed, such as statistics, its plugin should hold it as a buffer"
            if set(moved) & set(model.fixed)
            else ""
        )
        listed = ", ".join(f"{name} (which the zoo has fixed)" if name in model.fixed else name for name in moved[:5])
        raise FrozenChangedError(
            f"{len(moved)} frozen tensors changed during training, among them {listed}; this is a defect of zooft "
            f"or of the backbone's plugin, and the run can't be trusted{advice}",
            moved,
        )


def _frozen_modules(model: AdaptedModel, all_frozen: set[str]) -> Iterator[nn.Module]:
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
        if (stages and stages <= all_frozen) or (name == "" and stages & all_frozen):
            yield module


def _leaves(trunk: nn.Module) -> list[str]:
    return [name for name, module in trunk.named_modules() if name and not list(module.children())]
