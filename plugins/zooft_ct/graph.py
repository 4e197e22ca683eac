"""What the deployed graph takes and how it makes the network's input of it. Loaded without torch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import zooft
from zooft_ct.windows import parse

if TYPE_CHECKING:
    from torch import nn

    from zooft_ct.options import CTOptions

_WINDOWS = {"slice": (1,), "2.5d": (1,), "windows": (3,), "volume": (1, 3)}
_SHOWN = {
    "slice": "the middle one is shown",
    "2.5d": "the middle one is shown with the ones before and after it, in order along the patient",
    "windows": "the middle one is shown",
    "volume": "all are shown, in order along the patient, evenly spaced",
}


def check(options: CTOptions) -> None:
    """Whether mode, windows and spacing go together.

    Raises:
        ConfigError: lists all faults.
    """
    faults = []
    for text in options.window:
        try:
            parse(text)
        except zooft.ConfigError as error:
            faults.append(str(error))
    allowed, given = _WINDOWS[options.mode], options.window
    if len(given) not in allowed:
        wanted = " or ".join("one" if count == 1 else "three" for count in allowed)
        faults.append(f"--mode {options.mode} takes {wanted} --window, and {len(given)} were given: {', '.join(given)}")
    if not (math.isfinite(options.spacing) and options.spacing >= 0):
        faults.append(f"--spacing takes mm from 0 (off) upwards; {options.spacing:g} was given")
    if faults:
        raise zooft.ConfigError("; ".join(faults))


def port(options: CTOptions) -> zooft.Port | tuple[zooft.Port, zooft.Port]:
    """HU, and the spacing of the pixels where the graph resamples.

    Raises:
        ConfigError: options that don't go together.
    """
    check(options)
    hu = zooft.Port(
        name="hu",
        dtype="int16",
        axes=("batch", "slices", "rows", "columns"),
        meaning="CT in Hounsfield units -1024..3071, -1024 outside the scan; axial slices from feet to head, rows from "
        f"front to back, columns from the patient's right to left; of the slices {_SHOWN[options.mode]}",
    )
    if not options.spacing:
        return hu
    spacing = zooft.Port(
        name="spacing", dtype="float32", axes=("batch", 2), meaning="mm between rows and between columns of hu"
    )
    return hu, spacing


def geometry(spec: zooft.InputSpec, options: CTOptions) -> zooft.InputGeometry:
    """How `preprocess` places slices in the network's input: stretched.

    Raises:
        ConfigError: they are resampled to a spacing, which has no way back yet.
    """
    if options.spacing:
        raise zooft.ConfigError("--spacing has no way back to the slices' own pixels yet; leave it out for masks")
    return zooft.image_geometry(replace(spec, mode="stretch"), options, axes=(2, 3))


def preprocess(spec: zooft.InputSpec, options: CTOptions) -> nn.Module:
    """A module from what `port` defines to the network's input.

    Raises:
        ConfigError: options that don't go together.
    """
    check(options)
    from zooft_ct.preprocess import CTPreprocess

    return CTPreprocess(
        spec, mode=options.mode, windows=[parse(text) for text in options.window], spacing=options.spacing
    )
