"""What decoders written in C print of damaged pixels: on standard error, unseen by Python, and continue."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator

_DAMAGE = re.compile(
    rb"JPEG.*(corrupt|premature|extraneous|bogus|invalid)|(corrupt|premature|bogus|invalid).*JPEG|^Unsupported marker "
    rb"type",
    re.I,
)
_ONE_AT_A_TIME = threading.Lock()
"""Standard error is the process's, not a thread's."""


@contextlib.contextmanager
def capture() -> Iterator[list[str]]:
    """A list that has, once the block is left, the lines in which a decoder complained; all other lines go their way.

    What other threads write meanwhile arrives a little later. Where there is no standard error, nothing is captured.
    """
    lines: list[str] = []
    with _ONE_AT_A_TIME, contextlib.ExitStack() as stack:
        try:
            terminal = os.dup(2)
        except OSError:
            yield lines
            return
        stack.callback(os.close, terminal)
        file = stack.enter_context(tempfile.TemporaryFile())
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(terminal, 2)
            file.seek(0)
            for line in file:
                if _DAMAGE.search(line):
                    lines.append(line.decode("ascii", "replace").strip())
                else:
                    os.write(terminal, line)
