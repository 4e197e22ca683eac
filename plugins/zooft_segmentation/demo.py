"""A synthetic data set that needs no network: discs, squares and triangles before patterned ground."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COUNTS = {"train": 48, "val": 16}
_ROWS, _COLUMNS = 96, 128
_CLASSES = (("ground", (60, 60, 60)), ("disc", (220, 60, 60)), ("square", (60, 180, 75)), ("triangle", (67, 99, 216)))
_LEAST, _MOST = 8, 24


def shapes(root: Path, seed: int) -> None:
    """Write ``root/images/SPLIT/NN.png``, ``root/masks/SPLIT/NN.png`` and ``root/classes.csv``.

    Args:
        root: an empty or new folder.
        seed: of what is drawn.
    """
    from PIL import Image

    rng = np.random.default_rng(seed)
    for split, count in _COUNTS.items():
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture, mask = _draw(rng)
            Image.fromarray(picture).save(root / "images" / split / f"{number:02}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"{number:02}.png")
    with (root / "classes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "value", "r", "g", "b"])
        writer.writerows([name, value, *colour] for value, (name, colour) in enumerate(_CLASSES))


def _draw(rng: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """A picture ``(96, 128, 3)`` and its mask ``(96, 128)``, both uint8.

    Two to five shapes of any colour that isn't the ground's.
    """
    down, across = np.mgrid[:_ROWS, :_COLUMNS]
    mask = np.zeros((_ROWS, _COLUMNS), np.uint8)
    waves = np.sin(down / rng.uniform(3, 9)) * np.cos(across / rng.uniform(3, 9))
    levels = np.repeat(90 + 25 * waves[..., None], 3, -1) + rng.integers(-15, 16, 3)
    for _ in range(rng.integers(2, 6)):
        kind, half = int(rng.integers(1, len(_CLASSES))), int(rng.integers(_LEAST, _MOST))
        y, x = int(rng.integers(half, _ROWS - half)), int(rng.integers(half, _COLUMNS - half))
        dy, dx = down - y, across - x
        inside = {
            1: dy**2 + dx**2 <= half**2,
            2: np.maximum(abs(dy), abs(dx)) <= half * 0.85,
            3: (dy <= half * 0.8) & (2 * abs(dx) <= dy + half),
        }[kind]
        mask[inside] = kind
        levels[inside] = rng.integers(0, 2, 3) * 130 + rng.integers(0, 60, 3) + 50
    levels = levels + rng.normal(0, 6, levels.shape)
    return np.clip(levels, 0, 255).astype(np.uint8), mask
