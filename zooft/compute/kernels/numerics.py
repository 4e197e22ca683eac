"""Products of float32 matrices by the faster of torch's two libraries, as long as they stay float32.

Separate from its callers, since torch holds this choice for the whole process: it is made in a ``with`` and
undone on leaving.

On AMD's processors MKL multiplies at half of oneDNN's speed. torch hands float32 products to oneDNN only where it may
use bfloat16 inside; a processor without AMX computes them in float32 all the same, one with it rounds (relative error
2e-3 instead of 4e-7). So it is measured: used where nothing is rounded and where it is faster, attention included,
which took twice as long that way on an Intel processor.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROUNDING = 1e-5
"""Relative error against float64 up to which a product counts as one in float32."""
FASTER = 1.25
"""By how much it has to be faster; below that, timings on a busy machine are too noisy."""
_ROUNDS = 3


@contextmanager
def fast_matmul(note: Callable[[str], None]) -> Iterator[bool]:
    """Multiply float32 matrices by the faster library that is exact, on CPUs; yields whether that changed anything.

    The measurement takes some 30 ms. A precision that was set before is left alone. Within, and only where something
    changed, ``torch.get_float32_matmul_precision`` raises, as it does wherever a single backend was set.

    Args:
        note: called with what was measured, if something changes.
    """
    backend: Any = torch.backends.mkldnn
    free = backend.is_available() and backend.matmul.fp32_precision == "none"
    gain = _gain_of_onednn() if free else 0.0
    if gain < FASTER:
        yield False
        return
    note(f"matrices are multiplied by oneDNN instead of MKL, which is {gain:.1f} times as fast here and as exact")
    with _precision("bf16"):
        yield True


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Convolve float32 in float32 on CUDA, whose default is TF32 with a mantissa of ten bits."""
    backend: Any = torch.backends.cudnn
    before = backend.allow_tf32
    backend.allow_tf32 = False
    try:
        yield
    finally:
        backend.allow_tf32 = before


def _gain_of_onednn() -> float:
    """How many times as fast as MKL it is in a transformer's mix of products; 0 where it rounds."""
    generator = torch.Generator().manual_seed(0)
    operands = [torch.randn(shape, generator=generator) for shape in ((256, 512), (512, 512), (512,), (1, 2, 197, 64))]
    exact = _products([operand.double() for operand in operands])
    with _precision("bf16"):
        if not max(map(_error, _products(operands), exact)) <= ROUNDING:
            return 0.0
    _products(operands)  # the first call sets up its kernels
    plain, rerouted = [], []
    for _ in range(_ROUNDS):
        plain.append(_seconds(operands))
        with _precision("bf16"):
            rerouted.append(_seconds(operands))
    return min(plain) / max(min(rerouted), 1e-9)


def _products(operands: Sequence[Tensor]) -> list[Tensor]:
    """Products of a small transformer: a linear layer, its matrix alone, scores, and whole attention, 1/20 of it."""
    x, weight, bias, heads = operands
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        scores = heads[0] @ heads[0].transpose(1, 2)
        return [F.linear(x, weight, bias), x @ weight.T, scores, F.scaled_dot_product_attention(heads, heads, heads)]


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def _seconds(operands: Sequence[Tensor]) -> float:
    """Seconds of this thread's own CPU time, which excludes other jobs on the machine."""
    start = time.thread_time()
    _products(operands)
    return time.thread_time() - start


@contextmanager
def _precision(name: str) -> Iterator[None]:
    """Set what float32 products may use inside, in torch's words; restored on leaving."""
    setting: Any = torch.backends.mkldnn
    before = setting.matmul.fp32_precision
    setting.matmul.fp32_precision = name
    try:
        yield
    finally:
        setting.matmul.fp32_precision = before
