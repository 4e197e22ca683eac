"""Names of groups that may be one in two spellings: the group would be on both sides of a split, unseen."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import zooft

_MOST = 100_000
"""Groups that are compared. Of more, each has few samples, and the table would take the memory that samples don't."""
_NAMED = 3
_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


@dataclass(slots=True)
class Groups:
    """Groups seen so far, by what is left of their names without case, spaces, Unicode form and leading zeros."""

    by_spelling: dict[str, set[str]] = field(default_factory=dict)

    def add(self, name: str | None) -> None:
        """One more sample's."""
        if name is not None and len(self.by_spelling) < _MOST:
            self.by_spelling.setdefault(_ZEROS.sub("", zooft.spelling(name)), set()).add(name)

    def notes(self) -> list[str]:
        """A warning where there are such."""
        torn = [sorted(names) for names in self.by_spelling.values() if len(names) > 1]
        if not torn:
            return []
        pairs = "; ".join(" and ".join(map(ascii, names[:_NAMED])) for names in torn[:_NAMED])
        more = f" and {len(torn) - _NAMED} more" if len(torn) > _NAMED else ""
        return [
            f"warning: groups whose names differ only in case, spaces, Unicode form or leading zeros: {pairs}{more}. "
            "They count as different groups; if they are one, it may be on both sides of the split, and figures too "
            "good: spell it the same"
        ]
