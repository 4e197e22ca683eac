"""Zip files of strangers: unpacked into a folder that is deleted, or refused."""

from __future__ import annotations

import errno
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from zooft.contracts import Rejection
from zooft.data.hidden_files import is_hidden
from zooft.serve.limits import RequestRefused

if TYPE_CHECKING:
    from zooft.serve.limits import Limits

MAGIC = b"PK\x03\x04"
_NESTED = (MAGIC, b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf\x27\x1c", b"Rar!")
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO})
"""Errors that aren't the archive's."""
_RATIO = 200
"""Bytes from one byte, above which no file of data compresses; of files larger than `_SMALL`."""
_SMALL = 2**20
_CHUNK = 2**18


def unpack(path: Path, folder: Path, limits: Limits) -> list[Rejection]:
    """Write an archive's files below a folder, under their own names; those that systems leave behind aren't.

    Returns:
        what was left out.

    Raises:
        RequestRefused: it is no sound archive, or holds what is refused: more than `Limits` allow, encrypted or nested
            archives, links, names that lead elsewhere.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [one for one in archive.infolist() if not one.is_dir()]
            _check(entries, limits)
            data = [one for one in entries if not _reason(one)]
            written = 0
            for one in data:
                written += _write(archive, one, folder, limits.unpacked - written)
            if not data:
                raise RequestRefused(422, "the archive holds no files")
            return [Rejection(one.filename, _reason(one)) for one in entries if _reason(one)]
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError, zipfile.LargeZipFile):
        raise RequestRefused(400, "the archive is damaged, or packed in a way that isn't read; pack it again") from None
    except Exception as error:
        if isinstance(error, RequestRefused) or (isinstance(error, OSError) and error.errno in _OF_THE_DISK):
            raise
        raise RequestRefused(400, "the archive is damaged; pack it again") from error  # zlib's own kind


def _check(entries: list[zipfile.ZipInfo], limits: Limits) -> None:
    if len(entries) > limits.files:
        raise RequestRefused(413, f"the archive holds {len(entries):,} files, and at most {limits.files:,} are taken")
    if sum(one.file_size for one in entries) > limits.unpacked:
        raise RequestRefused(413, f"the archive unpacks to more than {limits.unpacked:,} bytes")
    names = [one.filename for one in entries]
    if len(set(names)) < len(names):
        raise RequestRefused(400, "the archive holds two files of one name")
    for fault in map(_fault, entries):
        if fault:
            raise RequestRefused(400, f"the archive holds {fault}")


def _fault(entry: zipfile.ZipInfo) -> str:
    place = PurePosixPath(entry.filename)
    if place.is_absolute() or ".." in place.parts or "\\" in entry.filename or "\0" in entry.filename:
        return "a name that leads out of it"
    if any(len(part.encode()) > 200 for part in place.parts) or len(place.parts) > 32:
        return "a name that is too long"
    if entry.flag_bits & 0x1:
        return "an encrypted file"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind and kind != stat.S_IFREG:
        return "a link or another file that isn't a regular one"
    if entry.compress_type not in _METHODS:
        return "a file that is compressed by another method than deflate"
    if entry.file_size > _SMALL and entry.file_size > _RATIO * max(entry.compress_size, 1):
        return "a file that unpacks to far more than its size, as bombs do"
    return ""


def _reason(entry: zipfile.ZipInfo) -> str:
    hidden = [part for part in PurePosixPath(entry.filename).parts if is_hidden(part)]
    return "" if not hidden else "hidden" if hidden[0].startswith(".") else "made by a system, not data"


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, left: int) -> int:
    target = folder / PurePosixPath(entry.filename)
    target.parent.mkdir(parents=True, exist_ok=True)
    had = 0
    with archive.open(entry) as source, target.open("xb") as file:
        for chunk in _chunks(source.read):
            if not had and chunk.startswith(_NESTED):
                raise RequestRefused(400, "the archive holds another archive; pack its files themselves")
            had += len(chunk)
            if had > min(left, entry.file_size):
                raise RequestRefused(413, "the archive unpacks to more than it states, or than is taken")
            file.write(chunk)
    return had


def _chunks(read: object) -> Iterator[bytes]:
    while chunk := read(_CHUNK):  # type: ignore[operator]
        yield chunk
