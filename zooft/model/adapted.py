"""A backbone with a new head: the module that trains, and the way back to the zoo's own parameter names."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zooft.compute.kernels import strided
from zooft.errors import ModelError
from zooft.hooks.guard import ask, code_of, place_of
from zooft.model.backbone import Backbone
from zooft.model.loading import load_strictly

if TYPE_CHECKING:
    from zooft.contracts import Head

HEAD_PREFIX = "zooft_head."


INSTANCES_AT_A_TIME = 32
"""Instances of bags that run together where no gradients are wanted."""


class AdaptedModel(nn.Module):
    """A trunk and a new head: ``(N, C, H, W)`` to the head's outputs by name.

    Args:
        backbone: whose module and stages it runs.
        head: of one output ``(N, width) -> (N, size)``, or ``(N, Z, width) -> (N, size)`` for a bag; of several a `ModuleDict` of these.
        outputs: their names, in order.
        bag: whether a sample is a bag of Z instances; the model then takes ``(N, Z, C, H, W)``, and what leaves
            a stage has these two axes in front too.
    """

    def __init__(
        self, backbone: Backbone, head: nn.Module, *, outputs: Sequence[str] = ("logits",), bag: bool = False
    ) -> None:
        super().__init__()
        if isinstance(head, nn.Linear) and not any(slot.bias for slot in backbone.slots):
            head.register_parameter("bias", None)  # else it wouldn't fit into the zoo's own model
        self.trunk = backbone.module
        self.head = head
        self.outputs = tuple(outputs)
        self.stages = dict(backbone.stages)
        self.slots = backbone.slots
        self.fixed = backbone.fixed
        self.bag = bag
        self.picks = strided.needed(backbone.module)

    def forward(self, x: Tensor, start: int = 0) -> dict[str, Tensor]:
        """The head's outputs of `x`, which is what leaves stage number `start` - 1, or an image for 0."""
        features = self.run(x, list(self.stages)[start:])
        if len(self.outputs) == 1:
            return {self.outputs[0]: self.head(features)}
        assert isinstance(self.head, nn.ModuleDict)  # noqa: S101 -- our own invariant
        return {name: self.head[name](features) for name in self.outputs}

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


def adapt(backbone: Backbone, head: Head, outputs: Mapping[str, int]) -> AdaptedModel:
    """The backbone with a new head, built once for each output.

    Args:
        backbone: its trunk.
        head: how each output is made.
        outputs: name to width.

    Raises:
        ModelError: the head doesn't give finite numbers of that width.
    """
    made = {name: _build(backbone, head, size) for name, size in outputs.items()}
    module = next(iter(made.values())) if len(made) == 1 else nn.ModuleDict(made)
    return AdaptedModel(backbone, module, outputs=tuple(outputs), bag=head.bag)


def _build(backbone: Backbone, head: Head, outputs: int) -> nn.Module:
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
    return module


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
    shaped = {n: t.reshape(t.shape[:2]) if t.ndim == 4 and t.shape[2:] == (1, 1) else t for n, t in head.items()}
    load_strictly(model.trunk, trunk, without=(), what=what)
    load_strictly(model.head, shaped, without=(), what=what)
