"""What is done with a finished run or an exported file: open, predict, export, verify.

`recipe.finetune` uses the same functions on the folder it has just written, so that what is evaluated and exported is
what lies on disk.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft import config as configuration
from zooft import runtime
from zooft.contracts import Advance, Calibration, Computing, GroupScore, Sample, Verification, unseen
from zooft.data import samples as sample_tables
from zooft.errors import ConfigError, DataError, RunError
from zooft.evaluation.judge import Predictions, calibrated, predictions
from zooft.hooks.guard import within
from zooft.run import folder as runs
from zooft.run.record import RunRecord, read_record
from zooft.storage import csv_files
from zooft.storage.lookup import Lookup
from zooft.storage.sequences import pick, spilled_as

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from zooft.contracts import Discovery, InputSpec, Port, Task
    from zooft.deploy.export import DeployedModel
    from zooft.deploy.verify import Reference
    from zooft.features import FeatureCache, SampleDataset
    from zooft.features.prefix import Prefix
    from zooft.hooks.registry import Registry
    from zooft.model.adapted import AdaptedModel
    from zooft.model.backbone import Backbone
    from zooft.runtime import Metadata, OnnxModel


_MANY = 64
"""Samples from which on making a faster copy of the model costs less than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """A run, opened: its record, and its model as the best epoch left it, on the CPU."""

    path: Path
    record: RunRecord
    task: Task
    options: Any
    classes: tuple[str, ...]
    model: AdaptedModel
    input: InputSpec
    calibration: Calibration
    group_score: GroupScore


@dataclass(frozen=True, slots=True)
class _Arrays(Sequence[Any]):
    """Samples in native units, each read when it is asked for: five hundred photographs don't fit into memory."""

    task: Task
    options: Any
    samples: Sequence[Sample]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        return sample_tables.read(self.task, self.options, self.samples[index])


def open_run(path: Path, registry: Registry, *, like: Backbone | None = None) -> SavedRun:
    """Build a run's model again and load its weights strictly.

    Args:
        path: the run's folder.
        registry: where its parts are looked up.
        like: its backbone, where this process has built and checked it before.

    Raises:
        RunError: not a run.
        WeightsError: its weights don't fit its record.
    """
    from zooft.model.adapted import adapt, load_zoo_tensors
    from zooft.model.backbone import rebuild_backbone
    from zooft.model.weights import read_file

    record = read_record(path)
    task, options = _task(registry, record.task, record.options)
    backbone = rebuild_backbone(
        registry.family(record.backbone.family), record.backbone.name, channels=task.channels(options),
        record=record.weights, like=like,
    )  # fmt: skip
    adapted = adapt(backbone, registry.head(record.head), len(record.classes))
    weights = path / runs.WEIGHTS_FILE
    load_zoo_tensors(adapted, read_file(weights).tensors, what=weights.name)
    return SavedRun(
        path=path, record=record, task=task, options=options, classes=record.classes,
        model=adapted.eval(), input=backbone.input, calibration=record.fitted, group_score=record.data.group_score,
    )  # fmt: skip


def find_samples(
    task: Task,
    options: Any,
    classes: Sequence[str],
    data: Path,
    *,
    run: Path | None,
    split: str = "auto",
    order: Sequence[str] = ("test", "val", "all"),
    val_was_learnt: bool = False,
    computing: Computing = unseen,
) -> tuple[str, Sequence[Sample], tuple[str, ...]]:
    """Samples to judge a finished model by: the split's name, the samples, and what to tell the user.

    Args:
        task: the model's.
        options: the task's, as trained.
        classes: the model's.
        data: folder or manifest.
        run: whose ``samples.csv`` says who was held out, where the data is the run's own.
        split: train, val, test, all, or auto for the first in `order` that there is.
        order: for auto.
        val_was_learnt: whether the model has learnt from the data's own val split too, as with ``--folds``.
        computing: told how far the reading is.

    Raises:
        DataError: nothing to judge by, or classes that the model doesn't know.
    """
    found = sample_tables.discover(task, data, options, learning=False, computing=computing)
    return samples_of(found, classes, run=run, split=split, order=order, val_was_learnt=val_was_learnt)


