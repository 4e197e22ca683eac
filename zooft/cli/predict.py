"""``zooft predict``."""

from __future__ import annotations

import csv
import glob
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zooft.cli import subject
from zooft.cli.live import Live
from zooft.cli.output import json_flag, print_json, print_table
from zooft.cli.screen import say, write
from zooft.errors import ConfigError, DataError, RuntimeModelError
from zooft.run import ONNX_FILE

if TYPE_CHECKING:
    from zooft.contracts import Computing, Discovery, GroupResult, Task
    from zooft.runtime import OnnxModel

_FORMATS = ("table", "json", "csv")


@click.command(
    epilog="""\b
Examples:
  zooft predict model.onnx photo.jpg
  zooft predict model.onnx folder 'more/*.png' --json
  zooft predict model.onnx SERIES_DIR --format dicom-sr --out results""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True)
@click.option("--format", "form", default="table", show_default=True, metavar="FORMAT",
              help="table, json, csv, or a format of the task's own, such as dicom-sr of ct")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="file, or folder for a task's own format, to write")
@click.option("--identify", is_flag=True, help="name patients and series, where the task hides them")
@subject.provider_flag
@json_flag
def predict(
    model: Path,
    paths: tuple[str, ...],
    form: str,
    out: Path | None,
    identify: bool,
    provider: str,
    as_json: bool,
) -> None:
    """Classify files, folders or globs with an exported file, or a run's; torch isn't needed.

    Tasks with patients answer once for each patient, by a salted name unless --identify is given. What can't be read
    is listed with its reason; the exit status is 1 where that is everything.
    """
    from zooft import registry, runtime, saved

    opened = runtime.load(model / ONNX_FILE if model.is_dir() else model, provider=provider)
    task, options = saved.task_of_file(opened, registry.load())
    form = "json" if as_json else form
    if form not in (*_FORMATS, *task.writers):
        raise ConfigError(
            f"there is no format {form!r}; the task {task.name} has {', '.join((*_FORMATS, *task.writers))}"
        )
    if form in task.writers and out is None:
        raise ConfigError(f"--format {form} writes files: name a folder with --out")
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.absolute().parent}; make it first")
    if task.gather is None:
        rows = [_answer(opened, task, options, path) for path in _expand(paths)]
        _deliver(_by_file(rows), form, out, {"classes": opened.metadata.classes, "predictions": rows})
        read = any(not row.get("error") for row in rows)
    else:
        read = _by_patient(opened, task, options, paths, form=form, out=out, identify=identify)
    if not read:
        raise click.exceptions.Exit(1)


def _by_patient(
    opened: OnnxModel, task: Task, options: Any, paths: Sequence[str], *, form: str, out: Path | None, identify: bool
) -> bool:
    from zooft import judge, saved
    from zooft.contracts import DeployedFile

    places = [place for text in paths for place in _matches(text)]
    with Live() as live:
        live.step("reading")
        line = opened.metadata.calibration.threshold
        if line is not None:
            live.note(f"{opened.metadata.classes[-1]} is said from a probability of {line:.4f} on")
        found = _gathered(task, places, options, live.computing)
        for text in (*(f"not used: {rejected.id}: {rejected.reason}" for rejected in found.rejected), *found.notes):
            live.note(text)
        answers = saved.predict_file(
            opened, task, options, found.samples, advance=live.computing("samples", len(found.samples))
        )
    metadata = opened.metadata
    results = judge.by_group(
        answers, metadata.classes, threshold=metadata.calibration.threshold, group_score=metadata.group_score
    )
    if form in task.writers and out is not None:
        file = DeployedFile(
            classes=metadata.classes, threshold=metadata.calibration.threshold, backbone=metadata.backbone,
            version=metadata.version, weights_sha256=metadata.weights_sha256,
        )  # fmt: skip
        for path in task.writers[form](results, file, out, options):
            say(path)
        return bool(results)
    rows = [_row(result, metadata.classes, task.identify(result, options) if identify else {}) for result in results]
    whole = {
        "classes": metadata.classes, "threshold": metadata.calibration.threshold, "intended_use": metadata.intended_use,
        "predictions": rows, "rejected": found.rejected,
    }  # fmt: skip
    _deliver(_table_of(rows, metadata.classes), form, out, whole)
    return bool(results)


def _gathered(task: Task, paths: Sequence[Path], options: Any, computing: Computing) -> Discovery:
    from zooft.errors import PluginError, ZooftError
    from zooft.samples import words

    assert task.gather is not None  # noqa: S101 -- the caller has looked
    try:
        return task.gather(paths, options, computing)
    except ZooftError:
        raise
    except Exception as error:  # plugin code
        raise PluginError(f"the task {task.name} failed: {words(task, error)}") from None


def _matches(text: str) -> list[Path]:
    """A file or folder, or what a pattern means."""
    path = Path(text)
    found = [path] if path.exists() else sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207 -- absolute patterns too
    if not found:
        raise DataError(f"there is nothing at {text}")
    return found


def _row(result: GroupResult, classes: Sequence[str], names: Any) -> dict[str, Any]:
    return {
        "patient": result.group,
        **names,
        "class": result.prediction,
        "probabilities": dict(zip(classes, result.probabilities, strict=True)),
        "samples": len(result.members),
        "decisive": result.decisive.id,
    }


def _table_of(rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    plain = [key for key in (rows[0] if rows else {"patient": "", "class": ""}) if key != "probabilities"]
    head = [*plain, *(f"p({name})" for name in classes)]
    return head, [
        [*(str(row[key]) for key in plain), *(f"{row['probabilities'][name]:.4f}" for name in classes)] for row in rows
    ]


def _by_file(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    return ["file", "class", "probability"], [list(_cells(row)) for row in rows]


def _deliver(table: tuple[list[str], list[list[str]]], form: str, out: Path | None, whole: dict[str, Any]) -> None:
    """On standard output, or in a file."""
    from zooft.run import to_json, write_text

    columns, rows = table
    if form == "table" and out is None:
        print_table("", columns, rows)
        return
    if form == "json" and out is None:
        print_json(whole)
        return
    if form == "json":
        text = json.dumps(to_json(whole), indent=2, ensure_ascii=False) + "\n"
    else:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([columns, *rows])
        text = buffer.getvalue()
    if out is None:
        write(text)
    else:
        write_text(out, text)
        say(out)


def _expand(paths: tuple[str, ...]) -> list[Path]:
    """The files that are meant; a path that leads nowhere stays in the list, to be reported with the others."""
    found: list[Path] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        elif path.exists():
            found.append(path)
        else:
            matches = sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207 -- absolute patterns too
            found += [match for match in matches if match.is_file()] or [path]
    if not found:
        raise DataError(f"there are no files in {' '.join(paths)}")
    return found


def _answer(opened: Any, task: Any, options: Any, path: Path) -> dict[str, Any]:
    from zooft.samples import as_arrays

    if not path.exists():
        return {"file": str(path), "error": "no such file, folder or match"}
    try:
        arrays = as_arrays(task.read(path, options), path.name)
        probabilities = opened.run(*(array[None] for array in arrays))[0]
    except DataError as error:
        return {"file": str(path), "error": str(error)}
    except RuntimeModelError:
        raise
    except Exception as error:  # plugin code
        return {"file": str(path), "error": f"the task {task.name} failed: {type(error).__name__}: {error}"}
    best = int(opened.decide(probabilities)[0])
    return {
        "file": str(path),
        "class": opened.metadata.classes[best],
        "probability": float(probabilities[0, best]),
        "probabilities": [float(p) for p in probabilities[0]],
    }


def _cells(row: dict[str, Any]) -> tuple[str, str, str]:
    if row.get("error"):
        return row["file"], "not read", row["error"]
    return row["file"], row["class"], f"{row['probability']:.4f}"
