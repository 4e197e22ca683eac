"""3x3 convolutions with a quarter of the multiplications, in float32, and their gradients.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016): F(4x4, 3x3). Overlapping tiles of 6x6
and the kernel are transform to a basis in which the convolution of 4x4 results is 36 matrix products: 2.25
multiplications a result instead of 9. The change of basis costs passes over memory, so that it pays from 128 channels
on; measured on one thread, such layers take 0.6 to 0.8 of oneDNN's time forward and backward, with relative errors of
1e-6 to 3e-6, oneDNN's being 3e-7 to 1e-6.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEWEST_CHANNELS = 128
_TILES = 98
"""Transformed at a time, so that they stay in the CPU's cache; more where the kernel is larger than that."""
_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_KERNEL = (
    torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64) / 24
)
_RESULT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)
# a transform of rows and columns at once is the Kronecker product of both
_OF_INPUT = torch.kron(_INPUT, _INPUT).float()  # (36, 36)
_OF_KERNEL = torch.kron(_KERNEL, _KERNEL)  # (36, 9)
_OF_RESULT = torch.kron(_RESULT, _RESULT).float()  # (16, 36)
_EVERYWHERE = 7
"""The element that counts once in each of the 16 results: a bias is added to it alone, a sixteenth of the work."""


def suits(
    weight: Tensor, *, stride: Sequence[int], margins: Sequence[Sequence[int]], dilation: Sequence[int], groups: int
) -> bool:
    """Whether a convolution is one that gets faster: 3x3, float32, padding 1, enough channels."""
    alike = (tuple(weight.shape[2:]), tuple(stride), tuple(dilation), groups) == ((3, 3), (1, 1), (1, 1), 1)
    even = all(tuple(pair) == (1, 1) for pair in margins)
    return alike and even and min(weight.shape[:2]) >= FEWEST_CHANNELS and weight.dtype == torch.float32


def transform(weight: Tensor, *, turned: bool = False) -> Tensor:
    """A kernel ``(out, in, 3, 3)`` in the other basis, ``(36, out, in)``, in its dtype.

    Of the kernel by 180 degrees if `turned`.
    """
    outputs, inputs = weight.shape[:2]
    places = weight.permute(2, 3, 0, 1).reshape(9, -1)
    basis = _OF_KERNEL.flip(1) if turned else _OF_KERNEL
    return torch.mm(basis.to(weight.dtype), places).view(36, outputs, inputs)


def convolve(x: Tensor, there: Tensor, *, bias: Tensor | None = None, activation: nn.Module | None = None) -> Tensor:
    """The convolution, with a bias and an activation.

    Args:
        x: ``(N, in, H, W)`` float32 on a CPU.
        there: the kernel in the other basis, ``(36, in, out)``, in any memory layout.
        bias: ``(out,)``.
        activation: elementwise; it may work in place.

    Returns:
        ``(N, out, H, W)``, channels-last.
    """
    images, _, height, width = x.shape
    down, across = _tiles(x)
    outputs = there.shape[2]
    # not as a view: autograd forbids changing in place a view that a custom function returns
    whole = torch.empty((images, outputs, height, width), dtype=x.dtype, memory_format=torch.channels_last)
    result = whole.permute(0, 2, 3, 1)
    step = max(1, max(_TILES, outputs // 2) // (down * across))
    for part, place in zip(torch.split(x, step), torch.split(result, step), strict=True):
        products = torch.bmm(_inputs(part), there)
        if bias is not None:
            products[_EVERYWHERE] += bias
        done = torch.mm(_OF_RESULT, products.view(36, -1)).view(4, 4, -1, down, across, outputs)
        if activation is not None:
            done = activation(done)
        squares = done.permute(2, 3, 0, 4, 1, 5)
        if (height, width) == (4 * down, 4 * across):
            place.view(squares.shape).copy_(squares)
        else:
            place.copy_(squares.reshape(-1, 4 * down, 4 * across, outputs)[:, :height, :width])
    return whole


def input_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the input: the convolution with the kernel turned by 180 degrees, as for any stride of 1."""
    return convolve(gradient, transform(weight, turned=True))


def weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """The kernel's gradient, ``(out, in, 3, 3)``: every step of `convolve` transposed.

    Args:
        gradient: of the result, ``(N, out, H, W)``.
        x: the input, ``(N, in, H, W)``.
    """
    down, across = _tiles(x)
    height, width = x.shape[2:]
    inputs, outputs = x.shape[1], gradient.shape[1]
    there = x.new_zeros(36, outputs, inputs)
    step = max(1, 4 * _TILES // (down * across))  # larger than in `convolve`: each step adds to all of `there`
    for part, flowing in zip(torch.split(x, step), torch.split(gradient, step), strict=True):
        rows = F.pad(flowing.permute(0, 2, 3, 1), (0, 0, 0, 4 * across - width, 0, 4 * down - height))
        squares = rows.reshape(-1, down, 4, across, 4, outputs).permute(2, 4, 0, 1, 3, 5).reshape(16, -1)
        products = torch.mm(_OF_RESULT.t(), squares).view(36, -1, outputs)
        there.baddbmm_(products.transpose(1, 2), _inputs(part))
    places = torch.mm(_OF_KERNEL.t().to(x.dtype), there.view(36, -1))
    return places.view(3, 3, outputs, inputs).permute(2, 3, 0, 1)


def _tiles(x: Tensor) -> tuple[int, int]:
    """Tiles of 4x4 results, down and across."""
    height, width = x.shape[2:]
    return -(-height // 4), -(-width // 4)


def _inputs(x: Tensor) -> Tensor:
    """``(N, in, H, W)`` in tiles and in the other basis, ``(36, tiles, in)``."""
    down, across = _tiles(x)
    images, channels, height, width = x.shape
    padded = x.new_empty(images, 4 * down + 2, 4 * across + 2, channels)
    padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
    for edge in (padded[:, :1], padded[:, height + 1 :], padded[:, :, :1], padded[:, :, width + 1 :]):
        edge.zero_()  # cheaper than F.pad, which writes zeros everywhere first
    tiles = padded.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3).reshape(36, -1)
    return torch.mm(_OF_INPUT, tiles).view(36, -1, channels)


class Winograd(nn.Module):
    """Replaces a convolution that `suits`, for inference on a CPU.

    Args:
        conv: to be replaced.
        activation: to be applied to its result.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None) -> None:
        super().__init__()
        self.there = transform(conv.weight.detach().double()).float().transpose(1, 2).contiguous()
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in, H, W)`` to ``(N, out, H, W)``, channels-last."""
        return convolve(x, self.there, bias=self.bias, activation=self.activation)
