"""Text that somebody else has named, made harmless where it is shown, and the way back.

Names of files, classes and folders may hold what a terminal obeys (escape sequences, line breaks, marks that turn the
direction of writing) or what a spreadsheet computes (cells that begin with ``=``).
"""

from __future__ import annotations

import re

_UNSEEN = (
    "\x00-\x1f\x7f-\x9f"  # control characters, the line breaks among them
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff"  # direction of writing, and what has no width
    "\u2028\u2029"  # line breaks of Unicode's own
    "\ud800-\udfff"  # bytes of a file's name that aren't UTF-8, as Python holds them
)
_LOOKALIKE = r"x[0-9a-f]{2}|u[0-9a-f]{4}"
_TO_HIDE = re.compile(rf"(\\*)(?:([{_UNSEEN}])|({_LOOKALIKE}))")
_HIDDEN = re.compile(rf"(\\+)({_LOOKALIKE})")
_UNSEEN_IN_JSON = re.compile(f"[{_UNSEEN}]")
_FORMULA = re.compile(r"'*(?:\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|\\x0[9ad])")
"""What a spreadsheet takes for a formula, in full width too; a tab or a line break before it doesn't hinder it."""
_NEGATIVE = re.compile(r"-(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def visible(text: str) -> str:
    r"""Text without what a terminal obeys: ``\x1b`` for a control character, ``\u202e`` for a turn of direction.

    Backslashes stay as they are, except where they would look like such an escape: `unescape` gives the text back.
    """
    return _TO_HIDE.sub(_hide, text)


def _hide(found: re.Match[str]) -> str:
    slashes, character, lookalike = found.groups()
    if character is None:
        return slashes * 2 + lookalike
    code = ord(character)
    return slashes * 2 + (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def unescape(text: str) -> str:
    """The inverse of `visible`."""
    return _HIDDEN.sub(_unhide, text)


def _unhide(found: re.Match[str]) -> str:
    slashes, code = found.groups()
    plain = slashes[: len(slashes) // 2]
    return plain + (chr(int(code[1:], 16)) if len(slashes) % 2 else code)


def in_json(text: str) -> str:
    """Written JSON without anything that a terminal obeys; it stays the same JSON."""
    lines = text.split("\n")  # those between values: within one, JSON has none
    return "\n".join(_UNSEEN_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", line) for line in lines)


def cell(text: str) -> str:
    """Text as a cell of a CSV file: visible, and with an apostrophe before what a spreadsheet would compute.

    A negative number is no formula.
    """
    shown = visible(text)
    return "'" + shown if _FORMULA.match(shown) and not _NEGATIVE.fullmatch(shown) else shown


def from_cell(text: str) -> str:
    """The inverse of `cell`."""
    whole = text[1:] if text.startswith("'") and _FORMULA.match(text) and not _NEGATIVE.fullmatch(text) else text
    return unescape(whole)
