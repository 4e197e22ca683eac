"""The whole story, in order: discover, split, adapt, freeze, train, evaluate, export, verify, publish.

The only module that sees the configuration as a whole; everything below it takes plain values.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zooft import config as configuration
from zooft import registry as registries
from zooft import run as runs
from zooft import runtime
from zooft import samples as sample_tables
from zooft.config import FinetuneConfig
from zooft.contracts import EpochRecord, Rejection, Verification, parse_reference
from zooft.errors import ConfigError, VerificationError, WeightsError
from zooft.split import Splits, split

if TYPE_CHECKING:
    from accelerate import Accelerator

    from zooft.contracts import Discovery, Family, Task
    from zooft.features import Views
    from zooft.metrics import Evaluation
    from zooft.model import AdaptedModel, Backbone
    from zooft.registry import Registry
    from zooft.saved import Predictions, SavedRun
    from zooft.train import Recipe, Watch

logger = logging.getLogger("zooft")
_RECORDED_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "onnx",
    "onnxscript",
    "numpy",
    "pillow",
    "scikit-learn",
)


class Listener(Protocol):
    """Who is told how the work goes on. The command line draws it; `Quiet` doesn't."""

    def step(self, title: str) -> None:
        """A new part of the story begins."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def rejected(self, rejected: Sequence[Rejection]) -> None:
        """Files that aren't used."""

    def computing(self, title: str, total: int) -> Callable[[int], None]:
        """Long work begins; the result is called with each number of units done."""

    def epoch(self, record: EpochRecord, epochs: int) -> None:
        """An epoch of `epochs` has ended."""


