"""Whether this zooft reads a schema number, of a run's record or of a file's metadata."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from zooft.version import __version__

_WRITERS: Mapping[int, str] = {1: "0.1"}
"""The zooft versions that wrote schemas that this one doesn't read."""


def refusal(subject: str, schema: int, readable: Collection[int], *, version: str | None, again: str) -> str | None:
    """Why a file isn't read and what to do about it; None where it is read.

    Args:
        subject: the beginning of the sentence, before the schema.
        schema: that was found.
        readable: the schemas that are read, including the one that is written.
        version: of the zooft that the file names as its writer.
        again: how to make a new file.
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
