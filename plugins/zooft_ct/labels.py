"""Where the classes come from: a table in CSV, or class folders. Read and checked by themselves, before any image.

The messages name lines, never what stands in them: a shifted column may hold names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import zooft

TABLE, SLICE_TABLE = "labels.csv", "slice_labels.csv"
COLUMNS = frozenset({"patient_id", "patient", "series_uid", "path", "sop_uid", "label", "split"})
"""What a table of classes may have."""
CELLS = "\x1f"
"""Between the cells of a line that stand for its label, where several columns are learnt."""
_NO_PERSON = ("study", "series", "exam", "visit", "encounter", "scan", "acquisition", "session", "sop", "slide")
"""Of which a patient may have several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: which images, and their labels.

    Attributes:
        line: in the file, from 1.
        label: the class.
        patient: "" where the table has none.
        series: SeriesInstanceUID, or "".
        path: relative to the table, or "".
        sop: SOPInstanceUID of one slice, or "".
        split: where the table has one.
    """

    line: int
    label: str
    patient: str = ""
    series: str = ""
    path: str = ""
    sop: str = ""
    split: Literal["train", "val", "test"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All lines that can be used, each once.

    Attributes:
        name: of the file, for messages.
        rows: in the file's order.
        rejected: lines that can't be used.
        notes: what the user should know.
    """

    name: str
    rows: tuple[Row, ...]
    rejected: tuple[zooft.Rejection, ...] = ()
    notes: tuple[str, ...] = ()


def table_of(data: Path, *, by_slice: bool) -> Path | None:
    """The table to go by; None where the folder has none.

    Args:
        data: a folder, or the table itself.
        by_slice: whether a sample is a slice, so that a table of slices is read first.
    """
    if data.is_file():
        return data
    names = (SLICE_TABLE, TABLE) if by_slice else (TABLE,)
    return next((data / name for name in names if (data / name).is_file()), None)


def read_table(path: Path) -> Table:
    """The lines of a CSV file whose column label has classes, by the rules of `zooft.read_csv`.

    Raises:
        DataError: not such a file, columns are missing, lines contradict each other, or labels that can't be classes.
    """
    read = open_table(path)
    refuse_missing(read, "label")
    return table_of_lines(read, read.rows, used=COLUMNS, check=_check_classes)


def open_table(path: Path) -> zooft.CsvTable:
    """The lines as they are; messages call the file by its name only where that is the usual one.

    Raises:
        DataError: not such a file.
    """
    name = path.name if path.name in (TABLE, SLICE_TABLE) else "the table of labels"
    return zooft.read_csv(path, name=name, private=True)


def table_of_lines(
    read: zooft.CsvTable,
    lines: Sequence[tuple[int, Mapping[str, str]]],
    *,
    used: Collection[str],
    faults: Mapping[int, str] = MappingProxyType({}),
    check: Callable[[Sequence[Row], str], Sequence[str]],
) -> Table:
    """All lines that can be used, each once.

    Args:
        read: the file.
        lines: number and cells of each, with ``label``.
        used: columns that mean something.
        faults: number of a line to why it can't be used.
        check: ``(rows, name)`` to what the user should know of the labels; refuses wrong ones.

    Raises:
        DataError: lines that contradict each other.
    """
    rows: list[Row] = []
    rejected: list[zooft.Rejection] = []
    for number, values in lines:
        row = faults.get(number) or _row(number, values, read.name)
        if isinstance(row, str):
            rejected.append(zooft.Rejection(f"{read.name}, line {number}", row))
        else:
            rows.append(row)
    checked = check(rows, read.name)
    once, repeats = _once(rows)
    _refuse_contradictions(once, read.name)
    notes = (*read.notes, *checked, *_notes(read, used, repeats))
    return Table(name=read.name, rows=once, rejected=tuple(rejected), notes=notes)


def _check_classes(rows: Sequence[Row], name: str) -> Sequence[str]:
    labels = ((row.label, f"{name}, line {row.line}") for row in rows)
    return zooft.check_labels(labels, in_table=True, private=True)


def folder_label(root: Path, path: Path, *, splits: bool) -> tuple[str, Literal["train", "val", "test"] | None] | None:
    """The class, and the split where there is one, by the folders that a file lies in; None beside the class folders.

    Args:
        root: the data folder.
        path: of the file.
        splits: what `has_splits` gives for the folder.
    """
    folders = list(path.relative_to(root).parts[:-1])
    split = zooft.SPLIT_NAMES[folders.pop(0).lower()] if splits and folders else None
    return (folders[0].encode("utf-8", "backslashreplace").decode(), split) if folders else None


