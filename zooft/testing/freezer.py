"""A freezer, tried on shallow and deep backbones, early and late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.hooks.guard import ask, place_of
from zooft.model import freeze
from zooft.testing.breaches import accepted, conforming

if TYPE_CHECKING:
    from zooft.contracts import Freezer

_ASKED = 10
"""Times that a freezer is asked the same."""


@conforming()
def check_freezer(freezer: Freezer, argument: str | None) -> None:
    """Plans name stages that exist and factors that are some, the same each time, for shallow and deep backbones, early and late."""
    freezer = accepted(freezer)
    for stages in (("stem", "layer1", "layer2", "pool"), tuple(f"block{i}" for i in range(24))):
        for epoch in (0, 1, 7, 50):
            plan = ask(freezer, "plan", stages, argument, epoch)
            freeze.check_plan(freezer, plan, stages, epoch)
            if any(ask(freezer, "plan", stages, argument, epoch) != plan for _ in range(_ASKED)):
                raise place_of(freezer, "plan").error(
                    f"gives two different plans for epoch {epoch}; expected the same each time"
                )
