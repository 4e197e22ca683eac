"""Where a backbone has a map of the image: measured on the model, not declared.

A stage's output has places where its shape has axes for them and where, besides, a change of the image moves the
places that lie there more than the others. The second distinguishes rows from columns and an order of tokens that
isn't that of the image, as Hiera's.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zooft.contracts import Tap
from zooft.errors import ModelError

if TYPE_CHECKING:
    from zooft.contracts import InputSpec, Reads, Stage
    from zooft.model.backbone import Backbone

_MOST_OTHER_TOKENS = 8
"""Class and register tokens before those of the patches."""
_PATCHES = ((0.25, 0.75), (0.75, 0.375), (0.375, 0.25))
"""Middles of what is changed of an image, as shares of its height and width.

Neither mirroring nor turning maps them onto themselves.
"""
_PATCH = 0.125
"""Half a side of it, as a share of the image's."""
_ELSEWHERE = 0.15
"""Share of the windows of a map that a change may move more than the one that it lies in.

Of maps of the image none or few are; of
places in another order, each change exceeds it by chance in 85 of 100."""
LEVELS = 4
"""Maps of a pyramid, at most."""
_FINEST = 4
"""Stride of a pyramid's first map where it is resampled, as in feature pyramids of hierarchical backbones."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a head reads behind a stage.

    Attributes:
        tap: as the stage gives it.
        seen: as the head gets it: of another size where it is resampled.
    """

    tap: Tap
    seen: Tap

    def map(self, out: Tensor) -> Tensor:
        """``(N, C, rows, columns)`` of what the stage gives."""
        found = as_map(out, self.tap)
        if self.seen.rows == self.tap.rows:
            return found
        if self.seen.rows < self.tap.rows:
            return nn.functional.max_pool2d(found, self.tap.rows // self.seen.rows)
        factor = self.seen.rows // self.tap.rows
        return nn.functional.interpolate(found, scale_factor=float(factor), mode="bilinear", align_corners=False)


def as_map(out: Tensor, tap: Tap) -> Tensor:
    """``(N, C, rows, columns)`` of what a tap's stage gives, other tokens left out."""
    if tap.layout == "map":
        return out
    if tap.layout == "channels last":
        return out.permute(0, 3, 1, 2)
    places = out[:, tap.prefix_tokens :].transpose(1, 2)
    return places.reshape(-1, tap.channels, tap.rows, tap.columns)


def from_map(places: Tensor, out: Tensor, tap: Tap) -> Tensor:
    """The way back of `as_map`; tokens that have no place are those of `out`."""
    if tap.layout == "map":
        return places
    if tap.layout == "channels last":
        return places.permute(0, 2, 3, 1)
    return torch.cat([out[:, : tap.prefix_tokens], places.flatten(2).transpose(1, 2)], 1)


def tap_of(stage: str, shape: Sequence[int], spec: InputSpec) -> Tap | None:
    """The tap that the shape of a stage's output ``(N, ...)`` speaks of; None where it has no places."""
    if len(shape) == 4:
        last = _channels_last(shape, spec)
        rows, columns = shape[1:3] if last else shape[2:]
        if rows * columns <= 1 or not (_is_strided(rows, spec.height) and _is_strided(columns, spec.width)):
            return None
        layout: Any = "channels last" if last else "map"
        channels = shape[3] if last else shape[1]
        return Tap(
            stage=stage, layout=layout, channels=channels, rows=rows, columns=columns, stride=round(spec.height / rows)
        )
    if len(shape) != 3:
        return None
    for patch in range(1, min(spec.height, spec.width) // 2 + 1):
        rows, columns = spec.height // patch, spec.width // patch
        if 0 <= shape[1] - rows * columns <= _MOST_OTHER_TOKENS:
            return Tap(
                stage=stage,
                layout="tokens",
                channels=shape[2],
                rows=rows,
                columns=columns,
                stride=round(spec.height / rows),
                prefix_tokens=shape[1] - rows * columns,
            )
    return None


def _is_strided(length: int, size: int) -> bool:
    """Whether a map of the image has such an axis, up to its borders.

    The 197 tokens of attention have not, of 224 pixels.
    """
    return abs(size / max(1, round(size / length)) - length) <= 2


def _channels_last(shape: Sequence[int], spec: InputSpec) -> bool:
    """``(N, H, W, C)``, as in windowed transformers: rows and columns have the shape of the image more nearly so."""
    wanted = math.log(spec.height / spec.width)
    first, last = (abs(math.log(shape[axis] / shape[axis + 1]) - wanted) for axis in (2, 1))
    return last < first


@dataclass(frozen=True, slots=True)
class Measured:
    """What leaves the stages of a backbone at its input's size.

    Attributes:
        taps: where a map can be taken, shallow to deep.
        shapes: of every stage's output, without the batch.
    """

    taps: tuple[Tap, ...]
    shapes: Mapping[str, tuple[int, ...]]


def measure(backbone: Backbone, known: Collection[str] | None = None) -> Measured:
    """Run noise through a backbone, and see where it has a map.

    Args:
        backbone: is put in evaluation mode; on the meta device only shapes are checked.
        known: the stages behind which it does, of a model that was measured before and whose weights are still to be
            loaded.

    Raises:
        ModelError: it doesn't run on the input that the task wants.
    """
    spec, module = backbone.input, backbone.module.eval()
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    images = _images(spec).to(device)
    checked = known is None and not images.is_meta
    found: list[Tap] = []
    shapes: dict[str, tuple[int, ...]] = {}
    x = images if checked else images[:1]
    with torch.inference_mode():
        for name, stage in backbone.stages.items():
            x = _run(backbone, stage, x)
            shapes[name] = tuple(x.shape[1:])
            tap = tap_of(name, x.shape, spec)
            if tap is not None and (_is_local(x, tap) if checked else known is None or name in known):
                found.append(tap)
    return Measured(tuple(found), shapes)


def _run(backbone: Backbone, stage: Stage, x: Tensor) -> Tensor:
    try:
        return stage(backbone.module, x)
    except Exception as error:  # the zoo's code
        spec = backbone.input
        raise ModelError(
            f"{backbone.name} doesn't run on images of {spec.height}x{spec.width}: {type(error).__name__}: {error}; "
            "choose the size that it was trained at, or another backbone"
        ) from error


def _images(spec: InputSpec) -> Tensor:
    """Noise, and the same with each of `_PATCHES` changed, ``(1 + patches, C, H, W)``."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, spec.channels, spec.height, spec.width, generator=generator, device="cpu")
    other = torch.randn(1, spec.channels, spec.height, spec.width, generator=generator, device="cpu")
    images = [image]
    for row, column in _PATCHES:
        changed = image.clone()
        rows, columns = _part(row, spec.height), _part(column, spec.width)
        changed[:, :, rows, columns] = other[:, :, rows, columns]
        images.append(changed)
    return torch.cat(images)


def _part(middle: float, length: int) -> slice:
    return slice(round((middle - _PATCH) * length), round((middle + _PATCH) * length))


def _is_local(out: Tensor, tap: Tap) -> bool:
    """Whether each change moves the places that lie in it more than nearly all others."""
    maps = as_map(out.float(), tap)
    for number, (row, column) in enumerate(_PATCHES, 1):
        moved = (maps[number] - maps[0]).norm(dim=0)
        rows, columns = _places(row, tap.rows), _places(column, tap.columns)
        size = rows.stop - rows.start, columns.stop - columns.start
        windows = nn.functional.avg_pool2d(moved[None, None], size, stride=1)[0, 0]
        there = windows[rows.start, columns.start]
        if not bool(there > moved.mean()) or float((windows > there).float().mean()) > _ELSEWHERE:
            return False
    return True


def _places(middle: float, length: int) -> slice:
    """The places of an axis that lie in a change, one at least."""
    first = min(length - 1, max(0, int((middle - _PATCH) * length)))
    return slice(first, min(length, max(first + 1, round((middle + _PATCH) * length))))


def choose(backbone: Backbone, reads: Reads, taps: Sequence[Tap]) -> tuple[Reading, ...]:
    """What a head reads of a backbone: the deepest map, or a pyramid of up to `LEVELS`, shallow to deep.

    A hierarchical backbone's pyramid takes the deepest stage of each stride. One of a single stride, as plain
    transformers have, is made of stages spread evenly over its depth, resampled to the strides 4, 8, 16 and 32 without
    anything trained, after ViTDet (Li et al. 2022).

    Args:
        backbone: whose taps.
        reads: ``map`` or ``pyramid``.
        taps: as `measure` found them.

    Raises:
        ModelError: there are none.
    """
    if not taps:
        raise ModelError(
            f"{backbone.reference} has no map of the image behind any of its stages, which a head that reads a "
            f"{reads} needs; choose another backbone, such as a ResNet, EfficientNet, ConvNeXt, Swin or ViT"
        )
    if reads == "map":
        return (Reading(taps[-1], taps[-1]),)
    strides = sorted({tap.stride for tap in taps})
    if len(strides) > 1:
        deepest = {tap.stride: tap for tap in taps}
        return tuple(Reading(deepest[stride], deepest[stride]) for stride in strides[-LEVELS:])
    return tuple(Reading(tap, _resample(tap, _FINEST << level)) for level, tap in enumerate(_spread(taps)))


def _spread(taps: Sequence[Tap]) -> list[Tap]:
    """`LEVELS` of them, evenly over the depth, the deepest among them; the same again where there are fewer."""
    return [taps[-(-len(taps) * (level + 1) // LEVELS) - 1] for level in range(LEVELS)]


def _resample(tap: Tap, stride: int) -> Tap:
    """The same map with a stride nearest to the requested one, of those that halving and doubling reach."""
    rows, columns, now = tap.rows, tap.columns, tap.stride
    while now >= 2 * stride * 0.75:
        rows, columns, now = 2 * rows, 2 * columns, now // 2
    while now <= stride / 2 / 0.75 and rows > 1 and columns > 1:
        rows, columns, now = rows // 2, columns // 2, 2 * now
    return replace(tap, rows=rows, columns=columns, stride=now)
