"""Samples divided among the processes of a run, and their results gathered."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, distributed

from zooft.compute.distributed.collectives import all_gather_object

if TYPE_CHECKING:
    from accelerate import Accelerator

PIECE = 64 * 2**20
"""Bytes that each process sends at a time where much is gathered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Index lists of one epoch: this process's part of every global batch, for a loader's ``batch_sampler``.

    The order is a permutation by `seed` and `epoch` alone. Every global batch is cut into contiguous parts whose
    lengths differ by one at most; nothing is repeated and nothing left out. A last sample that would be a batch by
    itself, which no BatchNorm can take its statistics from, goes into the batch before it. Where a batch has fewer
    samples than there are processes, those at the end have none of their own: they get a sample that isn't theirs, so
    that the step runs everywhere, and `counts` is 0 for them.

    Attributes:
        samples: how many there are.
        size: of a global batch; the last one may be smaller, or larger by one.
        seed: of the order.
        epoch: from 0.
        process: this one's number.
        processes: how many there are.
        order: of the epoch's samples, where it isn't the permutation.
    """

    samples: int
    size: int
    seed: int
    epoch: int = 0
    process: int = 0
    processes: int = 1
    order: Sequence[int] | None = None

    def __len__(self) -> int:
        return steps(self.samples, self.size)

    def __iter__(self) -> Iterator[list[int]]:
        """Each step's samples."""
        random = torch.Generator().manual_seed(seed_of(self.seed, self.epoch))
        order = torch.randperm(self.samples, generator=random) if self.order is None else torch.tensor(self.order)
        for step, batch in enumerate(torch.split(order, [self._length(step) for step in range(len(self))])):
            counts = self.counts(step)
            begin = sum(counts[: self.process])
            own: list[int] = batch[begin : begin + counts[self.process]].tolist()
            yield own or [int(batch[0])]

    def counts(self, step: int) -> tuple[int, ...]:
        """How many samples of the global batch of `step` each process has."""
        return tuple(len(part) for part in _parts(self._length(step), self.processes))

    def _length(self, step: int) -> int:
        return self.size if step < len(self) - 1 else self.samples - step * self.size


def steps(samples: int, size: int) -> int:
    """Batches of an epoch.

    None has a single sample, except where all have or there is no other batch.
    """
    full, rest = divmod(samples, size)
    return full + (rest > 1 or (rest == 1 and full == 0))


def batches(
    accelerator: Accelerator, *, samples: int, size: int, seed: int, epoch: int, order: Sequence[int] | None = None
) -> Batches:
    """This process's batches of an epoch."""
    return Batches(
        samples=samples,
        size=size,
        seed=seed,
        epoch=epoch,
        order=order,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )


def seed_of(*numbers: int) -> int:
    """One seed from several, such as seed, epoch and process: tuples with the same sum give different ones."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def shard(n: int, accelerator: Accelerator) -> range:
    """The samples, of `n`, that this process computes."""
    number: int = accelerator.process_index
    return _parts(n, accelerator.num_processes)[number]


def gather(parts: Sequence[Any], order: Sequence[int], accelerator: Accelerator) -> Any:
    """Rows that the processes have computed, in the samples' order, on the CPU in every process.

    Args:
        parts: this process's rows, ``(n, …)`` each, or mappings of such, of mappings too; none at all where it had no
            samples.
        order: which sample each of these rows is of; over all processes every number from 0 once.
        accelerator: of this process.
    """
    names = list(parts[0]) if len(parts) and isinstance(parts[0], Mapping) else None
    if accelerator.num_processes > 1:  # a process without samples doesn't know the names
        names = next((theirs for theirs in all_gather_object(names, accelerator) if theirs is not None), None)
    if names is None:
        return _gather_tensor(parts, order, accelerator)
    return {name: gather([part[name] for part in parts], order, accelerator) for name in names}


def _gather_tensor(parts: Sequence[Tensor], order: Sequence[int], accelerator: Accelerator) -> Tensor:
    places = torch.tensor(list(order), dtype=torch.long)
    own = torch.cat([part.cpu() for part in parts]) if len(parts) else None
    if accelerator.num_processes == 1 and own is not None:
        return _reorder(own, places)
    others = all_gather_object((places, None if own is None else (own.dtype, own.shape[1:])), accelerator)
    total = sum(len(theirs) for theirs, _ in others)
    dtype, shape = next(kind for _, kind in others if kind is not None)
    result = torch.empty((total, *shape), dtype=dtype)
    own = own if own is not None else torch.empty((0, *shape), dtype=dtype)
    longest = max(len(theirs) for theirs, _ in others)
    step = min(longest, max(1, PIECE // max(1, result[:1].nbytes)))
    for begin in range(0, longest, step):
        pieces = all_gather_rows(own[begin : begin + step], step)
        for piece, (theirs, _) in zip(pieces, others, strict=True):
            into = theirs[begin : begin + step]
            result[into] = piece[: len(into)]
    once = torch.bincount(torch.cat([theirs for theirs, _ in others]), minlength=total)
    assert bool((once == 1).all()), "every sample belongs to one process"  # noqa: S101 -- our own invariant
    return result


def _parts(n: int, number: int) -> list[range]:
    """`n` things cut into `number` contiguous parts, larger ones first."""
    short, longer = divmod(n, number)
    edges = [index * short + min(index, longer) for index in range(number + 1)]
    return [range(begin, end) for begin, end in itertools.pairwise(edges)]


def all_gather_rows(own: Tensor, length: int) -> list[Tensor]:
    """Each process's rows, padded to `length`; the padding's content is undefined."""
    padded = own.new_zeros((length, *own.shape[1:]))
    padded[: min(len(own), length)] = own[:length]
    received = [torch.empty_like(padded) for _ in range(distributed.get_world_size())]
    distributed.all_gather(received, padded)
    return received


def _reorder(rows: Tensor, places: Tensor) -> Tensor:
    if torch.equal(places, torch.arange(len(places))):
        return rows
    result = torch.empty_like(rows)
    result[places] = rows
    return result
