"""Pictures listed in a CSV table with columns for path and label and, where known, group and split."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zooft
from zooft_images.listing import Candidate, Listing, identity, printable
from zooft_images.names import looks_like_picture
from zooft_images.options import GROUP_COLUMN, LABEL_COLUMN, refuse_label_used_twice
from zooft_images.suggestions import nearest
from zooft_images.unused_columns import about_unused

if TYPE_CHECKING:
    from zooft_images.options import ImageOptions

_MISSING = "no such file"
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_WINDOWS = re.compile(r"[a-z]:[\\/]|\\\\", re.IGNORECASE)
_MOST_LOOKED_FOR = 100
"""Missing files for which others that may be meant are searched; folders can be large."""
_LIKE_PATH = (
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "img",
    "picture",
    "image_id",
    "id",
)
_LIKE_LABEL = ("class", "class_name", "classname", "target", "category", "labels", "diagnosis", "species", "y")


def list_manifest(path: Path, options: Any) -> Listing:
    """Every line of a table.

    Raises:
        ConfigError: one column for two things.
        DataError: not such a table, or lines that contradict each other.
    """
    column = options.label_column.lower()
    table = _table(path, column)
    refuse_missing_groups(path, table.columns, options)
    refuse_label_used_twice(column, options.group_column.lower())
    rows = table.rows
    if column != LABEL_COLUMN:
        rows = tuple((number, {**row, LABEL_COLUMN: row[column]}) for number, row in rows)
    labels = ((row["label"], f"{path.name}, line {number}") for number, row in rows if row["label"])
    notes = zooft.check_labels(labels, in_table=True)
    read = Lines(path, options)
    for number, row in rows:
        read.line(number, row)
    candidates = [candidate for _, candidate in read.by_file.values()]
    if not candidates and read.missing:
        raise zooft.DataError(
            f"none of the {read.missing:,} files that {printable(path.name)} names is there; the first: "
            f"{read.rejected[0].id}: {read.rejected[0].reason}. Paths are relative to the table's folder, "
            f"{printable(str(path.parent.absolute()))}"
        )
    return Listing(
        candidates=zooft.spill(candidates),
        rejected=read.rejected,
        notes=[
            *table.notes,
            *notes,
            *about_columns(table, [options.label_column.lower()], options),
            *read.notes(len(rows)),
        ],
        classes=tuple(sorted({row["label"] for _, row in rows if row["label"]})),
    )


@dataclass(slots=True)
class Lines:
    """What the lines have given so far.

    Attributes:
        table: the file.
        options: the task's.
        by_file: real path to the line that names it first, and its cells.
        rejected: lines that can't be used.
        repeats: lines that repeat a line above.
        missing: lines whose file isn't there.
        slashed: lines whose backslashes were read as slashes.
    """

    table: Path
    options: ImageOptions
    by_file: dict[str, tuple[int, Candidate]] = field(default_factory=dict)
    rejected: list[zooft.Rejection] = field(default_factory=list)
    repeats: int = 0
    missing: int = 0
    slashed: int = 0
    _last: Candidate | None = None

    def of(self, number: int, row: Mapping[str, str]) -> Candidate | zooft.Rejection:
        """What a line names, or why it can't be used; as `line`, for tables whose targets are read later."""
        refused = len(self.rejected)
        self.line(number, row)
        if len(self.rejected) > refused:
            return self.rejected[-1]
        return self.last

    @property
    def last(self) -> Candidate:
        """What the last line that could be used names."""
        assert self._last is not None  # noqa: S101 -- after `line`
        return self._last

    def line(self, number: int, row: Mapping[str, str]) -> None:
        """One more."""
        candidate = self._candidate(number, row)
        if isinstance(candidate, str):
            self.rejected.append(zooft.Rejection(row["path"] or f"line {number}", candidate))
            return
        self._last = candidate
        first, known = self.by_file.setdefault(os.path.realpath(str(candidate.source)), (number, candidate))
        self.repeats += known is not candidate
        for what in ("label", "split", "group"):
            above, here = getattr(known, what), getattr(candidate, what)
            if above != here:
                raise zooft.DataError(
                    f"{self.table.name}, line {number}: {candidate.id} has the {what} {here!r} here and {above!r} in "
                    f"line {first}; remove one of the two"
                )

    def notes(self, lines: int) -> list[str]:
        """What the user should know."""
        name = printable(self.table.name)
        notes = []
        if self.missing:
            notes.append(f"{self.missing:,} of {lines:,} lines of {name} name files that aren't there")
        if self.slashed:
            notes.append(f"backslashes in {zooft.pluralize(self.slashed, 'path')} of {name} are read as slashes")
        if self.repeats:
            notes.append(
                f"{zooft.pluralize(self.repeats, 'line')}"
                f" of {name} with a file that is listed above; each file counts once"
            )
        return notes

    def _candidate(self, number: int, row: Mapping[str, str]) -> Candidate | str:
        """What a line names, or why it can't be used."""
        if not row["path"] or not row["label"]:
            return "the line has no path or no label"
        split = row.get("split", "").lower()
        if split and split not in zooft.SPLIT_NAMES:
            raise zooft.DataError(
                f"{self.table.name}, line {number}: {row['path']} is in the split {split!r}; there are train, val and "
                "test. Mend it: another split would quietly become another experiment"
            )
        root = self.table.parent
        try:
            path = zooft.path_in_table(root, row["path"])
            name, known = identity(root, path), path.exists()
        except (OSError, ValueError) as error:
            return f"not a usable path: {getattr(error, 'strerror', None) or error}"
        if not known:
            self.missing += 1
            return _missing(root, row["path"]) if self.missing <= _MOST_LOOKED_FOR else _MISSING
        self.slashed += "\\" in row["path"] and "\\" not in str(path)
        group = row.get(self.options.group_column.lower()) or None
        return Candidate(name, path, row["label"], zooft.SPLIT_NAMES.get(split), group)


