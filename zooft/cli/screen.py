"""The only place of the command line that writes words: what others have named can't act on the terminal.

Results for people go to standard output, everything else to standard error (`zooft.cli.output`, `zooft.cli.live`).
"""

from __future__ import annotations

import logging

import click

from zooft.storage.escapes import visible


def echo(text: object = "", *, err: bool = False, fg: str | None = None, bold: bool | None = None) -> None:
    """One line."""
    click.secho(visible(str(text)), err=err, fg=fg, bold=bold)


def label(text: str, *, fg: str, err: bool = False) -> None:
    """What stands before words in the same line, in colour."""
    click.secho(visible(text), nl=False, err=err, bold=True, fg=fg)


def write(text: str) -> None:
    """A result as it is, for programs: JSON or CSV, escaped by its own rules."""
    click.echo(text, nl=False)


def paragraph(text: str) -> str:
    """Words of several lines; those after the first are indented, so that none can pass for a line of ours."""
    return "\n  ".join(map(visible, text.split("\n")))


class Visible(logging.Formatter):
    """Log lines without anything that a terminal obeys."""

    def format(self, record: logging.LogRecord) -> str:
        """As Python's own, in one paragraph."""
        return paragraph(super().format(record))


class Once(logging.Filter):
    """Lets each line through once in a command: plugins are loaded for its options, and again for its work."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is the first of its words."""
        text = record.getMessage()
        new = text not in self._seen
        self._seen.add(text)
        return new
