"""Views that don't depend on who computes them, and features that are computed once."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zooft import ImagePreprocess, InputSpec, Sample, features
from zooft.features import Views

SPEC = InputSpec(height=16, width=16, resize=18, mean=(0.5,) * 3, std=(0.5,) * 3)
SAMPLES = tuple(Sample(id=str(i), source=i, target=i % 3) for i in range(12))


def read(sample: Sample) -> tuple[NDArray[Any], ...]:
    """A picture that its source determines."""
    rng = np.random.default_rng(sample.source)
    return (rng.integers(0, 256, (20 + sample.source, 24, 3), dtype=np.uint8),)


def noisy(array: NDArray[Any]) -> Tensor:
    """A random view: one of the network's inputs with noise from torch's global generator."""
    return torch.full((3, 16, 16), float(array.mean())) + torch.randn(3, 16, 16)


def views(*, augmented: bool, seed: int = 0, epoch: int = 0) -> Views:
    made = Views(SAMPLES, read=read, preprocess=ImagePreprocess(SPEC), augment=noisy if augmented else None, seed=seed)
    made.epoch = epoch
    return made


def seen(data: Views, *, workers: int = 0, shuffle_seed: int | None = None) -> tuple[Tensor, Tensor]:
    batches = list(features.loader(data, batch_size=5, workers=workers, shuffle_seed=shuffle_seed))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


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
    said = subprocess.run(
        [sys.executable, "-c", code, here], capture_output=True, text=True, env=environment, check=True
    )
    assert float(said.stdout) == float(views(augmented=True, seed=7, epoch=2)[5][0].double().sum())


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


class Prefix(nn.Module):
    """What `precompute` needs of a model: a trunk with BatchNorm, run up to a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1))

    def prefix(self, x: Tensor, stop: int) -> Tensor:
        assert stop == 1
        features: Tensor = self.body(x).flatten(1)
        return features


def precomputed(model: Any, told: list[int]) -> Any:
    return features.precompute(
        model, views(augmented=False), stop=1, batch_size=5, workers=0, device=torch.device("cpu"), advance=told.append
    )


def test_features_are_those_of_evaluation_mode_in_order_and_all_told_of() -> None:
    torch.manual_seed(0)
    model, told = Prefix().train(), list[int]()
    kept = precomputed(model, told)
    x, y = seen(views(augmented=False))
    with torch.inference_mode():
        wanted = model.eval().prefix(x, 1)
    torch.testing.assert_close(kept.tensors[0], wanted)
    assert torch.equal(kept.tensors[1], y)
    assert kept.tensors[0].dtype == torch.float32
    assert told == [5, 5, 2]


def test_kept_features_can_be_learnt_from() -> None:
    kept = precomputed(Prefix(), [])
    layer = nn.Linear(4, 2)
    layer(kept.tensors[0]).sum().backward()
    assert layer.weight.grad is not None


def test_features_that_would_not_fit_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MEMORY_LIMIT", 12 * 4 * 4 - 1)
    assert precomputed(Prefix(), []) is None
    monkeypatch.setattr(features, "MEMORY_LIMIT", 12 * 4 * 4)
    assert precomputed(Prefix(), []) is not None


def test_what_is_remembered_is_not_computed_again() -> None:
    memory: features.Memory = {}
    model, told = Prefix().eval(), list[int]()

    def kept(members: tuple[Sample, ...]) -> Any:
        own = Views(members, read=read, preprocess=ImagePreprocess(SPEC))
        return features.precompute(
            model,
            own,
            stop=1,
            batch_size=5,
            workers=0,
            device=torch.device("cpu"),
            advance=told.append,
            memory=memory,  # type: ignore[arg-type]
        )

    first = kept(SAMPLES[:8])
    model.body = nn.Sequential()  # would fail on an image
    again = kept(SAMPLES[5:2:-1])
    assert torch.equal(again.tensors[0], first.tensors[0][[5, 4, 3]])
    assert again.tensors[1].tolist() == [sample.target for sample in SAMPLES[5:2:-1]]
    assert told == [5, 3, 3]
