"""What only a CUDA device can show."""

from __future__ import annotations

from pathlib import Path

import pytest
from example_data import write_classes

import zooft

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _device() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")


def test_a_run_trains_and_verifies_on_the_gpu(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data", {"dark": 24, "light": 24})
    result = zooft.finetune(
        backbone="timm:resnet18",
        weights="random",
        task="classification",
        data=data,
        out=tmp_path / "run",
        freeze="last:2",
        epochs=2,
        bootstrap=0,
        device="cuda",
        provider="cuda",
    )
    assert result.verification is not None
    assert result.verification.provider == "CUDAExecutionProvider"
    assert result.verification.placement["CUDAExecutionProvider"] > 0


def test_the_doctor_finds_cuda_usable() -> None:
    import zooft.runtime

    assert zooft.runtime.missing_library("cuda") is None
