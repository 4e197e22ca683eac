"""``zooft plugins new``.

A package with a plugin of one kind, which installs, runs and passes the conformance kit as it is.
"""

from __future__ import annotations

import re
import shutil
from importlib import resources
from pathlib import Path
from string import Template

from zooft.errors import ConfigError
from zooft.hooks import registry
from zooft.version import __version__

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_ENTRIES = {
    "family": "families",
    "head": "heads",
    "freezer": "freezers",
    "task": "tasks",
    "weights": "weights",
    "source": "sources",
}
"""Where the registry has what a kind registers."""


def write(name: str, kind: str, out: Path | None = None) -> Path:
    """Write the package, and give its folder.

    Args:
        name: of the plugin, and of what it registers.
        kind: ``family``, ``head``, ``freezer``, ``task``, ``weights``, ``source`` or ``events``.
        out: the folder, which mustn't exist; None for ``zooft-NAME``.

    Raises:
        ConfigError: the name can't be used or is taken, or the folder exists.
    """
    _refuse_unfit(name)
    _refuse_taken(name, kind)
    module = f"zooft_{name.replace('-', '_')}"
    folder = out if out is not None else Path(f"zooft-{name}")
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} exists already; choose another --out, or remove it")
    words = {"name": name, "module": module, "kind": kind, "version": __version__, "variable": module.upper()}
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{module}.py": f"{kind}.py",
        "tests/test_plugin.py": f"test_{kind}.py",
    }
    filled = {path: Template(_template(template)).substitute(words) for path, template in files.items()}
    try:
        for path, text in filled.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)  # it wasn't there before
        raise ConfigError(f"{folder} can't be written: {error.strerror}; choose another --out") from error
    return folder


def _template(name: str) -> str:
    return resources.files("zooft.cli").joinpath("templates", f"{name}.txt").read_text(encoding="utf-8")


def _refuse_unfit(name: str) -> None:
    if name.startswith("zooft-") or name == "zooft":
        raise ConfigError(f"{name!r}: leave 'zooft' out of the name; the package is called zooft-NAME anyway")
    if not _NAME.fullmatch(name):
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        hint = f", such as {near!r}" if _NAME.fullmatch(near) else ""
        raise ConfigError(
            f"{name!r} can't be the name of a plugin: lower-case letters and digits, in parts joined by '-', a letter "
            f"first{hint}"
        )


def _refuse_taken(name: str, kind: str) -> None:
    """Two plugins can't have one name; of two heads of one name each would have to be called PLUGIN/NAME."""
    found = registry.load()
    for info in found.plugins.infos:
        if name.replace("-", "_") == info.name.replace("-", "_"):
            raise ConfigError(
                f"there is a plugin {info.name!r} already, of {info.distribution} {info.version}; choose another name"
            )
    if kind not in _ENTRIES:
        return
    for entry in getattr(found, _ENTRIES[kind]):
        if entry.value.name == name:
            raise ConfigError(
                f"the plugin {entry.owner.name} of {entry.owner.distribution} registers {kind} {name!r} already; "
                "choose another name"
            )
