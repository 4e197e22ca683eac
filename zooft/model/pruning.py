"""A backbone with fewer channels: which can go, and how the smaller module is built again.

torch-pruning traces which layers share channels. What it proposes is tried first: a group of channels goes only if the
network without them gives exactly what the whole network gives where nobody reads them. Groups for which that isn't so
(what the head reads, dimensions of attention, channels that are normalised together) stay whole. `resize` builds the
smaller module again from sizes alone, so that opening a run needs neither torch-pruning nor pickles.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from zooft.contracts import PrunedSizes
from zooft.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from zooft.contracts import InputSpec
    from zooft.model.adapted import AdaptedModel

_PRUNABLE = (_ConvNd, nn.Linear, _BatchNorm, nn.PReLU)
"""Layers that lose channels; groups with others in them stay whole."""
_TOLERANCE = 1e-3
"""Of the spread of what the head reads: float32 sums in another order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was pruned.

    Attributes:
        groups: of layers that share channels, which lost some.
        whole: groups that lost none.
        before: channels of all groups that lost some.
        after: the same, afterwards.
    """

    groups: int
    whole: int
    before: int
    after: int


def prune(
    model: AdaptedModel, spec: InputSpec, ratio: float, *, images: Sequence[Tensor] = (), seed: int = 0
) -> Outcome:
    """Take channels out of a model's trunk, in place; what the head reads keeps its shape.

    Each group of layers that share channels loses about the share `ratio` of them: those that move least what their
    readers give.

    Args:
        model: on the CPU.
        spec: of its backbone's input.
        ratio: between 0 and 1.
        images: batches ``(n, C, H, W)`` that this is measured on; noise where there are none.
        seed: of the noise that it is tried on.

    Raises:
        ModelError: it can't be traced, or no group can lose channels.
    """
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, spec.channels, spec.height, spec.width, generator=generator)
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that it doesn't know: groups with these stay whole
        graph = _trace(model, image)
        roots, whole = _roots(graph, model, image, ratio, generator, _variances(model, images or [image]))
        if not roots:
            raise ModelError(
                f"nothing can be pruned by {ratio:g}: of {whole} groups of layers that share channels none can lose "
                "any without changing what the head reads or how the network computes; take a smaller backbone instead"
            )
        shapes = [each.shape for each in _without_gradients(model, image)]
        before = after = 0
        for layer, gone in roots:
            size = _channels(layer)
            _group(graph, layer, gone).prune(record_history=False)
            before, after = before + size, after + size - len(gone)
    made = _without_gradients(model, image)
    if [each.shape for each in made] != shapes or not all(bool(torch.isfinite(each).all()) for each in made):
        raise ModelError("the pruned backbone gives the head something of another shape, so it can't be pruned")
    return Outcome(groups=len(roots), whole=whole, before=before, after=after)


def sizes(plain: nn.Module, pruned: nn.Module) -> PrunedSizes:
    """How a pruned module differs in size from the same one as the zoo builds it."""
    shapes, own = ({name: tuple(t.shape) for name, t in each.state_dict().items()} for each in (plain, pruned))
    modules = dict(plain.named_modules())
    attributes = {name: _changes(modules[name], module) for name, module in pruned.named_modules()}
    return PrunedSizes(
        tensors={name: shape for name, shape in own.items() if shape != shapes[name]},
        attributes={name: changed for name, changed in attributes.items() if changed},
    )


def resize(module: nn.Module, wanted: PrunedSizes, *, what: str) -> None:
    """Give a zoo's module the sizes of a pruned one, in place; the numbers in its tensors mean nothing then.

    Args:
        module: as the zoo builds it, its classifier taken out.
        wanted: of the pruned one.
        what: where the sizes come from, for the message.

    Raises:
        ModelError: the module has no such parts, or smaller ones.
    """
    for name, shape in wanted.tensors.items():
        holder, leaf = _holder(module, name, what)
        old = getattr(holder, leaf, None)
        if not isinstance(old, Tensor) or not _is_part(shape, old.shape):
            found = tuple(old.shape) if isinstance(old, Tensor) else "no tensor"
            raise ModelError(f"{what} gives {name} the shape {tuple(shape)}, and the zoo's module has {found}")
        part = old.detach()[tuple(slice(size) for size in shape)].clone().contiguous()
        if isinstance(old, nn.Parameter):
            setattr(holder, leaf, nn.Parameter(part, requires_grad=old.requires_grad))
        else:
            holder.register_buffer(leaf, part, persistent=leaf not in holder._non_persistent_buffers_set)
    for name, values in wanted.attributes.items():
        holder, _ = _holder(module, f"{name}.", what)
        for attribute, value in values.items():
            old = holder.__dict__.get(attribute)
            if not _is_number(old) or not _is_smaller(value, old):
                raise ModelError(f"{what} gives {name}.{attribute} the value {value!r}, and the zoo's module has {old}")
            setattr(holder, attribute, value)


def measure_norms(model: AdaptedModel, images: Sequence[Tensor]) -> None:
    """Give batch norms the statistics that they have in the pruned trunk.

    Args:
        model: in evaluation mode; its trunk's statistics are replaced.
        images: batches ``(n, C, H, W)`` of more than one image.
    """
    norms = [layer for layer in model.trunk.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches
        layer.train()
    for batch in images:
        _without_gradients(model, batch)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def multiplications(model: AdaptedModel, spec: InputSpec) -> int:
    """Multiply-accumulate operations for one image of the input's size, by torch's own counter."""
    image = torch.zeros(1, *([1] if model.bag else []), spec.channels, spec.height, spec.width)
    model.eval()
    # the counter doesn't count the CPU's fused attention; the plain one consists of products that it counts
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(image)
    return int(counter.get_total_flops()) // 2


def _read(model: AdaptedModel, image: Tensor) -> list[Tensor]:
    """What the head is given of images: maps, or the vector that leaves the trunk."""
    taken, x = {}, image
    for name, stage in model.stages.items():
        if name not in model.unread:
            x = taken[name] = stage(model.trunk, x)
    return [reading.map(taken[reading.tap.stage]) for reading in model.readings] or [x]


def _without_gradients(model: AdaptedModel, image: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return _read(model, image)


def _trace(model: AdaptedModel, image: Tensor) -> Any:
    """torch-pruning's graph of layers that share channels.

    Raises:
        ConfigError: it isn't installed.
        ModelError: it can't trace the model.
    """
    try:
        from torch_pruning.dependency import DependencyGraph
    except ImportError as error:
        raise ConfigError("pruning needs torch-pruning, not installed here: pip install 'zooft[prune]'") from error
    # the graph is that of gradients, so there must be some, of what the zoo has fixed too
    fixed = [parameter for parameter in model.trunk.parameters() if not parameter.requires_grad]
    for parameter in fixed:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            return DependencyGraph().build_dependency(
                model.trunk, example_inputs=image, forward_fn=lambda _trunk, x: _read(model, x), verbose=False
            )
    except Exception as error:  # of many kinds, of a library that walks through whatever a zoo has written
        raise ModelError(
            f"torch-pruning can't trace this backbone ({type(error).__name__}: {error}), so it can't be pruned; take "
            "a smaller one instead"
        ) from error
    finally:
        for parameter in fixed:
            parameter.requires_grad_(False)


def _roots(
    graph: Any,
    model: AdaptedModel,
    image: Tensor,
    ratio: float,
    generator: torch.Generator,
    variances: Mapping[nn.Module, Tensor],
) -> tuple[list[tuple[nn.Module, list[int]]], int]:
    """The first layer of each group that can lose channels and which it loses; how many groups can't."""
    found: list[tuple[nn.Module, list[int]]] = []
    whole = 0
    for group in list(graph.get_all_groups(root_module_types=[_ConvNd, nn.Linear])):
        layer = group[0].dep.target.module
        noise = torch.rand(_channels(layer), generator=generator)
        parts = _split(graph, group)
        if len(noise) % parts:
            whole += 1
            continue
        gone = _chosen(noise, parts, ratio)
        if gone and _holds(graph, model, image[:1], layer, gone):
            found.append((layer, _chosen(_importance(graph, group, variances, len(noise)), parts, ratio)))
        else:
            whole += 1
    return found, whole


