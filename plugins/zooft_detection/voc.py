"""Pascal VOC: an XML a picture, and lists of pictures for the splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

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

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LISTS = ("train", "val", "test")


@dataclass(slots=True)
class Node:
    """An element of XML.

    Attributes:
        tag: its name.
        line: where it begins.
        text: between its tags.
        inner: elements in it.
    """

    tag: str
    line: int
    text: str = ""
    inner: list[Node] = field(default_factory=list)

    def first(self, *tags: str) -> Node | None:
        """The element that a path of tags leads to."""
        node: Node | None = self
        for tag in tags:
            node = next((each for each in node.inner if each.tag == tag), None) if node else None
        return node

    def word(self, *tags: str) -> str:
        """The text of such an element; "" where there is none."""
        node = self.first(*tags)
        return node.text.strip() if node else ""


def parse(path: Path) -> Node:
    """The outermost element of a file.

    Raises:
        DataError: not XML, or such as declares entities; the message names the line.
    """
    parser = expat.ParserCreate()
    top = Node("", 0)
    open_ones = [top]

    def begin(tag: str, _attributes: Mapping[str, str]) -> None:
        node = Node(tag, parser.CurrentLineNumber)
        open_ones[-1].inner.append(node)
        open_ones.append(node)

    def end(_tag: str) -> None:
        open_ones.pop()

    def text(characters: str) -> None:
        open_ones[-1].text += characters

    def refuse(*_args: object) -> None:
        raise zooft.DataError(f"line {parser.CurrentLineNumber}: it declares a document type, which isn't read here")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = begin, end, text
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise zooft.DataError(f"line {error.lineno}: not XML: {expat.errors.messages[error.code]}") from error
    except OSError as error:
        raise zooft.DataError(f"can't be read: {error.strerror}") from error
    return top.inner[0]


def annotation_files(root: Path) -> list[Path]:
    """XML files, where data is of this form."""
    if not root.is_dir():
        return []
    return [path for path in files_below(root) if path.suffix.lower() == ".xml"]


def read_annotations(root: Path, files: Sequence[Path]) -> Listing:
    """The content of the files.

    Args:
        root: the data.
        files: of annotations.
    """
    found = Listing(form="corners", form_words="VOC's bndbox has xmin, ymin, xmax, ymax")
    pictures, splits, claims = _Pictures(root), _splits(root), Claims()
    parsed = dict(_parse_all(root, files, found))
    names = sorted({each.word("name") for node in parsed.values() for each in _objects(node)} - {""})
    found.classes = [ClassName(name, number) for number, name in enumerate(names, 1)]
    numbers = {name: number for number, name in enumerate(names)}
    for path, node in parsed.items():
        where = name_in(root, path)
        try:
            split = splits.split_of(root, path)
            image = pictures.of(path, node.word("filename"))
            objects = tuple(_annotation(each, where, numbers) for each in _objects(node))
            claims.add(image, where, objects)
        except zooft.DataError as error:
            found.rejected.append(zooft.Rejection(where, str(error)))
            continue
        name = name_in(root, image)
        found.pictures.append(
            AnnotatedImage(id=name, image=image, objects=objects, where=where, split=split, size=_size(node))
        )
    claims.settle(found)
    stems = {path.stem for path in files}
    found.rejected += splits.missing(stems)
    found.rejected += [
        zooft.Rejection(name_in(root, each), "no annotation of this picture")
        for each in pictures.without_annotation(stems)
    ]
    left_out = sum(each.ignored for picture in found.pictures for each in picture.objects)
    if left_out:
        found.notes.append(
            f"{zooft.pluralize(left_out, 'object is', 'objects are')}"
            " marked as difficult and left out of loss and figures, as in VOC's own figures"
        )
    return found


def _parse_all(root: Path, files: Sequence[Path], found: Listing) -> Iterator[tuple[Path, Node]]:
    """Files and what they hold; those that are no annotations are rejected."""
    for path in files:
        try:
            node = parse(path)
            if node.tag != "annotation":
                raise zooft.DataError(f"line {node.line}: it begins with <{node.tag}>, expected <annotation>")
            yield path, node
        except zooft.DataError as error:
            found.rejected.append(zooft.Rejection(name_in(root, path), str(error)))


def _objects(node: Node) -> Iterator[Node]:
    return (each for each in node.inner if each.tag == "object")


def _annotation(each: Node, where: str, numbers: Mapping[str, int]) -> Annotation:
    place = f"{where}, line {each.line}"
    name, box = each.word("name"), each.first("bndbox")
    if not name:
        raise zooft.DataError(f"line {each.line}: an object without a name")
    words = [box.word(tag) if box else "" for tag in _CORNERS]
    numbers_found = numbers_of(words)
    if numbers_found is None:
        raise zooft.DataError(f"line {each.line}: its box is {', '.join(words)}; expected four numbers")
    return Annotation(numbers[name], numbers_found, place, ignored=each.word("difficult") == "1")


def _size(node: Node) -> tuple[int | None, int | None] | None:
    height, width = (node.word("size", tag) for tag in ("height", "width"))
    if not (height.isdigit() and width.isdigit()) or not int(height) or not int(width):
        return None
    return int(height), int(width)


class _Pictures:
    """Pictures by their names.

    Args:
        root: the data.
    """

    def __init__(self, root: Path) -> None:
        self._all = [path for path in files_below(root) if zooft.looks_like_picture(path)]
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self._all:
            self._by_stem[path.stem].append(path)

    def of(self, annotation: Path, named: str) -> Path:
        """The picture of an XML: by the name in it, or by its own.

        Raises:
            DataError: there is none, or which of several isn't clear.
        """
        name = named.replace("\\", "/").rpartition("/")[2]
        found = self._by_stem.get(annotation.stem, [])
        if name and Path(name).stem != annotation.stem:
            found = [path for path in self._by_stem.get(Path(name).stem, []) if path.name == name] or found
        if len(found) > 1:
            near = [path for path in found if path.parent == annotation.parent]
            near = near or [path for path in found if path.parent.parent == annotation.parent.parent]
            found = near or found
        if len(found) > 1 and name:
            found = [path for path in found if path.name == name] or found
        if len(found) != 1:
            lack = "there is no picture" if not found else f"there are {len(found)} pictures"
            raise zooft.DataError(f"{lack} {name or annotation.stem}")
        return found[0]

    def without_annotation(self, stems: set[str]) -> Iterator[Path]:
        """Pictures that no annotation is called as."""
        return (path for path in self._all if path.stem not in stems)


@dataclass(slots=True)
class _Splits:
    """Which annotation belongs where, by ``ImageSets/Main``.

    Attributes:
        of: name to split.
        twice: name to the lists that it is in.
        named: the lists.
        lines: name to file and line.
    """

    of: dict[str, Split] = field(default_factory=dict)
    twice: dict[str, str] = field(default_factory=dict)
    named: list[str] = field(default_factory=list)
    lines: dict[str, str] = field(default_factory=dict)

    def split_of(self, root: Path, path: Path) -> Split | None:
        """Of an annotation: by the lists, or where there are none by its folder.

        Raises:
            DataError: it is in none of them, or in several.
        """
        if not self.named:
            return split_of(path.parent.relative_to(root).as_posix())
        if path.stem not in self.of:
            raise zooft.DataError(f"it is in none of {', '.join(self.named)}")
        if path.stem in self.twice:
            raise zooft.DataError(f"it is in {self.twice[path.stem]}; a picture belongs to one split")
        return self.of[path.stem]

    def missing(self, stems: set[str]) -> list[zooft.Rejection]:
        """Names without an annotation."""
        return [
            zooft.Rejection(name, f"{line}: there is no annotation {name}.xml")
            for name, line in self.lines.items()
            if name not in stems
        ]


def _splits(root: Path) -> _Splits:
    found = _Splits()
    folders = [root / "ImageSets" / "Main", root / "ImageSets"]
    for folder in folders:
        for word in _LISTS:
            path = folder / f"{word}.txt"
            if not path.is_file():
                continue
            found.named.append(path.name)
            for number, line in enumerate(path.read_text("utf-8-sig", errors="replace").splitlines(), 1):
                name = line.split()[0] if line.split() else ""
                if not name:
                    continue
                other = found.of.setdefault(name, zooft.SPLIT_NAMES[word])
                found.lines.setdefault(name, f"{path.name}, line {number}")
                if other != word:
                    found.twice[name] = f"{other}.txt and {word}.txt"
        if found.named:
            break
    return found
