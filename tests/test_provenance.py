"""What kept features are found by: a change of code is enough."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zooft import provenance


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
    before = provenance.code_sha256([read])
    assert provenance.code_sha256([read]) == before
    (package / "inner.py").write_text("def read(source):\n    return source + 1\n")
    changed = provenance.code_sha256([read])
    assert changed != before
    (package / "more.py").write_text("A = 1\n")
    assert provenance.code_sha256([read]) not in {before, changed}


def test_the_cores_own_preprocessing_counts() -> None:
    names = {path.stem for name in provenance._CORE for path in provenance._sources(name)}
    assert names == {"features", "prefix", "preprocess", "model", "samples"}
