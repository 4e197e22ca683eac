"""Numbers of things in messages, singular or plural."""

from __future__ import annotations


def pluralize(number: int, one: str, many: str = "") -> str:
    """A number and what it counts: ``1 file``, ``2 files``, ``12,345 files``, ``0 files``.

    Args:
        number: how many there are.
        one: the words for one, such as ``file`` or ``file isn't``.
        many: the words for any other number; "" for `one` with an s.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