# columns


def _table(path: Path, label: str) -> zooft.CsvTable:
    table = zooft.read_csv(path)
    missing = [name for name in ("path", label) if name not in table.columns]
    if missing:
        found = ", ".join(table.columns[:8]) or "nothing"
        raise zooft.DataError(
            f"{printable(str(path))} needs the columns path and {label}, and has {found}; {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing"
            f"{_how_to_name(path.parent, table.columns, missing)}"
        )
    return table


def _how_to_name(root: Path, columns: Sequence[str], missing: Sequence[str]) -> str:
    """What to do about columns that are missing."""
    if any(looks_like_picture(name) for name in columns):
        return ". Its first line names a picture already: put the line path,label above it"
    likely = {"path": _LIKE_PATH, LABEL_COLUMN: _LIKE_LABEL}
    meant = {
        wanted: name
        for wanted in missing
        if (name := next((n for n in likely.get(wanted, ()) if n in columns), None)) is not None
    }
    if meant:
        or_else = f", or give --label-column {meant[LABEL_COLUMN]}" if LABEL_COLUMN in meant else ""
        return (
            f". In its first line, call {' and '.join(f'{name} {wanted}' for wanted, name in meant.items())}{or_else}"
        )
    return nearest(missing[-1], columns) if missing[-1] != LABEL_COLUMN else ""


def refuse_missing_groups(path: Path, columns: Sequence[str], options: ImageOptions) -> None:
    """A misspelt column would tear groups apart unseen; only the default name may be missing."""
    name = options.group_column.lower()
    if name not in columns and name != GROUP_COLUMN:
        raise zooft.DataError(
            f"{path} has no column {name!r} to group by; it has {', '.join(columns)}{nearest(name, columns)}; name "
            "one of these, or add the column, blank where the group isn't known"
        )


def about_columns(table: zooft.CsvTable, used: Collection[str], options: ImageOptions) -> list[str]:
    """Columns that mean nothing here, and one among them that looks like groups.

    Args:
        table: the file.
        used: columns of targets, besides those that every table may have.
        options: the task's.
    """
    group = options.group_column.lower()
    own = {"path", "split", group, *used}
    unused = {name: [row[name] for _, row in table.rows] for name in table.columns if name not in own}
    return about_unused(table.name, unused, grouped=any(row.get(group) for _, row in table.rows))


# files that aren't there


def _missing(root: Path, text: str) -> str:
    """Why a file isn't there, as far as that can be seen: never used by itself, since it may be another."""
    bare = text.strip("'\"` ")
    plain = bare.replace("\\", "/")
    if _URL.match(bare):
        return f"{_MISSING}: it is a URL; download the picture, and name the file"
    if (bare, plain) != (text, text) and _exists(root / bare):
        return f"{_MISSING}: there is {bare}, without quotation marks"
    if _WINDOWS.match(bare):
        return f"{_MISSING}: it is a path of a machine with Windows; write paths relative to the table"
    relative = Path(plain.lstrip("/"))
    for folder, where in _places(root):
        found = _find_alike(folder, relative)
        if found is not None and not (where == "" and str(found) == text):
            there = printable(f"{where}{found}")
            same = str(found) == str(relative)
            why = "" if not same else "; paths are relative to the table's folder"
            return f"{_MISSING}: there is {there}{why}"
    if "\\" in text:
        return f"{_MISSING}, neither with the backslashes as they are nor as slashes"
    return _MISSING


def _places(root: Path) -> list[tuple[Path, str]]:
    """Folders that paths may have been meant to start from, and how they are called."""
    inner = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))[
        :_MOST_LOOKED_FOR
    ]
    return [(root, ""), (root.absolute().parent, "../"), *((path, f"{path.name}/") for path in inner)]


def _find_alike(folder: Path, relative: Path) -> Path | None:
    """A file below a folder by this path, but for capitals or an ending that is left out."""
    found = Path()
    for index, part in enumerate(relative.parts):
        if part in {"", ".", ".."}:
            return None
        last = index == len(relative.parts) - 1
        if not (name := part if _exists(folder / found / part) else _alike(folder / found, part, last=last)):
            return None
        found /= name
    return found if found.parts and (folder / found).is_file() else None


def _alike(folder: Path, part: str, *, last: bool) -> str:
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return ""
    same = [name for name in names if name.casefold() == part.casefold()]
    if last and not same:
        same = [
            name for name in names if looks_like_picture(name) and name.rpartition(".")[0].casefold() == part.casefold()
        ]
    return same[0] if len(same) == 1 else ""


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
