"""Names of columns and keys that are near one that isn't there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str:
    """Up to three of `names`, for the end of a message, as ``; nearest: age, page``; nothing where none is near.

    Case doesn't count.
    """
    by_spelling: dict[str, list[str]] = {}
    for one in names:
        by_spelling.setdefault(one.casefold(), []).append(one)
    near = difflib.get_close_matches(name.casefold(), by_spelling, n=3)
    found = [one for spelling in near for one in by_spelling[spelling]]
    return f"; nearest: {', '.join(found)}" if found else ""
