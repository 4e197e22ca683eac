"""Numbers from the cells of a table, strictly: what could be read in two ways isn't read at all."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zooft.contracts import Label, Targets
from zooft.errors import ConfigError, DataError

if TYPE_CHECKING:
    from zooft.contracts import Labels

_HEADER = re.compile(r"(?P<name>.*\S)\s*\[(?P<unit>[^\[\]]*)\]")
_CELL = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<rest>.*)", re.ASCII | re.DOTALL)
_NO_NUMBER = {"nan", "na", "n/a", "null", "none", "inf", "+inf", "-inf", "infinity", "-"}


class _Unreadable(Exception):  # noqa: N818 -- never leaves this module
    """What is wrong with a cell, in words."""


def read(rows: Sequence[Mapping[str, str]], columns: Sequence[str], options: Any) -> Targets:
    """Numbers of those columns; an empty cell is a number that isn't known.

    Args:
        rows: cells by column.
        columns: each of one number, such as ``diameter`` or ``diameter [mm]``.
        options: with `units`.

    Raises:
        ConfigError: `units` names a column that isn't there, or contradicts the header.
        DataError: a column is empty in all rows, or two have one name.
    """
    labels = labels_of(columns, options.units)
    for column in columns:
        if rows and not any(row.get(column, "").strip() for row in rows):
            raise DataError(f"the column {column!r} is empty in all {len(rows)} rows; expected numbers, such as 12.5")
    values: list[tuple[float | None, ...] | None] = []
    faults: dict[int, str] = {}
    for index, row in enumerate(rows):
        try:
            values.append(_target(row, columns, labels))
        except _Unreadable as fault:
            values.append(None)
            faults[index] = str(fault)
    return Targets(labels=labels, values=values, faults=faults, notes=_about_missing(values, labels))


def labels_of(columns: Sequence[str], units: Sequence[str]) -> Labels:
    """What the columns mean, by their headers and by units that a user gave.

    Raises:
        ConfigError: a unit for a column that isn't there, or another one than the header's.
        DataError: two columns of one name.
    """
    found = [_label(column) for column in columns]
    names = [label.name for label in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"several columns are called {twice[0]}: {', '.join(columns)}; give each a name of its own")
    given = dict(_assign(text, names) for text in units)
    return tuple(_with_unit(label, given.get(label.name, given.get(""))) for label in found)


def _label(column: str) -> Label:
    parts = _HEADER.fullmatch(column.strip())
    if parts is None:
        return Label(name=column.strip())
    return Label(name=parts["name"].strip(), unit=parts["unit"].strip())


def _assign(text: str, names: Sequence[str]) -> tuple[str, str]:
    """Name and unit of ``name=unit``; no name for a unit of all."""
    name, equals, unit = (part.strip() for part in text.partition("="))
    if not equals:
        return "", name
    if name not in names:
        raise ConfigError(f"--units has a unit for {name}, and the columns of numbers are {', '.join(names)}")
    return name, unit


def _with_unit(label: Label, unit: str | None) -> Label:
    if unit is None or unit == label.unit:
        return label
    if label.unit:
        raise ConfigError(
            f"--units gives {label.name} in {unit}, and the header gives {label.unit}; leave one of them out"
        )
    return Label(name=label.name, unit=unit)


def _target(row: Mapping[str, str], columns: Sequence[str], labels: Labels) -> tuple[float | None, ...]:
    found = tuple(_number(row.get(column, ""), column, label) for column, label in zip(columns, labels, strict=True))
    if all(number is None for number in found):
        raise _Unreadable(f"{' and '.join(columns)} {_are(columns)} empty; expected {_expected_text(labels[0])}")
    return found


def _are(columns: Sequence[str]) -> str:
    return "is" if len(columns) == 1 else "are"


def _number(cell: str, column: str, label: Label) -> float | None:
    text = cell.strip()
    if not text:
        return None
    parts = _CELL.fullmatch(text)
    why = _why_none(text) if parts is None else _why_not(parts["rest"].strip(), label.unit)
    if parts is not None and not why:
        value = float(parts["number"])
        if math.isfinite(value):
            return value
        why = "too large a number"
    raise _Unreadable(f"{column} is {text!r}, {why}; expected {_expected_text(label)}")


def _why_none(text: str) -> str:
    if text[0] in "<>≤≥~≈±":
        return "a bound and no number"
    if text.lower() in _NO_NUMBER:
        return "no finite number (leave the cell of an unknown one empty)"
    return "no number" if not re.match(r"[+-]?,\d", text) else "a number with a comma"


def _why_not(rest: str, unit: str) -> str:
    """What is wrong with a cell whose number is followed by `rest`; "" for nothing."""
    if rest in ("", unit):
        return ""
    if re.match(r"[,'’]\d", rest):
        return "a number with a comma or a separator of thousands, which can be read in two ways"
    if rest[0].isdigit() or rest[0] in ".-–/:":
        return "more than one number"
    return f"in {rest!r}, which isn't the column's unit"


def _expected_text(label: Label) -> str:
    return f"one number in {label.unit}, such as 12.5" if label.unit else "one number without a unit, such as 12.5"


def _about_missing(values: Sequence[tuple[float | None, ...] | None], labels: Labels) -> tuple[str, ...]:
    known = [value for value in values if value is not None]
    missing = [sum(value[index] is None for value in known) for index in range(len(labels))]
    return tuple(
        f"{count} of {len(known)} rows have no {label.name}, which is left out of its loss and figures"
        for label, count in zip(labels, missing, strict=True)
        if count
    )
