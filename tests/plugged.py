"""Plugins for one test, beside those that are installed."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest


def install(monkeypatch: pytest.MonkeyPatch, site: Path, name: str, module: str, *, code: str = "") -> None:
    """Declare a plugin as an installed package does: an entry point in a folder of packages.

    Args:
        monkeypatch: that takes it back.
        site: the folder, which may be new.
        name: of the plugin; nothing is done where a package declares it already.
        module: that it names.
        code: of that module, where it isn't anywhere yet.
    """
    if name in {point.name for point in metadata.entry_points(group="zooft")}:
        return
    about = site / f"{module}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[zooft]\n{name} = {module}\n")
    if code:
        monkeypatch.delitem(sys.modules, module, raising=False)  # another test's of the same name
        (site / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(site)
