"""SampleDataset that don't depend on who computes them, and features that are computed once."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize

from zooft import Anatomy, Family, Geometry, ImagePreprocess, InputSpec, Sample, Stage, features
from zooft.compute.distributed import Batches
from zooft.errors import DataError
from zooft.features import FeatureCache, SampleDataset, outputs, parallel, prefix
from zooft.features import cache as keeping
from zooft.features.dataset import InMemory, MovedTargets, to_row
from zooft.model.adapted import AdaptedModel
from zooft.model.backbone import load_backbone
from zooft.storage.cache import Store

SPEC = InputSpec(height=16, width=16, resize=18, mean=(0.5,) * 3, std=(0.5,) * 3)
SAMPLES = tuple(Sample(id=str(i), source=i, target=i % 3) for i in range(12))


def read(sample: Sample) -> tuple[NDArray[Any], ...]:
    """A picture that its source determines."""
    rng = np.random.default_rng(sample.source)
    return (rng.integers(0, 256, (20 + sample.source, 24, 3), dtype=np.uint8),)


def noisy(array: NDArray[Any]) -> Tensor:
    """A random view: one of the network's inputs with noise from torch's global generator."""
    return torch.full((3, 16, 16), float(array.mean())) + torch.randn(3, 16, 16)


def levels(array: NDArray[Any]) -> Tensor:
    """A random view in levels: a piece of the picture, its channels last in memory as torchvision leaves them."""
    top, left = torch.randint(0, 4, (2,)).tolist()
    return torch.from_numpy(array).permute(2, 0, 1)[:, top : top + 16, left : left + 16]


def views(*, augmented: bool, seed: int = 0, epoch: int = 0) -> SampleDataset:
    augment = noisy if augmented else None
    return SampleDataset(SAMPLES, read=read, preprocess=ImagePreprocess(SPEC), augment=augment, seed=seed).at(epoch)


def seen(data: SampleDataset, *, workers: int = 0, shuffle_seed: int | None = None) -> tuple[Tensor, Tensor]:
    order = None if shuffle_seed is None else Batches(samples=len(data), size=5, seed=shuffle_seed)
    batches = list(features.loader(data, batch_size=5, workers=workers, batches=order))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


@pytest.mark.parametrize("workers", [0, 2])
def test_random_views_in_levels_are_brought_to_scale_as_torchvision_does(workers: int) -> None:
    spec = InputSpec(height=16, width=16, resize=18, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    preprocess = ImagePreprocess(spec)
    made = SampleDataset(SAMPLES, read=read, preprocess=preprocess, augment=levels, scale=preprocess.normalise_).at(0)
    raw = SampleDataset(SAMPLES, read=read, preprocess=preprocess, augment=levels).at(0)
    batch, _ = seen(made, workers=workers)
    unscaled, _ = seen(raw, workers=workers)
    expected = normalize(unscaled / 255, list(spec.mean), list(spec.std))
    torch.testing.assert_close(batch, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(batch[5], made[5][0])
    assert batch.is_contiguous()


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_loader_process_can_t_read_is_reported_as_without_one(workers: int) -> None:
    """Not torch's way: the whole traceback of the process as the error's text, in which paths may name patients."""

    def refuse(one: Sample) -> Any:
        try:
            raise OSError("/SECRET/path")
        except OSError as error:
            raise DataError(f"{one.id} was readable when the data was listed") from error

    broken = SampleDataset(SAMPLES, read=refuse, preprocess=ImagePreprocess(SPEC))
    with pytest.raises(DataError) as caught:
        seen(broken, workers=workers)
    assert str(caught.value) == f"{SAMPLES[0].id} was readable when the data was listed"


@pytest.mark.parametrize("augmented", [False, True])
def test_views_are_the_same_for_any_number_of_workers(augmented: bool) -> None:
    alone, _ = seen(views(augmented=augmented))
    helped, _ = seen(views(augmented=augmented), workers=2)
    assert torch.equal(alone, helped)


def test_random_views_differ_by_sample_epoch_and_seed() -> None:
    base = seen(views(augmented=True))[0]
    assert torch.equal(base, seen(views(augmented=True))[0])
    assert not torch.equal(base, seen(views(augmented=True, epoch=1))[0])
    assert not torch.equal(base, seen(views(augmented=True, seed=1))[0])
    noise = base - base.mean((1, 2, 3), keepdim=True)
    assert not torch.allclose(noise[0], noise[1])


def test_plain_views_are_the_same_in_every_epoch() -> None:
    assert torch.equal(seen(views(augmented=False))[0], seen(views(augmented=False, epoch=3))[0])


def test_a_random_view_leaves_torchs_own_generator_alone() -> None:
    state = torch.random.get_rng_state()
    views(augmented=True)[3]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_random_views_are_the_same_in_another_process() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_features as t; "
        "print(float(t.views(augmented=True, seed=7, epoch=2)[5][0].double().sum()))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    here = os.path.dirname(__file__)  # noqa: PTH120 -- handed on as text
    message = subprocess.run(
        [sys.executable, "-c", code, here], capture_output=True, text=True, env=environment, check=True
    )
    assert float(message.stdout) == float(views(augmented=True, seed=7, epoch=2)[5][0].double().sum())


def test_the_order_is_the_seeds_and_every_sample_comes_once() -> None:
    plain, targets = seen(views(augmented=False))
    order = [float(x.sum()) for x in plain]
    once = [float(x.sum()) for x in seen(views(augmented=False), shuffle_seed=4)[0]]
    again = [float(x.sum()) for x in seen(views(augmented=False), shuffle_seed=4, workers=2)[0]]
    other = [float(x.sum()) for x in seen(views(augmented=False), shuffle_seed=5)[0]]
    assert once == again
    assert len({tuple(order), tuple(once), tuple(other)}) == 3
    assert sorted(once) == sorted(order)
    assert targets.tolist() == [s.target for s in SAMPLES]


def test_a_random_view_is_the_samples_own_whatever_the_others() -> None:
    few = SampleDataset(SAMPLES[5:7], read=read, preprocess=ImagePreprocess(SPEC), augment=noisy).at(3)
    assert torch.equal(few[0][0], views(augmented=True, epoch=3)[5][0])


class Net(nn.Module):
    """A trunk with BatchNorm and dropout in front of the pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU())
        self.fc: nn.Module = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.body(x).mean((2, 3)))
        return logits


