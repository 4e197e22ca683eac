"""Faster ways to the same numbers, for operations that torch's CPU library computes with a slow kernel.

Owns eight of them, found in profiles of training steps, and the mode that replaces torch's own operations by them
while a forward pass runs. The model isn't touched, so files, hashes and hooks stay as they are.

- Depthwise convolutions: the library's fast kernel for the gradient of the weights takes kernels up to three columns
  wide, and none at all takes strided ones in bfloat16 for the gradient of the input; what is used instead is 10 to 40
  times slower. Wider kernels are cut into strips of three columns, and the strided gradient is computed in float32.
- Wide 3x3 convolutions in float32: torch's library has no kernel with fewer multiplications (`winograd`).
- Convolutions of many channels and few places, the last ones of a network: the library finds the gradient of their
  weights at a fraction of the speed of the matrix product that it is.
- 1x1 convolutions to few places, in bfloat16, are matrix products of the channels, for which the library has faster
  kernels.
- Attention in bfloat16: the backward pass of the fused kernel is slower than plain matrix products.
- Linear layers in bfloat16: the bias costs a pass over the result, which oneDNN adds before it leaves the cache.
- Group normalisation of channels-last maps in bfloat16: the library's kernels take up to 30 times as long as those for
  rows of pixels, to which the maps are turned and back.
- ``relu6`` in place copies its input first, to remember which elements were cut; the output shows that too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint

from zooft.compute.kernels import winograd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_STRIP = 3
"""Columns of a depthwise kernel that the library's fast kernel takes."""
_MOST_PLACES, _FEWEST_CHANNELS = 64, 128
"""Of convolutions whose weights' gradient is found by a matrix product; measured. Places are pixels of the output."""
_MOST_PLACES_OF_PRODUCT, _FEWEST_CHANNELS_OF_PRODUCT = 256, 64
"""Of 1x1 convolutions computed wholly as a matrix product; the speed of larger ones is bound by memory either way."""
_MOST_PLACES_BY_GROUP = 1024
"""Pixels of a map up to which torch normalises a channels-last map group by group, the slow way."""
_MOST_CHANNELS_OF_GROUP = 8
"""Of groups whose gradient is found faster in rows of pixels; measured."""
_FORWARD = (F.group_norm,)
"""What is slow without gradients too."""
_Pair = tuple[int, int]


class FastKernels(TorchFunctionMode):
    """While it is entered, calls take the faster way where there is one.

    Attributes:
        used: how many calls took the faster way, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.used: dict[str, int] = {}
        self._ways: Mapping[Any, tuple[str, Callable[..., Tensor | None]]] = {
            F.conv2d: ("convolution", _conv2d),
            F.scaled_dot_product_attention: ("attention", _attention),
            F.linear: ("linear", _linear),
            F.group_norm: ("group norm", _group_norm),
            F.hardtanh: ("relu6", _hardtanh),
        }

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The faster way where there is one and it fits, else `func` itself."""
        found = self._ways.get(func)
        if found is not None and (torch.is_grad_enabled() or func in _FORWARD) and not _is_checkpointed():
            name, way = found
            result = way(*args, **(kwargs or {}))
            if result is not None:
                self.used[name] = self.used.get(name, 0) + 1
                return result
        return func(*args, **(kwargs or {}))


