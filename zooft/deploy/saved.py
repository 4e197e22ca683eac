"""What is done with a finished run or an exported file: open, predict, export, verify.

`recipe.finetune` uses the same functions on the folder it has just written, so that what is evaluated and exported is
what lies on disk.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft import config as configuration
from zooft import runtime
from zooft.contracts import Advance, Computing, Sample, Verification, unseen
from zooft.data import samples as sample_tables
from zooft.deploy import bill, deviation, metadata_check, verify
from zooft.deploy.metadata_check import refuse_undeclared
from zooft.deploy.verify import Reference, spread
from zooft.errors import ConfigError, DataError, RunError, RuntimeModelError, ZooftError
from zooft.evaluation.predictions import Predictions
from zooft.hooks.guard import call_plugin, part_within, within
from zooft.model.weights import file_sha256, read_file
from zooft.run import folder as runs
from zooft.run.record import RunRecord, read_record
from zooft.runtime.metadata import SCHEMA
from zooft.storage import csv_files
from zooft.storage.lookup import Lookup
from zooft.storage.sequences import pick, spill_like
from zooft.version import __version__

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from zooft.contracts import (
        Arrays,
        Columns,
        Discovery,
        Fitted,
        InputGeometry,
        InputSpec,
        Labels,
        Output,
        Port,
        Problem,
        Task,
    )
    from zooft.deploy.export import DeployedModel
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
    labels: Labels
    model: AdaptedModel
    input: InputSpec
    fitted: Fitted
    group_rule: str

    @property
    def problem(self) -> Problem:
        """The task's."""
        return self.task.problem


