"""Stages of a model whose ``forward_features`` runs its parts one after the other, found by watching one image.

That is so where each part takes the very tensor that the one before it gave, unchanged, and nothing else. Tensors are
compared by identity and never by value, so that the same is found on the meta device and whatever the weights are.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn


@dataclass(slots=True)
class Watch:
    """What a module runs while an image passes.

    Attributes:
        last: what the newest of the outermost parts gave; at first the image.
        version: of its content, which work in place counts up.
        parts: names of the outermost parts, in order.
        all: of every module that ran.
        broken: whether something happened between the parts.
        depth: of the modules that run at this moment.
    """

    last: Any
    version: int = 0
    parts: list[str] = field(default_factory=list)
    all: set[str] = field(default_factory=set)
    broken: bool = False
    depth: int = 0

    def enter(self, name: str, _module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A part begins; a hook of torch's."""
        self.all.add(name)
        if self.depth == 0:
            self.parts.append(name)
            self.broken |= len(given) != 1 or bool(named) or not self.holds(given[0])
        self.depth += 1

    def leave(self, _module: nn.Module, _given: tuple[Any, ...], out: Any) -> None:
        """A part ends; a hook of torch's."""
        self.depth -= 1
        if self.depth == 0:
            self.last, self.version = out, getattr(out, "_version", 0)
            self.broken |= not hasattr(out, "shape")  # such as several maps, which no stage can hand on

    def holds(self, x: Any) -> bool:
        """Whether `x` is what the newest part gave, unchanged."""
        return x is self.last and getattr(x, "_version", 0) == self.version


def watch(module: nn.Module, run: Callable[[Any], Any], x: Any) -> tuple[Any, Watch]:
    """What `run` makes of `x`, and what it ran of a module on the way."""
    import torch

    seen = Watch(x)
    with ExitStack() as hooks, torch.no_grad():
        for name, part in module.named_modules():
            if name:
                hooks.callback(part.register_forward_pre_hook(partial(seen.enter, name), with_kwargs=True).remove)
                hooks.callback(part.register_forward_hook(seen.leave).remove)
        out = run(x)
    seen.broken |= not seen.holds(out)
    seen.last = None  # no tensor outlives the pass
    return out, seen


def stages(module: nn.Module, watch: Watch) -> dict[str, tuple[str, ...]]:
    """Names of stages to the parts that each runs, shallow to deep; none where the pass wasn't a chain.

    A sequence that holds most of the tensors is taken apart. Lone layers, which hold no others, make no stages of their
    own: they end the stage before, unless that ends with a pooling.
    """
    from torch import nn

    parts = [] if watch.broken else _split_largest(module, watch.parts)
    if len(set(parts)) < len(parts):
        return {}
    grouped: list[list[str]] = []
    for part in parts:
        alone = not any("." in name for name in module.get_submodule(part).state_dict())
        if alone and grouped and not isinstance(module.get_submodule(grouped[-1][-1]), nn.MaxPool2d):
            grouped[-1].append(part)
        else:
            grouped.append([part])
    named = {_short(group[0]): tuple(group) for group in grouped}
    return named if len(named) == len(grouped) > 1 else {}


def _split_largest(module: nn.Module, parts: Sequence[str]) -> list[str]:
    from torch import nn

    sizes = [len(module.get_submodule(part).state_dict()) for part in parts]
    largest = max(range(len(parts)), key=sizes.__getitem__)
    within = module.get_submodule(parts[largest])
    numbered = parts[largest][-1].isdigit()  # as stages and blocks are
    if numbered or 2 * sizes[largest] <= sum(sizes) or type(within).forward is not nn.Sequential.forward:
        return list(parts)
    below = [f"{parts[largest]}.{name}" for name, _ in within.named_children()]
    return _split_largest(module, [*parts[:largest], *below, *parts[largest + 1 :]])


def _short(part: str) -> str:
    """The last name, or the last two where that is a number: ``stages.0`` is ``stages0``."""
    outer, _, last = part.rpartition(".")
    return f"{outer.rpartition('.')[2]}{last}" if last.isdigit() else last


def run_parts(parts: Sequence[str], module: nn.Module, x: Tensor) -> Tensor:
    """A stage's forward: these parts of a module, one after the other."""
    for part in parts:
        x = module.get_submodule(part)(x)
    return x
