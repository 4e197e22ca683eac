"""COCO's JSON: images, annotations with boxes, categories."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zooft
from zooft_detection.annotations import (
    AnnotatedImage,
    Annotation,
    Claims,
    ClassName,
    Listing,
    Split,
    files_below,
    name_in,
    numbers_of,
    split_of,
)

_OTHERS = re.compile(r"^(captions|person_keypoints|panoptic|stuff|image_info)_", re.IGNORECASE)
_LISTS = ("images", "annotations", "categories")
_SHOWN = 4
_PEEKED = 4096


def annotation_files(root: Path) -> list[Path]:
    """COCO's, where data is of this form: the file itself, or those in a folder, two levels deep."""
    if root.is_file():
        return [root] if root.suffix.lower() == ".json" else []
    places = [root / "annotations", root / "Annotations", root, *sorted(p for p in root.iterdir() if p.is_dir())]
    found = [
        path
        for place in dict.fromkeys(places)
        if place.is_dir() and not zooft.is_hidden(place.name)
        for path in sorted(place.glob("*.json"))
        if not _OTHERS.match(path.name) and _looks_so(path)
    ]
    return list(dict.fromkeys(found))


def _looks_so(path: Path) -> bool:
    """By its name, or its first bytes."""
    if path.name.lower().startswith("instances") or "coco" in path.name.lower():
        return True
    try:
        with path.open("rb") as file:
            head = file.read(_PEEKED)
    except OSError:
        return False
    return any(f'"{word}"'.encode() in head for word in (*_LISTS, "info", "licenses"))


def read_annotations(root: Path, files: Sequence[Path], group_key: str) -> Listing:
    """The content of the files.

    Args:
        root: the data.
        files: of annotations.
        group_key: key of images that names a group.

    Raises:
        DataError: not COCO's form, or categories that contradict each other.
    """
    found = Listing(form="corner and size", form_words="COCO's bbox has x, y, width, height")
    contents = [_read(path) for path in files]
    categories = _categories(files, contents)
    found.classes = [ClassName(name, key) for key, name in categories.items()]
    numbers = {key: number for number, key in enumerate(categories)}
    home = _home(root)
    context = _Context(found, home, numbers, _Pictures(home), Claims(), group_key)
    for path, content in zip(files, contents, strict=True):
        _add(context, path, content, split_of(path.stem) or split_of(path.parent.name))
    context.claims.settle(found)
    crowds = sum(each.ignored for picture in found.pictures for each in picture.objects)
    if crowds:
        found.notes.append(
            f"{zooft.pluralize(crowds, 'region is a crowd', 'regions are crowds')}, left out of loss and figures"
        )
    return found