@dataclass(frozen=True, slots=True)
class _Arrays(Sequence[Any]):
    """Samples in native units, each read when it is needed: five hundred photographs don't fit into memory."""

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
        registry: where its parts are found.
        like: its backbone, where this process has built and checked it before.

    Raises:
        RunError: not a run.
        WeightsError: its weights don't fit its record.
    """
    from zooft.model.adapted import adapt, load_zoo_state_dict
    from zooft.model.backbone import for_task, rebuild_backbone

    record = read_record(path)
    task, options = _task(registry, record.task, record.options)
    backbone = rebuild_backbone(
        registry.family(record.backbone.family),
        record.backbone.name,
        channels=task.channels(options),
        record=record.weights,
        like=like,
        pruned=None if record.pruned is None else record.pruned.sizes,
    )
    backbone = for_task(backbone, task, options)
    _check_taps(path, record, backbone)
    outputs = call_plugin(task.problem.training, "outputs", record.labels, options)
    adapted = adapt(backbone, registry.head(record.head), outputs, known_taps=record.backbone.taps)
    weights = path / runs.WEIGHTS_FILE
    load_zoo_state_dict(adapted, read_file(weights).tensors, what=weights.name)
    return SavedRun(
        path=path,
        record=record,
        task=task,
        options=options,
        labels=record.labels,
        model=adapted.eval(),
        input=backbone.input,
        fitted=record.fitted,
        group_rule=record.data.group_rule,
    )


def _check_taps(path: Path, record: RunRecord, backbone: Backbone) -> None:
    """Raise RunError where the head reads maps behind stages that this version's backbone hasn't."""
    missing = [stage for stage in record.backbone.taps if stage not in backbone.stages]
    if missing:
        raise RunError(
            f"{path} was trained on maps behind {', '.join(missing)} of {backbone.reference}, whose stages are "
            f"{', '.join(backbone.stages)} now; open it with zooft {record.zooft}, or train anew"
        )


def about_unfitted(saved: SavedRun) -> tuple[str, ...]:
    """A note about a run, or a fold, that ended before anything was fitted on its validation samples."""
    shown, labels = saved.problem.presentation, saved.labels
    wanted = shown.describe(labels, saved.fitted, saved.record.options).fitted
    if saved.record.evaluation or saved.fitted or not wanted:
        return ()
    as_it_is = "; ".join(shown.opening(labels, saved.fitted))
    return (
        f"this run hasn't come to its end, and answers without what is fitted then, {wanted}"
        + (f"; as it is, {as_it_is}" if as_it_is else ""),
    )


def find_samples(
    task: Task,
    options: Any,
    labels: Labels,
    data: Path,
    *,
    run: Path | None,
    split: str = "auto",
    order: Sequence[str] = ("test", "val", "all"),
    trained_on_val: bool = False,
    computing: Computing = unseen,
) -> tuple[str, Sequence[Sample], tuple[str, ...]]:
    """Samples to evaluate a finished model on: the split's name, the samples, and notes for the user.

    Args:
        task: the model's.
        options: the task's, as trained.
        labels: the model's.
        data: folder or manifest.
        run: whose ``samples.csv`` records who was held out, where the data is the run's own.
        split: train, val, test, all, or auto for the first in `order` that there is.
        order: for auto.
        trained_on_val: whether the model was trained on the data's own val split too, as with ``--folds``.
        computing: shows how far the reading is.

    Raises:
        DataError: nothing to evaluate on, or targets that the model doesn't know, such as classes.
    """
    found = sample_tables.discover(task, data, options, learning=False, computing=computing)
    return samples_of(task.problem, found, labels, run=run, split=split, order=order, trained_on_val=trained_on_val)


def samples_of(
    problem: Problem,
    found: Discovery,
    labels: Labels,
    *,
    run: Path | None,
    split: str = "auto",
    order: Sequence[str] = ("test", "val", "all"),
    trained_on_val: bool = False,
) -> tuple[str, Sequence[Sample], tuple[str, ...]]:
    """As `find_samples`, among those that a task has found."""
    unknown = problem.training.unknown(found.labels, labels)
    if unknown:
        raise DataError(unknown)
    relabel = make_relabel(problem, found.labels, labels)
    known = _known_splits(run, found, relabel)
    everyone = spill_like(
        [found.samples], (_as_the_model_has(sample, relabel, known, trained_on_val) for sample in found.samples)
    )
    named = np.array([sample.split for sample in everyone])
    by_split = {name: pick(everyone, np.flatnonzero(named == name)) for name in ("train", "val", "test")}
    by_split["all"] = everyone
    chosen = split if split != "auto" else next(name for name in order if by_split[name])
    if chosen == "all" and split == "auto" and trained_on_val and len(known):
        raise DataError(
            "the model was trained on all samples of this data (--folds), so evaluating on them would be "
            "optimistic; its cross-validated figures are in run.json and report.html; give other data, or --split "
            "all to evaluate it all the same"
        )
    if not by_split[chosen]:
        raise DataError(f"the data has no {chosen} samples; it has {_count(by_split)}")
    notes = [*found.notes, *filter(None, [sample_tables.rejected_sentence(found)])]
    if chosen == "all" and split == "auto":
        notes.append(
            "the data has no split, so it is evaluated on all samples; those that were trained on make figures too good"
        )
    notes += sample_tables.about_absent(
        problem, by_split[chosen], labels, where=f"the {'' if chosen == 'all' else chosen + ' '}samples"
    )
    return chosen, by_split[chosen], tuple(notes)


def samples_to_verify(
    saved: SavedRun, data: Path, *, run: Path, most: int
) -> tuple[list[Sample], int, tuple[str, ...]]:
    """At most `most` validation samples evenly spread, how many there are, and notes for the user.

    Training samples where there are no others: for comparing two ways to the same answer any will do.
    """
    all_trained_on = saved.record.data.val == 0
    _, members, notes = find_samples(
        saved.task,
        saved.options,
        saved.labels,
        data,
        run=run,
        order=("val", "test", "all"),
        split="all" if all_trained_on else "auto",
        trained_on_val=all_trained_on,
    )
    return [members[i] for i in spread(members, most)], len(members), notes


def predict_run(
    saved: SavedRun,
    samples: Sequence[Sample],
    *,
    device: str,
    workers: int,
    advance: Advance,
    feature_cache: FeatureCache | None = None,
    stop: int = 0,
) -> Predictions:
    """A run's answers, in torch; to samples that were cut into tiles, those to the whole ones.

    Args:
        saved: the run.
        samples: to predict.
        device: where.
        workers: loader processes.
        advance: called for each batch.
        feature_cache: where outputs of the first `stop` stages are cached.
        stop: how many leading stages weren't trained.
    """
    import torch

    from zooft.compute.kernels.numerics import exact_convolutions
    from zooft.features import AT_A_TIME, inputs, loader, to_device

    whole = whole_samples(saved.problem, samples)
    if whole is not samples:
        return _predict_whole(saved, whole, device=device, advance=advance)
    views = make_views(saved, samples)
    saved.model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    exact = saved.problem.training.move is not None
    cached = (
        None
        if feature_cache is None
        else inputs(saved.model, views, stop=stop, feature_cache=feature_cache, exact=exact)
    )
    start = 0 if cached is None else stop
    rows: list[Columns] = []
    answer = partial(saved.model, start=start) if start or len(samples) < _MANY else _Folded(saved.model)
    placed = None if saved.problem.training.move is None else _PlacedAnswers(saved, samples)
    with torch.inference_mode(), exact_convolutions():
        for x, _ in loader(views if cached is None else cached, batch_size=AT_A_TIME, workers=workers):
            made = {name: found.float().cpu() for name, found in answer(to_device(x, torch.device(device))).items()}
            rows.append(
                {name: found.numpy() for name, found in made.items()} if placed is None else placed.columns(made)
            )
            advance(len(x))
    columns = _join(rows)
    if placed is None:
        columns = saved.problem.evaluation.columns(columns, [sample.target for sample in samples], saved.labels)
    raw = Predictions(samples=samples, columns=columns)
    return saved.problem.evaluation.apply(raw, saved.fitted, saved.labels) if saved.fitted else raw


def whole_samples(problem: Problem, samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those that figures are computed of: the same, or what they were cut from."""
    return samples if problem.deployment.whole is None else problem.deployment.whole_samples(samples)