def adapted(seed: int = 0) -> AdaptedModel:
    stages = {"body": Stage(("body",)), "pool": Stage((), lambda _m, x: x.mean((2, 3)))}
    family = Family(
        name="toy",
        summary="",
        models=lambda: ["net"],
        build=lambda _name: Net(),
        anatomy=lambda _name, _module: Anatomy(stages=stages, classifier=("fc",), input=SPEC),
    )
    torch.manual_seed(seed)
    backbone = load_backbone(family, "net", weights="random", sources=())
    return AdaptedModel(backbone, nn.Linear(4, 2))


@dataclass
class Told:
    """What was computed, and the messages."""

    computed: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def keeping(self, folder: Path, **changes: Any) -> FeatureCache:
        def computing(title: str, total: int) -> Callable[[int], None]:
            self.computed += [] if title == "the samples' content" else [total]
            return lambda _done: None

        usual: dict[str, Any] = {"of": {"test": "features"}, "digest": lambda sample: f"{sample.source:064x}"}
        return FeatureCache(
            store=Store(folder, 2**30), computing=computing, note=self.notes.append, **{**usual, **changes}
        )


def everything(data: Any) -> Tensor:
    return data.__getitems__(list(range(len(data))))[0]


def required(model: AdaptedModel, data: SampleDataset, stop: int = 2) -> Tensor:
    """What the stages give, run plainly."""
    with torch.inference_mode():
        return model.eval().prefix(seen(data)[0], stop).clone()


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_features_are_those_of_evaluation_mode_in_order_and_rounded_to_halves(tmp_path: Path, stop: int) -> None:
    model, told = adapted().train(), Told()
    stored = features.inputs(model, views(augmented=False), stop=stop, feature_cache=told.keeping(tmp_path))
    assert stored is not None
    torch.testing.assert_close(everything(stored), required(model, views(augmented=False), stop), rtol=1e-3, atol=1e-3)
    assert stored.targets.stacked.tolist() == [sample.target for sample in SAMPLES]
    assert everything(stored).dtype == torch.float32
    assert told.computed == [12]


