"""Which mask belongs to which picture: by folders that lie side by side, or by a table."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import zooft
from zooft_segmentation.options import GROUP_COLUMN

if TYPE_CHECKING:
    from zooft_segmentation.options import SegmentationOptions

_PICTURES = ("images", "image", "imgs", "img", "jpegimages", "pictures", "photos", "leftimg8bit", "x")
_MASKS = (
    "masks",
    "mask",
    "labels",
    "label",
    "annotations",
    "annotation",
    "annots",
    "annot",
    "segmentationclass",
    "segmentation",
    "segmentations",
    "gtfine",
    "gt",
    "groundtruth",
    "ground_truth",
    "targets",
    "y",
)
_BEHIND_A_SPLIT = re.compile(r"^(?P<split>.+?)[-_ ]?(annot|annots|annotations?|labels?|masks?|gt)$", re.IGNORECASE)
_MARKS = re.compile(r"[-_. ](mask|masks|label|labels|labelids|gt|annot|seg|segmentation|l|target)$", re.IGNORECASE)
_TABLES = ("pairs.csv", "masks.csv", "labels.csv")
_IMAGE_COLUMNS, _MASK_COLUMNS = ("path", "image", "picture", "file"), ("mask", "label", "annotation", "target")
_SPLIT_COLUMN = "split"
Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture and its mask.

    Attributes:
        id: of the picture, relative to the data.
        image: its file.
        mask: the other file.
        split: where the data gives it.
        group: where a table gives it.
    """

    id: str
    image: Path
    mask: Path
    split: Split | None = None
    group: str | None = None


@dataclass(slots=True)
class Pairs:
    """What was found.

    Attributes:
        found: in order.
        rejected: what has no counterpart, and why.
        notes: what the user should know.
    """

    found: list[Pair] = field(default_factory=list)
    rejected: list[zooft.Rejection] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Side:
    """Two folders, one of pictures and one of their masks.

    Attributes:
        images: the first.
        masks: the second.
        split: what both are of.
    """

    images: Path
    masks: Path
    split: Split | None = None


def find_pairs(root: Path, options: SegmentationOptions) -> Pairs:
    """Every picture with its mask.

    Args:
        root: a folder, or a table of pairs.
        options: the task's.

    Raises:
        DataError: neither pairs of folders nor a table.
    """
    if root.is_file():
        return _of_table(root, options)
    if not root.is_dir():
        raise zooft.DataError(f"{root}: no such folder or file")
    sides = list(_sides(root))
    if sides:
        return _of_folders(root, sides)
    table = next((root / name for name in _TABLES if (root / name).is_file()), None)
    if table is not None:
        return _of_table(table, options)
    inside = ", ".join(sorted(path.name for path in _folders(root))[:6]) or "no folders"
    raise zooft.DataError(
        f"{root} has no pictures and masks side by side; it holds {inside}. Expected folders images and masks (each "
        "may hold train, val and test), or train with trainannot, or a CSV with the columns path and mask "
        "(docs/segmentation.md)"
    )


# folders


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not zooft.is_hidden(path.name))
    except OSError as error:
        raise zooft.DataError(f"{root} can't be read: {error.strerror}") from error


def _sides(root: Path) -> Iterator[_Side]:
    """Folders side by side, right below the root or below folders of splits."""
    if side := _side(root, None):
        yield side
        return
    tops = _folders(root)
    masks_of = {
        match["split"].lower(): top
        for top in tops
        if (match := _BEHIND_A_SPLIT.match(top.name)) and match["split"].lower() in zooft.SPLIT_NAMES
    }
    for top in tops:
        split = zooft.SPLIT_NAMES.get(top.name.lower())
        if split is None:
            continue
        if inner := _side(top, split):
            yield inner
        elif top.name.lower() in masks_of:
            yield _Side(top, masks_of[top.name.lower()], split)


def _side(root: Path, split: Split | None) -> _Side | None:
    by_name = {path.name.lower(): path for path in _folders(root)}
    images = next((by_name[name] for name in _PICTURES if name in by_name), None)
    masks = next((by_name[name] for name in _MASKS if name in by_name), None)
    return None if images is None or masks is None else _Side(images, masks, split)


