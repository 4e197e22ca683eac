"""A freezer, tried on shallow and deep backbones, early and late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.contracts import ParameterInfo, StageInfo
from zooft.hooks.guard import ask, place_of
from zooft.model import freeze
from zooft.testing.breaches import accepted, conforming

if TYPE_CHECKING:
    from zooft.contracts import Freezer

_TIMES = 10
"""Times that a freezer has to plan the same."""
_EPOCHS = (0, 1, 7, 50)
_SHALLOW = ("stem", "layer1", "layer2", "pool")
_DEEP = tuple(f"block{i}" for i in range(24))


@conforming()
def check_freezer(freezer: Freezer, argument: str | None) -> None:
    """Plans name stages and parameters that exist and factors that are some, and are the same each time.

    Tried on a shallow and a deep backbone, each stage of which holds a layer, with weight and bias, and a norm; early and late.

    Args:
        freezer: what the plugin registers.
        argument: what would stand behind the colon; None for nothing.
    """
    freezer = accepted(freezer)
    for names in (_SHALLOW, _DEEP):
        stages = tuple(StageInfo(name, _parameters(name)) for name in names)
        for epoch in _EPOCHS:
            plan = ask(freezer, "plan", stages, argument, epoch)
            freeze.check_plan(freezer, plan, stages, epoch)
            if any(ask(freezer, "plan", stages, argument, epoch) != plan for _ in range(_TIMES)):
                raise place_of(freezer, "plan").error(
                    f"gives two different plans for epoch {epoch}; expected the same each time"
                )


def _parameters(stage: str) -> list[ParameterInfo]:
    held = {"linear.weight": (8, 8), "linear.bias": (8,), "norm.weight": (8,), "norm.bias": (8,)}
    return [
        ParameterInfo(
            name=f"{stage}.{name}", shape=shape, layer="LayerNorm" if name.startswith("norm") else "Linear",
            norm=name.startswith("norm"), bias=name.endswith("bias"),
        )
        for name, shape in held.items()
    ]  # fmt: skip
