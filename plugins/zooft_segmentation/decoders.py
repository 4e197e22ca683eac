"""Decoders of segmentation_models_pytorch, fed by a backbone's taps in place of that library's encoders.

Their batch normalisation is replaced by group normalisation (Wu and He 2018): batches of masks are small, and a
sample's answer then doesn't depend on the others in its batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import zooft

LEVELS = 4
"""Maps that a decoder reads."""
_MOST_GROUPS = 32
_FPN_WIDTHS: Mapping[str, Any] = {"pyramid_channels": 128, "segmentation_channels": 64, "dropout": 0.1}
_UNET_WIDTHS = (256, 128, 64, 32)
_UPERNET_WIDTH = 128
_POOLED = (1, 2, 3, 6)


class Linear(nn.Module):
    """A 1x1 convolution of the deepest map, for each output.

    Args:
        taps: what it reads.
        sizes: of the outputs.
    """

    def __init__(self, taps: Sequence[zooft.Tap], sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.last = _last(taps[-1].channels, sizes)

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """``[(N, C, h, w)]`` to ``(N, size, h, w)`` of each output."""
        return {name: layer(maps[-1]) for name, layer in self.last.items()}


class DecoderHead(nn.Module):
    """A decoder on four maps, and a 1x1 convolution for each output.

    Args:
        name: of the decoder.
        taps: what it reads.
        sizes: of the outputs.
    """

    def __init__(self, name: str, taps: Sequence[zooft.Tap], sizes: Mapping[str, int]) -> None:
        super().__init__()
        from segmentation_models_pytorch.base.initialization import initialize_decoder

        channels = [tap.channels for tap in taps] + [taps[-1].channels] * (LEVELS - len(taps))
        make, width = _DECODERS[name]
        self.ladder = Ladder(taps)
        self.decoder = make(channels)
        _normalise_by_groups(self.decoder)
        initialize_decoder(self.decoder)
        self.decoder.to(memory_format=torch.channels_last)  # a step takes a fifth less time
        self.last = _last(width, sizes)

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """The pyramid's maps ``(N, C, h, w)`` to ``(N, size, h, w)`` of each output."""
        x = self.ladder.cut(self.decoder(self.ladder(maps)))
        return {name: layer(x) for name, layer in self.last.items()}


class Ladder(nn.Module):
    """Maps to four of which each is exactly half as large as the one before, as decoders expect.

    A network's input that the largest stride divides gives such maps by itself. Others end before or behind the image,
    since strides round up or down; they are padded at their ends, so that a place is the same part of the image in
    all of them, and `cut` takes that away again. Maps whose strides don't double are resized. Where there are fewer
    than four, the deepest one is halved.

    Args:
        taps: of the maps, shallow to deep, four at most.
    """

    def __init__(self, taps: Sequence[zooft.Tap]) -> None:
        super().__init__()
        self.more = LEVELS - len(taps)
        both = [tap.rows for tap in taps], [tap.columns for tap in taps]
        rows, columns = (
            max(math.ceil(sides[level] / 2 ** (LEVELS - 1 - level)) for level in range(len(taps))) for sides in both
        )
        self.sizes = [(rows << level, columns << level) for level in range(LEVELS - 1, -1, -1)]
        self.pads = all(_halves(sides) for sides in both)
        self.finest = (taps[0].rows, taps[0].columns) if self.pads else self.sizes[0]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """``(N, C, h, w)`` each."""
        fit = _pad if self.pads else _resize
        fitted = [fit(x, size) for x, size in zip(maps, self.sizes, strict=False)]
        for _ in range(self.more):
            fitted.append(nn.functional.max_pool2d(fitted[-1], 2))
        return fitted

    def cut(self, x: Tensor) -> Tensor:
        """What a decoder makes of the maps, ``(N, C, h, w)``, up to where the finest of them ended."""
        rows, columns = (
            own * (side // size) for own, side, size in zip(self.finest, x.shape[-2:], self.sizes[0], strict=True)
        )
        return x[:, :, :rows, :columns]


def _halves(sides: Sequence[int]) -> bool:
    """Whether each side is half of the one before, rounded up or down, so that strides double."""
    return all(abs(side - sides[0] / 2**level) < 1 for level, side in enumerate(sides))


def _pad(x: Tensor, size: tuple[int, int]) -> Tensor:
    """With the last row and column repeated."""
    down, across = size[0] - x.shape[-2], size[1] - x.shape[-1]
    return nn.functional.pad(x, (0, across, 0, down), mode="replicate") if down or across else x


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == size:
        return x
    return nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)


