"""A table from sample id to text, such as a digest, for very many samples in little memory."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import RLock

from zooft.errors import DataError


class Lookup:
    """A table from id to text, in an unnamed temporary file, which SQLite uses once it holds more than a few MB.

    Threads may use it side by side; another process may not.

    Raises:
        DataError: there is no room for it.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._table.close)
        self._table.execute("PRAGMA journal_mode = OFF")
        self._table.execute("CREATE TABLE texts (id TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID")

    def __getitem__(self, name: str) -> str:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __len__(self) -> int:
        with self._access():
            return int(self._table.execute("SELECT COUNT(*) FROM texts").fetchone()[0])

    def __setitem__(self, name: str, text: str) -> None:
        self.update([(name, text)])

    def get(self, name: str) -> str | None:
        """The text of one id; None where it has none."""
        with self._access():
            row = self._table.execute("SELECT text FROM texts WHERE id = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def update(self, more: Iterable[tuple[str, str]]) -> None:
        """Add texts by id; that of a known id is replaced."""
        with self._access():
            self._table.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?)", more)

    def items(self) -> Iterator[tuple[str, str]]:
        """In the order of the ids."""
        with self._access():
            yield from self._table.execute("SELECT id, text FROM texts ORDER BY id")

    @contextmanager
    def _access(self) -> Iterator[None]:
        """Let one thread in at a time; report a full disk as a `DataError`."""
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:
                raise DataError(
                    f"a table of all samples doesn't fit into the system's temporary folder: {error}; make room there, "
                    "or name another folder in TMPDIR"
                ) from error

    def sha256(self) -> str:
        """The digest of all ids and texts as JSON."""
        found, before = hashlib.sha256(b"["), b""
        for item in self.items():
            found.update(before + json.dumps(item).encode())
            before = b", "
        found.update(b"]")
        return found.hexdigest()
