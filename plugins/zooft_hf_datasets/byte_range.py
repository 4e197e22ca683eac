"""Where an image lies in an Arrow file. Nothing is compressed there, so that its bytes are read from their place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import zooft


@dataclass(frozen=True, slots=True)
class File:
    """An Arrow file as it was when it was listed: where, bytes, and nanoseconds of its last change."""

    path: str
    size: int
    changed: int


@dataclass(frozen=True, slots=True)
class ByteRange:
    """An image's file within an Arrow file, in bytes."""

    file: File
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """An image that only its path stands for."""

    folder: str
    path: str


def stamp(path: Path) -> File:
    """A file as it is now.

    Raises:
        DataError: it can't be read; the message is the reason alone.
    """
    try:
        about = path.stat()
    except OSError as error:
        raise zooft.DataError(f"can't be read: {error.strerror}") from error
    return File(str(path), about.st_size, about.st_mtime_ns)


def content(place: ByteRange | Elsewhere) -> bytes:
    """The bytes of an image's file.

    Raises:
        DataError: they can't be read, or the Arrow file has changed; the message is the reason alone.
    """
    if isinstance(place, Elsewhere):
        return _of_path(Path(place.folder), place.path)
    name = Path(place.file.path).name
    try:
        with Path(place.file.path).open("rb") as file:
            now = os.fstat(file.fileno())
            if (now.st_size, now.st_mtime_ns) != (place.file.size, place.file.changed):
                raise zooft.DataError(f"{name} has changed since the data was listed; start again to list it anew")
            file.seek(place.start)
            return file.read(place.size)
    except OSError as error:
        raise zooft.DataError(f"{name} can't be read: {error.strerror}") from error


def _of_path(folder: Path, text: str) -> bytes:
    try:
        path = zooft.path_in_table(folder, text)
        if not path.is_file():
            raise zooft.DataError(
                f"no such file: {text}; the data names its images by their paths, and was moved without them"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise zooft.DataError(f"{text} can't be read: {getattr(error, 'strerror', None) or error}") from error