def _predict_whole(saved: SavedRun, samples: Sequence[Sample], *, device: str, advance: Advance) -> Predictions:
    """As `predict_run`, of samples that are put together from several answers each."""
    run, rows = _make_runner(saved, device), []
    for sample in samples:
        answers = _answer_whole(saved, run, sample)
        rows.append(saved.problem.deployment.columns(answers, [sample.target], saved.labels, {}))
        advance(1)
    raw = Predictions(samples=samples, columns=_join(rows))
    return saved.problem.evaluation.apply(raw, saved.fitted, saved.labels) if saved.fitted else raw


def _answer_whole(saved: SavedRun, run: Callable[[Arrays], Columns], sample: Sample) -> Columns:
    whole = saved.problem.deployment.whole
    assert whole is not None  # noqa: S101 -- the caller has checked
    return whole(run, sample_tables.read(saved.task, saved.options, sample), saved.labels)


def _make_runner(saved: SavedRun, device: str) -> Callable[[Arrays], Columns]:
    """From the arrays of one sample to what the deployed graph gives in torch, with the batch axis, nothing fitted."""
    import torch

    from zooft.compute.kernels.numerics import exact_convolutions

    preprocess = saved.task.preprocess(saved.input, saved.options).to(device).eval()
    network = saved.model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    last = _last(saved, {}).to(device).eval()
    names = [output.name for output in saved.problem.deployment.outputs(saved.labels, {})]

    def run(arrays: Arrays) -> Columns:
        batch = tuple(torch.from_numpy(array)[None].to(device) for array in arrays)
        with torch.inference_mode(), exact_convolutions():
            outputs = {name: found.float() for name, found in network(preprocess(*batch)).items()}
            made = last(outputs, batch)
        return {name: found.cpu().numpy() for name, found in zip(names, made, strict=True)}

    return run


def _join(rows: Sequence[Columns]) -> Columns:
    """Of several batches as of one."""
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


