"""Pictures and their boxes, every one of them decoded once before training starts."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zooft
from zooft_detection import coco, voc, yolo
from zooft_detection.annotations import AnnotatedImage, Annotation, Form, Listing, corners_of
from zooft_detection.target import Boxes, Corners, area, cut, fault_of, is_outside

if TYPE_CHECKING:
    from zooft_detection.options import DetectionOptions

NUMBER = "number"
"""Constant of a label: the number that the data has for the class."""
_NAMED = 4
_TURNED = 5
"""The first of EXIF's orientations that swap rows and columns."""
_FEWEST = 3
_MOST_ODD = 0.05
"""Of all boxes, those that may fit no form at all where another form than the expected one is recognised."""


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A picture that can be decoded, upright.

    Attributes:
        entry: its annotations.
        size: rows and columns.
        facts: of the picture.
    """

    entry: AnnotatedImage
    size: tuple[int, int]
    facts: dict[str, str | float]


def discover(root: Path, options: DetectionOptions, *, computing: zooft.Computing = zooft.unseen) -> zooft.Discovery:
    """Samples, classes in their order, and what was rejected.

    Args:
        root: a folder, or a file of annotations.
        options: the task's own.
        computing: called with the progress.

    Raises:
        DataError: no annotations, or none that can be used, or all in another form than theirs.
        ConfigError: a library that reads them is missing.
    """
    listing = _listing(root, options)
    if not listing.classes:
        raise zooft.DataError(f"the annotations in {root} name no class{_why_none(listing.rejected)}")
    decoded: list[_Decoded] = []
    rejected = list(listing.rejected)
    for found in _decode_all(listing, computing):
        if isinstance(found, zooft.Rejection):
            rejected.append(found)
        else:
            decoded.append(found)
    _refuse_other_form(listing, decoded)
    boxed = _Boxing(listing, cut_all=options.outside == "cut")
    samples = [sample for each in decoded if (sample := boxed.sample(each)) is not None]
    rejected += boxed.rejected
    if not samples:
        raise zooft.DataError(f"no picture in {root} can be used{_why_none(rejected)}")
    labels = tuple(zooft.Label(name=each.name, constants={NUMBER: each.number}) for each in listing.classes)
    return zooft.Discovery(
        samples=tuple(samples),
        labels=labels,
        rejected=tuple(rejected),
        notes=(*listing.notes, *boxed.notes(), *_about(samples, labels)),
    )


def _listing(root: Path, options: DetectionOptions) -> Listing:
    """By the form that lies there.

    Raises:
        DataError: none of the three, or several.
    """
    if not root.exists():
        raise zooft.DataError(f"{root}: no such folder or file")
    wanted = options.annotations
    jsons = coco.annotation_files(root) if wanted in ("auto", "coco") else []
    sheets = voc.annotation_files(root) if wanted in ("auto", "voc") else []
    data = yolo.data_files(root) if wanted in ("auto", "yolo") else []
    there = [name for name, files in (("coco", jsons), ("voc", sheets), ("yolo", data)) if files]
    if len(there) > 1:
        raise zooft.DataError(
            f"{root} has annotations of several forms: {', '.join(there)}; choose one with --annotations"
        )
    if jsons:
        return coco.read_annotations(root, jsons, options.group_key)
    if sheets:
        return voc.read_annotations(root, sheets)
    if data:
        return yolo.read_annotations(root, data)
    what = "no annotations" if wanted == "auto" else f"no annotations of the form {wanted}"
    raise zooft.DataError(
        f"{root} has {what}; expected COCO's JSON (images, annotations, categories), Pascal VOC's XML files beside "
        "the pictures, or a YAML with YOLO's paths and names and a text file a picture (docs/detection.md)"
    )


# pictures


def _decode_all(listing: Listing, computing: zooft.Computing) -> Iterator[_Decoded | zooft.Rejection]:
    """In threads: Pillow's decoders let go of the interpreter."""
    advance = computing("decoding pictures", len(listing.pictures))
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        # once for all threads: the filters belong to the process
        warnings.simplefilter("ignore")
        for found in pool.map(lambda entry: _decode(entry, stored=listing.stored), listing.pictures):
            advance(1)
            yield found


def _decode(entry: AnnotatedImage, *, stored: bool) -> _Decoded | zooft.Rejection:
    try:
        with zooft.image_opened(entry.image) as image:
            image.load()
            orientation = image.getexif().get(0x0112, 1)
            turned = orientation in range(_TURNED, _TURNED + 4)
            rows, columns = (image.width, image.height) if turned else (image.height, image.width)
            facts: dict[str, str | float] = {
                "format": image.format or "",
                "mode": image.mode,
                "width": float(columns),
                "height": float(rows),
            }
    except zooft.DataError as error:
        return zooft.Rejection(entry.id, str(error))
    if stored and orientation not in (0, 1):
        return zooft.Rejection(
            entry.id,
            f"{entry.where}: the picture's EXIF turns it, and boxes are of the pixels as they are stored; save it "
            "upright, or without that entry where the boxes fit what is stored",
        )
    if entry.size is not None and entry.size != (rows, columns):
        return zooft.Rejection(
            entry.id,
            f"{entry.where}: the picture is {columns}x{rows}, and its boxes are of {entry.size[1]}x{entry.size[0]}",
        )
    return _Decoded(entry, (rows, columns), facts)


