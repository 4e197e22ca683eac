"""Events of a run for plugins that listen, as types: how it begins, what it is worth, how it ends.

Plain numbers and texts, without paths of this machine but for the run's folder: listeners may send them elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """What is known of a run when it is about to train.

    Attributes:
        name: of the folder that the run will have when it is whole.
        config: every option and its value, the task's own among them; without those for where something lies on
        this machine.
        counts: split to class to number of samples.
        resumed: whether the run resumes what an earlier process saved.
        epochs_done: how many epochs were announced before, folds apart; those that weren't saved are repeated.
    """

    name: str
    config: Mapping[str, Any]
    counts: Mapping[str, Mapping[str, int]]
    resumed: bool
    epochs_done: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A metric's value and the 95 % interval around it.

    Attributes:
        value: NaN where it is undefined.
        low: the interval's lower end; None where there is no interval.
        high: its upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvaluated:
    """The evaluation of the weights that a run saves.

    Attributes:
        best_epoch: from 1; the one whose weights are saved.
        figures: split (``val``, ``cross-validation``, ``test``) to metric to figure, per sample.
        group_figures: as `figures`, with one answer a group; of splits without groups, nothing.
    """

    best_epoch: int
    figures: Mapping[str, Mapping[str, Figure]]
    group_figures: Mapping[str, Mapping[str, Figure]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """How a run has ended; nothing more comes of it.

    Attributes:
        status: ``interrupted`` by Ctrl-C or a signal; ``failed`` also where only the file couldn't be verified.
        error: what was wrong, in one line; of private tasks its kind alone, since texts may name people. "" where it
        has finished.
        folder: the run's under its own name, or what was left under the working one; None where nothing was left.
    """

    status: Literal["finished", "failed", "interrupted"]
    error: str
    folder: Path | None
