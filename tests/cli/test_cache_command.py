"""``zooft cache``: what is cached, where, how much; cleaning by age and size; a confirmation before everything is removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from zooft.cli.cache import cache
from zooft.errors import ConfigError
from zooft.storage.cache import Store

FEATURES = {"what": "features", "backbone": "timm:resnet18", "task": "classification", "precision": "float32",
            "stages": ["stem", "layer1"], "view": {"number": 2, "seed": 0}, "tensors": "0" * 64}  # fmt: skip # a table of fields
THUMBNAILS = {"what": "thumbnails", "task": "ct"}
Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("ZOOFT_CACHE", str(tmp_path))
    monkeypatch.setenv("ZOOFT_CACHE_BYTES", "20MB")
    return lambda *arguments, **more: CliRunner().invoke(cache, arguments, prog_name="zooft cache", **more)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two entries, of 5 MB and 1 MB, used 40 and 2 days ago."""
    filled = Store(tmp_path / "store", 10**9)
    for what, days, records in ((FEATURES, 40, 5), (THUMBNAILS, 2, 1)):
        with filled.shelf(what) as shelf:
            shelf.put([f"{n:064x}" for n in range(records)], np.zeros((records, 10**6), np.uint8))
            lock = filled.folder / shelf.key / "lock"
        then = time.time() - days * 86400
        os.utime(lock, (then, then))
    return filled


def stored(store: Store) -> list[Any]:
    return [info.what["what"] for info in store.shelves()]


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*"))


def test_what_is_cached_is_listed_for_people(call: Call, store: Store) -> None:
    shown = call("list")
    assert (shown.exit_code, shown.stderr) == (0, "")
    lines = " ".join(shown.stdout.split())
    assert "features, timm:resnet18, classification, float32, 2 stages, view 2 5 5.0 MB" in lines
    assert "thumbnails, ct 1 1.0 MB" in lines
    assert lines.index("thumbnails") < lines.index("features")  # the last used first
    assert f"6.0 MB of at most 20.0 MB in {store.folder}" in lines


def test_what_is_cached_is_listed_for_programs(call: Call, store: Store) -> None:
    listed = json.loads(call("list", "--json").stdout)
    assert (listed["folder"], listed["most_bytes"]) == (str(store.folder), 20_000_000)
    assert listed["bytes"] == sum(entry["bytes"] for entry in listed["entries"]) == on_disk(store.folder)
    assert [entry["what"] for entry in listed["entries"]] == [THUMBNAILS, FEATURES]
    assert [entry["records"] for entry in listed["entries"]] == [1, 5]
    assert {entry["key"] for entry in listed["entries"]} == {p.name for p in store.folder.iterdir() if p.is_dir()}


def test_an_empty_cache_is_listed_and_cleaned_too(call: Call, tmp_path: Path) -> None:
    assert call("list").stdout == f"0 bytes of at most 20.0 MB in {tmp_path / 'store'}\n"
    assert json.loads(call("list", "--json").stdout)["entries"] == []
    assert call("clean").stdout == "removed 0 bytes, 0 whole entries; 0 bytes stay\n"
    assert list(tmp_path.iterdir()) == []  # looking makes nothing


def test_an_entry_of_another_making_is_listed_too(call: Call, store: Store) -> None:
    next(store.folder.glob("*/what.json")).write_text('{"what": 3, "stages": 4, "view": []}')
    assert "unknown" in call("list").stdout


def test_old_entries_are_removed_by_age(call: Call, store: Store) -> None:
    before = on_disk(store.folder)
    shown = call("clean", "--older-than", "30d")
    assert shown.stdout == "removed 5.0 MB, 1 whole entry; 1.0 MB stay\n"
    assert stored(store) == ["thumbnails"]
    assert before - on_disk(store.folder) > 5_000_000


@pytest.mark.parametrize(
    ("age", "stay"),
    [("41d", ["thumbnails", "features"]), ("5 weeks", ["thumbnails"]), ("72h", ["thumbnails"]), ("1.5d", [])],
)
def test_ages_are_read_as_people_write_them(call: Call, store: Store, age: str, stay: list[str]) -> None:
    assert call("clean", "--older-than", age).exit_code == 0
    assert stored(store) == stay


