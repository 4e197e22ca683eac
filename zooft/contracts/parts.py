"""What stands on a trunk and what of it stays as it is, as types: heads and freezers."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class FreezePlan:
    """Which stages learn in one epoch.

    Attributes:
        frozen: names of stages that must stay bit-equal, buffers too.
        scales: learning-rate factor by stage, on top of the backbone's rate, finite and not negative; 1.0 where unnamed.
    """

    frozen: frozenset[str]
    scales: Scale = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Freezer:
    """A rule for what stays: ``--freeze NAME`` or ``--freeze NAME:ARGUMENT``.

    Attributes:
        name: as on the command line.
        summary: one line.
        plan: ``(stages that hold parameters to learn, argument or None, epoch from 0) -> plan``, the same each time; raises
            ConfigError for an argument it can't use.
        argument: what stands behind the colon, for help texts; None where there is nothing.
    """

    name: str
    summary: str
    plan: Callable[[Sequence[str], str | None, int], FreezePlan]
    argument: str | None = None
