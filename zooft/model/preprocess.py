"""From native units to a backbone's input, as one module that trains, evaluates and ships inside the ONNX file.

Why not a Resize operator: runtimes implement its antialiasing differently, and some ignore it. Here a resize
is two matrix products whose weights are computed in the graph from the image's height and width, so that
every runtime gives the same picture, for any input size, and the output's size is static.

Nearly all of these weights are zeros. In the graph of 8-bit images the products are therefore cut into tiles of
neighbouring output samples, each of which takes only the rows or columns that it shows, as uint8, and multiplies whole
numbers: that costs as much as Pillow, a part of the image in memory, and no rounding. Outside the graph the same
weights, bit for bit, are applied as sparse sums over the rows and columns that the crop shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from zooft.model.resampling import (
    ONE,
    RADIUS,
    centre,
    centre_offset,
    float_shares,
    floor_shares,
    reach,
    resized_length,
    whole,
    whole_weights,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zooft.contracts import InputSpec, Interpolation, ResizeMode

_IN_CACHE = 2**20
"""Levels that a processor's second cache holds as float32; a larger image is turned strip by strip."""
_STRIP = 32
"""Rows; measured: a quarter of the time of no strips at 2048x1536, half more at 500x375, which isn't cut."""
_MOST_BANDS = 256
"""Bands that a module caches: a few MB, and as many axes as 128 sizes of images have. As many sizes, too."""
_MOST_TILES = (4, 8)
"""Of rows, of which the first product leaves little, and of columns; fewer multiply zeros, more cost more nodes."""
_SMALLEST_TILE = 24
"""Output samples."""
_ZERO = 32
"""What a byte of a weight holds where it means 0: two of them hold weights from -8224 to 57311, as bicubic needs."""


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


@dataclass(frozen=True, slots=True)
class _Tiles:
    """One axis's weights in a graph, cut into tiles of neighbouring output samples.

    Attributes:
        starts: each tile's first input sample, ``(tiles,)`` int64.
        width: input samples of a tile.
        bytes: ``(tiles, 2, samples, width)`` uint8: the higher bytes of the weights of all output samples of a tile,
            then the lower ones; each holds `_ZERO` more than it counts.
    """

    starts: Tensor
    width: int
    bytes: Tensor

    def cut(self, samples: Tensor, *, axis: int) -> Iterator[Tensor]:
        """What each tile takes of an axis: a Slice, which copies whole runs, where indices copy bytes."""
        shape = [*samples.shape[:axis], self.width, *samples.shape[axis + 1 :]]
        ends = torch.split(self.starts + self.width, 1)
        for start, end in zip(torch.split(self.starts, 1), ends, strict=True):
            yield torch.onnx.ops.symbolic(
                "Slice", (samples, start, end, torch.tensor([axis])), dtype=samples.dtype, shape=shape
            )


