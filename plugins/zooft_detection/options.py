"""Options of detection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import zooft

SMALLEST_SIDE, LARGEST_SIDE = 32, 4096
MOST_BOXES = 1000


@dataclass(frozen=True, slots=True)
class DetectionOptions:
    """Flags of the task."""

    annotations: Literal["auto", "coco", "voc", "yolo"] = zooft.option(
        "auto", "form of the annotations; auto takes the one that is found"
    )
    outside: Literal["list", "cut"] = zooft.option(
        "list",
        "pictures with boxes that reach beyond them: list them and leave them out, or cut the boxes at the border",
    )
    group_key: str = zooft.option(
        "group", "key of COCO's images that names groups that a split must not divide, such as patient_id"
    )
    size: tuple[int, ...] = zooft.option(
        (), "of the network's input, rows,columns or one number for both [default: the backbone's own]"
    )
    fit: Literal["letterbox", "stretch"] = zooft.option(
        "letterbox", "how pictures are resized to it: letterbox preserves their aspect ratio"
    )
    augment: Literal["none", "light", "medium"] = zooft.option(
        "light", "random views in training: flips, scales and crops, colour"
    )
    max_boxes: int = zooft.option(100, "boxes that the file gives of each picture at most")
    nms_iou: float = zooft.option(0.6, "overlap (IoU) above which the less likely of two boxes of a class is dropped")

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            ConfigError: such a size, number of boxes or overlap.
        """
        sides = self.size
        if len(sides) > 2 or any(not SMALLEST_SIDE <= side <= LARGEST_SIDE for side in sides):
            raise zooft.ConfigError(
                f"size: {','.join(map(str, sides))}; give rows,columns such as 288,384, or one number, each from "
                f"{SMALLEST_SIDE} to {LARGEST_SIDE}"
            )
        if not 1 <= self.max_boxes <= MOST_BOXES:
            raise zooft.ConfigError(f"max-boxes: {self.max_boxes}; give a number from 1 to {MOST_BOXES}")
        if not 0 < self.nms_iou < 1:
            raise zooft.ConfigError(f"nms-iou: {self.nms_iou}; give a share between 0 and 1, such as 0.6")


def head(_options: DetectionOptions) -> str:
    """The head that is used where none is named."""
    return "detection/fcos"
