"""WebDataset shards in place of class folders: where they lie, which split they are, what their labels mean.

Beside the shards may lie ``classes.txt``, a name a line, or ``classes.json``, which turns the numbers of labels into
names and fixes the order of the classes.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import zooft
from zooft_images.listing import Candidate, LeftOut, Listing, folders, others
from zooft_images.names import describe_hidden
from zooft_images.options import GROUP_COLUMN, LABEL_COLUMN, refuse_label_used_twice
from zooft_images.shards import LABEL_KEYS, Contents, Entry, printable, scan
from zooft_images.suggestions import nearest
from zooft_images.unused_columns import about_unused

_SUFFIX = ".tar"
_COMPRESSED = (".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_CLASS_FILES = ("classes.txt", "classes.json", "classnames.txt")
_KINDS_NAMED = 6
Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Shards with the splits that their folders or names give, files that are none, and where class names may lie."""

    root: Path
    shards: Sequence[tuple[Path, Split | None]]
    strays: Sequence[Path]


def is_shard(path: Path) -> bool:
    """Whether the name is that of a shard, or of one that was compressed, which is refused later with advice."""
    return path.name.lower().endswith((_SUFFIX, *_COMPRESSED)) and path.is_file()


def holds_shards(root: Path) -> bool:
    """Whether a folder has shards and no folders, or nothing but split folders of shards.

    Tar files beside class folders count as the archive that those were unpacked from.

    Raises:
        DataError: a folder can't be read.
    """
    below = folders(root)
    if any(is_shard(path) for path in others(root)):
        return all(_is_split(folder) and not folders(folder) for folder in below)
    return bool(below) and all(
        _is_split(folder) and not folders(folder) and any(is_shard(path) for path in others(folder)) for folder in below
    )


def list_shards(root: Path, options: Any, *, computing: zooft.Computing = zooft.unseen) -> Listing:
    """Everything in a shard, or in a folder of them.

    Raises:
        ConfigError: one key for two things.
        DataError: a compressed shard, splits by some names and not by others, class names that can't be read, a group
            or label column that no label file has.
    """
    refuse_label_used_twice(options.label_column, options.group_column)
    left_out = LeftOut(root if root.is_dir() else root.parent)
    layout = _layout(root, left_out)
    names = _class_names(layout.root)
    made = _Made(layout, _meaning(names))
    advance = computing("listing shards", len(layout.shards))

    def candidates() -> Iterator[Candidate]:
        for path, split in layout.shards:
            found = scan(path, group_column=options.group_column, label_column=options.label_column)
            yield from made.of(path, split, found)
            advance(1)

    listed = zooft.spill(candidates())
    _refuse_missing_keys(root, made.json_keys, options)
    zooft.check_labels(
        [(name, "the list of classes") for name in names]
        or [(label, f"such as of {first}") for label, first in made.labels.items()]
    )
    return Listing(
        candidates=listed,
        classes=names or _in_order(made.labels),
        ordered=bool(names),
        rejected=[*_strays(layout), *left_out.rejected, *made.rejected],
        notes=[
            *_about_splits(layout),
            *_about_numbers(layout),
            *_about_unused(made.unused),
            *_about_keys(made.json_keys, options),
            *describe_hidden(Counter(left_out.names) + made.hidden),
        ],
    )


# where shards lie


def _layout(root: Path, left_out: LeftOut) -> _Layout:
    if root.is_file():
        return _Layout(root.parent, [(root, None)], [])
    tops, below = others(root, left_out), folders(root, left_out)
    top_shards = [path for path in tops if is_shard(path)]
    if top_shards and below:
        raise zooft.DataError(
            f"{root} has split folders and shards beside them, such as {top_shards[0].name}; move those into one"
        )
    files = [path for folder in below for path in others(folder, left_out)]
    found: list[tuple[Path, Split | None]] = [
        (path, zooft.SPLIT_NAMES[path.parent.name.lower()]) for path in files if is_shard(path)
    ] or _by_name(root, top_shards)
    used = {path for path, _ in found}
    strays = [path for path in [*tops, *files] if path not in used and path.name not in _CLASS_FILES]
    return _Layout(root, found, strays)


