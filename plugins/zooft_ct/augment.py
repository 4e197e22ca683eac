"""What the network sees of CT in training: small changes such as another patient or scanner would make.

Everything is done in HU and mm before the window, with what lies outside the scan as air. Mirroring would put the
heart on the other side and happens only where it is set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import zooft
from zooft_ct.graph import check
from zooft_ct.windows import parse

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from zooft_ct.options import CTOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """The most that is changed, evenly drawn from nothing up to this.

    Attributes:
        turn: degrees, either way.
        shift: share of the picture's side, either way along both axes.
        scale: share, larger or smaller.
        noise: HU, standard deviation of noise that is added to every voxel.
        window: share of a window's width, by which its centre moves and its width grows or shrinks.
    """

    turn: float
    shift: float
    scale: float
    noise: float
    window: float


STRENGTHS = {
    "light": Strength(turn=5, shift=0.03, scale=0.05, noise=10, window=0.03),
    "medium": Strength(turn=12, shift=0.06, scale=0.12, noise=30, window=0.1),
}


def augment(spec: zooft.InputSpec, options: CTOptions) -> Callable[..., Tensor] | None:
    """A view of one sample that differs from call to call, or None for the plain view.

    The view takes HU ``(Z, H, W)`` int16 and, where there is a spacing to resample to, mm between rows and columns
    ``(2,)`` float32. It gives what the preprocessing gives for one sample. All slices are moved alike.

    Raises:
        ConfigError: options that don't go together.
    """
    check(options)
    if options.augment == "none":
        return None
    strength = STRENGTHS[options.augment]
    return _View(spec, options, strength, _moves(strength, flip=options.flip))


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """A random view; of a class, so that it can be sent to loader processes that don't inherit it."""

    spec: zooft.InputSpec
    options: CTOptions
    strength: Strength
    moved: nn.Module

    def __call__(self, hu: NDArray[Any], *spacing: NDArray[Any]) -> Tensor:
        import torch

        from zooft_ct.preprocess import AIR, CTPreprocess

        # above air, which then is 0: torchvision mixes 0 into the picture's edge, whatever it fills with
        slices: Tensor = self.moved(torch.from_numpy(hu).to(torch.float32) - AIR) + AIR
        slices = slices + self.strength.noise * torch.rand(()) * torch.randn_like(slices)
        shown = _jitter([parse(text) for text in self.options.window], self.strength.window)
        preprocess = CTPreprocess(self.spec, mode=self.options.mode, windows=shown, spacing=self.options.spacing)
        result: Tensor = preprocess(slices[None], *(torch.from_numpy(mm)[None] for mm in spacing))[0]
        return result


def _moves(strength: Strength, *, flip: bool) -> nn.Module:
    """Of all slices alike: torchvision takes them for the channels of one picture. What comes in is 0."""
    from torchvision.transforms import v2
    from torchvision.transforms.v2.functional import InterpolationMode

    moves: list[nn.Module] = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()] if flip else []
    affine = v2.RandomAffine(
        degrees=strength.turn,
        translate=(strength.shift, strength.shift),
        scale=(1 - strength.scale, 1 + strength.scale),
        interpolation=InterpolationMode.BILINEAR,
    )
    made: nn.Module = v2.Compose([*moves, affine])
    return made


def _jitter(shown: list[tuple[float, float]], share: float) -> list[tuple[float, float]]:
    """Each window a little elsewhere, a little wider or narrower."""
    import torch

    change = ((2 * torch.rand(len(shown), 2) - 1) * share).tolist()
    return [
        (center + moved * width, width * (1 + grown))
        for (center, width), (moved, grown) in zip(shown, change, strict=True)
    ]
