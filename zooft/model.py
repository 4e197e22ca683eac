"""A zoo's module with its classifier taken out and a head in its place.

Owns loading a backbone (strict weights, other channel counts, the check that the stages compose to the trunk),
the module that trains, and the way back to the zoo's own parameter names.
"""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zooft import weights as weight_files
from zooft.arithmetic import strided
from zooft.blank import blank, outline
from zooft.checkpoint_names import beginnings
from zooft.contracts import Family, WeightsRecord
from zooft.errors import ModelError, UnknownNameError, WeightsError
from zooft.guard import ask, code_of, place_of

if TYPE_CHECKING:
    from pathlib import Path

    from zooft.contracts import Anatomy, Head, InputSpec, Stage, WeightsSource
    from zooft.registry import Registry

HEAD_PREFIX = "zooft_head."
INSTANCES_AT_A_TIME = 32
"""Instances of bags that run together where no gradients are wanted."""
_TOLERANCE = 1e-4


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

    @property
    def reference(self) -> str:
        """``family:name``."""
        return f"{self.family}:{self.name}"


class AdaptedModel(nn.Module):
    """A trunk and a new head: ``(N, C, H, W) -> (N, outputs)`` logits.

    Args:
        backbone: whose module and stages it runs.
        head: ``(N, width) -> (N, outputs)``, or ``(N, Z, width) -> (N, outputs)`` for a bag.
        bag: whether a sample is a bag of Z instances; the model then takes ``(N, Z, C, H, W)``, and what leaves
            a stage has these two axes in front too.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, *, bag: bool = False) -> None:
        super().__init__()
        if isinstance(head, nn.Linear) and not any(slot.bias for slot in backbone.slots):
            head.register_parameter("bias", None)  # else it wouldn't fit into the zoo's own model
        self.trunk = backbone.module
        self.head = head
        self.stages = dict(backbone.stages)
        self.slots = backbone.slots
        self.fixed = backbone.fixed
        self.bag = bag
        self.picks = strided.needed(backbone.module)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Logits of `x`, which is what leaves stage number `start` - 1, or an image for 0."""
        logits: Tensor = self.head(self.run(x, list(self.stages)[start:]))
        return logits

    def prefix(self, x: Tensor, stop: int) -> Tensor:
        """What leaves stage number `stop` - 1."""
        return self.run(x, list(self.stages)[:stop])

    def run(self, x: Tensor, stages: Sequence[str]) -> Tensor:
        """What leaves the last of `stages`, run one after the other on `x`."""
        if not self.bag:
            return self._through(x, stages)
        instances = x.shape[1]
        x = x.flatten(0, 1)
        if torch.is_grad_enabled() or torch.compiler.is_exporting():
            x = self._through(x, stages)
        else:  # a bag's instances don't know each other: few at a time need less memory
            x = torch.cat([self._through(part, stages) for part in torch.split(x, INSTANCES_AT_A_TIME)])
        return x.reshape(-1, instances, *x.shape[1:])

    def _through(self, x: Tensor, stages: Sequence[str]) -> Tensor:
        with strided.picking() if self.picks and torch.is_grad_enabled() else contextlib.nullcontext():
            for name in stages:
                x = self.stages[name](self.trunk, x)
        return x


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
        sources: weights plugins, asked before the zoo itself.
        channels: of the input; the first convolution is adapted from the pretrained weights.

    Raises:
        UnknownNameError: the family has no such model.
        WeightsError: no weights, or weights that don't fit.
        ModelError: the family's map of the model is wrong.
    """
    full = full_name(family, name)
    module = _build(family, full, drawn=weights == "random")
    anatomy = _anatomy(family, full, module)
    places = _places(family, full, sources, folder=weight_files.folder_from_environment())
    found = weight_files.find(weights, places, _shapes(module))
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
    module = outline(lambda: ask(family, "build", full, doing=f"to build {full}"))
    with torch.device("meta"):
        anatomy = _anatomy(family, full, module)
        return _assemble(family, full, module, anatomy, channels=anatomy.input.channels, record=record)


def rebuild_backbone(
    family: Family, name: str, *, channels: int, record: WeightsRecord, like: Backbone | None = None
) -> Backbone:
    """The same module without weights, for tensors that a run has saved.

    Args:
        family: the model zoo.
        name: the model's full name.
        channels: of the input.
        record: of the weights that the run began with.
        like: the same backbone, where this process has built and checked it before: it isn't checked again.
    """
    module = _build(family, name, drawn=like is None)
    return _assemble(
        family, name, module, _anatomy(family, name, module), channels=channels, record=record,
        width=None if like is None else like.width,
    )  # fmt: skip


def full_name(family: Family, name: str) -> str:
    """A model's full name, aliases resolved.

    Raises:
        UnknownNameError: with the nearest names.
    """
    try:
        full: str = ask(family, "canonical", family.aliases.get(name, name))
        if _knows_full_names(family) or full in set(ask(family, "models")):
            return full
        raise KeyError(full)
    except KeyError:
        known = [*family.aliases, *ask(family, "models")]
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.4)
        near = near or [candidate for candidate in known if name in candidate][:4]
        hint = f"; nearest: {', '.join(near)}" if near else ""
        message = f"{family.name} has no model {name!r}{hint} ('zooft backbones {family.name}:*' lists all)"
        raise UnknownNameError(message, kind="model", name=name, near=near) from None


def _knows_full_names(family: Family) -> bool:
    """Whether the family itself refuses a name that it doesn't have."""
    return family.canonical is not next(f.default for f in fields(Family) if f.name == "canonical")