def _is_split(folder: Path) -> bool:
    return folder.name.lower() in zooft.SPLIT_NAMES


def _by_name(root: Path, shards: Sequence[Path]) -> list[tuple[Path, Split | None]]:
    """Splits such as train in ``data-train-000000.tar``; all shards name one, or none does."""
    found = [(path, _split_of(path)) for path in shards]
    unnamed = [path.name for path, split in found if split is None]
    if unnamed and len(unnamed) < len(found):
        named = next(path.name for path, split in found if split is not None)
        raise zooft.DataError(
            f"{root}: {named} names its split and {unnamed[0]} doesn't; name all shards after train, val or test, or "
            "none"
        )
    return found


def _split_of(path: Path) -> Split | None:
    words = re.split(r"[^a-z]+", path.name.lower())
    splits = {zooft.SPLIT_NAMES[word] for word in words if word in zooft.SPLIT_NAMES}
    if len(splits) > 1:
        raise zooft.DataError(f"{path} names several splits: {' and '.join(sorted(splits))}; rename it after one")
    return next(iter(splits), None)


def _strays(layout: _Layout) -> list[zooft.Rejection]:
    return [zooft.Rejection(_name(layout.root, path), "beside the shards, and none itself") for path in layout.strays]


def _name(root: Path, path: Path) -> str:
    """Relative to the data folder, with forward slashes."""
    return printable(os.path.relpath(path, root).replace(os.sep, "/"))


# what labels mean