class Quiet:
    """A listener that only logs."""

    def step(self, title: str) -> None:
        """Log it."""
        logger.info("%s", title)

    def note(self, text: str) -> None:
        """Log it."""
        logger.info("%s", text)

    def rejected(self, rejected: Sequence[Rejection]) -> None:
        """Log how many, and the first few with their reasons."""
        for rejection in rejected[:5]:
            logger.warning("rejected %s: %s", rejection.id, rejection.reason)
        if len(rejected) > 5:
            logger.warning("rejected %d files; rejected.csv has them all", len(rejected))

    def computing(self, title: str, total: int) -> Callable[[int], None]:
        """Nothing to draw."""
        return lambda _done: None

    def epoch(self, record: EpochRecord, epochs: int) -> None:
        """Log the losses."""
        logger.info("epoch %d of %d: %.4f %.4f", record.epoch, epochs, record.train_loss, record.val_loss)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneResult:
    """What a finished run is.

    Attributes:
        path: the run folder.
        best_epoch: from 1; the one whose weights were kept.
        evaluations: by split, ``val`` first.
        verification: of the ONNX file; None with ``export=False``.
    """

    path: Path
    best_epoch: int
    evaluations: Mapping[str, Evaluation]
    verification: Verification | None

    @property
    def onnx(self) -> Path | None:
        """The verified file."""
        return self.path / runs.ONNX_FILE if self.verification is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The configuration with every name in it resolved."""

    config: FinetuneConfig
    registry: Registry
    task: Task
    options: Any
    family: Family
    family_name: str
    model: str


def finetune(*, listener: Listener | None = None, registry: Registry | None = None, **values: Any) -> FinetuneResult:
    """Fine-tune a backbone on a task; the arguments are the command line's options.

    Args:
        listener: who is told how it goes on.
        registry: instead of the installed plugins.
        values: `backbone`, `task`, `data` and any other option of `zooft finetune`, the task's own among them.

    Raises:
        ZooftError: says what was wrong and what to do; nothing half-made is left under the run's name.
    """
    plan = _resolve(registry or registries.load(), values)
    folder = runs.claim(plan.config.out, task=plan.task.name, model=plan.model)
    try:
        return _finetune(plan, folder, listener or Quiet())
    except BaseException as error:  # Ctrl-C too
        kept = folder.abandon()
        if kept:
            error.add_note(kept)
        raise


def _resolve(registry: Registry, values: Mapping[str, Any]) -> _Plan:
    """Look up every name and check every value before any work is done."""
    from zooft.model import full_name

    if "task" not in values:
        configuration.build(FinetuneConfig, values)  # says so, along with all other faults
    task = registry.task(str(values["task"]))
    config, options = configuration.read(values, FinetuneConfig, task.options)
    if config.weights not in {"pretrained", "random"} and not Path(config.weights).is_file():
        raise WeightsError(
            f"there is no weights file {config.weights}; --weights takes pretrained, random, or a .safetensors or .pth file"
        )
    if config.export:
        runtime.choose(config.provider)
    family_name, model = parse_reference(config.backbone)
    family = registry.family(family_name)
    registry.head(config.head)
    registry.freezer(config.freeze)
    return _Plan(
        config=config, registry=registry, task=task, options=options,
        family=family, family_name=family_name, model=full_name(family, model),
    )  # fmt: skip


def _finetune(plan: _Plan, folder: runs.WorkingFolder, told: Listener) -> FinetuneResult:
    accelerator = _accelerator(plan.config)
    told.step("reading the data")
    found, splits = _read_data(plan, folder.path, told)
    told.step(f"loading {plan.family.name}:{plan.model}")
    backbone, adapted = _adapt(plan, len(found.classes))
    told.note(f"weights: {backbone.weights.source}")
    runs.write_json(folder.path / runs.RUN_FILE, _record(plan, backbone, splits, found))
    told.step(f"training on {accelerator.device}")
    registries.announce(plan.registry, "zooft_on_start", run=folder.path, samples=len(found.samples))
    _train(plan, backbone, adapted, splits, accelerator, folder.path, told)
    told.step("evaluating the best epoch")
    saved, predictions, evaluations = _evaluate(plan, folder.path, splits, accelerator, told)
    verification = _export(plan, saved, splits, told) if plan.config.export else None
    _draw(plan, saved, predictions["val"], evaluations["val"])
    path = folder.publish()
    _refuse_failure(verification, path)
    return FinetuneResult(
        path=path, best_epoch=runs.best_epoch(path), evaluations=evaluations, verification=verification
    )


def _read_data(plan: _Plan, folder: Path, told: Listener) -> tuple[Discovery, Splits]:
    found = sample_tables.discover(plan.task, plan.config.data, plan.options)
    splits = split(found.samples, found.classes, fraction=plan.config.val_fraction, seed=plan.config.seed)
    sample_tables.write_samples(folder / runs.SAMPLES_FILE, splits, found.classes)
    sample_tables.write_rejected(folder / runs.REJECTED_FILE, found.rejected)
    told.rejected(found.rejected)
    for text in (*found.notes, *splits.notes):
        told.note(text)
    return found, splits


def _adapt(plan: _Plan, outputs: int) -> tuple[Backbone, AdaptedModel]:
    import torch

    from zooft import model

    torch.manual_seed(plan.config.seed)
    backbone = model.load_backbone(
        plan.family, plan.model, weights=plan.config.weights, channels=plan.task.channels(plan.options),
        sources=[entry.value for entry in plan.registry.weights],
    )  # fmt: skip
    torch.manual_seed(plan.config.seed)
    return backbone, model.adapt(backbone, plan.registry.head(plan.config.head), outputs)


def _accelerator(config: FinetuneConfig) -> Accelerator:
    """One for the device asked for.

    Raises:
        ConfigError: the device isn't there.
    """
    import torch
    from accelerate import Accelerator

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(config.device, True):
        raise ConfigError(
            f"--device {config.device}: torch {torch.__version__} finds no such device here; "
            "use --device auto ('zooft doctor' shows what there is)"
        )
    return Accelerator(cpu=config.device == "cpu" or not any(there.values()))


def _train(
    plan: _Plan,
    backbone: Backbone,
    adapted: AdaptedModel,
    splits: Splits,
    accelerator: Accelerator,
    folder: Path,
    told: Listener,
) -> None:
    from zooft import freeze, saved, train

    augment = plan.task.augment(backbone.input, plan.options)
    freezer, argument = plan.registry.freezer(plan.config.freeze)
    job = train.Job(
        model=adapted,
        train=_views(plan, backbone, splits.train, augment=augment),
        val=_views(plan, backbone, splits.val, augment=None),
        augmented=augment is not None,
        loss=plan.task.loss([sample.target for sample in splits.train], plan.options),
        metrics=plan.task.metrics,
        primary=plan.task.primary,
        activation=saved.activation(plan.task),
        plan=lambda epoch: freeze.plan(adapted, freezer, argument, epoch),
    )
    train.fit(job, _recipe(plan.config, accelerator), accelerator, _watch(plan, adapted, folder, told))


def _views(plan: _Plan, backbone: Backbone, samples: Sequence[Any], *, augment: Any) -> Views:
    from zooft.features import Views, reader

    return Views(
        samples, read=reader(plan.task, plan.options), preprocess=plan.task.preprocess(backbone.input, plan.options),
        augment=augment, seed=plan.config.seed,
    )  # fmt: skip


def _recipe(config: FinetuneConfig, accelerator: Accelerator) -> Recipe:
    from zooft.train import Recipe

    return Recipe(
        epochs=config.epochs, batch_size=config.batch_size, optimizer=config.optimizer, lr=config.lr,
        backbone_lr=config.backbone_lr, momentum=config.momentum, weight_decay=config.weight_decay,
        schedule=config.schedule, warmup=config.warmup, step_epochs=config.step_epochs, step_factor=config.step_factor,
        power=config.power, workers=_workers(config, accelerator), seed=config.seed,
    )  # fmt: skip


def _workers(config: FinetuneConfig, accelerator: Accelerator) -> int:
    """On a CPU the loader is never what training waits for, and shares its cores; a GPU wants feeding."""
    import os

    if config.workers is not None:
        return config.workers
    return 0 if accelerator.device.type == "cpu" else min(8, os.cpu_count() or 1)


def _watch(plan: _Plan, adapted: AdaptedModel, folder: Path, told: Listener) -> Watch:
    from zooft.train import Watch

    def after_epoch(record: EpochRecord) -> None:
        _save(adapted, folder / runs.LAST_FOLDER / runs.WEIGHTS_FILE)
        if record.best:
            _save(adapted, folder / runs.WEIGHTS_FILE)
        runs.append_json(folder / runs.EPOCHS_FILE, record)
        told.epoch(record, plan.config.epochs)
        registries.announce(plan.registry, "zooft_on_epoch_end", run=folder, record=record)

    return Watch(computing=told.computing, epoch=after_epoch, note=told.note)


def _save(adapted: AdaptedModel, path: Path) -> None:
    from zooft.contracts import LoadedWeights
    from zooft.model import zoo_tensors
    from zooft.weights import write_file

    write_file(path, LoadedWeights(tensors=zoo_tensors(adapted), source="zooft"))


def _record(plan: _Plan, backbone: Backbone, splits: Splits, found: Discovery) -> dict[str, Any]:
    """``run.json``: everything resolved, but for the figures, which `_evaluate` adds."""
    from zooft import __version__

    data: dict[str, Any] = {
        "fingerprint": sample_tables.fingerprint(found.samples),
        "rejected": len(found.rejected),
        **{name: len(getattr(splits, name)) for name in ("train", "val", "test")},
    }
    if not plan.task.private:
        data["path"] = str(plan.config.data.resolve())
    settings = {k: v for k, v in configuration.plain(plan.config).items() if k not in {"data", "out"}}
    return {
        "schema": runs.SCHEMA,
        "zooft": __version__,
        "versions": {name: metadata.version(name) for name in _RECORDED_PACKAGES},
        "task": plan.registry.owned_name("task", plan.config.task),
        "head": plan.registry.owned_name("head", plan.config.head),
        "options": configuration.plain(plan.options),
        "classes": list(found.classes),
        "backbone": {
            "family": plan.registry.owned_name("family", plan.family_name), "name": backbone.name, "width": backbone.width,
            "stages": list(backbone.stages), "input": runs.to_json(backbone.input),
        },
        "weights": runs.to_json(backbone.weights),
        "data": data,
        "notes": [*found.notes, *splits.notes],
        "config": settings,
        "evaluation": {},
    }  # fmt: skip


def _evaluate(
    plan: _Plan, folder: Path, splits: Splits, accelerator: Accelerator, told: Listener
) -> tuple[SavedRun, dict[str, Predictions], dict[str, Evaluation]]:
    """The best epoch's figures, from the files that the run has written."""
    from dataclasses import replace

    from zooft import saved as finished

    saved = finished.open_run(folder, plan.registry)
    predictions, evaluations = {}, {}
    for name, members in (("val", splits.val), ("test", splits.test)):
        if members:
            predictions[name] = finished.predict_run(
                saved, members, device=str(accelerator.device), workers=_workers(plan.config, accelerator),
                advance=told.computing(f"{name} samples", len(members)),
            )  # fmt: skip
            evaluations[name] = finished.evaluate(
                plan.task,
                saved.classes,
                predictions[name],
                split=name,
                resamples=plan.config.bootstrap,
                seed=plan.config.seed,
            )
    record = {**saved.record, "best_epoch": runs.best_epoch(folder), "evaluation": runs.to_json(evaluations)}
    runs.write_json(folder / runs.RUN_FILE, record)
    return replace(saved, record=record), predictions, evaluations


