"""YOLO's form: a YAML with paths and names, and a text file a picture with a line an object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import zooft
from zooft_detection import needs
from zooft_detection.annotations import (
    AnnotatedImage,
    Annotation,
    ClassName,
    Listing,
    Split,
    files_below,
    name_in,
    numbers_of,
)

_ENDINGS = (".yaml", ".yml")
_SHOWN = 4
_TWICE = "it is listed twice"


def data_files(root: Path) -> list[Path]:
    """The YAML, where data is of this form: the file itself, or the one in a folder."""
    if root.is_file():
        return [root] if root.suffix.lower() in _ENDINGS else []
    found = sorted(path for path in root.iterdir() if path.suffix.lower() in _ENDINGS and path.is_file())
    return [path for path in found if _looks_so(path)]


def _looks_so(path: Path) -> bool:
    try:
        lines = path.read_text("utf-8-sig", errors="replace").splitlines()
    except OSError:
        return False
    keys = {line.partition(":")[0].strip() for line in lines if not line.startswith((" ", "\t", "#", "-"))}
    return "names" in keys and bool(keys & {"train", "val", "test"})


def read_annotations(root: Path, files: Sequence[Path]) -> Listing:
    """The content of the files.

    Args:
        root: the data.
        files: the YAML.

    Raises:
        DataError: several of them, or not YOLO's form.
        ConfigError: the library that reads YAML is missing.
    """
    if len(files) > 1:
        raise zooft.DataError(
            f"{root} has several files with YOLO's paths and names: {', '.join(path.name for path in files)}; give "
            "--data the one that is meant"
        )
    path = files[0]
    content = _read(path)
    found = Listing(
        form="middle and size",
        form_words="YOLO's lines have class, x and y of the middle, width and height as shares of the picture",
        relative=True,
        stored=False,
    )
    found.classes = _names(path, content.get("names"))
    base = _base(path, content)
    home = root if root.is_dir() else root.parent
    splits: dict[Path, str] = {}
    without = 0
    for key, split in zooft.SPLIT_NAMES.items():
        if not content.get(key):
            continue
        for image, where in _images(path, base, key, content[key], found):
            name = name_in(home, image)
            if image in splits:
                found.rejected.append(zooft.Rejection(name, f"{where}: {_TWICE}, for {splits[image]} and for {key}"))
                continue
            splits[image] = key
            label = _label_of(image, base, path.parent)
            without += label is None
            _add(found, home, image, label, where, split)
    if not found.pictures and not found.rejected:
        raise zooft.DataError(f"{path.name} leads to no pictures; it needs train and val with folders or lists of them")
    if without and without == len(found.pictures):
        raise zooft.DataError(
            f"none of the {without} pictures that {path.name} leads to has a text file; for images/a.jpg it is "
            "labels/a.txt"
        )
    # a picture that is in two splits belongs to neither
    both = {rejected.id for rejected in found.rejected if _TWICE in rejected.reason}
    found.pictures = [picture for picture in found.pictures if picture.id not in both]
    if without:
        found.notes.append(f"{zooft.pluralize(without, 'picture has', 'pictures have')} no text file, and so no object")
    return found


def _read(path: Path) -> Mapping[str, Any]:
    needs.require_yaml()
    import yaml

    try:
        content = yaml.safe_load(path.read_text("utf-8-sig"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise zooft.DataError(f"{path.name}{line}: not YAML: {getattr(error, 'problem', error)}") from error
    except (OSError, ValueError) as error:
        raise zooft.DataError(f"{path.name} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise zooft.DataError(f"{path.name} isn't YOLO's form: expected path, train, val and names")
    return content


def _names(path: Path, names: Any) -> list[ClassName]:
    """In order; numbers that aren't there are no classes."""
    listed = enumerate(names) if isinstance(names, list) else ()
    pairs = list(names.items()) if isinstance(names, dict) else list(listed)
    try:
        found = [ClassName(str(name).strip(), int(number)) for number, name in pairs]
    except (TypeError, ValueError):
        found = []
    if not found:
        raise zooft.DataError(f"{path.name}: names is {names!r}; expected a list, or numbers and names")
    found.sort(key=lambda each: each.number)
    words = [each.name for each in found]
    twice = sorted({word for word in words if words.count(word) > 1})
    if twice:
        raise zooft.DataError(f"{path.name}: several classes are called {', '.join(twice)}")
    return found


