"""The frozen prefix of a model, made to run as fast as it goes without learning.

Owns the copy that inference runs on: batch norms folded into the layer before them, convolutions packed for oneDNN
together with the activation behind them, channels-last. The model itself stays bit-equal: the copy shares every
tensor that isn't changed and has its own where one is.

What may be folded is found by watching one image pass, not by names or by symbolic tracing, which trips over control
flow and silently skips modules that are a batch norm and an activation in one. What comes out is compared with the
unfolded copy, which serves where they differ.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zooft.compute.kernels import winograd
from zooft.model.adapted import INSTANCES_AT_A_TIME

if TYPE_CHECKING:
    from collections.abc import Callable

    from zooft.model.adapted import AdaptedModel

TOLERANCE = 1e-4
"""Relative error above which a copy doesn't serve in place of the unfolded one."""
_COMPARED = 2
"""Images that copies are compared on."""
_WORSE = 1.25
"""How much more a wholly converted copy may move the features than autocast, which is slower by a tenth."""
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LINEAR_MAPS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, *_TRANSPOSED)
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
    nn.Hardswish: ("hardswish", []),
}
"""What oneDNN can do to a convolution's result before it leaves the cache, under torch's names for it."""

_Key = tuple[int, int]
"""A tensor's identity and version; an activation that works in place gives the next version of what it took."""
_Margins = tuple[tuple[int, int], tuple[int, int]]
"""Zeros above and below, left and right."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """What runs the frozen stages.

    Attributes:
        run: ``(N, C, H, W)``, or ``(N, Z, C, H, W)`` of bags, to what leaves the last frozen stage, float32. What it
            gives are inference tensors: clone them where a learning layer takes them at once.
        folded: batch norms that are folded.
        moved: relative error of the probe's features against those of the unfolded model in float32.
    """

    run: Callable[[Tensor], Tensor]
    folded: int
    moved: float


def runner(
    model: AdaptedModel,
    stop: int,
    probe: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    note: Callable[[str], None],
) -> Prefix:
    """What runs the first `stop` stages of `model` for inference; `model` isn't changed.

    It belongs to the tensors that the model has now; after loading others, make a new one.

    Args:
        model: whose stages.
        stop: how many leading stages; 0 gives back what is put in.
        probe: a real batch on the model's device, as many samples as will be run at a time.
        dtype: float32, or bfloat16, which is faster and moves the features; they come out as float32.
        note: called with a sentence where the fast way can't be taken.
    """
    if stop == 0:
        return Prefix(run=lambda x: x, folded=0, moved=0.0)
    plain = _Copy(_twin(model), stop)
    if dtype == torch.float32 and not any(map(_is_norm, model.trunk.modules())):
        return Prefix(run=plain, folded=0, moved=0.0)  # a transformer: nothing to fold, so nothing to compare
    few = probe[:1, :_COMPARED] if model.bag else probe[:_COMPARED]
    images = min(probe.shape[0] * probe.shape[1], INSTANCES_AT_A_TIME) if model.bag else len(probe)
    wanted = plain(few)
    found = _fold(plain, few, wanted, note=note)
    found = _exact(found, few, wanted, images) if dtype == torch.float32 else _lower(found, few, wanted, images, dtype)
    chosen, elsewhere = found.copy, _Copy(plain.model, stop, dtype, autocast=dtype != torch.float32)
    size = probe.shape[-3:]  # padding that depends on the size is settled for this one

    def run(x: Tensor) -> Tensor:
        return chosen(x) if x.shape[-3:] == size else elsewhere(x)

    return Prefix(run=run, folded=found.folded, moved=found.moved)


@dataclass(frozen=True, slots=True)
class _Copy:
    """A model's first stages as inference runs them."""

    model: AdaptedModel
    stop: int
    dtype: torch.dtype = torch.float32
    autocast: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        # autocast is always named, so that a caller's own doesn't apply
        lowered = torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast)
        with torch.inference_mode(), lowered:
            x = x if self.autocast else x.to(self.dtype)
            if x.ndim == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            return self.model.prefix(x, self.stop).float()