def _of_folders(root: Path, sides: Sequence[_Side]) -> Pairs:
    pairs = Pairs()
    for side in sides:
        images = _by_key(root, side.images, pairs, marked=False)
        masks = _by_key(root, side.masks, pairs, marked=True)
        for key, image in images.items():
            if key not in masks:
                where = side.masks.relative_to(root).as_posix()
                pairs.rejected.append(zooft.Rejection(_id(root, image), f"no mask of this name in {where}"))
                continue
            split = side.split or zooft.SPLIT_NAMES.get(key.split("/")[0].lower() if "/" in key else "")
            pairs.found.append(Pair(_id(root, image), image, masks[key], split))
        for key, mask in masks.items():
            if key not in images:
                where = side.images.relative_to(root).as_posix()
                pairs.rejected.append(
                    zooft.Rejection(_id(root, mask), f"a mask without a picture of its name in {where}")
                )
    return pairs


def _by_key(root: Path, folder: Path, pairs: Pairs, *, marked: bool) -> Mapping[str, Path]:
    """Files by their path without its ending, and of masks without a mark such as ``_mask``."""
    found: dict[str, Path] = {}
    twice: set[str] = set()
    for path in _files(folder):
        if not zooft.looks_like_picture(path):
            pairs.rejected.append(zooft.Rejection(_id(root, path), "not a picture, by its name"))
            continue
        key = path.relative_to(folder).with_suffix("").as_posix()
        key = _MARKS.sub("", key) if marked else key
        other = found.setdefault(key, path)
        if other is not path:
            twice.add(key)
            pairs.rejected.append(
                zooft.Rejection(_id(root, path), f"another file of this name, {other.name}; keep one")
            )
    for key in twice:
        path = found.pop(key)
        pairs.rejected.append(zooft.Rejection(_id(root, path), "another file of this name; keep one"))
    return found


def _files(folder: Path) -> Iterator[Path]:
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not zooft.is_hidden(name))
        yield from (Path(place) / name for name in sorted(names) if not zooft.is_hidden(name))


def _id(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


# tables


def _of_table(path: Path, options: SegmentationOptions) -> Pairs:
    if path.suffix.lower() not in (".csv", ".tsv", ".tab"):
        raise zooft.DataError(f"{path}: expected a folder, or a CSV with the columns path and mask")
    table = zooft.read_csv(path)
    image = next((column for column in _IMAGE_COLUMNS if column in table.columns), None)
    mask = next((column for column in _MASK_COLUMNS if column in table.columns and column != image), None)
    if image is None or mask is None:
        raise zooft.DataError(
            f"{path.name} needs the columns path and mask, and where known split and {options.group_column}; it has "
            f"{', '.join(table.columns)}"
        )
    group = options.group_column.lower()
    if group != GROUP_COLUMN and group not in table.columns:
        raise zooft.ConfigError(f"group-column: {path.name} has no column {group}; it has {', '.join(table.columns)}")
    pairs, seen = Pairs(notes=list(table.notes)), dict[str, int]()
    for line, cells in table.rows:
        try:
            pair = _of_row(path.parent, cells, image, mask, group)
            first = seen.setdefault(pair.id, line)
            if first != line:
                raise zooft.DataError(f"the picture is in line {first}, too; a picture has one mask")
            pairs.found.append(pair)
        except zooft.DataError as error:
            name = cells[image] or f"line {line}"
            pairs.rejected.append(zooft.Rejection(name, f"{path.name}, line {line}: {error}"))
    return pairs


def _of_row(root: Path, cells: Mapping[str, str], image: str, mask: str, group: str) -> Pair:
    if not cells[image] or not cells[mask]:
        raise zooft.DataError(f"the cell {image if not cells[image] else mask} is empty")
    word = cells.get(_SPLIT_COLUMN, "")
    split = zooft.SPLIT_NAMES.get(word.lower())
    if word and split is None:
        raise zooft.DataError(f"the split {word!r} isn't known; expected train, val or test")
    try:
        paths = [zooft.path_in_table(root, cells[column]) for column in (image, mask)]
    except (OSError, ValueError) as error:
        raise zooft.DataError(f"a path can't be looked up: {error}") from error
    return Pair(cells[image].replace("\\", "/"), paths[0], paths[1], split, cells.get(group) or None)
