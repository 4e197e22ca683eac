"""Where results go: tables for people, JSON for programs; both on standard output, all else on standard error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from zooft.contracts import Verification
    from zooft.metrics import Evaluation

json_flag = click.option("--json", "as_json", is_flag=True, help="print the result as JSON")


def print_json(value: Any) -> None:
    """One JSON value."""
    from zooft.run import to_json

    click.echo(json.dumps(to_json(value), indent=2, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, as wide as it needs to be where nobody looks at a terminal."""
    import sys

    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold", box=_box())
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if title:
        console.print(title, style="italic", highlight=False)
    console.print(table)


def print_evaluation(evaluation: Evaluation) -> None:
    """Figures with intervals, then the table of classes."""
    rows = [
        (name.replace("_", " "), _figure(i.value), _interval(i.low, i.high)) for name, i in evaluation.metrics.items()
    ]
    print_table(f"{evaluation.split}: {evaluation.samples} samples", ("metric", "value", "95 % interval"), rows)
    classes = [
        (row.name, _figure(row.precision), _figure(row.recall), _figure(row.f1), str(row.support))
        for row in evaluation.per_class
    ]
    print_table("", ("class", "precision", "recall", "F1", "samples"), classes)


def print_verification(verification: Verification) -> None:
    """One line that says what was proven, and a line a failure."""
    word = (
        click.style("verified", fg="green", bold=True)
        if verification.passed
        else click.style("NOT verified", fg="red", bold=True)
    )
    click.echo(
        f"{word} with onnxruntime on {verification.provider.removesuffix('ExecutionProvider')}, "
        f"{verification.samples} {verification.data} samples, batch sizes {', '.join(map(str, verification.batch_sizes))}: "
        f"logits differ by {verification.relative_rms:.1e} of their spread, probabilities by at most "
        f"{verification.max_probability_difference:.1e}, same best class in {verification.top1_agreement:.2%}"
    )
    for text in (*verification.failures, *verification.notes):
        click.echo(f"  {text}")


def _figure(value: float) -> str:
    return f"{value:.4f}" if value == value else "undefined"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f} … {high:.4f}"


def _box() -> Any:
    from rich import box

    return box.SIMPLE_HEAD
