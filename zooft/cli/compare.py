"""``zooft compare``."""

from __future__ import annotations

from pathlib import Path

import click

from zooft.cli.output import json_flag, print_json, print_table
from zooft.cli.screen import echo
from zooft.errors import ConfigError
from zooft.run.folder import write_text

_PAGE = b"<!doctype html>"
"""What a page begins with, in lower case."""


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

    if len(runs) < 2:
        raise click.UsageError("one run can't be compared; name two or more run folders")
    if page is not None:
        _check(page)
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


def _check(page: Path) -> None:
    """Refuse what can't be written, or would overwrite anything but a page."""
    if page.is_dir():
        raise ConfigError(f"--html {page} is a folder; name a file in it, such as {page / 'comparison.html'}")
    if not page.absolute().parent.is_dir():
        raise ConfigError(f"--html {page}: there is no folder {page.absolute().parent}; make it first")
    if page.exists() and not (page.is_file() and page.read_bytes()[: len(_PAGE)].lower() in (_PAGE, b"")):
        raise ConfigError(f"--html {page} exists and isn't a page, so it stays; name another file, or remove it")
