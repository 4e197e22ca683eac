"""The formats of `zooft predict`.

One table for files and patients, the same as CSV, JSON, JSON lines and on the screen; Parquet's is in `parquet`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from zooft.storage import csv_files, escapes

if TYPE_CHECKING:
    from pathlib import Path

    from zooft.contracts import Labels, PresentationPart
    from zooft.deploy.predict import Answer

FORMATS = ("table", "csv", "json", "jsonl", "parquet")
BY_SUFFIX = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
"""Of the file that is written, where no format is named; CSV else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What stands in every format.

    Attributes:
        key: what is answered for: ``file``, ``patient``, or ``id`` where there are rows of data sources among what is
        predicted.
        labels: what the answers mean.
        presentation: how they are shown.
        facts: what else is known of each answer, in order.
        about: what JSON has for all answers.
    """

    key: str
    labels: Labels
    presentation: PresentationPart
    facts: tuple[str, ...]
    about: Mapping[str, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        """Of an answer itself."""
        return tuple(self.presentation.columns(self.labels))


def columns(layout: Layout) -> list[str]:
    """Of CSV: what was predicted of, the answer's columns, facts, and why there is no whole answer."""
    return [layout.key, *layout.columns, *layout.facts, "error"]


def cells(layout: Layout, answer: Answer) -> list[Any]:
    """One line of CSV, with all digits; blank where there is nothing."""
    shown = (answer.cells.get(name, "") for name in layout.columns)
    facts = (answer.facts.get(name, "") for name in layout.facts)
    return [answer.key, *shown, *facts, answer.error]


def for_screen(layout: Layout, answers: Sequence[Answer]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for people: what fits, numbers with four digits."""
    blank = dict.fromkeys(layout.columns, "")
    brief = [layout.presentation.brief({**blank, **answer.cells}, layout.labels) for answer in answers]
    names = list(brief[0] if brief else layout.presentation.brief(blank, layout.labels))
    errors = any(answer.error for answer in answers)
    rows = []
    for answer, given in zip(answers, brief, strict=True):
        shown = [_short(given.get(name, "")) for name in names]
        facts = [str(answer.facts.get(name, "")) for name in layout.facts]
        rows.append([answer.key, *shown, *facts, *([answer.error] if errors else [])])
    return [layout.key, *names, *layout.facts, *(["error"] if errors else [])], rows


def _short(cell: Any) -> str:
    return f"{cell:.4f}" if isinstance(cell, float) else str(cell)


def as_record(layout: Layout, answer: Answer, *, by_name: bool) -> dict[str, Any]:
    """One entry of JSON.

    Args:
        layout: of all.
        answer: one.
        by_name: whether numbers that stand under names, such as those of classes, do so here, else in the names' order.
    """
    record: dict[str, Any] = {layout.key: answer.key, **answer.facts}
    if answer.cells:
        shown = layout.presentation.record(answer.cells, layout.labels)
        record |= {name: value if by_name else _in_order(value) for name, value in shown.items()}
    return record | ({"error": answer.error} if answer.error else {})


def _in_order(value: Any) -> Any:
    return list(value.values()) if isinstance(value, Mapping) else value


def line(layout: Layout, answer: Answer) -> str:
    """One line of JSON lines, which stands by itself."""
    return _json(as_record(layout, answer, by_name=True)) + "\n"


def json_text(layout: Layout, answers: Iterable[Answer]) -> Iterator[str]:
    """One JSON value, part by part: what holds of all, then ``predictions`` with an entry a line."""
    head = json.dumps(layout.about, indent=2, ensure_ascii=False).rstrip("}").rstrip()
    yield escapes.in_json(f'{head}{"," if layout.about else ""}\n  "predictions": [')
    for number, answer in enumerate(answers):
        record = _json(as_record(layout, answer, by_name=layout.key == "patient"))
        yield f"{',' if number else ''}\n    {record}"
    yield "\n  ]\n}\n"


def write(file: TextIO, layout: Layout, answers: Iterable[Answer], form: str) -> None:
    """All answers in a format, to an open text file; in constant memory."""
    if form == "json":
        file.writelines(json_text(layout, answers))
    elif form == "jsonl":
        file.writelines(line(layout, answer) for answer in answers)
    else:
        writer = csv_files.Writer(file)
        writer.row(columns(layout))
        for answer in answers:
            writer.row(cells(layout, answer))


def is_result(path: Path, presentation: PresentationPart, labels: Labels) -> bool:
    """Whether a file holds what `write` writes, and nothing else that would be lost; an empty one holds nothing.

    Args:
        path: of the file.
        presentation: of the model that is to answer now.
        labels: what its answers mean.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            first = file.readline(2**20)
            if not first:
                return True
            names = tuple(presentation.columns(labels))
            return _is_table(first, names) or _is_entry(first, presentation.entries or names) or _is_whole(first, file)
    except (OSError, UnicodeDecodeError):
        return False


_FACTS: Mapping[str, tuple[str, ...]] = {"file": (), "id": (), "patient": ("samples", "missing", "decisive")}
"""What stands before the errors, by what is answered for."""


def _is_table(first: str, names: tuple[str, ...]) -> bool:
    """Whether a line is the head of CSV with these columns, or with those of any categories.

    Another model may have written it.
    """
    try:
        head = next(csv.reader([first], strict=True), [])
    except csv.Error:
        return False
    if len(head) < 3 or head[0] not in _FACTS or head[-1] != "error":
        return False
    facts, between = _FACTS[head[0]], tuple(head[1:-1])
    answer = between[: len(between) - len(facts)]
    if between != (*answer, *facts):
        return False
    own = answer[: len(names)] == names if facts else answer == names  # names of a patient may stand behind them
    return own or (len(answer) > 1 and answer[1].startswith("p(") and answer[1].endswith(")"))


def _is_entry(first: str, names: Sequence[str]) -> bool:
    """Whether a line is an entry that has these names, or one that states why there is no answer."""
    try:
        entry = json.loads(first)
    except ValueError:
        return False
    if not isinstance(entry, dict):
        return False
    return any(
        key in entry
        and entry.keys() >= set(facts)
        and (entry.keys() >= set(names) or entry.keys() == {key, *facts, "error"})
        for key, facts in _FACTS.items()
    )


def _is_whole(first: str, file: TextIO) -> bool:
    """The head of `json_text`, as far as it goes before the entries."""
    if first.strip() != "{":
        return False
    return any(text == '  "predictions": [\n' for text in islice(file, 1_000_000))


def _json(value: Any) -> str:
    return escapes.in_json(json.dumps(value, ensure_ascii=False))


def csv_line(given: Iterable[Any]) -> str:
    """One record."""
    buffer = io.StringIO()
    csv_files.Writer(buffer).row(given)
    return buffer.getvalue()


def with_names(layout: Layout, answers: Iterable[Answer]) -> Layout:
    """A layout with room for all facts of any answer, such as the names of patients, before the usual ones."""
    names = dict.fromkeys(name for answer in answers for name in answer.facts if name not in layout.facts)
    return replace(layout, facts=(*names, *layout.facts))
