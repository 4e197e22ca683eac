"""One step of training of a small model of each kind, as zooft trains on a CPU: no process ever ends by a signal."""

from __future__ import annotations

import subprocess
import sys

import pytest
from test_families_timm import EVERY_CLASS as OF_TIMM
from test_families_torchvision import EVERY_CLASS as OF_TORCHVISION

STEPS = """
import sys
import torch
from torch import nn
from zooft.contracts import parse_reference
from zooft.model.adapted import AdaptedModel
from zooft.model.backbone import load_backbone
from zooft.hooks.registry import load
from zooft.train.speed import Precision

registry = load()
for reference in sys.argv[1:]:
    family, name = parse_reference(reference)
    torch.manual_seed(0)
    backbone = load_backbone(registry.family(family), name, weights="random", sources=())
    model = AdaptedModel(backbone, nn.Linear(backbone.width, 2)).to(memory_format=torch.channels_last).train()
    spec = backbone.input
    batch = 4 if spec.height * spec.width <= 400**2 else 1  # attention over more takes up to 5 GB a picture
    x = torch.randn(batch, spec.channels, spec.height, spec.width).contiguous(memory_format=torch.channels_last)
    for dtype in (torch.float32, torch.bfloat16):
        for kernels in (False, True):
            print(reference, dtype, kernels, flush=True)
            with Precision(dtype=dtype, kernels=kernels)(torch.device("cpu")):
                logits = model(x)["logits"]
            logits.float().square().mean().backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            assert gradients, "nothing learns"
            model.zero_grad(set_to_none=True)
"""
STEMS = ["repvgg_a0", "mobileone_s0", "fastvit_t8"]


def last_line_and_status(references: list[str]) -> tuple[str, int, str]:
    done = subprocess.run([sys.executable, "-c", STEPS, *references], capture_output=True, text=True)
    return done.stdout.strip().rpartition("\n")[2], done.returncode, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "reference",
    [
        *(f"timm:{name}" for name in dict.fromkeys([*STEMS, *OF_TIMM])),
        *(f"torchvision:{name}" for name in OF_TORCHVISION),
    ],
)
def test_a_step_of_every_kind_of_model_ends_as_a_step_should(reference: str) -> None:
    line, status, errors = last_line_and_status([reference])
    assert status == 0, f"{line}: {errors}"