class _PlacedAnswers:
    """The head's outputs of a run's samples, batch by batch, as answers in the samples' own pixels, nothing fitted.

    Args:
        saved: the run.
        samples: in the order of the batches.
    """

    def __init__(self, saved: SavedRun, samples: Sequence[Sample]) -> None:
        self._saved, self._left = saved, iter(samples)
        self._last = _last(saved, {}).eval()
        self._names = [output.name for output in saved.problem.deployment.outputs(saved.labels, {})]

    def columns(self, outputs: Mapping[str, torch.Tensor]) -> Columns:
        """Of the next samples, as many as `outputs` have rows."""
        rows = [self._row(outputs, index) for index in range(len(next(iter(outputs.values()))))]
        return _join(rows)

    def _row(self, outputs: Mapping[str, torch.Tensor], index: int) -> Columns:
        import torch

        sample, saved = next(self._left), self._saved
        arrays = sample_tables.read(saved.task, saved.options, sample)
        batch = tuple(torch.from_numpy(array)[None] for array in arrays)
        made = self._last({name: found[index : index + 1] for name, found in outputs.items()}, batch)
        answers = {name: found.numpy() for name, found in zip(self._names, made, strict=True)}
        return saved.problem.deployment.columns(answers, [sample.target], saved.labels, {})