def test_batches_side_by_side_give_the_same_bits_each_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "AT_A_TIME", 2)
    found = []
    for count in (1, 3):
        monkeypatch.setattr(parallel, "parallel_batches", lambda _device, count=count: count)
        one = Told().keeping(tmp_path / str(count))
        found.append(features.inputs(adapted(), views(augmented=False), stop=1, feature_cache=one))
    assert found[0] is not None
    assert found[1] is not None
    assert torch.equal(everything(found[0]), everything(found[1]))


def test_frozen_stages_are_prepared_by_the_first_batch_whichever_lane_is_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "AT_A_TIME", 11)  # and a last one of 1
    monkeypatch.setattr(parallel, "parallel_batches", lambda _device: 2)
    probes, make = [], prefix.runner

    def noted(model: AdaptedModel, stop: int, probe: Tensor, **more: Any) -> Any:
        probes.append(len(probe))
        return make(model, stop, probe, **more)

    monkeypatch.setattr(prefix, "runner", noted)
    for number in range(10):
        features.inputs(adapted(), views(augmented=False), stop=1, feature_cache=Told().keeping(tmp_path / str(number)))
    assert probes == [11] * 10


def test_what_is_cached_is_not_computed_again(tmp_path: Path) -> None:
    model, told = adapted(), Told()
    first = features.inputs(model, views(augmented=False), stop=2, feature_cache=told.keeping(tmp_path))

    def unreadable(_sample: Sample) -> Any:
        raise AssertionError

    fewer = SampleDataset(SAMPLES[5:2:-1], read=unreadable, preprocess=ImagePreprocess(SPEC))
    again = features.inputs(model, fewer, stop=2, feature_cache=told.keeping(tmp_path))
    assert first is not None
    assert again is not None
    assert torch.equal(everything(again), everything(first)[[5, 4, 3]])
    assert again.targets.stacked.tolist() == [sample.target for sample in SAMPLES[5:2:-1]]
    assert told.computed == [12]


@pytest.mark.parametrize(
    "other",
    [
        {"model": lambda: adapted(seed=1)},
        {"of": {"test": "other preprocessing"}},
        {"digest": lambda sample: f"{sample.source + 100:064x}"},
        {"dtype": torch.bfloat16},
        {"stop": 1},
        {"seed": 1},
        {"views": 2},
    ],
    ids=["weights", "preprocessing", "content", "precision", "stages", "seed of views", "another view"],
)
def test_features_of_something_else_are_never_served(tmp_path: Path, other: dict[str, Any]) -> None:
    told = Told()
    features.inputs(adapted(), views(augmented=True), stop=2, feature_cache=told.keeping(tmp_path), views=1)
    assert told.computed == [12, 12]
    made, stop = other.pop("model", adapted)(), other.pop("stop", 2)
    seed, number = other.pop("seed", 0), other.pop("views", 1)
    data = views(augmented=True, seed=seed)
    stored = features.inputs(made, data, stop=stop, feature_cache=told.keeping(tmp_path, **other), views=number)
    assert told.computed[2:] == ([12] if seed or number == 2 else [12, 12])  # the plain view has no seed
    assert stored is not None
    for take, view in zip(stored.takers, range(3), strict=False):
        torch.testing.assert_close(take(range(12)), required(made, data.with_view(view), stop), rtol=0.05, atol=0.05)


def test_a_change_of_one_weight_is_enough(tmp_path: Path) -> None:
    told, model = Told(), adapted()
    features.inputs(model, views(augmented=False), stop=2, feature_cache=told.keeping(tmp_path))
    model.trunk.get_buffer("body.1.running_mean")[0] += 1
    stored = features.inputs(model, views(augmented=False), stop=2, feature_cache=told.keeping(tmp_path))
    assert told.computed == [12, 12]
    assert stored is not None
    torch.testing.assert_close(everything(stored), required(model, views(augmented=False)), rtol=1e-3, atol=1e-3)


