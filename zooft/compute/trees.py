"""Batches that are tensors, or mappings and lists of them: a head's named outputs, and targets of any shape.

A list holds one item a sample, such as the boxes of each image; everything else has the batch axis first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def tree_map(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """The same tree, each tensor replaced by what `function` makes of it."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {name: tree_map(function, value) for name, value in tree.items()}
    return [tree_map(function, value) for value in tree] if isinstance(tree, list | tuple) else tree


def length(tree: Any) -> int:
    """Samples of a batch."""
    if isinstance(tree, Mapping):
        return length(next(iter(tree.values())))
    return len(tree)


def rows(tree: Any, index: Any) -> Any:
    """Some samples: by a slice, or by positions; one sample by its number, without the batch axis."""
    if isinstance(tree, list | tuple):
        if isinstance(index, int):
            return tree[index]
        return tree[index] if isinstance(index, slice) else [tree[int(i)] for i in index]
    if isinstance(tree, Mapping):
        return {name: rows(value, index) for name, value in tree.items()}
    return tree[index]


def chunks(tree: Any, parts: int) -> list[Any]:
    """A batch in `parts` parts, as `torch.chunk` cuts."""
    edges = [len(part) for part in torch.arange(length(tree)).chunk(parts)]
    begins = [sum(edges[:number]) for number in range(len(edges))]
    return [rows(tree, slice(begin, begin + size)) for begin, size in zip(begins, edges, strict=True)]


def tree_cat(trees: Sequence[Any]) -> Any:
    """Several batches as one."""
    first = trees[0]
    if isinstance(first, Mapping):
        return {name: tree_cat([tree[name] for tree in trees]) for name in first}
    if isinstance(first, list | tuple):
        return [item for tree in trees for item in tree]
    return torch.cat(list(trees))


def to_device(tree: Any, device: torch.device) -> Any:
    """A batch on a device."""
    return tree_map(lambda tensor: tensor.to(device), tree)


def floats(tree: Any) -> Any:
    """A batch in float32."""
    return tree_map(lambda tensor: tensor.float(), tree)


def tensors(tree: Any) -> list[Tensor]:
    """All tensors of a batch."""
    found: list[Tensor] = []

    def collect(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    tree_map(collect, tree)
    return found


def size(tree: Any) -> float:
    """Bytes of its tensors, arrays and numbers; infinite with anything else in it, whose size isn't known."""
    if isinstance(tree, Mapping):
        return sum(size(value) for value in tree.values())
    if isinstance(tree, list | tuple):
        return sum(size(value) for value in tree)
    return float(getattr(tree, "nbytes", 8 if isinstance(tree, int | float) else math.inf))


def arrays(tree: Any) -> Any:
    """The same tree of numpy's arrays."""
    if isinstance(tree, Tensor):
        return tree.numpy()
    if isinstance(tree, Mapping):
        return {name: arrays(value) for name, value in tree.items()}
    return [arrays(value) for value in tree] if isinstance(tree, list | tuple) else tree