def _twin(model: AdaptedModel, dtype: torch.dtype | None = None) -> AdaptedModel:
    """A copy in evaluation mode that shares the tensors, or has them in another floating-point type."""
    shared: dict[int, Any] = {id(model.stages): model.stages}
    for tensor in [*model.parameters(), *model.buffers()]:
        lower = dtype is not None and tensor.is_floating_point()
        shared[id(tensor)] = _like(tensor, tensor.detach().to(dtype)) if lower else tensor
    return copy.deepcopy(model, shared).eval()


def _like(old: Tensor, new: Tensor) -> Tensor:
    return nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new


def _difference(found: Tensor, wanted: Tensor) -> float:
    """Relative, of the whole; not a number where one of them isn't finite."""
    if found.shape != wanted.shape:
        return float("inf")
    return float((found.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-30))


@dataclass(frozen=True, slots=True)
class _Found:
    """A copy, how many batch norms it has folded, and how far its features are from the plain ones."""

    copy: _Copy
    folded: int
    moved: float


def _fold(plain: _Copy, few: Tensor, wanted: Tensor, *, note: Callable[[str], None]) -> _Found:
    """With batch norms folded; the plain copy where there are none, or where that isn't exact."""
    try:
        model = _twin(plain.model)
        folded = _fold_norms(model, plain.stop, few)
        if not folded:
            return _Found(plain, 0, 0.0)
        found = _Copy(model, plain.stop)
        moved = _difference(found(few), wanted)
        if moved <= TOLERANCE:
            return _Found(found, folded, moved)
        why = f"it moves the features by {moved:.1e}, allowed is {TOLERANCE:.0e}"
    except Exception as error:  # the zoo's code runs on parts that it didn't put there
        why = f"{type(error).__name__}: {error}"
    note(f"the frozen part runs as it is, slower and as right: its batch norms can't be folded ({why})")
    return _Found(plain, 0, 0.0)


def _exact(base: _Found, few: Tensor, wanted: Tensor, images: int) -> _Found:
    """The faster of two ways to compute in float32."""
    # packing pays where activations stand behind batch norms; models without any gained nothing
    packed = _pack(base, few, wanted, images, torch.float32) if base.folded else None
    return packed if packed is not None and packed.moved <= TOLERANCE else base


def _lower(base: _Found, few: Tensor, wanted: Tensor, images: int, dtype: torch.dtype) -> _Found:
    """The faster of two ways to compute in `dtype`, unless it moves the features more.

    The choice is by result and not by the clock, so that the same run gives the same features again.
    """
    copied = _Copy(base.copy.model, base.copy.stop, dtype, autocast=True)
    cast = _Found(copied, base.folded, _difference(copied(few), wanted))
    whole = _pack(base, few, wanted, images, dtype)
    return whole if whole is not None and whole.moved <= _WORSE * cast.moved else cast


def _pack(base: _Found, few: Tensor, wanted: Tensor, images: int, dtype: torch.dtype) -> _Found | None:
    """With convolutions in oneDNN's own layout and everything in `dtype`; None where that can't be."""
    try:
        model = _twin(base.copy.model, dtype)
        if few.device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            _pack_convolutions(model, base.copy, few, images, dtype)
        copied = _Copy(model, base.copy.stop, dtype)
        return _Found(copied, base.folded, _difference(copied(few), wanted))
    except Exception:  # the zoo's code runs on parts that it didn't put there; the base is as right
        return None


# What follows what: one image is watched on its way.


