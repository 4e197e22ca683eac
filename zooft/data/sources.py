"""Which data source reads a file or folder, and its rows as samples without a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.contracts import Rejection
from zooft.errors import DataError, ZooftError
from zooft.hooks.guard import call_plugin

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from zooft.contracts import Sample, Source, Task


def source_of(path: Path, sources: Sequence[Source]) -> Source | None:
    """The source that reads a file or folder; None where none does.

    Raises:
        DataError: several do.
    """
    found = [source for source in sources if source.recognises(path)]
    if len(found) > 1:
        raise DataError(
            f"{path} is recognised by several data sources: {' and '.join(source.name for source in found)}; "
            "uninstall the plugins whose data it isn't ('zooft plugins' lists them)"
        )
    return found[0] if found else None


def unlabelled_rows(source: Source, path: Path, task: Task, options: Any) -> Iterator[Sample | Rejection]:
    """Every row, as the task's `of_row` gives it; what can't be listed gives at least one rejection.

    Args:
        source: that reads the path.
        path: of the data.
        task: that reads the images; it has `of_row`.
        options: the task's.
    """
    count = 0
    try:
        for row in call_plugin(source, "rows", path, [], doing=f"to list the rows of {path.name}"):
            yield row if isinstance(row, Rejection) else call_plugin(task, "of_row", source, row, options)
            count += 1
    except ZooftError as error:
        yield Rejection(str(path), str(error))
        return
    if not count:
        yield Rejection(str(path), f"holds no rows, read as {source.name}")
