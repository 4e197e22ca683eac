"""What several answers at once can be told: a small TOML file that says what each column of a table is."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zooft.config import option
from zooft.errors import ConfigError

_KEYS = ("problem", "column", "weight", "unit", "grades")
_LARGEST = 2**20


@dataclass(frozen=True, slots=True)
class CombinedOptions:
    """Flags of a task with several answers."""

    targets_file: Path | None = option(
        None, 'TOML that types the columns to learn: [targets.view] problem = "classification", [targets.age] problem = '
        '"regression", weight = 0.5', local=True,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """One table of ``[targets]``.

    Attributes:
        name: of the answer.
        problem: the kind of it.
        column: of the table; its own name where none is given.
        weight: of its loss.
        settings: what else was said, such as ``unit`` or ``grades``, for the problem.
    """

    name: str
    problem: str
    column: str
    weight: float
    settings: Mapping[str, Any]


def read_targets(path: Path | None, kinds: Mapping[str, Any]) -> tuple[TargetSpec, ...]:
    """The answers that a file asks for, in its order.

    Raises:
        ConfigError: no such file, not TOML, or tables that say what nobody knows.
    """
    if path is None:
        raise ConfigError("several answers at once need --targets-file FILE.toml, which says what each column is")
    try:
        text = path.read_bytes()
        if len(text) > _LARGEST:
            raise ConfigError(f"{path} holds {len(text):,} bytes; a file of targets is small")
        values = tomllib.loads(text.decode("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} can't be read as TOML: {error}") from error
    tables = values.get("targets")
    others = [key for key in values if key != "targets"]
    if not isinstance(tables, dict) or not tables or others:
        raise ConfigError(
            f"{path} has to hold tables [targets.NAME] and nothing else; it has {', '.join(values) or 'nothing'}"
        )
    return tuple(_spec(path, name, table, kinds) for name, table in tables.items())


def _spec(path: Path, name: str, table: Any, kinds: Mapping[str, Any]) -> TargetSpec:
    where = f"{path}, [targets.{name}]"
    if not isinstance(table, dict) or table.get("problem") not in kinds:
        found = table.get("problem") if isinstance(table, dict) else table
        raise ConfigError(f"{where}: problem is {found!r}; there are {', '.join(kinds)}")
    if not name.replace("_", "").isalnum():
        raise ConfigError(f"{where}: {name!r} can't be the name of an answer; use letters, digits and _")
    unknown = [key for key in table if key not in _KEYS]
    if unknown:
        raise ConfigError(f"{where}: {', '.join(unknown)} isn't known; there are {', '.join(_KEYS)}")
    weight = table.get("weight", 1.0)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < 1e6:
        raise ConfigError(f"{where}: weight is {weight!r}, expected a number above 0")
    settings = {key: value for key, value in table.items() if key in ("unit", "grades")}
    return TargetSpec(
        name=name,
        problem=table["problem"],
        column=str(table.get("column", name)),
        weight=float(weight),
        settings=settings,
    )
