"""Options of tasks with images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import zooft

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "MPO", "JPEG2000", "AVIF", "HEIF")
GROUP_COLUMN = "group"
LABEL_COLUMN = "label"
SPLIT_COLUMN = "split"
WHITE = 65_535
NOT_PICTURES = frozenset({"BUFR", "EPS", "FPX", "GRIB", "HDF5", "MPEG", "WMF"})
"""What Pillow names without reading it, or reads by running another program."""


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """Flags of every task with images."""

    augment: Literal["none", "light", "medium"] = zooft.option(
        "none", "random views in training; none lets frozen stages be computed once"
    )
    colour: Literal["rgb", "grey"] = zooft.option("rgb", "grey reads one channel and adapts the backbone to it")
    sixteen_bit: Literal["reject", "scale"] = zooft.option(
        "reject", "16-bit grey images: scale maps their range to 0..255"
    )
    sixteen_bit_range: tuple[int, int] = zooft.option(
        (0, WHITE), "for --sixteen-bit scale: the values of black and white, such as 0,4095 for 12 bits"
    )
    formats: tuple[str, ...] = zooft.option(FORMATS, "file formats to accept, by content, not by name")
    group_column: str = zooft.option(
        GROUP_COLUMN, "column of a table, or key of KEY.json in shards, that names what a split must not divide"
    )

    def __post_init__(self) -> None:
        """Refuse a range that is none, and formats that nothing reads; formats by the names in files."""
        low, high = self.sixteen_bit_range
        if not 0 <= low < high <= WHITE:
            raise zooft.ConfigError(
                f"sixteen-bit-range: black {low} and white {high}; both lie within 0 and {WHITE}, black below white"
            )
        if (low, high) != (0, WHITE) and self.sixteen_bit != "scale":
            raise zooft.ConfigError(f"sixteen-bit-range {low},{high} is for --sixteen-bit scale; give that too")
        if self.formats != FORMATS:
            object.__setattr__(self, "formats", _format_names(self.formats))


@dataclass(frozen=True, slots=True)
class ClassOptions:
    """Flags of classes."""

    class_weights: Literal["none", "balanced"] = zooft.option("none", "balanced weighs rare classes up in the loss")
    positive: str = zooft.option("", "of two classes the positive one [default: by their words, else the last by name]")
    label_column: str = zooft.option(
        LABEL_COLUMN, "column of a manifest or a data source, or key of KEY.json in shards, that names the class"
    )


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """Flags of tasks whose targets are columns of a table."""

    targets: tuple[str, ...] = zooft.option(
        (), "columns of the table to learn [default: label, labels or value, else all but path, split and group]"
    )


ClassificationOptions = zooft.join_options("ClassificationOptions", ImageOptions, ClassOptions)
MultilabelOptions = zooft.join_options("MultilabelOptions", ImageOptions, TargetOptions, zooft.MultilabelOptions)
RegressionOptions = zooft.join_options("RegressionOptions", ImageOptions, TargetOptions, zooft.RegressionOptions)
OrdinalOptions = zooft.join_options("OrdinalOptions", ImageOptions, TargetOptions, zooft.OrdinalOptions)
MultitaskOptions = zooft.join_options(
    "MultitaskOptions",
    ImageOptions,
    zooft.CombinedOptions,
    zooft.RegressionOptions,
    zooft.OrdinalOptions,
    zooft.MultilabelOptions,
)


def logistic_head(_options: ImageOptions) -> str:
    """The head of several labels.

    Few samples have each of them, and AdamW alone finds weights that fit these few too well.
    """
    return "standard/logistic"


def refuse_label_used_twice(label: str, group: str) -> None:
    """Raise ConfigError where the column of the classes is that of the groups or the splits, too."""
    other = {SPLIT_COLUMN: "the split", group: "what a split must not divide (--group-column)"}.get(label)
    if other is not None:
        raise zooft.ConfigError(f"label-column: the column {label!r} is {other}; name another one with the classes")


def channels(options: ImageOptions) -> int:
    """Of the network's input."""
    return 1 if options.colour == "grey" else 3


def _format_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """As files name them: JPEG for jpg.

    Raises:
        ConfigError: a name that no reader knows, or none at all.
    """
    import PIL.Image

    PIL.Image.init()
    readable = {name for name in (*PIL.Image.OPEN, "MPO", "HEIF") if name not in NOT_PICTURES}
    by_suffix = {suffix[1:].upper(): name for suffix, name in PIL.Image.registered_extensions().items()}
    by_suffix |= {"HEIC": "HEIF", "HEIF": "HEIF"}
    found = {name: name.upper() if name.upper() in readable else by_suffix.get(name.upper(), "") for name in names}
    unknown = [name for name, format_ in found.items() if format_ not in readable]
    if unknown or not names:
        what = f"nothing reads {', '.join(unknown)}" if unknown else "none is given"
        others = ", ".join(sorted(readable - set(FORMATS)))
        raise zooft.ConfigError(f"formats: {what}; there are {', '.join(FORMATS)}, and {others}")
    return tuple(dict.fromkeys(found.values()))
