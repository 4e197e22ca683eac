"""From native units to a backbone's input, as one module that trains, evaluates and ships inside the ONNX file.

Why not a Resize operator: runtimes implement its antialiasing differently, and some ignore it. Here a resize
is two matrix products whose weights are computed in the graph from the image's height and width, so that
every runtime gives the same picture, for any input size, and the output's size is static.

Nearly all of these weights are zeros. Outside the graph the same weights, bit for bit, are applied as sparse sums
over the rows and columns that the crop shows, at about a tenth of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zooft.contracts import InputSpec, Interpolation, ResizeMode

_RADIUS: Mapping[Interpolation, int] = {"bilinear": 1, "bicubic": 2}
"""Of the filters, in input samples, or output ones where these are larger."""
_IN_CACHE = 2**20
"""Levels that a processor's second cache holds as float32; a larger image is turned strip by strip."""
_STRIP = 32
"""Rows; measured: a quarter of the time of no strips at 2048x1536, half more at 500x375, which isn't cut."""
_MOST_BANDS = 256
"""Bands that a module keeps: a few MB, and as many axes as 128 sizes of images have. As many sizes, too."""


@dataclass(frozen=True, slots=True)
class _Band:
    """One axis's weights without their zeros, output sample after output sample.

    Attributes:
        first: the first input sample that counts at all.
        end: behind the last one.
        sources: input samples counted from `first`, int64.
        starts: where each output sample begins in `sources`, ``(wanted,)`` int64.
        weights: float32, one for each of `sources`.
    """

    first: int
    end: int
    sources: Tensor
    starts: Tensor
    weights: Tensor

    def sums(self, samples: Tensor) -> Tensor:
        """Weighted sums of rows `first` to `end` of an axis, ``(end - first, M)`` float32 to ``(wanted, M)``."""
        summed: Tensor = nn.functional.embedding_bag(
            self.sources, samples, self.starts, mode="sum", per_sample_weights=self.weights
        )
        return summed


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
        self._bands: dict[tuple[int, int, int], _Band] = {}
        self._lengths: dict[tuple[int, int], tuple[float, float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without what is cheaper made again than sent to another process."""
        return {**self.__dict__, "_bands": {}, "_lengths": {}}

    def forward(self, levels: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Resize `levels`, to float32.

        Args:
            levels: ``(N, C, H, W)``, float32; uint8 too where nothing is recorded, that is outside an exported graph,
                on the CPU and without gradients.
            lengths: ``(N, 2)`` whole numbers from 1, float32: rows and columns of each image after resizing, in place
                of what the mode would make of them. The centre is then cut out, or padded with 0.
        """
        rows, columns = levels.shape[2], levels.shape[3]
        if not _in_graph(levels):
            each = [self._usual(rows, columns)] * len(levels) if lengths is None else lengths.tolist()
            return self._sparse(levels, each)
        new = self._new_lengths(rows, columns) if lengths is None else (lengths[:, :1], lengths[:, 1:])
        vertical, horizontal = self._weights(rows, self.height, new[0]), self._weights(columns, self.width, new[1])
        narrow = self._finished(levels @ horizontal.transpose(-1, -2))
        return self._finished(vertical @ narrow)

    def _finished(self, levels: Tensor) -> Tensor:
        return levels.clamp(0, 255).round() if self.rounded else levels

    def _sparse(self, levels: Tensor, lengths: Sequence[Sequence[float]]) -> Tensor:
        """As the two products, image by image, each with its own rows and columns after resizing."""
        result = torch.empty(len(levels), levels.shape[1], self.height, self.width)
        resize = _resize_rounded if self.rounded else _resize_unrounded
        for image, (rows, columns), out in zip(levels, lengths, result, strict=True):
            resize(
                image,
                self._band(levels.shape[2], self.height, int(rows)),
                self._band(levels.shape[3], self.width, int(columns)),
                out,
            )
        return result

    def _band(self, length: int, wanted: int, new: int) -> _Band:
        key = length, wanted, new
        found = self._bands.get(key)
        if found is None:
            if len(self._bands) >= _MOST_BANDS:
                self._bands = {}  # a new one: another thread may be reading the old
            found = self._bands[key] = _band(length, wanted, new, self.interpolation)
        return found

    def _usual(self, rows: int, columns: int) -> tuple[float, float]:
        """As the mode has it; found once for each size, as it takes a tenth of a photograph's resizing."""
        found = self._lengths.get((rows, columns))
        if found is None:
            if len(self._lengths) >= _MOST_BANDS:
                self._lengths = {}
            height, width = self._new_lengths(rows, columns)
            found = self._lengths[rows, columns] = float(height), float(width)
        return found

    def _new_lengths(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        return self._new_length(rows, columns, self.height), self._new_length(columns, rows, self.width)

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
        weights = _shares(source, target, whole, length=length, new=new, kind=self.interpolation)
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
        images = images.permute(0, 3, 1, 2)
        if _in_graph(images):
            return self.normalise(self.resize(images.to(torch.float32)))
        return self.normalise_(self.resize(images))

    def normalise(self, levels: Tensor) -> Tensor:
        """Levels 0..255 ``(N, C, H, W)`` to the backbone's scale."""
        return levels * self.scale + self.shift

    def normalise_(self, levels: Tensor) -> Tensor:
        """The same in place: fresh memory takes longer than the arithmetic."""
        return levels.mul_(self.scale).add_(self.shift)


def _in_graph(levels: Tensor) -> bool:
    """Whether the operations are recorded, or run where sparse sums don't."""
    return torch.compiler.is_compiling() or levels.requires_grad or levels.device.type != "cpu"


def _resize_rounded(image: Tensor, vertical: _Band, horizontal: _Band, out: Tensor) -> None:
    """One image ``(C, H, W)``, columns first, levels rounded in between, written to `out` ``(C, height, width)``."""
    channels, height, width = out.shape
    shown = image[:, vertical.first : vertical.end, horizontal.first : horizontal.end]
    narrow = torch.empty(shown.shape[1], channels, width)
    strip = _STRIP if shown.numel() > _IN_CACHE else shown.shape[1]
    for some, done in zip(torch.split(shown, strip, dim=1), torch.split(narrow, strip), strict=True):
        # the axis to be summed leads, and the longest run stays last: the copies that cost least
        columns = some.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        sums = horizontal.sums(columns.flatten(1)).clamp_(0, 255).round_()
        done.copy_(sums.view(width, channels, -1).permute(2, 1, 0))
    small = vertical.sums(narrow.flatten(1)).view(height, channels, width)
    torch.clamp(small.transpose(0, 1), 0, 255, out=out)
    out.round_()


def _resize_unrounded(image: Tensor, vertical: _Band, horizontal: _Band, out: Tensor) -> None:
    """The same without rounding; rows first, which then need no copy, channel by channel."""
    for channel, small in zip(image, out, strict=True):
        rows = channel[vertical.first : vertical.end].to(torch.float32, memory_format=torch.contiguous_format)
        columns = vertical.sums(rows).t()[horizontal.first : horizontal.end]
        small.copy_(horizontal.sums(columns.contiguous()).t())


def _band(length: int, wanted: int, new: int, interpolation: Interpolation) -> _Band:
    """The weights of `Resize._weights`, bit for bit, looked for only where they can't be zero."""
    scalar = torch.scalar_tensor(new)
    target = (torch.arange(wanted) + _centre_offset(scalar - wanted)).to(torch.int64)
    across = 2 * _RADIUS[interpolation] * max(length, new)
    nearest = torch.div((2 * target + 1) * length - across, 2 * new, rounding_mode="floor")
    source = nearest[:, None] + torch.arange(across // new + 2)
    weights = _shares(source, target, torch.tensor([new]), length=length, new=scalar, kind=interpolation)
    weights = weights.masked_fill((source < 0) | (source >= length), 0)
    # whole rows are summed, zeros and all: another order of summing would end in other bits
    rows = torch.zeros(wanted, length).scatter_add_(1, source.clamp(0, length - 1), weights)
    weights = weights / rows.sum(-1, keepdim=True).clamp_min(1e-12)
    counts = (weights != 0) & ((target >= 0) & (target < new))[:, None]
    sources, numbers = source[counts], counts.sum(-1)
    first = int(sources.min())
    return _Band(
        first=first,
        end=int(sources.max()) + 1,
        sources=sources - first,
        starts=numbers.cumsum(0) - numbers,
        weights=weights[counts],
    )


def _shares(source: Tensor, target: Tensor, whole: Tensor, *, length: int, new: Tensor, kind: Interpolation) -> Tensor:
    """How much each input sample counts for each output sample, not yet as a share of their sum.

    Args:
        source: numbers of the input samples, int64: ``(length,)``, or ``(wanted, taps)`` of some for each output one.
        target: numbers of the output samples, ``(…, wanted)`` int64.
        whole: `new` as ``(…, 1)`` int64.
        length: samples of the axis as it is.
        new: length of the resized axis: a scalar, or ``(N, 1)``.
        kind: of filter.
    """
    # whole-number distances: as float32 fractions they collapse on runtimes that compute in bf16
    distance = (2 * source + 1) * whole[..., None] - ((2 * target + 1) * length)[..., None]
    reach = 2 * torch.maximum(new, torch.scalar_tensor(length))[..., None, None]
    return _filter(distance.to(torch.float32) / reach, kind)


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