def test_entries_are_removed_down_to_a_size(call: Call, store: Store) -> None:
    assert json.loads(call("clean", "--most", "2MB", "--json").stdout)["entries"] == 1
    assert stored(store) == ["thumbnails"]


def test_without_options_the_limit_holds(call: Call, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("clean").stdout == "removed 0 bytes, 0 whole entries; 6.0 MB stay\n"
    monkeypatch.setenv("ZOOFT_CACHE_BYTES", "2MB")
    call("clean", "--older-than", "1000d")  # cleaning by age removes no more than that
    assert stored(store) == ["thumbnails", "features"]
    call("clean")
    assert stored(store) == ["thumbnails"]


@pytest.mark.parametrize(
    "arguments",
    [("--older-than", "soon"), ("--older-than", "3 months"), ("--older-than", "1" + "0" * 30 + "d"), ("--most", "all")],
    ids=" ".join,
)
def test_what_isn_t_an_age_or_a_size_is_refused_and_nothing_is_removed(
    call: Call, store: Store, arguments: tuple[str, ...]
) -> None:
    failed = call("clean", *arguments)
    assert isinstance(failed.exception, ConfigError)  # the command line's own `main` prints it and exits with 2
    assert arguments[0] in str(failed.exception)
    assert "write " in str(failed.exception)
    assert len(stored(store)) == 2


def test_a_limit_that_isn_t_a_size_is_refused(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOOFT_CACHE_BYTES", "much")
    assert isinstance(call("list").exception, ConfigError)


@pytest.mark.parametrize("answer", ["n\n", "\n", ""], ids=["no", "the default", "nobody there"])
def test_everything_goes_only_if_it_is_meant(call: Call, store: Store, answer: str) -> None:
    requested = call("clear", input=answer)
    assert requested.exit_code == 1
    assert f"Remove 6.0 MB from {store.folder}?" in requested.stderr
    assert "nothing was removed; --yes removes without asking" in requested.stderr
    assert len(stored(store)) == 2


@pytest.mark.parametrize(("arguments", "answer"), [((), "y\n"), (("--yes",), "")], ids=["asked", "told"])
def test_everything_goes_where_it_is_meant(call: Call, store: Store, arguments: tuple[str, ...], answer: str) -> None:
    done = call("clear", *arguments, input=answer)
    assert (done.exit_code, done.stdout) == (0, "removed 6.0 MB, 2 whole entries; 0 bytes stay\n")
    assert on_disk(store.folder) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_what_a_job_has_open_stays_and_is_reported(call: Call, store: Store) -> None:
    with store.shelf(THUMBNAILS) as shelf:
        shown = call("clear", "--yes")
        assert shown.exit_code == 0
        assert "1 entry couldn't be removed as far as wanted: a running job has it open" in shown.stdout
        assert json.loads(call("clear", "--yes", "--json").stdout) == {"bytes": 0, "entries": 0, "stayed": [shelf.key]}
    assert stored(store) == ["thumbnails"]


@pytest.mark.parametrize("words", [(), ("list",), ("clean",), ("clear",)], ids=" ".join)
def test_help_has_an_example_and_a_text_for_each_option(call: Call, words: tuple[str, ...]) -> None:
    shown = call(*words, "--help")
    assert shown.exit_code == 0
    assert " ".join(("zooft cache", *words)) in shown.stdout.partition("Example")[2]
    found: click.Command = cache.commands[words[0]] if words else cache
    assert found.help
    assert all(o.help for o in found.get_params(click.Context(found)) if isinstance(o, click.Option))


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["clean", "--most", "1MB"]], ids=" ".join)
def test_it_loads_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    code = f"""
import sys
from zooft.cli.cache import cache
cache({arguments}, standalone_mode=False)
heavy = {{"torch", "torchvision", "timm", "sklearn", "matplotlib", "scipy"}} & set(sys.modules)
if "--help" in {arguments}:
    heavy |= {{"numpy"}} & set(sys.modules)
assert not heavy, heavy
"""
    environment = {**os.environ, "ZOOFT_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
