"""What an interrupted run resumes from: the folder ``last/``.

Owns its files and their order on the disk. ``model.safetensors`` has the last epoch's weights under the zoo's names,
``optimizer.safetensors`` the optimizer's state, ``loss.safetensors`` the loss's own tensors, ``state.json`` everything
else and the checksums of the files beside it. A new one is written under another name and swapped in by renames:
whenever the process is killed, at least one whole one is there.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft.contracts import EpochRecord, LoadedWeights
from zooft.errors import RunError, ZooftError
from zooft.model.weights import read_file, write_file
from zooft.run.folder import EPOCHS_FILE, LAST_FOLDER, STATE_FILE, WEIGHTS_FILE, to_json, write_json, write_json_lines

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

OPTIMIZER_FILE = "optimizer.safetensors"
BEST_FILE = "best.safetensors"
LOSS_FILE = "loss.safetensors"
SCHEMA = 1
SHARE = 0.03
"""Share of training time that saving may take: short epochs aren't all saved, and a resumed run repeats a few of
them."""
_PARTIAL, _OLD = ".partial", ".old"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far training is.

    Attributes:
        records: of the finished epochs, in order.
        score: of the best one, the larger the better; None where there is none yet.
        best: its number, from 1; 0 where there is none yet.
        resolved: what was measured or chosen on the way, such as batch size and precision: plain values.
    """

    records: tuple[EpochRecord, ...]
    score: tuple[float, ...] | None
    best: int
    resolved: Mapping[str, Any]

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.records)

    def after(self, record: EpochRecord, score: tuple[float, ...] | None) -> Progress:
        """The progress one epoch later; `score` is that of its record."""
        return replace(
            self,
            records=(*self.records, record),
            score=score if record.best else self.score,
            best=record.epoch if record.best else self.best,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A state as it was read.

    Attributes:
        progress: how far it is.
        model: tensors under the zoo's names, as the last epoch left them.
        best: the same of the best epoch; None where ``model.safetensors`` of the run has them.
        optimizer: tensors, by `optimizer_tensors`.
        settings: the optimizer's values that aren't tensors.
        loss: the tensors of the task's loss, as the last epoch left them; empty where it has none.
    """

    progress: Progress
    model: Mapping[str, Tensor]
    best: Mapping[str, Tensor] | None
    optimizer: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    loss: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What `load` found: a state or none, and notes for the user."""

    checkpoint: Checkpoint | None
    notes: tuple[str, ...]


class CheckpointWriter:
    """Saves a state to resume from as epochs end, and the best epoch's weights as the run's.

    Args:
        folder: the run's.
        frozen: names, the zoo's, of tensors that no epoch changes.
        loss: whose own tensors are saved too.
    """

    def __init__(self, folder: Path, *, frozen: frozenset[str] = frozenset(), loss: Module | None = None) -> None:
        self._folder, self._still, self._loss = folder, frozen, loss
        self._best: dict[str, Tensor] | None = None  # of the best epoch, where that one wasn't saved
        self._cost = self._saved = 0.0

    def after(
        self, progress: Progress, tensors: Callable[[], dict[str, Tensor]], optimizer: Optimizer, *, final: bool
    ) -> None:
        """Save a finished epoch, unless the last save was too recent.

        Args:
            progress: with the epoch's record as the last.
            tensors: returns the model's, under the zoo's names, on the CPU, as copies.
            optimizer: as the epoch left it.
            final: whether no other epoch follows; it is always saved.

        Raises:
            OSError: the disk is full or can't be written; what was saved before is still there.
        """
        began = time.perf_counter()
        is_best = progress.best == progress.epoch
        if not final and began - self._saved < self._cost / SHARE:
            if is_best:
                self._best = {name: tensor for name, tensor in tensors().items() if name not in self._still}
            return
        best = None if is_best else self._best
        now = tensors()
        save(self._folder, progress, now, optimizer, best=best, loss=loss_tensors(self._loss))
        publish_best(self._folder, now, best, is_best=is_best)
        if final and best is not None:
            _drop_best(self._folder / LAST_FOLDER)
        self._best = None
        self._saved = time.perf_counter()
        self._cost = self._saved - began


def save(
    folder: Path,
    progress: Progress,
    tensors: Mapping[str, Tensor],
    optimizer: Optimizer,
    *,
    best: Mapping[str, Tensor] | None = None,
    loss: Mapping[str, Tensor] | None = None,
) -> None:
    """Write ``last/`` in `folder`, so that there is a complete one at every moment.

    Args:
        folder: the run's.
        progress: how far it is.
        tensors: the model's, under the zoo's names.
        optimizer: whose state is saved.
        best: those of the best epoch that differ, where neither this state nor the run's weights have them.
        loss: the loss's own tensors.
    """
    draft = folder / (LAST_FOLDER + _PARTIAL)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        memory, settings = optimizer_tensors(optimizer)
        _write(draft / WEIGHTS_FILE, tensors)
        _write(draft / OPTIMIZER_FILE, memory)
        if best is not None:
            _write(draft / BEST_FILE, best)
        if loss:
            _write(draft / LOSS_FILE, loss)
        files = {path.name: _checksum(path) for path in sorted(draft.iterdir())}
        write_json(
            draft / STATE_FILE,
            {
                "schema": SCHEMA,
                "epoch": progress.epoch,
                "best": progress.best,
                "rank": progress.score,
                "resolved": progress.resolved,
                "optimizer": settings,
                "records": progress.records,
                "files": files,
            },
        )
        _settle(draft)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _swap(folder)


def load(folder: Path) -> Found:
    """The newest complete state in `folder`, moved to its place; incomplete ones are left out and reported.

    Raises:
        RunError: it was written by a zooft with another schema.
    """
    whole: list[tuple[int, Path]] = []
    notes = []
    for name in (LAST_FOLDER, LAST_FOLDER + _PARTIAL, LAST_FOLDER + _OLD):
        path = folder / name
        if not path.is_dir():
            continue
        fault = _fault(path)
        if fault is None:
            whole.append((int(_read(path)["epoch"]), path))
        elif name == LAST_FOLDER:  # the others are incomplete as a matter of course, when a process dies while writing
            notes.append(f"{path} can't be used: {fault}")
    if not whole:
        return Found(None, tuple(notes))
    _, newest = max(whole, key=lambda pair: pair[0])
    saved = _load_checkpoint(newest)
    if newest.name != LAST_FOLDER:
        _put_in_place(newest, folder / LAST_FOLDER)
    for name in (_PARTIAL, _OLD):
        shutil.rmtree(folder / (LAST_FOLDER + name), ignore_errors=True)
    return Found(saved, tuple(notes))


def restore(folder: Path, saved: Checkpoint) -> None:
    """Restore the run's other files to the state: its curve, and the best epoch's weights."""
    write_json_lines(folder / EPOCHS_FILE, saved.progress.records)
    publish_best(folder, saved.model, saved.best, is_best=saved.progress.best == saved.progress.epoch)


def start_again(folder: Path) -> None:
    """Remove the files of epochs where no complete state is left to resume from."""
    for path in (folder / EPOCHS_FILE, folder / WEIGHTS_FILE):
        path.unlink(missing_ok=True)
    for name in ("", _PARTIAL, _OLD):
        shutil.rmtree(folder / (LAST_FOLDER + name), ignore_errors=True)


def publish_best(
    folder: Path, tensors: Mapping[str, Tensor], best: Mapping[str, Tensor] | None, *, is_best: bool
) -> None:
    """Make the best epoch's weights those of the run, after the state that refers to them was saved.

    Args:
        folder: the run's.
        tensors: the saved state's.
        best: of the best epoch, those that differ; None where it is the saved one, or is published already.
        is_best: whether the saved epoch is the best one.
    """
    if is_best:
        _copy(folder / LAST_FOLDER / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    elif best is not None:
        _write(folder / WEIGHTS_FILE, {**tensors, **best})


def _drop_best(last: Path) -> None:
    """Remove the best epoch's weights from a state, once the run itself has them."""
    content = _read(last)
    del content["files"][BEST_FILE]
    write_json(last / STATE_FILE, content)
    (last / BEST_FILE).unlink()


def refuse_unfit(folder: Path) -> None:
    """Raise RunError where the finished run in `folder` has no complete state left to continue from."""
    last = folder / LAST_FOLDER
    fault = _fault(last) if last.is_dir() else "it isn't there"
    if fault is not None:
        raise RunError(
            f"{folder} can't be continued: {last} holds its last epoch, and {fault}; train anew with the larger "
            "--epochs"
        )


def optimizer_tensors(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state, as named tensors and plain values."""
    import torch

    held = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for number, entry in held["state"].items():
        for key, value in entry.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{number}.{key}"] = value.detach().cpu()
            else:
                plain.setdefault(str(number), {})[key] = value
    return tensors, {"state": plain, "groups": to_json(held["param_groups"])}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    """The inverse of `optimizer_tensors`, into an optimizer made for the same parameters.

    Raises:
        RunError: the state is for other parameters.
    """
    own = optimizer.state_dict()["param_groups"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if [group["params"] for group in own] != [group["params"] for group in settings["groups"]]:
        raise RunError(_other_parameters("groups of parameters"))
    state: dict[int, dict[str, Any]] = {int(number): dict(entry) for number, entry in settings["state"].items()}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        if tensor.ndim and tensor.shape != parameters[int(number)].shape:
            raise RunError(_other_parameters(f"shape of parameter {number}"))
        state.setdefault(int(number), {})[key] = _in_layout_of(tensor, parameters[int(number)])
    groups = [
        {key: _like(fresh.get(key), value) for key, value in group.items()}
        for fresh, group in zip(own, settings["groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def loss_tensors(loss: Module | None) -> dict[str, Tensor]:
    """A loss's own tensors: parameters that learn, and buffers."""
    return {} if loss is None else {name: tensor.detach().cpu() for name, tensor in loss.state_dict().items()}


def restore_loss(loss: Module, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `loss_tensors`, into a loss made for the same targets.

    Raises:
        RunError: it is another loss.
    """
    own = loss.state_dict()
    if not tensors and not any(True for _ in loss.parameters()):  # nothing was saved of a loss without parameters
        return
    if {name: tensor.shape for name, tensor in own.items()} != {name: tensor.shape for name, tensor in tensors.items()}:
        raise RunError(
            f"the state in {LAST_FOLDER}/ is of another loss: names or shapes of its tensors differ; the task's "
            "plugin has changed since the run began, so train again"
        )
    loss.load_state_dict(dict(tensors))


def _in_layout_of(tensor: Tensor, parameter: Tensor) -> Tensor:
    """In the parameter's own memory layout, which fused optimizers assume."""
    import torch

    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


def _other_parameters(what: str) -> str:
    return (
        f"the state in {LAST_FOLDER}/ is of another model: the {what} differs; the backbone's plugin has changed "
        "since the run began, so train again"
    )


def _like(fresh: Any, value: Any) -> Any:
    """JSON has no tuples: betas are restored as a tuple."""
    return tuple(value) if isinstance(fresh, tuple) else value


def _swap(folder: Path) -> None:
    last, old = folder / LAST_FOLDER, folder / (LAST_FOLDER + _OLD)
    shutil.rmtree(old, ignore_errors=True)
    if last.exists():
        last.rename(old)
    (folder / (LAST_FOLDER + _PARTIAL)).rename(last)
    _settle(folder)
    shutil.rmtree(old, ignore_errors=True)


def _put_in_place(state: Path, last: Path) -> None:
    """Give a complete state the usual name, in place of an incomplete one."""
    aside = last.with_name(last.name + ".incomplete")
    shutil.rmtree(aside, ignore_errors=True)
    if last.exists():
        last.rename(aside)
    state.rename(last)
    shutil.rmtree(aside, ignore_errors=True)


def _fault(state: Path) -> str | None:
    """Why a state can't be used; None where it can.

    Raises:
        RunError: it is complete, and of another schema.
    """
    try:
        content = _read(state)
        if content["schema"] == SCHEMA:
            wrong = [name for name, wanted in content["files"].items() if _checksum(state / name) != wanted]
            return f"{wrong[0]} isn't what was written" if wrong else None
    except OSError as error:
        return f"{Path(error.filename or STATE_FILE).name} can't be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{STATE_FILE} can't be read ({type(error).__name__})"
    raise RunError(
        f"{state / STATE_FILE} isn't of schema {SCHEMA}, which this zooft reads; use the zooft that wrote it"
    )


def _load_checkpoint(state: Path) -> Checkpoint:
    content = _read(state)
    try:
        best, loss = state / BEST_FILE, state / LOSS_FILE
        return Checkpoint(
            progress=Progress(
                records=tuple(map(_record, content["records"])),
                best=int(content["best"]),
                score=_score(content["rank"]),
                resolved=content["resolved"],
            ),
            model=read_file(state / WEIGHTS_FILE).tensors,
            best=read_file(best).tensors if best.name in content["files"] else None,
            optimizer=read_file(state / OPTIMIZER_FILE).tensors,
            settings=content["optimizer"],
            loss=read_file(loss).tensors if loss.name in content["files"] else {},
        )
    except (ZooftError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{state} can't be read ({type(error).__name__}: {error}); remove it to train again from the start"
        ) from error


def _record(values: Mapping[str, Any]) -> EpochRecord:
    numbers = {name: _number(values[name]) for name in ("train_loss", "val_loss", "learning_rate", "seconds")}
    metrics = {name: _number(value) for name, value in values["metrics"].items()}
    return EpochRecord(**{**values, **numbers, "metrics": metrics, "learning": tuple(values["learning"])})


def _number(value: float | None) -> float:
    """JSON has no NaN."""
    return math.nan if value is None else float(value)


def _score(values: Sequence[float | None] | None) -> tuple[float, ...] | None:
    """JSON has no infinity, and only the lowest one can be a score."""
    return None if values is None else tuple(-math.inf if value is None else float(value) for value in values)


def _read(state: Path) -> dict[str, Any]:
    content = json.loads((state / STATE_FILE).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError(type(content).__name__)
    return content


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    write_file(path, LoadedWeights(tensors=tensors, source="zooft"))
    _settle(path)


def _copy(source: Path, target: Path) -> None:
    """The same file under a second name, whole or not at all; neither is ever written into."""
    draft = target.with_name(target.name + _PARTIAL)
    draft.unlink(missing_ok=True)
    try:
        os.link(source, draft)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, draft)
    draft.replace(target)
    draft.unlink(missing_ok=True)  # POSIX's rename does nothing where both names are links to one file


def _checksum(path: Path) -> list[int]:
    """Length and CRC-32: against incomplete and damaged files, not against tampering."""
    value = length = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            value, length = zlib.crc32(block, value), length + len(block)
    return [length, value]


def _settle(path: Path) -> None:
    """Flush a file or a folder's entries to the disk, where the system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows can't open folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not path.is_dir():  # some network file systems refuse that for folders
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)
