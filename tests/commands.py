"""The command line as its users have it, but without starting Python and torch anew for each command."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from zooft import cli


@dataclass(frozen=True, slots=True)
class Done:
    """What a command wrote."""

    stdout: str
    stderr: str


def command(*arguments: str | Path, status: int = 0) -> Done:
    """Run a command to its end; its exit status must be the given one, and there must be no traceback."""
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["zooft", *map(str, arguments)]),
        mock.patch.dict(os.environ),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    assert code == status, stderr.getvalue()
    assert "Traceback" not in stderr.getvalue()
    return Done(stdout.getvalue(), stderr.getvalue())
