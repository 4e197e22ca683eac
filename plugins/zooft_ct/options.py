"""Options of tasks with CT."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

import zooft

WINDOWS = ("lung", "mediastinum", "bone")
"""What ``--mode windows`` looks through where nothing else is set."""
_WINDOW = ("lung",)


@dataclass(frozen=True, slots=True, kw_only=True)
class CTOptions:
    """Flags of every task with CT."""

    mode: Literal["slice", "2.5d", "windows", "volume"] = zooft.option(
        "2.5d",
        "what a sample is: one slice, a slice between its neighbours, a slice in three windows, or slices of a volume",
    )
    window: tuple[str, ...] = zooft.option(
        (), "HU windows by name or as CENTER/WIDTH [default: lung; lung,mediastinum,bone for --mode windows]"
    )
    spacing: Annotated[float, Ge(0), Lt(math.inf)] = zooft.option(
        0.0, "mm between pixels that every slice is resampled to; 0 shows the whole field of view as it is"
    )
    slices: Annotated[int, Ge(1)] = zooft.option(32, "for --mode volume: how many, evenly spaced by position")
    group_by: Literal["patient", "study", "series", "folder"] = zooft.option("patient", "what a split must not divide")
    augment: Literal["none", "light", "medium"] = zooft.option(
        "none", "random views in training; none lets frozen stages be computed once"
    )
    flip: bool = zooft.option(False, "augmentation may mirror slices; left and right are then one")
    max_gap: Annotated[float, Gt(0), Lt(math.inf)] = zooft.option(
        3.0, "refuse a series with a wider gap than so many times its usual distance between slices"
    )
    force_dicom: bool = zooft.option(False, "read files that lack the DICOM preamble too")
    nan_to_air: bool = zooft.option(False, "take values in NIfTI that aren't numbers for air")
    strict: bool = zooft.option(False, "a file that can't be used is an error")
    hu_cache: str = zooft.option("auto", "where decoded slices are cached: auto, off, or a folder", local=True)

    def __post_init__(self) -> None:
        """Put the mode's windows in place where none was named, so that a run records them."""
        if not self.window:
            object.__setattr__(self, "window", WINDOWS if self.mode == "windows" else _WINDOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassOptions:
    """Flags of classes."""

    positive: str = zooft.option(
        "",
        "the positive class; required where the names of two classes don't show it [default: by their words]",
    )
    operating_point: str = zooft.option("youden", "the threshold's rule: youden, sensitivity:0.9 or specificity:0.9")
    class_weights: Literal["none", "balanced"] = zooft.option("none", "balanced weighs rare classes up in the loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOptions:
    """Flags of tasks whose targets are columns of the table of labels."""

    targets: tuple[str, ...] = zooft.option(
        (),
        "columns of the table of labels to learn [default: label, labels, value, or the only one that means nothing "
        "else]",
    )


ClassificationOptions = zooft.join_options("ClassificationOptions", CTOptions, ClassOptions)
RegressionOptions = zooft.join_options("RegressionOptions", CTOptions, TargetOptions, zooft.RegressionOptions)
OrdinalOptions = zooft.join_options("OrdinalOptions", CTOptions, TargetOptions, zooft.OrdinalOptions)
MultilabelOptions = zooft.join_options("MultilabelOptions", CTOptions, TargetOptions, zooft.MultilabelOptions)
MultitaskOptions = zooft.join_options(
    "MultitaskOptions",
    CTOptions,
    zooft.CombinedOptions,
    zooft.RegressionOptions,
    zooft.OrdinalOptions,
    zooft.MultilabelOptions,
)
