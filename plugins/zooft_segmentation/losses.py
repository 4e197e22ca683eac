"""What is learnt from masks.

Losses of segmentation_models_pytorch, each of one picture, so that they add up over a batch's parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

import zooft
from zooft_segmentation.masks import OUTSIDE

_MODE = "multiclass"
_GAMMA = 2.0


class PictureLoss(nn.Module):
    """The sum over pictures of one or several losses of each; pictures without any pixel of a class count nothing.

    Args:
        kind: ``ce+dice``, ``ce``, ``dice``, ``focal`` or ``lovasz``.
        weights: of the classes; None for 1 each.
    """

    def __init__(self, kind: str, weights: Sequence[float] | None) -> None:
        super().__init__()
        self.kinds = tuple(kind.split("+"))
        self.register_buffer("weights", None if weights is None else torch.tensor(weights, dtype=torch.float32))
        self.weights: Tensor | None
        self.dice = smp.losses.DiceLoss(_MODE)
        self.focal = smp.losses.FocalLoss(_MODE, gamma=_GAMMA, ignore_index=OUTSIDE, class_weights=weights)
        self.lovasz = smp.losses.LovaszLoss(_MODE, ignore_index=OUTSIDE)

    def forward(self, outputs: dict[str, Tensor], targets: Tensor) -> zooft.Loss:
        """Logits ``(N, C, h, w)`` of any size, masks ``(N, H, W)`` uint8."""
        logits = nn.functional.interpolate(
            outputs["logits"].to(torch.float32), targets.shape[-2:], mode="bilinear", align_corners=False
        )
        targets = targets.to(torch.int64)
        counting = (targets != OUTSIDE).flatten(1).any(1)
        each = sum(getattr(self, f"_{kind}")(logits, targets) for kind in self.kinds)
        # 0 x logits: where no picture counts, there is a gradient all the same
        total = (each * counting).sum() + 0 * outputs["logits"].sum()
        return zooft.Loss(total, counting.sum())

    def _ce(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over the pixels of each picture ``(N,)``."""
        losses = nn.functional.cross_entropy(
            logits, targets, weight=self.weights, ignore_index=OUTSIDE, reduction="none"
        )
        seen = targets != OUTSIDE
        shares = seen.to(logits.dtype) if self.weights is None else self.weights[targets * seen] * seen
        return losses.flatten(1).sum(1) / shares.flatten(1).sum(1).clamp_min(1e-12)

    def _dice(self, logits: Tensor, targets: Tensor) -> Tensor:
        """1 - Dice, the mean over the classes that a picture has ``(N,)``."""
        seen = (targets != OUTSIDE)[:, None]
        found = (logits.softmax(1) * seen).flatten(2)
        true = torch.zeros_like(logits).scatter_(1, (targets[:, None] * seen), 1.0) * seen
        true = true.flatten(2)
        scores = self.dice.compute_score(found, true, eps=self.dice.eps, dims=2)  # (N, C)
        there = (true.sum(2) > 0).to(logits.dtype)
        if self.weights is not None:
            there = there * self.weights
        lost: Tensor = ((1 - scores) * there).sum(1) / there.sum(1).clamp_min(1e-12)
        return lost

    def _focal(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self._one_by_one(self.focal, logits, targets)

    def _lovasz(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self._one_by_one(self.lovasz, logits, targets)

    def _one_by_one(self, loss: nn.Module, logits: Tensor, targets: Tensor) -> Tensor:
        """``(N,)``; 0 of pictures without any pixel of a class, of which the library makes no number."""
        return torch.stack(
            [
                loss(logits[n : n + 1], targets[n : n + 1])
                if bool((targets[n] != OUTSIDE).any())
                else logits[n].sum() * 0
                for n in range(len(logits))
            ]
        )


class SoftenedPixels(nn.Module):
    """The divergence of a teacher's probabilities at each place of a map from these, the mean over a picture's places.

    As of classes, at a temperature and times its square (Hinton et al. 2015; of places Liu et al. 2019). Both maps
    show the same view; a teacher's of another size is resized.

    Args:
        temperature: that divides the logits.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, outputs: dict[str, Tensor], theirs: dict[str, Tensor]) -> zooft.Loss:
        """Logits ``(N, C, h, w)`` and the teacher's, of any size."""
        ours, wanted = outputs["logits"], theirs["logits"]
        if wanted.shape[-2:] != ours.shape[-2:]:
            wanted = nn.functional.interpolate(
                wanted, ours.shape[-2:], mode="bilinear", align_corners=False, antialias=True
            )
        ours, wanted = ((each / self.temperature).log_softmax(1) for each in (ours, wanted))
        total = nn.functional.kl_div(ours, wanted, reduction="sum", log_target=True) / ours[0, 0].numel()
        return zooft.Loss(self.temperature**2 * total, float(len(ours)))
