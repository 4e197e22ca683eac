"""Large pictures in tiles of their own resolution.

For training a picture becomes samples, one a tile, side by side: the last of a row or column ends with the picture, and
pixels that the tile before it has are void there, so that each counts once. A whole picture is answered by tiles that
overlap, their probabilities blended: in `predict`, and where figures are computed of a finished run or file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_segmentation.masks import OUTSIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft_segmentation.options import SegmentationOptions

    Labels = tuple[zooft.Label, ...]
    Run = Callable[[zooft.Arrays], Mapping[str, NDArray[Any]]]

SIZE, OVERLAP, PROBABILITIES = "tiles", "overlap", "probabilities"
"""Constants of the first label: pixels of a tile's side, pixels that neighbours share, and whether these are wanted."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of a picture, as a sample's source.

    Attributes:
        path: of the picture.
        top: first row.
        left: first column.
        size: rows and columns; what lies beyond the picture is black.
    """

    path: Path
    top: int
    left: int
    size: int


@dataclass(frozen=True, slots=True)
class TileTarget:
    """A part of a picture's mask, as a sample's target.

    Attributes:
        whole: the picture's target.
        top: first row.
        left: first column.
        size: rows and columns.
        shared: rows and columns at the beginning that the tiles before have.
        counts: pixels of each class.
        void: pixels that are left out.
        mark: equal for equal masks.
    """

    whole: Any
    top: int
    left: int
    size: int
    shared: tuple[int, int]
    counts: tuple[int, ...] = ()
    void: int = 0
    mark: str = ""

    def pixels(self) -> NDArray[np.uint8]:
        """``(size, size)``, the number of each pixel's class; `OUTSIDE` where there is none.

        Raises:
            DataError: the mask can't be read any more.
        """
        return self.of(_pixels(self.whole))

    def of(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The same of the picture's mask ``(H, W)``."""
        part = cut(mask, self.top, self.left, self.size, fill=OUTSIDE)
        part[: self.shared[0]] = OUTSIDE
        part[:, : self.shared[1]] = OUTSIDE
        return part

    def renumber(self, numbers: Sequence[int], count: int) -> TileTarget:
        """With other numbers of the classes: ``numbers[old]``, of `count` ones."""
        counts = [0] * count
        for old, new in enumerate(numbers):
            counts[new] += self.counts[old]
        return replace(self, whole=self.whole.renumber(numbers, count), counts=tuple(counts))


