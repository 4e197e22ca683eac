"""``zooft export --layout``: a folder that a model server serves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from zooft import runtime
from zooft.deploy import layouts
from zooft.errors import ConfigError
from zooft.run import folder as runs

F = TypeVar("F", bound=Callable[..., Any])
_NAMES = ("triton", "kserve", "openvino")


def flags(command: F) -> F:
    """The options ``--layout`` and ``--out``."""
    out = click.option(
        "--out", type=click.Path(path_type=Path), help="new folder for --layout; its name is the model's"
    )
    layout = click.option("--layout", type=click.Choice(_NAMES), help="write a folder for this model server, too")
    return layout(out(command))


def check(layout: str | None, out: Path | None) -> None:
    """Refuse before anything is computed what couldn't be written.

    Raises:
        ConfigError: one option without the other, or a folder that holds files.
    """
    if (layout is None) != (out is None):
        raise ConfigError("--layout and --out belong together: --layout triton --out FOLDER")
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists and isn't empty, and nothing is overwritten; name a new folder")


def write(layout: str | None, out: Path | None, model: Path, provider: str) -> Path | None:
    """Write a verified file's folder, where one is wanted."""
    if layout is None or out is None:
        return None

    record = model.with_name(runs.VERIFICATION_FILE)
    opened = runtime.load(model, provider=provider)
    file = layouts.to_serve(opened, model, name=out.absolute().name, beside=[record] if record.is_file() else [])
    return layouts.write(layout, file, out)
