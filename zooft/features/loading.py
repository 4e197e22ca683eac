"""Batches out of data sets, also by loader processes, and where they are placed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from zooft.errors import ZooftError
from zooft.features.dataset import CachedFeatures

if TYPE_CHECKING:
    from torch import Tensor


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """On the device, images in the layout that convolutions run fastest in."""
    layout = torch.channels_last if x.ndim == 4 else torch.preserve_format
    return x.to(device, memory_format=layout)


def loader(
    data: Dataset[Any],
    *,
    workers: int,
    batch_size: int = 1,
    batches: Iterable[list[int]] | None = None,
) -> Iterable[Any]:
    """Batches in order, or those that are listed.

    Raises:
        ZooftError: while iterating: as the data set raises it, also where a loader process has read.
    """
    read = data.dataset if isinstance(data, Subset) else data
    if isinstance(getattr(read, "own", read), CachedFeatures):  # also with a teacher's answers beside them
        workers = 0  # picking rows costs less than sending them
    order: dict[str, Any] = {"batch_size": batch_size} if batches is None else {"batch_sampler": batches}
    return data_loader(data, workers, collate_fn=collate, **order)


def data_loader(data: Dataset[Any], workers: int, **more: Any) -> Iterable[Any]:
    """As torch's `DataLoader`, which takes `more`; loader processes pass on what they can't read."""
    if not workers:
        return DataLoader(data, **more)
    return _Loader(DataLoader(_Carrying(data), num_workers=workers, **more))


@dataclass(frozen=True, slots=True)
class _Refused:
    """What a loader process couldn't read.

    As an exception, torch would send its traceback in its place, paths and all.
    """

    error: ZooftError


@dataclass(frozen=True, slots=True)
class _Carrying(Dataset[Any]):
    """A data set in a loader process."""

    data: Any

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.data[index]
        except ZooftError as error:
            return _Refused(error)

    def __getitems__(self, indices: list[int]) -> Any:
        many = getattr(self.data, "__getitems__", None)
        try:
            return many(indices) if many else [self.data[index] for index in indices]
        except ZooftError as error:
            return _Refused(error)


@dataclass(frozen=True, slots=True)
class _Loader:
    """What loader processes read."""

    loaded: DataLoader[Any]

    def __iter__(self) -> Iterator[Any]:
        for item in self.loaded:
            if isinstance(item, _Refused):
                raise item.error
            yield item


def collate(items: Any) -> Any:
    """Cached features come as a batch; samples are stacked."""
    return items if isinstance(items, tuple | _Refused) else default_collate(items)
