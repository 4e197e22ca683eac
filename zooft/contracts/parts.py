"""What stands on a trunk and what of it stays as it is, as types: heads and freezers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

Scale = Mapping[str, float]
Layout = Literal["map", "channels last", "tokens"]
"""How places lie in what a stage gives: ``(N, C, h, w)``, ``(N, h, w, C)``, or ``(N, prefix + h * w, C)``."""
Reads = Literal["vector", "bag", "map", "pyramid"]
Gives = Literal["vector", "map", "places"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """A place behind a stage where a map of the image can be taken, measured on the model at its input's size.

    Attributes:
        stage: behind which it lies.
        layout: of what the stage gives. A head gets ``(N, channels, rows, columns)`` whatever the layout.
        channels: of the map.
        rows: of the map.
        columns: of the map.
        stride: pixels of the network's input from one row of the map to the next.
        prefix_tokens: tokens before those of the places, such as a class token; a head doesn't get them.
    """

    stage: str
    layout: Layout
    channels: int
    rows: int
    columns: int
    stride: int
    prefix_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What stands in place of the classifier: ``--head NAME``.

    Attributes:
        name: as on the command line.
        summary: one line.
        build: of what reads a vector or a bag ``(width, size) -> module``, called once for each of the problem's
            outputs, giving ``(N, size)``. Of what reads a map or a pyramid ``(taps, sizes) -> module``, called once: a
            tuple of `Tap`, and the outputs' names to their sizes; the module takes a list of maps, one for each tap,
            and gives a mapping of name to tensor. Every parameter is initialised.
        reads: what the module takes. ``vector``: the pooled features ``(N, width)``. ``bag``: ``(N, Z, width)``, a
            sample's Z instances, such as slices of a volume. ``map``: the deepest tap alone, ``(N, C, h, w)``.
            ``pyramid``: up to four taps, shallow to deep, each of twice the stride of the one before.
        gives: the shape of each output. ``vector``: ``(N, size)``. ``map``: ``(N, size, h, w)`` of any h and w.
            ``places``: ``(N, P, size)``, the same P for all outputs, such as the places of all maps one after the
            other.
        logit_std: of a head that standardises its features, the standard deviation that its outputs are expected to
            have: the prior of a ridge or logistic regression. Weights, not biases, are penalised for it in the
            gradient, the less the more samples there are. 0 for no penalty. It isn't ``--weight-decay``, which AdamW
            leaves out of the gradient.
    """

    name: str
    summary: str
    build: Callable[..., nn.Module]
    reads: Reads = "vector"
    gives: Gives = "vector"
    logit_std: float = 0.0

    @property
    def dense(self) -> bool:
        """Whether it reads maps of the image."""
        return self.reads in ("map", "pyramid")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterInfo:
    """A parameter of a stage, for freezers that choose by it.

    Attributes:
        name: the zoo's, dotted.
        shape: of the tensor.
        layer: class of the module that holds it, such as ``Conv2d``.
        norm: whether that is a normalisation layer (batch, layer, group, instance, RMS), and this its scale or shift.
        bias: whether it is added to what a layer computes; the shift of a normalisation layer is both `norm` and
            `bias`.
    """

    name: str
    shape: tuple[int, ...]
    layer: str
    norm: bool
    bias: bool

    @property
    def size(self) -> int:
        """Numbers that it holds."""
        return math.prod(self.shape)


class StageInfo(str):
    """A stage's name, which also has what the stage holds: a freezer that needs names alone takes it for text."""

    parameters: tuple[ParameterInfo, ...]
    """Those that may learn, in the zoo's order."""

    def __new__(cls, name: str, parameters: Sequence[ParameterInfo] = ()) -> StageInfo:
        """A stage called `name` that holds `parameters`."""
        made = super().__new__(cls, name)
        made.parameters = tuple(parameters)
        return made


@dataclass(frozen=True, slots=True)
class FreezePlan:
    """Which stages learn in one epoch, and which parameters within frozen ones.

    Attributes:
        frozen: names of stages that must stay bit-equal, buffers too.
        scales: learning-rate factor by stage, on top of the backbone's rate, finite and not negative; 1.0 where
        unnamed.
        exempt: names of parameters that learn though their stage is frozen; all else in it, buffers too, stays
            bit-equal.
    """

    frozen: frozenset[str]
    scales: Scale = field(default_factory=dict)
    exempt: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Freezer:
    """A rule for what stays: ``--freeze NAME`` or ``--freeze NAME:ARGUMENT``.

    Attributes:
        name: as on the command line.
        summary: one line.
        plan: ``(stages that hold parameters to learn, argument or None, epoch from 0) -> plan``, the same each time; a
            stage is its name, and its ``parameters`` are what it holds. Raises ConfigError for an argument it can't
            use.
        argument: what stands behind the colon, for help texts; None where there is nothing.
    """

    name: str
    summary: str
    plan: Callable[[Sequence[StageInfo], str | None, int], FreezePlan]
    argument: str | None = None
