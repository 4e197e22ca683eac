"""What stands on a trunk and what of it stays as it is, as types: heads and freezers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

Scale = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What stands in place of the classifier: ``--head NAME``.

    Attributes:
        name: as on the command line.
        summary: one line.
        build: ``(width, outputs) -> module`` taking ``(N, width)`` to ``(N, outputs)`` logits, every
            parameter initialised.
        bag: whether the module takes ``(N, Z, width)`` instead: a sample's Z instances, such as slices of a volume.
    """

    name: str
    summary: str
    build: Callable[[int, int], nn.Module]
    bag: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterInfo:
    """A parameter of a stage, for freezers that choose by it.

    Attributes:
        name: the zoo's, dotted.
        shape: of the tensor.
        layer: class of the module that holds it, such as ``Conv2d``.
        norm: whether that is a normalisation layer (batch, layer, group, instance, RMS), and this its scale or shift.
        bias: whether it is added to what a layer computes; the shift of a normalisation layer is both `norm` and `bias`.
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
    """A stage's name, which also tells what the stage holds: a freezer that needs names alone takes it for text."""

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
        scales: learning-rate factor by stage, on top of the backbone's rate, finite and not negative; 1.0 where unnamed.
        exempt: names of parameters that learn though their stage is frozen; all else in it, buffers too, stays bit-equal.
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
        plan: ``(stages that hold parameters to learn, argument or None, epoch from 0) -> plan``, the same each time; a stage is
            its name, and its ``parameters`` say what it holds. Raises ConfigError for an argument it can't use.
        argument: what stands behind the colon, for help texts; None where there is nothing.
    """

    name: str
    summary: str
    plan: Callable[[Sequence[StageInfo], str | None, int], FreezePlan]
    argument: str | None = None
