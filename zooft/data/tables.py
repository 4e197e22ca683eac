"""CSV files that people give, such as tables of labels: read strictly, each line once, each cell as it stands there.

Separate from their users, so that every table is read by the same rules. A message names the line and never what
stands in it: a shifted column may hold names.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TextIO

from zooft.contracts.plurals import pluralize
from zooft.errors import DataError

CELL_LIMIT = 2_000
"""Characters. Paths are shorter on every system in practice; what is longer has swallowed other cells."""
_HEAD_LIMIT = 2**20
_SEPARATORS = ",;\t|"
_UNWRITTEN = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")
"""Control characters, and the other two that break lines."""
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig", ""),
    (b"\xff\xfe\0\0", "utf-32", "UTF-32"),
    (b"\0\0\xfe\xff", "utf-32", "UTF-32"),
    (b"\xff\xfe", "utf-16", "UTF-16"),
    (b"\xfe\xff", "utf-16", "UTF-16"),
)
"""Byte order marks, Python's name of the encoding, and a name for the note where one is due."""
_OTHER_KINDS = {
    b"PK\x03\x04": "an Excel workbook or another archive; save the sheet as 'CSV UTF-8'",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the sheet as 'CSV UTF-8'",
    b"\x1f\x8b": "compressed; unpack it",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
"""First bytes of files that are given by mistake."""
_STRAY_QUOTE = (
    "a cell that begins with a quotation mark doesn't end in its line, or has text behind its second mark. A stray "
    "mark swallows what follows it: remove it, or double it inside quotes; a cell of several lines must become one line"
)

_TOO_LONG = (
    f"has a cell of more than {CELL_LIMIT:,} characters, which is the most that is read; "
    "shorten it, or leave its column out"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvTable:
    """All lines of a CSV file but empty ones.

    Attributes:
        name: of the file, for messages.
        columns: in lower case, without spaces around them; unnamed ones left out.
        rows: number of the line, from 1, and its cells by column, without spaces around them.
        notes: what the user should know.
    """

    name: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[int, Mapping[str, str]]]
    notes: tuple[str, ...] = ()


def read_csv(path: Path, *, name: str = "", private: bool = False) -> CsvTable:
    """Read a CSV file in UTF-8 (or UTF-16 with a byte order mark), separated by commas, semicolons, tabs or bars.

    Args:
        path: of the file.
        name: what messages call it; the file's own name where none is given.
        private: whether the names of columns are left out of messages, since there may be no first line of them.

    Raises:
        DataError: not such a file, a column that is there twice, or an unreliable line: with more cells than
            there are columns, a quote that isn't closed, a control character or a cell of great length.
    """
    name = name or path.name
    encoding, shown = _encoding(path, name)
    rows: list[tuple[int, Mapping[str, str]]] = []
    short: list[int] = []
    try:
        with path.open(encoding=encoding) as file:
            records = _records(file, name)
            _, head = next(records, (0, []))
            columns = [cell.lower() for cell in head]
            _refuse_twice(columns, name, private=private)
            for number, cells in records:
                _refuse_surplus(cells, len(columns), number, name)
                short += [number] if len(cells) < len(columns) else []
                padded = [*cells, *[""] * (len(columns) - len(cells))]
                rows.append((number, {column: cell for column, cell in zip(columns, padded, strict=False) if column}))
    except UnicodeDecodeError:
        _refuse_bytes(path, encoding, name)
    notes = [f"{name} is in {shown}, and read as that"] if shown else []
    return CsvTable(
        name=name,
        columns=tuple(column for column in columns if column),
        rows=tuple(rows),
        notes=(*notes, *_about_short(short, name), *_about_unnamed(columns, name)),
    )


def path_in_table(root: Path, text: str) -> Path:
    r"""The file or folder that a table's cell names.

    As it is written, where that exists; otherwise with ``/`` for Windows' ``\``, or in another Unicode form of the same
    letters, as other systems write them.

    Args:
        root: what relative paths start from.
        text: the cell.

    Raises:
        OSError: the path can't be resolved.
        ValueError: the same.
    """
    slashed = text.replace("\\", "/")
    forms = [text, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]
    paths = [root / form for form in dict.fromkeys(forms)]
    return next((path for path in paths if path.exists()), paths[0])


def _encoding(path: Path, name: str) -> tuple[str, str]:
    """Python's name of the encoding, and a name for the note where one is due."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise DataError(f"{name} can't be read: {error.strerror}") from None
    kind = next((kind for mark, kind in _OTHER_KINDS.items() if start.startswith(mark)), None)
    if kind:
        raise DataError(f"{name} isn't a CSV file but {kind}")
    return next(((code, shown) for mark, code, shown in _MARKS if start.startswith(mark)), ("utf-8", ""))


def _refuse_bytes(path: Path, encoding: str, name: str) -> NoReturn:
    content = path.read_bytes()
    try:
        content.decode(encoding)
        line = 0
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
    raise DataError(
        f"{name} isn't a CSV file in UTF-8: line {line} has other bytes, such as Windows-1252 or binary data. "
        "Which letters they mean can't be known; save it as 'CSV UTF-8'"
    ) from None


def _find_start(file: TextIO) -> tuple[int, str]:
    """The number of the first line, and the separator of cells, which Excel may state in a line ``sep=;``."""
    head = file.readline(_HEAD_LIMIT)
    stated = re.fullmatch(r'"?sep=(.)"?\n?', head, re.IGNORECASE)
    if stated:
        return 2, stated[1]
    file.seek(0)
    return 1, max(_SEPARATORS, key=head.count)


def _records(file: TextIO, name: str) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line that isn't empty."""
    first, separator = _find_start(file)
    reader = csv.reader(file, delimiter=separator, strict=True)
    while True:
        number = first + reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "field limit" in str(error) and first + reader.line_num == number + 1:
                raise DataError(f"{name}, line {number}, {_TOO_LONG}") from None
            raise DataError(f"{name}, line {number}: {_STRAY_QUOTE}") from None
        if first + reader.line_num > number + 1:
            raise DataError(f"{name}, line {number}: {_STRAY_QUOTE}")
        if not any(cells):
            continue
        _refuse_unwritten(cells, number, name)
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            yield number, stripped


def _refuse_unwritten(cells: Sequence[str], number: int, name: str) -> None:
    whole = "".join(cells)
    if _UNWRITTEN.search(whole) is None and len(whole) <= CELL_LIMIT:
        return
    if "\0" in whole:
        raise DataError(
            f"{name}, line {number}, holds NUL characters: it is UTF-16 without a byte order mark, or damaged; save "
            "it as 'CSV UTF-8'"
        )
    column = next((i for i, cell in enumerate(cells, 1) if _UNWRITTEN.search(cell)), None)
    if column is not None:
        raise DataError(
            f"{name}, line {number}, column {column}, holds a tab, a line break or another control character; remove it"
        )
    if any(len(cell) > CELL_LIMIT for cell in cells):
        raise DataError(f"{name}, line {number}, {_TOO_LONG}")


def _refuse_twice(columns: Sequence[str], name: str, *, private: bool) -> None:
    twice = list(dict.fromkeys(column for column in columns if column and columns.count(column) > 1))
    if twice:
        twice_named = (
            f"{pluralize(len(twice), 'column')} twice" if private else f"the column {' and '.join(twice)} twice"
        )
        raise DataError(f"{name} has {twice_named}; leave each once, since it would be unclear which of them counts")


def _refuse_surplus(cells: Sequence[str], columns: int, number: int, name: str) -> None:
    if any(cells[columns:]):
        raise DataError(
            f"{name}, line {number}, has more fields than the first line has columns: {len(cells)} and {columns}. Put "
            "what holds a separator between quotation marks, or name the further column"
        )


def _about_short(short: Sequence[int], name: str) -> list[str]:
    if not short:
        return []
    return [
        f"{pluralize(len(short), 'line')}"
        f" of {name} with fewer fields than columns, the first line {short[0]}; the missing "
        "cells count as empty"
    ]


def _about_unnamed(columns: Sequence[str], name: str) -> list[str]:
    count = sum(not column for column in columns)
    return [f"{pluralize(count, 'column')} of {name} without a name, not used"] if count else []
