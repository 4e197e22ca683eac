"""Options of several answers at once: a small TOML file that defines what each column of a table is."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zooft.config import option
from zooft.errors import ConfigError

_OPTION_OF = {
    "unit": ("regression", "units"),
    "grades": ("ordinal", "grades"),
    "empty_means": ("multilabel", "empty_means"),
}
"""What a table may have besides: the problem that knows it and the name of its option."""
_KEYS = ("problem", "column", "columns", "weight", *_OPTION_OF)
_MEANINGS = ("unknown", "none")
"""Of an empty cell."""
_LARGEST = 2**20


@dataclass(frozen=True, slots=True)
class CombinedOptions:
    """Flags of a task with several answers."""

    targets_file: Path | None = option(
        None,
        'TOML that types the columns to learn: [targets.view] problem = "classification", [targets.age] problem = '
        '"regression", weight = 0.5',
        local=True,
    )
    targets_toml: str = option("", "the same as text; a run records what stands in the file")

    def __post_init__(self) -> None:
        """Take what stands in the file in its place, so that run and exported file know it wherever they go.

        Raises:
            ConfigError: the file can't be read.
        """
        if self.targets_file is not None:
            object.__setattr__(self, "targets_toml", _text_of(self.targets_file))


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """One table of ``[targets]``.

    Attributes:
        name: of the answer.
        problem: the kind of it.
        columns: of the table; the one with its own name where none is given.
        weight: of its loss.
        settings: what else was set, by the name of the problem's option, such as ``units`` or ``grades``.
    """

    name: str
    problem: str
    columns: tuple[str, ...]
    weight: float
    settings: Mapping[str, Any]


def read_targets(text: str, kinds: Mapping[str, Any]) -> tuple[TargetSpec, ...]:
    """The answers that a TOML text defines, in its order.

    Raises:
        ConfigError: no text, not TOML, or tables with unknown keys.
    """
    if not text.strip():
        raise ConfigError("several answers at once need --targets-file FILE.toml, which defines what each column is")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the file of targets can't be read as TOML: {error}") from error
    tables = values.get("targets")
    others = [key for key in values if key != "targets"]
    if not isinstance(tables, dict) or not tables or others:
        raise ConfigError(
            "the file of targets has to hold tables [targets.NAME] and nothing else; it has "
            f"{', '.join(values) or 'nothing'}"
        )
    return tuple(_spec(name, table, kinds) for name, table in tables.items())


def _text_of(path: Path) -> str:
    try:
        content = path.read_bytes()
        if len(content) > _LARGEST:
            raise ConfigError(f"{path} holds {len(content):,} bytes; a file of targets is small")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file of targets {path} can't be read: {error}") from error


def _spec(name: str, table: Any, kinds: Mapping[str, Any]) -> TargetSpec:
    where = f"[targets.{name}]"
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
    settings = {_OPTION_OF[key][1]: _setting(where, key, table) for key in _OPTION_OF if key in table}
    return TargetSpec(
        name=name,
        problem=table["problem"],
        columns=_columns(where, name, table),
        weight=float(weight),
        settings=settings,
    )


def _columns(where: str, name: str, table: Mapping[str, Any]) -> tuple[str, ...]:
    """As tables call them, whose columns are read in lower case."""
    if "column" in table and "columns" in table:
        raise ConfigError(f"{where} has column and columns; leave one of them")
    key = "columns" if "columns" in table else "column"
    texts = _texts(where, key, table.get(key, name))
    columns = tuple(text.strip().lower() for text in texts)
    if len(set(columns)) < len(columns):
        raise ConfigError(f"{where}: columns names {max(columns, key=columns.count)!r} twice")
    return columns


def _setting(where: str, key: str, table: Mapping[str, Any]) -> str | tuple[str, ...]:
    """The value of one of a problem's options."""
    kind, value = _OPTION_OF[key][0], table[key]
    if table["problem"] != kind:
        raise ConfigError(f"{where}: {key} is for problem = {kind!r}, and this is {table['problem']!r}")
    if key != "empty_means":
        return _texts(where, key, value)
    if value not in _MEANINGS:
        raise ConfigError(f"{where}: {key} is {value!r}; there are {', '.join(_MEANINGS)}")
    return str(value)


def _texts(where: str, key: str, value: Any) -> tuple[str, ...]:
    """One text or a list of them."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ConfigError(
            f"{where}: {key} is {value!r}, expected a "
            f"text{' in quotation marks' if key == 'unit' else ', or a list of them'}"
        )
    return tuple(texts)
