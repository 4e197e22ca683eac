"""Options that the graph depends on, as the first label's constants hold them: number of boxes, and overlap."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import zooft

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zooft_detection.options import DetectionOptions

_MOST, _IOU = "max_boxes", "nms_iou"
_USUAL = (100, 0.6)


class Settings(NamedTuple):
    """How many boxes a picture has at most, and the overlap from which on the less likely of two is dropped."""

    most: int
    iou: float


def record(labels: Sequence[zooft.Label], options: DetectionOptions) -> tuple[zooft.Label, ...]:
    """The same labels, with these in the first one's constants."""
    constants = {**labels[0].constants, _MOST: float(options.max_boxes), _IOU: options.nms_iou}
    return (replace(labels[0], constants=constants), *labels[1:])


def of(labels: Sequence[zooft.Label]) -> Settings:
    """What `record` has written into the labels."""
    found = labels[0].constants
    return Settings(int(found.get(_MOST, _USUAL[0])), float(found.get(_IOU, _USUAL[1])))