def cut(array: NDArray[Any], top: int, left: int, size: int, *, fill: int) -> NDArray[Any]:
    """``(size, size, …)`` of ``(H, W, …)``, a copy; beyond its end there is `fill`."""
    part = array[top : top + size, left : left + size]
    found = np.full((size, size, *array.shape[2:]), fill, array.dtype)
    found[: part.shape[0], : part.shape[1]] = part
    return found


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Where tiles of an axis begin; the last one ends with the axis.

    Args:
        length: samples of the axis.
        size: of a tile.
        overlap: samples that two neighbours share, at least.
    """
    last = max(0, length - size)
    return [*range(0, last, size - overlap), last]


# samples


def in_tiles(found: zooft.Discovery, options: SegmentationOptions, computing: zooft.Computing) -> zooft.Discovery:
    """The same data with a sample a tile; those without any pixel of a class are left out."""
    if not options.tiles:
        return found
    advance = computing("cutting masks", len(found.samples))
    samples: list[zooft.Sample] = []
    rejected = list(found.rejected)
    for sample in found.samples:
        try:
            samples += _tiles_of(sample, options.tiles)
        except zooft.DataError as error:
            rejected.append(zooft.Rejection(sample.id, str(error)))
        advance(1)
    note = f"{len(found.samples)} pictures are {len(samples)} tiles of {options.tiles}x{options.tiles} pixels"
    return replace(found, samples=tuple(samples), rejected=tuple(rejected), notes=(*found.notes, note))


def _tiles_of(sample: zooft.Sample, size: int) -> Iterator[zooft.Sample]:
    target: Any = sample.target
    mask = target.pixels()
    rows, columns = (starts(length, size, 0) for length in mask.shape)
    for row, top in enumerate(rows):
        for column, left in enumerate(columns):
            shared = (_overlap(rows, row, size), _overlap(columns, column, size))
            part = TileTarget(target, top, left, size, shared)
            pixels = part.of(mask)
            counts = np.bincount(pixels.ravel(), minlength=OUTSIDE + 1)
            if counts[:OUTSIDE].any():
                yield replace(
                    sample,
                    id=f"{sample.id}@{top},{left}",
                    source=Tile(sample.source, top, left, size),
                    group=sample.group or sample.id,
                    target=replace(
                        part,
                        counts=tuple(int(count) for count in counts[: len(target.counts)]),
                        void=int(counts[OUTSIDE]),
                        mark=hashlib.sha256(pixels.tobytes()).hexdigest()[:8],
                    ),
                )


def _overlap(begins: Sequence[int], number: int, size: int) -> int:
    return max(0, begins[number - 1] + size - begins[number]) if number else 0


def whole_samples(samples: Sequence[zooft.Sample]) -> Sequence[zooft.Sample]:
    """The pictures that tiles were cut from, each once, in the order of their first tiles; others as they are."""
    if not samples or not isinstance(samples[0].source, Tile):
        return samples
    pictures: dict[str, zooft.Sample] = {}
    for sample in samples:
        name = sample.id.rpartition("@")[0]
        if name not in pictures:
            target: Any = sample.target
            pictures[name] = replace(sample, id=name, source=sample.source.path, target=target.whole)
    return tuple(pictures.values())


def read(source: Path | Tile, options: Any) -> NDArray[np.uint8]:
    """A picture ``(H, W, 3)`` uint8 in RGB, or a tile of one."""
    if not isinstance(source, Tile):
        return zooft.image_read(source, options)
    return cut(_picture(source.path, _stamp(source.path)), source.top, source.left, source.size, fill=0)


def digest(source: Path | Tile, options: Any) -> str:
    """SHA-256 of the file, and of where the tile lies."""
    if not isinstance(source, Tile):
        return zooft.image_digest(source, options)
    whole = zooft.image_digest(source.path, options)
    return hashlib.sha256(f"{whole} {source.top} {source.left} {source.size}".encode()).hexdigest()


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0  # what is wrong with it, reading says


@lru_cache(maxsize=1)  # tiles of one picture are read one after the other, and decoding it takes longest
def _picture(path: Path, _changed: int) -> NDArray[np.uint8]:
    return zooft.image_read(path)


@lru_cache(maxsize=1)
def _pixels(target: Any) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = target.pixels()
    return found


# answers


def constants(options: Any) -> Mapping[str, float]:
    """What the deployed file knows of its tiles; nothing where the task has no such options."""
    size: int = getattr(options, "tiles", 0)
    return {SIZE: float(size), OVERLAP: float(round(size * options.tile_overlap))} if size else {}


def whole_answer(run: Run, arrays: zooft.Arrays, labels: Labels) -> Mapping[str, NDArray[Any]]:
    """A picture's mask ``(1, H, W)`` by tiles that overlap, and where they are wanted probabilities ``(1, C, H, W)``.

    Args:
        run: the file's outputs for the arrays of one picture, with the batch axis.
        arrays: the picture ``(H, W, 3)``.
        labels: the file's.
    """
    (image,) = arrays
    size, overlap = int(labels[0].constants.get(SIZE, 0)), int(labels[0].constants.get(OVERLAP, 0))
    if not size:
        return run((image,))
    rows, columns = image.shape[:2]
    mask = np.zeros((1, rows, columns), np.uint8)
    wanted = bool(labels[0].constants.get(PROBABILITIES, 0))
    kept = np.zeros((1, len(labels), rows, columns), np.float32) if wanted else None
    for first, blended in _bands(run, image, size, overlap, len(labels)):
        end = first + blended.shape[1]
        mask[0, first:end] = blended.argmax(0)
        if kept is not None:
            kept[0, :, first:end] = blended
    return {"mask": mask} if kept is None else {"mask": mask, PROBABILITIES: kept}


def _bands(
    run: Run, image: NDArray[np.uint8], size: int, overlap: int, classes: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """First row and blended probabilities ``(C, rows, W)`` of bands that no later tile reaches."""
    rows, columns = image.shape[:2]
    ramp = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)).astype(np.float32)
    weights = ramp[:, None] * ramp[None]
    tops = starts(rows, size, overlap)
    sums, total = np.zeros((classes, size, columns), np.float32), np.zeros((size, columns), np.float32)
    for top, following in zip(tops, [*tops[1:], rows], strict=True):
        for left in starts(columns, size, overlap):
            answer = run((cut(image, top, left, size, fill=0),))[PROBABILITIES][0]
            shown = min(size, columns - left)
            sums[:, :, left : left + shown] += answer[:, :, :shown] * weights[:, :shown]
            total[:, left : left + shown] += weights[:, :shown]
        done = following - top
        yield top, sums[:, :done] / total[:done]
        sums = np.concatenate([sums[:, done:], np.zeros_like(sums[:, :done])], axis=1)
        total = np.concatenate([total[done:], np.zeros_like(total[:done])])
