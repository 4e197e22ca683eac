"""How much each input sample counts for each output sample of an axis that is resized, then cropped or padded.

Two kinds of weights. Those of 8-bit levels are whole numbers, shares of `ONE`, found by whole-number arithmetic alone:
every runtime and every order of summing then gives the same levels, bit for bit, also where floats are bfloat16,
which has no whole number between 256 and 258. Those of levels that aren't rounded are float32.

`length` is how many samples an axis has, `new` how many after resizing: int64, scalars or ``(N, 1)``. The whole numbers
stay below 2**31 for axes of up to 32,767 samples: some runtimes have none larger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zooft.contracts import Interpolation, ResizeMode

ONE = 2**15
"""A share of it times a level stays below 2**24, so that float32 sums of such products are exact too."""
RADIUS: Mapping[Interpolation, int] = {"bilinear": 1, "bicubic": 2}
"""Of the filters, in input samples, or output ones where these are larger."""


def whole(number: int, device: torch.device) -> Tensor:
    """A whole number, that of a graph's axis too, as a scalar int64."""
    return torch.scalar_tensor(number, dtype=torch.int64, device=device)


def resized_length(
    length: Tensor, other: Tensor, *, wanted: int, wanted_other: int, mode: ResizeMode, resize: int
) -> Tensor:
    """An axis's length after resizing, of which the centre is taken: a scalar int64.

    Args:
        length: of the axis.
        other: length of the other axis.
        wanted: samples of the network's input.
        wanted_other: the same of the other axis.
        mode: as in `InputSpec`.
        resize: as in `InputSpec`.
    """
    if mode == "stretch":
        return torch.full_like(length, wanted)
    if mode == "crop":
        return floor_divide(length * resize, torch.minimum(length, other))
    if wanted == wanted_other:
        return floor_divide(length * wanted, torch.maximum(length, other)).clamp_min(1)
    return torch.minimum(torch.full_like(length, wanted), floor_divide(length * wanted_other, other)).clamp_min(1)


def centre(target: Tensor, *, length: Tensor, new: Tensor) -> Tensor:
    """Number of the input sample in which the middle of each output sample lies.

    Args:
        target: numbers of the output samples, ``(…, wanted)`` int64; the nearest inside the resized axis counts.
        length: of the axis.
        new: length after resizing.
    """
    return floor_divide((2 * _inside(target, new) + 1) * length, 2 * new)


def reach(kind: Interpolation, *, length: Tensor, new: Tensor) -> Tensor:
    """Input samples on either side of the centre's that can count, at most."""
    return floor_divide(RADIUS[kind] * torch.maximum(length, new), new) + 1


def whole_weights(source: Tensor, target: Tensor, kind: Interpolation, *, length: Tensor, new: Tensor) -> Tensor:
    """Weights ``(…, wanted, taps)`` int64 that sum to `ONE`, or to 0 where there is padding; 0 outside the axis.

    Args:
        source: numbers of the input samples, int64: ``(taps,)``, or ``(…, wanted, taps)`` of some for each output one,
            with all that count among them.
        target: numbers of the output samples, ``(…, wanted)`` int64.
        kind: of filter.
        length: of the axis.
        new: length after resizing.
    """
    shown = _inside(target, new)
    distance = _distance(source, shown, length=length, new=new).abs()
    shares = _whole_filter(distance, 2 * torch.maximum(length, new)[..., None], kind)
    shares = shares * ((source >= 0) & (source < length[..., None])).to(torch.int64)
    total = shares.sum(-1, keepdim=True)
    weights = shares.sign() * floor_divide(shares.abs() * ONE + floor_shares(total, 2), total)
    # what rounding left over goes to the middle, where it weighs least, so that an even picture stays as it is
    middle = (source == centre(target, length=length, new=new)[..., None]).to(torch.int64)
    weights = weights + (ONE - weights.sum(-1, keepdim=True)) * middle
    return weights * (shown == target).to(torch.int64)[..., None]


def float_shares(source: Tensor, target: Tensor, kind: Interpolation, *, length: Tensor, new: Tensor) -> Tensor:
    """How much each input sample counts, as float32, not yet as a share of their sum; arguments as `whole_weights`."""
    # whole-number distances: as float32 fractions they collapse on runtimes that compute in bfloat16
    distance = _distance(source, target, length=length, new=new)
    unit = 2 * torch.maximum(length, new)[..., None]
    return _filter(distance.to(torch.float32) / unit.to(torch.float32), kind)


def floor_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Exact for whole numbers from 0, with quotients below 2**22.

    Some runtimes divide whole numbers as float32, or round the quotient; the remainder shows whether it is one off.
    """
    quotient = _divide(numerator, denominator)
    rest = numerator - quotient * denominator
    return quotient + (rest >= denominator).to(quotient.dtype) - (rest < 0).to(quotient.dtype)


def floor_shares(numerator: Tensor, power: int) -> Tensor:
    """As `floor_divide`, by a power of two: without the bits that would be its remainder nothing is to be rounded."""
    return _divide(numerator & -power, torch.scalar_tensor(power, dtype=numerator.dtype))


def centre_offset(excess: Tensor) -> Tensor:
    """Where a centre crop begins (half to even, as torchvision's), or minus the padding before a small image."""
    size = excess.abs()
    half = floor_shares(size, 2)
    odd = (size - 2 * half) * (half - 2 * floor_shares(half, 2))
    return torch.where(excess < 0, -half, half + odd)


def _inside(target: Tensor, new: Tensor) -> Tensor:
    return torch.minimum(target.clamp_min(0), new - 1)


def _distance(source: Tensor, target: Tensor, *, length: Tensor, new: Tensor) -> Tensor:
    return (2 * source + 1) * new[..., None] - ((2 * target + 1) * length)[..., None]


def _whole_filter(distance: Tensor, unit: Tensor, kind: Interpolation) -> Tensor:
    """As `_filter`, of absolute distances in shares of `unit`: in the same for the triangle, else in those of `ONE`."""
    if kind == "bilinear":
        return (unit - distance).clamp_min(0)
    near = distance < unit
    # the distance within 1, or what is left of it to 2
    d = floor_divide(
        torch.where(near, distance, (2 * unit - distance).clamp_min(0)) * ONE + floor_shares(unit, 2), unit
    )
    square = floor_shares(d * d + ONE // 2, ONE)
    bend = square * (ONE - d)
    inner = ONE - square - floor_shares(3 * bend + ONE, 2 * ONE)
    outer = -floor_shares(bend + ONE, 2 * ONE)
    return torch.where(near, inner, outer)


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Truncated, or rounded by some runtimes."""
    if not torch.onnx.is_in_onnx_export():
        return torch.div(numerator, denominator, rounding_mode="trunc")
    # the exporter would divide as float32, which some runtimes make bfloat16
    shape = torch.broadcast_shapes(numerator.shape, denominator.shape)  # type: ignore[no-untyped-call]  # torch's
    return torch.onnx.ops.symbolic("Div", (numerator, denominator), dtype=numerator.dtype, shape=shape)


def _filter(distance: Tensor, kind: Interpolation) -> Tensor:
    """Triangle, or Keys' cubic convolution with a = -0.5 (IEEE Trans. ASSP 29, 1981), as Pillow uses."""
    d = distance.abs()
    if kind == "bilinear":
        return (1 - d).clamp_min(0)
    a = -0.5
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d < 1, near, torch.where(d < 2, far, torch.zeros_like(d)))
