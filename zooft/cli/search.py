"""``zooft search``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zooft import runtime
from zooft.cli import model_argument, paths
from zooft.cli.output import json_flag, print_json, print_table
from zooft.cli.predict_output import Tally
from zooft.cli.screen import echo
from zooft.errors import RuntimeModelError
from zooft.hooks import registry
from zooft.model.weights import file_sha256
from zooft.run.folder import ONNX_FILE

if TYPE_CHECKING:
    from zooft.deploy.embeddings import Index, Neighbour
    from zooft.deploy.predict import Answer

_SOME_FAILED = 3
_Found = dict[str, "list[Neighbour]"]


@click.command(
    epilog="""\b
Examples:
  zooft search photos.index who.jpg
  zooft search photos.index new/*.jpg --top 3 --json"""
)
@click.argument("index", type=click.Path(path_type=Path))
@click.argument("typed", nargs=-1, required=True, metavar="FILES...")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="that the index was made with, or its run [default: where it lay then]",
)
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="how many of the nearest to show")
@click.option("--threads", type=click.IntRange(min=1), help="that compute [default: OMP_NUM_THREADS, else the cores]")
@model_argument.provider_flag
@json_flag
def search(
    index: Path, typed: tuple[str, ...], model: Path | None, top: int, threads: int | None, provider: str, as_json: bool
) -> None:
    """Show the pictures of an index that are nearest to others, and whether they show the same; torch isn't needed.

    The distance is 1 less the cosine; the same are those up to the threshold that validation pairs have fitted. The
    exit status is 0 where everything was answered, 3 where some wasn't, 1 where nothing was.
    """
    from zooft.deploy import embeddings

    known = embeddings.read(index)
    tally, lacking = Tally(), list[Any]()
    meant = paths.files(typed)

    def report(answer: Answer) -> None:
        tally.count(answer)
        lacking.extend([answer] if answer.error else [])

    file = _model(model, known, index)
    found = _answers(file, known, meant.files, report=report, top=top, threads=threads or 0, provider=provider)
    if as_json:
        print_json(_as_json(found, lacking, known))
    elif found:
        _show(found, known)
    for answer in lacking:
        echo(f"{answer.key}: {answer.error}", err=True)
    if meant.left_out:
        echo(paths.summary(meant.left_out), err=True)
    if not found:
        raise click.exceptions.Exit(1)
    if lacking:
        raise click.exceptions.Exit(_SOME_FAILED)


def _model(given: Path | None, known: Index, index: Path) -> Path:
    """The file that the index was made with.

    Raises:
        RuntimeModelError: it isn't there, or is another.
    """
    file = given if given is not None else index.absolute().parent / known.model
    file = file / ONNX_FILE if file.is_dir() else file
    if not file.is_file():
        why = "" if given is not None else f", where the index {index} was made with it; give its place with --model"
        raise RuntimeModelError(f"there is no model {file}{why}")
    found = file_sha256(file)
    if found != known.model_sha256:
        raise RuntimeModelError(
            f"{index} was made with another model (SHA-256 {known.model_sha256[:12]}…) than {file} ({found[:12]}…), "
            "so distances would mean nothing; give that model, or make the index again with 'zooft index'"
        )
    return file


def _answers(
    file: Path, known: Index, files: Sequence[Path], *, report: Any, top: int, threads: int, provider: str
) -> _Found:
    from zooft.deploy import embeddings, predict, saved

    opened = runtime.load(file, provider=provider, threads=threads)
    embeddings.refuse_other_model(opened, file)
    task, options = saved.task_of_file(opened, registry.load())
    searcher = embeddings.Searcher(known)
    return {
        answer.key: searcher.nearest(answer.outputs[embeddings.OUTPUT], top)
        for answer in predict.draw_files(opened, task, options, files, report=report)
    }


def _as_json(found: _Found, lacking: Sequence[Answer], known: Index) -> dict[str, Any]:
    return {
        "threshold": known.threshold,
        "answers": [{"file": file, "nearest": nearest} for file, nearest in found.items()],
        "errors": [{"file": answer.key, "error": answer.error} for answer in lacking],
    }


def _show(found: _Found, known: Index) -> None:
    rows = [
        (file if not place else "", each.file, f"{each.distance:.4f}", _word(each.same))
        for file, nearest in found.items()
        for place, each in enumerate(nearest)
    ]
    above = "" if known.threshold is None else f" (the same up to a distance of {known.threshold:.4f})"
    print_table(f"Nearest of {len(known.files):,} pictures{above}", ("file", "nearest", "distance", "same"), rows)


def _word(same: bool | None) -> str:
    return "not known" if same is None else "yes" if same else "no"
