"""Models built without drawing their random initial values, for weights that are loaded at once, or without any values.

Drawing them takes most of the time that a transformer takes to build: 1.7 of 2.2 seconds for ViT-B.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_DRAWING = {
    nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_,
    Tensor.uniform_, Tensor.normal_, Tensor.erfinv_,
}  # fmt: skip # a line a module
"""What fills a tensor with random values; `erfinv_` makes normal values of uniform ones, and takes longest."""


def skip_init(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` gives, with zeros for its random initial values, where all of them are in its state dict.

    Where others are random too, such as buffers that aren't saved, they are drawn as ever.
    """
    mode = _Undrawn()
    try:
        with mode:
            module = build()
    except Exception:  # the zoo's code on values that it doesn't expect; its result for proper ones counts
        return build()
    loadable = {_memory(tensor) for tensor in module.state_dict().values()}
    fine = all(left.expired() or left in loadable for left in mode.left)  # type: ignore[no-untyped-call]
    return module if fine else build()


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` gives, on the meta device: names and shapes, without memory for the tensors."""
    from accelerate import init_empty_weights

    try:
        with torch.device("meta"):
            return build()
    except (
        Exception
    ):  # the zoo's code may compute with values while it builds, such as widths: only weights have none then
        with init_empty_weights(include_buffers=False):
            module = build()
        return module.to("meta")


class _Undrawn(TorchFunctionMode):
    """While it is entered, tensors to be filled with random values are filled with zeros.

    Attributes:
        left: the memory of those tensors, which may be gone when the model is built.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left: list[StorageWeakRef] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The tensor, or `func` itself."""
        if func not in _DRAWING:
            return func(*args, **(kwargs or {}))
        tensor: Tensor = args[0] if args else (kwargs or {})["tensor"]
        self.left.append(_memory(tensor))
        if func is not Tensor.erfinv_:  # which works on what another has filled
            tensor.detach().zero_()
        return tensor


def _memory(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