def _base(path: Path, content: Mapping[str, Any]) -> Path:
    given = str(content.get("path") or ".")
    return path.parent / given


def _images(path: Path, base: Path, key: str, places: Any, found: Listing) -> Iterator[tuple[Path, str]]:
    """Pictures of a split, and the file that names them."""
    for place in places if isinstance(places, list) else [places]:
        target = _first_there(str(place), base, path.parent)
        if target is None:
            raise zooft.DataError(f"{path.name}: {key} is {place}, which isn't in {base} or {path.parent}")
        if target.is_dir():
            for each in files_below(target):
                if zooft.looks_like_picture(each):
                    yield each, path.name
                elif each.suffix.lower() not in (".txt", ".cache"):
                    found.rejected.append(zooft.Rejection(name_in(path.parent, each), "not a picture, by its name"))
        else:
            yield from _of_list(target, base, found)


def _of_list(path: Path, base: Path, found: Listing) -> Iterator[tuple[Path, str]]:
    for number, line in enumerate(path.read_text("utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        image = _first_there(line.strip(), path.parent, base)
        if image is None:
            found.rejected.append(zooft.Rejection(line.strip(), f"{where}: there is no such picture"))
        else:
            yield image, where


def _first_there(name: str, *folders: Path) -> Path | None:
    """A path relative to one of some folders, or to those above them."""
    places = [place for folder in folders for place in (folder, folder.parent)]
    return next((place / name for place in places if (place / name).exists()), None)


def _label_of(image: Path, base: Path, beside: Path) -> Path | None:
    """The text file of a picture: in ``labels`` in place of ``images``, below the YAML, or beside the picture."""
    parts = image.parts
    last = max((number for number, part in enumerate(parts[:-1]) if part.lower() == "images"), default=None)
    places = [image.with_suffix(".txt")]
    if last is not None:
        inner = Path(*parts[last + 1 :]).with_suffix(".txt")
        places = [Path(*parts[:last]) / "labels" / inner, base / "labels" / inner, beside / "labels" / inner, *places]
        places.insert(0, Path(*parts[:last]) / "labels" / inner)
    return next((place for place in places if place.is_file()), None)


def _add(found: Listing, home: Path, image: Path, label: Path | None, where: str, split: Split) -> None:
    name = name_in(home, image)
    place = where if label is None else name_in(home, label)
    try:
        objects = () if label is None else tuple(_objects(label, place, found.classes))
        found.pictures.append(AnnotatedImage(id=name, image=image, objects=objects, where=place, split=split))
    except zooft.DataError as error:
        found.rejected.append(zooft.Rejection(name, str(error)))


def _objects(path: Path, where: str, classes: Sequence[ClassName]) -> Iterator[Annotation]:
    by_number = {each.number: number for number, each in enumerate(classes)}
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise zooft.DataError(f"{where} can't be read: {error}") from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if words:
            yield _annotation(words, f"{where}, line {number}", by_number)


def _annotation(words: Sequence[str], place: str, by_number: Mapping[int, int]) -> Annotation:
    if len(words) != 5:
        hint = "; outlines (polygons) aren't boxes" if len(words) > 6 and len(words) % 2 else ""
        raise zooft.DataError(f"{place}: {len(words)} words; expected class, x, y, width, height{hint}")
    numbers = numbers_of(list(words[1:]))
    try:
        key = float(words[0])
    except ValueError:
        key = -1.0
    if numbers is None:
        raise zooft.DataError(f"{place}: {' '.join(words[1:])} aren't four numbers")
    if key not in by_number:
        some = ", ".join(map(str, list(by_number)[:_SHOWN])) + (" …" if len(by_number) > _SHOWN else "")
        raise zooft.DataError(f"{place}: the class {words[0]} isn't among those of the YAML, {some}")
    if max(numbers) > 2:
        raise zooft.DataError(
            f"{place}: {' '.join(words[1:])} look like pixels; expected shares of the picture, 0 to 1"
        )
    return Annotation(by_number[int(key)], numbers, place)
