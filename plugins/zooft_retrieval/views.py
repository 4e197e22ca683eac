"""What the network sees of a picture: all of it, in training moved a little where that is set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import zooft

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from zooft_retrieval.options import RetrievalOptions

_STRENGTHS = {"light": (0.8, 0.2), "medium": (0.5, 0.4)}
"""Least share of the area that is seen, and by how much brightness and contrast change."""


def whole_picture(spec: zooft.InputSpec, _options: RetrievalOptions) -> zooft.InputSpec:
    """An input without a crop: what separates two may be at the border."""
    return replace(spec, mode="stretch")


def augment(spec: zooft.InputSpec, options: RetrievalOptions) -> Callable[[NDArray[Any]], Tensor] | None:
    """Random crops, mirror images, brightness and contrast; levels in uint8."""
    if options.augment == "none":
        return None
    least, change = _STRENGTHS[options.augment]
    return _View((spec.height, spec.width), least, change, spec.interpolation)


@dataclass(frozen=True, slots=True)
class _View:
    """A random view; of a class, so that it can be sent to loader processes."""

    size: tuple[int, int]
    least: float
    change: float
    interpolation: str

    def __call__(self, array: NDArray[Any]) -> Tensor:
        import torch
        from torchvision.transforms.v2 import RandomResizedCrop
        from torchvision.transforms.v2 import functional as operations

        image = torch.from_numpy(array).permute(2, 0, 1)
        aspect = image.shape[2] / image.shape[1]
        ratio = [aspect * 0.9, aspect / 0.9]
        top, left, height, width = RandomResizedCrop.get_params(image, scale=[self.least, 1.0], ratio=ratio)
        view: Tensor = operations.resized_crop(
            image,
            top,
            left,
            height,
            width,
            size=list(self.size),
            interpolation=operations.InterpolationMode(self.interpolation),
            antialias=True,
        )
        if torch.rand(1) < 0.5:
            view = view.flip(-1)
        brightness, contrast = (1 + self.change * (2 * torch.rand(2) - 1)).tolist()
        lit: Tensor = operations.adjust_contrast(operations.adjust_brightness(view, brightness), contrast)
        return lit
