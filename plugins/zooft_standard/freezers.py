"""Rules for what stays. Each takes the stages that hold parameters, shallow to deep, an argument and the epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import zooft

if TYPE_CHECKING:
    from collections.abc import Sequence


def none(_stages: Sequence[str], _argument: str | None, _epoch: int) -> zooft.FreezePlan:
    """Everything learns."""
    return zooft.FreezePlan(frozen=frozenset())


def backbone(stages: Sequence[str], _argument: str | None, _epoch: int) -> zooft.FreezePlan:
    """Only the head learns."""
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


def gradual(stages: Sequence[str], argument: str | None, epoch: int) -> zooft.FreezePlan:
    """The head alone at first, then one more stage every E epochs, the deepest first (Howard and Ruder 2018)."""
    learning = epoch // _whole("gradual:E", argument)
    return zooft.FreezePlan(frozen=frozenset(stages[: max(0, len(stages) - learning)]))


def warmup(stages: Sequence[str], argument: str | None, epoch: int) -> zooft.FreezePlan:
    """The head alone for E epochs, then everything."""
    return zooft.FreezePlan(frozen=frozenset(stages if epoch < _whole("warmup:E", argument) else ()))


def layerwise(stages: Sequence[str], argument: str | None, _epoch: int) -> zooft.FreezePlan:
    """Everything learns, each stage DECAY times as fast as the one behind it (Howard and Ruder 2018)."""
    decay = _number(argument)
    if not 0 < decay <= 1:
        raise zooft.ConfigError(f"--freeze layerwise:DECAY needs a number above 0, at most 1; {argument!r} was given")
    scales = {stage: decay**depth for depth, stage in enumerate(reversed(stages))}
    return zooft.FreezePlan(frozen=frozenset(), scales=scales)


def norm(stages: Sequence[zooft.StageInfo], _argument: str | None, _epoch: int) -> zooft.FreezePlan:
    """Only scales and shifts of normalisation layers learn (Mudrakarta et al. 2019; Frankle et al. 2021)."""
    return _only("norm", stages, [one.name for stage in stages for one in stage.parameters if one.norm])


def bias(stages: Sequence[zooft.StageInfo], _argument: str | None, _epoch: int) -> zooft.FreezePlan:
    """Only what is added learns, in normalisation layers too (BitFit: Zaken et al. 2022; Cai et al. 2020 for CNNs)."""
    return _only("bias", stages, [one.name for stage in stages for one in stage.parameters if one.bias])


def _only(name: str, stages: Sequence[zooft.StageInfo], exempt: Sequence[str]) -> zooft.FreezePlan:
    if not exempt:
        layers = sorted({one.layer for stage in stages for one in stage.parameters})
        raise zooft.ConfigError(
            f"--freeze {name} finds no {name} to learn in this backbone, whose parameters lie in layers of the classes "
            f"{', '.join(layers) or 'none'}; use --freeze backbone, so that only the head learns, or last:K"
        )
    return zooft.FreezePlan(frozen=frozenset(stages), exempt=frozenset(exempt))


def _count(name: str, argument: str | None, stages: Sequence[str]) -> int:
    if argument is None or not argument.isdecimal() or not 0 <= int(argument) <= len(stages):
        raise zooft.ConfigError(
            f"--freeze {name}:K needs a number from 0 to {len(stages)}, since the backbone has the stages "
            f"{', '.join(stages)}; {argument!r} was given"
        )
    return int(argument)


def _whole(rule: str, argument: str | None) -> int:
    if argument is None or not argument.isdecimal() or int(argument) < 1:
        raise zooft.ConfigError(f"--freeze {rule} needs a whole number of epochs from 1; {argument!r} was given")
    return int(argument)


def _number(argument: str | None) -> float:
    try:
        return float(argument or "")
    except ValueError:
        return -1.0
