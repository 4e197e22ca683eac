"""``zooft cache``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from zooft.cli.output import json_flag, print_json, print_table
from zooft.cli.screen import echo
from zooft.contracts.plurals import pluralize
from zooft.errors import ConfigError
from zooft.storage.escapes import visible

if TYPE_CHECKING:
    from zooft.storage.cache import Cleaned, ShelfInfo, Store

_DAYS = {"d": 1, "w": 7, "h": 1 / 24}
_NAMED = ("what", "backbone", "task", "precision")  # of what an entry depends on, what a person needs


@click.group(epilog="\b\nExample:\n  zooft cache list")
def cache() -> None:
    """Show and clean outputs of frozen stages and decoded pictures that are cached on disk.

    It lies in ZOOFT_CACHE, or in the system's folder for caches, and stays within ZOOFT_CACHE_BYTES by itself.
    """


@cache.command("list", epilog="\b\nExample:\n  zooft cache list --json")
@json_flag
def list_(as_json: bool) -> None:
    """List what is cached: records, size, last use."""
    from zooft.storage.cache import default_store

    store = default_store(_say)
    entries = store.shelves()
    if as_json:
        rows = [_row(entry) for entry in entries]
        print_json({"folder": store.folder, "bytes": store.nbytes(), "most_bytes": store.most_bytes, "entries": rows})
    else:
        _print(store, entries)


@cache.command(epilog="\b\nExample:\n  zooft cache clean --older-than 30d --most 20GB")
@click.option("--older-than", "age", metavar="AGE", help="remove what wasn't used for so long: 30d, 2w, 12h")
@click.option("--most", "size", metavar="SIZE", help="then what wasn't used for longest, until so much stays: 20GB")
@json_flag
def clean(age: str | None, size: str | None, as_json: bool) -> None:
    """Remove what wasn't used for long.

    Without options it removes what is above the limit. What a running job has open stays. What is removed is computed
    again when it is wanted.
    """
    from zooft.storage.cache import default_store, parse_size

    store = default_store(_say)
    older_than = None if age is None else _age(age)
    limit = store.most_bytes if age is None else None
    _tell(
        store.clean(older_than=older_than, most_bytes=limit if size is None else parse_size(size, what="--most")),
        store,
        as_json=as_json,
    )


@cache.command(epilog="\b\nExample:\n  zooft cache clear --yes")
@click.option("--yes", is_flag=True, help="don't ask")
@json_flag
def clear(yes: bool, as_json: bool) -> None:
    """Remove everything that is cached.

    What a running job has open stays.
    """
    from zooft.storage.cache import default_store, size_text

    store = default_store(_say)
    if not yes and not _agrees(f"Remove {size_text(store.nbytes())} from {store.folder}?"):
        echo("nothing was removed; --yes removes without asking", err=True)
        raise click.exceptions.Exit(1)
    _tell(store.clean(most_bytes=0), store, as_json=as_json)


def _agrees(question: str) -> bool:
    try:
        return click.confirm(visible(question), err=True)
    except click.Abort:  # Ctrl-C, or nobody there to ask
        echo(err=True)
        return False


def _say(text: str) -> None:
    echo(text, err=True)


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([dwh])\w*", text.strip())
    if found is None:
        raise ConfigError(f"--older-than is {text!r}, which isn't an age; write 30d, 2w or 12h")
    try:
        return timedelta(days=float(found[1]) * _DAYS[found[2]])
    except OverflowError:
        raise ConfigError(
            f"--older-than is {text!r}, which is longer ago than anything; write 30d, 2w or 12h"
        ) from None


def _row(entry: ShelfInfo) -> dict[str, Any]:
    return {
        "key": entry.key,
        "what": entry.what,
        "records": entry.records,
        "bytes": entry.bytes,
        "last_used": entry.last_used.isoformat(timespec="seconds"),
    }


def _print(store: Store, entries: list[ShelfInfo]) -> None:
    from zooft.storage.cache import size_text

    rows = [
        (entry.key[:12], _words(entry.what), f"{entry.records:,}", size_text(entry.bytes), _day(entry))
        for entry in entries
    ]
    if rows:
        print_table("", ("entry", "what", "records", "size", "last used"), rows)
    echo(f"{size_text(store.nbytes())} of at most {size_text(store.most_bytes)} in {store.folder}")


def _day(entry: ShelfInfo) -> str:
    return entry.last_used.astimezone().strftime("%Y-%m-%d %H:%M")


def _words(what: Mapping[str, Any]) -> str:
    """What an entry is of, as far as a word describes it; all of it is in the JSON."""
    words = [str(what[name]) for name in _NAMED if isinstance(what.get(name), str)]
    if isinstance(what.get("stages"), list):
        words.append(pluralize(len(what["stages"]), "stage"))
    if isinstance(what.get("view"), dict) and "number" in what["view"]:
        words.append(f"view {what['view']['number']}")
    return ", ".join(words) or "unknown"


def _tell(cleaned: Cleaned, store: Store, *, as_json: bool) -> None:
    from zooft.storage.cache import size_text

    if as_json:
        print_json({"bytes": cleaned.bytes, "entries": cleaned.shelves, "stayed": sorted(cleaned.stayed)})
        return
    echo(
        f"removed {size_text(cleaned.bytes)}, {pluralize(cleaned.shelves, 'whole entry', 'whole entries')}; "
        f"{size_text(store.nbytes())} stay"
    )
    if cleaned.stayed:
        stayed = pluralize(len(cleaned.stayed), "entry", "entries")
        echo(f"{stayed} couldn't be removed as far as wanted: a running job has it open, or the folder is read-only")
