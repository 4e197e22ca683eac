"""What a file's name shows: whether it looks like a picture, and how hidden ones are counted."""

from __future__ import annotations

from collections.abc import Iterator

import zooft

PICTURES = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff", "bmp", "ppm", "pgm", "pbm", "pnm", "mpo"}
    | {"jp2", "j2k", "jpx", "avif", "gif", "heic", "heif", "hif"}
)
"""Ends of names; whether the format is accepted is decided by content, later."""


def hidden_part(path: str) -> str:
    """The first part of a path with forward slashes that is hidden; nothing where none is."""
    return next((part for part in _parts(path) if zooft.is_hidden(part)), "")


def kind_of_hidden(name: str) -> str:
    """As it is counted: the many files that macOS writes beside others as one."""
    return "._…" if name.startswith("._") else name


def why_hidden(name: str) -> str:
    """Why a file that looks like a picture isn't used."""
    if name.startswith("._"):
        return "hidden: what macOS writes beside a picture (AppleDouble)"
    return "hidden: the name begins with a dot" if name.startswith(".") else "in a folder that a system made"


def looks_like_picture(name: str) -> bool:
    """Whether a name ends as those of pictures do."""
    return name.rpartition(".")[2].lower() in PICTURES


def describe_hidden(counts: dict[str, int], most: int = 4) -> list[str]:
    """A note of what was left out, by name."""
    if not counts:
        return []
    often = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{count:,} {name}" for name, count in often[:most])
    more = f" and {len(often) - most} other names" if len(often) > most else ""
    return [f"hidden files and folders, and those that systems make, are left out: {listed}{more}"]


def _parts(path: str) -> Iterator[str]:
    yield from (part for part in path.split("/") if part not in {".", ".."})