def _home(root: Path) -> Path:
    """The folder of the data, also where it is given as a file in COCO's folder of annotations."""
    if root.is_dir():
        return root
    return root.parent.parent if root.parent.name.lower() == "annotations" else root.parent


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise zooft.DataError(f"{path.name}, line {error.lineno}: not JSON: {error.msg}") from error
    except (OSError, ValueError) as error:
        raise zooft.DataError(f"{path.name} can't be read: {error}") from error
    lacking = [key for key in _LISTS if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if lacking:
        raise zooft.DataError(f"{path.name} isn't COCO's form: it has no list {', '.join(lacking)}")
    return dict(content)


def _categories(files: Sequence[Path], contents: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Of all files, by id; they must be the same in each."""
    found: dict[int, str] = {}
    for path, content in zip(files, contents, strict=True):
        for each in content["categories"]:
            try:
                key, name = int(each["id"]), str(each["name"]).strip()
            except (KeyError, TypeError, ValueError) as error:
                raise zooft.DataError(f"{path.name}: a category without id and name: {each!r}") from error
            if found.setdefault(key, name) != name:
                raise zooft.DataError(f"{path.name}: the category {key} is {name}, and elsewhere {found[key]}")
    twice = [name for name, count in Counter(found.values()).items() if count > 1]
    if twice:
        raise zooft.DataError(f"{files[0].name}: several categories are called {', '.join(twice)}")
    return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True)
class _Context:
    """What the entries of all files have in common.

    Attributes:
        found: so far.
        root: the folder of the data.
        numbers: id of a category to number of its class.
        pictures: where they lie.
        claims: who describes which.
        group_key: key of images that names a group.
    """

    found: Listing
    root: Path
    numbers: Mapping[int, int]
    pictures: _Pictures
    claims: Claims
    group_key: str


def _add(context: _Context, path: Path, content: Mapping[str, Any], split: Split | None) -> None:
    """The pictures of one file."""
    where, rejected = name_in(context.root, path), context.found.rejected
    by_image: dict[Any, list[Any]] = defaultdict(list)
    for each in content["annotations"]:
        by_image[each.get("image_id") if isinstance(each, dict) else None].append(each)
    images = [image if isinstance(image, dict) else {} for image in content["images"]]
    ids = Counter(image.get("id") for image in images)
    for position, image in enumerate(images):
        key, name = image.get("id"), str(image.get("file_name") or "")
        try:
            if not name:
                raise zooft.DataError("it has no file_name")
            if ids[key] > 1:
                raise zooft.DataError(f"the image id {key} occurs {ids[key]} times")
            entry = _annotated_image(context, path, image, by_image.get(key, []), split)
            context.claims.add(entry.image, f"{where} (image {key})", entry.objects)
            context.found.pictures.append(entry)
        except zooft.DataError as error:
            rejected.append(zooft.Rejection(name or f"{where}, image {position}", f"{where}: {error}"))
    for key in [key for key in by_image if key not in ids]:
        some = ", ".join(str(_id(each)) for each in by_image[key][:_SHOWN])
        reason = f"no such image; {len(by_image[key])} annotations name it: {some}"
        rejected.append(zooft.Rejection(f"{where}, image {key}", reason))


def _annotated_image(
    context: _Context, path: Path, image: Mapping[str, Any], annotations: Sequence[Any], split: Split | None
) -> AnnotatedImage:
    """One picture.

    Raises:
        DataError: there is none, or one of its annotations isn't COCO's.
    """
    where = name_in(context.root, path)
    source = context.pictures.of(path, str(image["file_name"]))
    group = image.get(context.group_key)
    return AnnotatedImage(
        id=name_in(context.root, source),
        image=source,
        objects=tuple(_annotation(each, where, context.numbers) for each in annotations),
        where=where,
        split=split,
        group=None if group in (None, "") else str(group),
        size=(image.get("height"), image.get("width")),
    )


def _id(annotation: Any) -> Any:
    return annotation.get("id", "without id") if isinstance(annotation, dict) else annotation


def _annotation(annotation: Any, where: str, numbers: Mapping[int, int]) -> Annotation:
    key = annotation.get("category_id")
    place = f"{where}, annotation {_id(annotation)}"
    if not isinstance(key, int) or key not in numbers:
        some = ", ".join(map(str, list(numbers)[:_SHOWN])) + (" …" if len(numbers) > _SHOWN else "")
        raise zooft.DataError(f"annotation {_id(annotation)} has the category {key}; there are {some}")
    box = numbers_of(annotation.get("bbox"))
    if box is None:
        raise zooft.DataError(
            f"annotation {_id(annotation)} has the bbox {annotation.get('bbox')}; expected [x, y, width, height]"
        )
    return Annotation(numbers[key], box, place, ignored=bool(annotation.get("iscrowd", 0)))


class _Pictures:
    """Where the pictures of a COCO file lie.

    Args:
        root: the data, searched as a whole where the usual places don't have a picture.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._by_name: dict[str, list[Path]] | None = None

    def of(self, path: Path, name: str) -> Path:
        """Where COCO's own folders have it: beside the annotations, or in a folder called as their split.

        Raises:
            DataError: there is none, or which of several isn't clear.
        """
        above, word = path.parent.parent, path.stem.split("_", 1)[-1]
        folders = [path.parent, path.parent / "images", path.parent / word]
        if path.parent != self._root:
            folders += [above, above / "images", above / word, above / "images" / word]
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
        found = self._all().get(Path(name).name, [])
        if len(found) != 1:
            lack = "there is no picture" if not found else f"there are {len(found)} pictures"
            raise zooft.DataError(f"{lack} {name}")
        return found[0]

    def _all(self) -> Mapping[str, list[Path]]:
        if self._by_name is None:
            self._by_name = defaultdict(list)
            for path in files_below(self._root):
                self._by_name[path.name].append(path)
        return self._by_name
