"""A teacher's answers to the samples that are trained on, computed once, and batches that have them beside targets.

The teacher stays as it is, so its answer to one view of a sample is the same in every epoch. It sees the very view
that is learnt from (Beyer et al. 2022), as its own preprocessing shows it: a target for another view teaches that the
difference doesn't matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from zooft.compute import trees
from zooft.errors import ConfigError
from zooft.features import parallel, prefix
from zooft.features.cache import EpochData, FeatureCache, compute_once
from zooft.features.loading import to_device
from zooft.model.adapted import FEATURES

if TYPE_CHECKING:
    from zooft.features.dataset import EpochDataset, SampleDataset, Take
    from zooft.model.adapted import AdaptedModel

TARGET, TEACHER = "zooft.target", "zooft.teacher"
"""In a batch's targets: the samples' own, and the teacher's outputs by name."""

Answers = Mapping[str, "Take"]
"""The teacher's outputs of one view by name, and what its head reads under `FEATURES`, where that is learnt too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A finished model and the samples as it sees them.

    Attributes:
        model: on any device; it isn't changed.
        sha256: of its weights.
        views: of the samples that are trained on, in their order, without targets.
        feature_cache: where its answers are cached.
        features: whether what its head reads is wanted too.
        exact: cache in float32, not in half precision.
    """

    model: AdaptedModel
    sha256: str
    views: SampleDataset
    feature_cache: FeatureCache
    features: bool = False
    exact: bool = True
    _known: dict[int, Answers] = field(default_factory=dict, compare=False, repr=False)

    def answers(self, view: int) -> Answers:
        """Its outputs of one view of all samples, computed as far as they aren't cached.

        Raises:
            ConfigError: there is room for them neither on disk nor in memory.
        """
        if view not in self._known:
            runner = _Answering(self)
            taken = compute_once(self.views.with_view(view), self.feature_cache, runner, exact=self.exact)
            if taken is None:
                raise ConfigError(
                    f"the teacher's answers to {len(self.views)} samples fit neither into the cache nor into memory; "
                    "raise ZOOFT_CACHE_BYTES, give fewer --views, or leave out --distill"
                )
            self._known[view] = dict(zip(runner.kinds, taken.takers, strict=True))
        return self._known[view]


class _Answering:
    """What runs a teacher, made when it is first needed.

    Args:
        teacher: whose model.
    """

    title = "the teacher, once"

    def __init__(self, teacher: Teacher) -> None:
        self._teacher, self._device = teacher, teacher.feature_cache.device
        self._stop = len(teacher.model.stages)
        self._made: prefix.Prefix | None = None
        self.kinds: tuple[str, ...] = (*teacher.model.outputs, *((FEATURES,) if teacher.features else ()))
        self.what: Mapping[str, Any] = {"what": "teacher", "weights": teacher.sha256}
        self.parallel = 1 if teacher.model.bag else parallel.parallel_batches(self._device)

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Its outputs of a batch, and its features."""
        with torch.inference_mode():
            features = self.ready(x).run(to_device(x, self._device))
            outputs = self._teacher.model(features, self._stop)
        made = {**outputs, FEATURES: features}
        return tuple(made[kind].float().cpu() for kind in self.kinds)

    def ready(self, x: Tensor) -> prefix.Prefix:
        """What runs its stages, made for the first batch that is seen."""
        if self._made is None:
            model = self._teacher.model.to(self._device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
            note = self._teacher.feature_cache.note
            self._made = prefix.runner(model, self._stop, to_device(x, self._device), note=note)
        return self._made


@dataclass(frozen=True, slots=True)
class TaughtDataset(Dataset[Any]):
    """What an epoch sees, with the teacher's answers to the same views.

    Attributes:
        own: a data set whose `which` tells the view of each sample, where there are several.
        answers: of the plain view, then of each random one.
    """

    own: Any
    answers: tuple[Answers, ...]

    def __len__(self) -> int:
        return len(self.own)

    def at(self, epoch: int) -> TaughtDataset:
        """What an epoch (from 0) sees."""
        return TaughtDataset(self.own.at(epoch), self.answers)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """One sample's input and target."""
        x, y = self.__getitems__([index])
        return x[0], trees.rows(y, 0)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Any]:
        """A batch: inputs, and targets under `TARGET` with the teacher's outputs under `TEACHER`."""
        x, y = self.own.__getitems__(indices)
        which = getattr(self.own, "which", None)
        chosen = [0] * len(indices) if which is None else which[list(indices)].tolist()
        theirs = {name: self._rows(name, indices, chosen) for name in self.answers[0]}
        return x, {TARGET: y, TEACHER: theirs}

    def _rows(self, name: str, indices: Sequence[int], chosen: Sequence[int]) -> Tensor:
        """One output of some samples, each in its view."""
        if len(set(chosen)) == 1:
            return self.answers[chosen[0]][name](indices)
        each = [self.answers[view][name]([index]) for view, index in zip(chosen, indices, strict=True)]
        return torch.cat(each)


def with_teacher(data: EpochData, teacher: Teacher, *, views: int | None) -> EpochData:
    """An epoch's data with the teacher's answers beside the training targets.

    Args:
        data: whose random views, if any, are the same `views` ones in every epoch.
        teacher: of the same samples.
        views: random views beside the plain one.
    """
    count = 0 if teacher.views.augment is None else views or 0
    answers = tuple(teacher.answers(number) for number in range(count + 1))
    taught: EpochDataset = TaughtDataset(data.train, answers)
    return EpochData(boundary=data.boundary, start=data.start, train=taught, val_start=data.val_start, val=data.val)
