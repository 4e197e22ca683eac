"""``zooft backbones``."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

import click

from zooft.cli.live import Live
from zooft.cli.output import json_flag, print_json, print_table
from zooft.cli.screen import echo
from zooft.contracts import parse_reference
from zooft.errors import ZooftError
from zooft.hooks import registry
from zooft.model.names import full_name

if TYPE_CHECKING:
    from zooft.contracts import Family
    from zooft.hooks.registry import Registry


@click.command(
    epilog="""\b
Examples:
  zooft backbones                       the families
  zooft backbones 'timm:vit*'           all matching models
  zooft backbones timm:vit_base         one model and its stages""",
)
@click.argument("pattern", required=False)
@json_flag
def backbones(pattern: str | None, as_json: bool) -> None:
    """List backbones: parameters, input size, stages, and whether their weights are at hand offline.

    PATTERN is FAMILY:MODEL with * and ?; without it, the families are listed. Of a single model, it is also checked
    whether its stages hold every tensor once and fit together.
    """
    found = registry.load()
    if pattern is None:
        _families(found, as_json=as_json)
        return
    rows = _rows(found, pattern)
    if as_json:
        print_json(rows)
    else:
        _print(rows)


def _families(found: Registry, *, as_json: bool) -> None:
    rows = [_count(entry.value) for entry in found.families]
    if as_json:
        print_json(rows)
    else:
        cells = [
            (r["family"], "?" if r["models"] is None else str(r["models"]), r["problem"] or r["summary"]) for r in rows
        ]
        print_table("", ("family", "models", "what"), cells)
        echo("list some: zooft backbones 'timm:vit*'")


def _count(family: Family) -> dict[str, Any]:
    """A family and how many models it has; one that can't count mustn't end the list of the others."""
    row: dict[str, Any] = {"family": family.name, "summary": family.summary, "models": None, "problem": None}
    try:
        return {**row, "models": len(list(family.models()))}
    except ZooftError as error:
        return {**row, "problem": str(error)}


def _rows(found: Registry, pattern: str) -> list[dict[str, Any]]:
    from zooft.model.zoo import describe

    name, wanted = parse_reference(pattern)
    family = found.family(name)
    names = _matches(family, wanted) or [full_name(family, wanted)]
    with Live() as live:
        advance = live.computing("models", len(names))
        rows = []
        for model in names:
            rows.append(describe(found, family, model, check=len(names) == 1))
            advance(1)
    return rows


def _matches(family: Family, wanted: str) -> list[str]:
    known = {*family.models(), *family.aliases}
    return sorted(model for model in known if fnmatch.fnmatchcase(model, wanted))


def _print(rows: list[dict[str, Any]]) -> None:
    cells = [
        (
            r["name"],
            f"{r['parameters'] / 1e6:.1f} M" if r["parameters"] else "?",
            r["input"] or "?",
            str(len(r["stages"])) if r["stages"] else r["problem"] or "?",
            r["weights"] or ("needs a network" if r["downloadable"] else "none of its own"),
        )
        for r in rows
    ]
    print_table("", ("model", "parameters", "input", "stages", "weights"), cells)
    if len(rows) == 1 and rows[0]["stages"]:
        stages = [(s["name"], f"{s['parameters']:,}") for s in rows[0]["stages"]]
        print_table(f"{rows[0]['full_name']}, shallow to deep", ("stage", "parameters"), stages)
