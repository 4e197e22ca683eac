"""What stands in place of names: salted hashes, the secret behind them, and silence of libraries that print values."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import secrets
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import zooft

KEY_FILE = ".zooft-key"
KEY_VARIABLE = "ZOOFT_KEY_FILE"
_KEY_BYTES = 32
_TALKATIVE = frozenset({"pydicom", "pylibjpeg", "openjpeg", "rle", "jpeg_ls", "nibabel", "highdicom"})


@dataclass(frozen=True, slots=True)
class Key:
    """The secret that makes hashes of one data set unguessable; it never goes into an artefact."""

    secret: bytes = field(repr=False)


def key_of(data: Path | None) -> Key:
    """The key of a data folder, made at the first call.

    It is looked for in the file that ``ZOOFT_KEY_FILE`` names, else in the data folder, else, where that can't be
    written, in the user's application folder.

    Args:
        data: the data folder, or a file in it; None for the user's own key, which belongs to no data.

    Raises:
        DataError: the file is no key, or can be neither read nor written anywhere.
    """
    named = os.environ.get(KEY_VARIABLE)
    if named:
        return _load(Path(named)) or _made(Path(named))
    places = _places(data)
    for place in places:
        known = _load(place)
        if known:
            return known
    for place in places[:-1]:
        with contextlib.suppress(OSError):
            return _create(place)
    return _made(places[-1])


def hashed(key: Key, kind: str, value: str) -> str:
    """16 hexadecimal digits of HMAC-SHA256 (RFC 2104); kinds such as ``patient`` and ``file`` never meet."""
    return hmac.new(key.secret, f"{kind}\0{value}".encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[:16]


def relative(root: Path | None, path: PurePath) -> str:
    """A path below the data folder, or, where there is none, the whole path; with forward slashes."""
    return (path.relative_to(root) if root else path).as_posix()


def file_id(key: Key, root: Path | None, path: Path) -> str:
    """What runs call a file: ``file`` and the hash of its `relative` path."""
    return f"file {hashed(key, 'file', relative(root, path))}"


def find(root: Path, identity: str) -> Path | None:
    """The file below the data folder that a run calls by this id; for its owner, who has the key."""
    key = key_of(root)
    for folder, _, names in os.walk(root):
        for name in names:
            if file_id(key, root, Path(folder) / name) == identity:
                return Path(folder) / name
    return None


@contextlib.contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep warnings and log lines of pydicom, its decoders and nibabel away: they print what stands in the files.

    Loggers are safe among threads; warning filters belong to the process, so threads are started inside.
    """
    import pydicom.pixels  # noqa: F401  -- makes the loggers that are silenced below

    def refuse(_record: logging.LogRecord) -> bool:
        return False

    names = [name for name in tuple(logging.root.manager.loggerDict) if name.partition(".")[0] in _TALKATIVE]
    loggers = [logging.getLogger(name) for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.addFilter(refuse)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(refuse)


def _places(data: Path | None) -> list[Path]:
    import click

    application = Path(click.get_app_dir("zooft")) / "keys"
    if data is None:
        return [application / "own.key"]
    folder = (data if data.is_dir() else data.parent).resolve()
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()
    own = application / f"{name}.key"
    closed = not folder.stat().st_mode & 0o222  # the administrator could write all the same, and shouldn't
    return [own] if closed and not (folder / KEY_FILE).exists() else [folder / KEY_FILE, own]


def _load(place: Path) -> Key | None:
    try:
        secret = place.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise zooft.DataError(
            f"the key of the data's hashes can't be read: {error.strerror}; give yourself access to it, or name "
            f"another file in {KEY_VARIABLE}"
        ) from None
    if len(secret) != _KEY_BYTES:
        raise zooft.DataError(
            f"the key of the data's hashes has {len(secret)} bytes instead of {_KEY_BYTES}; restore it from a copy, "
            f"or remove it ({KEY_FILE} in the data folder, or what {KEY_VARIABLE} names) and all hashes change"
        )
    return Key(secret)


def _made(place: Path) -> Key:
    try:
        return _create(place)
    except OSError as error:
        raise zooft.DataError(
            f"the key of the data's hashes can't be written: {error.strerror}; name a file that can in {KEY_VARIABLE}"
        ) from None


def _create(place: Path) -> Key:
    """A fresh key, or the one that another process wrote meanwhile; readable by its owner alone."""
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=f"{KEY_FILE}-", dir=place.parent)
    secret = secrets.token_bytes(_KEY_BYTES)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret)
        with contextlib.suppress(FileExistsError):
            _link(Path(draft), place, secret)
    finally:
        Path(draft).unlink()
    known = _load(place)
    if known is None:
        raise FileNotFoundError(2, "it vanished while it was written")
    return known


def _link(draft: Path, place: Path, secret: bytes) -> None:
    """Give the whole draft its name, or, on file systems without hard links (exFAT, some shares), write it there."""
    try:
        place.hardlink_to(draft)
    except FileExistsError:
        raise
    except OSError:
        with os.fdopen(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(secret)
