"""What the network sees: the whole picture at its input's size, and random views of it in training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import zooft

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from zooft_detection.options import DetectionOptions

_SCALES = {"light": (0.8, 1.25), "medium": (0.5, 2.0)}
"""Of a view over that of the plain one."""
_COLOURS = {"light": 0.2, "medium": 0.4}


def network_input(spec: zooft.InputSpec, options: DetectionOptions) -> zooft.InputSpec:
    """Of the size of `options`, without a crop, which would lose the borders."""
    rows, columns = options.size * 2 if len(options.size) == 1 else options.size or (spec.height, spec.width)
    return replace(spec, height=rows, width=columns, mode=options.fit)


def augment(spec: zooft.InputSpec, options: DetectionOptions) -> Callable[[NDArray[Any]], zooft.View] | None:
    """Random scale, crop and flip with some colour (``light``), more of each (``medium``); levels in uint8."""
    if options.augment == "none":
        return None
    return zooft.image_view(spec, scales=_SCALES[options.augment], colour=_COLOURS[options.augment])


def reader(options: DetectionOptions) -> str:
    """Source that reads one picture with Pillow."""
    return zooft.image_reader(options)
