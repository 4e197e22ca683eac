"""A run: one folder, made complete or not at all.

Owns the folder's life (under ``NAME.incomplete`` while one process works on it, renamed when complete, reopened
where that process was killed), its files' names, atomic writing, and finding the latest one.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft import config as configuration
from zooft.errors import ConfigError, RunError
from zooft.storage import exclusive
from zooft.storage.escapes import in_json
from zooft.version import __version__

if TYPE_CHECKING:
    from filelock import BaseFileLock

RUN_FILE = "run.json"
SAMPLES_FILE = "samples.csv"
REJECTED_FILE = "rejected.csv"
EPOCHS_FILE = "metrics.jsonl"
WEIGHTS_FILE = "model.safetensors"
ONNX_FILE = "model.onnx"
REFUSED_FILE = "model.unverified.onnx"
VERIFICATION_FILE = "verification.json"
PRECISION_FILE = "model.{}.onnx"
PRECISION_VERIFICATION_FILE = "verification.{}.json"
AUDIT_FILE = "audit.json"
REPORT_FILE = "report.html"
SETTINGS_FILE = "settings.toml"
RESUME_FILE = "resume.toml"
PREDICTIONS_FILE = "predictions.csv"
FOLDS_FOLDER = "folds"
LAST_FOLDER = "last"
STATE_FILE = "state.json"
LATEST_FILE = ".latest"
SUFFIX = ".incomplete"
RUNS = Path("runs")
_RESUME_SCHEMA = 2


@dataclass(frozen=True, slots=True)
class WorkingFolder:
    """A run in progress.

    Attributes:
        path: where it is worked on.
        final: the path that it will have.
        resumed: whether an earlier process began it.
        lock: held while it is worked on; the system releases it when the process dies. None where the file
            system has no locks.
    """

    path: Path
    final: Path
    resumed: bool = False
    lock: BaseFileLock | None = dataclasses.field(default=None, repr=False, compare=False)

    def publish(self) -> Path:
        """Give the folder its final name, and record it as the latest."""
        self.path.replace(self.final)
        complete(self.final)
        exclusive.release(self.lock)
        return self.final

    def abandon(self) -> str:
        """Clean up after a failure; results stay, and the returned sentence names them."""
        try:
            return self._describe_rest()
        finally:
            exclusive.release(self.lock)

    def discard(self) -> None:
        """Remove what was made, of a run that is nothing until it is complete."""
        try:
            shutil.rmtree(self.path, ignore_errors=True)
        finally:
            exclusive.release(self.lock)

    def _describe_rest(self) -> str:
        onwards = f"'zooft finetune --resume {self.path}' resumes it{self._last_saved()}"
        if (self.path / WEIGHTS_FILE).exists():
            return (
                f"the weights trained so far are in {self.path}; 'zooft evaluate {self.path}' and 'zooft export "
                f"{self.path}' work on it, " + onwards
            )
        if any(self.path.glob(f"{FOLDS_FOLDER}/*/{WEIGHTS_FILE}")):
            return (
                f"the folds that were finished are in {self.path / FOLDS_FOLDER}; 'zooft evaluate' works on each, "
                f"'zooft finetune --resume {self.path}' resumes with the others"
            )
        if self.resumed:  # by somebody who means to finish it
            return onwards if self.path.exists() else ""

        shutil.rmtree(self.path, ignore_errors=True)
        return ""

    def _last_saved(self) -> str:
        """Which epoch it resumes from, in words; short epochs aren't all saved."""
        try:
            state = json.loads((self.path / LAST_FOLDER / STATE_FILE).read_text(encoding="utf-8"))
            return f", from epoch {int(state['epoch'])} on, the last that was saved"
        except (OSError, ValueError, KeyError, TypeError):
            return ""


