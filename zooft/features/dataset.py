"""The data sets of a run: samples brought to the network's input, and cached inputs of a later stage."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from zooft.compute import trees
from zooft.contracts import Geometry, View
from zooft.data import samples
from zooft.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Arrays, Sample, Task

Take = Callable[[Sequence[int]], Tensor]
"""Positions of samples to the inputs ``(n, …)`` float32 of the first learning stage."""


class EpochDataset(Protocol):
    """A data set whose view of the samples may change from epoch to epoch."""

    def __len__(self) -> int:
        """Samples."""

    def at(self, epoch: int) -> Dataset[Any]:
        """What an epoch (from 0) sees."""


def _as_it_is(target: Any) -> Any:
    return target


def _identity(levels: Tensor) -> Tensor:
    return levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """How targets that have places in the image follow it into a view.

    Attributes:
        geometry: a sample's arrays to how the plain preprocessing places it.
        move: an encoded target into a view.
        collate: encoded targets to a batch.
    """

    geometry: Callable[[Arrays], Geometry]
    move: Callable[[Any, Geometry], Any]
    collate: Callable[[list[Any]], Any] = default_collate


class SampleDataset(Dataset[tuple[Tensor, Any]]):
    """Samples as the network's input.

    Args:
        members: in order.
        read: a sample to its arrays in native units.
        preprocess: for the plain view.
        augment: arrays to a random view: the network's input, or levels in uint8; None where there are only plain ones.
        scale: levels ``(N, C, H, W)`` in float32 to the network's input, in place.
        decode_small: a sample to the arrays that random views are made of; None for those of `read`.
        small_images: a sample's position to such arrays, as far as they are cached; None where none are.
        seed: of the random views.
        number: 0 for the plain view, from 1 for random ones.
        encode: a sample's target to what is stacked to a batch; None for samples without targets.
        placing: of targets that have places in the image; None of those that stay as they are whatever is done to it.
    """

    def __init__(
        self,
        members: Sequence[Sample],
        *,
        read: Callable[[Sample], Arrays],
        preprocess: Callable[..., Tensor],
        augment: Callable[..., Tensor | View] | None = None,
        scale: Callable[[Tensor], Tensor] = _identity,
        decode_small: Callable[[Sample], Arrays] | None = None,
        small_images: Callable[[int], Arrays | None] | None = None,
        seed: int = 0,
        number: int = 0,
        encode: Callable[[Any], Any] = _as_it_is,
        placing: Placing | None = None,
    ) -> None:
        self.samples, self.read, self.preprocess = members, read, preprocess
        self.augment, self.scale, self.decode_small, self.small_images = (
            augment,
            scale,
            decode_small or read,
            small_images,
        )
        self.seed, self.number, self.encode, self.placing = seed, number, encode, placing

    def __len__(self) -> int:
        return len(self.samples)

    def with_view(self, number: int, small_images: Callable[[int], Arrays | None] | None = None) -> SampleDataset:
        """The same samples in another view."""
        same = copy.copy(self)
        same.number, same.small_images = number, small_images or self.small_images
        return same

    def with_geometries(self) -> SampleDataset:
        """The same views, each with its geometry in place of a target, as `to_row` has it."""
        assert self.placing is not None  # noqa: S101 -- the caller has checked
        same = copy.copy(self)
        same.encode = _nothing
        same.placing = replace(self.placing, move=_geometry_row, collate=default_collate)
        return same

    def at(self, epoch: int) -> SampleDataset:
        """What an epoch (from 0) sees: a random view of its own, where there are random ones."""
        return self if self.augment is None else self.with_view(epoch + 1)

    def targets(self) -> Any:
        """Of all samples, stacked: a tensor ``(N, …)``, or a mapping of such."""
        return default_collate([self.encode(sample.target) for sample in self.samples])

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """The view of one sample, ``(C, H, W)`` float32 or ``(Z, C, H, W)`` for a bag, and its encoded target."""
        views, targets = self.__getitems__([index])
        return views[0], trees.rows(targets, 0)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Any]:
        """A batch: views ``(n, …)`` float32, targets collated. Levels are brought to scale all at once."""
        return self.batch([self.view(index) for index in indices])

    def batch(self, seen: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
        """What `view` has given of several samples, together."""
        given = [view for view, _ in seen]
        if len({view.dtype for view in given}) > 1:  # plain views, brought to scale already, among random ones
            given = [self.scale(view[None].float())[0] if view.dtype == torch.uint8 else view for view in given]
        views = default_collate(given)
        targets = (self.placing.collate if self.placing else default_collate)([target for _, target in seen])
        if views.dtype == torch.uint8:
            # channel by channel: with the channels last, as torchvision leaves them, scaling takes four times as long
            views = self.scale(views.to(torch.float32, memory_format=torch.contiguous_format))
        return views, targets

    def view(self, index: int) -> tuple[Tensor, Any]:
        """The view of one sample, not yet to scale where it is in uint8, and its target."""
        sample = self.samples[index]
        if self.augment is None or self.number == 0:
            with torch.no_grad():
                arrays = self.read(sample)
                view = self.preprocess(*(torch.from_numpy(array)[None] for array in arrays))[0]
            return view, self._target(sample, lambda placing: placing.geometry(arrays))
        small = None if self.small_images is None else self.small_images(index)
        # seeded by sample and view, so that a view is the same in any process, order and data set
        with _temporary_seed(_seed(self.seed, self.number, sample.id)):
            made = self.augment(*(self.decode_small(sample) if small is None else small))
        image, geometry = (made.image, made.geometry) if isinstance(made, View) else (made, None)
        return image, self._target(sample, lambda _placing: geometry)

    def _target(self, sample: Sample, geometry_by: Callable[[Placing], Geometry | None]) -> Any:
        encoded = self.encode(sample.target)
        if self.placing is None:
            return encoded
        geometry = geometry_by(self.placing)
        if geometry is None:
            raise ConfigError(
                "the task's augment doesn't report how it moves pixels, and its targets have places in the image; "
                "give --augment none, or a task whose augment gives zooft.View"
            )
        return self.placing.move(encoded, geometry)


@dataclass(frozen=True, slots=True)
class ViewPool(Dataset[Any]):
    """Samples in a few random views and the plain one, the same ones in every epoch, each made when it is read.

    Attributes:
        own: the samples, with random views.
        count: of random views.
        which: the view ``(N,)`` that each sample is seen in; None for the plain one.
    """

    own: SampleDataset
    count: int
    which: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.own)

    def at(self, epoch: int) -> ViewPool:
        """What an epoch (from 0) sees: one view of each sample by lot, as `CachedFeatures` draws it."""
        return replace(self, which=draw_views(self.own.seed, epoch, views=self.count + 1, samples=len(self)))

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """One sample's view and target."""
        x, y = self.__getitems__([index])
        return x[0], trees.rows(y, 0)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Any]:
        """A batch: views ``(n, …)`` float32, targets collated."""
        numbers = [0] * len(indices) if self.which is None else self.which[list(indices)].tolist()
        return self.own.batch([self.own.with_view(n).view(i) for n, i in zip(numbers, indices, strict=True)])


