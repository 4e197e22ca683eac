"""Where the answers of ``zooft predict`` go, and how many there were."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from zooft.cli.output import print_json, print_table
from zooft.cli.screen import echo, write
from zooft.deploy import formats, parquet
from zooft.runtime import DATA_FILE
from zooft.version import __version__

if TYPE_CHECKING:
    from zooft.cli.predict_arguments import Job
    from zooft.deploy.formats import Layout
    from zooft.deploy.journal import Journal
    from zooft.deploy.predict import Answer

_MOST_TOLD = 5


@dataclass(slots=True)
class Tally:
    """How it went."""

    answered: int = 0
    failed: int = 0
    first: list[str] = field(default_factory=list)
    left_out: str = ""

    def count(self, answer: Answer) -> None:
        """One more."""
        self.answered += bool(answer.cells)
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


class Sink:
    """Where answers go: to the screen, to standard output as they come, or to a file by way of a journal.

    Args:
        job: whose they are.
        layout: of all of them.
        tally: that counts them.
        journal: of the file that is written; None for standard output.
    """

    def __init__(self, job: Job, layout: Layout, tally: Tally, journal: Journal | None) -> None:
        self._wanted, self._layout, self._tally, self._journal = job.wanted, layout, tally, journal
        self._waiting: list[Answer] = []
        # names differ among patients, and a CSV file's columns are those of all
        self._at_once = job.wanted.streams and not (job.wanted.identify and job.wanted.format == "csv")
        self._begun = False

    @property
    def resumable(self) -> bool:
        """Whether it matters what an answer is made of."""
        return self._journal is not None

    def may_know(self, key: str) -> bool:
        """Whether an earlier command has answered for it, so that its stamp matters."""
        return self._journal is not None and key in self._journal

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
        for key in keys:
            self._tally.count(journal.answer(key))
        layout = formats.with_names(self._layout, (journal.answer(key) for key in keys))

        def publish(file: BinaryIO) -> None:
            _write_file(file, layout, lambda: (journal.answer(key) for key in keys), self._wanted.format)

        journal.publish(publish)
        if self._wanted.as_json:
            print_json({"out": self._wanted.out, "answered": self._tally.answered, "failed": self._tally.failed})
        else:
            echo(self._wanted.out)

    def _show(self) -> None:
        layout = formats.with_names(self._layout, self._waiting)
        if self._wanted.format == "table":
            print_table("", *formats.for_screen(layout, self._waiting))
            return
        buffer = io.StringIO()
        formats.write(buffer, layout, self._waiting, self._wanted.format)
        write(buffer.getvalue())

    def _begin(self) -> None:
        if not self._begun and self._wanted.format == "csv":
            write(formats.csv_line(formats.columns(self._layout)))
        self._begun = True

    def _write_row(self, answer: Answer) -> None:
        self._begin()
        csv = self._wanted.format == "csv"
        write(formats.csv_line(formats.cells(self._layout, answer)) if csv else formats.line(self._layout, answer))


def _write_file(file: BinaryIO, layout: Layout, answers: Callable[[], Iterable[Answer]], form: str) -> None:
    if form == "parquet":
        parquet.write(file, layout, answers)
        return
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    formats.write(text, layout, answers(), form)
    text.detach()  # writes what is left, and leaves the file open


@contextlib.contextmanager
def open_sink(job: Job, layout: Layout, tally: Tally) -> Iterator[Sink]:
    """A sink; what stops the work leaves what `--resume` continues, and reports it."""
    out = job.wanted.out
    if out is None:
        yield Sink(job, layout, tally, None)
        return
    from zooft.deploy.journal import Journal

    journal = Journal(out.resolve(), _depends_on(job), resume=job.wanted.resume)
    try:
        yield Sink(job, layout, tally, journal)
    except BaseException as error:  # Ctrl-C too
        saved = journal.leave()
        if saved:
            error.add_note(saved)
        raise


def _depends_on(job: Job) -> dict[str, Any]:
    """What makes another command's answers useless for this one."""
    from zooft.deploy.predict import stamp_of

    with job.wanted.model.open("rb") as file:
        model = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "version of zooft": __version__,
        "model": f"{model} {stamp_of(job.wanted.model.with_name(DATA_FILE))}",
        "--identify": job.wanted.identify,
    }
