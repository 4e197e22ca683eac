"""Random views of images for targets that have places: each states how its pixels have moved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zooft.contracts import Geometry, View

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from zooft.contracts import InputSpec


def image_view(spec: InputSpec, *, scales: tuple[float, float], colour: float) -> Callable[[NDArray[Any]], View]:
    """Random scale, crop, flip and colour of 8-bit RGB images, for what a Task's `augment` gives.

    Args:
        spec: the network's input, whose mode is ``letterbox`` or ``stretch``.
        scales: the smallest and the largest over that of the plain view, drawn from their logarithms evenly.
        colour: how much brightness, contrast and saturation change at most, as torchvision's ColorJitter takes them.

    Returns:
        ``(H, W, 3)`` uint8 to a `View` of ``(3, height, width)`` uint8.
    """
    from torchvision.transforms import v2

    return _RandomView(spec, scales, v2.ColorJitter(brightness=colour, contrast=colour, saturation=colour))


@dataclass(frozen=True, slots=True)
class _Axis:
    """What a view shows along one axis.

    Attributes:
        first: sample of the picture.
        shown: samples from there on.
        start: pixel of the view where they begin.
        length: pixels that they fill.
    """

    first: int
    shown: int
    start: int
    length: int

    @property
    def scale(self) -> float:
        """Pixels of the view a sample."""
        return self.length / self.shown

    @property
    def shift(self) -> float:
        """Where the picture's first sample lies in the view."""
        return self.start - self.first * self.scale


@dataclass(frozen=True, slots=True, eq=False)
class _RandomView:
    """A random view with how its pixels have moved; of a class, so that loader processes can be sent it.

    The resize is torchvision's, antialiased, of the rectangle alone that is seen; borders are black, as a letterbox's
    are.

    Attributes:
        spec: the network's input.
        scales: the smallest and the largest over that of the plain view.
        colour: what happens to levels ``(3, height, width)`` uint8.
    """

    spec: InputSpec
    scales: tuple[float, float]
    colour: nn.Module

    def __call__(self, array: NDArray[Any]) -> View:
        """Of a picture ``(H, W, 3)``."""
        import numpy as np
        import torch
        from torchvision.transforms.v2 import functional as operations

        rows, columns = array.shape[:2]
        down, across = self._axes(rows, columns)
        shown = operations.resized_crop(
            torch.from_numpy(array).permute(2, 0, 1),
            down.first,
            across.first,
            down.shown,
            across.shown,
            size=[down.length, across.length],
            interpolation=operations.InterpolationMode(self.spec.interpolation),
            antialias=True,
        )
        view = torch.zeros(3, self.spec.height, self.spec.width, dtype=torch.uint8)
        view[:, down.start : down.start + down.length, across.start : across.start + across.length] = self.colour(shown)
        matrix = np.array([[across.scale, 0.0, across.shift], [0.0, down.scale, down.shift]])
        if torch.rand(1) < 0.5:
            view = view.flip(-1)
            matrix = np.array([[-1.0, 0.0], [0.0, 1.0]]) @ matrix + np.array([[0, 0, self.spec.width], [0, 0, 0]])
        return View(view, Geometry(matrix=matrix, source=(rows, columns), view=(self.spec.height, self.spec.width)))

    def _axes(self, rows: int, columns: int) -> tuple[_Axis, _Axis]:
        low, high = (math.log(scale) for scale in self.scales)
        factor = math.exp(low + (high - low) * _random())
        down, across = self.spec.height / rows, self.spec.width / columns
        if self.spec.mode == "letterbox":
            down = across = min(down, across)
        return _axis(rows, self.spec.height, down * factor), _axis(columns, self.spec.width, across * factor)


def _axis(samples: int, pixels: int, scale: float) -> _Axis:
    """A part of the picture that fills the view, or the whole of it somewhere in the view."""
    wanted = max(1, round(samples * scale))
    if wanted > pixels:
        shown = min(samples, max(1, round(pixels / scale)))
        return _Axis(round(_random() * (samples - shown)), shown, 0, pixels)
    return _Axis(0, samples, round(_random() * (pixels - wanted)), wanted)


def _random() -> float:
    import torch

    return float(torch.rand(1))