def draw_views(seed: int, epoch: int, *, views: int, samples: int) -> NDArray[np.int64]:
    """The number of the view that an epoch sees each sample in, ``(samples,)``."""
    return np.random.default_rng([seed, epoch]).integers(0, views, samples)


def to_row(geometry: Geometry) -> NDArray[np.float64]:
    """Its ten numbers."""
    return np.array([*geometry.matrix.ravel(), *geometry.source, *geometry.view], np.float64)


def _from_row(row: NDArray[Any]) -> Geometry:
    rows, columns, height, width = (int(number) for number in row[6:])
    return Geometry(matrix=row[:6].reshape(2, 3), source=(rows, columns), view=(height, width))


def _geometry_row(_encoded: Any, geometry: Geometry) -> NDArray[np.float64]:
    return to_row(geometry)


def _nothing(_target: Any) -> int:
    return 0


class CachedTargets(Protocol):
    """Targets of cached features."""

    def __len__(self) -> int:
        """Samples."""

    def rows(self, indices: Sequence[int], views: Sequence[int]) -> Any:
        """A batch: those of some samples, each as it lies in one of its views (0 the plain one)."""


@dataclass(frozen=True, slots=True)
class FixedTargets:
    """The same in every view: ``stacked``, all of them as one batch."""

    stacked: Any

    def __len__(self) -> int:
        return trees.length(self.stacked)

    def rows(self, indices: Sequence[int], _views: Sequence[int]) -> Any:
        """As `CachedTargets`."""
        return trees.rows(self.stacked, list(indices))


