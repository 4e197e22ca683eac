"""Which classes there are: their names, and the values or colours by which masks mean them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zooft

FILES = ("classes.txt", "classes.json", "classes.csv")
"""File names that are searched for in a data folder."""
_NAMES, _VALUES = ("name", "class", "label"), ("value", "id", "index", "number")
_COLOURS = ("r", "g", "b"), ("red", "green", "blue")
_LARGEST_FILE = 2**20
_LINE = re.compile(r"^(?P<before>\d+\s+\d+\s+\d+)?\s*(?P<name>.*?)\s*(?P<after>\d+\s+\d+\s+\d+)?$")
_FORMULA = re.compile(r"'*\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""What a spreadsheet takes for a formula, in full width too."""
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """A class as a file of classes has it.

    Attributes:
        name: of the class.
        value: in masks of one channel; None where only a colour is given.
        colour: in masks of three channels, and of what is drawn; None where none is given.
    """

    name: str
    value: int | None = None
    colour: Colour | None = None


def read_file(path: Path) -> tuple[ClassSpec, ...]:
    """The classes of a file, in its order.

    Raises:
        ConfigError: the file can't be read, or has another content.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise zooft.ConfigError(f"{path} is no file of classes: it is larger than 1 MB")
        found = _READERS.get(path.suffix.lower(), _of_text)(path)
    except OSError as error:
        raise zooft.ConfigError(f"the classes in {path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise zooft.ConfigError(f"{path} isn't text in UTF-8, so no file of classes") from error
    except zooft.DataError as error:
        raise zooft.ConfigError(str(error)) from error
    return _check(found, path.name)


def to_json(classes: Sequence[ClassSpec]) -> str:
    """As a run records them."""
    return json.dumps([[each.name, each.value, each.colour] for each in classes])


def from_json(text: str) -> tuple[ClassSpec, ...]:
    """What `to_json` wrote.

    Raises:
        ConfigError: it wasn't that.
    """
    try:
        rows = json.loads(text)
        found = [ClassSpec(str(name), value, tuple(colour) if colour else None) for name, value, colour in rows]
    except (ValueError, TypeError) as error:
        raise zooft.ConfigError(f"classes-json isn't what a run records: {error}; give --classes-file") from error
    return _check(found, "classes-json")


def of_numbers(values: Sequence[int]) -> tuple[ClassSpec, ...]:
    """Classes without names, by the values that masks hold."""
    if set(values) <= {0, 255}:
        return (ClassSpec("background", 0), ClassSpec("foreground", 255))
    return tuple(ClassSpec(f"class {value}", value) for value in range(max(values) + 1))


def palette(count: int) -> list[Colour]:
    """A colour for each class, those of Pascal VOC: the bits of a number spread over three channels."""
    colours = []
    for number in range(count):
        levels, rest = [0, 0, 0], number
        for bit in range(7, -1, -1):
            for channel in range(3):
                levels[channel] |= (rest >> channel & 1) << bit
            rest >>= 3
        colours.append((levels[0], levels[1], levels[2]))
    return colours


def labels_of(classes: Sequence[ClassSpec]) -> tuple[zooft.Label, ...]:
    """A label a class, in order; constants hold the colour that it is drawn in."""
    made = []
    for each, other in zip(classes, palette(len(classes)), strict=True):
        red, green, blue = each.colour or other
        made.append(zooft.Label(name=each.name, constants={"red": red, "green": green, "blue": blue}))
    return tuple(made)


def colours_of(labels: Sequence[zooft.Label]) -> list[Colour]:
    """What `labels_of` has written into the labels."""
    other = palette(len(labels))
    return [
        tuple(int(label.constants.get(channel, given)) for channel, given in zip(_COLOURS[1], colour, strict=True))  # type: ignore[misc]
        for label, colour in zip(labels, other, strict=True)
    ]


def _check(found: Sequence[ClassSpec], name: str) -> tuple[ClassSpec, ...]:
    if not found:
        raise zooft.ConfigError(f"{name} names no class; write one a line, or as docs/segmentation.md shows")
    for kind in ("name", "value", "colour"):
        seen: dict[Any, str] = {}
        for each in found:
            what = getattr(each, kind)
            if what is not None and seen.setdefault(what, each.name) is not each.name:
                raise zooft.ConfigError(f"{name}: the {kind} {what} is there twice; each class has its own")
    without = [each.name for each in found if each.value is None and each.colour is None]
    if without:
        raise zooft.ConfigError(f"{name}: the class {without[0]} has neither a value nor a colour, and others have")
    for each in found:
        if fault := zooft.label_fault(each.name):
            raise zooft.ConfigError(f"{name}: {each.name!r} can't be a class: {fault}")
    try:
        zooft.check_labels((each.name, name) for each in found)  # one class in two spellings
    except zooft.DataError as error:
        raise zooft.ConfigError(str(error)) from error
    return tuple(found)


def _of_text(path: Path) -> list[ClassSpec]:
    """A name a line, with three numbers before or behind it where masks have colours."""
    lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    found: list[ClassSpec] = []
    for line in lines:
        if not line or line.startswith("#"):
            continue
        match = _LINE.match(line)
        numbers = match and (match["before"] or match["after"])
        if match and numbers and match["name"]:
            red, green, blue = map(int, numbers.split())
            found.append(ClassSpec(match["name"], len(found), _colour((red, green, blue), path.name)))
        else:
            found.append(ClassSpec(line, len(found)))
    return _colours_alone(found)


def _of_json(path: Path) -> list[ClassSpec]:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise zooft.ConfigError(f"{path} isn't JSON: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("categories"), list):
        content = content["categories"]  # COCO's own
    if isinstance(content, list):
        return _colours_alone([_of_entry(entry, number, path.name) for number, entry in enumerate(content)])
    if not isinstance(content, dict):
        raise zooft.ConfigError(f"{path.name} holds {type(content).__name__}; expected a list of names or a mapping")
    return _colours_alone([_of_pair(str(key), value, n, path.name) for n, (key, value) in enumerate(content.items())])


def _of_entry(entry: Any, number: int, name: str) -> ClassSpec:
    if isinstance(entry, str):
        return ClassSpec(entry, number)
    if not isinstance(entry, dict) or not isinstance(title := _first(entry, _NAMES), str):
        raise zooft.ConfigError(f"{name}: entry {number} is {entry!r}; expected a name, or a mapping with one")
    value, colour = _first(entry, _VALUES), _first(entry, ("colour", "color"))
    value = number if value is None else value
    if not isinstance(value, int):
        raise zooft.ConfigError(f"{name}: the value of {title} is {value!r}; expected a whole number")
    return ClassSpec(title, value, None if colour is None else _colour(colour, name))


def _of_pair(key: str, value: Any, number: int, name: str) -> ClassSpec:
    if isinstance(value, str) and key.isdigit():  # {"0": "sky"}
        return ClassSpec(value, int(key))
    if isinstance(value, int) and not isinstance(value, bool):  # {"sky": 0}
        return ClassSpec(key, value)
    return ClassSpec(key, number, _colour(value, name))  # {"sky": [128, 128, 128]}


def to_cell(name: str) -> str:
    """A class's name for a table, with an apostrophe before what a spreadsheet would compute."""
    return f"'{name}" if _FORMULA.match(name) else name


