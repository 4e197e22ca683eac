"""The formats of `zooft predict`: one table for files and patients, the same as CSV, JSON, JSON lines and on the screen."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from zooft.storage import csv_files, escapes

if TYPE_CHECKING:
    from pathlib import Path

    from zooft.deploy.predict import Answer

FORMATS = ("table", "csv", "json", "jsonl")
BY_SUFFIX = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""Of the file that is written, where no format is named; CSV else."""
_FEW = 4
"""Classes that have a column each on the screen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What stands in every format.

    Attributes:
        key: what is answered for: ``file`` or ``patient``.
        classes: in the order of the probabilities.
        facts: what else is told of each answer, in order.
        about: what JSON says of all answers.
    """

    key: str
    classes: tuple[str, ...]
    facts: tuple[str, ...]
    about: Mapping[str, Any]


def columns(layout: Layout) -> list[str]:
    """Of CSV: what is asked about, the class, a probability for each class, facts, and why there is no whole answer."""
    return [layout.key, "class", *(f"p({name})" for name in layout.classes), *layout.facts, "error"]


def cells(layout: Layout, answer: Answer) -> list[Any]:
    """One line of CSV, with all digits; blank where there is nothing."""
    probabilities = answer.probabilities or ("",) * len(layout.classes)
    facts = (answer.facts.get(name, "") for name in layout.facts)
    return [answer.key, answer.prediction or "", *probabilities, *facts, answer.error]


def for_screen(layout: Layout, answers: Sequence[Answer]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for people: four digits, of many classes the probability of the one that is said."""
    few = len(layout.classes) <= _FEW
    head = [layout.key, "class", *([f"p({name})" for name in layout.classes] if few else ["probability"])]
    errors = any(answer.error for answer in answers)
    rows = []
    for answer in answers:
        shown = answer.probabilities if few else _said(layout, answer)
        figures = [f"{p:.4f}" for p in shown] or [""] * (len(layout.classes) if few else 1)
        facts = [str(answer.facts.get(name, "")) for name in layout.facts]
        rows.append([answer.key, answer.prediction or "", *figures, *facts, *([answer.error] if errors else [])])
    return [*head, *layout.facts, *(["error"] if errors else [])], rows


def _said(layout: Layout, answer: Answer) -> tuple[float, ...]:
    if answer.prediction is None:
        return ()
    return (answer.probabilities[layout.classes.index(answer.prediction)],)


def as_record(layout: Layout, answer: Answer, *, by_name: bool) -> dict[str, Any]:
    """One entry of JSON.

    Args:
        layout: of all.
        answer: one.
        by_name: whether probabilities stand under the names of their classes, else in the classes' order.
    """
    record: dict[str, Any] = {layout.key: answer.key, **answer.facts}
    if answer.prediction is not None:
        given = [p if math.isfinite(p) else None for p in answer.probabilities]
        record["class"] = answer.prediction
        record["probability"] = _said(layout, answer)[0]
        record["probabilities"] = dict(zip(layout.classes, given, strict=True)) if by_name else given
    return record | ({"error": answer.error} if answer.error else {})


def line(layout: Layout, answer: Answer) -> str:
    """One line of JSON lines, which stands by itself."""
    return _json(as_record(layout, answer, by_name=True)) + "\n"


def json_text(layout: Layout, answers: Iterable[Answer]) -> Iterator[str]:
    """One JSON value, part by part: what holds of all, then ``predictions`` with an entry a line."""
    head = json.dumps(layout.about, indent=2, ensure_ascii=False).rstrip("}").rstrip()
    yield escapes.in_json(f'{head}{"," if layout.about else ""}\n  "predictions": [')
    for number, answer in enumerate(answers):
        record = _json(as_record(layout, answer, by_name=layout.key != "file"))
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


def is_result(path: Path) -> bool:
    """Whether a file holds what `write` writes, and nothing else that would be lost; an empty one holds nothing."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            first = file.readline(2**20)
            if not first:
                return True
            return _is_table(first) or _is_entry(first) or _is_whole(first, file)
    except (OSError, UnicodeDecodeError):
        return False


def _is_table(first: str) -> bool:
    try:
        head = next(csv.reader([first], strict=True), [])
    except csv.Error:
        return False
    return len(head) > 3 and head[0] in _KEYS and head[1] == "class" and head[2][:2] == "p(" and head[-1] == "error"


_KEYS = frozenset({"file", "patient"})


def _is_entry(first: str) -> bool:
    try:
        entry = json.loads(first)
    except ValueError:
        return False
    return isinstance(entry, dict) and bool(_KEYS & entry.keys()) and bool({"class", "error"} & entry.keys())


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
    """A layout that has room for all that is told of any answer, such as the names of patients, before the other facts."""
    names = dict.fromkeys(name for answer in answers for name in answer.facts if name not in layout.facts)
    return replace(layout, facts=(*names, *layout.facts))
