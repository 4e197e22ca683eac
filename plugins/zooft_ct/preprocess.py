"""From HU to a backbone's input, as one module that trains, evaluates and ships inside the ONNX file.

Apart from `graph`, which is loaded without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

import zooft

AIR = -1024.0
"""HU of what lies outside the scan, as the readers give it too."""
_PLACES = (2**-4, 2**-10, 2**-16)
"""Of a millimetre: what a spacing is taken apart into."""


class CTPreprocess(nn.Module):
    """HU ``(N, Z, H, W)`` to float32 ``(N, 3, height, width)``, or ``(N, Z, 3, height, width)`` for a volume.

    A window shows HU from center - width/2 to center + width/2 as levels 0..255; what is darker or brighter becomes
    0 or 255. The levels are resized unrounded.

    Args:
        spec: what the backbone wants, with three channels.
        mode: ``slice`` and ``windows`` take the middle slice of the Z, ``2.5d`` its neighbours too, ``volume`` all.
        windows: center and width of each in HU: three, or one that all channels show.
        spacing: mm; every slice is resampled to so much between pixels, and the centre cut out or padded with air. 0
            stretches the whole field of view to the network's input.
    """

    low: Tensor
    gain: Tensor
    air: Tensor

    def __init__(
        self, spec: zooft.InputSpec, *, mode: str, windows: Sequence[tuple[float, float]], spacing: float = 0.0
    ) -> None:
        super().__init__()
        stretched = replace(spec, mode="stretch")
        self.mode, self.spacing = mode, spacing
        self.resize = zooft.Resize(stretched, rounded=False)
        self.normalise = zooft.ImagePreprocess(stretched).normalise
        center, width = torch.tensor(windows, dtype=torch.float32).T[:, :, None, None]
        self.register_buffer("low", center - width / 2, persistent=False)
        self.register_buffer("gain", 255 / width, persistent=False)
        self.register_buffer("air", self.window(torch.tensor(AIR)), persistent=False)

    def forward(self, hu: Tensor, spacing: Tensor | None = None) -> Tensor:
        """Preprocess a batch.

        Args:
            hu: ``(N, Z, H, W)``, int16 or float32.
            spacing: ``(N, 2)`` float32, mm between rows and between columns; where the module's `spacing` isn't 0.
        """
        slices = self.slices(hu).to(torch.float32)
        levels = self.window(slices[:, :, None])  # (N, slices, windows, H, W)
        small = self.resize_levels(levels.flatten(1, 2), spacing)
        if self.mode == "volume":
            small = torch.unflatten(small, 1, (levels.shape[1], levels.shape[2]))
        return self.normalise(small)

    def slices(self, hu: Tensor) -> Tensor:
        """Those of ``(N, Z, H, W)`` that are shown: one, three or all Z."""
        if self.mode == "volume":
            return hu
        count = torch.scalar_tensor(hu.shape[1], dtype=torch.int64)
        middle = zooft.floor_divide(count, torch.tensor(2))
        if self.mode == "2.5d":
            middle = torch.stack([(middle - 1).clamp_min(0), middle, torch.minimum(middle + 1, count - 1)])
        return hu.index_select(1, middle.reshape(-1).to(hu.device))

    def window(self, hu: Tensor) -> Tensor:
        """Levels 0..255 of HU ``(…, 1, H, W)`` through each window, ``(…, windows, H, W)``."""
        return ((hu - self.low) * self.gain).clamp(0, 255)

    def resize_levels(self, levels: Tensor, spacing: Tensor | None) -> Tensor:
        """Levels ``(N, C, H, W)`` at the network's size."""
        if not self.spacing:
            stretched: Tensor = self.resize(levels)
            return stretched
        if spacing is None:
            raise ValueError("resampling to a spacing needs the spacing of what is given")
        rows, columns = (torch.scalar_tensor(size, dtype=torch.int64) for size in levels.shape[2:])
        wanted = torch.tensor(round(2 * self.spacing / _PLACES[-1]), device=spacing.device)
        sizes = torch.stack([rows, columns]).to(spacing.device)
        # to the nearest whole number; the spacing's unit is cut off, so half of one is added
        lengths = zooft.floor_divide(2 * sizes * (2 * _units(spacing) + 1) + wanted, 2 * wanted).clamp_min(1)
        air = self.air.repeat(levels.shape[1] // self.air.shape[0], 1, 1)
        resampled: Tensor = self.resize(levels - air, lengths) + air  # the resize pads with 0
        return resampled


def _units(spacing: Tensor) -> Tensor:
    """Millimetres in whole `_PLACES[-1]`, int64, exact up to 8 mm where floats are bfloat16, too.

    Such a runtime rounds what it computes to 8 bits, but not what it is given: remainders of the spacing itself are
    right to 8 bits, and the difference of two of them to the whole number of 6 bits that it is.
    """
    rests = [spacing, *(torch.fmod(spacing, place) for place in _PLACES)]
    total = torch.zeros_like(spacing, dtype=torch.int64)
    for larger, smaller, place in zip(rests[:-1], rests[1:], _PLACES, strict=True):
        digit = torch.floor((larger - smaller) / place + 0.5)
        total = total * 64 + digit.to(torch.int64)
    return total
