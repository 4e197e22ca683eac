"""Strided 1x1 convolutions, computed without a kernel that writes out of bounds.

oneDNN computes the gradient of such a convolution's weights, of images in channels-last memory on a CPU, in a workspace
that is too small where the image has fewer channels than the kernel takes at once (uxlfoundation/oneDNN#6035, in torch
2.14): the process dies of a signal, or other tensors hold garbage. Stems of RepVGG, MobileOne and FastViT are such
convolutions. A 1x1 convolution doesn't read the pixels that it skips, so the others are selected first and convolved
with a stride of 1: the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FEWEST_CHANNELS = 16
"""From so many input channels of a group on, as many as AVX-512 takes at once, the workspace is large enough."""


def is_needed(module: nn.Module) -> bool:
    """Whether it holds a convolution of that kind."""
    return any(
        tuple(child.kernel_size) == (1, 1)
        and max(child.stride) > 1
        and child.in_channels // child.groups < FEWEST_CHANNELS
        for child in module.modules()
        if isinstance(child, nn.Conv2d)
    )


class picking(TorchFunctionMode):  # noqa: N801  -- reads as what it does where it is entered
    """While it is entered, around a forward pass with gradients, such convolutions select their input pixels first."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The same result."""
        if func is F.conv2d:
            return _conv2d(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _conv2d(
    convolve: Callable[..., Tensor],
    input: Tensor,  # noqa: A002  -- callers may name it, as torch does
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    rows, columns = (stride, stride) if isinstance(stride, int) else (stride[0], stride[-1])
    plain = padding in (0, (0, 0), "valid") and tuple(weight.shape[2:]) == (1, 1)
    if plain and min(rows, columns) >= 1 and max(rows, columns) > 1 and weight.shape[1] < FEWEST_CHANNELS:
        picked = input[..., ::rows, ::columns]
        if input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last):
            picked = picked.contiguous(memory_format=torch.channels_last)
        return convolve(picked, weight, bias, 1, 0, 1, groups)
    return convolve(input, weight, bias, stride, padding, dilation, groups)
