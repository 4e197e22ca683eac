"""What leaves the frozen prefix, computed once and not every epoch.

Owns the data sets of a run: samples read and brought to the network's input, and, where nothing random
happens before the first learning stage, that stage's inputs kept in memory.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from zooft import samples

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from zooft.contracts import Arrays, Sample, Task
    from zooft.model import AdaptedModel

Memory = dict[tuple[int, str], Tensor]
"""(number of the first learning stage, sample's id) to that stage's input."""
MEMORY_LIMIT = 2 * 2**30
"""Bytes of features that are kept; above it they are computed again in every epoch."""


class Views(Dataset[tuple[Tensor, int]]):
    """Samples as the network's input.

    Args:
        members: in order.
        read: a sample to its arrays in native units.
        preprocess: for the plain view.
        augment: for a random view instead; None for the plain one.
        seed: of the random views.
    """

    def __init__(
        self,
        members: Sequence[Sample],
        *,
        read: Callable[[Sample], Arrays],
        preprocess: nn.Module,
        augment: Callable[..., Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        self.samples, self.read, self.preprocess = members, read, preprocess
        self.augment, self.seed, self.epoch = augment, seed, 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The view of one sample, ``(C, H, W)`` float32 or ``(Z, C, H, W)`` for a bag, and its target."""
        sample = self.samples[index]
        arrays = self.read(sample)
        if self.augment is None:
            with torch.no_grad():
                return self.preprocess(*(torch.from_numpy(array)[None] for array in arrays))[0], sample.target
        with torch.random.fork_rng(devices=[]):
            # seeded by sample and epoch, so that the view doesn't depend on the number of workers
            torch.manual_seed(hash((self.seed, self.epoch, index)) % 2**63)
            return self.augment(*arrays), sample.target


def reader(task: Task, options: Any) -> Callable[[Sample], Arrays]:
    """A task's `read` with its options, fit to be sent to a loader process."""
    return partial(samples.read, task, options)


def precompute(
    model: AdaptedModel,
    views: Views,
    *,
    stop: int,
    batch_size: int,
    workers: int,
    device: torch.device,
    advance: Callable[[int], None],
    memory: Memory | None = None,
) -> TensorDataset | None:
    """What leaves stage `stop` - 1 for every sample, in float32; None where it wouldn't fit.

    Runs in evaluation mode and without autograd: the prefix is frozen. What `memory` has isn't computed again.
    """
    model.eval()
    kept: Memory = {} if memory is None else memory
    missing = [index for index, sample in enumerate(views.samples) if (stop, sample.id) not in kept]
    if len(missing) < len(views):
        advance(len(views) - len(missing))
    done = 0
    for x, y in loader(Subset(views, missing), batch_size=batch_size, workers=workers):
        with torch.inference_mode():
            features = model.prefix(place(x, device), stop).cpu().contiguous()
        if not done and features[0].nbytes * len(views) > MEMORY_LIMIT:
            return None
        for index, row in zip(missing[done : done + len(y)], features, strict=True):
            kept[stop, views.samples[index].id] = row
        done += len(y)
        advance(len(y))
    rows = [kept[stop, sample.id] for sample in views.samples]
    return TensorDataset(torch.stack(rows), torch.tensor([sample.target for sample in views.samples]))


def place(x: Tensor, device: torch.device) -> Tensor:
    """On the device, images in the layout that convolutions run fastest in."""
    layout = torch.channels_last if x.ndim == 4 else torch.preserve_format
    return x.to(device, memory_format=layout)


def loader(data: Dataset[Any], *, batch_size: int, workers: int, shuffle_seed: int | None = None) -> DataLoader[Any]:
    """Batches in order, or shuffled from a seed."""
    generator = None if shuffle_seed is None else torch.Generator().manual_seed(shuffle_seed)
    return DataLoader(
        data, batch_size=batch_size, shuffle=generator is not None, generator=generator,
        num_workers=workers, persistent_workers=False,
    )  # fmt: skip
