"""What a user can choose of a regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zooft.config import option


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionOptions:
    """Options that a task with this problem has besides its own."""

    loss: Literal["smooth-l1", "mse"] = option("smooth-l1", "of standardised numbers; mse weighs outliers more")
    units: tuple[str, ...] = option(
        (), "units that the header doesn't name: mm for all numbers, or diameter=mm,age=years"
    )
