"""What the network sees of CT in training: small changes such as another patient or scanner would make.

Everything is done in HU and mm before the window, with what lies outside the scan as air. Mirroring would put the
heart on the other side and happens only where it is set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import zooft
from zooft_ct.graph import check
from zooft_ct.windows import parse

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

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


def augment(spec: zooft.InputSpec, options: CTOptions) -> Callable[..., zooft.View] | None:
    """A view of one sample that differs from call to call, or None for the plain view.

    The view takes HU ``(Z, H, W)`` int16 and, where there is a spacing to resample to, mm between rows and columns
    ``(2,)`` float32. It gives what the preprocessing gives for one sample, and how pixels have moved, but where slices
    are resampled to a spacing. All slices are moved alike.

    Raises:
        ConfigError: options that don't go together.
    """
    check(options)
    if options.augment == "none":
        return None
    strength = STRENGTHS[options.augment]
    return _View(spec, options, strength)


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """A random view; of a class, so that it can be sent to loader processes that don't inherit it."""

    spec: zooft.InputSpec
    options: CTOptions
    strength: Strength

    def __call__(self, hu: NDArray[Any], *spacing: NDArray[Any]) -> zooft.View:
        import torch

        from zooft_ct.preprocess import AIR, CTPreprocess

        # above air, which then is 0: torchvision mixes 0 into the picture's edge, whatever it fills with
        move = _draw(self.strength, hu.shape[-2:], flip=self.options.flip)
        slices = move(torch.from_numpy(hu).to(torch.float32) - AIR) + AIR
        slices = slices + self.strength.noise * torch.rand(()) * torch.randn_like(slices)
        shown = _jitter([parse(text) for text in self.options.window], self.strength.window)
        preprocess = CTPreprocess(self.spec, mode=self.options.mode, windows=shown, spacing=self.options.spacing)
        result: Tensor = preprocess(slices[None], *(torch.from_numpy(mm)[None] for mm in spacing))[0]
        return zooft.View(result, None if spacing else self._geometry(move))

    def _geometry(self, move: _Move) -> zooft.Geometry:
        """The move, then the stretch to the network's input."""
        import numpy as np

        height, width = self.spec.height, self.spec.width
        stretch = np.diag([width / move.columns, height / move.rows])
        return zooft.Geometry(matrix=stretch @ move.matrix(), source=(move.rows, move.columns), view=(height, width))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """Mirroring, then a turn and a growth about the middle, then a shift.

    Attributes:
        rows: of the slices.
        columns: of the slices.
        mirrored: whether rows, and columns, run the other way.
        angle: degrees, clockwise.
        shift: pixels to the right, downwards.
        scale: larger than 1 makes larger.
    """

    rows: int
    columns: int
    mirrored: tuple[bool, bool]
    angle: float
    shift: tuple[int, int]
    scale: float

    def __call__(self, slices: Tensor) -> Tensor:
        """Slices ``(Z, H, W)``, which torchvision takes for the channels of one picture. What comes in is 0."""
        from torchvision.transforms.v2 import functional as operations

        flipped = slices.flip([axis for axis, mirrored in zip((1, 2), self.mirrored, strict=True) if mirrored])
        moved: Tensor = operations.affine(
            flipped,
            angle=self.angle,
            translate=list(self.shift),
            scale=self.scale,
            shear=[0.0, 0.0],
            interpolation=operations.InterpolationMode.BILINEAR,
        )
        return moved

    def matrix(self) -> NDArray[Any]:
        """``(2, 3)``: where a place ``(x, y, 1)`` comes to lie, counted from the upper left corner."""
        import numpy as np

        middle = np.array([self.columns / 2, self.rows / 2])
        turn = math.radians(self.angle)
        linear = self.scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        linear = linear @ np.diag([-1.0 if mirrored else 1.0 for mirrored in reversed(self.mirrored)])
        return np.column_stack([linear, middle + self.shift - linear @ middle])


def _draw(strength: Strength, size: tuple[int, int], *, flip: bool) -> _Move:
    """A random move of slices of so many rows and columns."""
    import torch
    from torchvision.transforms import v2

    rows, columns = size
    affine = v2.RandomAffine(
        degrees=strength.turn,
        translate=(strength.shift, strength.shift),
        scale=(1 - strength.scale, 1 + strength.scale),
    )
    across, down = (bool(torch.rand(1) < 0.5), bool(torch.rand(1) < 0.5)) if flip else (False, False)
    drawn = affine.make_params([torch.empty(1, rows, columns)])
    return _Move(
        rows=rows,
        columns=columns,
        mirrored=(down, across),
        angle=drawn["angle"],
        shift=drawn["translate"],
        scale=drawn["scale"],
    )


def _jitter(shown: list[tuple[float, float]], share: float) -> list[tuple[float, float]]:
    """Each window a little elsewhere, a little wider or narrower."""
    import torch

    change = ((2 * torch.rand(len(shown), 2) - 1) * share).tolist()
    return [
        (center + moved * width, width * (1 + grown))
        for (center, width), (moved, grown) in zip(shown, change, strict=True)
    ]
