"""``zooft predict``."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zooft import runtime
from zooft.cli import model_argument, paths
from zooft.cli.live import Live
from zooft.cli.output import json_flag
from zooft.cli.predict_arguments import Job, PredictArguments, check_folder, check_format, check_out, check_overwritten
from zooft.cli.predict_output import Tally, open_sink
from zooft.cli.screen import echo
from zooft.contracts import DeployedFile
from zooft.deploy import formats
from zooft.deploy.formats import Layout
from zooft.hooks import registry
from zooft.run.folder import ONNX_FILE, to_json, write_text
from zooft.storage.sequences import pick

if TYPE_CHECKING:
    from zooft.cli.predict_output import Sink
    from zooft.contracts import GroupResult, Rejection
    from zooft.deploy.predict import Answer, Group, Input
    from zooft.hooks.registry import Registry

_MISSING_FILE = "not_judged.csv"
_LINES_EACH = 10
"""Lines that one reason gets on the screen: a folder of other files may hold thousands."""
_SOME_FAILED = 3
"""The exit status where some were answered whole, and others weren't."""


@click.command(
    epilog="""\b
Examples:
  zooft predict model.onnx photo.jpg
  zooft predict model.onnx folder 'more/*.png' --json
  zooft predict model.onnx pictures.parquet --out answers.csv
  zooft predict model.onnx folder --out answers.csv --resume
  zooft predict model.onnx folder --out answers.parquet
  zooft predict model.onnx SERIES_DIR --format dicom-sr --out results""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("typed", nargs=-1, required=True, metavar="PATHS...")
@click.option(
    "--format",
    "form",
    metavar="FORMAT",
    help="table, csv, json, jsonl, parquet (with --out), or a format of the task's own, such as dicom-sr of ct "
    "[default: as --out ends, else csv with --out, table without]",
)
@click.option("--out", type=click.Path(path_type=Path), help="file, or folder for a task's own format, to write")
@click.option("--resume", is_flag=True, help="continue --out of a command that was stopped")
@click.option(
    "--threads", type=click.IntRange(min=1), help="that compute [default: OMP_NUM_THREADS, else this machine's cores]"
)
@click.option("--identify", is_flag=True, help="name patients and series, where the task hides them")
@model_argument.provider_flag
@json_flag
def predict(model: Path, typed: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Predict on files, folders or globs with an exported file, or a run's; torch isn't needed.

    What a data source reads, such as a Parquet file, is answered row by row, each under its id.

    Answers come one after the other, as CSV and JSON lines at once; --out gets its name when it is whole. Tasks with
    patients answer once for each (and each study of one), by a salted name unless --identify is given. What can't be
    read is listed with its reason.

    The exit status is 0 where everything was answered, 3 where some wasn't or only in part, 1 where nothing was.
    """
    wanted = PredictArguments(
        model=model / ONNX_FILE if model.is_dir() else model, as_json=as_json, typed=typed, **given
    )
    check_out(wanted)  # before anything is opened that takes its time
    from zooft.deploy import metadata_check, saved

    installed = registry.load()
    opened = runtime.load(wanted.model, provider=wanted.provider, threads=_threads_each(wanted, installed))
    task, options = saved.task_of_file(opened, installed)
    sources = [entry.value for entry in installed.sources] if task.of_row is not None else []
    job = Job(wanted=wanted, opened=opened, task=task, options=options, sources=sources)
    check_format(job)
    check_overwritten(job)
    for text in metadata_check.doubts(opened, wanted.model, task.problem):
        echo(text, err=True)
    tally = _by_file(job) if task.gather is None else _by_group(job)
    for text in tally.sentences():
        echo(text, err=True)
    if not tally.answered:
        raise click.exceptions.Exit(1)
    if tally.failed:
        raise click.exceptions.Exit(_SOME_FAILED)


def _threads_each(wanted: PredictArguments, installed: Registry) -> int:
    """Computing threads of one run of the network: one where many files are predicted side by side.

    Of patients' volumes one is predicted after the other, and so are few files.
    """
    few = all(Path(text).is_file() for text in wanted.typed) and len(wanted.typed) < wanted.side_by_side
    if few or installed.task(runtime.read_metadata(wanted.model).task).gather is not None:
        return wanted.threads or 0
    return 1


def _by_file(job: Job) -> Tally:
    from zooft.deploy import predict as answers
    from zooft.deploy.journal import path_of

    out = job.wanted.out
    ours = [] if out is None else [out, path_of(out)]
    meant = paths.files(job.wanted.typed, leave=ours, sources=job.sources)
    about = {**job.about, "left_out": [{"id": each.id, "reason": each.reason} for each in meant.left_out]}
    layout = Layout(
        key="id" if meant.sources else "file",
        labels=job.labels,
        presentation=job.task.problem.presentation,
        facts=(),
        about=about,
    )
    tally = Tally(left_out=paths.summary(meant.left_out))
    if job.wanted.format in job.task.problem.deployment.writers:
        with _live(job.wanted) as live:
            return _by_writer(job, answers.list_inputs(meant.files, meant.sources, job.task, job.options), tally, live)
    with _live(job.wanted) as live, open_sink(job, layout, tally) as sink:
        for path, source in meant.sources.items():
            live.note(f"{path} is read as {source.name}")
        items = answers.list_inputs(meant.files, meant.sources, job.task, job.options)
        advance = live.computing("rows" if meant.sources else "files", len(items))
        open_ = pick(items, [number for number, one in enumerate(items) if not _is_known(job, one, sink)])
        advance(len(items) - len(open_))
        for one, answer in zip(
            open_,
            answers.of_each(job.opened, job.task, job.options, open_, threads=job.wanted.side_by_side),
            strict=True,
        ):
            sink.add(answer, answers.stamp(one, job.task, job.options) if sink.resumable else "")
            advance(1)
        sink.finish([answers.key_of(one) for one in items])
    return tally


def _unusable(groups: Sequence[Group]) -> Iterator[Rejection]:
    """What predictions lack."""
    yield from (rejected for group in groups for rejected in group.unjudged if rejected.missing)


def _by_writer(job: Job, items: Sequence[Input], tally: Tally, live: Live) -> Tally:
    """In a format of the problem's own, written into a folder as answers come."""
    from zooft.deploy import predict as answers

    folder, metadata = job.wanted.out, job.opened.metadata
    assert folder is not None  # noqa: S101 -- checked before
    check_folder(folder)
    lacking: list[Answer] = []
    advance = live.computing("files" if job.task.gather is None else "samples", len(items))

    def report(answer: Answer) -> None:
        tally.count(answer)
        lacking.extend([answer] if answer.error else [])
        advance(1)

    # patients' volumes are large: one is read while the network works on another
    threads = job.wanted.side_by_side if job.task.gather is None else min(2, job.wanted.side_by_side)
    made = answers.draw_files(job.opened, job.task, job.options, items, report=report, threads=threads)
    writer = job.task.problem.deployment.writers[job.wanted.format]
    written = writer(made, metadata.labels, metadata.fitted, folder)
    echo(f"{len(written)} files in {folder}" if len(written) != 1 else written[0])
    _write_missing(folder, lacking, key="file")
    return tally


def _is_known(job: Job, item: Input, sink: Sink) -> bool:
    """Whether an earlier command has its answer; what a row holds is read only where it matters."""
    from zooft.deploy import predict as answers

    key = answers.key_of(item)
    return sink.may_know(key) and sink.knows(key, answers.stamp(item, job.task, job.options))


def _by_group(job: Job) -> Tally:
    from zooft.deploy import predict as answers

    wanted, tally = job.wanted, Tally()
    with _live(wanted) as live:
        live.step("reading")
        for text in job.task.problem.presentation.opening(job.labels, job.opened.metadata.fitted):
            live.note(text)
        found = answers.discover_groups(job.task, paths.places(wanted.typed), job.options, live.computing)
        for text in (*_about_rejected(found.rejected), *found.notes):
            live.note(text)
        groups = answers.groups(found, typed=wanted.typed)
        if not groups:
            live.note(f"nobody to answer about: what was given holds nothing that the task {job.task.name} reads")
        if wanted.format in job.task.problem.deployment.writers:
            return _by_writer(
                job, [*(one for group in groups for one in group.samples), *_unusable(groups)], tally, live
            )
        advance = live.computing("samples", len(found.samples))
        if wanted.format in job.task.writers:
            results = [answers.of_group(job.opened, job.task, job.options, group, advance=advance) for group in groups]
            _write_own(job, groups, results, tally)
        else:
            _write_groups(job, groups, found.rejected, advance, tally)
    return tally


def _about_rejected(rejected: Sequence[Rejection]) -> Iterator[str]:
    """A line for each, so that none is missed; of many that have one reason, for the first ones."""
    of_reason = Counter(each.reason for each in rejected)
    printed = Counter[str]()
    for each in rejected:
        printed[each.reason] += 1
        if of_reason[each.reason] <= _LINES_EACH or printed[each.reason] < _LINES_EACH:
            yield f"not used: {each.id}: {each.reason}"
        elif printed[each.reason] == _LINES_EACH:
            more = of_reason[each.reason] - _LINES_EACH + 1
            yield f"not used: {more:,} more for the same reason ({each.reason}); --format json lists all"


def _write_groups(
    job: Job, groups: Sequence[Group], rejected: Sequence[Rejection], advance: Callable[[int], None], tally: Tally
) -> None:
    from zooft.deploy import predict as answers

    about = to_json({**job.about, "intended_use": job.opened.metadata.intended_use, "rejected": rejected})
    layout = Layout(
        key="patient",
        labels=job.labels,
        presentation=job.task.problem.presentation,
        facts=("samples", "missing", "decisive"),
        about=about,
    )
    with open_sink(job, layout, tally) as sink:
        for group in groups:
            stamp = group.stamp(job.task, job.options) if sink.resumable else ""
            if sink.knows(group.name, stamp):
                advance(len(group.samples))
                continue
            result = answers.of_group(job.opened, job.task, job.options, group, advance=advance)
            sink.add(answers.from_result(group, result, _names(job, result)), stamp)
        sink.finish([group.name for group in groups])


def _names(job: Job, result: GroupResult | str) -> Mapping[str, str]:
    return job.task.identify(result, job.options) if job.wanted.identify and not isinstance(result, str) else {}


def _write_own(job: Job, groups: Sequence[Group], results: Sequence[GroupResult | str], tally: Tally) -> None:
    """In a format of the task's own, which has a place for those who were answered.

    A table beside it has the others.
    """
    from zooft.deploy import predict as answers

    everyone = [answers.from_result(group, result, {}) for group, result in zip(groups, results, strict=True)]
    for answer in everyone:
        tally.count(answer)
    metadata = job.opened.metadata
    file = DeployedFile(
        problem=metadata.problem,
        labels=metadata.labels,
        fitted=metadata.fitted,
        backbone=metadata.backbone,
        version=metadata.version,
        weights_sha256=metadata.weights_sha256,
    )
    assert job.wanted.out is not None  # noqa: S101 -- checked before
    answered = [result for result in results if not isinstance(result, str)]
    for path in job.task.writers[job.wanted.format](answered, file, job.wanted.out, job.options):
        echo(path)
    _write_missing(job.wanted.out, [answer for answer in everyone if answer.error])


def _write_missing(folder: Path, lacking: Sequence[Answer], *, key: str = "patient") -> None:
    """Those who weren't answered, or only in part; an earlier command's entries of others are removed."""
    path, head = folder / _MISSING_FILE, formats.csv_line((key, "missing", "error"))
    if lacking:
        folder.mkdir(parents=True, exist_ok=True)
        rows = (formats.csv_line((each.key, each.facts.get("missing", ""), each.error)) for each in lacking)
        write_text(path, head + "".join(rows))
        echo(path)
    elif path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(head):
        path.unlink()


@contextlib.contextmanager
def _live(wanted: PredictArguments) -> Iterator[Live]:
    """Progress, but where rows run over the same terminal."""
    with Live(drawn=not (wanted.streams and sys.stdout.isatty())) as live:
        yield live