# boxes


def _scale(listing: Listing, size: tuple[int, int]) -> tuple[float, float]:
    return (float(size[1]), float(size[0])) if listing.relative else (1.0, 1.0)


def _refuse_other_form(listing: Listing, decoded: Sequence[_Decoded]) -> None:
    """Boxes that don't fit as they are, nearly all of which would fit if their numbers meant something else.

    Raises:
        DataError: names the form that they seem to have.
    """
    pairs = [(annotation, each.size) for each in decoded for annotation in each.entry.objects]
    wrong = [pair for pair in pairs if not _fits(listing, pair[0], pair[1], listing.form)]
    if len(pairs) < _FEWEST or not wrong:
        return
    for other in _others(listing.form):
        odd = sum(not _fits(listing, annotation, size, other) for annotation, size in pairs)
        if odd <= _MOST_ODD * len(pairs) and len(wrong) > 2 * odd:
            first, size = wrong[0]
            raise zooft.DataError(
                f"{first.where}: {_format(first.numbers)} isn't a box in a picture of {size[1]}x{size[0]}. "
                f"{listing.form_words}, and {len(wrong)} of {len(pairs)} boxes don't fit; all but {odd} fit as "
                f"{_WORDS[other]}. Convert them"
            )


def _others(form: Form) -> tuple[Form, ...]:
    every: tuple[Form, ...] = ("corners", "corner and size", "middle and size")
    return tuple(each for each in every if each != form)


_WORDS = {
    "corners": "x and y of two corners (xyxy)",
    "corner and size": "x and y of a corner, width and height (xywh)",
    "middle and size": "x and y of the middle, width and height (cxcywh)",
}


def _fits(listing: Listing, annotation: Annotation, size: tuple[int, int], form: Form) -> bool:
    return not fault_of(corners_of(annotation.numbers, form, _scale(listing, size)), size)


def _format(numbers: Corners) -> str:
    return "[" + ", ".join(f"{number:g}" for number in numbers) + "]"


class _Boxing:
    """Makes samples, and records which of their boxes aren't used.

    Args:
        listing: all annotations.
        cut_all: whether boxes are cut at the border however far they reach beyond it.
    """

    def __init__(self, listing: Listing, *, cut_all: bool) -> None:
        self._listing, self._cut_all = listing, cut_all
        self.rejected: list[zooft.Rejection] = []
        self._counts: Counter[str] = Counter()

    def sample(self, decoded: _Decoded) -> zooft.Sample | None:
        """Of a picture; None where one of its boxes is wrong."""
        entry, size = decoded.entry, decoded.size
        ignored: dict[tuple[int, Corners], bool] = {}
        empty: list[Annotation] = []
        for annotation in entry.objects:
            corners = corners_of(annotation.numbers, self._listing.form, _scale(self._listing, size))
            fault = fault_of(corners, size)
            if fault and not (self._cut_all and is_outside(corners, size) and "outside" in fault):
                self.rejected.append(zooft.Rejection(entry.id, f"{annotation.where}: the box {fault}"))
                return None
            inside = cut(corners, size)
            self._counts["cut"] += inside != corners
            if area(inside) <= 0:
                empty.append(annotation)
                continue
            self._counts["twice"] += (annotation.number, inside) in ignored
            ignored[annotation.number, inside] = ignored.get((annotation.number, inside), True) and annotation.ignored
        self.rejected += [
            zooft.Rejection(each.where, f"the box {_format(each.numbers)} has no area; its picture is used without it")
            for each in empty
        ]
        self._counts["empty"] += not ignored
        target = Boxes(
            size=size,
            corners=tuple(corners for _, corners in ignored),
            classes=tuple(number for number, _ in ignored),
            ignored=tuple(ignored.values()),
        )
        return zooft.Sample(
            id=entry.id, source=entry.image, target=target, group=entry.group, split=entry.split, facts=decoded.facts
        )

    def notes(self) -> Iterator[str]:
        """What the user should know."""
        if self._counts["cut"]:
            how = "" if self._cut_all else ", by a pixel at most,"
            yield f"{zooft.pluralize(self._counts['cut'], 'box', 'boxes')} beyond the picture's border{how} cut at it"
        if self._counts["twice"]:
            yield (
                f"{zooft.pluralize(self._counts['twice'], 'box is', 'boxes are')}"
                " listed twice in the same picture and counted once"
            )
        if self._counts["empty"]:
            yield (
                f"{zooft.pluralize(self._counts['empty'], 'picture has', 'pictures have')} no object: used as negatives"
            )


def _why_none(rejected: Sequence[zooft.Rejection]) -> str:
    return f"; the first of {len(rejected)}: {rejected[0].id}: {rejected[0].reason}" if rejected else ""


def _about(samples: Sequence[zooft.Sample], labels: Sequence[zooft.Label]) -> Iterator[str]:
    there = {number for sample in samples for number in sample.target.classes}
    absent = [label.name for number, label in enumerate(labels) if number not in there]
    if absent:
        yield f"warning: no picture shows {', '.join(absent[:_NAMED])}{' …' if len(absent) > _NAMED else ''}"