class _Folded:
    """A model's outputs by a copy of its stages with batch norms folded, which takes half the time.

    Args:
        model: in evaluation mode; it isn't changed.
    """

    def __init__(self, model: AdaptedModel) -> None:
        self._model, self._stop = model, len(model.stages)
        self._made: Prefix | None = None

    def __call__(self, x: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """By name, ``(N, …)``."""
        if self._made is None:
            from zooft.features import prefix

            self._made = prefix.runner(self._model, self._stop, x, note=lambda _why: None)
        outputs: Mapping[str, torch.Tensor] = self._model(self._made.run(x), self._stop)
        return outputs


def predict_file(
    model: OnnxModel, task: Task, options: Any, samples: Sequence[Sample], *, advance: Advance
) -> Predictions:
    """An exported file's answers, without torch; to samples that were cut into tiles, those to the whole ones."""
    rows = []
    given, samples = samples, whole_samples(task.problem, samples)
    whole = None if samples is given else task.problem.deployment.whole

    def run(arrays: Arrays) -> Columns:
        return model.run(*(array[None] for array in arrays))

    for sample in samples:
        arrays = sample_tables.read(task, options, sample)
        answers = run(arrays) if whole is None else whole(run, arrays, model.metadata.labels)
        rows.append(columns_of(model, task, answers, [sample.target]))
        advance(1)
    columns = _join(rows) if rows else columns_of(model, task, model.nothing(), [])
    return Predictions(samples=samples, columns=columns)


def columns_of(model: OnnxModel, task: Task, answers: Columns, targets: Sequence[Any]) -> Columns:
    """What a file gave of N samples, as the problem sees it."""
    about = model.metadata
    return task.problem.deployment.columns(answers, targets, about.labels, about.fitted)


def export_run(saved: SavedRun, path: Path, *, note: Callable[[str], None] = lambda _text: None) -> None:
    """Write a run's model to `path`, not yet verified.

    Args:
        saved: the run.
        path: of the file.
        note: called with one sentence on what was done to make it work.

    Raises:
        ExportError: it can't be exported.
    """
    from zooft.deploy.export import export

    ports = sample_tables.ports(saved.task, saved.options)
    model, outputs, example = deployed_model(saved), _outputs(saved), [_example(port) for port in ports]
    refuse_undeclared(saved.task, outputs, _run_deployed(model, example, saved.task), rows=2)
    export(
        model,
        path,
        ports=ports,
        outputs=outputs,
        example=example,
        describe=lambda sha256: _describe(saved, sha256),
        others=saved.problem.deployment.properties(saved.labels),
        note=note,
    )


def _run_deployed(model: DeployedModel, example: Sequence[torch.Tensor], task: Task) -> Any:
    """What a deployed model makes of an example, the last piece of its graph under guard."""
    import torch

    with torch.inference_mode():
        outputs = model.network(model.preprocess(*example))
        return part_within(task, "deployment", "graph", model.last)(outputs, tuple(example))


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
    model = runtime.load(path, provider=provider)
    expected = _describe(saved, model.metadata.weights_sha256)
    material = verify.Material(
        arrays=_Arrays(saved.task, saved.options, tuple(samples)),
        targets=None if any(s.target is None for s in samples) else [s.target for s in samples],
        available=available,
        data="real",
    )
    if not samples:
        arrays = verify.generate_samples(sample_tables.ports(saved.task, saved.options))
        material = verify.Material(arrays=arrays, targets=None, available=0, data="generated")
    record = verify.verify(
        model,
        path,
        parts=runtime.preprocessing(path, provider=provider),
        reference=_reference(saved),
        material=material,
        answering=verify.Answering(
            problem=saved.problem, labels=saved.labels, fitted=saved.fitted, precision=model.precision
        ),
        requested=provider,
        advance=advance,
        declaration=metadata_check.against_run(model, path, expected, saved.problem, version=__version__),
    )
    if record.passed or not verify.differs(record):
        return record
    generated = verify.generate_samples(model.ports)
    return _locate_deviation(saved, path, record, (material.arrays[0], generated[1]))


def _locate_deviation(saved: SavedRun, path: Path, record: Verification, arrays: Sequence[Arrays]) -> Verification:
    """A record of a file that differs, with the operator where that begins, by an export of the run."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            fresh = Path(scratch) / runs.ONNX_FILE
            export_run(saved, fresh)
            found = deviation.locate(
                path, fresh, arrays, provider=record.requested_provider, stages=_stages_of_modules(saved)
            )
    except (ZooftError, OSError) as error:
        note = f"where it begins to differ couldn't be found: {error}"
    else:
        if found is not None:
            return replace(record, deviation=found)
        note = (
            "every tensor is that of a file exported from the run just now, so the exporter or what runs the file "
            "makes the difference: try --provider cpu, or another backbone"
        )
    return replace(record, notes=(*record.notes, note))


def _stages_of_modules(saved: SavedRun) -> dict[str, str]:
    """Modules of the model that have tensors, to their stages."""
    owners = saved.model.owners
    return {f"trunk.{name}".rpartition(".")[0]: stages[0] for name, stages in owners.items() if stages}


def settle(
    run: Path, candidate: Path, verification: Verification, *, note: Callable[[str], None] = lambda _text: None
) -> Path:
    """Give a candidate its name by how it did, and write ``verification.json`` and what the file is made of.

    Files in lower precision that were made from another one are removed: they hold an older model.

    Args:
        run: the run's folder.
        candidate: the new file.
        verification: of it.
        note: called with a sentence on each file that was removed.

    Returns:
        ``model.onnx`` for a file that passed; ``model.unverified.onnx`` for one that failed, with any
        ``model.onnx`` of before removed.
    """
    target = run / (runs.ONNX_FILE if verification.passed else runs.REFUSED_FILE)
    other = run / (runs.REFUSED_FILE if verification.passed else runs.ONNX_FILE)
    other.unlink(missing_ok=True)
    candidate.replace(target)
    runs.write_json(run / runs.VERIFICATION_FILE, verification.as_json())
    _remove_stale(run, note)
    bill.describe_exports(run)
    return target


def _remove_stale(run: Path, note: Callable[[str], None]) -> None:
    """Remove files in lower precision that weren't made from the float32 file as it is now."""
    source = run / runs.ONNX_FILE
    sha256 = file_sha256(source) if source.is_file() else ""
    for name in runtime.PRECISIONS:
        path = run / runs.PRECISION_FILE.format(name)
        if path.is_file() and _made_from(path) != sha256:
            path.unlink()
            (run / runs.PRECISION_VERIFICATION_FILE.format(name)).unlink(missing_ok=True)
            note(
                f"{path.name} was made from another {runs.ONNX_FILE}, so it was removed; 'zooft export {run} "
                f"--precision {name}' makes it again"
            )


def _made_from(path: Path) -> str:
    """SHA-256 of the float32 file that one in lower precision states; nothing where it can't be read."""
    try:
        return runtime.read_precision(path).source_sha256
    except RuntimeModelError:
        return ""


def deployed_model(saved: SavedRun) -> DeployedModel:
    """The module that an export contains, on the CPU.

    In the plain layout: the exporter writes another graph for channels-last weights, and a run should always
    give the same file.
    """
    import torch

    from zooft.deploy.export import DeployedModel

    preprocess = saved.task.preprocess(saved.input, saved.options)
    network = saved.model.cpu().to(memory_format=torch.contiguous_format)
    return DeployedModel(preprocess, network, _last(saved, saved.fitted)).eval()


def _last(saved: SavedRun, fitted: Fitted) -> torch.nn.Module:
    """The last piece of the graph: the head's outputs and the graph's inputs to the file's outputs."""
    from zooft.deploy.export import Placed

    made = saved.problem.deployment.graph(saved.labels, fitted)
    if saved.problem.training.move is None:
        return made
    return Placed(made, geometry_of(saved.task, saved.input, saved.options))


def geometry_of(task: Task, spec: InputSpec, options: Any) -> InputGeometry:
    """How a task places samples in the network's input.

    Raises:
        ConfigError: it doesn't define this, or places them so that a part is lost.
    """
    if task.geometry is None:
        raise ConfigError(
            f"the task {task.name} doesn't define how it places samples in the network's input (Task.geometry), and "
            f"targets of the problem {task.problem.name} have places in them"
        )
    if spec.mode == "crop":
        raise ConfigError(
            f"the task {task.name} crops its samples, so that targets of the problem {task.problem.name} would be "
            "lost at the borders; its plugin has to ask for stretch or letterbox (Task.input)"
        )
    found: InputGeometry = call_plugin(task, "geometry", spec, options)
    return found


def make_answer(saved: SavedRun) -> Callable[[Sample], Columns]:
    """From a sample to what the deployed graph gives of it in torch, by name and without the batch axis."""
    import torch

    module, names = deployed_model(saved), [output.name for output in _outputs(saved)]

    def run(arrays: Arrays) -> Columns:
        with torch.inference_mode():
            made = module(*(torch.from_numpy(array)[None] for array in arrays))
        return {name: found.numpy() for name, found in zip(names, made, strict=True)}

    def answer(sample: Sample) -> Columns:
        whole, arrays = saved.problem.deployment.whole, sample_tables.read(saved.task, saved.options, sample)
        made = run(arrays) if whole is None else whole(run, arrays, saved.labels)
        return {name: found[0] for name, found in made.items()}

    return answer


def _outputs(saved: SavedRun) -> tuple[Output, ...]:
    return tuple(saved.problem.deployment.outputs(saved.labels, saved.fitted))


def make_views(saved: SavedRun, samples: Sequence[Sample]) -> SampleDataset:
    """Samples as the network's input, plain; their targets, of whatever kind, are none of its business."""
    from zooft.features import SampleDataset, reader

    return SampleDataset(
        samples,
        read=reader(saved.task, saved.options),
        preprocess=within(saved.task, "preprocess", saved.task.preprocess(saved.input, saved.options)),
        encode=_without_target,
    )


def _without_target(_target: Any) -> int:
    """What is predicted doesn't depend on targets, and not every target can be stacked to a batch."""
    return 0


def task_of_file(model: OnnxModel, registry: Registry) -> tuple[Task, Any]:
    """The task that an exported file was made for, and its options.

    Found by name among the installed plugins: a file never chooses which code to run.
    """
    metadata = model.metadata
    try:
        task, options = _task(registry, metadata.task, metadata.options)
    except ConfigError as error:
        raise ConfigError(
            f"the file's metadata names the task {metadata.task}, whose options don't fit: {error}"
        ) from error
    _refuse_other_answers(metadata, task)
    return task, options


def _refuse_other_answers(metadata: Metadata, task: Task) -> None:
    """What the file gives must be what the task's problem expects."""
    problem = task.problem
    if metadata.problem != problem.name:
        raise RuntimeModelError(
            f"the file's answers are of the problem {metadata.problem}, and those of the task {metadata.task}, as it "
            f"is installed here, are of {problem.name}; install the plugin that the file was made with"
        )
    try:
        outputs = problem.deployment.outputs(metadata.labels, metadata.fitted)
    except Exception as error:  # plugin code, on what something may have changed
        raise RuntimeModelError(
            f"the file's metadata doesn't fit the problem {problem.name} ({type(error).__name__}: {error}); export it "
            "again"
        ) from error
    wanted, given = ({one.name: (one.dtype, one.axes) for one in some} for some in (outputs, metadata.outputs))
    other = [name for name, kind in given.items() if wanted.get(name) != kind]
    if metadata.schema == SCHEMA:
        other += [name for name in wanted if name not in given]
    if other:
        raise RuntimeModelError(
            f"the file's metadata contradicts itself: its labels ask for other outputs than its {', '.join(other)}; "
            "export it again with 'zooft export'"
        )


def _task(registry: Registry, name: str, options: Mapping[str, Any]) -> tuple[Task, Any]:
    task = registry.task(name)
    return task, configuration.build(task.options, options)


def _reference(saved: SavedRun) -> Reference:
    import torch

    module = deployed_model(saved)

    def prepare(*batch: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            made: NDArray[Any] = module.preprocess(*map(torch.from_numpy, batch)).numpy()
        return made

    names = [output.name for output in _outputs(saved)]

    def answer(x: NDArray[Any], batch: Sequence[NDArray[Any]]) -> Columns:
        with torch.inference_mode():
            made = module.answer(torch.from_numpy(x), tuple(map(torch.from_numpy, batch)))
        return {name: found.numpy() for name, found in zip(names, made, strict=True)}

    @cache
    def double() -> DeployedModel:
        return copy.deepcopy(module).double()

    def exact(x: NDArray[Any], batch: Sequence[NDArray[Any]]) -> Columns:
        with torch.inference_mode():
            made = double().answer(torch.from_numpy(x).double(), tuple(map(torch.from_numpy, batch)))
        return {name: found.numpy() for name, found in zip(names, made, strict=True)}

    def both(x: NDArray[Any], batch: Sequence[NDArray[Any]]) -> tuple[Columns, Columns]:
        with torch.inference_mode():
            outputs = module.network(torch.from_numpy(x))
            made = module.last(outputs, tuple(map(torch.from_numpy, batch)))
        head = {name: found.numpy() for name, found in outputs.items()}
        return head, {name: found.numpy() for name, found in zip(names, made, strict=True)}

    # of targets that have places, columns of the head's outputs are in other pixels than those of the graph's
    comparable = saved.problem.training.move is None
    return Reference(
        prepare=prepare,
        answer=answer,
        exact=exact,
        input=saved.input,
        advice=_advice(saved),
        both=both if comparable else None,
    )


def _advice(saved: SavedRun) -> str:
    """What to do about a model that answers the same to everything."""
    more = "train longer (--epochs) or faster (--lr), and look at the learning curve in report.html"
    if saved.record.weights.kind == "random":
        return (
            "its backbone began with random weights and wasn't trained yet: begin with pretrained ones "
            f"(--weights), or {more}"
        )
    return f"its head wasn't trained yet: {more}"


def _describe(saved: SavedRun, sha256: str) -> Metadata:
    record = saved.record
    return runtime.Metadata(
        version=record.zooft,
        task=record.task,
        options=record.options,
        problem=saved.problem.name,
        labels=saved.labels,
        outputs=_outputs(saved),
        fitted=saved.fitted,
        ports=sample_tables.ports(saved.task, saved.options),
        group_rule=saved.group_rule,
        preprocessing=f"inside the graph: {saved.task.explain(saved.input, saved.options)}",
        backbone=record.backbone_in_words,
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


def make_relabel(problem: Problem, found: Labels, known: Labels) -> Callable[[Any], Any]:
    """From a target of data to the same one as a model has it; None, of what is only to be predicted, stays None."""
    relabel = problem.training.relabel
    return lambda target: None if target is None else relabel(target, found, known)


def _known_splits(run: Path | None, found: Discovery, relabel: Callable[[Any], Any]) -> Lookup:
    """Id to split, where the data is what the run was trained on: other data may have the same ids by chance."""
    known = Lookup()
    if run is None or read_record(run).data.fingerprint != sample_tables.fingerprint(found, relabel):
        return known
    table = run / runs.SAMPLES_FILE
    try:
        known.update((row["id"], row["split"]) for row in csv_files.read(table) if row["split"])
        return known
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"{table} can't be read: {error}") from error


def _as_the_model_has(sample: Sample, relabel: Callable[[Any], Any], known: Lookup, trained_on_val: bool) -> Sample:
    given = "train" if trained_on_val and sample.split == "val" else sample.split
    split: Any = known.get(sample.id) or given
    return replace(sample, target=relabel(sample.target), split=split)


def _count(by_split: Mapping[str, Sequence[Sample]]) -> str:
    return ", ".join(f"{len(members)} {name}" for name, members in by_split.items() if name != "all")
