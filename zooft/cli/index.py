"""``zooft index``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zooft import runtime
from zooft.cli import model_argument, paths
from zooft.cli.live import Live
from zooft.cli.output import json_flag, print_json
from zooft.cli.predict_output import Tally
from zooft.cli.screen import echo
from zooft.contracts.plurals import pluralize
from zooft.errors import ConfigError
from zooft.hooks import registry
from zooft.model.weights import file_sha256
from zooft.run.folder import ONNX_FILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from zooft.deploy.embeddings import Index
    from zooft.deploy.predict import Answer

_SOME_FAILED = 3


@click.command(epilog="\b\nExample:\n  zooft index photos --model runs/retrieval-1/model.onnx --out photos.index")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), required=True, help="file that gives embeddings, or its run")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="index to write")
@click.option("--threads", type=click.IntRange(min=1), help="that compute [default: OMP_NUM_THREADS, else the cores]")
@model_argument.provider_flag
@json_flag
def index(folder: Path, model: Path, out: Path, threads: int | None, provider: str, as_json: bool) -> None:
    """Keep the embeddings of all pictures below a folder in one file, to search among; torch isn't needed.

    What can't be read is listed with its reason. The exit status is 0 where all pictures are in the index, 3 where some
    aren't, 1 where none is.
    """
    file = model / ONNX_FILE if model.is_dir() else model
    _check(folder, out)
    from zooft.deploy import embeddings

    meant = paths.files([str(folder)], leave=[out])
    tally = Tally(left_out=paths.summary(meant.left_out))
    lacking: list[Answer] = []

    def report(answer: Answer) -> None:
        tally.count(answer)
        lacking.extend([answer] if answer.error else [])

    with Live() as live:
        made = _embed(file, folder, out, meant.files, live, report=report, threads=threads or 0, provider=provider)
        if made is not None:
            embeddings.write(made, out)
    for answer in lacking:
        echo(f"{answer.key}: {answer.error}", err=True)
    if tally.left_out:
        echo(tally.left_out, err=True)
    if made is None:
        raise click.exceptions.Exit(1)
    if as_json:
        faults = [{"file": answer.key, "error": answer.error} for answer in lacking]
        print_json({"index": str(out), "pictures": len(made.files), "threshold": made.threshold, "errors": faults})
    else:
        echo(f"{pluralize(len(made.files), 'picture is', 'pictures are')} in {out}; next: zooft search {out} FILE")
    if lacking:
        raise click.exceptions.Exit(_SOME_FAILED)


def _check(folder: Path, out: Path) -> None:
    """Refuse what can't be done, or would destroy something, before anything is computed."""
    from zooft.deploy import embeddings

    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {out.absolute().parent} to write {out.name} into")
    if out.exists() and not embeddings.is_index(out):
        raise ConfigError(f"{out} is there and isn't an index; name another file")


def _embed(
    file: Path,
    folder: Path,
    out: Path,
    files: tuple[Path, ...],
    live: Live,
    *,
    report: Callable[[Answer], None],
    threads: int,
    provider: str,
) -> Index | None:
    """The index, not yet written; None where no picture could be read."""
    import numpy as np

    from zooft.deploy import embeddings, metadata_check, predict, saved

    opened = runtime.load(file, provider=provider, threads=1)  # pictures are read and embedded side by side
    embeddings.refuse_other_model(opened, file)
    task, options = saved.task_of_file(opened, registry.load())
    for text in metadata_check.doubts(opened, file, task.problem):
        echo(text, err=True)
    advance = live.computing("pictures", len(files))
    names, rows = [], []

    def count(answer: Answer) -> None:
        report(answer)
        advance(1)

    side_by_side = threads or runtime.default_threads()
    for answer in predict.draw_files(opened, task, options, files, report=count, threads=side_by_side):
        names.append(Path(os.path.relpath(answer.key, folder)).as_posix())
        rows.append(answer.outputs[embeddings.OUTPUT])
    if not rows:
        return None
    together = np.stack(rows)
    return embeddings.Index(
        model_sha256=file_sha256(file),
        model=Path(os.path.relpath(file.absolute(), out.absolute().parent)).as_posix(),
        threshold=embeddings.threshold_of(opened),
        files=names,
        embeddings=together,
        graph=embeddings.make_graph(together, threads=threads),
    )