def claim(
    out: Path | None,
    *,
    task: str,
    model: str,
    settings: Mapping[str, Any] | None = None,
    local: Mapping[str, Any] | None = None,
    after: Path | None = None,
) -> WorkingFolder:
    """Make the folder that a run works in; from its first moment it contains the run's options.

    Args:
        out: as requested; None for ``runs/TASK-MODEL-N``.
        task: for the default name.
        model: for the default name.
        settings: the run's options, written down for people and for `reopen`.
        local: options that are places on this machine, for `reopen` alone; a finished run doesn't have them.
        after: a finished run whose training is continued.

    Raises:
        RunError: the folder is in use, or can't be made.
    """
    final = out if out is not None else _next_free(RUNS, f"{task}-{slug(model)}")
    if not final.name or final.name == "..":
        raise RunError(
            f"{final} can't be the run's own folder; give --out a new folder's name, such as {final / 'run'}"
        )
    working = final.with_name(final.name + SUFFIX)
    refuse_taken(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"the folder {final.parent} can't be made: {error.strerror}; choose another --out") from error
    lock = _hold(working, final)
    try:
        _refuse_leftover(working)
        _make(working, settings or {}, local or {}, after)
    except BaseException as error:
        exclusive.release(lock)
        if isinstance(error, OSError) and error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise RunError(f"the run folder {final} can't be made: {error.strerror}; choose another --out") from error
        raise
    return WorkingFolder(working, final, lock=lock)


def refuse_taken(final: Path) -> None:
    """Raise RunError where something lies at the path of a run to be."""
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise RunError(f"{final} exists already; choose another --out, or remove it")


def complete(final: Path) -> None:
    """Do the last steps of a finished run, also where a kill has prevented them."""
    write_text(final.parent / LATEST_FILE, final.name + "\n", errors="surrogateescape")
    (final / RESUME_FILE).unlink(missing_ok=True)


def is_finished(run: Path) -> bool:
    """Whether `run` is the folder of a finished run."""
    working, final = _names(run)
    return run == final and (final / RUN_FILE).is_file() and not working.exists()


def working_or_final(run: Path) -> Path:
    """Where a run lies: while it is worked on, or was when its process died, else its own name."""
    working, final = _names(run)
    return working if working.is_dir() else final


def find_cut_off(run: Path) -> Path | None:
    """The finished run, where it was killed before its last steps; else None."""
    _, final = _names(run)
    return final if (final / RUN_FILE).is_file() and (final / RESUME_FILE).is_file() else None


def read_settings(run: Path) -> dict[str, Any]:
    """The options that an unfinished run was started with.

    Args:
        run: its folder, or the name that it will have.

    Raises:
        RunError: no such run, a finished one, or one that can't be resumed.
    """
    working, final = _names(run)
    if not working.is_dir():
        if (final / RUN_FILE).is_file():
            raise RunError(
                f"{final} is finished; there is nothing to resume: 'zooft evaluate {final}' evaluates it, and with "
                "--epochs MORE a new run continues where it ended"
            )
        raise RunError(f"there is no run {working} to resume; name the folder of an interrupted run")
    path = working / RESUME_FILE
    if not path.is_file():
        raise RunError(f"{working} can't be resumed: it has no {RESUME_FILE}; train again into another --out")
    try:
        values = configuration.read_toml(path, errors="surrogateescape")
    except ConfigError as error:
        raise RunError(f"{working} can't be resumed: {error}") from error
    schema, writer = values.pop("schema", None), values.pop("zooft", None)
    if schema != _RESUME_SCHEMA:
        raise RunError(
            f"{path} isn't of schema {_RESUME_SCHEMA}, which this zooft {__version__} reads; resume it with "
            + (f"zooft {writer}, which wrote it" if writer else "the zooft that wrote it")
        )
    return values


def reopen(run: Path) -> WorkingFolder:
    """Open an unfinished run for this process to work on.

    Args:
        run: its folder, or the name that it will have.

    Raises:
        RunError: another process works on it, or it can't be resumed.
    """
    working, final = _names(run)
    read_settings(run)
    lock = _hold(working, final)
    try:
        read_settings(run)  # it may have been finished before this process had the lock
        for draft in working.rglob("*.partial"):
            if draft.is_file():
                draft.unlink()
    except BaseException:
        exclusive.release(lock)
        raise
    return WorkingFolder(working, final, resumed=True, lock=lock)


