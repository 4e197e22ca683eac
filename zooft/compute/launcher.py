"""What torchrun or ``accelerate launch`` has told this process through its environment.

Apart from `together`, so that the command line can ask without loading torch.
"""

from __future__ import annotations

import os

_TOLD = "_zooft_told_by_main"


def processes() -> int:
    """How many processes share the run."""
    return _number("WORLD_SIZE", 1)


def process() -> int:
    """This one's number, from 0, which is the main one: it alone writes and speaks."""
    return _number("RANK", 0) if processes() > 1 else 0


def mark_told(error: BaseException) -> None:
    """Remember that an error is a copy of the main process's."""
    setattr(error, _TOLD, True)


def told_by_main(error: BaseException) -> bool:
    """Whether the main process has raised the same, and will tell of it."""
    return bool(getattr(error, _TOLD, False))


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else otherwise
