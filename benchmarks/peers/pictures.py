"""Synthetic photographs by the thousand: four classes that differ in texture, not in colour or brightness.

Each is a JPEG of 500 x 375 pixels and about 80 KB, as in a usual data set of photographs, so that decoding costs what
it usually costs. Deterministic: the same seed gives the same bytes.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("blobs", "checks", "rings", "stripes")
WIDTH, HEIGHT = 500, 375
_QUALITY = 86
_NOISE = 18.0
_Field = NDArray[np.float32]


def make(folder: Path, *, train: int, val: int, seed: int = 0, processes: int = 2) -> Path:
    """Write ``train/CLASS`` and ``val/CLASS`` with this many images in all; nothing where they exist already.

    Returns:
        `folder`.

    Raises:
        ValueError: fewer images than classes.
    """
    if min(train, val) < len(CLASSES):
        raise ValueError(f"{train} and {val} images: give at least {len(CLASSES)} to training and validation each")
    described = json.dumps({"train": train, "val": val, "seed": seed, "version": 1})
    marker = folder / "made.json"
    if marker.is_file() and marker.read_text(encoding="utf-8") == described:
        return folder
    partial_folder = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    for split in ("train", "val"):
        for name in CLASSES:
            (partial_folder / split / name).mkdir(parents=True)
    places = [("train", index) for index in range(train)] + [("val", index) for index in range(val)]
    if processes > 1:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            list(pool.map(partial(_write, partial_folder, seed), places, chunksize=64))
    else:
        for place in places:
            _write(partial_folder, seed, place)
    (partial_folder / marker.name).write_text(described, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial_folder.replace(folder)
    return folder


def picture(kind: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """One image of class number `kind`, ``(H, W, 3)`` uint8: a texture between two random colours, in noise."""
    texture = _TEXTURES[kind](random)
    low, high = random.uniform(30, 225, (2, 3)).astype(np.float32)
    y, x = _axes()
    light = (
        1
        + np.float32(random.uniform(-0.3, 0.3)) * (x / WIDTH - 0.5)
        + np.float32(random.uniform(-0.3, 0.3)) * (y / HEIGHT - 0.5)
    )
    pixels = (low + (high - low) * texture[..., None]) * light[..., None]
    noise = random.standard_normal(pixels.shape, dtype=np.float32) * np.float32(_NOISE)
    finished: NDArray[np.uint8] = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    return finished


def _write(folder: Path, seed: int, place: tuple[str, int]) -> None:
    split, index = place
    kind = index % len(CLASSES)
    pixels = picture(kind, np.random.default_rng((seed, split == "val", index)))
    Image.fromarray(pixels).save(folder / split / CLASSES[kind] / f"{index:06d}.jpg", quality=_QUALITY)


def _axes() -> tuple[_Field, _Field]:
    """Rows ``(H, 1)`` and columns ``(1, W)``, pixels."""
    return np.arange(HEIGHT, dtype=np.float32)[:, None], np.arange(WIDTH, dtype=np.float32)[None, :]


def _turn(random: np.random.Generator) -> tuple[_Field, _Field]:
    """Coordinates in pixels, turned by any angle."""
    y, x = _axes()
    angle = random.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _wave(distance: _Field, period: float, shift: float = 0.0) -> _Field:
    wave: _Field = 0.5 + 0.5 * np.sin(distance * np.float32(2 * np.pi / period) + np.float32(shift))
    return wave


def _stripes(random: np.random.Generator) -> _Field:
    u, _ = _turn(random)
    return _wave(u, random.uniform(20, 60), random.uniform(0, 6))


def _checks(random: np.random.Generator) -> _Field:
    u, v = _turn(random)
    period = random.uniform(25, 70)
    return np.round((_wave(u, period) - 0.5) * (_wave(v, period) - 0.5) * 2 + 0.5)


def _rings(random: np.random.Generator) -> _Field:
    y, x = _axes()
    centre = random.uniform((100, 80), (WIDTH - 100, HEIGHT - 80)).astype(np.float32)
    return _wave(np.hypot(x - centre[0], y - centre[1]), random.uniform(20, 60))


def _blobs(random: np.random.Generator) -> _Field:
    y, x = _axes()
    field = np.zeros((HEIGHT, WIDTH), np.float32)
    for _ in range(random.integers(12, 30)):
        radius, left, top = random.uniform((12, 0, 0), (40, WIDTH, HEIGHT)).astype(np.float32)
        field += np.exp(-(((y - top) / radius) ** 2)) * np.exp(-(((x - left) / radius) ** 2))
    return np.clip(field, 0, 1)


_TEXTURES = (_blobs, _checks, _rings, _stripes)