def _class_names(root: Path) -> tuple[str, ...]:
    """In the order of the targets; empty where no file lists them."""
    files = [root / name for name in _CLASS_FILES if (root / name).is_file()]
    if not files:
        return ()
    if len(files) > 1:
        raise zooft.DataError(f"{root} has {' and '.join(path.name for path in files)}; leave only the one that holds")
    path = files[0]
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = _from_json(json.loads(text)) if path.suffix == ".json" else [line.strip() for line in text.splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        raise zooft.DataError(f"{path} can't be read: {error}") from error
    while names and not names[-1]:
        names.pop()
    odd = next((name for name in names if not name or not name.isprintable()), None)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or odd is not None or twice:
        what = f"{twice[0]} twice" if twice else "no names" if not names else "an empty or unprintable name"
        raise zooft.DataError(f"{path} has {what}; it needs the name of class 0, of class 1, and so on")
    return tuple(names)


def _from_json(content: object) -> list[str]:
    """A list of names, or an object from number to name, or from name to number."""
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return [name.strip() for name in content]
    if isinstance(content, dict):
        pairs = [(key, value) if isinstance(value, str) else (value, key) for key, value in content.items()]
        numbered = {int(number): name.strip() for number, name in pairs if str(number).isdecimal()}
        if len(numbered) == len(content) and sorted(numbered) == list(range(len(numbered))):
            return [numbered[number] for number in range(len(numbered))]
    raise ValueError("neither a list of names nor an object with the numbers 0, 1, 2 ... and their names")


def _meaning(names: Sequence[str]) -> Callable[[str], str]:
    """From a label to the name of its class."""
    if not names:
        return lambda label: label
    known = set(names)

    def resolve(label: str) -> str:
        number = int(label) if label.isascii() and label.isdecimal() else len(names)
        found = {names[number]} if number < len(names) else set()
        found |= {label} & known
        if len(found) > 1:
            raise zooft.DataError(f"the label {label} is the number of class {names[number]} and the name of another")
        if not found:
            raise zooft.DataError(f"the label {label} is neither a name nor a number of the {len(names)} classes")
        return found.pop()

    return resolve


def _in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Numbers by their size, since they number classes; names as class folders are, by their characters."""
    found = set(labels)
    if all(label.isascii() and label.isdecimal() for label in found):
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found))


# from members to samples


@dataclass(slots=True)
class _Made:
    """What the shards have given so far."""

    layout: _Layout
    meaning: Callable[[str], str]
    rejected: list[zooft.Rejection] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    unused: Counter[str] = field(default_factory=Counter)
    hidden: Counter[str] = field(default_factory=Counter)
    json_keys: set[str] = field(default_factory=set)

    def of(self, path: Path, split: Split | None, contents: Contents) -> Iterator[Candidate]:
        """The pictures of one more shard."""
        shard = _name(self.layout.root, path)
        self.unused.update(contents.unused)
        self.hidden.update(contents.hidden)
        self.json_keys |= contents.json_keys
        self.rejected += [zooft.Rejection(f"{shard}/{name}" if name else shard, why) for name, why in contents.rejected]
        if not contents.entries and not contents.rejected:
            self.rejected.append(zooft.Rejection(shard, "holds no pictures"))
        for entry in contents.entries:
            identity = f"{shard}/{entry.name}"
            try:
                label = self._label(entry)
                self.labels.setdefault(label, identity)
            except zooft.DataError as error:
                self.rejected.append(zooft.Rejection(identity, str(error)))
                continue
            yield Candidate(identity, entry.member, label, split, entry.group)

    def _label(self, entry: Entry) -> str:
        meant = sorted({self.meaning(label) for label in entry.labels})
        if len(meant) > 1:
            raise zooft.DataError(f"its .cls and its .json differ: {' and '.join(meant)}")
        return meant[0]


def _refuse_missing_keys(root: Path, keys: set[str], options: Any) -> None:
    """A misspelt key would tear groups apart unseen; only the default names may be missing."""
    for name, usual, use in (
        (options.label_column, LABEL_COLUMN, "with the class"),
        (options.group_column, GROUP_COLUMN, "to group by"),
    ):
        if name not in keys and name != usual:
            having = ", ".join(sorted(keys)[:8]) or "nothing"
            raise zooft.DataError(
                f"no .json in {root} has the key {name!r} {use}; they have {having}{nearest(name, keys)}; name one of "
                "these"
            )


# notes


def _about_splits(layout: _Layout) -> list[str]:
    counts = Counter(split for path, split in layout.shards if split and path.parent == layout.root)
    listed = ", ".join(f"{count} of {split}" for split, count in counts.items())
    return [f"splits are taken from the names of the shards: {listed}"] if listed else []


def _about_numbers(layout: _Layout) -> list[str]:
    """A hole in the numbers is more likely a download that failed than meant."""
    numbers: dict[tuple[Path, str, str], set[int]] = defaultdict(set)
    for path, _ in layout.shards:
        if (parts := re.fullmatch(r"(.*?)(\d{1,9})(\D*)", path.name)) and not layout.root.is_file():
            numbers[path.parent, parts[1], parts[3]].add(int(parts[2]))
    notes = []
    for (_, start, end), found in numbers.items():
        count = max(found) - min(found) + 1 - len(found)
        if 0 < count <= len(found):  # with more holes than shards they aren't counted, but dated or so
            first = ", ".join(str(n) for n in range(min(found), max(found)) if n not in found)
            name = f"{printable(start)}NUMBER{printable(end)}"
            notes.append(f"shards {name} lack {count} of the numbers in between: {first[:60]}")
    return notes


def _about_keys(keys: set[str], options: Any) -> list[str]:
    labels = LABEL_KEYS if options.label_column == LABEL_COLUMN else (options.label_column,)
    unused: dict[str, Sequence[str]] = {key: () for key in sorted(keys) if key not in (*labels, options.group_column)}
    return about_unused("KEY.json", unused, grouped=options.group_column in keys, what="key")


def _about_unused(unused: Mapping[str, int]) -> list[str]:
    if not unused:
        return []
    most = sorted(unused.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(
        f"{count:,} {f'.{kind}' if kind else 'without extension'}" for kind, count in most[:_KINDS_NAMED]
    )
    more = f", and {len(most) - _KINDS_NAMED} other kinds" if len(most) > _KINDS_NAMED else ""
    return [
        f"members of shards that aren't used: {listed}{more}; pictures are KEY.jpg and so on, without another dot, "
        "labels KEY.cls or KEY.json"
    ]