@dataclass(slots=True)
class InMemory:
    """What has been made, as far as it fits; what comes first stays.

    Attributes:
        most: bytes.
        values: those that fit.
        used: their bytes.
    """

    most: int = 512 * 2**20
    values: dict[tuple[int, int], Any] = field(default_factory=dict)
    used: float = 0

    def get(self, key: tuple[int, int], make: Callable[[], Any]) -> Any:
        """What was made before, or is now."""
        if key in self.values:
            return self.values[key]
        made = make()
        size = trees.size(made)
        if self.used + size <= self.most:
            self.values[key] = made
            self.used += size
        return made


@dataclass(frozen=True, slots=True)
class MovedTargets:
    """Encoded and moved when they are first read, or each time where memory doesn't hold all of them.

    Attributes:
        members: whose samples.
        geometries: of each view, a row a sample ``(N, 10)``.
        cached: of sample and view.
    """

    members: SampleDataset
    geometries: tuple[NDArray[Any], ...]
    cached: InMemory = field(default_factory=InMemory)

    def __len__(self) -> int:
        return len(self.members)

    def rows(self, indices: Sequence[int], views: Sequence[int]) -> Any:
        """As `CachedTargets`."""
        placing = self.members.placing
        assert placing is not None  # noqa: S101 -- such are made for placed targets alone
        return placing.collate(
            [
                self.cached.get((index, view), partial(self._make, placing, index, view))
                for index, view in zip(indices, views, strict=True)
            ]
        )

    def _make(self, placing: Placing, index: int, view: int) -> Any:
        encoded = self.members.encode(self.members.samples[index].target)
        return placing.move(encoded, _from_row(self.geometries[view][index]))


@dataclass(frozen=True, slots=True)
class CachedFeatures(Dataset[Any]):
    """Inputs of the first learning stage, from the cache.

    Attributes:
        takers: the plain view's, then one for each random view.
        targets: of all N samples.
        seed: of the choice among views.
        which: the view ``(N,)`` that each sample is seen in; None for the plain one.
    """

    takers: tuple[Take, ...]
    targets: CachedTargets
    seed: int = 0
    which: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def at(self, epoch: int) -> CachedFeatures:
        """What an epoch (from 0) sees: of several views, one of each sample by lot."""
        if len(self.takers) == 1:
            return self
        which = draw_views(self.seed, epoch, views=len(self.takers), samples=len(self))
        return CachedFeatures(self.takers, self.targets, self.seed, which)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """One sample's input and target."""
        x, y = self.__getitems__([index])
        return x[0], trees.rows(y, 0)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Any]:
        """A batch: inputs ``(n, …)`` float32, targets stacked."""
        if self.which is None:
            return self.takers[0](indices), self.targets.rows(indices, [0] * len(indices))
        chosen = self.which[list(indices)]
        parts = [np.flatnonzero(chosen == view).tolist() for view in range(len(self.takers))]
        rows = torch.cat(
            [take([indices[i] for i in part]) for take, part in zip(self.takers, parts, strict=True) if part]
        )
        back = torch.from_numpy(np.argsort(np.concatenate(parts), kind="stable"))
        return rows[back], self.targets.rows(indices, chosen.tolist())


def reader(task: Task, options: Any) -> Callable[[Sample], Arrays]:
    """A task's `read` with its options, fit to be sent to a loader process."""
    return partial(samples.read, task, options)


@contextlib.contextmanager
def _temporary_seed(seed: int) -> Iterator[None]:
    """Seed torch's random numbers on the CPU, and restore them afterwards.

    Not ``fork_rng`` and ``torch.manual_seed``, which see to every device and take a tenth of a view's time.
    """
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def _seed(*parts: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8]) >> 1