@dataclass(frozen=True, slots=True)
class _Call:
    """A module that ran: what it took and gave, of which shapes, and how it pads, if it is a plain convolution."""

    module: nn.Module
    took: _Key
    gave: _Key
    size: tuple[int, ...]
    axes: int
    margins: _Margins | None


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Which modules run, in order, how often each, and how many operations take each tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []
        self.times: Counter[nn.Module] = Counter()
        self.uses: Counter[_Key] = Counter()
        self._took: dict[nn.Module, _Key] = {}
        self._alive: list[Tensor] = []  # so that no other tensor gets the identity of one that was seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.uses.update(_key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        return func(*args, **(kwargs or {}))

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Called with what a module is given."""
        self.times[module] += 1
        if args and isinstance(args[0], Tensor):
            self._took[module] = _key(args[0])

    def after(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        """Called with what a module gives."""
        if module not in self._took or not isinstance(result, Tensor):
            return
        margins = _margins(module, args[0], result) if isinstance(module, nn.Conv2d) else None
        self.calls.append(_Call(module, self._took[module], _key(result), tuple(args[0].shape), result.ndim, margins))
        if isinstance(module, _LINEAR_MAPS):
            self._alive.append(result)
            self.uses[_key(result)] = 0  # one that is gone may have had its identity

    def follower(self, call: _Call, kind: Callable[[nn.Module], bool]) -> nn.Module | None:
        """The module of a kind that alone takes what `call` gives, if both run once."""
        if self.uses[call.gave] != 1 or self.times[call.module] != 1:
            return None
        later = self.calls[self.calls.index(call) :]  # one before may have taken a tensor of the same identity
        takers = [c.module for c in later if c.took == call.gave and kind(c.module)]
        return takers[0] if len(takers) == 1 and self.times[takers[0]] == 1 else None


def _key(tensor: Tensor) -> _Key:
    return id(tensor), tensor._version


def _watch(model: AdaptedModel, stop: int, few: Tensor) -> _Watch:
    watch = _Watch()
    hooks = []
    for module in model.trunk.modules():
        if isinstance(module, _LINEAR_MAPS) or _is_norm(module) or type(module) in _ACTIVATIONS:
            hooks += [module.register_forward_pre_hook(watch.before), module.register_forward_hook(watch.after)]
    one = few[:1, :1] if model.bag else few[:1]
    try:
        # not in inference mode, in which tensors have no versions
        with torch.inference_mode(False), torch.no_grad():
            one = one.clone()
            with watch:
                model.prefix(one, stop)
    finally:
        for hook in hooks:
            hook.remove()
    return watch


# Batch norms into the layer before.


def _fold_norms(model: AdaptedModel, stop: int, few: Tensor) -> int:
    """Fold what can be, in place; how many."""
    watch = _watch(model, stop, few)
    folded = 0
    for call in [c for c in watch.calls if isinstance(c.module, _LINEAR_MAPS)]:
        norm: Any = watch.follower(call, _is_norm)
        matrix = not isinstance(call.module, nn.Linear) or call.axes == 2  # else the norm's channels are another axis
        if norm is None or not matrix or len(norm.running_mean) != _channels(call.module):
            continue
        _absorb(call.module, norm)
        _replace(model, norm, getattr(norm, "act", None) or nn.Identity())
        folded += 1
    return folded


def _is_norm(module: nn.Module) -> bool:
    """Whether it has a batch norm's running statistics, be it torch's, a frozen one or one with an activation."""
    statistics = (getattr(module, "running_mean", None), getattr(module, "running_var", None))
    return all(isinstance(s, Tensor) for s in statistics) and hasattr(module, "eps")


def _channels(layer: Any) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def _absorb(layer: Any, norm: Any) -> None:
    """Give `layer` weights of its own that do what `norm` did behind it: norm(Wx + b) = sWx + s(b - mean) + shift."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    bias = -norm.running_mean.double() * scale
    if norm.bias is not None:
        bias = bias + norm.bias.detach().double()
    if layer.bias is not None:
        bias = bias + layer.bias.detach().double() * scale
    weight = layer.weight.detach().double()
    if isinstance(layer, _TRANSPOSED):  # (in, out / groups, ...), the inputs of a group side by side
        grouped = weight.unflatten(0, (layer.groups, -1))
        weight = (grouped * scale.reshape(layer.groups, 1, -1, *[1] * (weight.ndim - 2))).flatten(0, 1)
    else:
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    layout = torch.channels_last if weight.ndim == 4 else torch.contiguous_format
    weight = weight.to(layer.weight.dtype).contiguous(memory_format=layout)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(bias.to(layer.weight.dtype), requires_grad=False)


