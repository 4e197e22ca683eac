"""What a user can choose of several labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zooft.config import option


@dataclass(frozen=True, slots=True, kw_only=True)
class MultilabelOptions:
    """Options that a task with this problem has besides its own."""

    multilabel_loss: Literal["weighted-bce", "bce", "asymmetric"] = option(
        "weighted-bce", "weighted-bce weighs rare labels up; asymmetric is for many labels of which few are there"
    )
    empty_means: Literal["unknown", "none"] = option(
        "unknown", "an empty cell: whether it is unknown, or there is no label"
    )
