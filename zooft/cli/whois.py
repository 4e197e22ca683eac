"""``zooft whois``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zooft import config
from zooft.cli.output import json_flag, print_json, print_table
from zooft.cli.screen import echo
from zooft.cli.task_command import TaskCommand
from zooft.errors import ConfigError
from zooft.hooks import registry


@click.command(
    cls=TaskCommand,
    epilog="\b\nExample:\n  zooft whois DIR --task ct b005086989056484 1ef14ae21d794b7c",
)
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.argument("ids", nargs=-1, required=True)
@click.option("--task", required=True, help="how the data is read; 'zooft tasks' lists them")
@json_flag
def whois(data: Path, ids: tuple[str, ...], task: str, as_json: bool, **typed: Any) -> None:
    """Look up what salted ids of runs, reports and audits stand for: patients, series, files.

    Needs DATA and the key that was made for it; give the task's own options as they were in the run. Exits with 1 where
    an id isn't of this data.
    """
    chosen = registry.load().task(task)
    if chosen.whois is None:
        raise ConfigError(f"ids of the task {chosen.name} are no secrets: they are paths below the data folder")
    options = config.build(chosen.options, {name: value for name, value in typed.items() if value is not None})
    found = chosen.whois(data, ids, options)
    if as_json:
        print_json(found)
    elif found:
        columns = list(dict.fromkeys(key for facts in found.values() for key in facts))
        rows = [(id_, *(found[id_].get(key, "") for key in columns)) for id_ in found]
        print_table("", ("id", *columns), rows)
    missing = [id_ for id_ in ids if id_ not in found]
    if missing:
        echo(f"not of this data, or of another key: {', '.join(missing)}", err=True)
        raise click.exceptions.Exit(1)
