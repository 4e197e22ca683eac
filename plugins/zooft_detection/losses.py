"""What is learnt from boxes: FCOS's assignment of boxes to places, and its three losses from torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

import zooft
from zooft_detection.pyramid import CENTRENESS, CLASSES, DISTANCES, SQUARES, boxes_of

_RADIUS = 1.5
"""Widths of a square from the middle of a box up to which a place is responsible for it (FCOS's centre sampling)."""
_NEAR, _FAR = 4.0, 8.0
"""Widths of a square: the farthest side of a box that a place is responsible for lies between the two."""


class Assigned(NamedTuple):
    """Which box each place is responsible for.

    Attributes:
        box: ``(N, P)`` its number; any where there is none.
        found: ``(N, P)`` bool, whether there is one.
        left_out: ``(N, P)`` bool, places without one that lie in a region which counts nowhere.
    """

    box: Tensor
    found: Tensor
    left_out: Tensor


class BoxLoss(nn.Module):
    """Focal loss of the classes, GIoU loss of the boxes and cross entropy of the centreness, summed.

    The weight of a picture in the mean is the number of places that are responsible for a box, at least one.
    """

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> zooft.Loss:
        """Of N pictures.

        Args:
            outputs: of the head, ``(N, P, size)`` each.
            targets: ``boxes`` ``(N, M, 4)`` in the network's input, ``labels`` ``(N, M)`` with -1 for none, and
                ``ignored`` ``(N, M)``.
        """
        classes, centreness, distances = (outputs[name].float() for name in (CLASSES, CENTRENESS, DISTANCES))
        squares = outputs[SQUARES].float()
        with torch.no_grad():
            assigned = assign(squares, targets["boxes"], targets["labels"], targets["ignored"])
            matched = targets["boxes"].gather(1, assigned.box[..., None].expand(-1, -1, 4))
            names = targets["labels"].gather(1, assigned.box)
        found = assigned.found
        one_hot = nn.functional.one_hot(names.clamp_min(0), classes.shape[-1]) * found[..., None]
        focal = sigmoid_focal_loss(classes, one_hot.to(classes), reduction="none").sum(-1)
        total = (focal * ~assigned.left_out).sum()
        ours = boxes_of(distances[found], squares[found])
        total = total + generalized_box_iou_loss(ours, matched[found], reduction="sum")
        near = nn.functional.binary_cross_entropy_with_logits(
            centreness[found][:, 0], _centreness(squares[found], matched[found]), reduction="sum"
        )
        # 0 x: where no place is responsible for a box, there is a gradient all the same
        idle = 0 * (distances.sum() + centreness.sum() + squares.sum())
        return zooft.Loss(total + near + idle, found.sum(1).clamp_min(1).sum())


def assign(squares: Tensor, boxes: Tensor, labels: Tensor, ignored: Tensor) -> Assigned:
    """Which box each place is responsible for: of several the smallest.

    Args:
        squares: ``(N, P, 4)`` of the places.
        boxes: ``(N, M, 4)``.
        labels: ``(N, M)``, -1 where there is no box.
        ignored: ``(N, M)`` bool, of regions that count nowhere.
    """
    middle = (squares[..., :2] + squares[..., 2:]) / 2  # (N, P, 2)
    width = (squares[..., 2] - squares[..., 0])[..., None]  # (N, P, 1)
    before = middle[:, :, None] - boxes[:, None, :, :2]  # (N, P, M, 2)
    behind = boxes[:, None, :, 2:] - middle[:, :, None]
    inside = torch.minimum(before, behind).amin(-1) > 0  # (N, P, M)
    farthest = torch.maximum(before, behind).amax(-1)
    off_centre = (before - behind).abs().amax(-1) / 2
    widths = squares[..., 2] - squares[..., 0]
    finest = widths == widths.amin(1, keepdim=True)
    coarsest = widths == widths.amax(1, keepdim=True)
    lower = torch.where(finest[..., None], torch.zeros_like(width), width * _NEAR)
    upper = torch.where(coarsest[..., None], torch.full_like(width, torch.inf), width * _FAR)
    there = (labels >= 0)[:, None]
    own = inside & (off_centre < _RADIUS * width) & (farthest > lower) & (farthest <= upper)
    own &= there & ~ignored[:, None]
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)[:, None]
    smallest = torch.where(own, area, torch.full_like(area, torch.inf)).min(-1)
    found = own.any(-1)
    left_out = (inside & there & ignored[:, None]).any(-1) & ~found
    return Assigned(smallest.indices, found, left_out)


def _centreness(squares: Tensor, boxes: Tensor) -> Tensor:
    """``(n,)``: 1 in the middle of a box, 0 at its border."""
    middle = (squares[:, :2] + squares[:, 2:]) / 2
    before, behind = middle - boxes[:, :2], boxes[:, 2:] - middle
    shares = torch.minimum(before, behind) / torch.maximum(before, behind)
    return shares.prod(-1).clamp_min(0).sqrt()