def _group(graph: Any, layer: nn.Module, indices: Sequence[int] | range) -> Any:
    return graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, list(indices))


def _channels(layer: nn.Module) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def _variances(model: AdaptedModel, images: Sequence[Tensor]) -> dict[nn.Module, Tensor]:
    """Of what every convolution and linear layer of the trunk reads, by channel, over images and places."""
    sums: dict[nn.Module, tuple[int, Tensor, Tensor]] = {}

    def add(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1).double()
        count, total, squares = sums.get(layer, (0, torch.zeros(len(x)), torch.zeros(len(x))))
        sums[layer] = (count + x.shape[1], total + x.sum(1), squares + x.square().sum(1))

    with ExitStack() as stack:
        for layer in model.trunk.modules():
            if isinstance(layer, (_ConvNd, nn.Linear)):
                stack.callback(layer.register_forward_pre_hook(add).remove)
        for batch in images:
            _without_gradients(model, batch)
    return {
        layer: (squares / count - (total / count).square()).clamp(min=0)
        for layer, (count, total, squares) in sums.items()
    }


def _importance(graph: Any, group: Any, variances: Mapping[nn.Module, Tensor], size: int) -> Tensor:
    """Of each channel: its share of the variance that all channels bring into what each layer that reads them gives.

    What a channel has on average doesn't count: norms and shifts behind it learn that at once.
    """
    found = torch.zeros(size, dtype=torch.double)
    for item in group:
        layer = item.dep.target.module
        if layer in variances and _reads(graph, item.dep) and len(variances[layer]) == _inputs(layer):
            brought = variances[layer] * _weight_by_input(layer)
            share = brought / brought.sum().clamp(min=1e-30)
            found.index_add_(0, torch.tensor(item.root_idxs), share[torch.tensor(item.idxs)])
    return found


