"""What gives a class and a box at every place, as the registry has it; `pyramid` builds it, and loads torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import zooft

if TYPE_CHECKING:
    from torch import nn


def heads() -> list[zooft.Head]:
    """All of them."""
    return [
        zooft.Head(
            name="fcos",
            summary="boxes at every place of a feature pyramid (FCOS, Tian et al. 2019)",
            build=_fcos,
            reads="pyramid",
            gives="places",
        )
    ]


def _fcos(taps: Sequence[zooft.Tap], sizes: Mapping[str, int]) -> nn.Module:
    from zooft_detection.pyramid import Fcos

    return Fcos(taps, sizes)