def _is_checkpointed() -> bool:
    """Whether it is recomputed in the backward pass, where the mode isn't entered: other tensors would be saved."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and hooks[0].__module__ == checkpoint.__name__


def _fit(*tensors: Tensor | None) -> bool:
    """Whether torch itself would take these together: one dtype, or dtypes that autocast casts."""
    given = [tensor for tensor in tensors if tensor is not None]
    cast = {torch.float32, torch.bfloat16, torch.float16} if torch.is_autocast_enabled("cpu") else {given[0].dtype}
    return all(one.dtype in cast and one.device.type == "cpu" and not one.is_nested for one in given)


def _compute_dtype(x: Tensor) -> torch.dtype:
    if torch.is_autocast_enabled("cpu") and x.dtype in {torch.float32, torch.bfloat16, torch.float16}:
        return torch.get_autocast_dtype("cpu")
    return x.dtype


def _conv2d(
    input: Tensor,  # noqa: A002  -- callers may name it, as torch does
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | _Pair = 1,
    padding: int | _Pair | str = 0,
    dilation: int | _Pair = 1,
    groups: int = 1,
) -> Tensor | None:
    """The convolution, or None where torch's own should compute it."""
    if isinstance(padding, str) or input.ndim != 4 or _pair(dilation) != (1, 1) or not _fit(input, weight, bias):
        return None
    if min(_pair(stride)) < 1:
        return None  # torch raises the error
    if not (input.requires_grad or weight.requires_grad):
        return None
    if groups == 1 and input.shape[1] == weight.shape[1]:
        wide = _wide(input, weight, bias, _pair(stride), _pair(padding))
        return _dense(input, weight, bias, _pair(stride), _pair(padding)) if wide is None else wide
    if groups == input.shape[1] == weight.shape[0]:
        return _depthwise(input, weight, bias, _pair(stride), _pair(padding))
    return None


def _wide(x: Tensor, weight: Tensor, bias: Tensor | None, stride: _Pair, padding: _Pair) -> Tensor | None:
    margins = [(side, side) for side in padding]
    if _compute_dtype(x) is not torch.float32 or x.dtype is not torch.float32:
        return None
    if not winograd.suits(weight, stride=stride, margins=margins, dilation=(1, 1), groups=1):
        return None
    result: Tensor = _Wide.apply(x, weight, bias)
    return result


def _dense(x: Tensor, weight: Tensor, bias: Tensor | None, stride: _Pair, padding: _Pair) -> Tensor | None:
    dtype = _compute_dtype(x)
    if dtype not in {torch.float32, torch.bfloat16}:
        return None
    product = bias is None and _is_product(x, weight, stride, padding, dtype)  # a bias would be rounded separately
    if product or (weight.requires_grad and _is_deep(x, weight, stride, padding)):
        return _convolve(x, weight, bias, stride, padding, dtype)
    return None


def _is_deep(x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair) -> bool:
    fewest = min(weight.shape[:2]) >= _FEWEST_CHANNELS
    return fewest and 1 <= _places(x, weight, stride, padding) <= _MOST_PLACES


def _is_product(x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair, dtype: torch.dtype) -> bool:
    """Whether it is a matrix product of channels, in memory as it lies, that pays; a depthwise convolution never is."""
    if dtype is not torch.bfloat16 or tuple(weight.shape[2:]) != (1, 1) or padding != (0, 0) or not x.numel():
        return False
    fewest = min(weight.shape[:2]) >= _FEWEST_CHANNELS_OF_PRODUCT
    few = _places(x, weight, stride, padding) <= _MOST_PLACES_OF_PRODUCT
    return fewest and few and x.is_contiguous(memory_format=torch.channels_last)


def _places(x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair) -> int:
    """Output pixels of one image; 0 where the kernel is larger than its padded input."""
    sizes = [(x.shape[i] + 2 * padding[i - 2] - weight.shape[i]) // stride[i - 2] + 1 for i in (2, 3)]
    return math.prod(sizes) if min(sizes) >= 1 else 0


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: _Pair, padding: _Pair) -> Tensor | None:
    dtype = _compute_dtype(x)
    slow = weight.shape[3] > _STRIP or (dtype is torch.bfloat16 and stride != (1, 1))
    if not slow or dtype not in {torch.float32, torch.bfloat16}:
        return None
    return _convolve(x, weight, bias, stride, padding, dtype)


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: _Pair, padding: _Pair, dtype: torch.dtype
) -> Tensor:
    own_bias = None if bias is None else bias.to(dtype)
    result: Tensor = _Convolution.apply(x.to(dtype), weight.to(dtype), own_bias, stride, padding)
    return result


def _pair(value: int | Sequence[int]) -> _Pair:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


