"""``zooft predict``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zooft.cli import paths, subject
from zooft.cli.live import Live
from zooft.cli.output import json_flag, print_json, print_table
from zooft.cli.screen import say, write
from zooft.errors import ConfigError
from zooft.run import ONNX_FILE

if TYPE_CHECKING:
    from zooft.answers import Answer, Group
    from zooft.contracts import GroupResult, Rejection, Task
    from zooft.journal import Journal
    from zooft.layouts import Layout
    from zooft.runtime import OnnxModel

_MOST_TOLD = 5
_UNJUDGED = "not_judged.csv"
_SOME_FAILED = 3
"""The exit status where some were answered whole, and others weren't."""


@click.command(
    epilog="""\b
Examples:
  zooft predict model.onnx photo.jpg
  zooft predict model.onnx folder 'more/*.png' --json
  zooft predict model.onnx folder --out answers.csv --resume
  zooft predict model.onnx SERIES_DIR --format dicom-sr --out results""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("typed", nargs=-1, required=True, metavar="PATHS...")
@click.option("--format", "form", metavar="FORMAT",
              help="table, csv, json, jsonl, or a format of the task's own, such as dicom-sr of ct "
                   "[default: as --out ends, else csv with --out, table without]")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="file, or folder for a task's own format, to write")
@click.option("--resume", is_flag=True, help="go on with what a command that was stopped has left of --out")
@click.option("--threads", type=click.IntRange(min=1),
              help="that compute [default: OMP_NUM_THREADS, else this machine's cores]")  # fmt: skip
@click.option("--identify", is_flag=True, help="name patients and series, where the task hides them")
@subject.provider_flag
@json_flag
def predict(model: Path, typed: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Classify files, folders or globs with an exported file, or a run's; torch isn't needed.

    Answers come one after the other, as CSV and JSON lines at once; --out gets its name when it is whole. Tasks with patients answer
    once for each (and each study of one), by a salted name unless --identify is given. What can't be read is listed with its reason.

    The exit status is 0 where everything was answered, 3 where some wasn't or only in part, 1 where nothing was.
    """
    wanted = _Wanted(model=model / ONNX_FILE if model.is_dir() else model, as_json=as_json, typed=typed, **given)
    _check_out(wanted)  # before anything is opened that takes its time
    from zooft import declared, registry, runtime, saved

    opened = runtime.load(wanted.model, provider=wanted.provider, threads=wanted.threads or 0)
    task, options = saved.task_of_file(opened, registry.load())
    job = _Job(wanted=wanted, opened=opened, task=task, options=options)
    _check_format(job)
    for text in declared.doubts(opened, wanted.model):
        say(text, err=True)
    tally = _by_file(job) if task.gather is None else _by_group(job)
    for text in tally.sentences():
        say(text, err=True)
    if not tally.answered:
        raise click.exceptions.Exit(1)
    if tally.failed:
        raise click.exceptions.Exit(_SOME_FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What was typed."""

    model: Path
    typed: tuple[str, ...]
    form: str | None
    out: Path | None
    resume: bool
    threads: int | None
    identify: bool
    provider: str
    as_json: bool

    @property
    def format(self) -> str:
        """The format's name."""
        from zooft import layouts

        if self.form is not None and not (self.form == "table" and self.out is not None):
            return self.form
        if self.as_json:
            return "json"
        return "table" if self.out is None else layouts.BY_SUFFIX.get(self.out.suffix.lower(), "csv")

    @property
    def streams(self) -> bool:
        """Whether answers are written to standard output as they come."""
        return self.out is None and self.format in {"csv", "jsonl"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What was typed, with the model and the task that belong to it."""

    wanted: _Wanted
    opened: OnnxModel
    task: Task
    options: Any


@dataclass(slots=True)
class _Tally:
    """How it went."""

    answered: int = 0
    failed: int = 0
    first: list[str] = field(default_factory=list)
    left_out: str = ""

    def count(self, answer: Answer) -> None:
        """One more."""
        self.answered += answer.prediction is not None
        self.failed += bool(answer.error)
        if answer.error and len(self.first) < _MOST_TOLD:
            self.first.append(f"{answer.key}: {answer.error}")

    def sentences(self) -> Iterator[str]:
        """What wasn't answered, and why."""
        if self.failed:
            yield f"{self.answered} answered; {self.failed} not, or not wholly:"
            yield from (f"  {text}" for text in self.first)
            if self.failed > len(self.first):
                yield f"  and {self.failed - len(self.first)} more, in the column error"
        if self.left_out:
            yield self.left_out


def _check_out(wanted: _Wanted) -> None:
    """Refuse what would destroy something or couldn't be written, before hours of computing."""
    from zooft import layouts

    if wanted.as_json and wanted.form not in (None, "json"):
        raise ConfigError(f"--json is --format json, and --format {wanted.form} was given too; give one of them")
    if wanted.form not in (None, *layouts.FORMATS):  # a task's own: it writes a folder
        if wanted.out is not None and wanted.out.exists() and not wanted.out.is_dir():
            raise ConfigError(f"--format {wanted.form} writes files into a folder, and --out {wanted.out} is a file")
        if wanted.resume:
            raise ConfigError(f"--resume is for {', '.join(layouts.FORMATS)}, not for --format {wanted.form}")
    if wanted.out is None:
        if wanted.resume:
            raise ConfigError("--resume goes on with a file: name it with --out")
        return
    if not wanted.out.absolute().parent.is_dir():
        raise ConfigError(f"--out {wanted.out}: there is no folder {wanted.out.absolute().parent}; make it first")
    if not os.access(wanted.out.absolute().parent, os.W_OK):
        raise ConfigError(
            f"--out {wanted.out}: nothing may be written in {wanted.out.absolute().parent}; name another place"
        )
    if wanted.form in (None, *layouts.FORMATS):
        _check_file(wanted.out, wanted)


def _check_file(out: Path, wanted: _Wanted) -> None:
    from zooft import journal, layouts

    journal.check(out.resolve(), resume=wanted.resume)
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; name a file in it, such as {out / 'answers'}.{wanted.format}")
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_file():
        raise ConfigError(f"--out {out} isn't a regular file; without --out, answers go to standard output")
    if out.resolve() in {
        wanted.model.resolve(),
        *(Path(text).resolve() for text in wanted.typed if Path(text).is_file()),
    }:
        raise ConfigError(f"--out {out} is what is read here, and would be overwritten; name another file")
    if not layouts.is_result(out):
        raise ConfigError(
            f"--out {out} exists and isn't what predict writes, so it stays; name another file, or remove it"
        )


def _check_format(job: _Job) -> None:
    from zooft import layouts

    form, writers = job.wanted.format, job.task.writers
    if form not in (*layouts.FORMATS, *writers):
        known = ", ".join((*layouts.FORMATS, *writers))
        raise ConfigError(f"there is no format {form!r}; the task {job.task.name} has {known}")
    if form in writers and job.wanted.out is None:
        raise ConfigError(f"--format {form} writes files: name a folder with --out")


def _by_file(job: _Job) -> _Tally:
    from zooft import answers
    from zooft.journal import path_of
    from zooft.layouts import Layout

    out = job.wanted.out
    ours = [] if out is None else [out, path_of(out)]
    meant = paths.files(job.wanted.typed, leave=ours)
    about = {
        "classes": list(job.opened.metadata.classes),
        "left_out": [{"id": each.id, "reason": each.reason} for each in meant.left_out],
    }
    layout = Layout(key="file", classes=job.opened.metadata.classes, facts=(), about=about)
    tally = _Tally(left_out=paths.summary(meant.left_out))
    with _live(job.wanted) as live, _writing(job, layout, tally) as sink:
        advance = live.computing("files", len(meant.files))
        stamps = {path: stamp for path in meant.files if (stamp := _stamp(path)) and sink.knows(str(path), stamp)}
        advance(len(stamps))
        open_ = [path for path in meant.files if path not in stamps]
        for path, answer in zip(
            open_,
            answers.of_files(job.opened, job.task, job.options, open_, ahead=job.wanted.threads != 1),
            strict=True,
        ):
            sink.add(answer, _stamp(path))
            advance(1)
        sink.finish([str(path) for path in meant.files])
    return tally


def _stamp(path: Path) -> str:
    """What tells whether a file is still the same."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def _by_group(job: _Job) -> _Tally:
    from zooft import answers

    wanted, metadata, tally = job.wanted, job.opened.metadata, _Tally()
    with _live(wanted) as live:
        live.step("reading")
        line = metadata.calibration.threshold
        if line is not None:
            live.note(f"{metadata.classes[-1]} is said from a probability of {line:.4f} on")
        elif len(metadata.classes) == 2:
            live.note(f"the positive class is {metadata.classes[1]}")
        found = answers.gathered(job.task, paths.places(wanted.typed), job.options, live.computing)
        for text in (*_about_rejected(found.rejected), *found.notes):
            live.note(text)
        asked = answers.groups(found, typed=wanted.typed)
        advance = live.computing("samples", len(found.samples))
        if wanted.format in job.task.writers:
            results = [answers.of_group(job.opened, job.task, job.options, group, advance=advance) for group in asked]
            _write_own(job, asked, results, tally)
        else:
            _write_groups(job, asked, found.rejected, advance, tally)
    return tally


def _about_rejected(rejected: Sequence[Rejection]) -> Iterator[str]:
    yield from (f"not used: {each.id}: {each.reason}" for each in rejected)


def _write_groups(
    job: _Job, asked: Sequence[Group], rejected: Sequence[Rejection], advance: Callable[[int], None], tally: _Tally
) -> None:
    from zooft import answers
    from zooft.layouts import Layout
    from zooft.run import to_json

    metadata = job.opened.metadata
    about = to_json({
        "classes": metadata.classes, "threshold": metadata.calibration.threshold, "intended_use": metadata.intended_use,
        "rejected": rejected,
    })  # fmt: skip
    layout = Layout(key="patient", classes=metadata.classes, facts=("samples", "missing", "decisive"), about=about)
    with _writing(job, layout, tally) as sink:
        for group in asked:
            stamp = group.stamp(job.task, job.options) if sink.resumable else ""
            if sink.knows(group.name, stamp):
                advance(len(group.samples))
                continue
            result = answers.of_group(job.opened, job.task, job.options, group, advance=advance)
            sink.add(answers.from_result(group, result, _names(job, result)), stamp)
        sink.finish([group.name for group in asked])


def _names(job: _Job, result: GroupResult | str) -> Mapping[str, str]:
    return job.task.identify(result, job.options) if job.wanted.identify and not isinstance(result, str) else {}


def _write_own(job: _Job, asked: Sequence[Group], results: Sequence[GroupResult | str], tally: _Tally) -> None:
    """In a format of the task's own, which has a place for those who were answered; a table beside it has the others."""
    from zooft import answers
    from zooft.contracts import DeployedFile

    everyone = [answers.from_result(group, result, {}) for group, result in zip(asked, results, strict=True)]
    for answer in everyone:
        tally.count(answer)
    metadata = job.opened.metadata
    file = DeployedFile(
        classes=metadata.classes, threshold=metadata.calibration.threshold, backbone=metadata.backbone,
        version=metadata.version, weights_sha256=metadata.weights_sha256,
    )  # fmt: skip
    assert job.wanted.out is not None  # noqa: S101 -- checked before
    answered = [result for result in results if not isinstance(result, str)]
    for path in job.task.writers[job.wanted.format](answered, file, job.wanted.out, job.options):
        say(path)
    _write_unjudged(job.wanted.out, [answer for answer in everyone if answer.error])


def _write_unjudged(folder: Path, lacking: Sequence[Answer]) -> None:
    """Those who weren't answered, or only in part; what an earlier command said of others goes."""
    from zooft import layouts
    from zooft.run import write_text

    path, head = folder / _UNJUDGED, layouts.csv_line(("patient", "missing", "error"))
    if lacking:
        folder.mkdir(parents=True, exist_ok=True)
        rows = (layouts.csv_line((each.key, each.facts.get("missing", ""), each.error)) for each in lacking)
        write_text(path, head + "".join(rows))
        say(path)
    elif path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(head):
        path.unlink()


@contextlib.contextmanager
def _live(wanted: _Wanted) -> Iterator[Live]:
    """Progress, but where rows run over the same terminal."""
    with Live(drawn=not (wanted.streams and sys.stdout.isatty())) as live:
        yield live


class _Sink:
    """Where answers go: to the screen, to standard output as they come, or to a file by way of a journal.

    Args:
        job: whose they are.
        layout: of all of them.
        tally: that counts them.
        journal: of the file that is written; None for standard output.
    """

    def __init__(self, job: _Job, layout: Layout, tally: _Tally, journal: Journal | None) -> None:
        self._wanted, self._layout, self._tally, self._journal = job.wanted, layout, tally, journal
        self._waiting: list[Answer] = []
        # names differ among patients, and a CSV file's columns are those of all
        self._at_once = job.wanted.streams and not (job.wanted.identify and job.wanted.format == "csv")
        self._begun = False

    @property
    def resumable(self) -> bool:
        """Whether it matters what an answer is made of."""
        return self._journal is not None

    def knows(self, key: str, stamp: str) -> bool:
        """Whether an earlier command has the answer."""
        return self._journal is not None and self._journal.knows(key, stamp)

    def add(self, answer: Answer, stamp: str) -> None:
        """One more."""
        if self._journal is not None:
            self._journal.add(answer, stamp)
        elif self._at_once:
            self._tally.count(answer)
            self._write_row(answer)
        else:
            self._waiting.append(answer)

    def finish(self, keys: Sequence[str]) -> None:
        """All are there; `keys` has their order."""
        if self._journal is not None:
            self._publish(self._journal, keys)
        elif self._at_once:
            self._begin()
        else:
            for answer in self._waiting:
                self._tally.count(answer)
            self._show()

    def _publish(self, journal: Journal, keys: Sequence[str]) -> None:
        from zooft import layouts

        for key in keys:
            self._tally.count(journal.answer(key))
        layout = layouts.with_names(self._layout, (journal.answer(key) for key in keys))
        form = self._wanted.format
        journal.publish(lambda file: layouts.write(file, layout, (journal.answer(key) for key in keys), form))
        if self._wanted.as_json:
            print_json({"out": self._wanted.out, "answered": self._tally.answered, "failed": self._tally.failed})
        else:
            say(self._wanted.out)

    def _show(self) -> None:
        import io

        from zooft import layouts

        layout = layouts.with_names(self._layout, self._waiting)
        if self._wanted.format == "table":
            print_table("", *layouts.for_screen(layout, self._waiting))
            return
        buffer = io.StringIO()
        layouts.write(buffer, layout, self._waiting, self._wanted.format)
        write(buffer.getvalue())

    def _begin(self) -> None:
        from zooft import layouts

        if not self._begun and self._wanted.format == "csv":
            write(layouts.csv_line(layouts.columns(self._layout)))
        self._begun = True

    def _write_row(self, answer: Answer) -> None:
        from zooft import layouts

        self._begin()
        csv = self._wanted.format == "csv"
        write(layouts.csv_line(layouts.cells(self._layout, answer)) if csv else layouts.line(self._layout, answer))


@contextlib.contextmanager
def _writing(job: _Job, layout: Layout, tally: _Tally) -> Iterator[_Sink]:
    """A sink; what stops the work leaves what `--resume` goes on from, and says so."""
    out = job.wanted.out
    if out is None:
        yield _Sink(job, layout, tally, None)
        return
    from zooft.journal import Journal

    journal = Journal(out.resolve(), _depends_on(job), resume=job.wanted.resume)
    try:
        yield _Sink(job, layout, tally, journal)
    except BaseException as error:  # Ctrl-C too
        kept = journal.leave()
        if kept:
            error.add_note(kept)
        raise


def _depends_on(job: _Job) -> dict[str, Any]:
    """What makes another command's answers useless for this one."""
    import hashlib

    from zooft import __version__
    from zooft.runtime import DATA_FILE

    with job.wanted.model.open("rb") as file:
        model = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "version of zooft": __version__, "model": f"{model} {_stamp(job.wanted.model.with_name(DATA_FILE))}",
        "--identify": job.wanted.identify,
    }  # fmt: skip
