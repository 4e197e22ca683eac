"""The last piece of the deployed graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping


class Normalised(nn.Module):
    """The head's embedding ``(N, D)`` at length 1."""

    def forward(self, outputs: Mapping[str, Tensor], _batch: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Of a batch."""
        return (nn.functional.normalize(outputs["embedding"], dim=1),)