def latest(start: Path = RUNS) -> Path:
    """The run that was finished last in `start`.

    Raises:
        RunError: there is none.
    """
    marker = start / LATEST_FILE
    if not marker.is_file():
        raise RunError(f"no run was named and {marker} doesn't exist; name a run folder")
    return start / marker.read_text(encoding="utf-8", errors="surrogateescape").strip()


def best_epoch(run: Path) -> int:
    """The epoch, from 1, whose weights were saved."""
    records = map(json.loads, (run / EPOCHS_FILE).read_text(encoding="utf-8").splitlines())
    return max(int(record["epoch"]) for record in records if record["best"])


def write_json(path: Path, value: Any) -> None:
    """Write a dataclass or plain values, whole or not at all; NaN becomes null."""
    write_text(path, in_json(json.dumps(to_json(value), indent=2, ensure_ascii=False)) + "\n")


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Write a line for each value, whole or not at all; NaN becomes null."""
    write_text(path, "".join(in_json(json.dumps(to_json(value), ensure_ascii=False)) + "\n" for value in values))


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Write a file whole or not at all.

    Args:
        path: of the file.
        text: in UTF-8.
        errors: as `open` takes it; ``surrogateescape`` writes names of files that aren't UTF-8 byte by byte.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", errors=errors) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def to_json(value: Any) -> Any:
    """Dataclasses, paths, tuples and sets as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(to_json(item) for item in value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # numpy's scalars
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _names(run: Path) -> tuple[Path, Path]:
    """A run's folder while it is worked on, and its final one."""
    if run.name.endswith(SUFFIX):
        return run, run.with_name(run.name.removesuffix(SUFFIX))
    return run.with_name(run.name + SUFFIX), run


def _hold(working: Path, final: Path) -> BaseFileLock | None:
    return exclusive.hold(final, refusal=f"another run is at work in {working}; wait for it, or choose another --out")


def _refuse_leftover(working: Path) -> None:
    if (working / RESUME_FILE).is_file():
        raise RunError(
            f"{working} is an interrupted run; resume it with 'zooft finetune --resume {working}', choose another "
            "--out, or remove it"
        )
    if working.exists():
        raise RunError(
            f"{working} exists: another run is at work there, or was interrupted; choose another --out, or remove it"
        )


def _make(working: Path, settings: Mapping[str, Any], local: Mapping[str, Any], after: Path | None) -> None:
    """Make the folder with the run's options in it at once, so that a killed process leaves one that can be resumed."""
    draft = working.with_name(f".{working.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        write_text(draft / SETTINGS_FILE, configuration.to_toml(settings))
        whole = configuration.to_toml({"schema": _RESUME_SCHEMA, "zooft": __version__, **settings, **local})
        write_text(draft / RESUME_FILE, whole, errors="surrogateescape")
        if after is not None:
            _copy_epochs(after, draft)
        draft.rename(working)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _copy_epochs(finished: Path, draft: Path) -> None:
    """Copy the files of a run's epochs, and the record of what they were trained on."""
    for name in (RUN_FILE, EPOCHS_FILE, WEIGHTS_FILE):
        shutil.copyfile(finished / name, draft / name)
    for name in (LAST_FOLDER, FOLDS_FOLDER):
        if (finished / name).is_dir():
            shutil.copytree(finished / name, draft / name)


def _next_free(folder: Path, stem: str) -> Path:
    taken = {path.name.removesuffix(SUFFIX) for path in folder.glob(f"{stem}-*")}
    number = 1
    while f"{stem}-{number}" in taken:
        number += 1
    return folder / f"{stem}-{number}"


def slug(text: str) -> str:
    """A name as part of a folder's."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text)
