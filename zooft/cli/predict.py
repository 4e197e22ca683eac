"""``zooft predict``."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

import click

from zooft.cli import subject
from zooft.cli.output import json_flag, print_json, print_table
from zooft.errors import DataError, RuntimeModelError


@click.command(
    epilog="""\b
Examples:
  zooft predict model.onnx photo.jpg
  zooft predict model.onnx folder 'more/*.png' --json""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True)
@subject.provider_flag
@json_flag
def predict(model: Path, paths: tuple[str, ...], provider: str, as_json: bool) -> None:
    """Classify files, folders or globs with an exported file; torch isn't needed.

    What can't be read is listed with its reason; the exit status is 1 where that is everything.
    """
    from zooft import registry, runtime, saved

    opened = runtime.load(model, provider=provider)
    task, options = saved.task_of_file(opened, registry.load())
    rows = [_answer(opened, task, options, path) for path in _expand(paths)]
    if as_json:
        print_json({"classes": opened.metadata.classes, "predictions": rows})
    else:
        print_table("", ("file", "class", "probability"), [_cells(row) for row in rows])
    if all(row.get("error") for row in rows):
        raise click.exceptions.Exit(1)


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
    if not path.exists():
        return {"file": str(path), "error": "no such file, folder or match"}
    try:
        probabilities = opened.run(task.read(path, options)[None])[0][0]
    except DataError as error:
        return {"file": str(path), "error": str(error)}
    except RuntimeModelError:
        raise
    except Exception as error:  # plugin code
        return {"file": str(path), "error": f"the task {task.name} failed: {type(error).__name__}: {error}"}
    best = int(probabilities.argmax())
    return {
        "file": str(path),
        "class": opened.metadata.classes[best],
        "probability": float(probabilities[best]),
        "probabilities": [float(p) for p in probabilities],
    }


def _cells(row: dict[str, Any]) -> tuple[str, str, str]:
    if row.get("error"):
        return row["file"], "not read", row["error"]
    return row["file"], row["class"], f"{row['probability']:.4f}"