def samples_of(
    found: Discovery,
    classes: Sequence[str],
    *,
    run: Path | None,
    split: str = "auto",
    order: Sequence[str] = ("test", "val", "all"),
    val_was_learnt: bool = False,
) -> tuple[str, Sequence[Sample], tuple[str, ...]]:
    """As `find_samples`, among those that a task has found."""
    foreign = [name for name in found.classes if name not in classes]
    if foreign:
        raise DataError(
            f"the data has classes that the model doesn't know: {', '.join(foreign)}; it knows {', '.join(classes)}"
        )
    known = _known_splits(run, found, classes)
    everyone = spilled_as(
        [found.samples],
        (_relabelled(sample, found.classes, classes, known, val_was_learnt) for sample in found.samples),
    )
    named = np.array([sample.split for sample in everyone])
    by_split = {name: pick(everyone, np.flatnonzero(named == name)) for name in ("train", "val", "test")}
    by_split["all"] = everyone
    chosen = split if split != "auto" else next(name for name in order if by_split[name])
    if chosen == "all" and split == "auto" and val_was_learnt and len(known):
        raise DataError(
            "the model has learnt from all samples of this data (--folds), so judging it by them would flatter it; its "
            "cross-validated figures are in run.json and report.html; give other data, or --split all to judge it all the same"
        )
    if not by_split[chosen]:
        raise DataError(f"the data has no {chosen} samples; it has {_counted(by_split)}")
    notes = [*found.notes, *filter(None, [sample_tables.rejected_sentence(found)])]
    if chosen == "all" and split == "auto":
        notes.append(
            "the data has no split, so all samples are judged; those that were trained on make figures too good"
        )
    notes += sample_tables.absent_classes(
        by_split[chosen], classes, where=f"the {'' if chosen == 'all' else chosen + ' '}samples"
    )
    return chosen, by_split[chosen], tuple(notes)


def samples_to_verify(
    saved: SavedRun, data: Path, *, run: Path, most: int
) -> tuple[list[Sample], int, tuple[str, ...]]:
    """At most `most` validation samples evenly spread, how many there are, and what to tell the user.

    Training samples where there are no others: for comparing two ways to the same answer any will do.
    """
    from zooft.deploy.verify import spread

    learnt = saved.record.data.val == 0
    _, members, notes = find_samples(
        saved.task, saved.options, saved.classes, data, run=run, order=("val", "test", "all"),
        split="all" if learnt else "auto", val_was_learnt=learnt,
    )  # fmt: skip
    return [members[i] for i in spread(members, most)], len(members), notes


def predict_run(
    saved: SavedRun,
    samples: Sequence[Sample],
    *,
    device: str,
    workers: int,
    advance: Advance,
    keeping: FeatureCache | None = None,
    stop: int = 0,
) -> Predictions:
    """A run's answers, in torch.

    Args:
        saved: the run.
        samples: what is asked.
        device: where.
        workers: loader processes.
        advance: told of each batch.
        keeping: where what leaves the first `stop` stages is kept, or is to be kept.
        stop: how many leading stages learnt nothing.
    """
    import torch

    from zooft.compute.kernels.numerics import exact_convolutions
    from zooft.deploy.export import activate
    from zooft.features import AT_A_TIME, inputs, loader, to_device

    views = make_views(saved, samples)
    saved.model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    kept = None if keeping is None else inputs(saved.model, views, stop=stop, keeping=keeping)
    start = 0 if kept is None else stop
    rows: list[torch.Tensor] = []
    answer = partial(saved.model, start=start) if start or len(samples) < _MANY else _Folded(saved.model)
    with torch.inference_mode(), exact_convolutions():
        for x, y in loader(views if kept is None else kept, batch_size=AT_A_TIME, workers=workers):
            rows.append(answer(to_device(x, torch.device(device))).float().cpu())
            advance(len(y))
    logits = torch.cat(rows).numpy()
    raw = predictions(samples, logits, activate(saved.task.activation)(torch.from_numpy(logits)).numpy())
    return raw if saved.calibration == Calibration() else calibrated(raw, saved.calibration, saved.task)


