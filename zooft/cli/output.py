"""Where results go: tables for people, JSON for programs; both on standard output, all else on standard error."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from zooft.cli.screen import label, say, write
from zooft.report.words import plural
from zooft.storage.escapes import in_json, visible

if TYPE_CHECKING:
    from zooft.contracts import LabelVerification, Verification
    from zooft.evaluation.metrics import Evaluation, Interval

_MOST_SUBGROUPS = 30
_FIGURE = 12
"""Characters of a cell that is never broken."""

json_flag = click.option("--json", "as_json", is_flag=True, help="print the result as JSON")


def print_json(value: Any) -> None:
    """One JSON value."""
    from zooft.run.folder import to_json

    write(in_json(json.dumps(to_json(value), indent=2, ensure_ascii=False)) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, as wide as it needs to be where nobody looks at a terminal."""
    import sys

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


def print_evaluation(evaluation: Evaluation) -> None:
    """Figures with intervals per sample and per group, those at the threshold, then classes and subgroups."""
    _print_figures(evaluation)
    _print_threshold(evaluation)
    classes = [
        (row.name, _figure(row.precision), _figure(row.recall), _figure(row.f1), str(row.support))
        for row in evaluation.per_class
    ]
    print_table("", ("class", "precision", "recall", "F1", "samples"), classes)
    _print_subgroups(evaluation)


def _print_figures(evaluation: Evaluation) -> None:
    title = f"{evaluation.split}: {evaluation.samples} samples"
    if evaluation.groups:
        title += f" of {evaluation.groups} {plural(evaluation.group_name)}"
    if len(evaluation.per_class) == 2:
        title += f"; the positive class is {evaluation.per_class[1].name}"
    sides = [evaluation.metrics, evaluation.group_metrics] if evaluation.group_metrics else [evaluation.metrics]
    values = ("per sample", f"per {evaluation.group_name}") if evaluation.group_metrics else ("value",)
    rows = [(_metric(name), *(cell for side in sides for cell in _cells(side[name]))) for name in evaluation.metrics]
    print_table(title, ("metric", *(text for value in values for text in (value, "95 % interval"))), rows)
    if evaluation.mixed_groups:
        say(
            f"{plural(evaluation.group_name)} with samples of several classes: {evaluation.mixed_groups}; each counts as its last class, "
            f"in the order {', '.join(row.name for row in evaluation.per_class)}"
        )
        say()
    if evaluation.one_class:
        from zooft.report.words import one_class

        say(f"warning: {one_class(evaluation)}")
        say()


def _print_threshold(evaluation: Evaluation) -> None:
    if evaluation.threshold is None:
        return
    names = {"ppv": "PPV", "npv": "NPV"}
    per = evaluation.group_name if evaluation.groups and not evaluation.one_class else "sample"
    figures = [
        f"{names.get(name, name)} {_figure(i.value)}" + (f" ({_interval(i.low, i.high)})" if i.low is not None else "")
        for name, i in evaluation.at_threshold.items()
    ]
    told = f"; per {per}: {', '.join(figures)}" if figures else ""
    say(f"{evaluation.per_class[-1].name} is said from a probability of {evaluation.threshold:.4f} on{told}")
    say("The table of classes is at this threshold, per sample; any accuracy above is of the likelier class.")
    say()


def _print_subgroups(evaluation: Evaluation) -> None:
    if not evaluation.subgroups:
        return
    shown, left = evaluation.subgroups[:_MOST_SUBGROUPS], len(evaluation.subgroups) - _MOST_SUBGROUPS
    rows = [
        (row.fact.replace("_", " "), row.value, str(row.samples), str(row.groups or ""), str(row.positives),
         *(("too few", "") if row.small else _cells(row.metric)))
        for row in shown
    ]  # fmt: skip
    positives = f"of them {evaluation.per_class[-1].name}"
    columns = (
        "fact",
        "value",
        "samples",
        plural(evaluation.group_name),
        positives,
        _metric(evaluation.primary),
        "95 % interval",
    )
    print_table("subgroups, per sample", columns, rows)
    if any(row.small for row in shown):
        say("too few: fewer than ten samples, or all of one class")
    if left > 0:
        say(f"{left} more rows are shown by --json")


def _metric(name: str) -> str:
    from zooft.evaluation.metrics import SMALLER_IS_BETTER

    return name.replace("_", " ") + (" (smaller is better)" if name in SMALLER_IS_BETTER else "")


def _cells(interval: Interval) -> tuple[str, str]:
    return _figure(interval.value), _interval(interval.low, interval.high)


def print_verification(verification: Verification) -> None:
    """One line that says what was proven, and a line a failure."""
    label("verified" if verification.passed else "NOT verified", fg="green" if verification.passed else "red")
    say(
        f" with onnxruntime on {verification.provider.removesuffix('ExecutionProvider')}, "
        f"{verification.samples} {verification.data} samples, batch sizes {', '.join(map(str, verification.batch_sizes))}: "
        f"logits differ by {verification.relative_rms:.1e} of their spread, probabilities by at most "
        f"{verification.max_probability_difference:.1e}, same best class in {verification.top1_agreement:.2%}"
    )
    found = verification.preprocessing
    if found is not None and verification.network_rms is not None:
        say(
            f"  preprocessing: {found.differing:,} of {found.values:,} levels differ, by at most {found.largest:.2g}; "
            f"network, on the same input: logits differ by {verification.network_rms:.1e} of their spread"
        )
    for text in (*verification.failures, *verification.notes):
        say(f"  {text}")


def print_label_verification(found: LabelVerification) -> None:
    """The same of a proof by labels, which is told from one against torch."""
    label("verified by labels" if found.passed else "NOT verified by labels", fg="green" if found.passed else "red")
    recorded, now = found.metrics.get(found.primary, (None, math.nan))
    before = "" if recorded is None else f", recorded on {found.recorded_split} samples: {_figure(recorded)}"
    say(
        f" with onnxruntime on {found.provider.removesuffix('ExecutionProvider')}, "
        f"{found.samples} {'' if found.split == 'all' else found.split + ' '}samples: {_metric(found.primary)} {_figure(now)}{before}"
    )
    for text in (*found.failures, *found.notes):
        say(f"  {text}")


def _figure(value: float) -> str:
    return f"{value:.4f}" if value == value else "undefined"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f} … {high:.4f}"


def _box() -> Any:
    from rich import box

    return box.SIMPLE_HEAD
