"""A freezer, tried on shallow and deep backbones, early and late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.contracts import ParameterInfo, StageInfo
from zooft.errors import ConfigError, ConformanceError, ZooftError
from zooft.hooks.guard import call_plugin, place_of
from zooft.model import freeze
from zooft.testing.breaches import accept, report_breaches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zooft.contracts import Freezer

_TIMES = 10
"""Times that a freezer has to plan the same."""
_EPOCHS = range(51)
_SHALLOW = ("stem", "layer1", "layer2", "pool")
_DEEP = tuple(f"block{i}" for i in range(24))
_ODD = ("", "-1", "99999", "1.5", "no-such-thing")
"""Arguments that some user will give."""


@report_breaches()
def check_freezer(freezer: Freezer, argument: str | None) -> None:
    """Plans name stages and parameters that exist and factors that are some, and are the same each time.

    Tried on a shallow and a deep backbone, each stage of which holds a layer, with weight and bias, and a norm, in
    epochs 0 to 50; and with arguments that make no sense, where it takes one.

    Args:
        freezer: what the plugin registers.
        argument: what would stand behind the colon; None for nothing.
    """
    freezer = accept(freezer)
    for names in (_SHALLOW, _DEEP):
        stages = tuple(StageInfo(name, _parameters(name)) for name in names)
        for epoch in _EPOCHS:
            plan = call_plugin(freezer, "plan", stages, argument, epoch)
            freeze.check_plan(freezer, plan, stages, epoch)
            if any(call_plugin(freezer, "plan", stages, argument, epoch) != plan for _ in range(_TIMES)):
                raise place_of(freezer, "plan").error(
                    f"gives two different plans for epoch {epoch}; expected the same each time"
                )
        if freezer.argument is not None:
            _check_odd_arguments(freezer, stages)


def _check_odd_arguments(freezer: Freezer, stages: Sequence[StageInfo]) -> None:
    """Each is either of use or refused by a ConfigError, which names what would work."""
    for odd in (None, *_ODD):
        try:
            freeze.check_plan(freezer, call_plugin(freezer, "plan", stages, odd, 0), stages, 0)
        except ConfigError:
            continue
        except ZooftError as error:
            raise ConformanceError(
                f"for the argument {odd!r}, {error}; expected a zooft.ConfigError that names what would work"
            ) from error


def _parameters(stage: str) -> list[ParameterInfo]:
    held = {"linear.weight": (8, 8), "linear.bias": (8,), "norm.weight": (8,), "norm.bias": (8,)}
    return [
        ParameterInfo(
            name=f"{stage}.{name}",
            shape=shape,
            layer="LayerNorm" if name.startswith("norm") else "Linear",
            norm=name.startswith("norm"),
            bias=name.endswith("bias"),
        )
        for name, shape in held.items()
    ]
