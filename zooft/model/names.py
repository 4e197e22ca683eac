"""A model's full name from what was typed."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import TYPE_CHECKING

from zooft.contracts import Family
from zooft.errors import UnknownNameError
from zooft.hooks.guard import call_plugin

if TYPE_CHECKING:
    pass


def full_name(family: Family, name: str) -> str:
    """A model's full name, aliases resolved.

    Raises:
        UnknownNameError: with the nearest names.
    """
    try:
        full: str = call_plugin(family, "canonical", family.aliases.get(name, name))
        if _knows_full_names(family) or full in set(call_plugin(family, "models")):
            return full
        raise KeyError(full)
    except KeyError:
        known = [*family.aliases, *call_plugin(family, "models")]
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.4)
        near = near or [candidate for candidate in known if name in candidate][:4]
        hint = f"; nearest: {', '.join(near)}" if near else ""
        message = f"{family.name} has no model {name!r}{hint} ('zooft backbones {family.name}:*' lists all)"
        raise UnknownNameError(message, kind="model", name=name, near=near) from None


def _knows_full_names(family: Family) -> bool:
    """Whether the family itself refuses a name that it doesn't have."""
    return family.canonical is not next(f.default for f in fields(Family) if f.name == "canonical")
