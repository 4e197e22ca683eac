"""What leaves the frozen prefix, computed once and not every epoch.

Owns the data sets of a run: samples read and brought to the network's input, and, where nothing that learns comes before,
the inputs of the first learning stage, kept in the store on disk and reused by later runs. Boundary 0, where everything
learns, is no exception: what is kept then is the network's input, so that no file is decoded twice.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from zooft import freeze, numerics, samples
from zooft.contracts import Computing, unseen
from zooft.errors import DataError, ZooftError
from zooft.lookup import Lookup
from zooft.spill import pick, spilled
from zooft.timing import Stopwatch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from zooft.contracts import Arrays, Sample, Task
    from zooft.model import AdaptedModel
    from zooft.prefix import Prefix
    from zooft.store import Shelf, Store

AT_A_TIME = 32
"""Samples that run through frozen stages together. Fixed, since rounding differs a little between sizes."""
HELD_BYTES = 2 * 2**30
"""What is held in memory where the disk can't keep it."""
LOADED_BYTES = 256 * 2**20
"""Features up to this are read into memory; more stay on disk, memory-mapped."""

Take = Callable[[Sequence[int]], Tensor]
"""Positions of samples to the inputs ``(n, …)`` float32 of the first learning stage."""


def _unscaled(levels: Tensor) -> Tensor:
    return levels


class Views(Dataset[tuple[Tensor, int]]):
    """Samples as the network's input.

    Args:
        members: in order.
        read: a sample to its arrays in native units.
        preprocess: for the plain view.
        augment: arrays to a random view: the network's input, or levels in uint8; None where there are only plain ones.
        scale: levels ``(N, C, H, W)`` in float32 to the network's input, in place.
        sketch: a sample to the arrays that random views are made of; None for those of `read`.
        sketched: a sample's position to such arrays, as far as they are kept; None where none are.
        seed: of the random views.
        number: 0 for the plain view, from 1 for random ones.
    """

    def __init__(
        self,
        members: Sequence[Sample],
        *,
        read: Callable[[Sample], Arrays],
        preprocess: nn.Module,
        augment: Callable[..., Tensor] | None = None,
        scale: Callable[[Tensor], Tensor] = _unscaled,
        sketch: Callable[[Sample], Arrays] | None = None,
        sketched: Callable[[int], Arrays | None] | None = None,
        seed: int = 0,
        number: int = 0,
    ) -> None:
        self.samples, self.read, self.preprocess = members, read, preprocess
        self.augment, self.scale, self.sketch, self.sketched = augment, scale, sketch or read, sketched
        self.seed, self.number = seed, number

    def __len__(self) -> int:
        return len(self.samples)

    def numbered(self, number: int, sketched: Callable[[int], Arrays | None] | None = None) -> Views:
        """The same samples in another view."""
        return Views(
            self.samples, read=self.read, preprocess=self.preprocess, augment=self.augment, scale=self.scale,
            sketch=self.sketch, sketched=sketched or self.sketched, seed=self.seed, number=number,
        )  # fmt: skip

    def at(self, epoch: int) -> Views:
        """What an epoch (from 0) sees: a random view of its own, where there are random ones."""
        return self if self.augment is None else self.numbered(epoch + 1)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The view of one sample, ``(C, H, W)`` float32 or ``(Z, C, H, W)`` for a bag, and its target."""
        views, targets = self.__getitems__([index])
        return views[0], int(targets[0])

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A batch: views ``(n, …)`` float32, targets ``(n,)``. Levels are brought to scale all at once."""
        views, targets = default_collate([self._view(index) for index in indices])
        if views.dtype == torch.uint8:
            # channel by channel: with the channels last, as torchvision leaves them, scaling takes four times as long
            views = self.scale(views.to(torch.float32, memory_format=torch.contiguous_format))
        return views, targets

    def _view(self, index: int) -> tuple[Tensor, int]:
        sample = self.samples[index]
        if self.augment is None or self.number == 0:
            with torch.no_grad():
                arrays = (torch.from_numpy(array)[None] for array in self.read(sample))
                return self.preprocess(*arrays)[0], sample.target
        kept = None if self.sketched is None else self.sketched(index)
        # seeded by sample and view, so that a view is the same in any process, order and data set
        with _seeded(_seed(self.seed, self.number, sample.id)):
            return self.augment(*(self.sketch(sample) if kept is None else kept)), sample.target


