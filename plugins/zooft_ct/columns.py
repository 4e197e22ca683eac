"""Targets in columns of the table of labels, as the task's problem reads them.

Everything else that CT checks of a table sees a key in place of each line's label, which stands for its cells. As
everywhere in CT, messages name lines, and never what stands in them: where columns were mixed up, that would name
people.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zooft
from zooft_ct import labels

_USUAL = ("label", "labels", "value")
_PLACES = labels.COLUMNS - {"label"}
"""Columns for whose images a line is about, and in which split they are."""
_NAMELESS = frozenset({"0", "1", "yes", "no", "true", "false"})
"""What cells of labels hold and messages expect; it names nobody."""
_WORD = re.compile(r"[^\s'\",;:()]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """A table and what its columns of targets mean.

    Attributes:
        table: its lines with keys as labels.
        targets: of each key.
        labels: what they mean.
    """

    table: labels.Table
    targets: Mapping[str, Any]
    labels: tuple[zooft.Label, ...]


def read_columns(path: Path, problem: zooft.Problem, options: Any) -> Columns:
    """The lines of a CSV file, by the rules of `zooft.read_csv`.

    Args:
        path: of the table.
        problem: that reads the targets.
        options: the task's, with `targets`.

    Raises:
        DataError: not such a file, columns are missing, lines contradict each other, or targets that the problem can't
            read.
    """
    read = labels.open_table(path)
    labels.refuse_missing(read)
    columns = _choose(read, options)
    cells = [{name: values[name] for name in columns} for _, values in read.rows]
    found = _targets(problem, cells, columns, options, read.name)
    used = columns if found.columns is None else found.columns
    keys = [labels.CELLS.join(["", *(one[name] for name in used)]) for one in cells]
    faults = {
        number: _without(found.faults.get(row) or "no target in its line", cells[row].values(), columns)
        for row, (number, _) in enumerate(read.rows)
        if row in found.faults or found.values[row] is None
    }
    lines = [(number, {**values, "label": key}) for (number, values), key in zip(read.rows, keys, strict=True)]
    table = labels.table_of_lines(
        read, lines, used=_PLACES | set(used), faults=faults, check=lambda _rows, _name: found.notes
    )
    return Columns(table=table, targets=dict(zip(keys, found.values, strict=True)), labels=found.labels)


def _targets(
    problem: zooft.Problem, cells: Sequence[Mapping[str, str]], columns: Sequence[str], options: Any, name: str
) -> zooft.Targets:
    read = problem.training.read
    assert read is not None, "a problem of columns reads them"  # noqa: S101 -- the plugin's own invariant
    try:
        return read(cells, columns, options)
    except zooft.DataError as error:
        every = (cell for row in cells for cell in row.values())
        raise zooft.DataError(f"{name}: {_without(str(error), every, columns)}") from None  # its cause shows the cells


def _choose(read: zooft.CsvTable, options: Any) -> list[str]:
    """The columns of targets.

    Raises:
        DataError: one that isn't there, or several of which any may be meant.
    """
    others = [name for name in read.columns if name not in _PLACES]
    if not hasattr(options, "targets"):  # the problem has its own way to name them
        return others
    if options.targets:
        names = [name.strip().lower() for name in options.targets]
        missing = next((name for name in names if name not in others), None)
        if missing is None:
            return names
        near = difflib.get_close_matches(missing, others, n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise zooft.DataError(f"{read.name} has no column {missing!r} to learn{hint}")
    usual = [name for name in _USUAL if name in others][:1]
    if usual or len(others) == 1:
        return usual or others
    raise zooft.DataError(
        f"{read.name} has {len(others)} columns that may be targets, and none called {', '.join(_USUAL[:-1])} or "
        f"{_USUAL[-1]}; {'name those to learn with --targets' if others else 'add the one to learn'}"
    )


def _without(text: str, cells: Iterable[str], columns: Sequence[str]) -> str:
    """A message without what stands in cells."""
    known = {word for name in columns for word in _words(name)}
    shown = {word for cell in cells for word in _words(cell)} - known - _NAMELESS
    return _WORD.sub(lambda match: "…" if match[0].casefold() in shown else match[0], text)


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]
