"""What label volumes mean: classes by values or by names of segments, and a target for every slice."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_ct import LabelVolume, Meaning
from zooft_segmentation import (
    CLASS_FILES,
    MOST_CLASSES,
    OUTSIDE,
    ClassSpec,
    class_labels,
    classes_from_json,
    classes_to_json,
    read_classes,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

BACKGROUND = "background"
VALUE = "value"
"""Constant of a label: the value in label volumes."""
_FILES = (*CLASS_FILES, "labels.json")
_DATASET = "dataset.json"
"""Of the Medical Segmentation Decathlon and of nnU-Net."""
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class SliceMask:
    """A slice's target, small enough to stay in memory.

    Attributes:
        packed: ``(rows, columns)`` uint8 in zlib, the number of each pixel's class.
        shape: rows, columns.
        counts: pixels of each class.
        mark: equal for equal masks: a checksum of the pixels, hexadecimal.
    """

    packed: bytes
    shape: tuple[int, int]
    counts: tuple[int, ...]
    mark: str

    def pixels(self) -> NDArray[np.uint8]:
        """``(H, W)``, the number of each pixel's class."""
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(self.shape)

    def renumber(self, numbers: Sequence[int], count: int) -> SliceMask:
        """With other numbers of the classes: ``numbers[old]``, of `count` ones."""
        table = np.full(256, OUTSIDE, np.uint8)
        table[: len(numbers)] = numbers
        return slice_mask(table[self.pixels()], count)


def slice_mask(pixels: NDArray[np.uint8], classes: int) -> SliceMask:
    """Of pixels ``(H, W)``."""
    counts = np.bincount(pixels.ravel(), minlength=classes)[:classes]
    raw = np.ascontiguousarray(pixels).tobytes()
    return SliceMask(
        zlib.compress(raw, 1), (pixels.shape[0], pixels.shape[1]), tuple(counts.tolist()), f"{zlib.crc32(raw):08x}"
    )


def meaning(volumes: Sequence[LabelVolume], folder: Path, options: Any) -> Meaning:
    """Targets of all slices of label volumes.

    Args:
        volumes: of all series.
        folder: the data's, in which a file of classes may lie.
        options: the task's.

    Raises:
        DataError: classes that can't be known, or too many of them.
        ConfigError: a file of classes that can't be read.
    """
    given, notes = _specified_classes(folder, options)
    specs = given or _classes_of_volumes(volumes)
    if len(specs) > MOST_CLASSES:
        raise zooft.DataError(f"the label volumes have {len(specs)} classes; {MOST_CLASSES} at most are possible")
    if len(specs) < 2:
        raise zooft.DataError(
            "all label volumes are empty, so nothing says what there is to learn; name the classes with --classes if "
            "that is right"
        )
    numbers = {spec.value: number for number, spec in enumerate(specs)}
    names = {zooft.spelling(spec.name): number for number, spec in enumerate(specs)}
    targets = [_targets(volume, numbers, names, len(specs)) for volume in volumes]
    labels = tuple(
        replace(label, constants={**label.constants, VALUE: float(spec.value if spec.value is not None else number)})
        for number, (label, spec) in enumerate(zip(class_labels(specs), specs, strict=True))
    )
    return Meaning(labels=labels, targets=targets, notes=(*notes, *_notes(targets, specs, named=bool(given))))


def nameless(labels: Sequence[zooft.Label]) -> bool:
    """Whether classes are only known by their values."""
    return all(label.name in (BACKGROUND, _by_value(int(label.constants.get(VALUE, -1)))) for label in labels)


def _by_value(value: int) -> str:
    return f"class {value}"


def _specified_classes(folder: Path, options: Any) -> tuple[Sequence[ClassSpec], list[str]]:
    """By the options, or by a file that lies with the data; background comes first."""
    if options.classes_json:
        return _with_background(classes_from_json(options.classes_json)), []
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is not None:
        return _with_background(read_classes(path)), [_of_file(path)]
    if (folder / _DATASET).is_file():
        path = folder / _DATASET
        return _with_background(_of_dataset(path)), [_of_file(path)]
    return (), []


def _of_file(path: Path) -> str:
    return f"the classes are those of {path.name} in the data"


