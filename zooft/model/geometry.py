"""How the preprocessing of images places them in the network's input, and the way back inside the exported graph.

Owns the same arithmetic twice, as `preprocess.Resize` has it: in numpy for the targets of one sample, and in torch,
recorded in the graph, for a batch of images of one size that is only known when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from zooft.contracts import Geometry
from zooft.model.resampling import centre_offset, resized_length, whole

if TYPE_CHECKING:
    from zooft.contracts import Arrays, InputSpec


@dataclass(frozen=True, slots=True)
class ImageGeometry:
    """Of images whose rows and columns are two axes of the first port.

    Attributes:
        spec: mode and size of the network's input.
        axes: of rows and columns in a batch, such as 1 and 2 of ``(N, H, W, C)``.
    """

    spec: InputSpec
    axes: tuple[int, int] = (1, 2)

    def of(self, arrays: Arrays) -> Geometry:
        """The map of one sample, its arrays without the batch axis."""
        rows, columns = (int(arrays[0].shape[axis - 1]) for axis in self.axes)
        down, across = _place(self.spec, rows, columns, torch.device("cpu"))
        matrix = np.array(
            [
                [int(across.length) / columns, 0.0, -float(across.offset)],
                [0.0, int(down.length) / rows, -float(down.offset)],
            ]
        )
        return Geometry(matrix=matrix, source=(rows, columns), view=(self.spec.height, self.spec.width))

    def back(self, batch: Sequence[Tensor]) -> ImageBack:
        """The way back for a batch of images of one size."""
        return ImageBack(self.spec, batch[0].shape[self.axes[0]], batch[0].shape[self.axes[1]])


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of an image in the network's input.

    Attributes:
        samples: of the image; in a graph the size of its axis.
        whole: the same as a scalar int64.
        length: after resizing, a scalar int64.
        offset: the resized image's samples before the first one that the input shows, negative where it is padded.
        wanted: samples of the input.
    """

    samples: int
    whole: Tensor
    length: Tensor
    offset: Tensor
    wanted: int

    def weights(self, given: int) -> Tensor:
        """Bilinear weights ``(samples, given)`` float32, to each sample of the image from `given` over the input."""
        number = torch.arange(self.samples, device=self.whole.device).to(torch.float32)
        places = (number + 0.5) * (self.length.to(torch.float32) / self.whole.to(torch.float32))
        places = (places - self.offset.to(torch.float32)) * (given / self.wanted) - 0.5
        # beyond the outermost ones of the map there is nothing to blend with
        places = places.clamp(0, given - 1)
        near = torch.arange(given, device=places.device).to(torch.float32)
        return (1 - (places[:, None] - near[None]).abs()).clamp_min(0)


def _axis(spec: InputSpec, samples: tuple[int, int], wanted: tuple[int, int], device: torch.device) -> _Axis:
    """The first of two axes, by the samples of both in the image and in the input."""
    own, across = (whole(each, device) for each in samples)
    length = resized_length(own, across, wanted=wanted[0], wanted_other=wanted[1], mode=spec.mode, resize=spec.resize)
    return _Axis(samples[0], own, length, centre_offset(length - wanted[0]), wanted[0])


def _place(spec: InputSpec, rows: int, columns: int, device: torch.device) -> tuple[_Axis, _Axis]:
    """Both axes of an image of so many rows and columns."""
    down = _axis(spec, (rows, columns), (spec.height, spec.width), device)
    return down, _axis(spec, (columns, rows), (spec.width, spec.height), device)


@dataclass(frozen=True, slots=True)
class ImageBack:
    """The way back, for images of one size.

    Attributes:
        spec: mode and size of the network's input.
        rows: of the images.
        columns: of the images.
    """

    spec: InputSpec
    rows: int
    columns: int

    def maps(self, maps: Tensor) -> Tensor:
        """``(N, C, h, w)`` to ``(N, C, rows, columns)``, by two products as `Resize` does."""
        down, across = _place(self.spec, self.rows, self.columns, maps.device)
        narrow = maps.to(torch.float32) @ across.weights(maps.shape[3]).T
        return down.weights(maps.shape[2]) @ narrow

    def boxes(self, boxes: Tensor) -> Tensor:
        """Corners in pixels of the network's input to those of the images, cut at their borders."""
        down, across = _place(self.spec, self.rows, self.columns, boxes.device)
        both = torch.stack([_of(across), _of(down)] * 2, dim=1)  # offset, scale and limit of x, y, x, y
        moved = (boxes + both[0]) * both[1]
        return torch.minimum(moved.clamp_min(0), both[2])


def _of(axis: _Axis) -> Tensor:
    offset, samples, length = (each.to(torch.float32) for each in (axis.offset, axis.whole, axis.length))
    return torch.stack([offset, samples / length, samples])
