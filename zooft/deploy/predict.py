"""What a deployed file predicts for files, of rows of data sources or of patients.

One answer after the other, as soon as it is there.

Whatever can't be read or predicted gets an answer too, with the reason; nothing ends the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import stat
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import numpy as np

from zooft.compute import machine
from zooft.contracts import FileAnswer, GroupResult, Rejection, Sample
from zooft.data import samples as sample_tables
from zooft.data import sources as data_sources
from zooft.deploy.saved import columns_of
from zooft.errors import DataError, PluginError, RuntimeModelError, ZooftError
from zooft.evaluation.groups import group_predictions, missing_by_group, missing_groups
from zooft.evaluation.predictions import Predictions
from zooft.hooks.guard import call_plugin
from zooft.storage.sequences import spill

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Arrays, Discovery, Source, Task
    from zooft.runtime import OnnxModel

T = TypeVar("T")
Input: TypeAlias = Path | Sample | Rejection
"""What gets an answer of its own: a file, a row of a data source, or one that can't be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer for one file, one row of a data source, or one patient.

    Attributes:
        key: the file as it was named, the row's id, or the patient's salted name.
        cells: what `PresentationPart.cells` makes of it, by column; empty where nothing could be predicted.
        facts: what else is known of it, such as the patient's number of samples.
        error: why nothing could be predicted, or what the answer lacks; empty where it is whole.
    """

    key: str
    cells: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, str | int] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Read:
    """An input's arrays, or why there are none, and whether that is for want of memory."""

    key: str
    arrays: Arrays = ()
    error: str = ""
    sample: Sample | None = None
    starved: bool = False


@dataclass(frozen=True, slots=True)
class _Tried(Generic[T]):
    """What came of an input, and whether it lacks an answer for want of memory."""

    made: T
    starved: bool = False


_Turn: TypeAlias = AbstractContextManager[Any]
_CPU = "CPUExecutionProvider"
_AHEAD = 2
"""Inputs beyond the one of each thread: what the others go on with while the oldest takes longer."""


def list_inputs(files: Sequence[Path], sources: Mapping[Path, Source], task: Task, options: Any) -> Sequence[Input]:
    """Files in their order, and in the place of those that a data source reads, its rows.

    Args:
        files: files, and folders that a data source reads.
        sources: which of them one reads.
        task: that reads the images.
        options: the task's.

    Raises:
        DataError: two rows of one id, which couldn't be distinguished.
    """
    return spill(_each(files, sources, task, options))


def _each(files: Sequence[Path], sources: Mapping[Path, Source], task: Task, options: Any) -> Iterator[Input]:
    known: set[str] = set()
    for path in files:
        source = sources.get(path)
        for one in [path] if source is None else data_sources.unlabelled_rows(source, path, task, options):
            if sources and key_of(one) in known:
                raise DataError(
                    f"two rows are called {key_of(one)!r}, one of them in {path}, and their predictions couldn't be "
                    "distinguished; predict on one file or folder after the other"
                )
            if sources:
                known.add(key_of(one))
            yield one


def key_of(item: Input) -> str:
    """What an answer calls it."""
    return str(item) if isinstance(item, Path) else item.id


def stamp(item: Input, task: Task, options: Any) -> str:
    """What shows whether it is still the same: of a file its size, time and place, of a row a digest of what it holds.

    Else nothing.
    """
    if isinstance(item, Rejection):
        return ""
    if isinstance(item, Path):
        return stamp_of(item)
    try:
        return sample_tables.digest(task, options, item)
    except (DataError, PluginError):
        return ""


