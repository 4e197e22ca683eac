"""Real data beside the repository, and small data sets that tests write themselves.

The real data is third parties' and never copied into the project: ``ZOOFT_TEST_DATA`` or ``../shared/data`` has it.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
LEVELS = {"dark": 40, "light": 210}


def real(name: str) -> Path:
    """A folder or file of the real data; skips the test where it is missing."""
    root = Path(os.environ.get("ZOOFT_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    path = root / name
    if not path.exists():
        pytest.skip(f"{name} isn't in {root}; set ZOOFT_TEST_DATA to a folder that has it")
    return path


def inventory() -> dict[str, dict[str, str]]:
    """File name to what Pillow was seen to make of it, for ``image_corner``."""
    with real("image_inventory.csv").open(newline="", encoding="utf-8") as file:
        return {Path(row["path"]).name: row for row in csv.DictReader(file)}


def picture(level: int, *, size: tuple[int, int] = (24, 32), seed: int = 0) -> NDArray[np.uint8]:
    """Noise around one level, ``(H, W, 3)`` uint8."""
    noise = np.random.default_rng(seed).normal(level, 20, (*size, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def save(path: Path, level: int = 128, *, seed: int = 0) -> Path:
    """One picture as a file, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(level, seed=seed)).save(path)
    return path


def write_classes(root: Path, counts: Mapping[str, int]) -> Path:
    """A folder for each class with so many PNGs in it; classes differ in brightness."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            save(root / name / f"{index:02}.png", LEVELS.get(name, 128), seed=index)
    return root


def write_manifest(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    """A CSV file, in UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path
