"""Runs side by side: settings that differ, figures, cost, and what verification found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zooft.contracts import Label, Measure, Table
from zooft.errors import RunError
from zooft.evaluation.bootstrap import Interval
from zooft.report import formatting, html
from zooft.report.blocks import Block, Grid, Page, Section, Text
from zooft.run import folder as runs
from zooft.run.record import RunRecord, read_record
from zooft.storage import csv_files

Cell = str | int | float | bool | None
_MEASURES: Mapping[Measure, str] = {
    "absolute": "largest difference of {}",
    "spread": "difference of {} (share of its spread)",
    "exact": "samples that differ in {} (share)",
}
"""The measure by which a file's output was compared, in words."""


@dataclass(frozen=True, slots=True)
class Line:
    """One value, in every run."""

    name: str
    values: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The metrics of one split, in every run.

    Attributes:
        split: which samples.
        level: whether predictions are per sample or per group.
        comparable: whether all runs were measured on the same samples.
        metrics: name to one figure a run, None where a run lacks it.
        smaller: names of figures that are better when smaller.
    """

    split: str
    level: str
    comparable: bool
    metrics: Mapping[str, tuple[Interval | None, ...]]
    smaller: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: their names.
        settings: those in which they differ.
        figures: by split and level.
        cost: seconds, bytes, megabytes.
        proof: what verification found.
        notes: what readers must know before comparing.
    """

    runs: tuple[str, ...]
    settings: tuple[Line, ...]
    figures: tuple[Figures, ...]
    cost: tuple[Line, ...]
    proof: tuple[Line, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """The records in a run's folder."""

    name: str
    record: RunRecord
    epochs: Sequence[Mapping[str, Any]]
    verification: Mapping[str, Any]
    size: int | None
    members: Mapping[str, frozenset[str]]


def compare(paths: Sequence[Path]) -> Comparison:
    """Put run folders side by side.

    Raises:
        RunError: one of them isn't a finished run.
    """
    opened = [_open(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    figures = tuple(_figures(opened))
    return Comparison(
        runs=tuple(run.name for run in opened),
        settings=tuple(_differences(opened)),
        figures=figures,
        cost=tuple(_cost(opened)),
        proof=tuple(_proof(opened)),
        notes=tuple(_notes(opened, figures)),
    )


def tables(comparison: Comparison) -> tuple[Table, ...]:
    """A comparison as tables for people."""
    names = comparison.runs
    settings = tuple((line.name, *map(_text, line.values)) for line in comparison.settings)
    made = [Table(title="Settings that differ", columns=("Setting", *names), rows=settings)] if settings else []
    for figures in comparison.figures:
        warning = "" if figures.comparable else "; measured on different samples"
        title = f"{formatting.split(figures.split).capitalize()} samples, per {figures.level}{warning}"
        rows = tuple((_metric(name, figures), *map(_figure, values)) for name, values in figures.metrics.items())
        made.append(Table(title=title, columns=("Figure (95 % interval)", *names), rows=rows))
    for title, lines in (("Cost", comparison.cost), ("Verification", comparison.proof)):
        rows = tuple((_label(line.name), *(_quantity(line.name, value) for value in line.values)) for line in lines)
        made.append(Table(title=title, columns=("Of each run", *names), rows=rows))
    return tuple(made)


def to_html(comparison: Comparison) -> str:
    """The same as a page that loads nothing from anywhere."""
    warnings: list[Block] = [Text(note, "warning") for note in comparison.notes]
    grids: list[Block] = [
        Grid(title=table.title, columns=table.columns, rows=table.rows, numbers=False) for table in tables(comparison)
    ]
    if not comparison.settings:
        grids.insert(0, Text("No setting differs."))
    page = Page(
        title="Runs side by side",
        lead=", ".join(comparison.runs),
        keys=(),
        sections=(Section("comparison", "Comparison", (*warnings, *grids)),),
        foot=("Made by zooft. Figures come from the runs' own files; nothing on this page is loaded from elsewhere."),
    )
    return html.to_html(page)


def _open(path: Path, name: str) -> _Run:
    record = read_record(path)
    if not record.evaluation:
        raise RunError(f"{path} has no figures to compare: its training didn't end; choose a finished run")
    model = path / runs.ONNX_FILE
    try:
        return _Run(
            name=name,
            record=record,
            epochs=[json.loads(line) for line in _lines(path / runs.EPOCHS_FILE)],
            verification=json.loads("\n".join(_lines(path / runs.VERIFICATION_FILE)) or "{}"),
            size=model.stat().st_size if model.is_file() else None,
            members=_members(path / runs.SAMPLES_FILE),
        )
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"a file of the run {path} can't be read: {error}; train it again") from error


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def _members(path: Path) -> dict[str, frozenset[str]]:
    """Split to the ids of its samples."""
    ids: dict[str, set[str]] = {}
    for row in csv_files.read(path) if path.is_file() else ():
        ids.setdefault(row["split"], set()).add(row["id"])
    return {split: frozenset(found) for split, found in ids.items()}


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, or the paths as given where two folders have one name."""
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def _settings(run: _Run) -> dict[str, Cell]:
    record = run.record
    found: dict[str, Any] = {**record.config, **record.options}
    found |= {
        "task": record.task,
        "backbone": record.backbone.reference,
        "pretrained weights": record.weights.source,
        **{f"labels ({label.name})": _answers(label) for label in record.labels},
        "zooft": record.zooft,
    }
    found |= {f"{name} (version)": version for name, version in record.versions.items()}
    found |= {f"fitted {name}": value for name, value in record.fitted.items() if not isinstance(value, str)}
    return {
        name: value if isinstance(value, Cell) else json.dumps(value, ensure_ascii=False)
        for name, value in found.items()
    }


def _answers(label: Label) -> str:
    return ", ".join(label.categories) or label.unit or "a number"


def _differences(opened: Sequence[_Run]) -> Iterator[Line]:
    settings = [_settings(run) for run in opened]
    for name in dict.fromkeys(name for own in settings for name in own):
        values = tuple(own.get(name) for own in settings)
        if any(value != values[0] for value in values) and name not in {"data", "out"}:
            yield Line(name.replace("_", " "), values)


def _figures(opened: Sequence[_Run]) -> Iterator[Figures]:
    for split in dict.fromkeys(name for run in opened for name in run.record.evaluation):
        for level, key in (("sample", "metrics"), ("group", "group_metrics")):
            given = [run.record.figures(split).get(key) or {} for run in opened]
            names = dict.fromkeys(name for own in given for name in own)
            if names:
                metrics = {name: tuple(_interval(own.get(name)) for own in given) for name in names}
                yield Figures(
                    split=split,
                    level=level,
                    comparable=_same_samples(opened, split),
                    metrics=metrics,
                    smaller=_smaller(opened, split),
                )


def _smaller(opened: Sequence[_Run], split: str) -> tuple[str, ...]:
    found = [name for run in opened for name in run.record.figures(split).get("smaller") or ()]
    return tuple(dict.fromkeys(found))


def _interval(given: Mapping[str, Any] | None) -> Interval | None:
    if given is None:
        return None
    value = given["value"]
    return Interval(math.nan if value is None else value, given["low"], given["high"])


def _same_samples(opened: Sequence[_Run], split: str) -> bool:
    having = [run for run in opened if split in run.record.evaluation]
    prints = {run.record.data.fingerprint for run in having}
    return len(prints) == 1 and (split == "cross-validation" or len({run.members.get(split) for run in having}) == 1)


def _cost(opened: Sequence[_Run]) -> Iterator[Line]:
    resources = [run.record.resources for run in opened]
    parts = [own.seconds if own is not None else {} for own in resources]
    seconds = [[float(epoch["seconds"]) for epoch in run.epochs] for run in opened]
    yield Line("epochs", tuple(len(own) for own in seconds))
    yield Line("an epoch, median (seconds)", tuple(sorted(own)[len(own) // 2] if own else None for own in seconds))
    for part in dict.fromkeys(name for own in parts for name in own):
        yield Line(f"{part} (seconds)", tuple(own.get(part) for own in parts))
    yield Line("peak memory (MB)", tuple(own.peak_memory_mb if own is not None else None for own in resources))
    yield Line("size of the ONNX file (bytes)", tuple(run.size for run in opened))


def _proof(opened: Sequence[_Run]) -> Iterator[Line]:
    found = [run.verification for run in opened]
    words_of = {True: "verified", False: "refused", None: "no file"}
    yield Line("ONNX file", tuple(words_of[own.get("passed")] for own in found))
    yield Line("compared on", tuple(f"{own['samples']} {own['data']} samples" if own else None for own in found))
    outputs = [own.get("outputs") or {} for own in found]
    measured = {name: one["measure"] for own in outputs for name, one in own.items()}
    for name, measure in measured.items():
        yield Line(_MEASURES[measure].format(name), tuple(own.get(name, {}).get("whole") for own in outputs))
    yield Line("samples with the same exact outputs (share)", tuple(own.get("agreement") for own in found))


def _notes(opened: Sequence[_Run], figures: Sequence[Figures]) -> Iterator[str]:
    if len({run.record.data.fingerprint for run in opened}) > 1:
        yield "The runs were made on different data, so their figures can't be compared with each other."
    elif not all(part.comparable for part in figures):
        yield "The runs have the same data but hold out different samples, so a small difference means little."
    if any(run.record.labels != opened[0].record.labels for run in opened[1:]):
        yield "The runs have different labels."
    if any(set(run.record.evaluation) == {"val"} for run in opened):
        yield (
            "Validation samples chose each run's best epoch; the best of many runs on them is slightly more "
            "optimistic still."
        )


def _metric(name: str, figures: Figures) -> str:
    return formatting.metric(name) + (" (smaller is better)" if name in figures.smaller else "")


def _figure(value: Interval | None) -> str:
    return "" if value is None else formatting.with_interval(value)


def _text(value: Cell) -> str:
    return "" if value is None else str(value)


def _label(name: str) -> str:
    """A name without the unit, which its figures have."""
    short = name.removesuffix(" (seconds)").removesuffix(" (bytes)")
    return short[:1].upper() + short[1:]


def _quantity(name: str, value: Cell) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if name.endswith("(bytes)"):
        return formatting.size(value)
    if name.endswith("(seconds)"):
        return formatting.seconds(value)
    if isinstance(value, float) and value < 0.01:
        return f"{value:.1e}"
    return f"{value:,.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else f"{value:,}"