def _fpn(channels: list[int]) -> nn.Module:
    from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder

    decoder: Any = FPNDecoder(channels, encoder_depth=LEVELS - 1, **_FPN_WIDTHS)
    for branch in decoder.seg_blocks[:-1]:
        branch.block[-1].upsample = False
    decoder.merge = _Merge()
    return decoder  # type: ignore[no-any-return]


class _Merge(nn.Module):
    """The branches' sum, of which all but the finest are still to be upsampled.

    Upsampling is linear, so that one of the sum gives what the library gets from one of each; that and a sum without a
    stacked copy take a fifth off a step.
    """

    def forward(self, branches: list[Tensor]) -> Tensor:
        """``(N, C, h, w)``, the last one twice as high and wide."""
        *coarse, finest = branches
        merged = functools.reduce(torch.add, coarse)
        return finest + nn.functional.interpolate(merged, scale_factor=2.0, mode="bilinear", align_corners=True)


class _Unet(nn.Module):
    """Up to twice the size of the finest map; there is no encoder map of that size."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        self.inner = UnetDecoder([0, *channels], decoder_channels=_UNET_WIDTHS, n_blocks=LEVELS)

    def forward(self, maps: list[Tensor]) -> Tensor:
        rows, columns = maps[0].shape[-2:]
        of_that_size = maps[0].new_zeros(1, 1, 2 * rows, 2 * columns)
        decoded: Tensor = self.inner([of_that_size, *maps])
        return decoded


class _Upernet(nn.Module):
    """The library's decoder passes over two finer maps, which aren't there."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

        self.inner = UPerNetDecoder([0, 0, *channels], encoder_depth=LEVELS + 1, decoder_channels=_UPERNET_WIDTH)
        for block, size in zip(self.inner.psp.blocks, _POOLED, strict=True):
            block[0] = _Pooled(size)

    def forward(self, maps: list[Tensor]) -> Tensor:
        decoded: Tensor = self.inner([None, None, *maps])
        return decoded


class _Pooled(nn.Module):
    """`nn.AdaptiveAvgPool2d` as two products, which every runtime has.

    Args:
        size: rows and columns that it gives.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, h, w)`` to ``(N, C, size, size)``."""
        down, across = (self._means(int(length)).to(x) for length in x.shape[-2:])
        return down @ x @ across.T

    def _means(self, length: int) -> Tensor:
        """``(size, length)``: which places each mean is of."""
        rows = np.zeros((self.size, length), np.float32)
        for number in range(self.size):
            first, end = number * length // self.size, -(-(number + 1) * length // self.size)
            rows[number, first:end] = 1 / (end - first)
        return torch.from_numpy(rows)


_DECODERS: Mapping[str, tuple[Callable[[list[int]], nn.Module], int]] = {
    "fpn": (_fpn, _FPN_WIDTHS["segmentation_channels"]),
    "unet": (_Unet, _UNET_WIDTHS[-1]),
    "upernet": (_Upernet, _UPERNET_WIDTH),
}


def _normalise_by_groups(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            groups = math.gcd(_MOST_GROUPS, child.num_features)
            setattr(module, name, nn.GroupNorm(groups, child.num_features))
        else:
            _normalise_by_groups(child)


def _last(width: int, sizes: Mapping[str, int]) -> nn.ModuleDict:
    layers = {name: nn.Conv2d(width, size, 1) for name, size in sizes.items()}
    for layer in layers.values():
        nn.init.xavier_uniform_(layer.weight)
        assert layer.bias is not None  # noqa: S101 -- there is one by default
        nn.init.zeros_(layer.bias)
    return nn.ModuleDict(layers)