class Resize(nn.Module):
    """Antialiased resize of ``(N, C, H, W)`` to a fixed size, as Pillow does it.

    Of levels 0..255, rounded, it differs from Pillow by at most 1 for bilinear and, where this Pillow runs its
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
        self._lengths: dict[tuple[int, int], tuple[int, int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without what is cheaper made again than sent to another process."""
        return {**self.__dict__, "_bands": {}, "_lengths": {}}

    def forward(self, levels: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Resize `levels`, to float32.

        Args:
            levels: ``(N, C, H, W)``, uint8 or float32; uint8 only where nothing is recorded or it stays rounded, and
                without gradients.
            lengths: ``(N, 2)`` whole numbers from 1: rows and columns of each image after resizing, in place
                of what the mode would make of them. The centre is then cut out, or padded with 0.
        """
        rows, columns = levels.shape[2], levels.shape[3]
        if not _in_graph(levels):
            each = [self._usual(rows, columns)] * len(levels) if lengths is None else lengths.tolist()
            return self._sparse(levels, each)
        if self.rounded and lengths is None and torch.onnx.is_in_onnx_export():
            return self.forward_tiles(levels.to(torch.uint8).permute(0, 2, 3, 1))
        return self._dense(levels.to(torch.float32), lengths)

    def _dense(self, levels: Tensor, lengths: Tensor | None) -> Tensor:
        """As two products with all weights, zeros too."""
        rows, columns = levels.shape[2], levels.shape[3]
        if lengths is None:
            new = self._new_lengths(rows, columns, levels.device)
        else:
            new = lengths[:, :1].to(torch.int64), lengths[:, 1:].to(torch.int64)
        vertical, horizontal = self._weights(rows, self.height, new[0]), self._weights(columns, self.width, new[1])
        narrow = self._round(levels @ horizontal.transpose(-1, -2))
        return self._round(vertical @ narrow)

    def _round(self, levels: Tensor) -> Tensor:
        return (levels.clamp(0, 255) + 0.5).floor() if self.rounded else levels

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
            found = self._bands[key] = _band(length, wanted, new, self.interpolation, rounded=self.rounded)
        return found

    def _usual(self, rows: int, columns: int) -> tuple[int, int]:
        """As the mode has it; found once for each size, as it takes a tenth of a photograph's resizing."""
        found = self._lengths.get((rows, columns))
        if found is None:
            if len(self._lengths) >= _MOST_BANDS:
                self._lengths = {}
            height, width = self._new_lengths(rows, columns, torch.device("cpu"))
            found = self._lengths[rows, columns] = int(height), int(width)
        return found

    def _new_lengths(self, rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
        height, width = whole(rows, device), whole(columns, device)
        find = partial(resized_length, mode=self.mode, resize=self.resize)
        return (
            find(height, width, wanted=self.height, wanted_other=self.width),
            find(width, height, wanted=self.width, wanted_other=self.height),
        )

    def _weights(self, samples: int, wanted: int, new: Tensor) -> Tensor:
        """How much each input sample counts for each output sample, as float32.

        Args:
            samples: of the axis as it is.
            wanted: samples of the output.
            new: length of the resized axis, int64; a scalar, or ``(N, 1)`` where each image has its own.

        Returns:
            ``(wanted, samples)``, or ``(N, 1, wanted, samples)``.
        """
        source = torch.arange(samples, device=new.device)
        target = torch.arange(wanted, device=new.device) + centre_offset(new - wanted)
        length = whole(samples, new.device)
        if self.rounded:
            shares = whole_weights(source, target, self.interpolation, length=length, new=new)
            weights = shares.to(torch.float32) / ONE
        else:
            shares = float_shares(source, target, self.interpolation, length=length, new=new)
            inside = ((target >= 0) & (target < new)).to(torch.float32)
            weights = shares / shares.sum(-1, keepdim=True).clamp_min(1e-12) * inside[..., None]
        return weights[:, None] if new.ndim else weights

    def forward_tiles(self, images: Tensor) -> Tensor:
        """As `forward`, recorded in whole numbers, tile by tile.

        Args:
            images: ``(N, H, W, C)`` uint8: turned tile by tile too, they never lie in memory twice.
        """
        vertical, horizontal = self._tiles(images.shape[1], images.shape[2])
        none, zero = (torch.tensor(number, dtype=torch.uint8) for number in (0, _ZERO))
        # a product for the higher bytes and one for the lower: to split the sums of both would copy them
        narrow = [
            256 * _product(some, high, none, zero) + _product(some, low, none, zero)
            for some, (high, low) in zip(
                (some.permute(0, 3, 1, 2) for some in horizontal.cut(images, axis=2)),
                _pairs(horizontal.bytes.transpose(2, 3)),
                strict=True,
            )
        ]
        levels = _levels(torch.cat(narrow, dim=3)[..., : self.width]).to(torch.uint8)
        small = [
            256 * _product(high, some, zero, none) + _product(low, some, zero, none)
            for some, (high, low) in zip(vertical.cut(levels, axis=2), _pairs(vertical.bytes), strict=True)
        ]
        return _levels(torch.cat(small, dim=2)[:, :, : self.height])

    def _tiles(self, rows: int, columns: int) -> list[_Tiles]:
        """The two axes' weights, computed only where they can't be zero."""
        kind, wanted = self.interpolation, (self.height, self.width)
        length = torch.stack([torch.scalar_tensor(samples, dtype=torch.int64) for samples in (rows, columns)])[:, None]
        new = torch.stack(self._new_lengths(rows, columns, length.device))[:, None]
        # both at once, which halves the nodes: as many output samples and taps as the axis with more has
        cuts = [_cuts(samples, most) for samples, most in zip(wanted, _MOST_TILES, strict=True)]
        target = torch.arange(max(count * each for count, each in cuts))
        target = target + centre_offset(new - torch.tensor(wanted)[:, None])
        around, widths = self._bounds(rows, columns, [each for _, each in cuts])
        first = centre(target, length=length, new=new) - around
        source = first[..., None] + torch.arange(2 * around + 1)
        weights = whole_weights(source, target, kind, length=length, new=new)
        # one zero more on either side, for all that lies beyond
        both = nn.functional.pad(weights, (1, 1)) + (256 + 1) * _ZERO
        high = floor_shares(both, 256)
        halves = torch.stack([high, both - 256 * high], dim=1).to(torch.uint8)
        start = first + around - reach(kind, length=length, new=new)
        return [
            _tiles(halves[axis], first[axis], start[axis], cuts[axis], width=widths[axis], length=length[axis])
            for axis in (0, 1)
        ]

    def _bounds(self, rows: int, columns: int, each: Sequence[int]) -> tuple[int, list[int]]:
        """Samples on either side of a centre's that can count, and, for each axis, samples of a tile, at most.

        From sizes alone, as a graph's shapes can't depend on what it computes.
        """
        radius = RADIUS[self.interpolation]
        if self.mode == "letterbox":
            return self._letterbox_bounds(rows, columns, each)
        if self.mode == "stretch":
            scales = [(rows, self.height), (columns, self.width)]
        else:  # the length after resizing is at least resize, so that rounding it down shortens it by 1/resize at most
            scales = [(_least(rows, columns) * (self.resize + 1), self.resize**2)] * 2
        around = [_most(radius, radius * many // few) + 1 for many, few in scales]
        widths = [
            _least(samples, (some - 1) * many // few + 2 * reached + 2)
            for samples, some, reached, (many, few) in zip((rows, columns), each, around, scales, strict=True)
        ]
        return _most(*around), widths

    def _letterbox_bounds(self, rows: int, columns: int, each: Sequence[int]) -> tuple[int, list[int]]:
        """The same of `letterbox`.

        Where rounding makes the resized axis shorter than the mode requires, by half at most, as much less of it is
        shown.
        """
        radius = RADIUS[self.interpolation]
        if self.height == self.width:
            many, few = _most(rows, columns), self.height
        else:  # both axes by the larger of rows / height and columns / width
            many, few = _most(rows * self.width, columns * self.height), self.height * self.width
        around = 2 * radius * many // few + radius + 2
        widths = [
            _least(samples, (some + 4 * radius) * many // few + 2 * radius + 6)
            for samples, some in zip((rows, columns), each, strict=True)
        ]
        return around, widths


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
        if torch.onnx.is_in_onnx_export():
            return self.normalise(self.resize.forward_tiles(images))
        levels = self.resize(images.permute(0, 3, 1, 2))
        return self.normalise(levels) if _in_graph(images) else self.normalise_(levels)

    def normalise(self, levels: Tensor) -> Tensor:
        """Levels 0..255 ``(N, C, H, W)`` to the backbone's scale."""
        return levels * self.scale + self.shift

    def normalise_(self, levels: Tensor) -> Tensor:
        """The same in place: fresh memory takes longer than the arithmetic."""
        return levels.mul_(self.scale).add_(self.shift)


def _in_graph(levels: Tensor) -> bool:
    """Whether the operations are recorded, or run where sparse sums don't."""
    return torch.compiler.is_compiling() or levels.requires_grad or levels.device.type != "cpu"


def _least(one: int, other: int) -> int:
    return cast("int", torch.sym_min(one, other))  # also of a graph's sizes, which it only has names for


def _most(one: int, other: int) -> int:
    return cast("int", torch.sym_max(one, other))


def _cuts(wanted: int, most: int) -> tuple[int, int]:
    """Tiles of an axis and output samples of each; the last ones may be too many."""
    count = min(most, -(-wanted // _SMALLEST_TILE))
    return count, -(-wanted // count)


def _tiles(
    weights: Tensor, first: Tensor, start: Tensor, cuts: tuple[int, int], *, width: int, length: Tensor
) -> _Tiles:
    """One axis's weights as its tiles take them.

    Args:
        weights: higher and lower bytes, ``(2, output samples, taps + 2)`` uint8, with zeros at either end.
        first: of each output sample's taps, ``(output samples,)`` int64; may lie outside the axis.
        start: where a tile that begins with an output sample would take its input from, likewise.
        cuts: tiles, and output samples of each.
        width: input samples of a tile.
        length: of the axis, ``(1,)``.
    """
    count, each = cuts
    starts = torch.minimum(start[: count * each : each].clamp_min(0), length - width)
    place = (starts[:, None] - first[: count * each].view(count, each))[..., None] + torch.arange(width) + 1
    place = torch.minimum(place.clamp_min(0), torch.scalar_tensor(weights.shape[2] - 1, dtype=torch.int64))
    surplus = weights.shape[1] - count * each
    # a Split, not a Slice: OpenVINO drops a Slice before GatherElements, and then finds sizes that differ
    own = torch.split(weights, [count * each, surplus], 1)[0] if surplus else weights
    placed = own.gather(2, place.flatten(0, 1).expand(2, -1, -1))
    return _Tiles(starts=starts, width=width, bytes=placed.view(2, count, each, width).transpose(0, 1))


def _product(one: Tensor, other: Tensor, *zeros: Tensor) -> Tensor:
    """Of bytes of weights ``(1, …, …)`` and levels ``(N, C, …, …)``, in either order, less their zeros, as int32."""
    many = one if one.ndim > other.ndim else other
    shape = [*many.shape[:-2], one.shape[-2], other.shape[-1]]
    product: Tensor = torch.onnx.ops.symbolic("MatMulInteger", (one, other, *zeros), dtype=torch.int32, shape=shape)
    return product


def _pairs(weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Higher and lower bytes ``(1, …, …)`` of one tile after the other, of those of all, ``(tiles, 2, …, …)``."""
    single = torch.split(weights.flatten(0, 1), 1)
    return zip(single[::2], single[1::2], strict=True)


def _levels(sums: Tensor) -> Tensor:
    """Sums in shares of `ONE` as levels, float32.

    Without the bits that rounding drops they are shares of which bfloat16 holds all from 0 to 255 exactly, and a power
    of two divides them exactly, in a fifth of the time of a division of whole numbers.
    """
    return ((sums + ONE // 2 & -ONE).to(torch.float32) * (1 / ONE)).clamp(0, 255)


def _resize_rounded(image: Tensor, vertical: _Band, horizontal: _Band, out: Tensor) -> None:
    """One image ``(C, H, W)``, columns first, levels rounded in between, written to `out` ``(C, height, width)``."""
    channels, height, width = out.shape
    shown = image[:, vertical.first : vertical.end, horizontal.first : horizontal.end]
    narrow = torch.empty(shown.shape[1], channels, width)
    strip = _STRIP if shown.numel() > _IN_CACHE else shown.shape[1]
    for some, done in zip(torch.split(shown, strip, dim=1), torch.split(narrow, strip), strict=True):
        # the axis to be summed leads, and the longest run stays last: the copies that cost least
        columns = some.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        sums = horizontal.sums(columns.flatten(1)).clamp_(0, 255).add_(0.5).floor_()
        done.copy_(sums.view(width, channels, -1).permute(2, 1, 0))
    small = vertical.sums(narrow.flatten(1)).view(height, channels, width)
    torch.clamp(small.transpose(0, 1), 0, 255, out=out)
    out.add_(0.5).floor_()


def _resize_unrounded(image: Tensor, vertical: _Band, horizontal: _Band, out: Tensor) -> None:
    """The same without rounding; rows first, which then need no copy, channel by channel."""
    for channel, small in zip(image, out, strict=True):
        rows = channel[vertical.first : vertical.end].to(torch.float32, memory_format=torch.contiguous_format)
        columns = vertical.sums(rows).t()[horizontal.first : horizontal.end]
        small.copy_(horizontal.sums(columns.contiguous()).t())


def _band(samples: int, wanted: int, resized: int, kind: Interpolation, *, rounded: bool) -> _Band:
    """The weights of `Resize._weights`, bit for bit, computed only where they can't be zero."""
    length, new = torch.tensor(samples), torch.tensor(resized)
    target = torch.arange(wanted) + centre_offset(new - wanted)
    around = int(reach(kind, length=length, new=new))
    source = centre(target, length=length, new=new)[:, None] + torch.arange(-around, around + 1)
    if rounded:
        weights = whole_weights(source, target, kind, length=length, new=new).to(torch.float32) / ONE
    else:
        weights = _float_weights(source, target, kind, length=length, new=new)
    counts = weights != 0
    sources, numbers = source[counts], counts.sum(-1)
    first = int(sources.min())
    return _Band(
        first=first,
        end=int(sources.max()) + 1,
        sources=sources - first,
        starts=numbers.cumsum(0) - numbers,
        weights=weights[counts],
    )


def _float_weights(source: Tensor, target: Tensor, kind: Interpolation, *, length: Tensor, new: Tensor) -> Tensor:
    shares = float_shares(source, target, kind, length=length, new=new)
    shares = shares.masked_fill((source < 0) | (source >= length), 0)
    # whole rows are summed, zeros and all: another order of summing would end in other bits
    rows = torch.zeros(len(source), int(length)).scatter_add_(1, source.clamp(0, int(length) - 1), shares)
    weights = shares / rows.sum(-1, keepdim=True).clamp_min(1e-12)
    return weights * ((target >= 0) & (target < new)).to(torch.float32)[:, None]