def from_cell(text: str) -> str:
    """The inverse of `to_cell`."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _of_csv(path: Path) -> list[ClassSpec]:
    table = zooft.read_csv(path)
    channels = next((names for names in _COLOURS if set(names) <= set(table.columns)), None)
    name = next((column for column in _NAMES if column in table.columns), None)
    if name is None:
        raise zooft.ConfigError(f"{path.name} has no column {' or '.join(_NAMES)}; it has {', '.join(table.columns)}")
    value = next((column for column in _VALUES if column in table.columns), None)
    found = []
    for number, (line, cells) in enumerate(table.rows):
        try:
            own = number if value is None else int(cells[value])
            colour = None if channels is None else _colour([int(cells[each]) for each in channels], path.name)
        except ValueError:
            raise zooft.ConfigError(f"{path.name}, line {line}: a value or colour isn't a whole number") from None
        found.append(ClassSpec(from_cell(cells[name]), own, colour))
    return _colours_alone(found)


_READERS: Mapping[str, Any] = {".json": _of_json, ".csv": _of_csv, ".tsv": _of_csv}


def _colours_alone(found: list[ClassSpec]) -> list[ClassSpec]:
    """Where some have a colour, all must: masks are then read by colours where they have three channels."""
    some = [each for each in found if each.colour is not None]
    if some and len(some) < len(found):
        other = next(each for each in found if each.colour is None)
        raise zooft.ConfigError(f"the class {other.name} has no colour, and others have; give all or none")
    return found


def _colour(value: Any, name: str) -> Colour:
    levels = _of_hex(value) if isinstance(value, str) else value
    if not isinstance(levels, Sequence) or len(levels) != 3 or not all(isinstance(v, int) for v in levels):
        raise zooft.ConfigError(f"{name}: {value!r} is no colour; expected three numbers 0 to 255, or #rrggbb")
    if not all(0 <= level <= 255 for level in levels):
        raise zooft.ConfigError(f"{name}: {value!r} is no colour; its numbers go from 0 to 255")
    return (levels[0], levels[1], levels[2])


def _of_hex(text: str) -> list[int] | None:
    digits = text.lstrip("#")
    if not re.fullmatch(r"[0-9a-fA-F]{6}", digits):
        return None
    return list(bytes.fromhex(digits))


def _first(entry: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((entry[name] for name in names if name in entry), None)
