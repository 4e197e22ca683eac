"""What is learnt from masks.

Each loss is of one picture, so that they add up over a batch's parts. Focal and Lovász are those of
segmentation_models_pytorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

import zooft
from zooft_segmentation.masks import OUTSIDE

_MODE = "multiclass"
_GAMMA = 2.0
_TINY = 1e-12


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
        self.focal = smp.losses.FocalLoss(_MODE, gamma=_GAMMA, ignore_index=OUTSIDE, class_weights=weights)
        self.lovasz = smp.losses.LovaszLoss(_MODE, ignore_index=OUTSIDE)

    def forward(self, outputs: dict[str, Tensor], targets: Tensor) -> zooft.Loss:
        """Logits ``(N, C, h, w)`` of any size, masks ``(N, H, W)`` uint8."""
        logits = _enlarge(outputs["logits"].to(torch.float32).contiguous(), targets.shape[-2:])
        pixels = _Pixels.of(logits, targets)
        each = sum(getattr(self, f"_{kind}")(pixels) for kind in self.kinds)
        counting = pixels.seen.any(1)
        # 0 x logits: where no picture counts, there is a gradient all the same
        total = (each * counting).sum() + 0 * outputs["logits"].sum()
        return zooft.Loss(total, counting.sum())

    def _ce(self, pixels: _Pixels) -> Tensor:
        """The mean over the pixels of each picture ``(N,)``."""
        shares = pixels.seen if self.weights is None else self.weights[pixels.numbers] * pixels.seen
        return -(pixels.of_truth * shares).sum(1) / shares.sum(1).clamp_min(_TINY)

    def _dice(self, pixels: _Pixels) -> Tensor:
        """1 - Dice, the mean over the classes that a picture has ``(N,)``.

        Sudre et al. 2017, without a smoothing term. Counted by pixel numbers, in a half of the time and a third of the
        memory of one-hot masks, which a hundred classes make large.
        """
        true, common = torch.zeros(2, *pixels.log_shares.shape[:2]).to(pixels.seen)
        true = true.scatter_add(1, pixels.numbers, pixels.seen)
        common = common.scatter_add(1, pixels.numbers, pixels.of_truth.exp() * pixels.seen)
        found = (pixels.log_shares.exp() @ pixels.seen[..., None]).squeeze(2)
        there = (true > 0).to(true)
        if self.weights is not None:
            there = there * self.weights
        scores = 2 * common / (found + true).clamp_min(_TINY)
        lost: Tensor = ((1 - scores) * there).sum(1) / there.sum(1).clamp_min(_TINY)
        return lost

    def _focal(self, pixels: _Pixels) -> Tensor:
        return pixels.one_by_one(self.focal)

    def _lovasz(self, pixels: _Pixels) -> Tensor:
        return pixels.one_by_one(self.lovasz)


def _enlarge(logits: Tensor, size: torch.Size) -> Tensor:
    """Bilinear interpolation of ``(N, C, h, w)`` as two matrix products, for along each axis it is one.

    What flows back takes a quarter of the time of torch's own gradient, and the softmax that follows is faster on
    planes than on channels-last pixels.
    """
    down, across = (_weights_between(*sides).to(logits) for sides in zip(logits.shape[-2:], size, strict=True))
    return down @ (logits @ across.T)


def _weights_between(few: int, many: int) -> Tensor:
    """``(many, few)``: the weights of the given places in each of the new ones."""
    return nn.functional.interpolate(torch.eye(few)[None], many, mode="linear", align_corners=False)[0].T


@dataclass(frozen=True, slots=True)
class _Pixels:
    """A batch's pixels, P of each picture.

    Attributes:
        logits: ``(N, C, P)``.
        log_shares: ``(N, C, P)``, the logarithms of the classes' probabilities.
        numbers: ``(N, P)`` int64, of the true class; 0 where there is none.
        seen: ``(N, P)`` float32, 1 where there is a true class, 0 elsewhere.
        of_truth: ``(N, P)``, the logarithm of the true class's probability.
    """

    logits: Tensor
    log_shares: Tensor
    numbers: Tensor
    seen: Tensor
    of_truth: Tensor

    @classmethod
    def of(cls, logits: Tensor, targets: Tensor) -> _Pixels:
        """Logits ``(N, C, H, W)`` and masks ``(N, H, W)``."""
        seen = (targets != OUTSIDE).flatten(1)
        numbers = targets.flatten(1).to(torch.int64) * seen
        log_shares = logits.log_softmax(1).flatten(2)
        of_truth = log_shares.gather(1, numbers[:, None]).squeeze(1)
        return cls(logits.flatten(2), log_shares, numbers, seen.to(logits.dtype), of_truth)

    def one_by_one(self, loss: nn.Module) -> Tensor:
        """A library's loss of each picture ``(N,)``; 0 of those without any pixel of a class, of which it gives NaN."""
        targets = torch.where(self.seen > 0, self.numbers, OUTSIDE)[:, None]
        logits = self.logits[:, :, None]
        return torch.stack(
            [
                loss(logits[n : n + 1], targets[n : n + 1]) if bool(self.seen[n].any()) else logits[n].sum() * 0
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
