"""Classes that exclude each other, behind the contract of a problem."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zooft
from zooft.errors import ConfigError
from zooft.problems.classification.losses import sums_of


def test_an_activation_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="'softmx'; there are softmax and sigmoid"):
        zooft.classification(activation="softmx")  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 1.25])], ids=["plain", "weighted"])
def test_halves_of_a_batch_add_up_to_torch_s_mean(weight: torch.Tensor | None) -> None:
    rng = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(7, 3, generator=rng), torch.randint(0, 3, (7,), generator=rng)
    loss = sums_of(nn.CrossEntropyLoss(weight=weight))
    halves = [loss({"logits": logits[rows]}, targets[rows]) for rows in (slice(0, 4), slice(4, 7))]
    found = sum(half.total for half in halves) / sum(half.weight for half in halves)
    torch.testing.assert_close(found, F.cross_entropy(logits, targets, weight))


def test_one_batch_is_torch_s_mean_to_the_bit() -> None:
    rng = torch.Generator().manual_seed(1)
    logits, targets = torch.randn(33, 5, generator=rng), torch.randint(0, 5, (33,), generator=rng)
    weight = torch.rand(5, generator=rng) + 0.5
    for given in (None, weight):
        found = sums_of(nn.CrossEntropyLoss(weight=given))({"logits": logits}, targets)
        assert torch.equal(found.mean, F.cross_entropy(logits, targets, given))


def test_a_loss_that_is_a_mean_stays_one() -> None:
    loss = sums_of(nn.MultiMarginLoss())
    logits, targets = torch.zeros(2, 3), torch.tensor([0, 1])
    assert torch.equal(loss({"logits": logits}, targets), nn.MultiMarginLoss()(logits, targets))


@pytest.mark.parametrize(("target", "right"), [(0, True), (np.int64(2), True), (3, False), (-1, False), (1.0, False)])
def test_targets_are_indices_into_the_classes(target: object, right: bool) -> None:
    check = zooft.classification().training.check
    assert bool(check(target, zooft.class_labels(["a", "b", "c"]))) is not right
