"""What makes maps of classes from a backbone's maps, as the registry has it; `decoders` builds it, and loads torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import zooft
from zooft_segmentation import needs

if TYPE_CHECKING:
    from torch import nn


def heads() -> list[zooft.Head]:
    """All of them."""
    made = [
        zooft.Head(
            name="linear", summary="a 1x1 convolution of the deepest map", build=_linear, reads="map", gives="map"
        )
    ]
    for name, summary in (
        ("fpn", "masks by a feature pyramid (Kirillov et al. 2019)"),
        ("unet", "masks by U-Net's decoder (Ronneberger et al. 2015)"),
        ("upernet", "masks by UPerNet's decoder (Xiao et al. 2018)"),
    ):
        build = partial(_decode, name)
        made.append(zooft.Head(name=name, summary=summary, build=build, reads="pyramid", gives="map"))
    return made


def _linear(taps: Sequence[zooft.Tap], sizes: Mapping[str, int]) -> nn.Module:
    from zooft_segmentation.decoders import Linear

    return Linear(taps, sizes)


def _decode(name: str, taps: Sequence[zooft.Tap], sizes: Mapping[str, int]) -> nn.Module:
    needs.require()
    from zooft_segmentation.decoders import DecoderHead

    return DecoderHead(name, taps, sizes)
