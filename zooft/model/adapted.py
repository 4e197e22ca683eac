"""A backbone with a new head: the module that trains, and the way back to the zoo's own parameter names."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zooft.compute.kernels import strided
from zooft.errors import ModelError
from zooft.hooks.guard import call_plugin, code_of, place_of
from zooft.model import taps
from zooft.model.backbone import Backbone
from zooft.model.loading import load_strictly
from zooft.model.stages import owners

if TYPE_CHECKING:
    from zooft.contracts import Head
    from zooft.model.taps import Measured, Reading

HEAD_PREFIX = "zooft_head."


FEATURES = "zooft.features"
"""The name among a model's outputs of what its head reads, see `AdaptedModel.gives_features`."""
INSTANCES_AT_A_TIME = 32
"""Instances of bags that run together where no gradients are wanted."""


class AdaptedModel(nn.Module):
    """A trunk and a new head: ``(N, C, H, W)`` to the head's outputs by name.

    Args:
        backbone: whose module and stages it runs.
        head: of one output ``(N, width) -> (N, size)``, or ``(N, Z, width) -> (N, size)`` for a bag; of several a
            `ModuleDict` of these. With `readings`, a list of maps to all outputs by name.
        outputs: their names, in order.
        bag: whether a sample is a bag of Z instances; the model then takes ``(N, Z, C, H, W)``, and what leaves
            a stage has these two axes in front too.
        readings: of a head that reads maps, which; stages behind the deepest of them don't run.
        measured: with `readings`, what leaves the backbone's stages.
        logit_std: how widely the head's outputs are expected to spread, as `Head.logit_std`.

    Attributes:
        gives_features: whether the outputs in training mode have what the head reads too, under `FEATURES`; not of
            maps.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        *,
        outputs: Sequence[str] = ("logits",),
        bag: bool = False,
        readings: Sequence[Reading] = (),
        measured: Measured | None = None,
        logit_std: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(head, nn.Linear) and not any(slot.bias for slot in backbone.slots):
            head.register_parameter("bias", None)  # else it wouldn't fit into the zoo's own model
        self.trunk = backbone.module
        self.head = head
        self.outputs = tuple(outputs)
        self.stages = dict(backbone.stages)
        self.owners = owners(backbone.module.state_dict(), backbone.stages)  # each tensor's stage, in a tuple
        self.slots = backbone.slots
        self.fixed = backbone.fixed
        self.bag = bag
        self.readings = tuple(readings)
        self.shapes = {} if measured is None else dict(measured.shapes)
        self.taps = () if measured is None else tuple(tap.stage for tap in measured.taps)
        self.logit_std = logit_std
        self.picks = strided.is_needed(backbone.module)
        self.gives_features = False

    @property
    def unread(self) -> frozenset[str]:
        """The stages behind the deepest map that the head reads: they never run, and stay as they are."""
        return frozenset(list(self.stages)[self._depth :])

    @property
    def _depth(self) -> int:
        """How many stages run."""
        order = list(self.stages)
        return 1 + max(order.index(each.tap.stage) for each in self.readings) if self.readings else len(order)

    def forward(self, x: Tensor, start: int = 0) -> dict[str, Tensor]:
        """The head's outputs of `x`, which is what `prefix` gives for `start`, or an image for 0."""
        if self.readings:
            made: dict[str, Tensor] = self.head(self.maps(x, start))
            return {name: made[name] for name in self.outputs}
        features = self.run(x, list(self.stages)[start:])
        also = {FEATURES: features} if self.gives_features and self.training else {}
        if len(self.outputs) == 1:
            return {self.outputs[0]: self.head(features), **also}
        assert isinstance(self.head, nn.ModuleDict)  # noqa: S101 -- our own invariant
        return {name: self.head[name](features) for name in self.outputs} | also

    def prefix(self, x: Tensor, stop: int) -> Tensor:
        """All that later stages and the head read of the first `stop` stages: what leaves the last of them.

        For a head that reads maps, those of these stages too, as one row a sample, ``(N, numbers)``.
        """
        order = list(self.stages)[:stop]
        if not (self.readings and stop):
            return self.run(x, order)
        x, taken = self._collect_taps(x, order[: self._depth])
        parts = [taken[stage] for stage in self._taps_before(stop)] + ([x] if self._passes_on(stop) else [])
        return torch.cat([part.flatten(1) for part in parts], 1)

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

    def maps(self, x: Tensor, start: int = 0) -> list[Tensor]:
        """What a head that reads maps is given, ``(N, C, h, w)`` each, shallow to deep; `x` as in `forward`."""
        taken: dict[str, Tensor] = {}
        if start:
            x, taken = self._unpack(x, start)
        taken |= self._collect_taps(x, list(self.stages)[start : self._depth])[1]
        return [reading.map(taken[reading.tap.stage]) for reading in self.readings]

    def _collect_taps(self, x: Tensor, stages: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """What leaves the last of `stages`, and what leaves those of them that are read."""
        read, taken = {reading.tap.stage for reading in self.readings}, {}
        for stage in stages:
            x = self._through(x, [stage])
            if stage in read:
                taken[stage] = x
        return x, taken

    def _taps_before(self, stop: int) -> list[str]:
        """The first `stop` stages' taps that are read."""
        before = set(list(self.stages)[:stop])
        return list(dict.fromkeys(each.tap.stage for each in self.readings if each.tap.stage in before))

    def _passes_on(self, stop: int) -> bool:
        """Whether later stages need what leaves the last of the first `stop`, and no map is the same."""
        return stop < self._depth and list(self.stages)[stop - 1] not in self._taps_before(stop)

    def _unpack(self, rows: Tensor, start: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Of what `prefix` gives.

        The output of the stage before `start`, where later stages need it, and the maps that are read, by stage.
        """
        last, taken = list(self.stages)[start - 1], self._taps_before(start)
        names = [*taken, last] if self._passes_on(start) else taken
        parts = torch.split(rows, [math.prod(self.shapes[name]) for name in names], 1)
        shaped = {name: part.reshape(-1, *self.shapes[name]) for name, part in zip(names, parts, strict=True)}
        return shaped.get(last, rows), shaped

    def _through(self, x: Tensor, stages: Sequence[str]) -> Tensor:
        with strided.picking() if self.picks and torch.is_grad_enabled() else contextlib.nullcontext():
            for name in stages:
                x = self.stages[name](self.trunk, x)
        return x


def adapt(
    backbone: Backbone, head: Head, outputs: Mapping[str, int], *, known_taps: Collection[str] | None = None
) -> AdaptedModel:
    """The backbone with a new head.

    Args:
        backbone: its trunk.
        head: how the outputs are made: each by a module of its own, or all by one that reads maps.
        outputs: name to size.
        known_taps: the stages that have a map, as `AdaptedModel.taps` of the same model had them before; None to
            measure them.

    Raises:
        ModelError: the head doesn't give finite numbers of that size, or reads maps and the backbone has none.
    """
    if head.dense:
        return _adapt_dense(backbone, head, outputs, known_taps)
    made = {name: _build(backbone, head, size) for name, size in outputs.items()}
    module = next(iter(made.values())) if len(made) == 1 else nn.ModuleDict(made)
    return AdaptedModel(backbone, module, outputs=tuple(outputs), bag=head.reads == "bag", logit_std=head.logit_std)


def _adapt_dense(
    backbone: Backbone, head: Head, outputs: Mapping[str, int], known: Collection[str] | None
) -> AdaptedModel:
    measured = taps.measure(backbone, known)
    readings = taps.choose(backbone, head.reads, measured.taps)
    seen = tuple(reading.seen for reading in readings)
    module: nn.Module = call_plugin(head, "build", seen, outputs)
    maps = [torch.zeros(2, tap.channels, tap.rows, tap.columns) for tap in seen]
    probe = _try_head(head, module, maps, f"zeros {', '.join(str(tuple(each.shape)) for each in maps)}")
    check_outputs(head, probe, outputs, rows=2)
    return AdaptedModel(
        backbone, module, outputs=tuple(outputs), readings=readings, measured=measured, logit_std=head.logit_std
    )


def check_outputs(head: Head, made: Any, sizes: Mapping[str, int], *, rows: int) -> None:
    """Raise PluginError where what a head's module makes of maps isn't what the head declares.

    Args:
        head: whose module.
        made: of so many `rows`.
        sizes: of the outputs.
        rows: samples.
    """
    place, code = place_of(head, "build"), code_of(head, "build")
    if not isinstance(made, Mapping) or set(made) != set(sizes):
        came = sorted(made) if isinstance(made, Mapping) else made
        raise place.amiss(came, f"a mapping with {', '.join(sizes)}", what="what its module makes", code=code)
    for name, size in sizes.items():
        given = made[name]
        expected = {"vector": f"({rows}, {size})", "map": f"({rows}, {size}, h, w)", "places": f"({rows}, P, {size})"}
        what = f"the output {name} of its module"
        if not isinstance(given, Tensor):
            raise place.amiss(given, f"a tensor {expected[head.gives]}", what=what, code=code)
        axes, axis = {"vector": (2, 1), "map": (4, 1), "places": (3, 2)}[head.gives]
        if given.ndim != axes or len(given) != rows or given.shape[axis] != size:
            raise place.amiss(tuple(given.shape), expected[head.gives], what=f"the shape of {what}", code=code)
        if not bool(torch.isfinite(given).all()):
            raise place.error(f"gives a module whose output {name} isn't finite", code=code)


def _build(backbone: Backbone, head: Head, outputs: int) -> nn.Module:
    module: nn.Module = call_plugin(head, "build", backbone.width, outputs)
    place, code = place_of(head, "build"), code_of(head, "build")
    shape = (2, 3, backbone.width) if head.reads == "bag" else (2, backbone.width)
    probe = _try_head(head, module, torch.zeros(shape), f"zeros {shape}")
    if not isinstance(probe, Tensor):
        raise place.amiss(probe, f"a tensor (2, {outputs})", what=f"what its module makes of zeros {shape}", code=code)
    if tuple(probe.shape) != (2, outputs) or not bool(torch.isfinite(probe).all()):
        raise ModelError(
            f"the head {head.name} gives {tuple(probe.shape)}, expected finite (2, {outputs}) {place.words}"
        )
    return module


def _try_head(head: Head, module: nn.Module, given: Any, words: str) -> Any:
    """A head's module run on zeros; its buffers, such as BatchNorm's statistics, are restored."""
    before = {name: tensor.clone() for name, tensor in module.named_buffers()}
    try:
        with torch.no_grad():
            made = module(given)
    except Exception as error:  # plugin code
        raise place_of(head, "build").error(
            f"gives a module that fails on {words}: {type(error).__name__}: {error}", code=code_of(head, "build")
        ) from error
    for name, tensor in module.named_buffers():
        tensor.copy_(before[name])
    return made


def zoo_state_dict(model: AdaptedModel) -> dict[str, Tensor]:
    """All tensors under the zoo's own names, a linear head in the classifier's place.

    A head of another shape has no place in the zoo's model and stands under ``zooft_head.``.
    """
    tensors = {name: t.detach().cpu().clone().contiguous() for name, t in model.trunk.state_dict().items()}
    head = {name: t.detach().cpu().clone().contiguous() for name, t in model.head.state_dict().items()}
    if not isinstance(model.head, nn.Linear):
        return tensors | {HEAD_PREFIX + name: t for name, t in head.items()}
    for slot in model.slots:
        for name, tensor in head.items():
            shaped = tensor[:, :, None, None] if slot.convolution and name == "weight" else tensor
            tensors[f"{slot.name}.{name}"] = shaped.clone()
    return tensors


def load_zoo_state_dict(model: AdaptedModel, tensors: Mapping[str, Tensor], *, what: str) -> None:
    """The way back of `zoo_state_dict`.

    Raises:
        WeightsError: names or shapes differ.
    """
    prefixes = [HEAD_PREFIX] if not isinstance(model.head, nn.Linear) else [f"{s.name}." for s in model.slots]
    head = {n.removeprefix(prefixes[0]): t for n, t in tensors.items() if n.startswith(prefixes[0])}
    trunk = {n: t for n, t in tensors.items() if not n.startswith(tuple(prefixes))}
    if isinstance(model.head, nn.Linear):  # a zoo's classifier may be a 1x1 convolution
        head = {n: t.reshape(t.shape[:2]) if t.ndim == 4 and t.shape[2:] == (1, 1) else t for n, t in head.items()}
    load_strictly(model.trunk, trunk, without=(), what=what)
    load_strictly(model.head, head, without=(), what=what)