def _of_dataset(path: Path) -> Sequence[ClassSpec]:
    try:
        found = json.loads(path.read_text("utf-8-sig"))["labels"]
        pairs = [(value, int(key)) if str(key).isdigit() else (key, int(value)) for key, value in found.items()]
        return classes_from_json(classes_to_json([ClassSpec(str(name), value) for name, value in pairs]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise zooft.ConfigError(
            f"{path.name} in the data has no labels as the Medical Segmentation Decathlon and nnU-Net write them; "
            "give --classes-file"
        ) from None


def _with_background(specs: Sequence[ClassSpec]) -> Sequence[ClassSpec]:
    """The value 0 first; it is the background where no class has it."""
    ordered = sorted(specs, key=lambda spec: -1 if spec.value is None else spec.value)
    if ordered[0].value != 0:
        ordered = [ClassSpec(BACKGROUND, 0), *ordered]
    return ordered


def _classes_of_volumes(volumes: Sequence[LabelVolume]) -> Sequence[ClassSpec]:
    """Classes by the values, or the names of segments, that there are."""
    names = [name for volume in volumes for _, name in sorted(volume.names.items())]
    values = {value for volume in volumes if not volume.names for value in volume.counts} - {0}
    if names and values:
        raise zooft.DataError(
            "some label volumes are NIfTI, others DICOM segmentations, and nothing says which values are which "
            "segments; give --classes-file with names and values"
        )
    if names:
        for name in dict.fromkeys(names):
            if fault := zooft.label_fault(name):
                raise zooft.DataError(f"the name of a segment can't be a class: {fault}; rename it")
        known = dict.fromkeys(name for name in names if zooft.spelling(name) != BACKGROUND)
        return [ClassSpec(BACKGROUND, 0), *(ClassSpec(name, number) for number, name in enumerate(known, start=1))]
    return [ClassSpec(BACKGROUND, 0), *(ClassSpec(_by_value(value), value) for value in sorted(values))]


def _targets(
    volume: LabelVolume, numbers: Mapping[int | None, int], names: Mapping[str, int], classes: int
) -> Mapping[int, SliceMask] | str:
    """Of each slice; or what is wrong with the volume's values."""
    table = np.zeros(max(volume.counts, default=0) + 1, np.uint8)
    unknown: Counter[str] = Counter()
    for value, count in volume.counts.items():
        named = value and volume.names
        number = names.get(zooft.spelling(volume.names[value])) if named else numbers.get(value)
        if number is None:
            unknown[repr(volume.names[value]) if named else str(value)] += count
        else:
            table[value] = number
    if unknown:
        some = zooft.list_some([name for name, _ in unknown.most_common()], _SHOWN)
        return f"values that are no class: {some}, {sum(unknown.values()):,} voxels; name them with --classes-file"
    return {number: slice_mask(table[plane.values()], classes) for number, plane in volume.planes.items()}


def _notes(
    targets: Sequence[Mapping[int, SliceMask] | str], specs: Sequence[ClassSpec], *, named: bool
) -> Sequence[str]:
    masks = [mask for one in targets if not isinstance(one, str) for mask in one.values()]
    volumes = [one for one in targets if not isinstance(one, str)]
    empty = sum(not any(sum(mask.counts[1:]) for mask in one.values()) for one in volumes)
    without = sum(not sum(mask.counts[1:]) for mask in masks)
    notes = (
        [f"{without} of {len(masks)} slices show no structure; all of them are used, as negatives"] if without else []
    )
    notes += [f"{empty} of {len(volumes)} label volumes are empty; they count as negatives"] if empty else []
    absent = [spec.name for n, spec in enumerate(specs) if n and not any(mask.counts[n] for mask in masks)]
    if absent:
        some = f"{', '.join(absent[:_SHOWN])}{' …' if len(absent) > _SHOWN else ''}"
        notes.append(f"warning: no label volume shows {some}")
    if not named:
        some = f"{', '.join(spec.name for spec in specs[:_SHOWN])}{' …' if len(specs) > _SHOWN else ''}"
        notes.append(f"nothing in the data folder names the classes: {some}; --classes or --classes-file does")
    return notes
