"""The family ``timm:``, every timm model with a replaceable classifier."""

from __future__ import annotations

import zooft
from zooft_timm import anatomy, sources, zoo


@zooft.hookimpl
def zooft_register_families() -> list[zooft.Family]:
    """One family."""
    return [
        zooft.Family(
            name="timm",
            summary="PyTorch Image Models: over a thousand, ViT, DeiT, ConvNeXt, EfficientNet, Swin, …",
            models=zoo.models,
            build=zoo.build,
            anatomy=anatomy.anatomy,
            pretrained=zoo.pretrained_weights,
            aliases=zoo.ALIASES,
            canonical=zoo.canonical,
            at_hand=zoo.at_hand,
            local=sources.weights_file,
        )
    ]
