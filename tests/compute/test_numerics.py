"""The library that multiplies matrices: changed only where it stays exact, and put back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zooft.compute.kernels import numerics
from zooft.compute.kernels.numerics import fast_matmul

BACKEND: Any = torch.backends.mkldnn


def silent(_message: str) -> None:
    pass


def error_of_products() -> float:
    """Of torch's float32 product against numpy's in float64."""
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((300, 700)), rng.standard_normal((700, 200))
    a, b = a.astype(np.float32).astype(np.float64), b.astype(np.float32).astype(np.float64)
    found = torch.from_numpy(a).float() @ torch.from_numpy(b).float()
    return float(np.linalg.norm(found.numpy() - a @ b) / np.linalg.norm(a @ b))


def claiming(monkeypatch: pytest.MonkeyPatch, gain: float) -> None:
    monkeypatch.setattr(numerics, "_gain_of_onednn", lambda: gain)


def test_products_within_are_as_exact_as_float32_is() -> None:
    with fast_matmul(silent):
        assert error_of_products() < 2e-6


def test_a_gain_is_taken_and_reported_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    claiming(monkeypatch, 1.8)
    notes: list[str] = []
    with fast_matmul(notes.append) as changed:
        assert changed
        assert BACKEND.matmul.fp32_precision == "bf16"
    assert BACKEND.matmul.fp32_precision == "none"
    assert torch.get_float32_matmul_precision() == "highest"
    assert len(notes) == 1
    assert "1.8" in notes[0]


def test_what_is_no_faster_isn_t_used(monkeypatch: pytest.MonkeyPatch) -> None:
    claiming(monkeypatch, 1.1)
    notes: list[str] = []
    with fast_matmul(notes.append) as changed:
        assert not changed
        assert BACKEND.matmul.fp32_precision == "none"
    assert notes == []


def test_it_is_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    claiming(monkeypatch, 2.0)
    with pytest.raises(ZeroDivisionError), fast_matmul(silent):
        raise ZeroDivisionError
    assert BACKEND.matmul.fp32_precision == "none"


def test_a_precision_that_somebody_chose_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    claiming(monkeypatch, 2.0)
    BACKEND.matmul.fp32_precision = "ieee"
    try:
        with fast_matmul(silent) as changed:
            assert not changed
            assert BACKEND.matmul.fp32_precision == "ieee"
        assert BACKEND.matmul.fp32_precision == "ieee"
    finally:
        BACKEND.matmul.fp32_precision = "none"


@contextmanager
def rounding(_name: str) -> Iterator[None]:
    """A processor that rounds to bfloat16 where it may, in no time."""
    real = torch.nn.functional.linear

    def rounded(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return real(x.bfloat16(), weight.bfloat16(), bias.bfloat16()).float()

    torch.nn.functional.linear = rounded
    try:
        yield
    finally:
        torch.nn.functional.linear = real


def test_a_processor_that_rounds_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "_precision", rounding)
    assert numerics._gain_of_onednn() == 0.0


def timed_as(monkeypatch: pytest.MonkeyPatch, *, plain: float, rerouted: float) -> None:
    """Seconds by the setting, instead of a clock; products are computed without it."""
    state = {"on": False}

    @contextmanager
    def pretended(_name: str) -> Iterator[None]:
        state["on"] = True
        yield
        state["on"] = False

    def seconds(_operands: object) -> float:
        return rerouted if state["on"] else plain

    monkeypatch.setattr(numerics, "_precision", pretended)
    monkeypatch.setattr(numerics, "_seconds", seconds)


@pytest.mark.parametrize(("plain", "rerouted", "gain"), [(3.0, 1.5, 2.0), (1.0, 4.0, 0.25)])
def test_the_gain_is_the_ratio_of_times(
    monkeypatch: pytest.MonkeyPatch, plain: float, rerouted: float, gain: float
) -> None:
    timed_as(monkeypatch, plain=plain, rerouted=rerouted)
    assert numerics._gain_of_onednn() == pytest.approx(gain)


def test_the_trial_leaves_torchs_state_and_random_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    numerics._gain_of_onednn()
    assert torch.equal(before, torch.random.get_rng_state())
    assert BACKEND.matmul.fp32_precision == "none"
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE"])
def test_products_stay_exact_on_processors_without_amx(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rerouting itself, which rounds where there is AMX, is float32 where there is none."""
    code = (
        "import torch, sys; sys.path.insert(0, sys.argv[1]); import test_numerics as t\n"
        "t.BACKEND.matmul.fp32_precision = 'bf16'; print(t.error_of_products())"
    )
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", instructions)
    here = str(Path(__file__).parent)
    printed = subprocess.run([sys.executable, "-c", code, here], capture_output=True, text=True, check=True)
    assert float(printed.stdout) < 2e-6
