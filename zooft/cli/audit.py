"""``zooft audit``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zooft import config
from zooft.cli.live import Live
from zooft.cli.output import json_flag, print_json, print_table
from zooft.cli.screen import echo, label
from zooft.cli.task_command import TaskCommand
from zooft.hooks import registry
from zooft.run.folder import write_json

if TYPE_CHECKING:
    from zooft.audit import Audit, FactRow

_COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}


@click.command(
    cls=TaskCommand,
    epilog="""\b
Examples:
  zooft audit DIR --task classification
  zooft audit DIR/labels.csv --task classification --group-column patient --out audit.json
Name a task before --help to see its own options: zooft audit --task classification --help""",
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--task", required=True, help="how the data is read; 'zooft tasks' lists them")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON file to write the findings to")
@json_flag
def audit(data: Path, task: str, out: Path | None, as_json: bool, **typed: Any) -> None:
    """Look for leaks and shortcuts in DATA before a model is fooled by them.

    Duplicates, also across splits and labels; labels that can be predicted without the image; groups on both sides of a
    split. Exits with 1 where figures would be wrong.
    """
    with Live() as live:
        found = _audit(data, task, {name: value for name, value in typed.items() if value is not None}, live)
    if out is not None:
        write_json(out, found)
    print_json(found) if as_json else _print(found)
    if found.failed:
        raise click.exceptions.Exit(1)


def _audit(data: Path, name: str, values: dict[str, Any], live: Live) -> Audit:
    from zooft import audit as audits
    from zooft.data import samples

    task = registry.load().task(name)
    options = config.build(task.options, values)
    found = samples.discover(task, data, options, computing=live.computing)
    for text in found.notes:
        if not text.startswith("warning: "):  # those are among the findings
            live.note(text)
    if found.rejected:
        first = found.rejected[0]
        live.note(f"rejected: {len(found.rejected)}, the first: {first.id}: {first.reason}")
    return audits.audit(
        found.samples,
        task.problem,
        found.labels,
        partial(samples.read, task, options),
        show=partial(samples.picture, task, options),
        computing=live.computing,
        notes=found.notes,
    )


def _print(found: Audit) -> None:
    """Findings by severity, then the table of facts."""
    if found.facts:
        print_table(
            "how well each fact predicts the target without the image",
            ("fact", "values", "stated", "AUROC", "95 % interval", ""),
            [_cells(row) for row in found.facts],
        )
    for finding in found.findings:
        label(f"{finding.severity}: ", fg=_COLOURS[finding.severity])
        echo(finding.text)
        for line in _examples(finding.pairs, finding.samples):
            echo(f"    {line}")
    for text in found.notes:
        echo(f"note: {text}")
    errors, warnings = (sum(f.severity == name for f in found.findings) for name in ("error", "warning"))
    echo(f"samples compared: {found.samples}; errors: {errors}; warnings: {warnings}")


def _examples(pairs: tuple[tuple[str, str], ...], samples: tuple[str, ...], most: int = 3) -> list[str]:
    if pairs:
        return [f"{first} and {second}" for first, second in pairs[:most]]
    return [", ".join(samples[:most])] if samples else []


def _cells(row: FactRow) -> tuple[str, ...]:
    known = row.auroc is not None and row.low is not None and row.high is not None
    return (
        row.name,
        str(row.values or ""),
        str(row.stated),
        f"{row.auroc:.2f}" if known else "",
        f"{row.low:.2f} … {row.high:.2f}" if known else "",
        "shortcut" if row.shortcut else "the same everywhere" if row.values == 1 else "",
    )