def stamp_of(path: Path) -> str:
    """What shows whether a file is still the same."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def of_each(
    model: OnnxModel, task: Task, options: Any, items: Iterable[Input], *, threads: int = 1
) -> Generator[Answer]:
    """One for each file and row, in their order; not many more are in memory at a time than there are threads.

    Args:
        model: that answers. With several threads, one opened with one computing thread is fastest: threads that share
            an image wait for each other behind every layer.
        task: that reads the files.
        options: the task's.
        items: files, rows and what can't be used; those that can't be read get an answer that states so.
        threads: that read and predict side by side; with one, nothing is read ahead.
    """
    turn = _turns(model)

    def answer(item: Input) -> _Tried[Answer]:
        found = _read(task, options, item)
        return _of_arrays(model, task, found, turn) if not found.error else _Tried(_failure(found), found.starved)

    yield from _side_by_side(answer, items, threads)


def draw_files(
    model: OnnxModel,
    task: Task,
    options: Any,
    items: Iterable[Input],
    *,
    report: Callable[[Answer], None],
    threads: int = 1,
) -> Generator[FileAnswer]:
    """What the model gives of each file whole, in their order.

    Args:
        model: that answers; see `of_each`.
        task: that reads the files.
        options: the task's.
        items: files, rows and what can't be used.
        report: called with every file's answer, also of those that give none.
        threads: that read and predict side by side.
    """
    turn = _turns(model)

    def draw(item: Input) -> _Tried[tuple[Answer, FileAnswer | None]]:
        found = _read(task, options, item)
        return _draw(model, task, options, found, turn) if not found.error else _draw_nothing(found)

    for answer, drawn in _side_by_side(draw, items, threads):
        report(answer)
        if drawn is not None:
            yield drawn


def _draw_nothing(found: _Read) -> _Tried[tuple[Answer, FileAnswer | None]]:
    return _Tried((_failure(found), None), found.starved)


def _draw(
    model: OnnxModel, task: Task, options: Any, found: _Read, turn: _Turn
) -> _Tried[tuple[Answer, FileAnswer | None]]:
    try:
        with turn:
            outputs = _whole(model, task, found.arrays)
    except RuntimeModelError as error:
        return _draw_nothing(replace(found, error=str(error), starved=machine.lacks_memory(error)))
    columns = columns_of(model, task, outputs, [None])
    known = () if found.sample is None else (found.sample,)
    answer = Answer(key=found.key, cells=_cells(model, task, Predictions(samples=known, columns=columns)))
    drawn = FileAnswer(
        key=found.key,
        outputs={name: output[0] for name, output in outputs.items()},
        picture=partial(sample_tables.picture, task, options, found.arrays),
        sample=found.sample,
    )
    return _Tried((answer, drawn))


def _turns(model: OnnxModel) -> _Turn:
    """What a thread enters to run the network: on a CPU side by side, on a device one after the other."""
    return contextlib.nullcontext() if model.provider == _CPU else threading.Lock()


def _side_by_side(work: Callable[[Input], _Tried[T]], items: Iterable[Input], threads: int) -> Generator[T]:
    """What `map` gives, by several threads, some items ahead.

    Where memory wasn't enough for several at once, an item gets it for itself.
    """
    if threads == 1:
        yield from (work(item).made for item in items)
        return
    waiting = deque[tuple[Input, Future[_Tried[T]]]]()

    def oldest() -> T:
        item, future = waiting.popleft()
        found = future.result()
        if found.starved:
            wait([other for _, other in waiting])
            found = work(item)
        return found.made

    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=threads) as pool:
        # readers change the process's filters and put them back, each in its thread: what they put back is this
        warnings.simplefilter("ignore")
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) > threads + _AHEAD:
                    yield oldest()
            while waiting:
                yield oldest()
        finally:
            pool.shutdown(cancel_futures=True)


def _read(task: Task, options: Any, item: Input) -> _Read:
    key = key_of(item)
    fault = item.reason if isinstance(item, Rejection) else _fault(item) if isinstance(item, Path) else ""
    if fault or isinstance(item, Rejection):
        return _Read(key, error=fault)
    source, name = (item, item.name) if isinstance(item, Path) else (item.source, key)
    try:
        arrays = sample_tables.as_arrays(call_plugin(task, "read", source, options, doing="to read it"), name)
    except DataError as error:
        return _Read(key, error=str(error))
    except (ZooftError, MemoryError) as error:
        starved = machine.lacks_memory(error)
        return _Read(key, error="there isn't enough memory to read it" if starved else str(error), starved=starved)
    return _Read(key, arrays, sample=item if isinstance(item, Sample) else None)


def _failure(found: _Read) -> Answer:
    return Answer(key=found.key, error=found.error)


def _fault(path: Path) -> str:
    """Why a path can't be read at all: opening a pipe would wait for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if path.is_symlink():
            return "a link that leads nowhere"
        missing = isinstance(error, FileNotFoundError | NotADirectoryError | ValueError)
        return "no such file, folder or match" if missing else f"can't be read: {getattr(error, 'strerror', error)}"
    return "" if stat.S_ISREG(mode) else "not a regular file"


def _of_arrays(model: OnnxModel, task: Task, read: _Read, turn: _Turn) -> _Tried[Answer]:
    try:
        with turn:
            outputs = _whole(model, task, read.arrays)
        columns = columns_of(model, task, outputs, [None])
    except RuntimeModelError as error:
        return _Tried(Answer(key=read.key, error=str(error)), machine.lacks_memory(error))
    return _Tried(Answer(key=read.key, cells=_cells(model, task, Predictions(samples=(), columns=columns))))


def _cells(model: OnnxModel, task: Task, one: Predictions) -> dict[str, Any]:
    """How a single answer is shown, by column."""
    about = model.metadata
    cells = task.problem.presentation.cells(one, about.labels, about.fitted)
    return {name: column[0] for name, column in cells.items()}


def _whole(model: OnnxModel, task: Task, arrays: Arrays) -> Mapping[str, NDArray[Any]]:
    """As `run_one`, or from several parts of the sample, as the problem has it."""
    whole = task.problem.deployment.whole
    if whole is None:
        return run_one(model, arrays)
    return whole(partial(run_one, model), arrays, model.metadata.labels)


