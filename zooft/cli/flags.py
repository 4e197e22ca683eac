"""Dataclass fields to click options: a core option or a task's own, defined once."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

import click

from zooft.config import options_of


def of(cls: type[Any], group: str | None = None) -> list[click.Option]:
    """One option a field. Each defaults to None, so that only what was typed is passed on.

    Args:
        cls: a dataclass whose fields have help texts.
        group: named behind the help text, for a task's own options.
    """
    return [_option(each.field, typing.get_type_hints(each.owner)[each.field.name], group) for each in options_of(cls)]


def _option(field: dataclasses.Field[Any], hint: Any, group: str | None) -> click.Option:
    kind = _bare(hint)
    flag = field.name.replace("_", "-")
    text = f"{group}: " if group else ""
    text += field.metadata.get("help", "") + _show_default(field)
    if kind is bool:
        return click.Option([f"--{flag}/--no-{flag}"], default=None, help=text)
    settings: dict[str, Any] = {"type": _type(kind), "default": None, "help": text}
    if typing.get_origin(kind) is tuple:
        settings |= {"callback": _comma_separated, "metavar": "A,B,…"}
    return click.Option([f"--{flag}"], **settings)


def _bare(hint: Any) -> Any:
    """The type without bounds and without None; of several, text, which the dataclass's own checks read."""
    while typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        arms = [arm for arm in typing.get_args(hint) if arm is not types.NoneType]
        return _bare(arms[0]) if len(arms) == 1 else str
    return hint


def _type(kind: Any) -> Any:
    if typing.get_origin(kind) is typing.Literal:
        return click.Choice(typing.get_args(kind))
    if kind is Path:
        return click.Path(path_type=Path)
    return kind if kind in (int, float, str) else str


def _show_default(field: dataclasses.Field[Any]) -> str:
    """The default, as it would be typed."""
    default = field.default
    if default is dataclasses.MISSING:
        return "  [required]"
    if default in (None, "", ()):
        return ""
    if isinstance(default, bool):
        name = field.name.replace("_", "-")
        return f"  [default: {'' if default else 'no-'}{name}]"
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"  [default: {shown}]"


def _comma_separated(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())
