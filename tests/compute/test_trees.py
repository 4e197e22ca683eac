"""Batches that are trees of tensors are cut and joined as torch does with each tensor, and lists item by item."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from zooft.compute import trees


def batch(size: int) -> dict[str, Any]:
    """A tensor, one within another mapping, and a list with an item a sample."""
    generator = torch.Generator().manual_seed(size)
    return {
        "logits": torch.randn(size, 3, generator=generator),
        "more": {"value": torch.randn(size, generator=generator)},
        "boxes": [torch.full((number, 4), float(number)) for number in range(size)],
    }


@pytest.mark.parametrize(("size", "parts"), [(7, 3), (8, 4), (5, 5), (4, 6), (1, 1), (10, 4)])
def test_chunks_are_torch_s_and_joined_they_are_the_whole(size: int, parts: int) -> None:
    whole = batch(size)
    cut = trees.chunks(whole, parts)
    expected = torch.chunk(whole["logits"], parts)
    assert len(cut) == len(expected)
    begin = 0
    for part, logits, value in zip(cut, expected, torch.chunk(whole["more"]["value"], parts), strict=True):
        assert part["logits"].equal(logits)
        assert part["more"]["value"].equal(value)
        assert [len(boxes) for boxes in part["boxes"]] == list(range(begin, begin + len(logits)))
        assert trees.length(part) == len(logits)
        begin += len(logits)
    again = trees.tree_cat(cut)
    assert again["logits"].equal(whole["logits"])
    assert again["more"]["value"].equal(whole["more"]["value"])
    assert all(a.equal(b) for a, b in zip(again["boxes"], whole["boxes"], strict=True))


@pytest.mark.parametrize("index", [slice(1, 4), torch.tensor([4, 0, 0]), [3, 1]])
def test_rows_are_those_that_indexing_gives(index: Any) -> None:
    whole = batch(6)
    some = trees.rows(whole, index)
    assert some["logits"].equal(whole["logits"][index])
    positions = torch.arange(6)[index].tolist()
    assert [len(boxes) for boxes in some["boxes"]] == positions


def test_every_tensor_is_mapped_once_and_all_else_stays() -> None:
    seen: list[Tensor] = []

    def doubled(tensor: Tensor) -> Tensor:
        seen.append(tensor)
        return tensor * 2

    given = {"a": torch.ones(2), "b": [torch.ones(1), "text"], "c": (torch.ones(3), None)}
    made = trees.tree_map(doubled, given)
    assert [len(tensor) for tensor in seen] == [2, 1, 3]
    assert made["a"].tolist() == [2, 2]
    assert made["b"][1] == "text"
    assert made["c"][1] is None
    assert given["a"].tolist() == [1, 1]  # type: ignore[union-attr]
    assert [id(tensor) for tensor in trees.tensors(given)] == [id(tensor) for tensor in seen]


def test_floats_are_float32_and_a_move_goes_to_every_leaf() -> None:
    given = {"a": torch.ones(2, dtype=torch.bfloat16), "b": [torch.ones(1, dtype=torch.float64)]}
    assert {tensor.dtype for tensor in trees.tensors(trees.floats(given))} == {torch.float32}
    assert {tensor.device.type for tensor in trees.tensors(trees.to_device(given, torch.device("meta")))} == {"meta"}


def test_the_size_is_what_numpy_and_torch_say() -> None:
    whole = batch(4)
    expected = whole["logits"].nbytes + whole["more"]["value"].nbytes + sum(each.nbytes for each in whole["boxes"])
    assert trees.size(whole) == expected
    assert trees.size({"mask": trees.arrays(whole)["logits"], "count": 3}) == whole["logits"].nbytes + 8
    assert trees.size({"mask": whole["logits"], "name": object()}) == float("inf")