class _Folded:
    """A model's logits by a copy of its stages with batch norms folded, which takes half the time.

    Args:
        model: in evaluation mode; it isn't changed.
    """

    def __init__(self, model: AdaptedModel) -> None:
        self._model, self._stop = model, len(model.stages)
        self._made: Prefix | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, classes)``."""
        if self._made is None:
            from zooft.features import prefix

            self._made = prefix.runner(self._model, self._stop, x, note=lambda _why: None)
        logits: torch.Tensor = self._model(self._made.run(x), self._stop)
        return logits


def predict_file(
    model: OnnxModel, task: Task, options: Any, samples: Sequence[Sample], *, advance: Advance
) -> Predictions:
    """An exported file's answers, without torch."""
    if not samples:
        empty = np.zeros((0, len(model.metadata.classes)), np.float32)
        return predictions((), empty, empty)
    rows = []
    for sample in samples:
        rows.append(model.run(*(array[None] for array in sample_tables.read(task, options, sample))))
        advance(1)
    probabilities, logits = (np.concatenate(column) for column in zip(*rows, strict=True))
    return predictions(samples, logits, probabilities)


def export_run(saved: SavedRun, path: Path, *, note: Callable[[str], None] = lambda _text: None) -> None:
    """Write a run's model to `path`, not yet verified.

    Args:
        saved: the run.
        path: of the file.
        note: told in one sentence what was done to make it work.

    Raises:
        ExportError: it can't be exported.
    """
    from zooft.deploy.export import export

    ports = sample_tables.ports(saved.task, saved.options)
    export(
        deployed(saved), path, ports=ports, example=[_example(port) for port in ports],
        describe=lambda sha256: _describe(saved, sha256), note=note,
    )  # fmt: skip


def try_export(model: AdaptedModel, spec: InputSpec, task: Task, options: Any) -> None:
    """Raise ExportError where a model that is to be trained can't be exported afterwards.

    Args:
        model: on the CPU; it is left as it is.
        spec: of its backbone's input.
        task: what it will answer.
        options: the task's.
    """
    from zooft.deploy import export

    ports = sample_tables.ports(task, options)
    x = task.preprocess(spec, options)(*(_example(port) for port in ports))
    axes = {0: "batch"}
    if task.bag(options) and isinstance(ports[0].axes[1], str):
        axes[1] = "instances"
    export.try_out(model, x, axes=axes)


def verify_file(
    saved: SavedRun, path: Path, samples: Sequence[Sample], *, available: int, provider: str, advance: Advance
) -> Verification:
    """Compare an exported file with its run's model, on `samples` or, where there are none, on generated images."""
    from zooft.deploy import declared, verify
    from zooft.version import __version__

    model = runtime.load(path, provider=provider)
    expected = _describe(saved, model.metadata.weights_sha256)
    material = verify.Material(
        arrays=_Arrays(saved.task, saved.options, tuple(samples)),
        targets=np.array([s.target for s in samples]),
        available=available,
        data="real",
    )
    if not samples:
        arrays = verify.generated(sample_tables.ports(saved.task, saved.options))
        material = verify.Material(arrays=arrays, targets=None, available=0, data="generated")
    return verify.verify(
        model, path, parts=runtime.preprocessing(path, provider=provider), reference=_reference(saved), material=material,
        metrics=saved.task.metrics, requested=provider, probability_limit=saved.task.probability_limit, advance=advance,
        declaration=declared.against_run(model, path, expected, version=__version__),
    )  # fmt: skip


def settle(run: Path, candidate: Path, verification: Verification) -> Path:
    """Give a candidate its name by how it did, and write ``verification.json``.

    Returns:
        ``model.onnx`` for a file that passed; ``model.unverified.onnx`` for one that failed, with any
        ``model.onnx`` of before removed.
    """
    target = run / (runs.ONNX_FILE if verification.passed else runs.REFUSED_FILE)
    other = run / (runs.REFUSED_FILE if verification.passed else runs.ONNX_FILE)
    other.unlink(missing_ok=True)
    candidate.replace(target)
    runs.write_json(run / runs.VERIFICATION_FILE, verification)
    return target


def deployed(saved: SavedRun) -> DeployedModel:
    """The module that an export contains, on the CPU.

    In the plain layout: the exporter writes another graph for channels-last weights, and a run should always
    give the same file.
    """
    import torch

    from zooft.deploy.export import DeployedModel

    preprocess = saved.task.preprocess(saved.input, saved.options)
    network = saved.model.cpu().to(memory_format=torch.contiguous_format)
    return DeployedModel(preprocess, network, saved.task.activation, saved.calibration).eval()


