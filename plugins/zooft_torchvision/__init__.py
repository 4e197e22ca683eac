"""The family ``torchvision:``, all of its classification models with a replaceable classifier."""

from __future__ import annotations

import zooft
from zooft_torchvision import zoo


@zooft.hookimpl
def zooft_register_families() -> list[zooft.Family]:
    """One family."""
    return [
        zooft.Family(
            name="torchvision",
            summary="PyTorch's own models: ResNet, VGG, ConvNeXt, EfficientNet, Swin, ViT, …",
            models=zoo.models,
            build=zoo.build,
            anatomy=zoo.anatomy,
            pretrained=zoo.pretrained_weights,
            canonical=zoo.canonical,
            at_hand=zoo.at_hand,
        )
    ]
