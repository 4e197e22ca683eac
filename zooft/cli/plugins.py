"""``zooft plugins``."""

from __future__ import annotations

import click

from zooft.cli.output import json_flag, print_json, print_table


@click.command(epilog="\b\nExample:\n  zooft plugins")
@json_flag
def plugins(as_json: bool) -> None:
    """List every plugin: its distribution, version, what it registers, and why a broken one was left out."""
    from zooft.hooks import registry

    found = registry.load()
    rows = [
        {
            "plugin": info.name,
            "distribution": info.distribution,
            "version": info.version,
            "registers": found.owned_by(info),
            "problem": found.problems.get(info),
        }
        for info in found.plugins.infos
    ]
    if as_json:
        print_json(rows)
        return
    cells = [
        (
            str(r["plugin"]),
            str(r["distribution"]),
            str(r["version"]),
            f"left out: {r['problem']}" if r["problem"] else _owned(r["registers"]),
        )
        for r in rows
    ]
    print_table("", ("plugin", "distribution", "version", "registers"), cells)


def _owned(registers: object) -> str:
    assert isinstance(registers, dict)  # noqa: S101 -- built above
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in registers.items()) or "listens to events"
