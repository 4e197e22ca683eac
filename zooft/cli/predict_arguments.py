"""The arguments of ``zooft predict``, refused before anything is computed where they can't be met."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft import runtime
from zooft.deploy import formats, parquet
from zooft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zooft.contracts import Labels, Source, Task
    from zooft.runtime import OnnxModel


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictArguments:
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
        if self.form is not None and not (self.form == "table" and self.out is not None):
            return self.form
        if self.as_json:
            return "json"
        return "table" if self.out is None else formats.BY_SUFFIX.get(self.out.suffix.lower(), "csv")

    @property
    def side_by_side(self) -> int:
        """Files that are read and predicted at a time."""
        return self.threads or runtime.default_threads()

    @property
    def streams(self) -> bool:
        """Whether answers are written to standard output as they come."""
        return self.out is None and self.format in {"csv", "jsonl"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What was typed, with the model and the task that belong to it, and the data sources that the task reads."""

    wanted: PredictArguments
    opened: OnnxModel
    task: Task
    options: Any
    sources: Sequence[Source]

    @property
    def labels(self) -> Labels:
        """What the answers mean."""
        return self.opened.metadata.labels

    @property
    def about(self) -> Mapping[str, Any]:
        """What JSON has for all answers."""
        return self.task.problem.presentation.about(self.labels, self.opened.metadata.fitted)


def check_out(wanted: PredictArguments) -> None:
    """Refuse what would destroy something or couldn't be written, before hours of computing.

    Raises:
        ConfigError: names what lies there.
        RunError: a command that was stopped has left something there.
    """
    _check_parquet(wanted)
    if wanted.as_json and wanted.form not in (None, "json"):
        raise ConfigError(f"--json is --format json, and --format {wanted.form} was given too; give one of them")
    if wanted.form not in (None, *formats.FORMATS):  # a task's own: it writes a folder
        if wanted.out is not None and wanted.out.exists() and not wanted.out.is_dir():
            raise ConfigError(f"--format {wanted.form} writes files into a folder, and --out {wanted.out} is a file")
        if wanted.resume:
            raise ConfigError(f"--resume is for {', '.join(formats.FORMATS)}, not for --format {wanted.form}")
    if wanted.out is None:
        if wanted.resume:
            raise ConfigError("--resume continues a file: name it with --out")
        return
    if not wanted.out.absolute().parent.is_dir():
        raise ConfigError(f"--out {wanted.out}: there is no folder {wanted.out.absolute().parent}; make it first")
    if not os.access(wanted.out.absolute().parent, os.W_OK):
        raise ConfigError(
            f"--out {wanted.out}: nothing may be written in {wanted.out.absolute().parent}; name another place"
        )
    if wanted.form in (None, *formats.FORMATS):
        _check_file(wanted.out, wanted)


def _check_parquet(wanted: PredictArguments) -> None:
    if wanted.format != "parquet":
        return
    parquet.refuse_without_pyarrow()
    if wanted.out is None:
        raise ConfigError("--format parquet writes a file: name it with --out, such as --out answers.parquet")
    inside = next((text for text in wanted.typed if Path(text).resolve() in wanted.out.resolve().parents), None)
    if inside is not None:
        raise ConfigError(
            f"--out {wanted.out} lies in {inside}, which is read, and where the next command would take a Parquet file "
            "for data; name another folder"
        )


def _check_file(out: Path, wanted: PredictArguments) -> None:
    from zooft.deploy import journal

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


def check_overwritten(job: Job) -> None:
    """Refuse to overwrite anything but earlier answers; what these look like, the model's problem defines.

    Raises:
        ConfigError: it is something else.
    """
    out = job.wanted.out
    if out is None or not out.is_file() or formats.is_result(out, job.task.problem.presentation, job.labels):
        return
    if parquet.is_result(out):
        return
    raise ConfigError(f"--out {out} exists and isn't what predict writes, so it stays; name another file, or remove it")


def check_folder(out: Path) -> None:
    """Refuse a folder for results that holds anything: a result is named like its picture, and would overwrite it.

    Raises:
        ConfigError: it is such a folder.
    """
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"--out {out} holds files already, and nothing is overwritten; name a new folder")


def check_format(job: Job) -> None:
    """Refuse a format that neither zooft nor the task has.

    Raises:
        ConfigError: with those that there are.
    """
    form, writers = job.wanted.format, {**job.task.writers, **job.task.problem.deployment.writers}
    if form not in (*formats.FORMATS, *writers):
        known = ", ".join((*formats.FORMATS, *writers))
        raise ConfigError(f"there is no format {form!r}; the task {job.task.name} has {known}")
    if form in writers and job.wanted.out is None:
        raise ConfigError(f"--format {form} writes files: name a folder with --out")