@dataclass(frozen=True, slots=True)
class Kept(Dataset[Any]):
    """Inputs of the first learning stage, as they were kept.

    Attributes:
        takers: the plain view's, then one for each random view.
        targets: ``(N,)``.
        seed: of the choice among views.
        which: the view ``(N,)`` that each sample is seen in; None for the plain one.
    """

    takers: tuple[Take, ...]
    targets: Tensor
    seed: int = 0
    which: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def at(self, epoch: int) -> Kept:
        """What an epoch (from 0) sees: of several views, one of each sample by lot."""
        if len(self.takers) == 1:
            return self
        lot = np.random.default_rng([self.seed, epoch]).integers(0, len(self.takers), len(self))
        return Kept(self.takers, self.targets, self.seed, lot)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One sample's input and target."""
        x, y = self.__getitems__([index])
        return x[0], y[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A batch: inputs ``(n, …)`` float32, targets ``(n,)``."""
        if self.which is None:
            return self.takers[0](indices), self.targets[list(indices)]
        chosen = self.which[list(indices)]
        parts = [np.flatnonzero(chosen == view).tolist() for view in range(len(self.takers))]
        rows = torch.cat(
            [take([indices[i] for i in part]) for take, part in zip(self.takers, parts, strict=True) if part]
        )
        back = torch.from_numpy(np.argsort(np.concatenate(parts), kind="stable"))
        return rows[back], self.targets[list(indices)]


class Fed(Protocol):
    """A data set whose view of the samples may change from epoch to epoch."""

    def __len__(self) -> int:
        """Samples."""

    def at(self, epoch: int) -> Dataset[Any]:
        """What an epoch (from 0) sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What an epoch is fed.

    Attributes:
        boundary: how many leading stages are frozen.
        start: the first stage that runs in training: the boundary where what leaves it is kept, or 0.
        train: the inputs of that stage.
        val_start: the same for validation.
        val: None without validation samples.
    """

    boundary: int
    start: int
    train: Fed
    val_start: int
    val: Dataset[Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How what leaves frozen stages is computed and kept.

    Attributes:
        store: on disk.
        of: what it depends on besides tensors, stages and view: versions, preprocessing, the task's options.
        digest: a sample's content.
        dtype: float32, or bfloat16 for the faster way that moves features.
        device: where stages run.
        workers: loader processes.
        share: of so many things, those that this process computes.
        agree: waits for the other processes; whether all say yes.
        computing: a progress bar.
        note: called with one sentence.
        clock: told what takes how long.
        digests: those known so far, by sample id.
        unchanged: whether a sample's content still has a digest; without decoding, or True.
        room: bytes that may still be held in memory where the disk can't keep them.
    """

    store: Store
    of: Mapping[str, Any]
    digest: Callable[[Sample], str]
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    share: Callable[[int], range] = range
    agree: Callable[[bool], bool] = bool
    computing: Computing = unseen
    note: Callable[[str], None] = lambda _text: None
    clock: Stopwatch = field(default_factory=lambda: Stopwatch(on=False))
    digests: Lookup = field(default_factory=Lookup)
    unchanged: Callable[[Sample, str], bool] = lambda _sample, _digest: True
    room: list[int] = field(default_factory=lambda: [HELD_BYTES])

    def names(self, members: Sequence[Sample]) -> Sequence[str]:
        """The samples' digests, each computed once."""
        self.look_at(members)
        return spilled(self.digests[sample.id] for sample in members)

    def look_at(self, members: Sequence[Sample]) -> None:
        """Compute the digests that aren't known yet."""
        unknown = pick(members, [row for row, sample in enumerate(members) if sample.id not in self.digests])
        advance = self.computing("the samples' content", len(unknown)) if unknown else unseen("", 0)
        for sample in unknown:
            self.digests[sample.id] = self.digest(sample)
            advance(1)

    def check_unchanged(self, members: Iterable[Sample]) -> None:
        """What was read just now must be what the digests are of.

        Raises:
            DataError: it was changed in between; nothing of it is kept.
        """
        for sample in members:
            if not self.unchanged(sample, self.digests[sample.id]):
                raise DataError(
                    f"{sample.id} was changed while this run was reading it; start again when the data is at rest"
                )


def reader(task: Task, options: Any) -> Callable[[Sample], Arrays]:
    """A task's `read` with its options, fit to be sent to a loader process."""
    return partial(samples.read, task, options)


def feed(
    model: AdaptedModel, train: Views, val: Views | None, *, boundary: int, views: int | None, keeping: Keeping | None
) -> Feed:
    """What the first learning stage is fed, computed as far as it isn't kept yet.

    Args:
        model: its stages before `boundary` are frozen.
        train: with its random views, if any.
        val: plain ones.
        boundary: how many leading stages are frozen.
        views: random views of each sample that are kept beside the plain one; None for a fresh one in every epoch.
        keeping: None to run frozen stages in every epoch.
    """
    if keeping is None:
        return Feed(boundary=boundary, start=0, train=train, val_start=0, val=val)
    with keeping.clock.part("frozen stages"):
        return _fed(model, train, val, boundary, views, keeping)


def _fed(
    model: AdaptedModel, train: Views, val: Views | None, boundary: int, views: int | None, keeping: Keeping
) -> Feed:
    runner = _Runners(model, boundary, keeping)
    kept_val = None if val is None else inputs(model, val, stop=boundary, keeping=keeping, runner=runner)
    kept_train: Kept | None = None
    fresh = train.augment is not None and (views is None or boundary == 0)
    if not fresh:
        count = 0 if train.augment is None else views or 0
        kept_train = inputs(model, train, stop=boundary, keeping=keeping, runner=runner, views=count)
        if kept_train is None and boundary:
            keeping.note("the frozen stages run in every epoch, because their outputs can't be kept")
    elif boundary:
        keeping.note("the frozen stages run in every epoch, because every epoch sees views of its own")
    return Feed(
        boundary=boundary,
        start=0 if kept_train is None else boundary,
        train=_sketched(train, keeping) if kept_train is None else kept_train,
        val_start=0 if kept_val is None else boundary,
        val=val if kept_val is None else kept_val,
    )


def inputs(
    model: AdaptedModel,
    members: Views,
    *,
    stop: int,
    keeping: Keeping,
    runner: _Runners | None = None,
    views: int = 0,
) -> Kept | None:
    """What leaves stage `stop` - 1 for every sample, in the plain view and `views` random ones; None where it can't be kept."""
    run = runner or _Runners(model, stop, keeping)
    names = keeping.names(members.samples)
    takers = []
    for number in range(views + 1):
        # a random view is seeded by the sample's id, so that is part of what it is found by
        own = spilled(_part(name, s.id) for name, s in zip(names, members.samples, strict=True)) if number else names
        take = _take(members.numbered(number), own, stop=stop, keeping=keeping, runner=run)
        if take is None:
            return None
        takers.append(take)
    targets = torch.from_numpy(samples.targets(members.samples))
    return Kept(tuple(takers), targets, members.seed)


class _Runners:
    """What runs the frozen stages, made when it is first needed: a run that finds everything kept needs none."""

    def __init__(self, model: AdaptedModel, stop: int, keeping: Keeping) -> None:
        self._model, self._stop, self._keeping = model, stop, keeping
        self.what = {
            "what": "features",
            "stages": list(model.stages)[:stop],
            "tensors": freeze.prefix_sha256(model, stop),
        }
        self._made: Prefix | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """What leaves the last frozen stage, float32 on the CPU."""
        with numerics.exact_convolutions():
            return self._computed(place(x, self._keeping.device))

    def _computed(self, x: Tensor) -> Tensor:
        if self._made is None:
            from zooft import prefix

            self._model.eval()
            self._made = prefix.runner(self._model, self._stop, x, dtype=self._keeping.dtype, note=self._keeping.note)
            if self._keeping.dtype != torch.float32 and self._stop:
                self._keeping.note(f"features in bf16 differ by {self._made.moved:.1%} from those in fp32")
        return self._made.run(x).float().cpu()


def _take(views: Views, names: Sequence[str], *, stop: int, keeping: Keeping, runner: _Runners) -> Take | None:
    """Reads what is kept of one view, after computing what isn't."""
    shelf = keeping.store.shelf(_what(views, keeping, runner))
    held: dict[str, NDArray[Any]] = {}
    title = "frozen stages, once" if stop else "reading the samples, once"
    for share in (keeping.share, range):  # what another process has kept where this one can't see it is computed here
        absent = _absent(shelf, names, held)
        keeping.agree(True)  # all have listed what is missing before anyone writes
        mine = [absent[i] for i in share(len(absent))]
        advance = keeping.computing(title, len(mine)) if mine else unseen(title, 0)
        if not keeping.agree(_compute(views, names, mine, shelf, held, keeping, runner, advance)):
            return None
    return _taker(shelf, names, held) if keeping.agree(not _absent(shelf, names, held)) else None


def _absent(shelf: Shelf, names: Sequence[str], held: Mapping[str, Any]) -> list[int]:
    """Positions of samples that are neither kept nor held, of equal samples the first."""
    absent = [index for index in shelf.missing(names) if names[index] not in held]
    first = np.unique(np.fromiter((hash(names[index]) for index in absent), np.int64), return_index=True)[1]
    return [absent[at] for at in np.sort(first).tolist()]


def _compute(
    views: Views,
    names: Sequence[str],
    wanted: Sequence[int],
    shelf: Shelf,
    held: dict[str, NDArray[Any]],
    keeping: Keeping,
    runner: _Runners,
    advance: Callable[[int], None],
) -> bool:
    """Compute and keep, or hold what the disk can't; False where there is room neither here nor there."""
    done = 0
    data = loader(Subset(views, wanted), batch_size=AT_A_TIME, workers=keeping.workers)
    for x, y in keeping.clock.each(data, "reading for frozen stages"):
        rows = rounded(runner(x).numpy())
        if not done and rows[0].nbytes * len(names) > max(keeping.store.most_bytes, HELD_BYTES):
            return False
        members = wanted[done : done + len(y)]
        keeping.check_unchanged(views.samples[i] for i in members)
        own = [names[i] for i in members]
        shelf.put(own, rows)
        for name, row in zip(own, rows, strict=True):
            if name not in shelf:
                held[name] = row
                keeping.room[0] -= row.nbytes
        if keeping.room[0] < 0:
            return False
        done += len(y)
        advance(len(y))
    shelf.flush()
    return True


def rounded(rows: NDArray[np.float32]) -> NDArray[Any]:
    """In half precision, which moves features by 2e-4 at most; as they are where they exceed its range."""
    with np.errstate(over="ignore"):
        halves = rows.astype(np.float16)
    return halves if bool(np.isfinite(halves).all()) else rows


def _taker(shelf: Shelf, names: Sequence[str], held: Mapping[str, NDArray[Any]]) -> Take:
    first = held[names[0]] if names[0] in held else shelf.get(names[0])
    size = 0 if first is None else first.nbytes
    if size * len(names) <= LOADED_BYTES:
        return _Loaded(torch.from_numpy(_rows(shelf, names, held)))
    return _Mapped(shelf, names, held)


def _rows(shelf: Shelf, names: Sequence[str], held: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    if not held or not any(name in held for name in names):
        return _gathered(shelf, names)
    return np.stack([held[name] if name in held else shelf.gather([name])[0] for name in names])


def _gathered(shelf: Shelf, names: Sequence[str]) -> NDArray[Any]:
    try:
        return shelf.gather(names)
    except ValueError:  # some are kept in halves, and some exceed their range
        return np.stack([shelf.gather([name])[0].astype(np.float32) for name in names])


@dataclass(frozen=True, slots=True)
class _Loaded:
    """In memory, as they were kept."""

    rows: Tensor

    def __call__(self, indices: Sequence[int]) -> Tensor:
        return self.rows[list(indices)].float()


@dataclass(frozen=True, slots=True)
class _Mapped:
    """Reads from the disk, but for what the disk couldn't keep."""

    shelf: Shelf
    names: Sequence[str]
    held: Mapping[str, NDArray[Any]]

    def __call__(self, indices: Sequence[int]) -> Tensor:
        rows = _rows(self.shelf, [self.names[i] for i in indices], self.held)
        return torch.from_numpy(rows).float()


def _sketched(train: Views, keeping: Keeping) -> Views:
    """Random views made of arrays that are decoded once and lie in the store, as far as they fit."""
    if train.augment is None:
        return train
    names = keeping.names(train.samples)
    shelf = keeping.store.shelf({**keeping.of, "what": "sketches"})
    for share in (keeping.share, range):  # as above
        absent = shelf.missing(spilled(_part(name, "parts") for name in names))
        keeping.agree(True)
        _keep_sketches(train, names, [absent[i] for i in share(len(absent))], shelf, keeping)
        keeping.agree(True)
    return train.numbered(0, _Sketches(shelf, names))


def _keep_sketches(train: Views, names: Sequence[str], wanted: Sequence[int], shelf: Shelf, keeping: Keeping) -> None:
    advance = keeping.computing("decoding, once", len(wanted)) if wanted else unseen("", 0)
    raw = _loaded(_Raw(train, wanted), keeping.workers, batch_size=None, collate_fn=collate_nothing)
    for index, arrays in zip(wanted, raw, strict=True):
        if sum(array.nbytes for array in arrays) * len(names) > keeping.store.most_bytes // 2:
            break
        keeping.check_unchanged([train.samples[index]])
        shelf.put([_part(names[index], part) for part in range(len(arrays))], arrays)
        shelf.put([_part(names[index], "parts")], [np.array([len(arrays)])])
        if _part(names[index], "parts") not in shelf:  # the disk can't: every epoch decodes for itself
            break
        advance(1)
    shelf.flush()


@dataclass(frozen=True, slots=True)
class _Raw(Dataset[Any]):
    views: Views
    positions: Sequence[int]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Arrays:
        return self.views.sketch(self.views.samples[self.positions[index]])


@dataclass(frozen=True, slots=True)
class _Sketches:
    """Samples' arrays from the store."""

    shelf: Shelf
    names: Sequence[str]

    def __call__(self, index: int) -> Arrays | None:
        """A sample's, by its position; None where the store hasn't them."""
        name = self.names[index]
        count = self.shelf.get(_part(name, "parts"))
        parts = [self.shelf.get(_part(name, part)) for part in range(0 if count is None else int(count[0]))]
        kept = [np.array(part) for part in parts if part is not None]  # copied: the mapping is read-only
        return tuple(kept) if kept and len(kept) == len(parts) else None


def _part(name: str, part: int | str) -> str:
    return hashlib.sha256(f"{name}/{part}".encode()).hexdigest()


def collate_nothing(item: Any) -> Any:
    """Arrays as they are, not as tensors."""
    return item


def _what(views: Views, keeping: Keeping, runner: _Runners) -> dict[str, Any]:
    """Everything that what leaves the frozen stages depends on, but for the sample's content."""
    view = {"number": views.number, "seed": views.seed} if views.number else None
    return {
        **keeping.of, **runner.what, "view": view,
        "precision": str(keeping.dtype).removeprefix("torch."), "device": keeping.device.type, "together": AT_A_TIME,
    }  # fmt: skip


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers of torch's on the CPU by a seed, and as they were afterwards.

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


def place(x: Tensor, device: torch.device) -> Tensor:
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
    if isinstance(data.dataset if isinstance(data, Subset) else data, Kept):
        workers = 0  # picking rows costs less than sending them
    order: dict[str, Any] = {"batch_size": batch_size} if batches is None else {"batch_sampler": batches}
    return _loaded(data, workers, collate_fn=collate, **order)


def _loaded(data: Dataset[Any], workers: int, **more: Any) -> Iterable[Any]:
    if not workers:
        return DataLoader(data, **more)
    return _Loader(DataLoader(_Carrying(data), num_workers=workers, **more))


@dataclass(frozen=True, slots=True)
class _Refused:
    """What a loader process couldn't read. As an exception, torch would send its traceback in its place, paths and all."""

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
    """Kept features come as a batch; samples are stacked."""
    return items if isinstance(items, tuple | _Refused) else default_collate(items)