def test_features_on_disk_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, told = adapted(), Told()
    loaded = features.inputs(model, views(augmented=False), stop=1, feature_cache=told.keeping(tmp_path))
    monkeypatch.setattr(outputs, "LOADED_BYTES", 0)
    mapped = features.inputs(model, views(augmented=False), stop=1, feature_cache=told.keeping(tmp_path))
    assert loaded is not None
    assert mapped is not None
    order = [7, 0, 7, 11]
    assert torch.equal(loaded.__getitems__(order)[0], mapped.__getitems__(order)[0])


def test_what_the_disk_cannot_store_stays_in_memory_and_what_cannot_be_stored_is_run_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("where the store's folder should be")
    model, told = adapted(), Told()
    held = features.inputs(model, views(augmented=False), stop=2, feature_cache=told.keeping(blocked))
    assert held is not None
    torch.testing.assert_close(everything(held), required(model, views(augmented=False)), rtol=1e-3, atol=1e-3)
    monkeypatch.setattr(keeping, "HELD_BYTES", 12 * 4 * 2 - 1)
    assert features.inputs(model, views(augmented=False), stop=2, feature_cache=told.keeping(blocked)) is None
    train = views(augmented=False)
    fed = features.feed(model, train, None, boundary=2, views=None, feature_cache=told.keeping(blocked))
    assert (fed.start, fed.train) == (0, train)
    assert "the frozen stages run in every epoch, because their outputs can't be cached" in told.notes


def test_numbers_beyond_half_precision_stay_as_they_are(tmp_path: Path) -> None:
    model = adapted()
    with torch.no_grad():
        model.trunk.get_parameter("body.1.bias")[:] = 1e6
    stored = features.inputs(model, views(augmented=False), stop=2, feature_cache=Told().keeping(tmp_path))
    assert stored is not None
    torch.testing.assert_close(everything(stored), required(model, views(augmented=False)))


@pytest.mark.parametrize("loaded", [0, 2**20])
def test_numbers_within_and_beyond_half_precision_stand_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: int
) -> None:
    """The brightest picture alone exceeds the range."""
    monkeypatch.setattr(outputs, "LOADED_BYTES", loaded)
    monkeypatch.setattr(keeping, "AT_A_TIME", 1)
    model, told = adapted(), Told()
    plain = required(model, views(augmented=False))
    scale = 65504 / float(plain.max()) * 1.0001
    with torch.no_grad():
        for name in ("body.1.weight", "body.1.bias"):
            model.trunk.get_parameter(name).mul_(scale)
    stored = features.inputs(model, views(augmented=False), stop=2, feature_cache=told.keeping(tmp_path))
    assert stored is not None
    torch.testing.assert_close(everything(stored), required(model, views(augmented=False)), rtol=1e-3, atol=1.0)


def test_an_epoch_sees_each_sample_in_one_of_its_cached_views(tmp_path: Path) -> None:
    model, data = adapted(), views(augmented=True).with_view(0)
    stored = features.inputs(model, data, stop=2, feature_cache=Told().keeping(tmp_path), views=3)
    assert stored is not None
    each = torch.stack([required(model, data.with_view(number)) for number in range(4)])
    numbers = set()
    for epoch in range(6):
        rows = everything(stored.at(epoch))
        near = [((each[:, i] - rows[i]) / rows[i].abs().amax()).abs().amax(-1) for i in range(len(rows))]
        assert all(float(distance.min()) < 1e-3 for distance in near)
        numbers |= {int(distance.argmin()) for distance in near}
        assert torch.equal(rows, everything(stored.at(epoch)))
    assert numbers == {0, 1, 2, 3}


