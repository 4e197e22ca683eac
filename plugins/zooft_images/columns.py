"""Targets that stand in columns of a table, as the task's problem reads them: numbers, grades, several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zooft
from zooft_images.from_source import group_column, split_of, text_of
from zooft_images.listing import Candidate, Listing, printable
from zooft_images.manifest import Lines, refuse_missing_groups
from zooft_images.options import GROUP_COLUMN
from zooft_images.source_image import Stored
from zooft_images.suggestions import nearest
from zooft_images.unused_columns import about_unused

if TYPE_CHECKING:
    from zooft_images.options import ImageOptions

_USUAL = ("label", "labels", "value")
"""Columns that are taken where the table has one of them and nobody names others."""
_SPLIT = "split"
_BETWEEN = "\x1f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of images with cells as text.

    Attributes:
        name: for messages.
        columns: those that may hold targets.
        places: of each row, such as ``labels.csv, line 7``.
        cells: of each row, by column.
        candidates: of each row, what its image is, or why there is none.
        rejected: of what couldn't be read as a row.
        notes: what the user should know.
        grouped: whether groups are known.
    """

    name: str
    columns: Sequence[str]
    places: Sequence[str]
    cells: Sequence[Mapping[str, str]]
    candidates: Sequence[Candidate | zooft.Rejection]
    rejected: Sequence[zooft.Rejection] = ()
    notes: Sequence[str] = ()
    grouped: bool = False


def table_of_manifest(path: Path, options: ImageOptions) -> Table:
    """A CSV file with the column path.

    Raises:
        DataError: not such a table.
    """
    table = zooft.read_csv(path)
    if "path" not in table.columns:
        raise zooft.DataError(
            f"{printable(str(path))} needs the column path, and has {', '.join(table.columns[:8]) or 'nothing'}"
        )
    refuse_missing_groups(path, table.columns, options)
    own = {"path", _SPLIT, options.group_column.lower()}
    columns = [name for name in table.columns if name not in own]
    lines = Lines(path, options)
    # a file that is listed twice has to have the same cells, so all its cells stand for its label
    # (and is never empty: what an empty cell means is the problem's matter)
    rows = [
        (number, {**row, "label": _BETWEEN.join(["", *(row[name] for name in columns)])}) for number, row in table.rows
    ]
    return Table(
        name=path.name,
        columns=columns,
        places=[f"{path.name}, line {number}" for number, _ in rows],
        cells=[row for _, row in table.rows],
        candidates=[lines.of(number, row) for number, row in rows],
        notes=[*table.notes, *lines.notes(len(rows))],
        grouped=any(row.get(options.group_column.lower()) for _, row in table.rows),
    )


def table_of_source(source: zooft.Source, path: Path, options: ImageOptions) -> Table:
    """The rows of a data source, what its columns hold as text.

    Numbers as Python writes them, lists with ``;`` between.
    """
    named = {column.name: column for column in source.columns(path)}
    group = group_column(path, named, options)
    columns = [name for name in named if name not in {_SPLIT, group}]
    wanted = [name for name in (*columns, group, _SPLIT) if name in named]
    places, cells, candidates, rejected = list[str](), list[Mapping[str, str]](), list[Any](), list[zooft.Rejection]()
    for row in source.rows(path, wanted):
        if isinstance(row, zooft.Rejection):
            rejected.append(row)
            continue
        own = {name: _cell(row.values.get(name), named[name]) for name in columns}
        content = Stored(source.content, row.content)
        of_group = text_of(row.values.get(group), group) or None
        places.append(printable(row.id))
        cells.append(own)
        candidates.append(Candidate(printable(row.id), content, _BETWEEN.join(own.values()), split_of(row), of_group))
    return Table(
        name=printable(path.name),
        columns=columns,
        places=places,
        cells=cells,
        candidates=candidates,
        rejected=rejected,
        grouped=any(candidate.group is not None for candidate in candidates),
    )


def _cell(value: Any, column: zooft.Column) -> str:
    if isinstance(value, list | tuple):
        return ";".join(_cell(one, column) for one in value)
    if column.categories and isinstance(value, int) and 0 <= value < len(column.categories):
        return column.categories[value]
    return "" if value is None else str(value).strip()


def list_columns(
    table: Table, problem: zooft.Problem, options: Any
) -> tuple[Listing, Mapping[str, Any], tuple[zooft.Label, ...]]:
    """Images in their order, the target of each label that they have in the listing, and what targets mean.

    Raises:
        DataError: no column of targets, or one that isn't there.
    """
    columns, notes = _choose(table, options)
    read = problem.training.read
    assert read is not None, "a problem of columns reads them"  # noqa: S101 -- the plugin's own invariant
    found = read([{name: row.get(name, "") for name in columns} for row in table.cells], columns, options)
    targets: dict[str, Any] = {}
    candidates: dict[str, Candidate] = {}
    rejected = list(table.rejected)
    for number, candidate in enumerate(table.candidates):
        fault = found.faults.get(number) or ("" if found.values[number] is not None else "no target in its row")
        if isinstance(candidate, zooft.Rejection):
            rejected.append(candidate)
        elif fault:
            rejected.append(zooft.Rejection(candidate.id, f"{table.places[number]}: {fault}"))
        else:
            targets[candidate.label] = found.values[number]
            candidates.setdefault(candidate.id, candidate)
    used = columns if found.columns is None else found.columns
    unused = {name: [row.get(name, "") for row in table.cells] for name in table.columns if name not in used}
    listing = Listing(
        candidates=zooft.spill(candidates.values()),
        classes=(),
        rejected=rejected,
        notes=[*table.notes, *notes, *about_unused(table.name, unused, grouped=table.grouped), *found.notes],
    )
    return listing, targets, found.labels


def _choose(table: Table, options: Any) -> tuple[list[str], list[str]]:
    """The columns of targets, and how they were chosen."""
    if not hasattr(options, "targets"):  # the problem has its own way to name them
        return list(table.columns), []
    if options.targets:
        wanted = [
            name.strip().lower() if name.strip() not in table.columns else name.strip() for name in options.targets
        ]
        missing = [name for name in wanted if name not in table.columns]
        if missing:
            having = ", ".join(table.columns) or "none to learn"
            raise zooft.DataError(
                f"{table.name} has no column {missing[0]!r}; it has {having}{nearest(missing[0], table.columns)}"
            )
        return wanted, []
    usual = [name for name in _USUAL if name in table.columns][:1]
    chosen = usual or _all_but_groups(table)
    if not chosen:
        raise zooft.DataError(
            f"{table.name} has no column of targets beside path, {_SPLIT} and {GROUP_COLUMN}; name them in its first "
            "line"
        )
    others = " (--targets names others)" if len(chosen) < len(table.columns) else ""
    return chosen, [f"the targets are the columns {', '.join(chosen)} of {table.name}{others}"]


def _all_but_groups(table: Table) -> list[str]:
    """Columns that may be targets; not the patient's number, which isn't a figure of the picture."""
    by_name = zooft.likely_groups(dict.fromkeys(table.columns, ()))
    groups = zooft.likely_groups({name: [row.get(name, "") for row in table.cells] for name in by_name})
    return [name for name in table.columns if name not in groups] or list(table.columns)
