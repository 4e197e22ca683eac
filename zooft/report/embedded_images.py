"""Arrays as small pictures that stand in the page itself."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

LONGEST = 288
"""Pixels of a picture's longer side at most."""
DRAWN = 576
"""The same of one with an answer drawn in, whose words are to be read."""
_QUALITY = 88


def source(picture: NDArray[Any], *, longest: int = LONGEST) -> str:
    """A picture ``(H, W)`` or ``(H, W, 3)`` uint8 as a ``data:`` address, its longer side `longest` pixels at most."""
    return _encode(_small(picture, longest))


def overlay(picture: NDArray[Any], heat: NDArray[Any]) -> str:
    """A picture with heat ``(h, w)`` in 0..1 overlaid, more yellow where it is hotter."""
    from matplotlib import colormaps
    from PIL import Image

    below = np.asarray(_small(picture).convert("L"), dtype=np.float32)[..., None] / 255
    resized = Image.fromarray(heat.astype(np.float32)).resize(below.shape[1::-1], Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(resized), 0, 1)
    colour = colormaps["inferno"](strength)[..., :3]
    share = 0.75 * np.sqrt(strength)[..., None]
    mixed = below * (1 - share) + colour * share
    return _encode(Image.fromarray((mixed * 255).round().astype(np.uint8)))


def png_source(png: bytes) -> str:
    """A finished PNG as a ``data:`` address."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def shares(matrix: NDArray[Any]) -> str:
    """A large confusion matrix as a picture: a pixel or more a cell, darker for a larger share of its row."""
    from PIL import Image

    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = Image.fromarray((255 - 255 * share).round().astype(np.uint8))
    side = max(1, 480 // len(matrix)) * len(matrix)
    return _encode(image.resize((side, side), Image.Resampling.NEAREST))


def _small(picture: NDArray[Any], longest: int = LONGEST) -> Image.Image:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(np.squeeze(picture), dtype=np.uint8))
    scale = longest / max(image.size)
    if scale >= 1:
        return image
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)


def _encode(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
