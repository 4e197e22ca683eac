"""A plugin's module as a whole: its hooks, what they register, and its listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.testing.breaches import report_breaches
from zooft.testing.listener import check_listener
from zooft.testing.registration import register

if TYPE_CHECKING:
    from pathlib import Path


@report_breaches()
def check_plugin(plugin: object, *, folder: Path) -> None:
    """The module as a whole: it has hooks, all marked; what they register is of the right types.

    Listeners neither fail nor exit.

    Args:
        plugin: the module.
        folder: the run's, as events give it to listeners; further runs lie in it.
    """
    register(plugin)
    check_listener(plugin, folder=folder)
