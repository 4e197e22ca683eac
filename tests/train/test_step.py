"""Steps: the same gradients whole and in halves, one try more where memory runs out, and no more than one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from test_train import RECIPE, fresh_model, keeping, run, task_loss, views
from torch import Tensor, nn

from zooft import FreezePlan, train
from zooft.compute.profile import Stopwatch
from zooft.errors import PluginError, TrainingError
from zooft.train import step
from zooft.train.speed import Precision


class Hungry(nn.Module):
    """Cross entropy that has memory for so many samples at once."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error = most, error
        self.tries: list[int] = []

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        if logits.requires_grad:
            self.tries.append(len(logits))
            if len(logits) > self.most:
                raise self.error
        return nn.functional.cross_entropy(logits, targets)


OUT_OF_MEMORY = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    "CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: 12 bytes"),
    "Python": MemoryError(),
}
HEAD_ONLY = {"frozen": ("low", "high")}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_where_memory_runs_out_batches_are_halved_once_and_the_result_is_the_same(
    error: Exception, tmp_path: Path
) -> None:
    hungry = Hungry(2, error)
    seen = run(fresh_model(), loss=hungry, store=tmp_path, **HEAD_ONLY)
    plain = run(fresh_model(), store=tmp_path, **HEAD_ONLY)
    assert [value for pair in seen.losses() for value in pair] == pytest.approx(
        [value for pair in plain.losses() for value in pair], abs=1e-6
    )
    assert hungry.tries[:3] == [4, 2, 2]
    assert hungry.tries.count(4) == 1  # halves from there on
    messages = [note for note in seen.notes if "memory" in note]
    assert len(messages) == 1
    assert "4 samples" in messages[0]
    assert "two halves" in messages[0]


def test_where_a_half_does_not_fit_either_training_stops_with_advice() -> None:
    with pytest.raises(TrainingError, match=r"4 samples in a batch, also in two halves.*last/.*--batch-size"):
        run(fresh_model(), loss=Hungry(1, OUT_OF_MEMORY["CPU"]))


def test_other_errors_are_not_mistaken_for_a_lack_of_memory() -> None:
    with pytest.raises(PluginError, match="RuntimeError: of another kind"):
        run(fresh_model(), loss=Hungry(1, RuntimeError("of another kind")))


def learner(model: Any, parts: int, precision: Precision | None = None) -> step.Learner:
    return step.Learner(
        module=model,
        loss=task_loss(nn.CrossEntropyLoss()),
        plan=FreezePlan(frozen=frozenset()),
        start=0,
        precision=precision or Precision(),
        parts=parts,
        accelerator=Accelerator(cpu=True),
        clock=Stopwatch(on=False),
        note=lambda _text: None,
    )


