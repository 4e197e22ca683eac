"""Options of segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import zooft
from zooft_segmentation import classes

GROUP_COLUMN = "group"
SMALLEST_SIDE, LARGEST_SIDE = 32, 4096


@dataclass(frozen=True, slots=True)
class SegmentationOptions:
    """Flags of the task."""

    classes_file: Path | None = zooft.option(
        None,
        "names of the classes, and their values or colours in masks: .txt with a line each, .json or .csv "
        "[default: classes.txt, .json or .csv in the data folder]",
        local=True,
    )
    classes_json: str = zooft.option("", "the same as JSON; a run records the file's content")
    ignore_index: tuple[str, ...] = zooft.option(
        ("255",), "values in masks, or names of classes, that are left out of loss and figures, such as 11 or void"
    )
    size: tuple[int, ...] = zooft.option(
        (), "of the network's input, rows,columns or one number for both [default: the backbone's own]"
    )
    fit: Literal["letterbox", "stretch"] = zooft.option(
        "letterbox", "how pictures are resized to it: letterbox preserves their aspect ratio"
    )
    tiles: int = zooft.option(
        0,
        "side in pixels of square tiles for training and prediction, at the pictures' own resolution; 0 for none",
    )
    tile_overlap: float = zooft.option(0.25, "share of a tile that predict lets neighbours overlap by, up to 0.5")
    augment: Literal["none", "light", "medium"] = zooft.option(
        "light", "random views in training: flips, scales and crops, colour"
    )
    segmentation_loss: Literal["ce+dice", "ce", "dice", "focal", "lovasz"] = zooft.option(
        "ce+dice", "cross entropy, Dice, both, focal or Lovász-Softmax, of each picture"
    )
    class_weights: Literal["none", "balanced"] = zooft.option(
        "none", "balanced weighs classes up that have few pixels where they are"
    )
    probabilities: bool = zooft.option(False, "the file also gives each class's probability at each pixel")
    group_column: str = zooft.option(
        GROUP_COLUMN, "column of a table of pairs that names groups, which a split must not divide"
    )

    def __post_init__(self) -> None:
        """Read the file of classes into `classes_json`, and refuse sizes that are none.

        Raises:
            ConfigError: such a size or overlap, or a file that can't be read.
        """
        sides = self.size
        if len(sides) > 2 or any(not SMALLEST_SIDE <= side <= LARGEST_SIDE for side in sides):
            raise zooft.ConfigError(
                f"size: {','.join(map(str, sides))}; give rows,columns such as 240,320, or one number, each from "
                f"{SMALLEST_SIDE} to {LARGEST_SIDE}"
            )
        if self.tiles and not SMALLEST_SIDE <= self.tiles <= LARGEST_SIDE:
            raise zooft.ConfigError(f"tiles: {self.tiles}; give a side from {SMALLEST_SIDE} to {LARGEST_SIDE} pixels")
        if not 0 <= self.tile_overlap <= 0.5:
            raise zooft.ConfigError(f"tile-overlap: {self.tile_overlap}; give a share from 0 to 0.5")
        if self.classes_file is not None:
            object.__setattr__(self, "classes_json", classes.to_json(classes.read_file(self.classes_file)))


def head(_options: SegmentationOptions) -> str:
    """The head that is used where none is named."""
    return "segmentation/fpn"