def _replace(model: AdaptedModel, old: nn.Module, new: nn.Module) -> None:
    for parent in list(model.trunk.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


# Convolutions as oneDNN likes them.


class _Packed(nn.Module):
    """A convolution in oneDNN's own layout, with the activation behind it.

    What EfficientNet-Lite0 spends on activations and uneven padding after folding, each another pass over memory, is
    a third of its time.

    Args:
        conv: to be replaced.
        margins: how it pads.
        activation: to be done at once.
        size: of the tensor that it will be given.
        dtype: that it computes in.
    """

    def __init__(
        self, conv: Any, margins: _Margins, activation: nn.Module | None, *, size: list[int], dtype: torch.dtype
    ) -> None:
        super().__init__()
        # a convolution pads evenly; where more is needed at the end, zeros in the kernel do the same
        (above, below), (left, right) = margins
        weight = F.pad(conv.weight.detach(), (right - left, 0, below - above, 0)).to(dtype)
        weight = weight.contiguous(memory_format=torch.channels_last)
        self.geometry = ([below, right], list(conv.stride), list(conv.dilation), conv.groups)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry, size)
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.then, self.numbers = _ACTIVATIONS[type(activation)] if activation is not None else ("none", [])

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to the same."""
        done: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.geometry, self.then, self.numbers, ""
        )
        return done


def _pack_convolutions(model: AdaptedModel, base: _Copy, few: Tensor, images: int, dtype: torch.dtype) -> None:
    """Replace what plain convolutions `model` has, which is a twin of `base`."""
    watch = _watch(base.model, base.stop, few)
    twins = dict(zip(base.model.trunk.modules(), model.trunk.modules(), strict=True))
    for call in watch.calls:
        if call.margins is None or watch.times[call.module] != 1:
            continue
        activation = watch.follower(call, lambda module: type(module) in _ACTIVATIONS)
        size = [images, *call.size[1:]]
        _replace(model, twins[call.module], _fast(call.module, call.margins, activation, size=size, dtype=dtype))
        if activation is not None:
            _replace(model, twins[activation], nn.Identity())


def _fast(
    conv: Any, margins: _Margins, activation: nn.Module | None, *, size: list[int], dtype: torch.dtype
) -> nn.Module:
    """What takes the place of a convolution and of the activation behind it."""
    alike = {"stride": conv.stride, "margins": margins, "dilation": conv.dilation, "groups": conv.groups}
    if dtype == torch.float32 and winograd.suits(conv.weight, **alike):
        return winograd.Winograd(conv, activation)
    return _Packed(conv, margins, activation, size=size, dtype=dtype)


def _margins(conv: nn.Conv2d, x: Tensor, result: Tensor) -> _Margins | None:
    """The zeros that make `conv` a plain convolution of `x`; None where it is something else.

    A subclass may pad by the size of its input, standardise its weights or anything: its result is compared.
    """
    if conv.padding_mode != "zeros":
        return None
    if type(conv) is nn.Conv2d and not isinstance(conv.padding, str):
        return tuple((p, p) for p in conv.padding)  # type: ignore[return-value]
    for margins in _candidates(conv, x.shape[2:]):
        (above, below), (left, right) = margins
        padded = F.pad(x, (left, right, above, below))
        plain = F.conv2d(padded, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)
        even = (above, left) == (below, right)
        if _difference(plain, result) <= TOLERANCE and (even or max(conv.dilation) == 1):
            return margins
    return None


def _candidates(conv: nn.Conv2d, size: Any) -> list[_Margins]:
    """As its attribute gives, and as TensorFlow pads: to ceil(size / stride), the odd one at the end."""
    totals = [
        max((-(-length // stride) - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
        for length, kernel, stride, dilation in zip(size, conv.kernel_size, conv.stride, conv.dilation, strict=True)
    ]
    rows, columns = ((total // 2, total - total // 2) for total in totals)
    found: list[_Margins] = [(rows, columns)]
    if not isinstance(conv.padding, str):
        found.append(((conv.padding[0],) * 2, (conv.padding[1],) * 2))
    return found