def adapt(backbone: Backbone, head: Head, outputs: int) -> AdaptedModel:
    """The backbone with a new head.

    Raises:
        ModelError: the head doesn't give `outputs` finite numbers.
    """
    module: nn.Module = ask(head, "build", backbone.width, outputs)
    place, code = place_of(head, "build"), code_of(head, "build")
    shape = (2, 3, backbone.width) if head.bag else (2, backbone.width)
    try:
        with torch.no_grad():
            probe = module(torch.zeros(shape))
    except Exception as error:  # plugin code
        raise place.error(
            f"gives a module that fails on zeros {shape}: {type(error).__name__}: {error}", code=code
        ) from error
    if not isinstance(probe, Tensor):
        raise place.amiss(probe, f"a tensor (2, {outputs})", what=f"what its module makes of zeros {shape}", code=code)
    if tuple(probe.shape) != (2, outputs) or not bool(torch.isfinite(probe).all()):
        raise ModelError(
            f"the head {head.name} gives {tuple(probe.shape)}, expected finite (2, {outputs}) {place.words}"
        )
    return AdaptedModel(backbone, module, bag=head.bag)


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], *, without: Sequence[str], what: str) -> None:
    """Copy `tensors` into `module`, all of them or none.

    Args:
        module: the zoo's own.
        tensors: under the zoo's names.
        without: dotted names of modules that needn't match, the classifier.
        what: the tensors' origin, for the message.

    Raises:
        WeightsError: names or shapes differ; lists them.
    """
    own = module.state_dict()
    skip = tuple(f"{name}." for name in without)
    wanted = {name: t for name, t in own.items() if not name.startswith(skip)}
    given = {name: t for name, t in tensors.items() if not name.startswith(skip)}
    missing = [n for n in wanted if n not in given and not n.endswith("num_batches_tracked")]
    foreign = [n for n in given if n not in wanted]
    shapes = [
        f"{n} is {tuple(given[n].shape)} instead of {tuple(wanted[n].shape)}"
        for n in wanted
        if n in given and given[n].shape != wanted[n].shape
    ]
    kinds = [
        f"{n} is {str(given[n].dtype).removeprefix('torch.')}"
        for n in wanted
        if n in given and given[n].is_floating_point() != wanted[n].is_floating_point()
    ]
    infinite = [n for n, t in given.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    faults = [
        _count("of another kind of number", kinds),
        _count("not finite", infinite),
        _count("missing", missing),
        _count("not in the model", foreign),
        _count("of other shape", shapes),
    ]
    if any(faults):
        foreign_only = foreign and not wanted.keys() & given.keys()
        hint = f"; none of its names is the model's: they begin with {beginnings(foreign)}" if foreign_only else ""
        raise WeightsError(f"the weights from {what} don't fit the model: {'; '.join(f for f in faults if f)}{hint}")
    own.update(given)  # in place: the mapping carries versions of layouts, which some models insist on
    module.load_state_dict(own, strict=True)


def zoo_tensors(model: AdaptedModel) -> dict[str, Tensor]:
    """All tensors under the zoo's own names, a linear head in the classifier's place.

    A head of another shape has no place in the zoo's model and stands under ``zooft_head.``.
    """
    tensors = {name: t.detach().cpu().clone().contiguous() for name, t in model.trunk.state_dict().items()}
    head = {name: t.detach().cpu().contiguous() for name, t in model.head.state_dict().items()}
    if not isinstance(model.head, nn.Linear):
        return tensors | {HEAD_PREFIX + name: t for name, t in head.items()}
    for slot in model.slots:
        for name, tensor in head.items():
            shaped = tensor[:, :, None, None] if slot.convolution and name == "weight" else tensor
            tensors[f"{slot.name}.{name}"] = shaped.clone()
    return tensors


def load_zoo_tensors(model: AdaptedModel, tensors: Mapping[str, Tensor], *, what: str) -> None:
    """The way back of `zoo_tensors`.

    Raises:
        WeightsError: names or shapes differ.
    """
    prefixes = [HEAD_PREFIX] if not isinstance(model.head, nn.Linear) else [f"{s.name}." for s in model.slots]
    head = {n.removeprefix(prefixes[0]): t for n, t in tensors.items() if n.startswith(prefixes[0])}
    trunk = {n: t for n, t in tensors.items() if not n.startswith(tuple(prefixes))}
    shaped = {n: t.reshape(t.shape[:2]) if t.ndim == 4 and t.shape[2:] == (1, 1) else t for n, t in head.items()}
    load_strictly(model.trunk, trunk, without=(), what=what)
    load_strictly(model.head, shaped, without=(), what=what)


def owners(names: Iterable[str], stages: Mapping[str, Stage]) -> dict[str, tuple[str, ...]]:
    """Which stages own each tensor or submodule: those that list it or something that it lies in, as a part."""
    listed: dict[str, list[str]] = {}
    for stage_name, stage in stages.items():
        for part in stage.parts:
            listed.setdefault(part, []).append(stage_name)
    found = {}
    for name in names:
        pieces = name.split(".")
        around = (".".join(pieces[: i + 1]) for i in range(len(pieces)))
        found[name] = tuple(dict.fromkeys(stage for part in around for stage in listed.get(part, ())))
    return found


def adapt_first_convolution(convolution: nn.Conv2d, channels: int) -> None:
    """Make a pretrained convolution take `channels` input channels, in place.

    One channel gets the sum over the old ones, so that a grey image repeated over all channels gives the
    same result; more channels repeat the old ones in turn, scaled to keep the sum, as timm does.
    """
    old = convolution.weight.data
    if channels == 1:
        new = old.sum(1, keepdim=True)
    else:
        repeats = -(-channels // old.shape[1])
        new = old.repeat(1, repeats, 1, 1)[:, :channels] * (old.shape[1] / channels)
    convolution.weight = nn.Parameter(new.contiguous(), requires_grad=convolution.weight.requires_grad)
    convolution.in_channels = channels


def fetch_weights(registry: Registry, reference: str, folder: Path) -> tuple[Path, WeightsRecord]:
    """Write a model's pretrained weights to where `load_backbone` finds them with ``ZOOFT_WEIGHTS`` set.

    Args:
        registry: what the plugins register.
        reference: ``family:model``.
        folder: to be filled.

    Returns:
        The file, and the record of its weights.
    """
    from zooft.contracts import LoadedWeights, parse_reference

    family_name, name = parse_reference(reference)
    family = registry.family(family_name)
    full = full_name(family, name)
    module = _build(family, full, drawn=False)
    anatomy = _anatomy(family, full, module)
    places = _places(family, full, [entry.value for entry in registry.weights], folder=None)
    found = weight_files.find("pretrained", places, _shapes(module))
    tensors = found.tensors or {}
    load_strictly(module, tensors, without=anatomy.classifier, what=weight_files.origin(places, found))
    path = weight_files.path_in(folder, family.name, full)
    weights = LoadedWeights(tensors=tensors, source=found.record.source, licence=found.record.licence)
    weight_files.write_file(path, weights)
    return path, found.record


def describe(registry: Registry, family: Family, name: str) -> dict[str, Any]:
    """What ``zooft backbones`` shows of a model, built without memory for its tensors."""
    full = full_name(family, name)
    row: dict[str, Any] = {
        "name": name,
        "full_name": full,
        "parameters": None,
        "input": None,
        "stages": None,
        "problem": None,
        "weights": None,
        "downloadable": family.pretrained is not None,
    }
    places = _places(
        family,
        full,
        [entry.value for entry in registry.weights],
        folder=weight_files.folder_from_environment(),
    )
    try:
        row["weights"] = weight_files.at_hand(places)
        module = outline(lambda: ask(family, "build", full))
        with torch.device("meta"):
            anatomy = ask(family, "anatomy", full, module)
    except Exception as error:  # plugin code; one odd model mustn't end the list
        return {**row, "problem": _first_line(error.__cause__ or error)}
    sizes = {key: parameter.numel() for key, parameter in module.named_parameters()}
    owned = owners(sizes, anatomy.stages)
    stages = [
        {"name": stage, "parameters": sum(n for key, n in sizes.items() if stage in owned[key])}
        for stage in anatomy.stages
    ]
    spec = anatomy.input
    return {
        **row,
        "parameters": sum(sizes.values()),
        "input": f"{spec.height}x{spec.width}",
        "stages": stages,
    }


def _places(family: Family, full: str, sources: Sequence[WeightsSource], *, folder: Path | None) -> weight_files.Places:
    return weight_files.Places(family=family, model=full, sources=sources, folder=folder)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _build(family: Family, name: str, *, drawn: bool = True) -> nn.Module:
    """The zoo's module; with random values only if they are to be `drawn`, since others will be loaded."""

    def built() -> nn.Module:
        module: nn.Module = ask(family, "build", name, doing=f"to build {name}")
        return module

    return built() if drawn else blank(built)


def _anatomy(family: Family, name: str, module: nn.Module) -> Anatomy:
    anatomy: Anatomy = ask(family, "anatomy", name, module, doing=f"to describe {name}")
    _check_names(family, name, module, anatomy)
    _check_input(family, anatomy.input)
    return anatomy


def _check_input(family: Family, spec: InputSpec) -> None:
    """Raise PluginError where no image can be brought to the input that the map of a module describes."""
    positive = {name: getattr(spec, name) for name in ("height", "width", "resize")}
    positive |= {f"std[{i}]": value for i, value in enumerate(spec.std)}
    wrong = [(what, value, "a finite number above 0") for what, value in positive.items() if not 0 < value < math.inf]
    wrong += [(f"mean[{i}]", value, "a finite number") for i, value in enumerate(spec.mean) if not math.isfinite(value)]
    if len(spec.mean) != len(spec.std) or not spec.mean:
        wrong.append(("std", spec.std, f"as many numbers as mean has, {len(spec.mean)}, one a channel"))
    for what, value, expected in wrong[:1]:
        raise place_of(family, "anatomy").amiss(value, expected, what=f"input.{what}", code=code_of(family, "anatomy"))


def _check_names(family: Family, name: str, module: nn.Module, anatomy: Anatomy) -> None:
    """Raise PluginError where the map of a module names something that it doesn't have."""
    place, code = place_of(family, "anatomy"), code_of(family, "anatomy")
    modules = {inner for inner, _ in module.named_modules() if inner}
    named = {f"classifier[{i}]": (one, modules) for i, one in enumerate(anatomy.classifier)}
    if anatomy.first_convolution is not None:
        named["first_convolution"] = (anatomy.first_convolution, modules)
    for key, stage in anatomy.stages.items():
        if stage.forward is None:  # else its parts may be all that models of its kind have
            named |= {f"stages[{key!r}].parts[{i}]": (part, modules) for i, part in enumerate(stage.parts)}
    for field, (given, known) in named.items():
        if given not in known:
            raise place.amiss(given, _a_name_of(name, given, known), what=field, code=code)
    if not anatomy.classifier:
        raise place.amiss(
            anatomy.classifier, f"the name of the module of {name} to be replaced", what="classifier", code=code
        )


def _a_name_of(model: str, given: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, sorted(known), n=3, cutoff=0.3)
    return f"the name of a module of {model}" + (f", such as {' or '.join(near)}" if near else "")


def check_first_convolution(family: Family, name: str, module: nn.Module, anatomy: Anatomy) -> nn.Conv2d:
    """The convolution that sees the image.

    Raises:
        PluginError: the map of the module names none, or something else.
    """
    place, code, given = place_of(family, "anatomy"), code_of(family, "anatomy"), anatomy.first_convolution
    modules = dict(module.named_modules())
    if given not in modules or not given:
        raise place.amiss(given, _a_name_of(name, str(given), modules), what="first_convolution", code=code)
    found = modules[given]
    if not isinstance(found, nn.Conv2d):
        raise place.amiss(type(found).__name__, "a torch.nn.Conv2d", what=f"first_convolution, {given},", code=code)
    return found


def _assemble(
    family: Family,
    name: str,
    module: nn.Module,
    anatomy: Anatomy,
    *,
    channels: int,
    record: WeightsRecord,
    width: int | None = None,
) -> Backbone:
    """The parts, checked; where the `width` is known, they have been checked before."""
    spec = anatomy.input
    if channels != spec.channels:
        spec = _adapt_channels(family, name, module, anatomy, channels)
    slots = tuple(_take_out(module, classifier) for classifier in anatomy.classifier)
    if width is None:
        width = _checked_width(family, name, module, anatomy, spec)
    return Backbone(
        family=family.name, name=name, module=module, stages=dict(anatomy.stages),
        slots=slots, width=width, input=spec, weights=record,
        fixed=frozenset(key for key, parameter in module.named_parameters() if not parameter.requires_grad),
    )  # fmt: skip


def _checked_width(family: Family, name: str, module: nn.Module, anatomy: Anatomy, spec: InputSpec) -> int:
    try:
        _check_ownership(name, module, anatomy.stages)
        return _check_composition(name, module, anatomy.stages, spec)
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


def _check_ownership(name: str, module: nn.Module, stages: Mapping[str, Stage]) -> None:
    found = owners(module.state_dict(), stages)
    orphans = [tensor for tensor, owned_by in found.items() if not owned_by]
    shared = [f"{tensor} ({' and '.join(o)})" for tensor, o in found.items() if len(o) > 1]
    if orphans or shared:
        faults = [_count("in no stage", orphans), _count("in several stages", shared)]
        raise ModelError(f"the stages of {name} don't hold every tensor once: {'; '.join(f for f in faults if f)}")


def _check_composition(name: str, module: nn.Module, stages: Mapping[str, Stage], spec: InputSpec) -> int:
    """The width; the trunk is run as the zoo runs it and stage by stage, and both must agree; on meta, their shapes."""
    module.eval()
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, spec.channels, spec.height, spec.width, generator=generator, device="cpu")
    image = image.to(_device(module))
    with torch.inference_mode():
        try:
            whole = module(image)
            staged = image
            for stage in stages.values():
                staged = stage(module, staged)
        except Exception as error:  # plugin code
            raise ModelError(f"the stages of {name} don't run: {type(error).__name__}: {error}") from error
    if not isinstance(whole, Tensor) or whole.ndim != 2 or staged.shape != whole.shape:
        got = (
            f"{tuple(staged.shape)} against {tuple(whole.shape) if isinstance(whole, Tensor) else type(whole).__name__}"
        )
        raise ModelError(f"the trunk of {name} should give (N, width), stage by stage and whole; it gives {got}")
    if not whole.is_meta and not torch.allclose(
        staged, whole, rtol=_TOLERANCE, atol=_TOLERANCE * float(whole.abs().max())
    ):
        worst = float((staged - whole).abs().max())
        raise ModelError(f"the stages of {name} don't compose to its trunk: they differ by {worst:.2g}")
    return int(whole.shape[1])


def _device(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _count(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} {what}: {', '.join(names[:3])}{more}"
