"""Options of segmentation of CT, besides those of all tasks with CT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import zooft
from zooft_ct import CTOptions
from zooft_segmentation import ClassSpec, classes_to_json, read_classes

SMALLEST_SIDE, LARGEST_SIDE = 32, 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskOptions:
    """Flags of masks on CT."""

    classes: tuple[str, ...] = zooft.option(
        (), "names of the values 0, 1, 2 and so on of label volumes, such as background,nodule"
    )
    classes_file: Path | None = zooft.option(
        None,
        "names and values: .txt with a line each, .json or .csv "
        "[default: classes.txt, .json or .csv, labels.json or dataset.json in the data folder]",
        local=True,
    )
    classes_json: str = zooft.option("", "the same as JSON; a run records the file's content")
    size: tuple[int, ...] = zooft.option(
        (), "of the network's input, rows,columns or one number for both [default: the backbone's own]"
    )
    segmentation_loss: Literal["ce+dice", "ce", "dice", "focal", "lovasz"] = zooft.option(
        "ce+dice", "cross entropy, Dice, both, focal or Lovász-Softmax, of each slice"
    )
    class_weights: Literal["none", "balanced"] = zooft.option(
        "none", "balanced weighs structures up that have few pixels where they are"
    )
    probabilities: bool = zooft.option(False, "the file also gives each class's probability at each pixel")

    def __post_init__(self) -> None:
        """Read the classes into `classes_json`, and refuse a size that is none.

        Raises:
            ConfigError: such a size, a file that can't be read, or classes given twice.
        """
        if len(self.size) > 2 or any(not SMALLEST_SIDE <= side <= LARGEST_SIDE for side in self.size):
            raise zooft.ConfigError(
                f"size: {','.join(map(str, self.size))}; give rows,columns such as 256,256, or one number, each from "
                f"{SMALLEST_SIDE} to {LARGEST_SIDE}"
            )
        if self.classes and self.classes_file is not None:
            raise zooft.ConfigError("classes and classes-file were both given; give one of them")
        if self.classes:
            specs = [ClassSpec(name, value) for value, name in enumerate(self.classes)]
            object.__setattr__(self, "classes_json", classes_to_json(specs))
        elif self.classes_file is not None:
            object.__setattr__(self, "classes_json", classes_to_json(read_classes(self.classes_file)))


CTSegmentationOptions = zooft.join_options("CTSegmentationOptions", CTOptions, MaskOptions)
