"""Choices for speed: what they measure, and that measuring leaves no trace."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zooft.train import speed
from zooft.train.speed import Footprint, Precision

CPU = torch.device("cpu")
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": lambda parameters, **more: torch.optim.SGD(parameters, momentum=0.9, **more),
}


class Net(nn.Module):
    """Everything that a probe could disturb: BatchNorm, dropout, and draws from three generators."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3))
        self.fc = nn.Linear(8, 2)
        self.drawn: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        self.drawn.append(random.random() + float(np.random.random()))  # noqa: S311
        logits: Tensor = self.fc(self.body(x).mean((2, 3)))
        return logits


class Slow(nn.Module):
    """Takes the given time in float32 and in bfloat16."""

    def __init__(self, clock: list[float], *, full: float, half: float, fine: bool = True) -> None:
        super().__init__()
        self.clock, self.full, self.half, self.fine = clock, full, half, fine
        self.fc = nn.Linear(4, 2)
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        half = torch.is_autocast_enabled("cpu")
        self.clock[0] += (self.half if half else self.full) * len(x)
        self.sizes.append(len(x))
        logits: Tensor = self.fc(x)
        return logits if self.fine or not half else logits * torch.inf


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: now[0])
    return now


def probed(model: nn.Module, *, batch: int = 32, steps: int = 10_000) -> Precision:
    x, y = torch.randn(batch, 4), torch.zeros(batch, dtype=torch.long)
    return speed.choose_precision(model, model, nn.CrossEntropyLoss(), (x, y), steps=steps)


def test_the_faster_precision_is_used(clock: list[float]) -> None:
    assert probed(Slow(clock, full=0.2, half=0.1)).dtype is torch.bfloat16
    assert probed(Slow(clock, full=0.1, half=0.2)).dtype is torch.float32


def test_a_gain_too_small_to_matter_stays_exact(clock: list[float]) -> None:
    assert probed(Slow(clock, full=0.104, half=0.1)).dtype is torch.float32
    assert probed(Slow(clock, full=2e-7, half=1e-7)).dtype is torch.float32


def test_a_precision_that_loses_the_loss_isn_t_used(clock: list[float]) -> None:
    chosen = probed(Slow(clock, full=0.2, half=0.1, fine=False))
    assert chosen.dtype is torch.float32
    assert "bfloat16" not in chosen.reason


def test_it_says_what_it_measured(clock: list[float]) -> None:
    message = probed(Slow(clock, full=0.2, half=0.1)).reason
    assert "bfloat16" in message
    assert "6400 ms" in message
    assert "3200 ms" in message


@pytest.mark.parametrize("steps", [30, 100, 200, 500, 2000])
def test_the_probe_costs_little_of_the_run(clock: list[float], steps: int) -> None:
    model = Slow(clock, full=1.0, half=1.0)
    probed(model, steps=steps)
    assert sum(model.sizes) <= 0.065 * steps * 32


def test_a_short_run_isnt_probed(clock: list[float]) -> None:
    model = Slow(clock, full=0.2, half=0.1)
    chosen = probed(model, steps=6)
    assert model.sizes == []
    assert chosen.dtype is torch.float32
    assert "15% of 6 steps" in chosen.reason


@pytest.mark.parametrize("steps", [7, 15])
def test_a_rather_short_run_is_probed_as_shortly_as_can_be(clock: list[float], steps: int) -> None:
    model = Slow(clock, full=0.2, half=0.1)
    assert probed(model, steps=steps).dtype is torch.bfloat16
    assert 0 < sum(model.sizes) <= 0.15 * steps * 32


def test_a_long_first_step_is_a_measurement_too(clock: list[float]) -> None:
    long, short = Slow(clock, full=0.5, half=0.3), Slow(clock, full=0.05, half=0.03)
    assert probed(long, steps=15).dtype is probed(short, steps=15).dtype is torch.bfloat16
    assert len(long.sizes) == 4  # each precision once; with our kernels, none of which fit, the forward pass
    assert len(short.sizes) == 6


def test_kernels_arent_tried_where_float32_is_far_behind(clock: list[float]) -> None:
    near, far = Slow(clock, full=0.05, half=0.03), Slow(clock, full=0.07, half=0.03)
    assert probed(near, steps=15).dtype is probed(far, steps=15).dtype is torch.bfloat16
    assert len(far.sizes) == len(near.sizes) - 1


def test_what_is_far_behind_at_once_isnt_measured_again(clock: list[float]) -> None:
    near, far, short = (Slow(clock, full=full, half=half) for full, half in ((0.13, 0.1), (0.19, 0.1), (0.013, 0.008)))
    assert probed(near).dtype is probed(far).dtype is probed(short).dtype is torch.bfloat16
    assert len(far.sizes) == len(near.sizes) - 3
    # what the library prepares in so short a first step could be the difference
    assert len(short.sizes) == len(far.sizes) + 1


