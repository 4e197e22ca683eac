"""What leaves the frozen prefix, computed once: found in the store, or computed and put there.

Boundary 0, where everything learns, is no exception: what is cached then is the network's input, so that no file is
decoded twice.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from zooft.compute.kernels import numerics
from zooft.compute.profile import Stopwatch
from zooft.contracts import Computing, unseen
from zooft.errors import DataError
from zooft.features import parallel, prefix
from zooft.features.dataset import (
    CachedFeatures,
    EpochDataset,
    FixedTargets,
    MovedTargets,
    SampleDataset,
    Take,
    ViewPool,
)
from zooft.features.loading import loader, to_device
from zooft.features.outputs import Outputs, to_half
from zooft.features.small_images import part_of, with_small_images
from zooft.model import freeze
from zooft.storage.lookup import Lookup
from zooft.storage.sequences import pick, spill

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Advance, Sample
    from zooft.features.prefix import Prefix
    from zooft.model.adapted import AdaptedModel
    from zooft.storage.cache import MemoryStore, Store

AT_A_TIME = 32
"""Samples that run through frozen stages together. Fixed, since rounding differs a little between sizes."""
HELD_BYTES = 2 * 2**30
"""What is held in memory where the disk can't store it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochData:
    """An epoch's data.

    Attributes:
        boundary: how many leading stages are frozen.
        start: the first stage that runs in training: the boundary where its outputs are cached, or 0.
        train: the inputs of that stage.
        val_start: the same for validation.
        val: None without validation samples.
    """

    boundary: int
    start: int
    train: EpochDataset
    val_start: int
    val: Dataset[Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCache:
    """How outputs of frozen stages are computed and cached.

    Attributes:
        store: on disk; in memory where nothing is to be written.
        of: what it depends on besides tensors, stages and view: versions, preprocessing, the task's options.
        digest: a sample's content.
        dtype: float32, or bfloat16 for the faster way that moves features.
        device: where stages run.
        workers: loader processes.
        share: of so many things, those that this process computes.
        agree: waits for the other processes; whether it is true in all.
        computing: a progress bar.
        note: called with one sentence.
        clock: measures what takes how long.
        digests: those known so far, by sample id.
        unchanged: whether a sample's content still has a digest; without decoding, or True.
        room: bytes that may still be held in memory where the disk can't store them.
    """

    store: Store | MemoryStore
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
        self.compute_digests(members)
        return spill(self.digests[sample.id] for sample in members)

    def compute_digests(self, members: Sequence[Sample]) -> None:
        """Compute the digests that aren't known yet."""
        unknown = pick(members, [row for row, sample in enumerate(members) if sample.id not in self.digests])
        advance = self.computing("the samples' content", len(unknown)) if unknown else unseen("", 0)
        for sample in unknown:
            self.digests[sample.id] = self.digest(sample)
            advance(1)

    def check_unchanged(self, members: Iterable[Sample]) -> None:
        """What was read just now must be what the digests are of.

        Raises:
            DataError: it was changed in between; nothing of it is stored.
        """
        for sample in members:
            if not self.unchanged(sample, self.digests[sample.id]):
                raise DataError(
                    f"{sample.id} was changed while this run was reading it; start again when the data is at rest"
                )


def feed(
    model: AdaptedModel,
    train: SampleDataset,
    val: SampleDataset | None,
    *,
    boundary: int,
    views: int | None,
    feature_cache: FeatureCache | None,
    pooled: bool = False,
) -> EpochData:
    """The first learning stage's inputs, computed as far as they aren't cached.

    Args:
        model: its stages before `boundary` are frozen.
        train: with its random views, if any.
        val: plain ones.
        boundary: how many leading stages are frozen.
        views: random views of each sample that are cached beside the plain one; None for a fresh one in every epoch.
        feature_cache: None to run frozen stages in every epoch.
        pooled: whether random views are the same `views` ones in every epoch, also where they aren't cached.
    """
    pool = views or 0 if pooled and train.augment is not None else None
    if feature_cache is None:
        seen = train if pool is None else ViewPool(train, pool)
        return EpochData(boundary=boundary, start=0, train=seen, val_start=0, val=val)
    with feature_cache.clock.part("frozen stages"):
        return _epoch_data(model, train, val, boundary, views, pool, feature_cache)


def _epoch_data(
    model: AdaptedModel,
    train: SampleDataset,
    val: SampleDataset | None,
    boundary: int,
    views: int | None,
    pool: int | None,
    feature_cache: FeatureCache,
) -> EpochData:
    runner = _Runners(model, boundary, feature_cache)
    cached_val = (
        None
        if val is None
        else inputs(
            model, val, stop=boundary, feature_cache=feature_cache, runner=runner, exact=val.placing is not None
        )
    )
    cached_train: CachedFeatures | None = None
    fresh = train.augment is not None and (views is None or boundary == 0)
    if not fresh:
        count = 0 if train.augment is None else views or 0
        cached_train = inputs(model, train, stop=boundary, feature_cache=feature_cache, runner=runner, views=count)
        if cached_train is None and boundary:
            feature_cache.note("the frozen stages run in every epoch, because their outputs can't be cached")
    elif boundary:
        feature_cache.note("the frozen stages run in every epoch, because every epoch sees views of its own")
    # targets that have places lie by the pixels of the samples themselves, not by those of smaller ones
    small = train if cached_train is not None or train.placing else with_small_images(train, feature_cache)
    train_views = small if pool is None else ViewPool(small, pool)
    return EpochData(
        boundary=boundary,
        start=0 if cached_train is None else boundary,
        train=train_views if cached_train is None else cached_train,
        val_start=0 if cached_val is None else boundary,
        val=val if cached_val is None else cached_val,
    )


def inputs(
    model: AdaptedModel,
    members: SampleDataset,
    *,
    stop: int,
    feature_cache: FeatureCache,
    runner: _Runners | None = None,
    views: int = 0,
    exact: bool = False,
) -> CachedFeatures | None:
    """What leaves stage `stop` - 1 for every sample, in the plain view and `views` random ones.

    None where it can't be cached.

    In half precision, unless `exact`: rounding moves single pixels of a mask, and with them figures that a file's are
    compared with.
    """
    run = runner or _Runners(model, stop, feature_cache)
    takers, geometries = [], []
    for number in range(views + 1):
        taken = compute_once(members.with_view(number), feature_cache, run, exact=exact)
        if taken is None:
            return None
        takers.append(taken.takers[0])
        geometries.append(taken.geometries)
    placed = tuple(each for each in geometries if each is not None)
    targets = MovedTargets(members, placed) if placed else FixedTargets(members.targets())
    return CachedFeatures(tuple(takers), targets, members.seed)


@dataclass(frozen=True, slots=True)
class Taken:
    """What is cached of one view.

    Attributes:
        takers: what reads the rows, one for each kind of them.
        geometries: of targets that have places a row ``(N, 10)`` each; None of others.
    """

    takers: tuple[Take, ...]
    geometries: NDArray[Any] | None


class Runner(Protocol):
    """What computes rows from batches, once for each sample.

    Attributes:
        what: all that they depend on besides the samples and how these are read.
        kinds: of rows, each on a shelf of its own; "" for one that is alone.
        title: of the progress bar.
        parallel: batches that run at a time.
    """

    what: Mapping[str, Any]
    kinds: tuple[str, ...]
    title: str
    parallel: int

    def ready(self, x: Tensor) -> object:
        """Prepare, by the first batch; once that is done, several threads may call."""

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """The rows of a batch, float32 on the CPU, one tensor for each kind."""


class _Runners:
    """What runs the frozen stages, made when it is first needed: a run that finds everything cached needs none."""

    kinds: tuple[str, ...] = ("",)

    def __init__(self, model: AdaptedModel, stop: int, feature_cache: FeatureCache) -> None:
        self._model, self.stop, self._feature_cache = model, stop, feature_cache
        self.title = "frozen stages, once" if stop else "reading the samples, once"
        # batches of bags are large, and nothing is computed before the first stage
        self.parallel = parallel.parallel_batches(feature_cache.device) if stop and not model.bag else 1
        maps = {"maps": [reading.tap.stage for reading in model.readings]} if model.readings else {}
        self.what: Mapping[str, Any] = {
            "what": "features",
            "stages": list(model.stages)[:stop],
            "tensors": freeze.prefix_sha256(model, stop),
            **maps,
        }
        self._made: Prefix | None = None

    def __call__(self, x: Tensor) -> tuple[Tensor]:
        """What leaves the last frozen stage."""
        return (self.ready(x).run(to_device(x, self._feature_cache.device)).float().cpu(),)

    def ready(self, x: Tensor) -> Prefix:
        """What runs them, made for the first batch that is seen."""
        if self._made is None:
            self._made = self._make(to_device(x, self._feature_cache.device))
        return self._made

    def _make(self, x: Tensor) -> Prefix:
        self._model.eval()
        made = prefix.runner(self._model, self.stop, x, dtype=self._feature_cache.dtype, note=self._feature_cache.note)
        if self._feature_cache.dtype != torch.float32 and self.stop:
            self._feature_cache.note(f"features in bf16 differ by {made.moved:.1%} from those in fp32")
        return made


def compute_once(
    views: SampleDataset, feature_cache: FeatureCache, runner: Runner, *, exact: bool = False
) -> Taken | None:
    """What reads what is cached of one view, after computing what isn't; None where it can't be cached.

    Args:
        views: the samples in one view.
        feature_cache: where.
        runner: what computes the rows.
        exact: in float32, not in half precision.
    """
    names = feature_cache.names(views.samples)
    if views.number:  # a random view is seeded by the sample's id, so that is part of what it is found by
        names = spill(part_of(name, s.id) for name, s in zip(names, views.samples, strict=True))
    what = _what(views, feature_cache, runner) | ({"exact": True} if exact else {})
    shelves = [feature_cache.store.shelf({**what, "kind": kind} if kind else what) for kind in runner.kinds]
    outputs = [Outputs(names, shelf) for shelf in shelves]
    placed = None if views.placing is None else Outputs(names, feature_cache.store.shelf({**what, "what": "geometry"}))
    both = outputs if placed is None else [*outputs, placed]
    for share in (
        feature_cache.share,
        range,
    ):  # what another process has stored where this one can't see it is computed here
        absent = sorted(set().union(*(each.absent() for each in both)))
        feature_cache.agree(True)  # all have listed what is missing before anyone writes
        mine = [absent[i] for i in share(len(absent))]
        advance = feature_cache.computing(runner.title, len(mine)) if mine else unseen("", 0)
        if not feature_cache.agree(_compute(views, mine, outputs, placed, feature_cache, runner, advance, exact)):
            return None
    if not feature_cache.agree(not any(each.absent() for each in both)):
        return None
    return Taken(tuple(each.taker() for each in outputs), None if placed is None else placed.rows(names))


def _compute(
    views: SampleDataset,
    wanted: Sequence[int],
    outputs: Sequence[Outputs],
    placed: Outputs | None,
    feature_cache: FeatureCache,
    runner: Runner,
    advance: Advance,
    exact: bool,
) -> bool:
    """Compute and cache, or hold in memory what the disk can't; False where there is room neither here nor there."""
    done = 0
    of = views if placed is None else views.with_geometries()
    data = loader(Subset(of, wanted), batch_size=AT_A_TIME, workers=feature_cache.workers)
    with numerics.exact_convolutions(), closing(_rows(data, feature_cache, runner, exact)) as batches:
        for rows, geometries in batches:
            size = sum(kind[0].nbytes for kind in rows)
            if not done and size * len(views) > max(feature_cache.store.most_bytes, HELD_BYTES):
                return False
            members = wanted[done : done + len(rows[0])]
            feature_cache.check_unchanged(views.samples[i] for i in members)
            feature_cache.room[0] -= sum(each.put(members, kind) for each, kind in zip(outputs, rows, strict=True))
            if placed is not None:
                placed.put(members, geometries.numpy())
            if feature_cache.room[0] < 0:
                return False
            done += len(members)
            advance(len(members))
    for each in outputs if placed is None else [*outputs, placed]:
        each.shelf.flush()
    return True


def _rows(
    data: Iterable[Any], feature_cache: FeatureCache, runner: Runner, exact: bool
) -> Generator[tuple[list[NDArray[Any]], Any]]:
    """What is cached of each batch, a row a sample of each kind, and what stands in the place of its targets."""
    count = runner.parallel

    def read() -> Iterator[tuple[Tensor, Any]]:
        # not a part of its own beside others: their CPU seconds would be counted for it
        for x, y in data if count > 1 else feature_cache.clock.each(data, "reading for frozen stages"):
            runner.ready(x)  # by the first batch, whichever lane is faster
            yield x, y

    def run(both: tuple[Tensor, Any]) -> tuple[list[NDArray[Any]], Any]:
        rows = [kind.numpy() for kind in runner(both[0])]
        return (rows if exact else [to_half(kind) for kind in rows]), both[1]

    return parallel.map_in_order(read(), run, count=count)


def _what(views: SampleDataset, feature_cache: FeatureCache, runner: Runner) -> dict[str, Any]:
    """Everything that what leaves the frozen stages depends on, but for the sample's content."""
    view = {"number": views.number, "seed": views.seed} if views.number else None
    return {
        **feature_cache.of,
        **runner.what,
        "view": view,
        "precision": str(feature_cache.dtype).removeprefix("torch."),
        "device": feature_cache.device.type,
        "together": AT_A_TIME,
    }
