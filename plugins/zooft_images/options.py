"""What the task ``classification`` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import zooft

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "MPO", "JPEG2000", "AVIF")
GROUP_COLUMN = "group"


@dataclass(frozen=True, slots=True)
class ClassificationOptions:
    """Flags of ``zooft finetune --task classification``."""

    augment: Literal["none", "light", "medium"] = zooft.option(
        "none", "random views in training; none lets frozen stages be computed once"
    )
    class_weights: Literal["none", "balanced"] = zooft.option("none", "balanced weighs rare classes up in the loss")
    colour: Literal["rgb", "grey"] = zooft.option("rgb", "grey reads one channel and adapts the backbone to it")
    sixteen_bit: Literal["reject", "scale"] = zooft.option(
        "reject", "16-bit grey images: scale maps 0..65535 to 0..255"
    )
    formats: tuple[str, ...] = zooft.option(FORMATS, "file formats to accept, told by content, not by name")
    group_column: str = zooft.option(
        GROUP_COLUMN, "manifest column, or key of KEY.json in shards, that names what a split must keep together"
    )


def channels(options: ClassificationOptions) -> int:
    """Of the network's input."""
    return 1 if options.colour == "grey" else 3