def test_random_views_of_decoded_arrays_are_those_of_the_files(tmp_path: Path) -> None:
    told = Told()
    reads: list[str] = []

    def counted(sample: Sample) -> tuple[NDArray[Any], ...]:
        reads.append(sample.id)
        return read(sample)

    data = SampleDataset(SAMPLES, read=counted, preprocess=ImagePreprocess(SPEC), augment=noisy)
    fed = features.feed(adapted(), data, None, boundary=0, views=None, feature_cache=told.keeping(tmp_path))
    for epoch in range(3):
        assert torch.equal(seen(fed.train.at(epoch))[0], seen(views(augmented=True, epoch=epoch))[0])  # type: ignore[arg-type]
    assert len(reads) == len(SAMPLES)


def test_what_is_changed_while_it_is_read_is_not_cached_under_its_old_content(tmp_path: Path) -> None:
    told = Told()
    changed = told.keeping(tmp_path, unchanged=lambda sample, _digest: sample.source != 7)
    with pytest.raises(DataError, match="7 was changed while this run was reading it"):
        features.inputs(adapted(), views(augmented=False), stop=2, feature_cache=changed)
    told.computed.clear()
    features.inputs(adapted(), views(augmented=False), stop=2, feature_cache=told.keeping(tmp_path))
    assert told.computed == [12]


def test_random_views_of_renamed_samples_are_their_own_whether_cached_or_not(tmp_path: Path) -> None:
    """A view is seeded by the sample's id, so a renamed sample's is another one than the cached one."""
    model, told = adapted(), Told()
    features.inputs(model, views(augmented=True), stop=2, feature_cache=told.keeping(tmp_path / "warm"), views=1)
    renamed = SampleDataset(
        [replace(sample, id=f"new {sample.id}") for sample in SAMPLES],
        read=read,
        preprocess=ImagePreprocess(SPEC),
        augment=noisy,
    )
    warm = features.inputs(model, renamed, stop=2, feature_cache=told.keeping(tmp_path / "warm"), views=1)
    cold = features.inputs(model, renamed, stop=2, feature_cache=told.keeping(tmp_path / "cold"), views=1)
    assert warm is not None
    assert cold is not None
    for one, other in zip(warm.takers, cold.takers, strict=True):
        assert torch.equal(one(range(12)), other(range(12)))


@pytest.mark.parametrize("loaded", [0, 2**20])
def test_cached_features_can_be_sent_to_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: int
) -> None:
    monkeypatch.setattr(outputs, "LOADED_BYTES", loaded)
    stored = features.inputs(adapted(), views(augmented=False), stop=2, feature_cache=Told().keeping(tmp_path))
    assert torch.equal(everything(pickle.loads(pickle.dumps(stored))), everything(stored))  # noqa: S301 -- our own


def test_what_is_held_is_bounded_over_all_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("where the store's folder should be")
    one = 12 * 4 * 2
    monkeypatch.setattr(keeping, "HELD_BYTES", 2 * one)
    assert features.inputs(adapted(), views(augmented=True), stop=2, feature_cache=Told().keeping(blocked), views=1)
    assert (
        features.inputs(adapted(), views(augmented=True), stop=2, feature_cache=Told().keeping(blocked), views=2)
        is None
    )


def test_moved_targets_stay_in_memory_as_far_as_they_fit() -> None:
    made: list[int] = []

    def encode(target: int) -> NDArray[np.uint8]:
        made.append(target)
        return np.full((4, 4), target, np.uint8)

    def move(mask: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
        return mask + np.uint8(geometry.view[0])

    placing = features.Placing(
        geometry=lambda _arrays: Geometry(matrix=np.eye(2, 3), source=(4, 4), view=(4, 4)), move=move
    )
    members = SampleDataset(SAMPLES, read=read, preprocess=ImagePreprocess(SPEC), encode=encode, placing=placing)
    rows = [
        np.stack([to_row(Geometry(matrix=np.eye(2, 3), source=(4, 4), view=(size, 4))) for _ in SAMPLES])
        for size in (4, 8)
    ]
    targets = MovedTargets(members, tuple(rows), InMemory(most=3 * 16))
    for _ in range(2):
        found = targets.rows([0, 5, 0, 1], [0, 0, 1, 1])
        assert [int(mask[0, 0]) for mask in found] == [0 + 4, 2 + 4, 0 + 8, 1 + 8]
    assert made == [0, 2, 0, 1, 1]  # the first three fit, the last is made anew
