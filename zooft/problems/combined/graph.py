"""The last pieces of several answers' graphs, side by side."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from zooft.problems.combined.parts import BETWEEN


class SideBySide(nn.Module):
    """All outputs of all answers, in order.

    Args:
        graphs: name of an answer to the last piece of its graph.
    """

    def __init__(self, graphs: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.graphs = nn.ModuleDict(graphs)

    def forward(self, outputs: Mapping[str, Tensor], batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Of the head's outputs under the answers' names."""
        found: list[Tensor] = []
        for name, graph in self.graphs.items():
            start = name + BETWEEN
            found += graph({key[len(start) :]: value for key, value in outputs.items() if key.startswith(start)}, batch)
        return tuple(found)
