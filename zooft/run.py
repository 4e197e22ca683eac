"""A run: one folder, made complete or not at all.

Owns the folder's life (worked on under ``NAME.incomplete``, renamed when whole), its files' names, atomic
writing, and finding the latest one.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zooft.errors import RunError

RUN_FILE = "run.json"
SAMPLES_FILE = "samples.csv"
REJECTED_FILE = "rejected.csv"
EPOCHS_FILE = "metrics.jsonl"
WEIGHTS_FILE = "model.safetensors"
ONNX_FILE = "model.onnx"
REFUSED_FILE = "model.unverified.onnx"
VERIFICATION_FILE = "verification.json"
AUDIT_FILE = "audit.json"
REPORT_FILE = "report.html"
SETTINGS_FILE = "settings.toml"
PREDICTIONS_FILE = "predictions.csv"
FOLDS_FOLDER = "folds"
LAST_FOLDER = "last"
LATEST_FILE = ".latest"
SUFFIX = ".incomplete"
RUNS = Path("runs")
SCHEMA = 2


@dataclass(frozen=True, slots=True)
class WorkingFolder:
    """A run in the making: where it is worked on, and where it will stand."""

    path: Path
    final: Path

    def publish(self) -> Path:
        """Give the folder its name, and remember it as the latest beside it."""
        self.path.replace(self.final)
        write_text(self.final.parent / LATEST_FILE, self.final.name + "\n")
        return self.final

    def abandon(self) -> str:
        """Clean up after a failure: what has learnt something stays, and the words say where."""
        if (self.path / WEIGHTS_FILE).exists():
            return f"what was learnt so far is in {self.path}; 'zooft evaluate {self.path}' and 'zooft export {self.path}' work on it"
        if any(self.path.glob(f"{FOLDS_FOLDER}/*/{WEIGHTS_FILE}")):
            return f"the folds that were finished are in {self.path / FOLDS_FOLDER}; 'zooft evaluate' works on each"
        import shutil

        shutil.rmtree(self.path, ignore_errors=True)
        return ""


def claim(out: Path | None, *, task: str, model: str) -> WorkingFolder:
    """Make the folder that a run works in.

    Args:
        out: as asked for; None for ``runs/TASK-MODEL-N``.
        task: for the default name.
        model: for the default name.

    Raises:
        RunError: the folder is in use, or can't be made.
    """
    final = out if out is not None else _next_free(RUNS, f"{task}-{_slug(model)}")
    if not final.name or final.name == "..":
        raise RunError(
            f"{final} can't be the run's own folder; give --out a new folder's name, such as {final / 'run'}"
        )
    working = final.with_name(final.name + SUFFIX)
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise RunError(f"{final} exists already; choose another --out, or remove it")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"the folder {final.parent} can't be made: {error.strerror}; choose another --out") from error
    try:
        working.mkdir()
    except FileExistsError:
        raise RunError(
            f"{working} exists: another run is at work there, or one was killed; choose another --out, or remove it"
        ) from None
    except OSError as error:
        raise RunError(f"the run folder {final} can't be made: {error.strerror}; choose another --out") from error
    return WorkingFolder(working, final)


def latest(start: Path = RUNS) -> Path:
    """The run that was finished last in `start`.

    Raises:
        RunError: there is none.
    """
    marker = start / LATEST_FILE
    if not marker.is_file():
        raise RunError(f"no run was named and {marker} doesn't exist; name a run folder")
    return start / marker.read_text(encoding="utf-8").strip()


def read(run: Path) -> dict[str, Any]:
    """A run's ``run.json``.

    Raises:
        RunError: no run, an incomplete one, or one of a newer zooft.
    """
    path = run / RUN_FILE
    if not path.is_file():
        hint = "; it is incomplete" if run.name.endswith(SUFFIX) else ""
        raise RunError(f"{run} isn't a run folder: it has no {RUN_FILE}{hint}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read: {error}") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise RunError(f"{path} isn't of schema {SCHEMA}, which this zooft reads; use the zooft that wrote it")
    return record


def best_epoch(run: Path) -> int:
    """The epoch, from 1, whose weights were kept."""
    records = map(json.loads, (run / EPOCHS_FILE).read_text(encoding="utf-8").splitlines())
    return max(int(record["epoch"]) for record in records if record["best"])


def write_json(path: Path, value: Any) -> None:
    """Write a dataclass or plain values, whole or not at all; NaN becomes null."""
    write_text(path, json.dumps(to_json(value), indent=2, ensure_ascii=False) + "\n")


def append_json(path: Path, value: Any) -> None:
    """Add one line to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(to_json(value), ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def to_json(value: Any) -> Any:
    """Dataclasses, paths and tuples as JSON has them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # numpy's scalars
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _next_free(folder: Path, stem: str) -> Path:
    taken = {path.name.removesuffix(SUFFIX) for path in folder.glob(f"{stem}-*")}
    number = 1
    while f"{stem}-{number}" in taken:
        number += 1
    return folder / f"{stem}-{number}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text)