def has_splits(root: Path) -> bool:
    """Whether the top folders are ``train``, ``val`` and ``test``.

    Raises:
        DataError: some are, and others aren't.
    """
    tops = [path.name.lower() for path in root.iterdir() if path.is_dir() and not zooft.is_hidden(path.name)]
    named = [name for name in tops if name in zooft.SPLIT_NAMES]
    if named and len(named) < len(tops):
        raise zooft.DataError(
            f"the data has split folders ({', '.join(sorted(named))}) and {len(tops) - len(named)} others beside them; "
            "move those elsewhere"
        )
    return bool(named)


def refuse_missing(read: zooft.CsvTable, *targets: str) -> None:
    """A table that doesn't name whose labels there are, or has none.

    Raises:
        DataError: with what is missing.
    """
    columns, name = read.columns, read.name
    if {"patient_id", "patient"} <= set(columns):
        raise zooft.DataError(f"{name} has the columns patient_id and patient, which mean the same; leave one of them")
    missing = [target for target in targets if target not in columns]
    missing += [] if {"series_uid", "path"} & set(columns) else ["series_uid or path"]
    if missing:
        known = ", ".join(column for column in columns if column in COLUMNS) or "none that is known"
        wanted = ", ".join(targets) or "a column to learn"
        raise zooft.DataError(
            f"{name} lacks the column {' and '.join(missing)}; it has {known}. It needs patient_id, series_uid or "
            f"path, and {wanted}; sop_uid and split where known"
        )


def _row(number: int, values: Mapping[str, str], name: str) -> Row | str:
    """The line, or why it can't be used."""
    split = values.get("split", "").lower()
    if split and split not in zooft.SPLIT_NAMES:
        raise zooft.DataError(
            f"{name}, line {number}, names a split that isn't train, val or test; fix it, as another split would "
            "quietly become another experiment"
        )
    row = Row(
        line=number,
        label=values["label"],
        patient=values.get("patient_id") or values.get("patient", ""),
        series=values.get("series_uid", ""),
        path=values.get("path", ""),
        sop=values.get("sop_uid", ""),
        split=zooft.SPLIT_NAMES.get(split),
    )
    if not row.label:
        return "has no label"
    return row if row.series or row.path else "names neither a series nor a path"


def _once(rows: Sequence[Row]) -> tuple[tuple[Row, ...], int]:
    once = {replace(row, line=0): row for row in reversed(rows)}
    return tuple(sorted(once.values(), key=lambda row: row.line)), len(rows) - len(once)


def _refuse_contradictions(rows: Sequence[Row], name: str) -> None:
    same: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)
    for row in rows:
        same[row.series, row.path, row.sop].append(row.line)
    torn = [lines for lines in same.values() if len(lines) > 1]
    if torn:
        first = " and ".join(map(str, torn[0][:2]))
        raise zooft.DataError(
            f"{name} contradicts itself about {zooft.pluralize(len(torn), 'image')}"
            f" (label, patient or split), first in lines {first}; "
            "leave the right line of each"
        )


def _notes(read: zooft.CsvTable, used: Collection[str], repeats: int) -> tuple[str, ...]:
    unused = [column for column in read.columns if column not in used]
    notes = [f"columns of {read.name} that aren't used: {', '.join(unused)}"] if unused else []
    if not {"patient_id", "patient"} & set(read.columns):
        notes += _about_persons(read, unused)
    if repeats:
        notes.append(
            f"{zooft.pluralize(repeats, 'line')}"
            f" of {read.name} {'repeats' if repeats == 1 else 'repeat'} another one; each counts once"
        )
    return tuple(notes)


def _about_persons(read: zooft.CsvTable, unused: Sequence[str]) -> list[str]:
    """A column that may hold who a patient is, under another name than is known."""
    others = [name for name in unused if not any(part in name for part in _NO_PERSON)]
    likely = zooft.likely_groups({name: [cells[name] for _, cells in read.rows] for name in others})
    if not likely:
        return []
    return [
        f"warning: the column {likely[0]} of {read.name} isn't used; if it holds who a patient is, call it patient_id: "
        "the files are believed otherwise"
    ]
