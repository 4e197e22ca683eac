"""Labels from the cells of a table: a column for each, or one column that lists those that are there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zooft.contracts import Label, Targets
from zooft.contracts.words import list_some
from zooft.data.labels import check_labels
from zooft.errors import DataError

if TYPE_CHECKING:
    from zooft.contracts import Labels

LISTED = "listed"
"""The constant of labels that come from a list: one that no list names isn't unknown, but absent."""
LIST_COLUMN = "labels"
"""A single column of this name holds lists, also where all its cells could be answers about one label."""
_YES = {"1", "1.0", "yes", "y", "true", "t", "x", "present"}
_NO = {"0", "0.0", "no", "n", "false", "f", "absent"}
_EXPECTED = "1 or 0, yes or no, true or false, or an empty cell where it isn't known"
_BETWEEN = re.compile(r"[;|]")
_NAMED = 8

Target = tuple[bool | None, ...]


def read(rows: Sequence[Mapping[str, str]], columns: Sequence[str], options: Any) -> Targets:
    """Labels of those columns.

    Args:
        rows: cells by column.
        columns: one for each label, or a single one of lists, such as ``cat;dog``.
        options: with `empty_means`.

    Raises:
        DataError: a column is empty in all rows, two labels are called alike, or a name can't be a label's.
    """
    if len(columns) == 1 and _holds_lists(columns[0], [row.get(columns[0], "").strip() for row in rows]):
        return _from_lists([row.get(columns[0], "").strip() for row in rows], columns[0], options.empty_means == "none")
    return _from_columns(rows, columns, options.empty_means == "none")


def _holds_lists(column: str, cells: Sequence[str]) -> bool:
    return column.strip().lower() == LIST_COLUMN or not all(cell.lower() in {*_YES, *_NO, ""} for cell in cells)


# ------------------------------------------------------------------------------------------------- a column a label


def _from_columns(rows: Sequence[Mapping[str, str]], columns: Sequence[str], empty_is_no: bool) -> Targets:
    check_labels(((column.strip(), f"the column {column!r}") for column in columns), in_table=False)
    _refuse_separators([column.strip() for column in columns])
    for column in columns:
        if rows and not any(row.get(column, "").strip() for row in rows):
            raise DataError(f"the column {column!r} is empty in all {len(rows)} rows; expected {_EXPECTED}")
    values: list[Target | None] = []
    faults: dict[int, str] = {}
    for index, row in enumerate(rows):
        cells = [row.get(column, "").strip() for column in columns]
        fault = next((_fault(cell, column) for cell, column in zip(cells, columns, strict=True) if not _fits(cell)), "")
        target = tuple(_answer(cell, empty_is_no) for cell in cells) if not fault else ()
        if not fault and all(answer is None for answer in target):
            fault = f"{', '.join(columns[:_NAMED])}: all cells are empty; expected {_EXPECTED}, in one of them at least"
        if fault:
            faults[index] = fault
        values.append(None if fault else target)
    labels = tuple(Label(name=column.strip()) for column in columns)
    return Targets(labels=labels, values=values, faults=faults, notes=_notes(values, labels))


def _fits(cell: str) -> bool:
    return cell.lower() in {*_YES, *_NO, ""}


def _fault(cell: str, column: str) -> str:
    return f"{column} is {cell!r}; expected {_EXPECTED}"


def _answer(cell: str, empty_is_no: bool) -> bool | None:
    if not cell:
        return False if empty_is_no else None
    return cell.lower() in _YES


# ------------------------------------------------------------------------------------------------- lists


def _from_lists(cells: Sequence[str], column: str, empty_is_no: bool) -> Targets:
    if cells and not any(cells):
        raise DataError(
            f"the column {column!r} is empty in all {len(cells)} rows; expected names of labels, such as cat;dog"
        )
    lists = [[name.strip() for name in _BETWEEN.split(cell) if name.strip()] for cell in cells]
    names = sorted({name for found in lists for name in found})
    check_labels(
        ((name, f"{column}, row {number}") for number, found in enumerate(lists, 1) for name in found), in_table=False
    )
    _refuse_separators(names)
    values: list[Target | None] = []
    faults: dict[int, str] = {}
    for index, (cell, found) in enumerate(zip(cells, lists, strict=True)):
        if not found and (cell or not empty_is_no):
            faults[index] = (
                f"{column} is {cell!r} and names no label"
                if cell
                else f"{column} is empty, so its labels aren't known; where it means none, give --empty-means none"
            )
        values.append(None if index in faults else tuple(name in found for name in names))
    labels = tuple(Label(name=name, constants={LISTED: 1.0}) for name in names)
    read_as = (
        f"{column} is read as lists: a label that a row doesn't name isn't there; the labels are "
        f"{list_some(names, _NAMED)}"
    )
    return Targets(
        labels=labels, values=values, faults=faults, notes=(read_as, *_about_commas(lists), *_notes(values, labels))
    )


def _about_commas(lists: Sequence[Sequence[str]]) -> tuple[str, ...]:
    if not any("," in name for found in lists for name in found):
        return ()
    return ("some labels have a comma in their names; a list has ; or | between its labels",)


# ------------------------------------------------------------------------------------------------- both


def _refuse_separators(names: Sequence[str]) -> None:
    """Predictions are shown as lists, which must be distinguishable."""
    odd = [name for name in names if _BETWEEN.search(name) or name.startswith("?")]
    if odd:
        raise DataError(
            f"{odd[0]!r} can't be the name of a label, since lists have ; or | between labels and ? before unknown ones"
        )


def _notes(values: Sequence[Target | None], labels: Labels) -> tuple[str, ...]:
    """Of labels that aren't known of some rows, and of those about which there is nothing to learn."""
    known = [value for value in values if value is not None]
    notes = []
    for label, answers in zip(labels, zip(*known, strict=True), strict=True) if known else ():
        missing = sum(answer is None for answer in answers)
        if missing:
            notes.append(
                f"{missing} of {len(known)} rows don't know {label.name} (empty cells), which is left out of its loss "
                "and figures"
            )
        if not any(answers):
            notes.append(f"no row has {label.name}, so nothing is trained for it")
        elif all(answer is not False for answer in answers):
            notes.append(f"no row is without {label.name}, so nothing is trained for it")
    return tuple(notes)