def run_one(model: OnnxModel, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """A sample's outputs by name, with the batch axis.

    Raises:
        RuntimeModelError: the network takes no such arrays, memory ran out, or it gave no numbers.
    """
    try:
        answers = model.run(*(array[None] for array in arrays))
    except RuntimeModelError:
        raise
    except Exception as error:  # onnxruntime's own kinds
        if machine.lacks_memory(error):
            sizes = ", ".join("x".join(map(str, array.shape)) for array in arrays)
            raise RuntimeModelError(f"there isn't enough memory to run the network on {sizes}") from error
        raise RuntimeModelError(f"onnxruntime failed: {str(error).strip()}") from error
    if not all(np.isfinite(answer).all() for answer in answers.values()):
        raise RuntimeModelError("the network gave no numbers (NaN)")
    return answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The samples that get one answer.

    Attributes:
        name: salted, or its only sample's id.
        samples: those that can be used.
        unjudged: what can't, and why.
    """

    name: str
    samples: tuple[Sample, ...]
    unjudged: tuple[Rejection, ...]

    def stamp(self, task: Task, options: Any) -> str:
        """SHA-256 of what its answer is made of, hexadecimal; nothing where that can't be read any more."""
        found = hashlib.sha256()
        try:
            for sample in self.samples:
                found.update(f"{sample.id} {sample_tables.digest(task, options, sample)}\n".encode())
        except (DataError, PluginError):
            return ""
        for rejected in self.unjudged:
            found.update(f"{rejected.id} {rejected.reason}\n".encode(errors="backslashreplace"))
        return found.hexdigest()


def groups(found: Discovery, *, typed: Iterable[str] = ()) -> list[Group]:
    """Who gets an answer: those with samples first, in their order, then those of whom nothing can be used.

    Args:
        found: what the task has gathered.
        typed: files that the user has named: of what can't be used, these are answered for too.
    """
    members: dict[str, list[Sample]] = {}
    for sample in found.samples:
        members.setdefault(sample.group or sample.id, []).append(sample)
    lacking = missing_by_group(found.rejected)
    named = set(typed)
    alone = {
        rejected.id: (rejected,)
        for rejected in found.rejected
        if rejected.group is None and (rejected.missing or rejected.id in named)
    }
    return [
        *(Group(name=name, samples=tuple(own), unjudged=lacking.get(name, ())) for name, own in members.items()),
        *(
            Group(name=name, samples=(), unjudged=own)
            for name, own in {**missing_groups(found.rejected, members), **alone}.items()
        ),
    ]


def of_group(
    model: OnnxModel, task: Task, options: Any, group: Group, *, advance: Callable[[int], None]
) -> GroupResult | str:
    """The result of one group, or why there is none."""
    if not group.samples:
        return "; ".join(dict.fromkeys(rejected.reason for rejected in group.unjudged))
    rows = []
    try:
        for sample in group.samples:
            answers = _whole(model, task, sample_tables.read(task, options, sample))
            rows.append(columns_of(model, task, answers, [sample.target]))
            advance(1)
    except (DataError, PluginError, RuntimeModelError) as error:
        advance(len(group.samples) - len(rows))
        return str(error)
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return _result(model, task, Predictions(samples=group.samples, columns=columns), group)


def _result(model: OnnxModel, task: Task, members: Predictions, group: Group) -> GroupResult:
    """One answer from those to its samples; where the problem gives groups none, that to the decisive one."""
    about, rule = model.metadata, model.metadata.group_rule
    decisive = task.problem.evaluation.decisive(members, about.labels)
    one = group_predictions(task.problem, members, [np.arange(len(members))], about.labels, rule)
    if one is None:
        one = members.take(np.array([decisive]))
    first = group.samples[0]
    return GroupResult(
        group=first.group or first.id,
        answer=_cells(model, task, one),
        columns={name: column[0] for name, column in one.columns.items()},
        members=group.samples,
        decisive=group.samples[decisive],
        unjudged=group.unjudged,
    )


def from_result(group: Group, result: GroupResult | str, names: Mapping[str, str]) -> Answer:
    """A group's result as an answer.

    Args:
        group: it is about.
        result: or why there is none.
        names: of the patient, where they are to be shown.
    """
    if isinstance(result, str):
        missing = sum(rejected.missing for rejected in group.unjudged) + len(group.samples)
        return Answer(key=group.name, facts={"samples": 0, "missing": missing, "decisive": ""}, error=result)
    facts: dict[str, str | int] = {
        **names,
        "samples": len(result.members),
        "missing": result.missing,
        "decisive": result.decisive.id,
    }
    return Answer(
        key=result.group,
        cells=result.answer,
        facts=facts,
        error=_lacks(result),
    )


def _lacks(result: GroupResult) -> str:
    if not result.missing:
        return ""
    reasons = "; ".join(dict.fromkeys(rejected.reason for rejected in result.unjudged if rejected.missing))
    return f"{result.missing} of {result.missing + len(result.members)} samples couldn't be predicted: {reasons}"


def discover_groups(task: Task, paths: Sequence[Path], options: Any, computing: Callable[..., Any]) -> Discovery:
    """What a task that answers for groups finds in files and folders.

    Raises:
        ZooftError: the task's own reason.
        PluginError: the task failed.
    """
    assert task.gather is not None  # noqa: S101 -- the caller has checked
    found: Discovery = call_plugin(task, "gather", paths, options, computing, doing="to find samples")
    sample_tables.check_targets(task, found, unlabelled=True, field="gather")
    return found
