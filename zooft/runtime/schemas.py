"""Whether a schema number is one that this zooft reads: of a run's record and of a file's metadata alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from zooft.version import __version__

_WRITERS: Mapping[int, str] = {1: "0.1"}
"""The zooft that wrote a schema that this one doesn't read."""


def refusal(subject: str, schema: int, readable: Collection[int], *, version: str | None, again: str) -> str | None:
    """Why a file isn't read and what to do about it; None where it is.

    Args:
        subject: that is of the schema, to begin the sentence.
        schema: that was found.
        readable: schemas that are read, the one that is written among them.
        version: of the zooft that the file names as its writer.
        again: what makes a new one.
    """
    if schema in readable:
        return None
    reads = f"this zooft {__version__} reads schema {' and '.join(map(str, readable))}"
    if schema > max(readable):
        return f"{subject} of schema {schema}{f' of zooft {version}' if version else ''}, and {reads}; update zooft"
    writer = _WRITERS.get(schema, "an earlier version")
    return (
        f"{subject} of schema {schema}, and {reads}; zooft {writer} wrote it and reads it: use that version, or {again}"
    )
