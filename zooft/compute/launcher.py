"""What torchrun or ``accelerate launch`` states in this process's environment.

Separate from `distributed`, so that the command line can read it without loading torch.
"""

from __future__ import annotations

import os

_MARK = "_zooft_reported_by_main"


def processes() -> int:
    """How many processes share the run."""
    return _number("WORLD_SIZE", 1)


def process() -> int:
    """This one's number, from 0, which is the main one: it alone writes files and prints."""
    return _number("RANK", 0) if processes() > 1 else 0


def mark_reported(error: BaseException) -> None:
    """Mark an error as a copy of the main process's."""
    setattr(error, _MARK, True)


def is_reported_by_main(error: BaseException) -> bool:
    """Whether the main process has raised the same error, and will report it."""
    return bool(getattr(error, _MARK, False))


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else otherwise
