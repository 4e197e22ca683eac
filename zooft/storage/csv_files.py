"""The CSV files that zooft writes, and reads again: no cell is a formula, a record is one line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from zooft.storage import escapes

if TYPE_CHECKING:
    from pathlib import Path


class Writer:
    """Writes records to an open text file.

    Args:
        file: opened with ``newline=""``, in UTF-8.
    """

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file, lineterminator="\n")

    def row(self, cells: Iterable[Any]) -> None:
        """One record; numbers stay numbers, with all their digits."""
        self._writer.writerow(escapes.cell(one) if isinstance(one, str) else one for one in cells)


def write(path: Path, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """A table with a line of names."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = Writer(file)
        writer.row(columns)
        for row in rows:
            writer.row(row)


def read(path: Path) -> Iterator[dict[str, str]]:
    """The records of a table that `write` has written, by the names of the columns.

    Raises:
        OSError: it can't be read.
        ValueError: it isn't such a table.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file, strict=True)
        try:
            columns = [escapes.from_cell(name) for name in next(rows, ())]
            for row in rows:
                yield dict(zip(columns, map(escapes.from_cell, row), strict=True))
        except csv.Error as error:
            raise ValueError(str(error)) from error
