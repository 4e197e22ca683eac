"""What a user can choose of graded answers."""

from __future__ import annotations

from dataclasses import dataclass

from zooft.config import option


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdinalOptions:
    """Options that a task with this problem has besides its own."""

    grades: tuple[str, ...] = option(
        (), "the scale, the lowest grade first, such as none,mild,severe [default: the whole numbers that are found]"
    )