def _inputs(layer: nn.Module) -> int:
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)  # type: ignore[arg-type]


def _weight_by_input(layer: Any) -> Tensor:
    """Sum of the squared weights that read each input channel."""
    weight, parts = layer.weight.detach().double(), getattr(layer, "groups", 1)
    split = weight.reshape(parts, weight.shape[0] // parts, weight.shape[1], -1)
    found: Tensor = split.square().sum((1, 3)).flatten()
    return found


def _reads(graph: Any, dependency: Any) -> bool:
    """Whether it is a layer's reading of channels, which it mixes."""
    module = dependency.target.module
    reads = graph.is_in_channel_pruning_fn(dependency.handler)
    return bool(reads) and isinstance(module, (_ConvNd, nn.Linear)) and not _is_depthwise(module)


def _split(graph: Any, group: Any) -> int:
    """Into how many parts of the same size the channels are split, as by grouped convolutions."""
    parts = [1]
    for dependency, _ in group:
        module = dependency.target.module
        if isinstance(module, _ConvNd) and not _is_depthwise(module):
            parts.append(module.groups)
    return max(parts)


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and module.groups == module.out_channels > 1


def _chosen(importance: Tensor, parts: int, ratio: float) -> list[int]:
    """The least important channels, of each part the same."""
    size = len(importance) // parts
    remove = size - _remaining(size, ratio)
    order = importance.reshape(parts, size).mean(0).argsort(stable=True)[:remove]
    return sorted(part * size + int(place) for part in range(parts) for place in order)


def _remaining(size: int, ratio: float) -> int:
    """How many of so many channels stay: multiples of 8, or of 4 where there are few, which processors like."""
    step = 8 if size >= 64 else 4 if size >= 16 else 1
    return min(size, max(step, round(size * (1 - ratio) / step) * step))


def _holds(graph: Any, model: AdaptedModel, image: Tensor, layer: nn.Module, gone: Sequence[int]) -> bool:
    """Whether the network without some channels gives what it gives where nobody reads them."""
    group = list(_group(graph, layer, gone))
    own = set(model.trunk.modules())
    targets = [dependency.target.module for dependency, _ in group]
    layers = {module for module in targets if isinstance(module, nn.Module) and module in own}
    if any(isinstance(module, nn.Parameter) for module in targets) or not all(
        isinstance(module, _PRUNABLE) and not getattr(module, "transposed", False) for module in layers
    ):
        return False
    with _unread(graph, group):
        expected = _without_gradients(model, image)
    with _restored(layers):
        try:
            for dependency, indices in group:
                if dependency.target.module in layers:
                    dependency(indices)
            made = _without_gradients(model, image)
        except Exception:  # of the zoo's code or the library's, which have met sizes that they weren't written for
            return False
    return all(map(_is_close, made, expected))


def _is_close(made: Tensor, expected: Tensor) -> bool:
    if made.shape != expected.shape:
        return False
    spread = float(expected.std()) or 1.0
    return bool(torch.allclose(made, expected, rtol=0, atol=_TOLERANCE * spread))


@contextmanager
def _unread(graph: Any, group: Sequence[Any]) -> Iterator[None]:
    """While it is entered, layers that read the group's channels get zeros in their place."""
    with ExitStack() as stack:
        for dependency, indices in group:
            if _reads(graph, dependency):
                stack.callback(dependency.target.module.register_forward_pre_hook(_zeroing(indices)).remove)
        yield


def _zeroing(indices: Sequence[int]) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0].clone()
        x[(..., indices) if isinstance(module, nn.Linear) else (slice(None), indices)] = 0
        return (x, *inputs[1:])

    return hook


