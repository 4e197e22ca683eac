"""FCOS (Tian et al. 2019) on a backbone's taps: torchvision's feature pyramid and heads, and places of our own.

A place is a point of one of the pyramid's maps; its square, as wide as the map's stride, gives where it lies in the
network's input and which sizes of boxes are its business.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

import zooft

CLASSES, CENTRENESS, DISTANCES, SQUARES = "classes", "centreness", "distances", "squares"
"""The head's outputs."""
_WIDTH = 128
_FINEST = 8
"""The least stride: finer maps cost most of the time and find little more."""
_COARSER = 2
"""Levels that are made from the coarsest map, each of half its size."""


class Fcos(nn.Module):
    """A class, a centreness and a box at every place.

    Args:
        taps: what it reads, shallow to deep.
        sizes: of the outputs; the number of classes is that of `CLASSES`.
    """

    def __init__(self, taps: Sequence[zooft.Tap], sizes: Mapping[str, int]) -> None:
        super().__init__()
        used = [number for number, tap in enumerate(taps) if tap.stride >= _FINEST] or [len(taps) - 1]
        self.first = used[0]
        taps = taps[self.first :]
        self.pyramid = FeaturePyramidNetwork(
            [tap.channels for tap in taps], _WIDTH, extra_blocks=LastLevelP6P7(_WIDTH, _WIDTH)
        )
        self.head = FCOSHead(_WIDTH, num_anchors=1, num_classes=sizes[CLASSES])
        self.register_buffer("squares", _squares(taps), persistent=False)
        self.squares: Tensor

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """The pyramid's maps ``(N, C, h, w)`` to ``(N, P, size)`` of each output."""
        named = OrderedDict((str(number), x) for number, x in enumerate(maps[self.first :]))
        levels = list(self.pyramid(named).values())
        seen = [self.head.regression_head.conv(x) for x in levels]
        return {
            CLASSES: self.head.classification_head(levels),
            CENTRENESS: torch.cat([_flat(self.head.regression_head.bbox_ctrness(x)) for x in seen], 1),
            # torchvision's own forward has ReLU here: once all distances are below 0, nothing is learnt any more
            DISTANCES: nn.functional.softplus(
                torch.cat([_flat(self.head.regression_head.bbox_reg(x)) for x in seen], 1)
            ),
            SQUARES: self.squares.expand(maps[0].shape[0], -1, -1),
        }


def _flat(x: Tensor) -> Tensor:
    """``(N, C, h, w)`` to ``(N, h * w, C)``."""
    return x.flatten(2).transpose(1, 2)


def _squares(taps: Sequence[zooft.Tap]) -> Tensor:
    """``(P, 4)``: corners of every place's square in the network's input, level by level, row by row."""
    levels = [(tap.rows, tap.columns, tap.stride) for tap in taps]
    for _ in range(_COARSER):
        rows, columns, stride = levels[-1]
        levels.append((-(-rows // 2), -(-columns // 2), 2 * stride))
    made = []
    for rows, columns, stride in levels:
        y, x = torch.meshgrid(torch.arange(rows) * stride, torch.arange(columns) * stride, indexing="ij")
        made.append(torch.stack([x, y, x + stride, y + stride], -1).reshape(-1, 4))
    return torch.cat(made).to(torch.float32)


def boxes_of(distances: Tensor, squares: Tensor) -> Tensor:
    """Corners ``(..., 4)`` of boxes by the distances of their sides from the middle of a square, in its widths."""
    middle = (squares[..., :2] + squares[..., 2:]) / 2
    apart = distances * (squares[..., 2:3] - squares[..., 0:1])
    return torch.cat([middle - apart[..., :2], middle + apart[..., 2:]], -1)
