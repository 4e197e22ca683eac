"""Synthetic data for trying things on: no real faces, no network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


IDENTITIES, EACH, SIDE = 24, 8, 96
_README = """Synthetic, made by 'zooft demo retrieval': patterns of shapes, one folder for each,
moved, lit and noised anew in every picture.
They show that everything works, not how well faces, products or animals would be told apart.
"""


def patterns(root: Path, seed: int) -> None:
    """Write ``root/pattern_NN/N.png``: each identity is an arrangement of coloured shapes.

    Args:
        root: an empty or new folder.
        seed: of the arrangements and of how each picture differs.
    """
    from PIL import Image

    root.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(IDENTITIES):
        folder = root / f"pattern_{number:02}"
        folder.mkdir(exist_ok=True)
        shapes = [_shape(random) for _ in range(5)]
        ground = random.integers(60, 200, 3)
        for index in range(EACH):
            Image.fromarray(_picture(shapes, ground, random)).save(folder / f"{index}.png")
    (root / ".about.txt").write_text(_README, encoding="utf-8")


def _shape(random: np.random.Generator) -> tuple[Any, ...]:
    """Kind, place and size as shares of the picture, colour."""
    return (random.integers(2), random.uniform(0.2, 0.8, 2), random.uniform(0.06, 0.18, 2), random.integers(0, 256, 3))


def _picture(shapes: list[tuple[Any, ...]], ground: Any, random: np.random.Generator) -> Any:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (SIDE, SIDE), tuple(int(level) for level in ground))
    draw, shift = ImageDraw.Draw(image), random.uniform(-0.06, 0.06, 2)
    scale = random.uniform(0.85, 1.15)
    for kind, place, size, colour in shapes:
        x, y = (0.5 + (place - 0.5) * scale + shift) * SIDE
        w, h = size * scale * SIDE
        (draw.ellipse if kind else draw.rectangle)((x - w, y - h, x + w, y + h), fill=tuple(int(c) for c in colour))
    levels = np.asarray(image, np.float64) * random.uniform(0.7, 1.3) + random.normal(0, 8, (SIDE, SIDE, 3))
    return levels.clip(0, 255).astype(np.uint8)
