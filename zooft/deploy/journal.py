"""What `zooft predict` has answered so far, on disk.

``NAME.partial``, a line an answer, from which an interrupted one resumes.

The file under its own name is made from it once all is answered, at once and whole.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, BinaryIO

from zooft.deploy.predict import Answer
from zooft.errors import RunError
from zooft.storage import exclusive

_SCHEMA = "zooft predict 2"


def path_of(out: Path) -> Path:
    """Where the answers lie on their way into a file."""
    return out.with_name(out.name + ".partial")


def check(out: Path, *, resume: bool) -> None:
    """Refuse what lies where the answers would, before anything is computed.

    Raises:
        RunError: it isn't a journal, or `resume` doesn't take it up.
    """
    path = path_of(out)
    if not path.exists():
        return
    if not path.is_file() or not _is_journal(path):
        raise RunError(f"{path} exists and isn't what predict leaves; move it, or choose another --out")
    if not resume:
        raise RunError(f"{path} is what a predict that was stopped has left; resume it with --resume, or remove it")


class Journal:
    """Answers on their way into a file.

    Args:
        out: the file to be.
        about: what the answers depend on besides the files; an interrupted command's must be the same.
        resume: whether to resume an interrupted one.

    Raises:
        RunError: something lies there already, of another command or of a kind that `resume` doesn't take.
    """

    def __init__(self, out: Path, about: Mapping[str, Any], *, resume: bool) -> None:
        self._out = out
        self.path = path_of(out)
        self._lock = exclusive.hold(
            out, refusal=f"another predict is writing {out}; wait for it, or choose another --out"
        )
        try:
            self._about = json.loads(json.dumps({"schema": _SCHEMA, **about}))
            self._places: dict[str, tuple[int, str]] = {}
            self._file = self._open(resume=resume)
        except BaseException:
            exclusive.release(self._lock)
            raise

    def __len__(self) -> int:
        """Whole answers that are known."""
        return sum(bool(stamp) for _, stamp in self._places.values())

    def __contains__(self, key: str) -> bool:
        """Whether there is an answer, of what it was then."""
        return key in self._places

    def knows(self, key: str, stamp: str) -> bool:
        """Whether there is a whole answer, of what has this stamp still."""
        place = self._places.get(key)
        return place is not None and bool(stamp) and place[1] == stamp

    def add(self, answer: Answer, stamp: str) -> None:
        """Keep an answer; it outlives this process from here on."""
        whole = not answer.error  # what couldn't be read may be readable when the command is resumed
        at = self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps({"stamp": stamp if whole else "", "answer": asdict(answer)}).encode() + b"\n")
        self._file.flush()
        self._places[answer.key] = (at, stamp if whole else "")

    def answer(self, key: str) -> Answer:
        """A known one."""
        self._file.seek(self._places[key][0])
        return _answer(json.loads(self._file.readline())["answer"])

    def publish(self, write: Callable[[BinaryIO], None]) -> None:
        """Make the file itself, whole or not at all, and remove this one."""
        draft = self._out.with_name(f".{self._out.name}.new")
        try:
            with draft.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._out)
        finally:
            draft.unlink(missing_ok=True)
        self._file.close()
        self.path.unlink()
        exclusive.release(self._lock)

    def leave(self) -> str:
        """Stop before the end: what is known stays, and the words give how to resume it."""
        known = len(self)
        with contextlib.suppress(OSError):  # a full disk, which was reported
            self._file.close()
        if not known:
            self.path.unlink(missing_ok=True)
        exclusive.release(self._lock)
        if not known:
            return ""
        count = "1 answer is" if known == 1 else f"{known} answers are"
        return f"{count} in {self.path}; the same command with --resume predicts the others"

    def _open(self, *, resume: bool) -> IO[bytes]:
        head = json.dumps(self._about).encode() + b"\n"
        if not self.path.exists():
            file = self.path.open("x+b")
            file.write(head)
            file.flush()
            return file
        check(self._out, resume=resume)
        file = self.path.open("r+b")
        try:
            self._take_up(file)
        except BaseException:
            file.close()
            raise
        return file

    def _take_up(self, file: IO[bytes]) -> None:
        first = file.readline()
        if first and not first.endswith(b"\n"):  # killed before its first answer
            file.seek(0)
            file.truncate()
            file.write(json.dumps(self._about).encode() + b"\n")
            return
        before = json.loads(first)
        others = [name for name, value in self._about.items() if before.get(name) != value]
        if others:
            raise RunError(
                f"{self.path} was started with another {' and '.join(others)}; give the stopped command again, "
                "or remove the file"
            )
        end = file.tell()
        for at, entry in _entries(file):
            self._places[entry["answer"]["key"]] = (at, entry["stamp"])
            end = file.tell()
        file.seek(end)
        file.truncate()  # the line that was being written


def _entries(file: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Whole lines and where they begin, up to the first that isn't one."""
    while True:
        at = file.tell()
        text = file.readline()
        if not text.endswith(b"\n"):
            return
        try:
            entry = json.loads(text)
            _answer(entry["answer"]), str(entry["stamp"])
        except (ValueError, KeyError, TypeError):
            return
        yield at, entry


def _answer(values: dict[str, Any]) -> Answer:
    return Answer(**values)


def _is_journal(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline(2**20)
    begin = json.dumps({"schema": _SCHEMA})[:-1].encode()
    return first.startswith(begin) or begin.startswith(first)
