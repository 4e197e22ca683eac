"""Which label volume belongs to which series: by a table, by names, or by what DICOM segmentations refer to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import zooft
from zooft_ct import labels, nifti, segments, stacks, walk
from zooft_ct.series import Refused

COLUMN = "mask"
"""Of a table: the label volume's file, relative to the table."""
_MASKS = frozenset({"mask", "masks", "label", "labels", "labelstr", "seg", "segmentation", "segmentations"})
_IMAGES = frozenset({"image", "images", "imagestr", "ct", "dicom", "scan", "scans", "volume", "volumes"})
_MASK_END = re.compile(r"[-_.](mask|masks|label|labels|seg|segmentation)$", re.IGNORECASE)
_IMAGE_END = re.compile(r"[-_.](image|img|ct|0000)$", re.IGNORECASE)  # 0000 is nnU-Net's first channel
_BETWEEN = "\x1f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Lines that say which label volume a series has.

    Attributes:
        table: a line a series, its label a key of `files`.
        files: the label volume's, by key.
        path: of the table, where there is one.
        rejected: label volumes without a series.
    """

    table: labels.Table
    files: Mapping[str, tuple[Path, ...]]
    path: Path | None
    rejected: tuple[Refused, ...] = ()


def masks_below(root: Path) -> frozenset[Path]:
    """NIfTI files that are label volumes by the table's column or by their names, resolved."""
    path = labels.table_of(root, by_slice=False)
    folder = root.parent if root.is_file() else root
    if path is not None and COLUMN in (read := labels.open_table(path)).columns:
        cells = [values[COLUMN] for _, values in read.rows if values[COLUMN]]
        return frozenset(zooft.path_in_table(folder, cell).resolve() for cell in cells)
    return frozenset(one.resolve() for one in _named_masks(folder))


def pairs_of(root: Path, found: stacks.Found) -> Pairs:
    """Which label volume each series has.

    Args:
        root: a data folder, or its table.
        found: series below it, and files that are none.

    Raises:
        DataError: a table that can't be read, or nothing that says it.
    """
    path = labels.table_of(root, by_slice=False)
    folder = root.parent if root.is_file() else root
    if path is not None and COLUMN in labels.open_table(path).columns:
        return _by_table(path, folder)
    if path is not None and root.is_file():
        raise zooft.DataError(f"{path.name} has no column {COLUMN} with the files of label volumes")
    made = _by_names(folder, found)
    if path is not None:
        unused = (
            f"{path.name} has no column {COLUMN}, so nothing is taken from it, and label volumes are found by names"
        )
        made = replace(made, table=replace(made.table, notes=(unused,)))
    if not made.files:
        raise zooft.DataError(
            f"nothing says which voxels are of what: write {labels.TABLE} (patient_id, series_uid or path, {COLUMN}) "
            "into the data folder, put NIfTI label volumes into a folder masks beside images under the same names, or "
            "add DICOM segmentations that refer to the series"
        )
    return made


def _by_table(path: Path, folder: Path) -> Pairs:
    read = labels.open_table(path)
    labels.refuse_missing(read, COLUMN)
    files, lines, faults = dict[str, tuple[Path, ...]](), [], {}
    for number, values in read.rows:
        cell = values[COLUMN]
        mask = zooft.path_in_table(folder, cell) if cell else None
        key = f"{_BETWEEN}{cell}"
        if mask is None:
            faults[number] = f"has no {COLUMN}"
        elif not mask.is_file():
            faults[number] = f"there is no such {COLUMN}"
        else:
            files[key] = (mask,)
        lines.append((number, {**values, "label": key}))
    used = labels.COLUMNS | {COLUMN}
    table = labels.table_of_lines(read, lines, used=used, faults=faults, check=lambda _rows, _name: ())
    return Pairs(table=table, files=files, path=path)


def _by_names(folder: Path, found: stacks.Found) -> Pairs:
    """A line for each series that has a label volume of its name, or segmentations that refer to it."""
    files: dict[str, tuple[Path, ...]] = {}
    rows: list[labels.Row] = []
    rejected: list[Refused] = []
    images: defaultdict[str, dict[Path, None]] = defaultdict(dict)
    for stack in found.stacks:
        for ref in stack.slices[:1]:
            place = stacks.path_of(ref)
            place = place if nifti.is_nifti(place) else place.parent
            images[_name(place.relative_to(folder))][place] = None
    for mask in _named_masks(folder):
        name = _name(mask.relative_to(folder))
        if len(images[name]) != 1:
            reason = f"a label volume, and {len(images[name]) or 'no'} images have its name"
            rejected.append(Refused(mask, reason))
            continue
        image = next(iter(images[name]))
        key = f"{_BETWEEN}{len(files)}"
        files[key] = (mask,)
        relative = image.relative_to(folder)
        rows.append(labels.Row(line=0, label=key, path=str(relative), split=_split(relative)))
    for uid, paths in _segmentations_by_series(found).items():
        key = f"{_BETWEEN}{len(files)}"
        files[key] = tuple(paths)
        rows.append(labels.Row(line=0, label=key, series=uid))
    return Pairs(
        table=labels.Table(name="the data folder", rows=tuple(rows)), files=files, path=None, rejected=tuple(rejected)
    )


def _segmentations_by_series(found: stacks.Found) -> Mapping[str, Sequence[Path]]:
    """DICOM segmentations by the series that they are about."""
    known = {stack.series for stack in found.stacks}
    by: defaultdict[str, list[Path]] = defaultdict(list)
    for refused in found.rejected:
        if refused.sop_class in segments.CLASSES:
            for uid in segments.about_series(refused.path):
                if uid in known:
                    by[uid].append(refused.path)
    return by


def _named_masks(folder: Path) -> list[Path]:
    return [one for one in walk.walk(folder) if nifti.is_nifti(one) and _is_mask(one.relative_to(folder))]


def _is_mask(path: Path) -> bool:
    return bool(_MASKS & {part.lower() for part in path.parts[:-1]} or _MASK_END.search(_stem(path)))


def _name(path: Path) -> str:
    """What an image and its label volume have in common, such as ``train/case 1``."""
    folders = [part for part in path.parts[:-1] if part.lower() not in _MASKS | _IMAGES]
    stem = _IMAGE_END.sub("", _MASK_END.sub("", _stem(path)))
    return "/".join([*folders, stem]).lower()


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _split(path: Path) -> Literal["train", "val", "test"] | None:
    return next(
        (zooft.SPLIT_NAMES[part.lower()] for part in path.parts[:-1] if part.lower() in zooft.SPLIT_NAMES), None
    )