class Through(nn.Module):
    """A model of one layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, _start: int) -> dict[str, Tensor]:
        return {"logits": self.layer(x)}


@pytest.mark.parametrize("count", [2, 5, 8])
def test_halves_give_the_gradients_of_the_whole(count: int) -> None:
    """Of a model without BatchNorm, which would see half a batch."""
    torch.manual_seed(0)
    weights = nn.Linear(3, 2)
    x, y = torch.randn(count, 3), torch.arange(count) % 2
    found = []
    for parts in (1, 2):
        weights.zero_grad()
        of = learner(Through(weights), parts)
        value = step._backward(of, x, y, (count,)) if parts == 1 else step._in_parts(of, x, y)
        assert weights.weight.grad is not None
        found.append((float(value), weights.weight.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


@pytest.mark.parametrize("requested", ["fp32", "bf16"])
def test_a_precision_that_is_requested_is_used_without_measuring(requested: Any) -> None:
    def none() -> Any:
        raise AssertionError

    probe = step.Probe(
        model=fresh_model(),
        loss=task_loss(nn.CrossEntropyLoss()),
        hyperparameters=replace(RECIPE, precision=requested),
        accelerator=Accelerator(cpu=True),
        start=0,
        batch=none,
    )
    chosen = step.choose_precision(probe, steps=10**6, small=False)
    assert chosen.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[requested]
    assert step.from_values(step.as_values(chosen)) == replace(chosen, reason="")


def test_a_bf16_run_learns_and_keeps_its_weights_in_float32() -> None:
    model = fresh_model()
    seen = run(model, replace(RECIPE, epochs=6, precision="bf16"))
    assert max(record.metrics["accuracy"] for record in seen.records) == 1.0
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}


def test_measuring_changes_nothing_but_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 by measurement gives what float32 by order gives, bit by bit."""
    measured: list[int] = []

    def choose(model: Any, forward: Any, loss: Any, batch: Any, *, steps: int) -> Precision:
        from zooft.train import speed

        measured.append(steps)
        speed_choice = original(model, forward, loss, batch, steps=10**6)
        assert isinstance(speed_choice, speed.Precision)
        return Precision()

    original = step.speed.choose_precision
    monkeypatch.setattr(step.speed, "choose_precision", choose)
    auto = run(fresh_model(), replace(RECIPE, precision="auto"))
    assert measured == [15]
    assert auto.losses() == run(fresh_model()).losses()


def test_the_batch_size_is_found_within_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = run(fresh_model(), replace(RECIPE, batch_size="auto", epochs=1), train=views(range(320)))
    assert any(note.startswith("batch size 16: ") for note in seen.notes)  # an epoch keeps twenty steps
    monkeypatch.setattr(step.speed, "available_memory", lambda _device: 2**16)
    seen = run(fresh_model(), replace(RECIPE, batch_size="auto", epochs=1), train=views(range(320)))
    assert any("may not fit" in note for note in seen.notes)


def test_the_parts_of_a_step_are_timed(tmp_path: Path) -> None:
    clock = Stopwatch()
    job = train.Job(
        model=fresh_model(),
        train=views(range(18)),
        val=views(range(18, 28)),
        keep_last=False,
        loss=task_loss(nn.CrossEntropyLoss()),
        metrics=lambda _o, _t: {"a": 1.0},
        primary="a",
        feature_cache=keeping(tmp_path),
        plan=lambda _epoch: FreezePlan(frozen=frozenset({"low"})),
    )
    watch = train.Watch(
        computing=lambda _t, _n: lambda _d: None, epoch=lambda _r: None, note=lambda _n: None, clock=clock
    )
    train.fit(job, RECIPE, Accelerator(cpu=True), watch)
    times = {part.name: part.times for part in clock.parts()}
    assert (times["forward"], times["backward"], times["optimizer"]) == (15, 15, 15)
    assert times["validation"] == 3


def test_a_lack_of_memory_while_measuring_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any, **_named: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(step.speed, "choose_precision", full)
    seen = run(fresh_model(), replace(RECIPE, precision="auto", epochs=1))
    assert any("memory ran out while other ways were measured" in note for note in seen.notes)


def with_norm_behind_the_pooling() -> Any:
    model = fresh_model()
    model.head = nn.Sequential(nn.BatchNorm1d(8), model.head)
    return model


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_a_last_sample_alone_is_no_end_for_a_norm_behind_the_pooling(precision: Any) -> None:
    seen = run(with_norm_behind_the_pooling(), replace(RECIPE, precision=precision), train=views(range(17)))
    assert len(seen.records) == RECIPE.epochs


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_batches_of_one_are_refused_with_the_reason_where_a_norm_cannot_learn_from_them(precision: Any) -> None:
    with pytest.raises(
        TrainingError, match=r"a batch of 1 has a single sample for a BatchNorm.*--batch-size 8 or more"
    ):
        run(with_norm_behind_the_pooling(), replace(RECIPE, batch_size=1, precision=precision))
    assert len(run(fresh_model(), replace(RECIPE, batch_size=1)).records) == RECIPE.epochs
