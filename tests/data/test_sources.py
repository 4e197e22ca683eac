"""Which source reads a path, and rows as samples without a target: what can't be listed is reported, and never lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import zooft
from zooft.data.sources import source_of, unlabelled_rows
from zooft.hooks import registry


def of_row(_source: zooft.Source, row: zooft.Row, options: Any) -> zooft.Sample:
    return zooft.Sample(id=row.id, source=(row.content, options))


TASK = dataclasses.replace(registry.load().task("classification"), of_row=of_row)


def source(name: str, suffix: str, *items: zooft.Row | zooft.Rejection | Exception) -> zooft.Source:
    """One of files with this ending, with these rows; an exception is raised in its turn."""

    def rows(_path: Path, expected: Sequence[str]) -> Iterator[zooft.Row | zooft.Rejection]:
        assert list(expected) == []
        for item in items:
            if isinstance(item, Exception):
                raise item
            yield item

    return zooft.Source(
        name=name,
        summary="",
        recognises=lambda path: path.suffix == suffix,
        columns=lambda _path: [],
        rows=rows,
        content=lambda content: content,
    )


A, B = (zooft.Row(id=f"r/{n}", content=n) for n in range(2))


def listed(*items: zooft.Row | zooft.Rejection | Exception) -> list[zooft.Sample | zooft.Rejection]:
    return list(unlabelled_rows(source("rows", ".r", *items), Path("x.r"), TASK, "options"))


def test_the_source_is_the_one_that_knows_the_path() -> None:
    one, two = source("one", ".a"), source("two", ".b")
    assert source_of(Path("x.b"), [one, two]) is two
    assert source_of(Path("x.c"), [one, two]) is None
    with pytest.raises(zooft.DataError, match=r"x\.a is recognised by several data sources: one and again; uninstall"):
        source_of(Path("x.a"), [one, two, dataclasses.replace(one, name="again")])


def test_rows_become_samples_by_the_task_and_rejections_stay() -> None:
    torn = zooft.Rejection("r/9", "torn")
    assert listed(A, torn, B) == [
        zooft.Sample(id="r/0", source=(0, "options")),
        torn,
        zooft.Sample(id="r/1", source=(1, "options")),
    ]


def test_what_ends_the_rows_is_a_rejection_of_the_whole_and_those_before_stay() -> None:
    first, end = listed(A, zooft.DataError("the server is gone"), B)
    assert first == zooft.Sample(id="r/0", source=(0, "options"))
    assert end == zooft.Rejection("x.r", "the server is gone")
    _, fault = listed(A, KeyError("lost"))
    assert isinstance(fault, zooft.Rejection)
    assert fault.reason.startswith("the data source rows failed to list the rows of x.r: KeyError: 'lost'")


def test_no_rows_are_reported_as_none() -> None:
    assert listed() == [zooft.Rejection("x.r", "holds no rows, read as rows")]
