"""Where results go: tables for people, JSON for programs; both on standard output, all else on standard error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from zooft.cli.screen import echo, label, write
from zooft.report.formatting import difference, plural
from zooft.run.folder import to_json
from zooft.storage.escapes import in_json, visible

if TYPE_CHECKING:
    from zooft.contracts import Labels, LabelVerification, Problem, Verification
    from zooft.evaluation.bootstrap import Interval
    from zooft.evaluation.evaluate import Evaluation

_MOST_SUBGROUPS = 30
_FIGURE = 12
"""Characters of a cell that is never broken."""

json_flag = click.option("--json", "as_json", is_flag=True, help="print the result as JSON")


def print_json(value: Any) -> None:
    """One JSON value."""
    write(in_json(json.dumps(to_json(_flat(value)), indent=2, ensure_ascii=False)) + "\n")


def _flat(value: Any) -> Any:
    """Figures of a split, wherever they stand, with the problem's details beside the common ones."""
    if isinstance(value, Mapping):
        return {key: _flat(item) for key, item in value.items()}
    return value.as_json() if hasattr(value, "as_json") else value


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, as wide as it needs to be where output isn't a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160, emoji=False)
    table = Table(header_style="bold", box=_box())
    for index, column in enumerate(columns):
        longest = max((len(row[index]) for row in rows), default=0)
        whole = longest <= (console.width // 2 if index == 0 else _FIGURE)  # long names mustn't squeeze figures
        table.add_column(Text(visible(column)), overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(Text(visible(one)) for one in row))
    if title:
        console.print(visible(title), style="italic", highlight=False, markup=False)
    console.print(table)


def print_evaluation(evaluation: Evaluation, problem: Problem, labels: Labels) -> None:
    """Figures with intervals per sample and per group, what the problem adds to them, and subgroups.

    Args:
        evaluation: of one split.
        problem: whose tables and remarks are shown.
        labels: what the answers mean.
    """
    shown = problem.presentation
    _print_figures(evaluation, shown.describe(labels, {}, {}).note)
    for remark in shown.remarks(evaluation, labels):
        for line in remark.splitlines():
            echo(line)
        echo()
    for table in shown.tables(evaluation, labels):
        print_table(table.title, table.columns, table.rows)
    _print_subgroups(evaluation, labels)


def _print_figures(evaluation: Evaluation, note: str) -> None:
    title = f"{evaluation.split}: {evaluation.samples} samples"
    if evaluation.groups:
        title += f" of {evaluation.groups} {plural(evaluation.group_name)}"
    if note:
        title += f"; {note}"
    sides = [evaluation.metrics, evaluation.group_metrics] if evaluation.group_metrics else [evaluation.metrics]
    values = ("per sample", f"per {evaluation.group_name}") if evaluation.group_metrics else ("value",)
    rows = [
        (_metric(name, evaluation), *(cell for side in sides for cell in _cells(side[name])))
        for name in evaluation.metrics
    ]
    print_table(title, ("metric", *(text for value in values for text in (value, "95 % interval"))), rows)


def _print_subgroups(evaluation: Evaluation, labels: Labels) -> None:
    if not evaluation.subgroups:
        return
    shown, left = evaluation.subgroups[:_MOST_SUBGROUPS], len(evaluation.subgroups) - _MOST_SUBGROUPS
    last = labels[0].categories[-1:] if len(labels) == 1 else ()
    rows = [
        (
            row.fact.replace("_", " "),
            row.value,
            str(row.samples),
            str(row.groups or ""),
            *(str(row.positives) for _ in last),
            *(("too few", "") if row.small else _cells(row.metric)),
        )
        for row in shown
    ]
    columns = (
        "fact",
        "value",
        "samples",
        plural(evaluation.group_name),
        *(f"of them {name}" for name in last),
        _metric(evaluation.primary, evaluation),
        "95 % interval",
    )
    print_table("subgroups, per sample", columns, rows)
    if any(row.small for row in shown):
        echo("too few: fewer than ten samples, or all with the same target")
    if left > 0:
        echo(f"{left} more rows are shown by --json")


def _metric(name: str, evaluation: Evaluation | None = None) -> str:
    smaller = evaluation is not None and name in evaluation.smaller
    return name.replace("_", " ") + (" (smaller is better)" if smaller else "")


def _cells(interval: Interval) -> tuple[str, str]:
    return _figure(interval.value), _interval(interval.low, interval.high)


def print_verification(verification: Verification) -> None:
    """One line on what was verified, and a line a failure."""
    label("verified" if verification.passed else "NOT verified", fg="green" if verification.passed else "red")
    outputs = [f"output {name} {difference(one, one.whole)}" for name, one in verification.outputs.items()]
    echo(
        f" with onnxruntime on {verification.provider.removesuffix('ExecutionProvider')}, "
        f"{verification.samples} {verification.data} samples, batch sizes "
        f"{', '.join(map(str, verification.batch_sizes))}" + (f": {', '.join(outputs)}" if outputs else "")
    )
    level = verification.preprocessing
    if level is not None:
        network = [
            f"output {name} {difference(one, one.network)}"
            for name, one in verification.outputs.items()
            if one.network is not None
        ]
        echo(
            f"  preprocessing: {level.differing:,} of {level.values:,} levels differ, by at most {level.largest:.2g}"
            + (f"; network, on the same input: {', '.join(network)}" if network else "")
        )
    where = [] if verification.deviation is None else [str(verification.deviation)]
    for text in (*verification.failures, *where, *verification.notes):
        echo(f"  {text}")


def print_label_verification(found: LabelVerification) -> None:
    """The same of a verification by labels."""
    label("verified by labels" if found.passed else "NOT verified by labels", fg="green" if found.passed else "red")
    recorded, now = found.metrics.get(found.primary, (None, math.nan))
    before = "" if recorded is None else f", recorded on {found.recorded_split} samples: {_figure(recorded)}"
    echo(
        f" with onnxruntime on {found.provider.removesuffix('ExecutionProvider')}, "
        f"{found.samples} {'' if found.split == 'all' else found.split + ' '}samples: {_metric(found.primary)} "
        f"{_figure(now)}{before}"
    )
    for text in (*found.failures, *found.notes):
        echo(f"  {text}")


def _figure(value: float) -> str:
    return f"{value:.4f}" if value == value else "undefined"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f} … {high:.4f}"


def _box() -> Any:
    from rich import box

    return box.SIMPLE_HEAD
