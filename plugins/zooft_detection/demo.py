"""A synthetic data set that needs no network: discs, squares and triangles before patterned ground, in COCO's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COUNTS = {"train": 64, "val": 16}
_ROWS, _COLUMNS = 96, 128
_CLASSES = ("disc", "square", "triangle")
_LEAST, _MOST = 8, 24
_TOO_NEAR = 0.2
"""Share of a shape's box that an earlier one may cover."""


def shapes(root: Path, seed: int) -> None:
    """Write ``root/images/SPLIT/NN.png`` and ``root/annotations/instances_SPLIT.json``.

    Args:
        root: an empty or new folder.
        seed: of what is drawn.
    """
    from PIL import Image

    rng = np.random.default_rng(seed)
    categories = [{"id": number, "name": name} for number, name in enumerate(_CLASSES, 1)]
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, count in _COUNTS.items():
        (root / "images" / split).mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            picture, boxes = _draw(rng)
            name = f"{number:02}.png"
            Image.fromarray(picture).save(root / "images" / split / name)
            images.append({"id": number + 1, "file_name": name, "height": _ROWS, "width": _COLUMNS})
            for kind, (x, y, width, height) in boxes:
                about = {"id": len(annotations) + 1, "image_id": number + 1, "category_id": kind, "iscrowd": 0}
                annotations.append({**about, "bbox": [x, y, width, height], "area": width * height})
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def _draw(rng: Any) -> tuple[NDArray[Any], list[tuple[int, tuple[int, int, int, int]]]]:
    """A picture ``(96, 128, 3)`` uint8, and of each shape the number of its class and x, y, width, height.

    None to four shapes of any colour that isn't the ground's.
    """
    down, across = np.mgrid[:_ROWS, :_COLUMNS]
    waves = np.sin(down / rng.uniform(3, 9)) * np.cos(across / rng.uniform(3, 9))
    levels = np.repeat(90 + 25 * waves[..., None], 3, -1) + rng.integers(-15, 16, 3)
    taken, boxes = np.zeros((_ROWS, _COLUMNS), np.bool_), []
    for _ in range(rng.integers(0, 5)):
        kind, half = int(rng.integers(1, len(_CLASSES) + 1)), int(rng.integers(_LEAST, _MOST))
        y, x = int(rng.integers(half, _ROWS - half)), int(rng.integers(half, _COLUMNS - half))
        dy, dx = down - y, across - x
        inside = {
            1: dy**2 + dx**2 <= half**2,
            2: np.maximum(abs(dy), abs(dx)) <= half * 0.85,
            3: (dy <= half * 0.8) & (2 * abs(dx) <= dy + half),
        }[kind]
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        top, left = int(rows[0]), int(columns[0])
        height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
        window = np.s_[top : top + height, left : left + width]
        if taken[window].mean() > _TOO_NEAR:
            continue
        taken[window] = True
        boxes.append((kind, (left, top, width, height)))
        levels[inside] = rng.integers(0, 2, 3) * 130 + rng.integers(0, 60, 3) + 50
    levels = levels + rng.normal(0, 6, levels.shape)
    return np.clip(levels, 0, 255).astype(np.uint8), boxes
