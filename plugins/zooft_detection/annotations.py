"""Annotations as their files have them, in whatever form, before any picture is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import zooft
from zooft_detection.target import Corners

Split = Literal["train", "val", "test"]
Form = Literal["corners", "corner and size", "middle and size"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object.

    Attributes:
        number: of its class.
        numbers: four, as the file has them.
        where: file and line, or the annotation's own id.
        ignored: whether it counts nowhere.
    """

    number: int
    numbers: Corners
    where: str
    ignored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedImage:
    """One picture.

    Attributes:
        id: of the picture, relative to the data.
        image: its file.
        objects: in it; none of a picture without any.
        where: of the annotation.
        split: where the data gives it.
        group: where the data gives it.
        size: rows and columns, where the file gives them.
    """

    id: str
    image: Path
    objects: tuple[Annotation, ...]
    where: str
    split: Split | None = None
    group: str | None = None
    size: tuple[int | None, int | None] | None = None


@dataclass(frozen=True, slots=True)
class ClassName:
    """A class, and the number that the data has for it."""

    name: str
    number: int


@dataclass(slots=True, kw_only=True)
class Listing:
    """What was found.

    Attributes:
        form: of the four numbers of a box.
        form_words: the same, as its inventors call it.
        relative: whether they are shares of the picture's size.
        stored: whether they are of the pixels as they are stored, whatever EXIF's orientation.
        classes: in order.
        pictures: in order.
        rejected: what can't be used, and why.
        notes: what the user should know.
    """

    form: Form
    form_words: str
    relative: bool = False
    stored: bool = True
    classes: list[ClassName] = field(default_factory=list)
    pictures: list[AnnotatedImage] = field(default_factory=list)
    rejected: list[zooft.Rejection] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Claims:
    """Which files describe which pictures: a picture has boxes once."""

    def __init__(self) -> None:
        self._first: dict[Path, tuple[str, list[tuple[int, Corners]]]] = {}
        self._disputed: dict[Path, str] = {}

    def add(self, image: Path, where: str, objects: Sequence[Annotation]) -> None:
        """A file, or an entry of it, describes a picture.

        Raises:
            DataError: another one does so already.
        """
        boxes = sorted((each.number, each.numbers) for each in objects)
        if image not in self._first:
            self._first[image] = where, boxes
            return
        first, others = self._first[image]
        if boxes != others:
            self._disputed[image] = where
        how = "the same" if boxes == others else "other"
        raise zooft.DataError(f"the picture {image.name} is in {first}, too, with {how} boxes")

    def settle(self, listing: Listing) -> None:
        """Reject pictures that two files annotate differently, since nobody knows which is right."""
        listing.rejected += [
            zooft.Rejection(picture.id, f"{picture.where}: it has other boxes in {self._disputed[picture.image]}")
            for picture in listing.pictures
            if picture.image in self._disputed
        ]
        listing.pictures = [picture for picture in listing.pictures if picture.image not in self._disputed]


def corners_of(numbers: Corners, form: Form, scale: tuple[float, float]) -> Corners:
    """Corners in pixels, of numbers that are so many pixels (across, down) each."""
    first, second, third, fourth = (number * (scale[0], scale[1])[place % 2] for place, number in enumerate(numbers))
    if form == "corners":
        return first, second, third, fourth
    if form == "corner and size":
        return first, second, first + third, second + fourth
    return first - third / 2, second - fourth / 2, first + third / 2, second + fourth / 2


def numbers_of(values: Any) -> Corners | None:
    """Four numbers of what should be such, NaN among them; None where it is anything else."""
    if not isinstance(values, list | tuple) or len(values) != 4:
        return None
    try:
        first, second, third, fourth = (float(value) for value in values if not isinstance(value, bool))
    except (TypeError, ValueError):
        return None
    return first, second, third, fourth


def files_below(folder: Path) -> Iterator[Path]:
    """All files in order; hidden ones and links to folders aren't followed."""
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not zooft.is_hidden(name))
        yield from (Path(place) / name for name in sorted(names) if not zooft.is_hidden(name))


def name_in(root: Path, path: Path) -> str:
    """A file relative to the data, where it lies in it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def split_of(words: str) -> Split | None:
    """By a name such as ``instances_val2017`` or ``train``."""
    cleaned = "".join(letter if letter.isalpha() else " " for letter in words.lower())
    return next((zooft.SPLIT_NAMES[word] for word in cleaned.split() if word in zooft.SPLIT_NAMES), None)
