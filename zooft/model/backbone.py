"""A zoo's module with its classifier taken out, loaded strictly, as stages whose composition is the trunk's forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zooft.contracts import Family, PrunedSizes, WeightsRecord
from zooft.errors import ModelError
from zooft.hooks.guard import call_plugin, place_of
from zooft.model import pruning
from zooft.model import weights as weight_files
from zooft.model.building import build_module, check_first_convolution, read_anatomy, shapes_of, weight_places
from zooft.model.loading import load_strictly
from zooft.model.names import full_name
from zooft.model.skip_init import on_meta
from zooft.model.stages import check_composition, check_ownership

if TYPE_CHECKING:
    from zooft.contracts import Anatomy, InputSpec, Stage, Task, WeightsSource


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the zoo's classifier stood: its dotted name, whether it was a 1×1 convolution, and had a bias."""

    name: str
    convolution: bool
    bias: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A zoo's module, its classifier taken out, as stages whose composition is the trunk's forward.

    Attributes:
        family: the zoo's prefix.
        name: the model's full name.
        module: the zoo's own module.
        stages: name to stage, shallow to deep.
        slots: where the classifier stood.
        width: features that leave the trunk.
        input: what the trunk wants to see.
        weights: where its tensors come from.
        fixed: names of parameters that the zoo has built with ``requires_grad=False``; they stay as they are, always.
        pruned: its sizes, where channels were taken out.
    """

    family: str
    name: str
    module: nn.Module
    stages: Mapping[str, Stage]
    slots: tuple[Slot, ...]
    width: int
    input: InputSpec
    weights: WeightsRecord
    fixed: frozenset[str] = frozenset()
    pruned: PrunedSizes | None = None

    @property
    def reference(self) -> str:
        """``family:name``."""
        return f"{self.family}:{self.name}"


def load_backbone(
    family: Family,
    name: str,
    *,
    weights: str,
    sources: Sequence[WeightsSource],
    channels: int = 3,
) -> Backbone:
    """A backbone by name, checked: weights fit, stages hold every tensor once and compose to the trunk.

    Args:
        family: the model zoo.
        name: a model of it, alias or full name.
        weights: ``pretrained``, ``random`` or a file.
        sources: weights plugins, which come before the zoo itself.
        channels: of the input; the first convolution is adapted from the pretrained weights.

    Raises:
        UnknownNameError: the family has no such model.
        WeightsError: no weights, or weights that don't fit.
        ModelError: the family's map of the model is wrong.
    """
    full = full_name(family, name)
    module = build_module(family, full, drawn=weights == "random")
    anatomy = read_anatomy(family, full, module)
    places = weight_places(family, full, sources, folder=weight_files.folder_from_environment())
    found = weight_files.find(weights, places, shapes_of(module))
    if found.tensors is not None:
        load_strictly(module, found.tensors, without=anatomy.classifier, what=weight_files.origin(places, found))
    return _assemble(family, full, module, anatomy, channels=channels, record=found.record)


def outline_backbone(family: Family, name: str) -> Backbone:
    """The same as `load_backbone` gives, on the meta device, checked as far as names and shapes go.

    Args:
        family: the model zoo.
        name: a model of it, alias or full name.

    Raises:
        UnknownNameError: the family has no such model.
        ModelError: the family's map of the model is wrong, or its classifier can't be replaced.
    """
    full = full_name(family, name)
    record = WeightsRecord(kind="random", source="none", licence=None, file_sha256=None, tensors_sha256="")
    module = on_meta(lambda: call_plugin(family, "build", full, doing=f"to build {full}"))
    with torch.device("meta"):
        anatomy = read_anatomy(family, full, module)
        return _assemble(family, full, module, anatomy, channels=anatomy.input.channels, record=record)


def rebuild_backbone(
    family: Family,
    name: str,
    *,
    channels: int,
    record: WeightsRecord,
    like: Backbone | None = None,
    pruned: PrunedSizes | None = None,
) -> Backbone:
    """The same module without weights, for tensors that a run has saved.

    Args:
        family: the model zoo.
        name: the model's full name.
        channels: of the input.
        record: of the weights that the run began with.
        like: the same backbone, where this process has built and checked it before: it isn't checked again.
        pruned: the sizes that it was pruned to.

    Raises:
        ModelError: it has no such sizes.
    """
    module = build_module(family, name, drawn=like is None)
    return _assemble(
        family,
        name,
        module,
        read_anatomy(family, name, module),
        channels=channels,
        record=record,
        width=None if like is None else like.width,
        pruned=pruned,
    )


def for_task(backbone: Backbone, task: Task, options: Any) -> Backbone:
    """The same with the input that a task wants it to get."""
    return replace(backbone, input=call_plugin(task, "input", backbone.input, options))


def adapt_first_convolution(convolution: nn.Conv2d, channels: int) -> None:
    """Make a pretrained convolution take `channels` input channels, in place.

    One channel gets the sum over the old ones, so that a grey image repeated over all channels gives the
    same result; more channels repeat the old ones in turn, scaled to preserve the sum, as timm does.
    """
    old = convolution.weight.data
    if channels == 1:
        new = old.sum(1, keepdim=True)
    else:
        repeats = -(-channels // old.shape[1])
        new = old.repeat(1, repeats, 1, 1)[:, :channels] * (old.shape[1] / channels)
    convolution.weight = nn.Parameter(new.contiguous(), requires_grad=convolution.weight.requires_grad)
    convolution.in_channels = channels


def _assemble(
    family: Family,
    name: str,
    module: nn.Module,
    anatomy: Anatomy,
    *,
    channels: int,
    record: WeightsRecord,
    width: int | None = None,
    pruned: PrunedSizes | None = None,
) -> Backbone:
    """The parts, checked; where the `width` is known, they have been checked before."""
    spec = anatomy.input
    if channels != spec.channels:
        spec = _adapt_channels(family, name, module, anatomy, channels)
    slots = tuple(_take_out(module, classifier) for classifier in anatomy.classifier)
    if pruned is not None:
        pruning.resize(module, pruned, what="the run's record")
    if width is None:
        width = _check_width(family, name, module, anatomy, spec)
    return Backbone(
        family=family.name,
        name=name,
        module=module,
        stages=dict(anatomy.stages),
        slots=slots,
        width=width,
        input=spec,
        weights=record,
        fixed=frozenset(key for key, parameter in module.named_parameters() if not parameter.requires_grad),
        pruned=pruned,
    )


def _check_width(family: Family, name: str, module: nn.Module, anatomy: Anatomy, spec: InputSpec) -> int:
    try:
        check_ownership(name, module, anatomy.stages)
        return check_composition(name, module, anatomy.stages, spec)
    except ModelError as error:
        raise ModelError(f"{error} {place_of(family, 'anatomy').words}") from error.__cause__


def _adapt_channels(family: Family, name: str, module: nn.Module, anatomy: Anatomy, channels: int) -> InputSpec:
    refused = f"{name} takes {anatomy.input.channels} channels and can't be adapted to {channels}"
    if anatomy.first_convolution is None:
        raise ModelError(refused)
    convolution = check_first_convolution(family, name, module, anatomy)
    if convolution.groups != 1:
        raise ModelError(f"{refused}: its first convolution has {convolution.groups} groups")
    adapt_first_convolution(convolution, channels)
    spec = anatomy.input
    mean, std = (
        (sum(values) / len(values),) if channels == 1 else tuple(values[i % len(values)] for i in range(channels))
        for values in (spec.mean, spec.std)
    )
    return replace(spec, mean=mean, std=std)


def _take_out(module: nn.Module, classifier: str) -> Slot:
    parent, _, leaf = classifier.rpartition(".")
    holder = module.get_submodule(parent)
    old = getattr(holder, leaf)
    if isinstance(holder, nn.Sequential):
        holder[int(leaf) if leaf.isdigit() else list(dict(holder.named_children())).index(leaf)] = nn.Identity()
    else:
        setattr(holder, leaf, nn.Identity())
    return Slot(name=classifier, convolution=isinstance(old, nn.Conv2d), bias=getattr(old, "bias", True) is not None)
