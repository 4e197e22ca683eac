"""The losses: embeddings near for pictures of one identity and far for others, by pytorch-metric-learning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from zooft_retrieval.identities import number_of
from zooft_retrieval.options import RetrievalOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EMBEDDING = "embedding"
_MOST_VALIDATED = 2048
"""Validation samples whose pairs are compared for the validation loss; memory grows with their square."""


class MetricLoss(nn.Module):
    """``(outputs, targets) -> scalar``; of identities that aren't trained on, a loss of pairs.

    Args:
        targets: of all training samples.
        options: the task's.
    """

    def __init__(self, targets: Sequence[Any], options: RetrievalOptions) -> None:
        super().__init__()
        from pytorch_metric_learning import losses, miners

        known = sorted({number_of(target.name) for target in targets})
        self.register_buffer("known", torch.tensor(known, dtype=torch.int64), persistent=False)
        self.known: Tensor
        self.validation = losses.MultiSimilarityLoss()
        self.miner: nn.Module | None = None
        self.training_loss: nn.Module
        if options.retrieval_loss == "arcface":
            self.training_loss = losses.ArcFaceLoss(len(known), options.embedding_size)
        else:
            self.training_loss = losses.MultiSimilarityLoss()
            self.miner = miners.MultiSimilarityMiner()

    def forward(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        """The mean loss of a batch: embeddings ``(N, D)`` and numbers of identities ``(N,)``."""
        embeddings = outputs[EMBEDDING]
        if not self.training:
            some = slice(0, _MOST_VALIDATED)
            value: Tensor = self.validation(embeddings[some], targets[some])
            return value
        classes = torch.searchsorted(self.known, targets)
        mined = None if self.miner is None else self.miner(embeddings, classes)
        found: Tensor = self.training_loss(embeddings, classes, mined)
        return found


def order(targets: Sequence[Any], _options: RetrievalOptions, size: int, seed: int) -> list[int]:
    """Samples in an epoch's order, several of an identity a batch, by pytorch-metric-learning's MPerClassSampler.

    Identities are drawn alike often, so one of few pictures shows them more often; over the epochs each picture has its
    turn.

    Args:
        targets: of all training samples.
        size: of a batch.
        seed: of the choice.
    """
    from pytorch_metric_learning.samplers import MPerClassSampler
    from pytorch_metric_learning.utils import common_functions

    numbers = np.array([number_of(target.name) for target in targets])
    _, classes, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    each = _of_each(size, int((counts > 1).sum()))
    random = np.random.RandomState(seed % 2**32)
    if each is None:
        permuted: list[int] = random.permutation(len(targets)).tolist()
        return permuted
    rows = np.flatnonzero((counts > 1)[classes])  # of a single picture there is no pair
    length = -(-len(targets) // size) * size
    before = common_functions.NUMPY_RANDOM
    common_functions.NUMPY_RANDOM = random
    try:
        drawn = list(MPerClassSampler(classes[rows], each, batch_size=size, length_before_new_iter=length))
    finally:
        common_functions.NUMPY_RANDOM = before
    found: list[int] = rows[drawn][: len(targets)].tolist()
    return found


def _of_each(size: int, identities: int) -> int | None:
    """How many pictures of each identity a batch has: four, or as many more as fill it with two at least.

    None where none fit.
    """
    some = range(min(4, size), size // 2 + 1)
    return next((each for each in some if size % each == 0 and each * identities >= size), None)