def test_a_probe_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = Net().train()
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    before = copy.deepcopy(model.state_dict())
    grads = {name: (p.grad, p.grad.clone()) for name, p in model.named_parameters() if p.grad is not None}
    x, y = torch.randn(8, 3, 16, 16), torch.zeros(8, dtype=torch.long)
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    model.drawn.clear()
    speed.choose_precision(model, model, nn.CrossEntropyLoss(), (x, y), steps=10**6)
    speed.footprint(model, model, nn.CrossEntropyLoss(), (x, y), optimizer="sgd", precision=Precision())
    assert len(model.drawn) > 4  # it did run
    after = float(torch.rand(())), float(np.random.random()), random.random()  # noqa: S311
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    assert after == (float(torch.rand(())), float(np.random.random()), random.random())  # noqa: S311
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert len(grads) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        own, value = grads[name]
        assert parameter.grad is own
        assert torch.equal(own, value)


def test_frozen_models_and_other_devices_have_nothing_to_choose() -> None:
    frozen = nn.Linear(4, 2).requires_grad_(False)
    assert probed(frozen).dtype is torch.float32


def test_a_precision_is_entered_and_left() -> None:
    with Precision(dtype=torch.bfloat16, kernels=True)(CPU):
        assert nn.Linear(4, 2)(torch.randn(1, 4)).dtype is torch.bfloat16
    assert nn.Linear(4, 2)(torch.randn(1, 4)).dtype is torch.float32


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_fused_optimizers_equal_the_plain_ones(kind: str) -> None:
    settings = speed.optimizer_settings(kind, CPU)
    assert settings == {"fused": True}
    results = []
    for more in (settings, {"foreach": False}):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).to(memory_format=torch.preserve_format)
        groups = [{"params": net[0].parameters(), "weight_decay": 0.1}, {"params": net[2].parameters(), "lr": 1e-3}]
        optimizer = OPTIMIZERS[kind](groups, lr=1e-2, **more)
        for _ in range(20):
            optimizer.zero_grad()
            net(torch.randn(8, 6)).square().sum().backward()
            optimizer.step()
        results.append([p.detach().clone() for p in net.parameters()])
    for fused, plain in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)


def test_unknown_optimizers_and_devices_get_no_settings() -> None:
    assert speed.optimizer_settings("lion", CPU) == {}
    assert speed.optimizer_settings("adamw", torch.device("meta")) == {}


@pytest.mark.parametrize(
    ("choice", "device", "steps", "expected"),
    [("on", "cpu", 1, True), ("off", "cuda", 10**6, False), ("auto", "cpu", 10**6, False),
     ("auto", "cuda", 10**6, True), ("auto", "cuda", 10, False)],
)  # fmt: skip # a table of cases
def test_compiling(choice: Any, device: str, steps: int, expected: bool) -> None:
    assert speed.compile_wanted(choice, torch.device(device), steps=steps) is expected


def test_the_footprint_counts_what_autograd_saves() -> None:
    """A linear layer keeps its input, ReLU its output, which the next layer's input is; known by hand."""
    net = nn.Sequential(nn.Linear(1000, 3000, bias=False), nn.ReLU(), nn.Linear(3000, 2, bias=False))
    x, y = torch.randn(1, 1000), torch.zeros(1, dtype=torch.long)
    found = speed.footprint(net, net, nn.CrossEntropyLoss(), (x, y), optimizer="adamw", precision=Precision())
    weights = 4 * (1000 * 3000 + 3000 * 2)
    assert found.fixed == pytest.approx(3 * weights, rel=0.01)
    assert found.per_sample == pytest.approx(4 * (1000 + 3000) + 3 * 4 * 3000, rel=0.01)


def test_the_footprint_predicts_what_a_larger_batch_saves() -> None:
    torch.manual_seed(0)
    model, loss = Net().train(), nn.CrossEntropyLoss()
    x, y = torch.randn(2, 3, 16, 16), torch.zeros(2, dtype=torch.long)
    found = speed.footprint(model, model, loss, (x, y), optimizer="sgd", precision=Precision())
    total: dict[int, int] = {}
    stored: list[Tensor] = []
    parameters = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            total[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            stored.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(model(torch.randn(32, 3, 16, 16)), torch.zeros(32, dtype=torch.long))
    largest = max(total.values()) / 32
    assert 32 * (found.per_sample - 3 * largest) == pytest.approx(sum(total.values()), rel=0.02)


@pytest.mark.parametrize(
    ("available", "size"),
    [(10**3, 8), (100 + 16 * 10, 8), (int((100 + 160) / 0.7) + 1, 16), (int((100 + 640) / 0.7) + 1, 64), (10**9, 512)],
)
def test_the_largest_power_of_two_that_fits(available: int, size: int) -> None:
    cost = Footprint(fixed=100, per_sample=10)
    if available == 10**3:
        cost = Footprint(fixed=10**6, per_sample=10)
    found, text = speed.find_batch_size(cost, available)
    assert found == size
    assert ("may not fit" in text) is (cost.of(size) > 0.7 * available)
    assert f"batch size {size}" in text


def test_a_batch_stays_below_the_callers_limit() -> None:
    assert speed.find_batch_size(Footprint(fixed=0, per_sample=1), 10**9, at_most=100)[0] == 64


def test_lack_of_memory_is_distinguished_from_other_faults() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**60, dtype=torch.uint8)
    assert speed.is_out_of_memory(real.value)
    assert speed.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert speed.is_out_of_memory(MemoryError())
    assert speed.is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not speed.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not speed.is_out_of_memory(ValueError("CUDA out of memory"))


def test_memory_of_this_machine() -> None:
    found = speed.available_memory(CPU)
    assert found is not None
    assert found > 2**26
