"""The last piece of the exported graph: classes and boxes of every place to the likeliest boxes of each picture.

Overlapping boxes of one class are dropped by the standard operator NonMaxSuppression, which takes all pictures of a
batch at once; in torch by torchvision's, picture by picture. Both take the likeliest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from zooft_detection.pyramid import CENTRENESS, CLASSES, DISTANCES, SQUARES, boxes_of

FLOOR = 0.05
"""The least score: what is below is no box."""
NO_LABEL = -1
_LEAST_SIDE = 0.01
"""Pixels: boxes that lie beside the picture are lines once they are cut at its border."""


class Found(NamedTuple):
    """The likeliest boxes of N pictures, K of each, the likeliest first; behind the last one zeros and `NO_LABEL`.

    Attributes:
        boxes: ``(N, K, 4)`` corners.
        scores: ``(N, K)``.
        labels: ``(N, K)`` int64.
        counts: ``(N,)`` int64, how many there are.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    counts: Tensor


class Boxes(nn.Module):
    """What the file gives.

    Args:
        most: K.
        iou: overlap above which the less likely of two boxes of one class is dropped.
    """

    def __init__(self, *, most: int, iou: float) -> None:
        super().__init__()
        self.most, self.iou = most, iou

    def forward(self, outputs: Mapping[str, Tensor], _batch: tuple[Tensor, ...], back: Any) -> tuple[Tensor, ...]:
        """`Found` in the pictures' own pixels, and what it is made of: ``logits`` and ``place_boxes``."""
        places = boxes_of(outputs[DISTANCES], outputs[SQUARES])
        found = select(back.boxes(places), scores_of(outputs), most=self.most, iou=self.iou)
        return (*found, outputs[CLASSES], places)


def scores_of(outputs: Mapping[str, Tensor]) -> Tensor:
    """``(N, P, C)``: the geometric mean of class and centreness."""
    return (outputs[CLASSES].sigmoid() * outputs[CENTRENESS].sigmoid()).sqrt()


def select(boxes: Tensor, scores: Tensor, *, most: int, iou: float) -> Found:
    """The likeliest boxes without those that overlap likelier ones of their class.

    Args:
        boxes: ``(N, P, 4)`` corners.
        scores: ``(N, P, C)``.
        most: K.
        iou: the largest overlap.
    """
    wide = (boxes[..., 2:] - boxes[..., :2]).amin(-1, keepdim=True) > _LEAST_SIDE
    scores = (scores * wide).transpose(1, 2)
    places = boxes.shape[1]
    scores_left = suppress(boxes, scores, most=most, iou=iou).flatten(1)
    if scores_left.shape[1] < most:
        scores_left = nn.functional.pad(scores_left, (0, most - scores_left.shape[1]))
    top, index = scores_left.topk(most)
    there = top > FLOOR
    place, label = index % places, index // places
    corners = boxes.gather(1, place[..., None].expand(-1, -1, 4)) * there[..., None]
    return Found(corners, top * there, torch.where(there, label, NO_LABEL), there.sum(1))


def suppress(boxes: Tensor, scores: Tensor, *, most: int, iou: float) -> Tensor:
    """Scores ``(N, C, P)`` with 0 for all that are no box.

    These are below `FLOOR`, overlap likelier boxes ``(N, P, 4)`` of their class, or come behind the first `most`.
    """
    if torch.compiler.is_exporting():
        return _as_operator(boxes, scores, most=most, iou=iou)
    scores_left = torch.zeros_like(scores)
    for row, column in torch.nonzero((scores > FLOOR).any(-1)).tolist():
        own = scores[row, column]
        which = torch.nonzero(own > FLOOR)[:, 0]
        which = which[torchvision.ops.nms(boxes[row, which], own[which], iou)[:most]]
        scores_left[row, column, which] = own[which]
    return scores_left


def _as_operator(boxes: Tensor, scores: Tensor, *, most: int, iou: float) -> Tensor:
    operator = torch.onnx.ops.symbolic
    # a number that depends on the data, as that of the boxes that are left does
    left = torch.nonzero(scores.flatten() > FLOOR).shape[0]
    limits = [torch.tensor([most]), torch.tensor([iou]), torch.tensor([FLOOR])]
    chosen = operator("NonMaxSuppression", (boxes, scores, *limits), dtype=torch.int64, shape=(left, 3), version=18)
    values = operator("GatherND", (scores, chosen), dtype=torch.float32, shape=(left,), version=18)
    empty = torch.zeros_like(scores)
    return operator("ScatterND", (empty, chosen, values), dtype=torch.float32, shape=scores.shape, version=18)