def make_views(saved: SavedRun, samples: Sequence[Sample]) -> SampleDataset:
    """Samples as the network's input, plain."""
    from zooft.features import SampleDataset, reader

    return SampleDataset(
        samples,
        read=reader(saved.task, saved.options),
        preprocess=within(saved.task, "preprocess", saved.task.preprocess(saved.input, saved.options)),
    )


def task_of_file(model: OnnxModel, registry: Registry) -> tuple[Task, Any]:
    """The task that an exported file was made for, and its options.

    Looked up by name among the installed plugins: a file never says which code to run.
    """
    metadata = model.metadata
    try:
        return _task(registry, metadata.task, metadata.options)
    except ConfigError as error:
        raise ConfigError(
            f"the file's metadata names the task {metadata.task}, whose options don't fit: {error}"
        ) from error


def _task(registry: Registry, name: str, options: Mapping[str, Any]) -> tuple[Task, Any]:
    task = registry.task(name)
    return task, configuration.build(task.options, options)


def _reference(saved: SavedRun) -> Reference:
    import torch

    from zooft.deploy.verify import Reference

    module = deployed(saved)

    def prepare(*batch: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            made: NDArray[Any] = module.preprocess(*map(torch.from_numpy, batch)).numpy()
        return made

    def answer(x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        with torch.inference_mode():
            probabilities, logits, _ = module.answer(torch.from_numpy(x))
        return probabilities.numpy(), logits.numpy()

    @cache
    def double() -> DeployedModel:
        return copy.deepcopy(module).double()

    def exact(x: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            logits: NDArray[Any] = double().answer(torch.from_numpy(x).double())[1].numpy()
        return logits

    return Reference(prepare=prepare, answer=answer, exact=exact, input=saved.input, advice=_advice(saved))


def _advice(saved: SavedRun) -> str:
    """What to do about a model that answers the same to everything."""
    more = "train longer (--epochs) or faster (--lr), and look at the learning curve in report.html"
    if saved.record.weights.kind == "random":
        return f"its backbone began with random weights and has learnt nothing yet: begin with pretrained ones (--weights), or {more}"
    return f"its head has learnt nothing yet: {more}"


def _describe(saved: SavedRun, sha256: str) -> Metadata:
    record = saved.record
    return runtime.Metadata(
        version=record.zooft,
        task=record.task,
        options=record.options,
        classes=saved.classes,
        activation=saved.task.activation,
        ports=sample_tables.ports(saved.task, saved.options),
        calibration=saved.calibration,
        group_score=saved.group_score,
        preprocessing=f"inside the graph: {saved.task.explain(saved.input, saved.options)}",
        backbone=record.backbone.reference,
        weights=runs.to_json(record.weights),
        weights_sha256=sha256,
        data={key: value for key, value in runs.to_json(record.data).items() if key != "path"},
        metrics={
            split: {k: v for k, v in figures.items() if k != "subgroups"}
            for split, figures in record.evaluation.items()
        },
        intended_use=saved.task.intended_use,
    )


def _example(port: Port) -> torch.Tensor:
    """Two samples: the exporter needs shapes and types, the values don't matter."""
    import torch

    shape = (2, *port.shape(256, 288, others=5))
    dtype = getattr(torch, port.dtype)
    if dtype.is_floating_point:
        return torch.full(shape, 0.75, dtype=dtype)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def _known_splits(run: Path | None, found: Discovery, classes: Sequence[str]) -> Lookup:
    """Id to split, where the data is what the run was trained on: other data may have the same ids by chance."""
    known = Lookup()
    if run is None or read_record(run).data.fingerprint != sample_tables.fingerprint(found, classes):
        return known
    table = run / runs.SAMPLES_FILE
    try:
        known.update((row["id"], row["split"]) for row in csv_files.read(table) if row["split"])
        return known
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"{table} can't be read: {error}") from error


def _relabelled(
    sample: Sample, found: Sequence[str], classes: Sequence[str], known: Lookup, val_was_learnt: bool
) -> Sample:
    target = list(classes).index(found[sample.target])
    given = "train" if val_was_learnt and sample.split == "val" else sample.split
    split: Any = known.get(sample.id) or given
    return replace(sample, target=target, split=split)


def _counted(by_split: Mapping[str, Sequence[Sample]]) -> str:
    return ", ".join(f"{len(members)} {name}" for name, members in by_split.items() if name != "all")
