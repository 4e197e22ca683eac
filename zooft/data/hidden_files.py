"""Which files and folders aren't meant as data: hidden ones, and what systems and programs put beside others."""

from __future__ import annotations

_OF_SYSTEMS = frozenset(
    {
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
        "__pycache__",
    }
)
"""In lower case: names used by macOS, Windows, Synology, Linux and Python."""


def is_hidden(name: str) -> bool:
    """Whether a file's or folder's name is hidden, or one that systems and programs give to what isn't data."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS
