"""Rules for what stays. Each takes the stages that hold parameters, shallow to deep, an argument and the epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import zooft

if TYPE_CHECKING:
    from collections.abc import Sequence


def none(_stages: Sequence[str], argument: str | None, _epoch: int) -> zooft.FreezePlan:
    """Everything learns."""
    _refuse("none", argument)
    return zooft.FreezePlan(frozen=frozenset())


def backbone(stages: Sequence[str], argument: str | None, _epoch: int) -> zooft.FreezePlan:
    """Only the head learns."""
    _refuse("backbone", argument)
    return zooft.FreezePlan(frozen=frozenset(stages))


def first(stages: Sequence[str], argument: str | None, _epoch: int) -> zooft.FreezePlan:
    """The first K stages stay."""
    return zooft.FreezePlan(frozen=frozenset(stages[: _count("first", argument, stages)]))


def last(stages: Sequence[str], argument: str | None, _epoch: int) -> zooft.FreezePlan:
    """Only the last K stages learn."""
    return zooft.FreezePlan(frozen=frozenset(stages[: len(stages) - _count("last", argument, stages)]))


def until(stages: Sequence[str], argument: str | None, _epoch: int) -> zooft.FreezePlan:
    """All stages up to and including the named one stay."""
    if argument not in stages:
        given = f"{argument!r} was given" if argument else "none was given"
        raise zooft.ConfigError(f"--freeze until:STAGE needs one of {', '.join(stages)}; {given}")
    return zooft.FreezePlan(frozen=frozenset(stages[: stages.index(argument) + 1]))


def _refuse(name: str, argument: str | None) -> None:
    if argument is not None:
        raise zooft.ConfigError(f"--freeze {name} takes no argument, but {argument!r} was given")


def _count(name: str, argument: str | None, stages: Sequence[str]) -> int:
    if argument is None or not argument.isdecimal() or not 0 <= int(argument) <= len(stages):
        raise zooft.ConfigError(
            f"--freeze {name}:K needs a number from 0 to {len(stages)}, since the backbone has the stages "
            f"{', '.join(stages)}; {argument!r} was given"
        )
    return int(argument)
