"""Columns of tables and keys of shards that aren't used: each is named, and one that looks like groups is pointed out.

A column ``patient`` where ``group`` is expected would otherwise tear patients apart, unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import zooft
from zooft_images.listing import printable
from zooft_images.options import GROUP_COLUMN

_MOST = 20
"""Names that are listed."""


def about_unused(
    where: str,
    unused: Mapping[str, Sequence[str]],
    *,
    grouped: bool,
    what: str = "column",
    rename: str = f"or call it {GROUP_COLUMN}",
) -> list[str]:
    """What the user should know of them.

    Args:
        where: the table's name.
        unused: of each by its name the cells of all rows, "" for empty ones; none where they weren't read.
        grouped: whether groups are known already.
        what: it is, in one word.
        rename: what may be done in place of the option.
    """
    if not unused:
        return []
    names = [printable(name) for name in unused]
    hint = "" if grouped else " (--group-column names the one to split by)"
    notes = [f"{what}s of {printable(where)} that aren't used: {zooft.list_some(names, _MOST)}{hint}"]
    likely = () if grouped else zooft.likely_groups(unused)
    return [*notes, _point_out(where, likely[0], unused[likely[0]], what, rename)] if likely else notes


def _point_out(where: str, name: str, cells: Sequence[str], what: str, rename: str) -> str:
    known = [cell for cell in cells if cell]
    counts = f" ({len(set(known)):,} values in {len(known):,} rows)" if known else ""
    option = printable(name) if name.isidentifier() else f"'{printable(name)}'"
    return (
        f"warning: the {what} {printable(name)} of {printable(where)} isn't used, and looks like what a split must "
        f"not divide{counts}. Give --group-column {option}, {rename}: else images of one are trained and "
        "validated on, and figures too good"
    )
