"""What cached features are found by: a change of code is enough."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zooft
from zooft.pipeline import cache_key


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "strangers_plugin"
    folder.mkdir()
    (folder / "__init__.py").write_text("from strangers_plugin.inner import read\n")
    (folder / "inner.py").write_text("def read(source):\n    return source\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("strangers_plugin")]:
        del sys.modules[name]


def test_a_change_anywhere_in_a_plugins_package_is_another_code(package: Path) -> None:
    read = importlib.import_module("strangers_plugin").read
    before = cache_key.code_sha256([read])
    assert cache_key.code_sha256([read]) == before
    (package / "inner.py").write_text("def read(source):\n    return source + 1\n")
    changed = cache_key.code_sha256([read])
    assert changed != before
    (package / "more.py").write_text("A = 1\n")
    assert cache_key.code_sha256([read]) not in {before, changed}


def test_the_cores_own_preprocessing_counts() -> None:
    names = {path.stem for name in cache_key._CORE for path in cache_key._sources(name)}
    assert {"cache", "prefix", "winograd", "preprocess", "adapted", "samples"} <= names


def test_a_package_without_a_file_of_its_own_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "strangers_plugin_bare"
    folder.mkdir()
    (folder / "inner.py").write_text("def read(source):\n    return source\n")
    monkeypatch.syspath_prepend(tmp_path)
    read = importlib.import_module("strangers_plugin_bare.inner").read
    before = cache_key.code_sha256([read])
    (folder / "inner.py").write_text("def read(source):\n    return -source\n")
    assert cache_key.code_sha256([read]) != before


def test_a_partial_counts_as_what_it_calls(package: Path) -> None:
    read = functools.partial(importlib.import_module("strangers_plugin").read)
    before = cache_key.code_sha256([read])
    (package / "inner.py").write_text("def read(source):\n    return source + 1\n")
    assert cache_key.code_sha256([read]) != before


def test_code_without_a_file_is_new_every_time() -> None:
    made: dict[str, Any] = {"__name__": "typed_in_by_hand"}
    exec("def read(source):\n    return source\n", made)  # noqa: S102 -- as an interpreter does
    sys.modules["typed_in_by_hand"] = types.ModuleType("typed_in_by_hand")
    try:
        assert cache_key.code_sha256([made["read"]]) != cache_key.code_sha256([made["read"]])
    finally:
        del sys.modules["typed_in_by_hand"]


def test_every_module_that_computes_features_counts() -> None:
    """What computes features imports of zooft, but for what only moves or times them."""
    moved = (
        "zooft.contracts", "zooft.errors", "zooft.hooks", "zooft.storage", "zooft.compute.profile", "zooft.data.lookup",
        "zooft.model.checkpoint_names", "zooft.model.freeze", "zooft.model.loading", "zooft.model.names",
        "zooft.model.parameter_kinds", "zooft.model.weights",
    )  # fmt: skip # a table of modules
    imported = set()
    package = Path(zooft.__file__).parent
    own = [package / "model" / f"{name}.py" for name in ("preprocess", "adapted", "backbone", "building", "stages")]
    for path in (*(package / "features").glob("*.py"), *own):
        for module, names in re.findall(r"^from (zooft[.\w]*) import (.+)$", path.read_text(), re.MULTILINE):
            inner = [f"{module}.{name.split(' as ')[0].strip()}" for name in names.split(",")]
            imported |= {
                name if importlib.util.find_spec(module).submodule_search_locations else module for name in inner
            }  # type: ignore[union-attr]
    known = (*cache_key._CORE, *moved)
    assert [name for name in sorted(imported) if not any(f"{name}.".startswith(f"{one}.") for one in known)] == []
