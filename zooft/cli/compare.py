"""``zooft compare``."""

from __future__ import annotations

from pathlib import Path

import click

from zooft.cli.output import json_flag, print_json, print_table
from zooft.cli.screen import echo


@click.command(
    epilog="""\b
Examples:
  zooft compare runs/classification-vit_base-1 runs/classification-vit_base-2
  zooft compare runs/* --html comparison.html""",
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN RUN...")
@click.option("--html", "page", type=click.Path(path_type=Path), help="write a page to look at, too")
@json_flag
def compare(runs: tuple[Path, ...], page: Path | None, as_json: bool) -> None:
    """Put runs side by side: settings that differ, figures with intervals, time, size and verification."""
    from zooft.report import comparison
    from zooft.run.folder import write_text

    if len(runs) < 2:
        raise click.UsageError("one run can't be compared; name two or more run folders")
    found = comparison.compare(runs)
    if page is not None:
        write_text(page, comparison.to_html(found), errors="backslashreplace")
    if as_json:
        print_json(found)
        return
    for note in found.notes:
        echo(note, fg="yellow")
    if not found.settings:
        echo("no setting differs")
    for table in comparison.tables(found):
        print_table(table.title, table.columns, table.rows)
