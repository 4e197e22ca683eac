"""From native units to a backbone's input, as one module that trains, evaluates and ships inside the ONNX file.

Why not a Resize operator: runtimes implement its antialiasing differently, and some ignore it. Here a resize
is two matrix products whose weights are computed in the graph from the image's height and width, so that
every runtime gives the same picture, for any input size, and the output's size is static.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from zooft.contracts import InputSpec, Interpolation, ResizeMode


class Resize(nn.Module):
    """Antialiased resize of ``(N, C, H, W)`` to a fixed size, as Pillow does it.

    Of levels 0..255, rounded, it differs from Pillow by at most 2 for bilinear and, where this Pillow runs its
    vertical pass first, 6 for bicubic. Not rounded it is linear in the levels, whose scale is then free.

    Args:
        spec: gives size, mode and filter.
        rounded: whether levels stay whole numbers from 0 to 255, as those of an 8-bit image.
    """

    def __init__(self, spec: InputSpec, *, rounded: bool = True) -> None:
        super().__init__()
        if spec.mode == "crop" and spec.height != spec.width:
            raise ValueError("mode crop needs a square input; use stretch or letterbox")
        self.height, self.width, self.resize = spec.height, spec.width, spec.resize
        self.mode: ResizeMode = spec.mode
        self.interpolation: Interpolation = spec.interpolation
        self.rounded = rounded

    def forward(self, levels: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Resize float32 `levels`.

        Args:
            levels: ``(N, C, H, W)``.
            lengths: ``(N, 2)`` whole numbers from 1, float32: rows and columns of each image after resizing, in place
                of what the mode would make of them. The centre is then cut out, or padded with 0.
        """
        rows, columns = levels.shape[2], levels.shape[3]
        if lengths is None:
            new = self._new_length(rows, columns, self.height), self._new_length(columns, rows, self.width)
        else:
            new = lengths[:, :1], lengths[:, 1:]
        vertical, horizontal = self._weights(rows, self.height, new[0]), self._weights(columns, self.width, new[1])
        narrow = self._finished(levels @ horizontal.transpose(-1, -2))
        return self._finished(vertical @ narrow)

    def _finished(self, levels: Tensor) -> Tensor:
        return levels.clamp(0, 255).round() if self.rounded else levels

    def _new_length(self, length: int, other: int, wanted: int) -> Tensor:
        """The axis's length after resizing, of which the centre is taken: a scalar."""
        this, that = torch.scalar_tensor(length), torch.scalar_tensor(other)
        if self.mode == "stretch":
            return torch.full_like(this, wanted)
        if self.mode == "crop":
            return _floor_divide(this * self.resize, torch.minimum(this, that))
        return _floor_divide(this * wanted, torch.maximum(this, that)).clamp_min(1)

    def _weights(self, length: int, wanted: int, new: Tensor) -> Tensor:
        """How much each input sample counts for each output sample.

        Args:
            length: samples of the axis as it is.
            wanted: samples of the output.
            new: length of the resized axis, whole numbers; a scalar, or ``(N, 1)`` where each image has its own.

        Returns:
            ``(wanted, length)``, or ``(N, 1, wanted, length)``.
        """
        target = (torch.arange(wanted) + _centre_offset(new - wanted)[..., None]).to(torch.int64)
        source = torch.arange(length)
        whole = new[..., None].to(torch.int64)
        # whole-number distances: as float32 fractions they collapse on runtimes that compute in bf16
        distance = (2 * source + 1) * whole[..., None] - ((2 * target + 1) * length)[..., None]
        reach = 2 * torch.maximum(new, torch.scalar_tensor(length))[..., None, None]
        weights = _filter(distance.to(torch.float32) / reach, self.interpolation)
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-12)
        inside = ((target >= 0) & (target < whole)).to(torch.float32)
        return weights * inside[..., None]


class ImagePreprocess(nn.Module):
    """uint8 ``(N, H, W, C)`` to float32 ``(N, C, height, width)``: resize, crop, normalise.

    Args:
        spec: what the backbone wants.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.resize = Resize(spec)
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("scale", (1 / (255 * std)).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Preprocess a batch of images of one size."""
        return self.normalise(self.resize(images.permute(0, 3, 1, 2).to(torch.float32)))

    def normalise(self, levels: Tensor) -> Tensor:
        """Levels 0..255 ``(N, C, H, W)`` to the backbone's scale."""
        return levels * self.scale + self.shift


def _floor_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Exact for whole numbers below 2**23; an integer Div is rounded, not floored, by some runtimes."""
    return torch.floor((numerator + 0.5) / denominator)


def _centre_offset(excess: Tensor) -> Tensor:
    """Where a centre crop begins (half to even, as torchvision's), or minus the padding before a small image."""
    padding = -torch.floor(-excess * 0.5)
    half = torch.floor(excess * 0.5)
    odd = half - 2 * torch.floor(half * 0.5)
    return torch.where(excess < 0, padding, torch.floor((excess + odd) * 0.5))


def _filter(distance: Tensor, interpolation: Interpolation) -> Tensor:
    """Triangle, or Keys' cubic convolution with a = -0.5 (IEEE Trans. ASSP 29, 1981), as Pillow uses."""
    d = distance.abs()
    if interpolation == "bilinear":
        return (1 - d).clamp_min(0)
    a = -0.5
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d < 1, near, torch.where(d < 2, far, torch.zeros_like(d)))
