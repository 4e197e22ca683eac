"""``zooft tasks``, ``zooft heads``, ``zooft freezers``: what can be named, and who provides it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from zooft.cli.output import json_flag, print_json, print_table
from zooft.hooks import registry


@click.command(epilog="\b\nExample:\n  zooft tasks --json")
@json_flag
def tasks(as_json: bool) -> None:
    """List what can be trained: the values of --task."""
    _show("task", registry.load().tasks, as_json=as_json)


@click.command(epilog="\b\nExample:\n  zooft heads")
@json_flag
def heads(as_json: bool) -> None:
    """List what can replace a classifier: the values of --head."""
    _show("head", registry.load().heads, as_json=as_json)


@click.command(epilog="\b\nExample:\n  zooft freezers")
@json_flag
def freezers(as_json: bool) -> None:
    """List the rules for what stays as it is: the values of --freeze."""
    _show("freezer", registry.load().freezers, as_json=as_json)


def _show(kind: str, entries: Sequence[Any], *, as_json: bool) -> None:
    rows = [
        {
            "name": _usage(entry.value),
            "summary": entry.value.summary,
            "plugin": entry.owner.name,
            "distribution": entry.owner.distribution,
        }
        for entry in entries
    ]
    if as_json:
        print_json(rows)
    else:
        print_table("", (kind, "what it does", "plugin"), [(r["name"], r["summary"], r["plugin"]) for r in rows])


def _usage(value: Any) -> str:
    argument = getattr(value, "argument", None)
    return f"{value.name}:{argument}" if argument else str(value.name)