def _export(plan: _Plan, saved: SavedRun, splits: Splits, told: Listener) -> Verification:
    from zooft import saved as finished
    from zooft.verify import spread

    told.step("exporting to ONNX")
    candidate = saved.path / (runs.ONNX_FILE + ".candidate")
    finished.export_run(saved, candidate)
    registries.announce(plan.registry, "zooft_on_exported", run=saved.path, model=candidate)
    told.step("verifying the file")
    chosen = [splits.val[i] for i in spread(splits.val, plan.config.verify_samples)]
    verification = finished.verify_file(
        saved, candidate, chosen, available=len(splits.val), provider=plan.config.provider,
        advance=told.computing("samples, in torch and from the file", len(chosen)),
    )  # fmt: skip
    finished.settle(saved.path, candidate, verification)
    registries.announce(plan.registry, "zooft_on_verified", run=saved.path, verification=verification)
    return verification


def _draw(plan: _Plan, saved: SavedRun, predictions: Predictions, evaluation: Evaluation) -> None:
    from zooft.report.picture import draw

    primary = f"{plan.task.primary.replace('_', ' ')} {evaluation.metrics[plan.task.primary].value:.3f}"
    draw(
        saved.path / runs.PICTURE_FILE,
        title=f"{plan.task.name} with {plan.family.name}:{plan.model}: {primary} on {evaluation.split}",
        epochs=saved.path / runs.EPOCHS_FILE,
        evaluation=evaluation,
        classes=saved.classes,
        predictions=predictions,
        read=lambda sample: sample_tables.read(plan.task, plan.options, sample),
    )


def _refuse_failure(verification: Verification | None, path: Path) -> None:
    if verification is not None and not verification.passed:
        raise VerificationError(
            f"the ONNX file doesn't answer as the model did: {'; '.join(verification.failures)}; "
            f"the file is kept as {path / runs.REFUSED_FILE}, the fine-tuned weights as {path / runs.WEIGHTS_FILE}",
            verification,
        )
