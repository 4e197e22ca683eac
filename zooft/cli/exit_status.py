"""How a command ends that couldn't do its work.

In one sentence, as JSON with --json, by an exit status.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import click

from zooft.cli import screen
from zooft.compute import machine
from zooft.errors import (
    AmbiguousNameError,
    ConfigError,
    ExportError,
    PluginError,
    PruningError,
    RuntimeModelError,
    UnknownNameError,
    ZooftError,
)
from zooft.storage.escapes import in_json

_HEAVY = frozenset(
    {
        "torch",
        "torchvision",
        "timm",
        "accelerate",
        "safetensors",
        "sklearn",
        "scipy",
        "captum",
        "matplotlib",
        "jinja2",
        "onnxscript",
        "huggingface_hub",
    }
)
"""What only the whole of zooft brings along, not ``zooft-runtime``."""


class SignalReceived(KeyboardInterrupt):
    """A signal ends this process; what handles Ctrl-C handles it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """What is printed of an error.

    Attributes:
        kind: the error's class, for programs.
        message: what was wrong, what was found, what to do next.
        notes: what was saved, and where.
        status: the exit status.
    """

    kind: str
    message: str
    notes: tuple[str, ...]
    status: int


@contextlib.contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the work as Ctrl-C does, with trained epochs saved; by default nothing is printed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough: let it print where things lie
        raise SignalReceived(number)

    wanted = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = [one for one in wanted if signal.getsignal(one) == signal.SIG_DFL]  # nohup's choice stays
    for one in ours:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one in ours:
            signal.signal(one, signal.SIG_DFL)


def of(error: BaseException) -> ExitStatus:
    """What is printed of an error."""
    notes = tuple(getattr(error, "__notes__", ()))
    if isinstance(error, SignalReceived):
        name = signal.Signals(error.number).name
        return ExitStatus("Terminated", f"ended by the signal {name}", notes, 128 + error.number)
    if isinstance(error, KeyboardInterrupt):
        return ExitStatus("Interrupted", "interrupted", notes, 130)
    if isinstance(error, click.ClickException):
        return ExitStatus(type(error).__name__, error.format_message(), notes, error.exit_code)
    message, status = _words(error)
    if isinstance(error, PluginError) and message == str(error):  # else it is this machine that lacks something
        notes = (*notes, "this is a fault of the plugin; ZOOFT_TRACEBACK=1 shows file and line")
    return ExitStatus(type(error).__name__, message, notes, status)


def _words(error: BaseException) -> tuple[str, int]:
    if isinstance(error, ConfigError | UnknownNameError | AmbiguousNameError):
        return str(error), 2
    ours = isinstance(error, ZooftError) and not isinstance(error, PluginError | RuntimeModelError | ExportError)
    stated = ours and "memory" in str(error)  # in words that fit better than those below; the others repeat a library's
    if machine.lacks_memory(error) and not stated:
        return _about_memory(error), 1
    missing = _missing(error) if isinstance(error, PluginError) or not isinstance(error, ZooftError) else None
    if isinstance(error, ZooftError) and missing is None:
        return str(error), 1
    if missing is not None:
        return (
            f"this needs {missing}, which isn't installed here: zooft-runtime alone predicts with ONNX files, "
            "evaluates and verifies them and looks around (doctor); to train, export or draw, install the whole of "
            "zooft: pip install zooft",
            1,
        )
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"the disk is full: {error.filename or error.strerror}; make room and try again", 1
    if isinstance(error, OSError):
        return str(error), 1
    return (
        f"unexpected {type(error).__name__}: {error}\n"
        "this is a defect of zooft; ZOOFT_TRACEBACK=1 shows where it happened",
        1,
    )


def _about_memory(error: BaseException) -> str:
    limit = machine.address_limit()
    known = "" if limit is None else f"; 'ulimit -v' allows this process {limit / 1e9:.1f} GB"
    first = str(error).strip().partition("\n")[0]
    return (
        f"memory ran out ({f'{type(error).__name__}: {first}' if first else type(error).__name__}){known}; give it "
        "more, or ask for less: smaller --batch-size or --workers in training, smaller pictures or series, a smaller "
        "backbone"
    )


def _missing(error: BaseException | None) -> str | None:
    """The package that a part of zooft lacks which ``zooft-runtime`` doesn't install."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _HEAVY:
            return (error.name or "").partition(".")[0]
        error = error.__cause__ or error.__context__
    return None


def _finite(record: Any) -> Any:
    """Numbers that aren't finite as null, which JSON has no word for; without `to_json`, which loads much more."""
    return json.loads(json.dumps(record, default=float), parse_constant=lambda _word: None)


def show(error: BaseException, *, as_json: bool) -> int:
    """Print an error, on standard error and, with --json, as JSON on standard output.

    Its exit status.
    """
    ending = of(error)
    if as_json:
        values = {"kind": ending.kind, "message": ending.message, "notes": ending.notes, "status": ending.status}
        values |= {"table": _finite(error.record)} if isinstance(error, PruningError) else {}
        screen.write(in_json(json.dumps({"error": values}, indent=2, ensure_ascii=False)) + "\n")
    if isinstance(error, click.ClickException):
        _as_click_does(error)
        return ending.status
    screen.label("zooft: ", fg="red", err=True)
    for text in (ending.message, *ending.notes):
        click.echo(screen.paragraph(text), err=True)
    return ending.status


def _as_click_does(error: click.ClickException) -> None:
    """With the command's usage."""
    message = screen.paragraph(error.format_message())
    again = (
        click.UsageError(message, error.ctx) if isinstance(error, click.UsageError) else click.ClickException(message)
    )
    again.show()


def wants_json() -> bool:
    """Whether the arguments of this process ask for JSON."""
    typed = sys.argv[1:]
    words = typed[: typed.index("--")] if "--" in typed else typed
    pairs = {*words, *(f"{flag}={value}" for flag, value in pairwise(words) if flag == "--format")}
    return bool(pairs & {"--json", "--format=json"})


def point_at_plugin(error: BaseException) -> None:
    """Add file and line of the plugin, where it is one's fault, to what a traceback shows."""
    if isinstance(error, PluginError):
        error.add_note(f"the plugin's code: {error.code or 'not known'}")


def wants_traceback() -> bool:
    """Whether an error is to be raised as it is, for whoever fixes zooft or a plugin."""
    return bool(os.environ.get("ZOOFT_TRACEBACK"))
