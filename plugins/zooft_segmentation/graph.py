"""The last piece of the exported graph: maps of the head to masks of the input's own size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Masks(nn.Module):
    """The likeliest class at each pixel.

    Args:
        probabilities: whether these are given, too.
    """

    def __init__(self, *, probabilities: bool) -> None:
        super().__init__()
        self.probabilities = probabilities

    def forward(self, outputs: dict[str, Tensor], _batch: tuple[Tensor, ...], back: Any) -> tuple[Tensor, ...]:
        """Maps ``(N, C, h, w)`` to masks ``(N, H, W)`` uint8, the maps, and maybe probabilities ``(N, C, H, W)``."""
        logits = outputs["logits"].to(torch.float32)
        grown = back.maps(logits)
        # `max`'s places are those of `argmax`, in a fifth of its time; the file has ONNX's ArgMax
        likeliest = grown.argmax(1) if torch.compiler.is_exporting() else grown.max(1).indices
        mask = likeliest.to(torch.uint8)
        return (mask, logits, grown.softmax(1)) if self.probabilities else (mask, logits)
