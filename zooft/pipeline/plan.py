"""The settings of a run, every name in them resolved and every value checked before any work is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft import config as configuration
from zooft import runtime
from zooft.config import FinetuneConfig
from zooft.contracts import parse_reference
from zooft.data import samples as sample_tables
from zooft.errors import ConfigError, UnknownNameError, WeightsError
from zooft.hooks.guard import call_plugin, code_of, place_of
from zooft.model import weights
from zooft.model.names import full_name
from zooft.pipeline import teacher as teachers

if TYPE_CHECKING:
    from zooft.contracts import Family, Labels, Sample, Task, Verification
    from zooft.deploy.saved import SavedRun
    from zooft.hooks.registry import Registry
    from zooft.model.adapted import AdaptedModel
    from zooft.model.backbone import Backbone
    from zooft.pipeline.teacher import TeacherRun
    from zooft.run.record import PrunedRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A model that training begins with instead of the zoo's: one that was pruned.

    Attributes:
        before: the run that was pruned, or that goes on.
        model: the backbone, and its model with a head, from the plan and the labels.
        pruned: what was taken out.
        accept: ``(run, its validation samples, verification) -> what was pruned, with figures``, called before the run
            is published; an error that it raises leaves nothing of it. None for a run that goes on.
    """

    before: Path
    model: Callable[[Plan, Labels], tuple[Backbone, AdaptedModel]]
    pruned: PrunedRecord
    accept: Callable[[SavedRun, Sequence[Sample], Verification | None], PrunedRecord] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The configuration with every name in it resolved.

    Attributes that aren't the configuration's own:
        begin: what training begins with, where that isn't the zoo's model.
    """

    config: FinetuneConfig
    registry: Registry
    task: Task
    options: Any
    head: str
    family: Family
    family_name: str
    model: str
    teacher: TeacherRun | None = None
    begin: Beginning | None = None


def resolve(registry: Registry, values: Mapping[str, Any], begin: Beginning | None = None) -> Plan:
    """Look up every name and check every value before any work is done."""
    if "task" not in values:
        configuration.build(FinetuneConfig, values)  # reports it, along with all other faults
    task = registry.task(str(values["task"]))
    config, options = configuration.read(values, FinetuneConfig, task.options)
    config = _without_place(registry, config)
    named = config.model.weights not in {"pretrained", "random"}
    if begin is None and named and not Path(config.model.weights).is_file():
        raise WeightsError(
            f"there is no weights file {config.model.weights}; --weights takes pretrained, random, or a .safetensors "
            "or .pth file"
        )
    if config.deployment.export:
        runtime.choose(config.deployment.provider)
    family_name, model = parse_reference(config.model.backbone)
    family = registry.family(family_name)
    registry.freezer(config.model.freeze)
    sample_tables.ports(task, options)  # these refuse options that don't go together
    for field in ("channels", "bag", "reader"):
        call_plugin(task, field, options)
    call_plugin(task.problem.training, "check_options", options)
    if config.training.sweep and (config.evaluation.folds or not config.caching.cache):
        other = "--folds" if config.evaluation.folds else "--no-cache"
        raise ConfigError(
            "--sweep needs cached features and validation samples that nothing else is evaluated on; leave out "
            f"--sweep or {other}"
        )
    model = full_name(family, model)
    if begin is None and config.model.weights == "pretrained" and config.resume is None:
        sources = [entry.value for entry in registry.weights]
        weights.check_any(
            weights.Places(family=family, model=model, sources=sources, folder=weights.folder_from_environment())
        )
    head = _head(registry, config.model.head, task, options)
    return Plan(
        config=config,
        registry=registry,
        task=task,
        options=options,
        head=head,
        family=family,
        family_name=family_name,
        model=model,
        teacher=teachers.find(registry, config, task, options, reads=registry.head(head).reads),
        begin=begin,
    )


def _without_place(registry: Registry, config: FinetuneConfig) -> FinetuneConfig:
    """Of a model that lies on this machine, the name that others can build it by, and the file of its weights."""
    family_name, model = parse_reference(config.model.backbone)
    family = registry.family(family_name)
    file = call_plugin(family, "local", model)
    if file is None:
        return config
    weights = str(file) if config.model.weights == "pretrained" else config.model.weights
    model_options = replace(
        config.model, backbone=f"{family_name}:{call_plugin(family, 'canonical', model)}", weights=weights
    )
    return replace(config, model=model_options)


def _head(registry: Registry, named: str | None, task: Task, options: Any) -> str:
    """The head's name, checked to read what the task gives, an image or a bag, and to give what its problem needs.

    Raises:
        ConfigError: it doesn't.
    """
    name: str = named or call_plugin(task, "head", options)
    bag = call_plugin(task, "bag", options)
    gives = task.problem.training.gives
    alike = [entry for entry in registry.heads if entry.value.name == name]
    fitting = [e for e in alike if e.value.gives == gives and (e.value.reads == "bag") == bag]
    if len(alike) > 1 and len(fitting) < 2:  # of several plugins' heads of this name, the one that can be meant
        name = f"{(fitting or alike)[0].owner.name}/{name}"
    try:
        head = registry.head(name)
    except UnknownNameError as error:
        if named:
            raise
        raise place_of(task, "head").error(
            f"names a head that isn't registered: {error}", code=code_of(task, "head")
        ) from error
    if head.gives != gives or (head.reads == "bag") != bag:
        able = [
            entry.value.name
            for entry in registry.heads
            if entry.value.gives == gives and (entry.value.reads == "bag") == bag
        ]
        raise ConfigError(
            f"the head {name} reads a {head.reads} and gives a {head.gives}; {_needs(task, gives, bag)} use one of "
            f"{', '.join(able) or 'none: no such head is registered'}"
        )
    if head.dense and task.bag(options):
        raise ConfigError(
            f"the head {name} reads maps of one image, and a sample of {task.name} is a bag with these options"
        )
    return name


def _needs(task: Task, gives: str, bag: bool) -> str:
    what = "a bag of instances" if bag else "one image"
    shape = {"vector": "a row of numbers", "map": "a map", "places": "a row of numbers for each place"}[gives]
    return f"a sample of {task.name} is {what} with these options, and its problem needs {shape} for each output;"