class _Wide(torch.autograd.Function):
    """``(N, C, H, W), (K, C, 3, 3) -> (N, K, H, W)``, float32, with a zero on every side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return winograd.convolve(x, winograd.transform(weight).transpose(1, 2), bias=bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        wanted = ctx.needs_input_grad
        of_x = winograd.input_gradient(gradient, weight) if wanted[0] else None
        of_weight = winograd.weight_gradient(gradient, x) if wanted[1] else None
        return of_x, of_weight, gradient.sum((0, 2, 3)) if wanted[2] else None


class _Convolution(torch.autograd.Function):
    """``(N, C, H, W), (K, C, R, S) -> (N, K, H', W')``, or depthwise, ``(C, 1, R, S)``; all of one dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: _Pair, padding: _Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        with torch.autocast("cpu", enabled=False):
            if bias is None and _is_product(x, weight, stride, padding, x.dtype):
                return _multiply_channels(x, weight, stride)
            return F.conv2d(x, weight, bias, stride, padding, groups=_groups(x, weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        wanted = ctx.needs_input_grad
        of_x = _input_gradient(gradient, x, weight, ctx.stride, ctx.padding) if wanted[0] else None
        of_weight = _weight_gradient(gradient, x, weight, ctx.stride, ctx.padding) if wanted[1] else None
        of_bias = gradient.sum((0, 2, 3)) if wanted[2] else None
        return of_x, of_weight, of_bias, None, None


def _groups(x: Tensor, weight: Tensor) -> int:
    return x.shape[1] // weight.shape[1]


def _input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair) -> Tensor:
    if _is_product(x, weight, stride, padding, x.dtype):
        return _product_input_gradient(gradient, x, weight, stride)
    if x.dtype is not torch.bfloat16 or stride == (1, 1) or _groups(x, weight) == 1:
        return _torchs_own(gradient, x, weight, stride, padding, (True, False))
    blank = torch.empty_like(x, dtype=torch.float32)  # only its shape and layout matter
    return _torchs_own(gradient.float(), blank, weight.float(), stride, padding, (True, False)).to(x.dtype)


def _product_input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: _Pair) -> Tensor:
    flowing = (gradient.permute(0, 2, 3, 1) @ weight.flatten(1)).permute(0, 3, 1, 2)
    if stride == (1, 1):
        return flowing
    whole = torch.zeros_like(x)
    whole[:, :, :: stride[0], :: stride[1]] = flowing
    return whole


def _multiply_channels(x: Tensor, weight: Tensor, stride: _Pair) -> Tensor:
    """The 1x1 convolution, not as a view: autograd forbids changing in place a view that a custom function returns."""
    seen = _sample_pixels(x, stride)
    whole = torch.empty((len(x), len(weight), *seen.shape[1:3]), dtype=x.dtype, memory_format=torch.channels_last)
    torch.mm(seen.reshape(-1, x.shape[1]), weight.flatten(1).t(), out=whole.permute(0, 2, 3, 1).view(-1, len(weight)))
    return whole


def _sample_pixels(x: Tensor, stride: _Pair) -> Tensor:
    """``(N, H', W', C)``: the input pixels that a 1x1 convolution reads."""
    return x[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1)


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair) -> Tensor:
    if _groups(x, weight) == 1:
        return _product(gradient, x, (weight.shape[2], weight.shape[3]), stride, padding)
    return _strips(gradient, x, weight, stride, padding)


def _product(gradient: Tensor, x: Tensor, kernel: _Pair, stride: _Pair, padding: _Pair) -> Tensor:
    """The gradient of a convolution's weights: each output's gradient times the input under the kernel there."""
    outputs, channels = gradient.shape[1], x.shape[1]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    seen = padded.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1]).permute(0, 1, 2, 4, 5, 3)
    places, features = math.prod(seen.shape[:3]), math.prod(seen.shape[3:])
    flowing, given = gradient.permute(0, 2, 3, 1).reshape(places, outputs), seen.reshape(places, features)
    few = gradient.dtype is torch.bfloat16 and math.prod(gradient.shape[2:]) <= _MOST_PLACES
    smaller, larger = (flowing, given) if outputs <= features else (given, flowing)
    product = _transpose(smaller, copied=few) @ larger
    found = product if smaller is flowing else product.t()
    return found.reshape(outputs, *kernel, channels).permute(0, 3, 1, 2)


