"""Grades from the cells of a table: names of a scale that was given, or whole numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from zooft.contracts import Label, Targets
from zooft.contracts.words import list_some
from zooft.errors import ConfigError, DataError

MOST_GRADES = 50
"""Of a scale that nobody gave: more distinct numbers are rather a measurement."""
_WHOLE = re.compile(r"([+-]?\d+)(?:\.0*)?", re.ASCII)
_SHOWN = 12


def read(rows: Sequence[Mapping[str, str]], columns: Sequence[str], options: Any) -> Targets:
    """Grades of the one column.

    Args:
        rows: cells by column.
        columns: the one.
        options: with `grades`.

    Raises:
        ConfigError: the scale that was given is none.
        DataError: there are several columns, the column is empty in all rows, or holds no whole numbers and no scale
            was given.
    """
    if len(columns) != 1:
        raise DataError(f"grades are trained on one column, and there are {len(columns)}: {', '.join(columns)}")
    column = columns[0]
    cells = [row.get(column, "").strip() for row in rows]
    if rows and not any(cells):
        raise DataError(f"the column {column!r} is empty in all {len(rows)} rows; expected a grade in each")
    scale = _from_option(options.grades) if options.grades else _infer_grades(cells, column)
    places = {name: index for index, name in enumerate(scale)}
    values = [places.get(_name(cell, places)) for cell in cells]
    faults = {
        index: _fault(cell, column, scale)
        for index, (cell, value) in enumerate(zip(cells, values, strict=True))
        if value is None
    }
    return Targets(
        labels=(Label(name=column.strip(), categories=scale),),
        values=values,
        faults=faults,
        notes=_about_absent(values, column, scale),
    )


def _from_option(grades: Sequence[str]) -> tuple[str, ...]:
    scale = tuple(name.strip() for name in grades)
    twice = [name for name, count in Counter(scale).items() if count > 1]
    if twice or "" in scale or len(scale) < 2:
        what = f"has {twice[0]!r} twice" if twice else "has an empty name" if "" in scale else "has a single grade"
        raise ConfigError(
            f"--grades {what}; give two or more different names, the lowest first, such as none,mild,severe"
        )
    return scale


def _infer_grades(cells: Sequence[str], column: str) -> tuple[str, ...]:
    """All whole numbers from the smallest to the largest that occurs, also those between that don't."""
    numbers = [int(match[1]) for cell in cells if (match := _WHOLE.fullmatch(cell))]
    filled = [cell for cell in cells if cell]
    if 2 * len(numbers) <= len(filled):
        some = ", ".join(repr(cell) for cell in sorted(set(filled))[:4])
        raise DataError(
            f"the grades in the column {column!r} aren't whole numbers (such as {some}), so their order isn't known; "
            "give it with --grades, the lowest first"
        )
    low, high = min(numbers, default=0), max(numbers, default=0)
    if high - low >= MOST_GRADES:
        raise DataError(
            f"the column {column!r} has numbers from {low} to {high}, too many to be grades; learn them as a "
            "regression, or give the scale with --grades"
        )
    return tuple(str(number) for number in range(low, high + 1))


def _name(cell: str, known: Mapping[str, int]) -> str:
    """A grade as its scale has it: other programs write 2 as 2.0 where a column has empty cells."""
    match = _WHOLE.fullmatch(cell)
    return cell if cell in known or match is None else str(int(match[1]))


def _fault(cell: str, column: str, scale: Sequence[str]) -> str:
    return f"{column} is {repr(cell) if cell else 'empty'}; expected one of the grades {list_some(scale, _SHOWN)}"


def _about_absent(values: Sequence[int | None], column: str, scale: Sequence[str]) -> tuple[str, ...]:
    absent = [name for index, name in enumerate(scale) if index not in set(values)]
    if not absent:
        return ()
    return (f"no row has the {column} {', '.join(absent)}, so nothing is trained for it but its place in the scale",)
