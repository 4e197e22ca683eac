"""Samples decoded once, for random views that are made anew in every epoch: small enough to lie in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from zooft.contracts import unseen
from zooft.features.loading import data_loader
from zooft.storage.sequences import spill

if TYPE_CHECKING:
    from zooft.contracts import Arrays
    from zooft.features.cache import FeatureCache
    from zooft.features.dataset import SampleDataset
    from zooft.storage.cache import MemoryShelf, Shelf


def with_small_images(train: SampleDataset, feature_cache: FeatureCache) -> SampleDataset:
    """Random views made of arrays that are decoded once and lie in the store, as far as they fit."""
    if train.augment is None:
        return train
    names = feature_cache.names(train.samples)
    shelf = feature_cache.store.shelf({**feature_cache.of, "what": "small_pictures"})
    for share in (
        feature_cache.share,
        range,
    ):  # what another process has stored where this one can't see it is decoded here
        absent = shelf.missing(spill(part_of(name, "parts") for name in names))
        feature_cache.agree(True)
        _decode_absent(train, names, [absent[i] for i in share(len(absent))], shelf, feature_cache)
        feature_cache.agree(True)
    return train.with_view(0, _SmallImages(shelf, names))


def _decode_absent(
    train: SampleDataset,
    names: Sequence[str],
    wanted: Sequence[int],
    shelf: Shelf | MemoryShelf,
    feature_cache: FeatureCache,
) -> None:
    advance = feature_cache.computing("decoding, once", len(wanted)) if wanted else unseen("", 0)
    raw = data_loader(_Raw(train, wanted), feature_cache.workers, batch_size=None, collate_fn=collate_nothing)
    for index, arrays in zip(wanted, raw, strict=True):
        if sum(array.nbytes for array in arrays) * len(names) > feature_cache.store.most_bytes // 2:
            break
        feature_cache.check_unchanged([train.samples[index]])
        shelf.put([part_of(names[index], part) for part in range(len(arrays))], arrays)
        shelf.put([part_of(names[index], "parts")], [np.array([len(arrays)])])
        if part_of(names[index], "parts") not in shelf:  # the disk can't: every epoch decodes for itself
            break
        advance(1)
    shelf.flush()


@dataclass(frozen=True, slots=True)
class _Raw(Dataset[Any]):
    views: SampleDataset
    positions: Sequence[int]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Arrays:
        return self.views.decode_small(self.views.samples[self.positions[index]])


@dataclass(frozen=True, slots=True)
class _SmallImages:
    """Samples' arrays from the store."""

    shelf: Shelf | MemoryShelf
    names: Sequence[str]

    def __call__(self, index: int) -> Arrays | None:
        """A sample's, by its position; None where the store hasn't them."""
        name = self.names[index]
        count = self.shelf.get(part_of(name, "parts"))
        parts = [self.shelf.get(part_of(name, part)) for part in range(0 if count is None else int(count[0]))]
        arrays = [np.array(part) for part in parts if part is not None]  # copied: the mapping is read-only
        return tuple(arrays) if arrays and len(arrays) == len(parts) else None


def part_of(name: str, part: int | str) -> str:
    """What one of several things that belong to a sample is found by."""
    return hashlib.sha256(f"{name}/{part}".encode()).hexdigest()


def collate_nothing(item: Any) -> Any:
    """Arrays as they are, not as tensors."""
    return item