def _transpose(rows: Tensor, *, copied: bool) -> Tensor:
    """The transpose of the smaller factor; with few places, oneDNN reorders it more slowly than a copy does."""
    return rows.t().contiguous() if copied else rows.t()


def _strips(gradient: Tensor, x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair) -> Tensor:
    """The same for a depthwise convolution, by column: a kernel's column reads the input shifted by its number."""
    columns = weight.shape[3]
    if columns <= _STRIP:
        return _torchs_own(gradient, x, weight, stride, padding, (False, True))
    reach = (gradient.shape[3] - 1) * stride[1]
    padded = F.pad(x, (padding[1], padding[1]))
    strips = []
    for first in range(0, columns, _STRIP):
        width = min(_STRIP, columns - first)
        seen = padded[..., first : first + reach + width].contiguous(memory_format=torch.channels_last)
        strip = weight[..., first : first + width].contiguous()
        strips.append(_torchs_own(gradient, seen, strip, stride, (padding[0], 0), (False, True)))
    return torch.cat(strips, 3)


def _torchs_own(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair, wanted: tuple[bool, bool]
) -> Tensor:
    how = (list(stride), list(padding), [1, 1], False, [0, 0], _groups(x, weight))
    found = torch.ops.aten.convolution_backward(gradient, x, weight, None, *how, [*wanted, False])
    result: Tensor = found[0] if wanted[0] else found[1]
    return result


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """Plain attention in bfloat16, or None."""
    plain = attn_mask is None and not dropout_p and not is_causal and not enable_gqa
    same = query.ndim == 4 and query.shape[:2] == key.shape[:2] and key.shape == value.shape
    if not plain or not same or query.shape[3] != key.shape[3] or not _fit(query, key, value):
        return None
    # torch's fused kernel, called below without torch's own checks, reads out of bounds in other layouts and divides by
    # none
    if _compute_dtype(query) is not torch.bfloat16 or not all(
        p.numel() and p.stride(3) == 1 for p in (query, key, value)
    ):
        return None
    if not (query.requires_grad or key.requires_grad or value.requires_grad):
        return None
    parts = [part.to(torch.bfloat16) for part in (query, key, value)]
    result: Tensor = _Attention.apply(*parts, 1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    return result


class _Attention(torch.autograd.Function):
    """``(N, heads, L, E)`` queries, ``(N, heads, S, E)`` keys and values, bfloat16.

    The forward pass is torch's. The backward pass is that of FlashAttention (Dao et al. 2022, section 3.1), a sample at
    a time in place of its blocks, whose scores fit into the cache for some hundred tokens; they and what flows
    back to them are float32, the other products bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, scale=scale)
        ctx.save_for_backward(query, key, value, out, logsumexp)
        ctx.scale = scale
        result: Tensor = out
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, logsumexp = ctx.saved_tensors
        (gradient,) = gradients
        flowing = [torch.empty(part.shape, dtype=part.dtype) for part in (query, key, value)]
        with torch.autocast("cpu", enabled=False):
            for sample in zip(query, key, value, out, logsumexp, gradient, *flowing, strict=True):
                _flow_back(*sample, scale=ctx.scale)
        return *flowing, None


def _flow_back(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    gradient: Tensor,
    of_query: Tensor,
    of_key: Tensor,
    of_value: Tensor,
    *,
    scale: float,
) -> None:
    """Write attention's gradients of a sample, ``(heads, L, E)`` and ``(heads, S, E)``.

    `logsumexp` float32 ``(heads, L)``.
    """
    query, key, value, gradient = (part.contiguous() for part in (query, key, value, gradient))
    upstream = gradient.float()
    weights = torch.baddbmm(-logsumexp[..., None], query.float(), key.float().transpose(1, 2), alpha=scale).exp_()
    shares = (upstream * out).sum(-1, keepdim=True)
    of_scores = torch.baddbmm(shares, upstream, value.float().transpose(1, 2), beta=-scale, alpha=scale)
    of_scores = of_scores.mul_(weights).to(query.dtype)
    torch.bmm(weights.to(query.dtype).transpose(1, 2), gradient, out=of_value)
    torch.bmm(of_scores, key, out=of_query)
    torch.bmm(of_scores.transpose(1, 2), query, out=of_key)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:  # noqa: A002  -- as torch calls it
    """A linear layer with a bias on rows of tokens, in bfloat16, or None: a classifier's few rows gain nothing."""
    if bias is None or not _fit(input, weight, bias) or input.ndim < 3 or weight.ndim != 2 or not input.numel():
        return None
    if input.shape[-1] != weight.shape[1] or bias.shape != weight.shape[:1] or not weight.numel():
        return None  # torch broadcasts some of these, and raises for the others
    if _compute_dtype(input) is not torch.bfloat16 or not (input.requires_grad or weight.requires_grad):
        return None
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # type: ignore[no-untyped-call]
        return None
    rows = input.flatten(
        0, -2
    )  # out here, since autograd forbids changing in place a view that a custom function returns
    result: Tensor = _Linear.apply(*(part.to(torch.bfloat16) for part in (rows, weight, bias)))
    return result.view(*input.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    """``(rows, in), (out, in), (out,) -> (rows, out)``, bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        wanted = ctx.needs_input_grad
        of_x = gradient @ weight if wanted[0] else None
        of_weight = gradient.t() @ x if wanted[1] else None
        return of_x, of_weight, gradient.sum(0) if wanted[2] else None


def _group_norm(
    input: Tensor,  # noqa: A002  -- as torch calls it
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    """Group normalisation of a channels-last map in bfloat16, or None."""
    if input.dtype is not torch.bfloat16 or input.ndim != 4 or input.device.type != "cpu" or not input.numel():
        return None
    turned = input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous()
    if not turned or weight is None or bias is None or num_groups < 1 or input.shape[1] % num_groups:
        return None
    small = input.shape[1] // num_groups <= _MOST_CHANNELS_OF_GROUP
    of_channels = weight.shape == bias.shape == input.shape[1:2] and weight.dtype is bias.dtype is torch.float32
    learns = torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad or bias.requires_grad)
    slow = learns or math.prod(input.shape[2:]) <= _MOST_PLACES_BY_GROUP
    if not small or not of_channels or not slow:
        return None
    result: Tensor = _GroupNorm.apply(input, weight, bias, num_groups, eps)
    return result


class _GroupNorm(torch.autograd.Function):
    """``(N, C, H, W), (C,), (C,) -> (N, C, H, W)``, bfloat16 in channels-last layout; weight and bias float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        places = x.shape[2] * x.shape[3]
        sizes = (x.shape[0], x.shape[1], places, groups)
        given = x.contiguous() if places <= _MOST_PLACES_BY_GROUP else x
        found, mean, inverse_deviation = torch.ops.aten.native_group_norm(given, weight, bias, *sizes, eps)
        ctx.save_for_backward(x, mean, inverse_deviation, weight)
        ctx.sizes = sizes
        result: Tensor = found.contiguous(memory_format=torch.channels_last)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, inverse_deviation, weight = ctx.saved_tensors
        rows = gradients[0].contiguous(), x.contiguous()
        wanted = list(ctx.needs_input_grad[:3])
        of_x, of_weight, of_bias = torch.ops.aten.native_group_norm_backward(
            *rows, mean, inverse_deviation, weight, *ctx.sizes, wanted
        )
        turned = of_x.contiguous(memory_format=torch.channels_last) if wanted[0] else None
        return turned, of_weight if wanted[1] else None, of_bias if wanted[2] else None, None, None


def _hardtanh(
    input: Tensor,  # noqa: A002  -- callers may name it, as torch does
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,
) -> Tensor | None:
    """Clamp in place and without a copy, or None where it isn't requested in place."""
    if not inplace or not input.requires_grad or input.is_leaf or input._is_view() or input.device.type != "cpu":
        return None  # torch itself knows what may be changed in place
    result: Tensor = _Clamped.apply(input, min_val, max_val)
    return result


class _Clamped(torch.autograd.Function):
    """``clamp_``; an element was clamped where the output equals a limit."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        x.clamp_(low, high)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.limits = low, high
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (out,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], out, *ctx.limits), None, None
