"""Names and figures in sentences and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol


class Ends(Protocol):
    """An interval around a figure, as evaluations have it."""

    @property
    def low(self) -> float | None:
        """The lower end; None where there is no interval."""

    @property
    def high(self) -> float | None:
        """The upper end."""


def list_some(names: Sequence[str], most: int) -> str:
    """The first `most` names, and how many more there are: ``a, b and 3 more``."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def format_figure(value: float | None, interval: Ends | None = None, *, form: str = ".3f") -> str:
    """A figure for a table: ``0.912``, ``0.912 (0.871 to 0.944)``, or ``undefined``.

    Args:
        value: None or NaN where it is undefined.
        interval: around it, such as its entry in ``evaluation.metrics``; None, or ends that are None or NaN, for none.
        form: how numbers are written, by Python's format specification.
    """
    if value is None or not math.isfinite(value):
        return "undefined"
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return f"{value:{form}}"
    return f"{value:{form}} ({low:{form}} to {high:{form}})"