@contextmanager
def _restored(layers: set[nn.Module]) -> Iterator[None]:
    """Afterwards they are as they were: their tensors are replaced, never changed."""
    before = {
        layer: {
            name: copy.copy(value) if name in ("_parameters", "_buffers") else value
            for name, value in vars(layer).items()
        }
        for layer in layers
    }
    try:
        yield
    finally:
        for layer, saved in before.items():
            vars(layer).clear()
            vars(layer).update(saved)


def _changes(plain: nn.Module, pruned: nn.Module) -> dict[str, int | tuple[int, ...]]:
    """Numbers of a module that differ; tuples of them too."""
    return {
        name: value
        for name, value in vars(pruned).items()
        if _is_number(value) and name in vars(plain) and vars(plain)[name] != value
    }


def _is_number(value: Any) -> bool:
    """Whether it is a whole number or a tuple of some, which sizes are."""
    values = value if isinstance(value, tuple) else (value,)
    return bool(values) and all(isinstance(each, int) and not isinstance(each, bool) for each in values)


def _is_smaller(value: Any, old: Any) -> bool:
    new, was = ((each if isinstance(each, tuple) else (each,)) for each in (value, old))
    same_kind = isinstance(value, tuple) == isinstance(old, tuple)
    return same_kind and _is_part(new, was)


def _is_part(shape: Sequence[int], whole: Sequence[int]) -> bool:
    return len(shape) == len(whole) and all(0 < size <= most for size, most in zip(shape, whole, strict=True))


def _holder(module: nn.Module, name: str, what: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    modules: Mapping[str, nn.Module] = dict(module.named_modules())
    if path not in modules:
        raise ModelError(f"{what} names {path}, which the zoo's module doesn't have")
    return modules[path], leaf
