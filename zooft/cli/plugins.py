"""``zooft plugins``: what is installed, a kit for what is being written, and a first draft of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zooft.cli import conformance, scaffold
from zooft.cli.output import json_flag, print_json, print_table
from zooft.cli.screen import echo, label
from zooft.hooks import registry

if TYPE_CHECKING:
    from zooft.cli.conformance import Outcome
    from zooft.hooks.loading import PluginInfo
    from zooft.hooks.registry import Registry

KINDS = ("family", "head", "freezer", "task", "weights", "source", "events")
_COLOURS = {"passed": "green", "failed": "red", "not checked": "yellow"}


@click.group(
    invoke_without_command=True, epilog="\b\nExamples:\n  zooft plugins\n  zooft plugins new lamps --kind task"
)
@json_flag
@click.pass_context
def plugins(ctx: click.Context, as_json: bool) -> None:
    """List every plugin: its distribution, version, what it registers, and why a broken one was left out.

    With a command behind it: check one, or begin a new one.
    """
    if ctx.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError(f"--json goes behind '{ctx.invoked_subcommand}', where it prints a result")
        return

    found = registry.load()
    rows = [_row(found, info) for info in found.plugins.infos]
    if as_json:
        print_json(rows)
        return
    cells = [
        (row["plugin"], row["distribution"], row["version"], f"{row['import_seconds']:.2f}", _what(row)) for row in rows
    ]
    print_table("", ("plugin", "distribution", "version", "import s", "what it does"), cells)


def _row(found: Registry, info: PluginInfo) -> dict[str, Any]:
    problem = found.problems.get(info)
    return {
        "plugin": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "registers": found.names_of(info),
        "listens_to": [] if problem else found.plugins.events(info.name),
        "import_seconds": round(info.seconds, 4),
        "problem": problem,
    }


def _what(row: dict[str, Any]) -> str:
    if row["problem"]:
        return f"left out: {row['problem']}"
    parts = [f"{kind}: {', '.join(names)}" for kind, names in row["registers"].items()]
    if row["listens_to"]:
        parts.append("listens to " + ", ".join(event.removeprefix("zooft_on_") for event in row["listens_to"]))
    return "; ".join(parts) or "registers nothing and listens to nothing"


@plugins.command(
    epilog="""\b
Examples:
  zooft plugins check lamps
  zooft plugins check lamps --backbone lamps:small --freeze first:2 --data pictures --json"""
)
@click.argument("name")
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    metavar="FAMILY:MODEL",
    help="the model that a family is checked by; may be given several times [default: its only one]",
)
@click.option(
    "--freeze",
    "freezers",
    multiple=True,
    metavar="NAME:ARGUMENT",
    help="an argument that a freezer is checked with; may be given several times",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="what tasks and data sources are checked by [default: a task's own demo]",
)
@json_flag
def check(name: str, backbones: Sequence[str], freezers: Sequence[str], data: Path | None, as_json: bool) -> None:
    """Run the conformance kit on the installed plugin NAME: one line a check, exit status 1 where one fails."""
    examples = conformance.Examples(backbones=tuple(backbones), freezers=tuple(freezers), data=data)
    outcomes = []
    for outcome in conformance.run(name, examples):
        outcomes.append(outcome)
        if not as_json:
            _print(outcome)
    if as_json:
        print_json(outcomes)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise click.exceptions.Exit(1)


def _print(outcome: Outcome) -> None:
    label(f"{outcome.status:<12}", fg=_COLOURS[outcome.status])
    words = f": {outcome.text}" if outcome.text else ""
    echo(f"{outcome.check} {outcome.subject} ({outcome.seconds:.1f} s){words}")


@plugins.command(epilog="\b\nExample:\n  zooft plugins new lamps --kind head")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="what the plugin is to give or do")
@click.option(
    "--out", type=click.Path(path_type=Path), help="folder to write it into, which mustn't exist [default: zooft-NAME]"
)
@json_flag
def new(name: str, kind: str, out: Path | None, as_json: bool) -> None:
    """Begin a plugin called NAME: a package of its own that installs, runs and passes the conformance kit.

    What it registers is called NAME as well. From there on, change it and run its tests.
    """
    folder = scaffold.write(name, kind, out)
    if as_json:
        print_json({"folder": folder, "files": sorted(path.relative_to(folder) for path in folder.rglob("*.*"))})
        return
    echo(f"written: {folder}")
    echo(f"next:    pip install -e {folder}")
    echo(f"         zooft plugins check {name}")
