"""Images of a data source that another plugin registers, and what its rows mean to a classifier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zooft
from zooft_images.listing import Candidate, Listing, Split, printable
from zooft_images.options import GROUP_COLUMN, LABEL_COLUMN, SPLIT_COLUMN, refuse_label_used_twice
from zooft_images.source_image import Stored
from zooft_images.suggestions import nearest
from zooft_images.unused_columns import about_unused

if TYPE_CHECKING:
    from zooft_images.options import ImageOptions


def of_row(source: zooft.Source, row: zooft.Row, options: ImageOptions) -> zooft.Sample:
    """One image, as what is to be predicted."""
    return zooft.Sample(id=printable(row.id), source=Stored(source.content, row.content))


def list_rows(source: zooft.Source, path: Path, options: Any) -> Listing:
    """Every row of a source.

    Raises:
        ConfigError: one column for two things.
        DataError: no row that can be used, no column of labels, a group column that isn't there, splits that are
            unknown or differ, or labels that contradict each other.
    """
    columns = {column.name: column for column in source.columns(path)}
    label = _label_column(path, columns, options.label_column)
    group = group_column(path, columns, options)
    refuse_label_used_twice(label, group)
    wanted = [name for name in (label, group, SPLIT_COLUMN) if name in columns]
    read = _Read(path, source, columns[label], group)
    candidates = zooft.spill(read.candidates(wanted))
    if not candidates:
        first = f"; the first: {read.rejected[0].id}: {read.rejected[0].reason}" if read.rejected else ""
        raise zooft.DataError(f"no row of {printable(str(path))} can be used, which is read as {source.name}{first}")
    notes = zooft.check_labels(read.labels(), in_table=read.numbers_only())
    return Listing(
        candidates=candidates,
        rejected=read.rejected,
        notes=[*notes, *_about_columns(path, source, columns, wanted, group)],
        classes=columns[label].categories or _in_order(read.counts),
        ordered=bool(columns[label].categories),
    )


@dataclass(slots=True)
class _Read:
    """What the rows have given so far.

    Attributes:
        path: of the data.
        source: that reads it.
        label: the column of labels.
        group: the name of the column of groups, which need not be there.
        rejected: rows that can't be used.
        counts: label to how many rows have it.
        places: label to the first row that has it.
    """

    path: Path
    source: zooft.Source
    label: zooft.Column
    group: str
    rejected: list[zooft.Rejection] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def candidates(self, wanted: Sequence[str]) -> Iterator[Candidate]:
        """Those that can be used; the others are listed."""
        for row in self.source.rows(self.path, wanted):
            if isinstance(row, zooft.Rejection):
                self.rejected.append(row)
                continue
            split = split_of(row)
            try:
                label = _label(row.values.get(self.label.name), self.label)
                group = text_of(row.values.get(self.group), self.group)
            except zooft.DataError as error:
                self.rejected.append(zooft.Rejection(printable(row.id), str(error)))
                continue
            self.counts[label] = self.counts.get(label, 0) + 1
            self.places.setdefault(label, f"such as of {printable(row.id)}")
            yield Candidate(printable(row.id), Stored(self.source.content, row.content), label, split, group or None)

    def labels(self) -> Iterator[tuple[str, str]]:
        """Every label that was read, and where the first of its kind stands.

        Where columns name them, each name once.
        """
        if self.label.categories:
            yield from ((name, f"the names of the column {self.label.name}") for name in self.label.categories)
            return
        for label, count in self.counts.items():
            yield from repeat((label, self.places[label]), count)

    def numbers_only(self) -> bool:
        """Whether labels may be measurements; texts may hold commas, which only a table's cells mustn't."""
        return not self.label.categories and all(_is_number(label) for label in self.counts)


def _label_column(path: Path, columns: Mapping[str, zooft.Column], name: str) -> str:
    """The one that was named, or else, where nobody has, the only one whose numbers have names."""
    named = [column.name for column in columns.values() if column.categories]
    if name in columns:
        return name
    if name == LABEL_COLUMN and len(named) == 1:
        return named[0]
    having = ", ".join(columns) or "none but the images"
    raise zooft.DataError(
        f"{printable(str(path))} has no column {name!r}; its columns are {having}{nearest(name, columns)}; name the "
        "one with the classes with --label-column"
    )


def group_column(path: Path, columns: Mapping[str, zooft.Column], options: ImageOptions) -> str:
    """A misspelt name would tear groups apart unseen; only the default one may be missing."""
    name = options.group_column
    if name not in columns and name != GROUP_COLUMN:
        raise zooft.DataError(
            f"{printable(str(path))} has no column {name!r} to group by; its columns are "
            f"{', '.join(columns)}{nearest(name, columns)}; "
            "name one of these"
        )
    return name


def split_of(row: zooft.Row) -> Split | None:
    """As the source or its column gives it; the two mustn't differ."""
    text = text_of(row.values.get(SPLIT_COLUMN), SPLIT_COLUMN)
    if not text:
        return row.split
    split = zooft.SPLIT_NAMES.get(text.lower())
    if split is None:
        raise zooft.DataError(
            f"{row.id} is in the split {text!r}; there are train, val and test. Mend it: another split would quietly "
            "become another experiment"
        )
    if row.split not in (None, split):
        raise zooft.DataError(
            f"{row.id} lies in the split {row.split}, and its column {SPLIT_COLUMN} has {text!r}; fix one of the two"
        )
    return split


def _label(value: Any, column: zooft.Column) -> str:
    """The name of the class.

    Raises:
        DataError: there is none, or no such class.
    """
    if not column.categories:
        text = text_of(value, column.name)
        if not text:
            raise zooft.DataError(f"no label: the column {column.name} is empty")
        return text
    if value is None or value == -1:
        raise zooft.DataError(f"no label: the column {column.name} {'is empty' if value is None else 'is -1'}")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(column.categories):
        raise zooft.DataError(
            f"the label {value!r} isn't one of the {len(column.categories)} classes that the column {column.name} "
            f"names, 0 to {len(column.categories) - 1}"
        )
    return column.categories[value]


def text_of(value: Any, name: str) -> str:
    """A label, a group or a split as text, empty where there is none.

    Raises:
        DataError: it is something else, such as a list.
    """
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # numbers beside empty cells become floats in many programs
    if isinstance(value, float) and value != value:
        return ""
    if not isinstance(value, str | int | float):
        raise zooft.DataError(f"the column {name} holds a value of type {type(value).__name__}, not a text or a number")
    return str(value).strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _in_order(labels: Mapping[str, int]) -> tuple[str, ...]:
    """Whole numbers by their size, since they number classes; names by their characters, as class folders are."""
    if all(label.isascii() and label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _about_columns(
    path: Path, source: zooft.Source, columns: Mapping[str, zooft.Column], wanted: Sequence[str], group: str
) -> list[str]:
    unused: dict[str, Sequence[str]] = {name: () for name in columns if name not in wanted}
    return [
        f"{printable(path.name)} is read as {source.name}: classes from the column {wanted[0]}",
        *about_unused(path.name, unused, grouped=group in columns),
    ]
