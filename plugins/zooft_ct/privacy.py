"""What stands in place of names: salted hashes, the secret behind them, and silence of libraries that print values."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import logging
import os
import secrets
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import click

import zooft

KEY_FILE = ".zooft-key"
KEY_VARIABLE = "ZOOFT_KEY_FILE"
_KEY_BYTES = 32
_logger = logging.getLogger(__name__)
_TALKATIVE = frozenset({"pydicom", "pylibjpeg", "openjpeg", "rle", "jpeg_ls", "nibabel", "highdicom"})


@dataclass(frozen=True, slots=True)
class Key:
    """The secret that makes hashes of one data set unguessable; it never goes into an artefact."""

    secret: bytes = field(repr=False)


def key_of(data: Path | None) -> Key:
    """The key of a data folder, or the user's own; nothing is written into the data.

    It is read from the file that ``ZOOFT_KEY_FILE`` names, else in the data folder, else in the user's application
    folder, where one is made if there is none. Where that can't be written, a key serves this process alone.

    Args:
        data: the data folder, or a file in it; None for the user's own key, which belongs to no data.

    Raises:
        DataError: the file is no key, or can't be read.
        ConfigError: ``ZOOFT_KEY_FILE`` isn't a whole path.
    """
    named = _key_file()
    if named:
        return _load(named) or _make_key(named)
    known = _first(_places(data))
    if known:
        return known
    own = _own(data)
    if own is not None:
        with contextlib.suppress(OSError):
            return _create(own)
    return _temporary_key()


def key_near(paths: Sequence[Path]) -> Key:
    """The key of the data folder that all paths lie in, so that its ids are as in its runs; else the user's own.

    Raises:
        DataError: the file is no key, or can't be read.
        ConfigError: ``ZOOFT_KEY_FILE`` isn't a whole path.
    """
    if _key_file() or not paths:
        return key_of(None)
    together = Path(os.path.commonpath([path.absolute() for path in paths]))
    folders = [folder for folder in (together, *together.parents) if folder.is_dir()]
    private = [folder for folder in folders if not folder.stat().st_mode & 0o002]  # whoever leaves a key there knows it
    return _first([place for folder in private for place in _places(folder)]) or key_of(None)


def keep_key(data: Path) -> None:
    """Make the key of a data folder that has none: in the folder, for all who work with it.

    With the user where the folder is closed to writing, or is the working directory, whose files get shared.

    Raises:
        DataError: the file is no key, or can be neither read nor written anywhere.
        ConfigError: ``ZOOFT_KEY_FILE`` isn't a whole path.
    """
    if _key_file() or _first(_places(data)):
        key_of(data)
        return
    folder = _folder(data)
    # the administrator could write into a closed folder all the same, and shouldn't
    if folder.stat().st_mode & 0o222 and folder != Path.cwd():
        with contextlib.suppress(OSError):
            _create(folder / KEY_FILE)
            return
    own = _own(data)
    if own is None:
        raise zooft.DataError(f"there is no place for the key of the data's hashes; name a file in {KEY_VARIABLE}")
    _make_key(own)


def hash_value(key: Key, kind: str, value: str) -> str:
    """16 hexadecimal digits of HMAC-SHA256 (RFC 2104); kinds such as ``patient`` and ``file`` never meet."""
    return hmac.new(key.secret, f"{kind}\0{value}".encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[:16]


def relative(root: Path | None, path: PurePath) -> str:
    """A path below the data folder, or, where there is none, the whole path; with forward slashes."""
    return (path.relative_to(root) if root else path).as_posix()


def file_id(key: Key, root: Path | None, path: Path) -> str:
    """What runs call a file: ``file`` and the hash of its `relative` path."""
    return f"file {hash_value(key, 'file', relative(root, path))}"


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


def _key_file() -> Path | None:
    """The file that the user has named."""
    named = os.environ.get(KEY_VARIABLE)
    if not named:
        return None
    path = Path(named).expanduser()
    if not path.is_absolute():
        raise zooft.ConfigError(
            f"{KEY_VARIABLE} has to be a whole path, such as one that begins with / or ~: a key doesn't belong into "
            "whatever folder is the working directory"
        )
    return path


def _places(data: Path | None) -> list[Path]:
    """Where the key may lie, the best place first."""
    own = _own(data)
    return [*([] if data is None else [_folder(data) / KEY_FILE]), *([] if own is None else [own])]


def _folder(data: Path) -> Path:
    return (data if data.is_dir() else data.parent).resolve()


def _own(data: Path | None) -> Path | None:
    """The file in the user's application folder.

    None for a user without one, which would end in the working directory.
    """
    application = Path(click.get_app_dir("zooft")) / "keys"
    if not application.is_absolute():
        return None
    name = "own" if data is None else hashlib.sha256(os.fsencode(_folder(data))).hexdigest()
    return application / f"{name}.key"


def _first(places: Iterable[Path]) -> Key | None:
    return next(filter(None, map(_load, places)), None)


@functools.cache
def _temporary_key() -> Key:
    """A key that isn't stored."""
    _logger.warning(
        "the key of the hashes can't be stored in the user's folder: they are of this command alone and no other will "
        "find them again; name a file in %s",
        KEY_VARIABLE,
    )
    return Key(secrets.token_bytes(_KEY_BYTES))


def _load(place: Path) -> Key | None:
    try:
        secret = place.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
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


def _make_key(place: Path) -> Key:
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
