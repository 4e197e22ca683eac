"""The whole story, in order: discover, split, adapt, freeze, train, evaluate, export, verify, publish.

With `plan`, which resolves names, and `record`, which writes ``run.json``, the only modules that see the configuration as
a whole; everything below them takes plain values.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft import config as configuration
from zooft import judge
from zooft import registry as registries
from zooft import run as runs
from zooft import samples as sample_tables
from zooft import saved as finished
from zooft.config import FinetuneConfig
from zooft.contracts import EpochRecord, Verification
from zooft.errors import ConfigError, VerificationError
from zooft.judge import Judgement, Predictions
from zooft.listener import Listener, Quiet
from zooft.plan import Plan, resolve
from zooft.provenance import depends_on
from zooft.record import record
from zooft.resources import Clock
from zooft.split import Splits, split

if TYPE_CHECKING:
    from accelerate import Accelerator

    from zooft.audit import Audit
    from zooft.contracts import Calibration, Discovery, Sample
    from zooft.features import Keeping, Views
    from zooft.metrics import Evaluation
    from zooft.model import AdaptedModel, Backbone
    from zooft.optimize import Recipe
    from zooft.registry import Registry
    from zooft.saved import SavedRun
    from zooft.train import Watch

logger = logging.getLogger("zooft")


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


def finetune(*, listener: Listener | None = None, registry: Registry | None = None, **values: Any) -> FinetuneResult:
    """Fine-tune a backbone on a task; the arguments are the command line's options.

    Args:
        listener: who is told how it goes on.
        registry: instead of the installed plugins.
        values: `backbone`, `task`, `data` and any other option of `zooft finetune`, the task's own among them.

    Raises:
        ZooftError: says what was wrong and what to do; nothing half-made is left under the run's name.
    """
    plan = resolve(registry or registries.load(), values)
    folder = runs.claim(plan.config.out, task=plan.task.name, model=plan.model)
    try:
        return _finetune(plan, folder, listener or Quiet())
    except BaseException as error:  # Ctrl-C too
        kept = folder.abandon()
        if kept:
            error.add_note(kept)
        raise


def _finetune(plan: Plan, folder: runs.WorkingFolder, told: Listener) -> FinetuneResult:
    clock = Clock()
    accelerator = _accelerator(plan.config)
    told.step("reading the data")
    found, splits = _read_data(plan, folder.path, told)
    audited = _audit(plan, folder.path, found, splits, told)
    clock.lap("data")
    told.step(f"loading {plan.family.name}:{plan.model}")
    backbone, adapted = _adapt(plan, len(found.classes))
    told.note(f"weights: {backbone.weights.source}")
    told_to = record(plan, backbone, splits, found)
    runs.write_json(folder.path / runs.RUN_FILE, told_to)
    runs.write_text(
        folder.path / runs.SETTINGS_FILE, configuration.to_toml({**told_to["config"], **told_to["options"]})
    )
    registries.announce(plan.registry, "zooft_on_start", run=folder.path, samples=len(found.samples))
    keeping = _keeping(plan, backbone, accelerator, told)
    crossed = _cross_validate(plan, splits, accelerator, folder.path, keeping, told) if splits.folds else None
    told.step(f"training on {accelerator.device}" + (", with all samples" if splits.folds else ""))
    _train(plan, backbone, adapted, splits.train, splits.val, accelerator, folder.path, keeping, told)
    clock.lap("training")
    told.step("evaluating the last epoch" if splits.folds else "evaluating the best epoch")
    saved, judged = _judge(plan, folder.path, splits, crossed, accelerator, keeping, told)
    clock.lap("evaluation")
    verification = _export(plan, saved, splits, told) if plan.config.export else None
    clock.lap("export")
    _keep(folder.path, "resources", clock.resources())
    try:
        _report(plan, replace(saved, record=runs.read(folder.path)), found, splits, judged, audited, verification)
    except Exception as error:  # a page that can't be drawn mustn't cost the run
        logger.debug("no report", exc_info=True)
        told.note(f"the report couldn't be made ({type(error).__name__}); all else is there")
    path = folder.publish()
    _refuse_failure(verification, path)
    evaluations = {name: part.evaluation for name, part in judged.items()}
    return FinetuneResult(
        path=path, best_epoch=runs.best_epoch(path), evaluations=evaluations, verification=verification
    )


def _read_data(plan: Plan, folder: Path, told: Listener) -> tuple[Discovery, Splits]:
    found = sample_tables.discover(plan.task, plan.config.data, plan.options, computing=told.computing)
    splits = split(
        found.samples, found.classes, fraction=plan.config.val_fraction, seed=plan.config.seed, folds=plan.config.folds
    )
    sample_tables.write_samples(folder / runs.SAMPLES_FILE, splits, found.classes)
    sample_tables.write_rejected(folder / runs.REJECTED_FILE, found.rejected)
    told.rejected(found.rejected)
    for text in (*found.notes, *splits.notes):
        told.note(text)
    return found, splits


def _audit(plan: Plan, folder: Path, found: Discovery, splits: Splits, told: Listener) -> Audit | None:
    if not plan.config.audit:
        return None
    from zooft.audit import audit

    told.step("looking for leaks and shortcuts")
    audited = audit(
        found.samples, found.classes, partial(sample_tables.read, plan.task, plan.options),
        show=partial(sample_tables.picture, plan.task, plan.options), computing=told.computing, seed=plan.config.seed,
        split_of={sample.id: name for name, members in splits.named().items() for sample in members},
    )  # fmt: skip
    runs.write_json(folder / runs.AUDIT_FILE, audited)
    for finding in audited.findings:
        if finding.severity != "info":
            told.note(f"{finding.severity}: {finding.text}")
    return audited


def _adapt(plan: Plan, outputs: int) -> tuple[Backbone, AdaptedModel]:
    import torch

    from zooft import model

    torch.manual_seed(plan.config.seed)
    backbone = model.load_backbone(
        plan.family, plan.model, weights=plan.config.weights, channels=plan.task.channels(plan.options),
        sources=[entry.value for entry in plan.registry.weights],
    )  # fmt: skip
    torch.manual_seed(plan.config.seed)
    return backbone, model.adapt(backbone, plan.registry.head(plan.head), outputs)


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


def _cross_validate(
    plan: Plan, splits: Splits, accelerator: Accelerator, folder: Path, keeping: Keeping | None, told: Listener
) -> Predictions:
    """Every sample's answer by a model that hasn't learnt from its group: logits, not calibrated yet.

    Each fold keeps its last epoch: choosing one by the samples that it is judged by would flatter it.
    """
    parts = []
    for number, fold in enumerate(splits.folds, 1):
        told.step(f"fold {number} of {len(splits.folds)}")
        backbone, adapted = _adapt(plan, len(runs.read(folder)["classes"]))
        own = folder / runs.FOLDS_FOLDER / str(number)
        own.mkdir(parents=True)
        _train(plan, backbone, adapted, fold.train, fold.held_out, accelerator, own, keeping, told, keep_last=True)
        runs.write_text(own / runs.RUN_FILE, (folder / runs.RUN_FILE).read_text(encoding="utf-8"))
        parted = Splits(train=fold.train, val=fold.held_out, test=(), notes=())
        sample_tables.write_samples(own / runs.SAMPLES_FILE, parted, runs.read(folder)["classes"])
        parts.append(_predict(plan, finished.open_run(own, plan.registry), fold.held_out, accelerator, keeping, told))
    return judge.joined(parts)


def _train(
    plan: Plan,
    backbone: Backbone,
    adapted: AdaptedModel,
    members: Sequence[Sample],
    val: Sequence[Sample],
    accelerator: Accelerator,
    folder: Path,
    keeping: Keeping | None,
    told: Listener,
    *,
    keep_last: bool = False,
) -> None:
    from zooft import freeze, search, train
    from zooft.export import activate

    augment = plan.task.augment(backbone.input, plan.options)
    freezer, argument = plan.registry.freezer(plan.config.freeze)
    job = train.Job(
        model=adapted,
        train=_views(plan, backbone, members, augment=augment),
        val=_views(plan, backbone, val, augment=None) if val else None,
        keep_last=keep_last,
        loss=plan.task.loss([sample.target for sample in members], plan.options),
        metrics=plan.task.metrics,
        primary=plan.task.primary,
        activation=activate(plan.task.activation),
        plan=lambda epoch: freeze.plan(adapted, freezer, argument, epoch),
        keeping=keeping,
    )
    watch = _watch(plan, adapted, folder, told)
    choice = search.choose(
        job, _recipe(plan.config, accelerator), accelerator, watch, views=plan.config.views, sweep=plan.config.sweep
    )
    if choice.trials:
        _keep(folder, "trials", choice.trials)
    train.fit(choice.job, choice.recipe, accelerator, watch, feed=choice.feed)


def _views(plan: Plan, backbone: Backbone, samples: Sequence[Any], *, augment: Any) -> Views:
    from zooft.features import Views, reader

    return Views(
        samples, read=reader(plan.task, plan.options), preprocess=plan.task.preprocess(backbone.input, plan.options),
        augment=augment, sketch=partial(sample_tables.sketch, plan.task, backbone.input, plan.options), seed=plan.config.seed,
    )  # fmt: skip


def _keeping(plan: Plan, backbone: Backbone, accelerator: Accelerator, told: Listener) -> Keeping | None:
    """Where what leaves frozen stages is kept; None with ``--no-cache``."""
    import torch

    from zooft.features import Keeping
    from zooft.store import default_store

    if not plan.config.cache:
        return None
    return Keeping(
        store=default_store(told.note), of=depends_on(plan, backbone), digest=partial(sample_tables.digest, plan.task, plan.options),
        dtype=torch.bfloat16 if plan.config.features == "bf16" else torch.float32, device=accelerator.device,
        workers=_workers(plan.config, accelerator), computing=told.computing, note=told.note,
    )  # fmt: skip


def _recipe(config: FinetuneConfig, accelerator: Accelerator) -> Recipe:
    from zooft.optimize import Recipe

    return Recipe(
        epochs=config.epochs, batch_size=config.batch_size, optimizer=config.optimizer, lr=config.lr,
        backbone_lr=config.backbone_lr, momentum=config.momentum, weight_decay=config.weight_decay,
        schedule=config.schedule, warmup=config.warmup, step_epochs=config.step_epochs, step_factor=config.step_factor,
        power=config.power, workers=_workers(config, accelerator), seed=config.seed,
        precision=config.precision, compile=config.compile, sync_bn=config.sync_bn,
    )  # fmt: skip


def _workers(config: FinetuneConfig, accelerator: Accelerator) -> int:
    """On a CPU the loader is never what training waits for, and shares its cores; a GPU wants feeding."""
    import os

    if config.workers is not None:
        return config.workers
    return 0 if accelerator.device.type == "cpu" else min(8, os.cpu_count() or 1)


def _watch(plan: Plan, adapted: AdaptedModel, folder: Path, told: Listener) -> Watch:
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


def _judge(
    plan: Plan,
    folder: Path,
    splits: Splits,
    crossed: Predictions | None,
    accelerator: Accelerator,
    keeping: Keeping | None,
    told: Listener,
) -> tuple[SavedRun, dict[str, Judgement]]:
    """The kept epoch, calibrated and judged by what it hasn't learnt from, from the files that the run has written."""
    saved = finished.open_run(folder, plan.registry)
    raw = crossed or _predict(plan, saved, splits.val, accelerator, keeping, told)
    what = "the held-out samples of every fold" if crossed else "the validation samples"
    calibration = _calibrate(plan, raw, saved, what)
    _keep(folder, "calibration", calibration)
    answers = {"val": judge.calibrated(raw, calibration, plan.task)}
    if crossed:
        answers = {"cross-validation": _cross_calibrated(plan, raw, splits, saved)}
    saved = replace(saved, calibration=calibration)
    if splits.test:
        answers["test"] = _predict(plan, saved, splits.test, accelerator, keeping, told)
    judged = {
        name: Judgement(
            predictions=part,
            evaluation=judge.evaluate(
                plan.task, saved.classes, part, split=name, resamples=plan.config.bootstrap, seed=plan.config.seed,
                calibration=calibration, group_score=saved.group_score, group_name=saved.record["data"]["group_name"],
            ),
        )
        for name, part in answers.items()
    }  # fmt: skip
    fold_of = {sample.id: number for number, fold in enumerate(splits.folds, 1) for sample in fold.held_out}
    judge.write_predictions(folder / runs.PREDICTIONS_FILE, judged, saved.classes, fold_of)
    _keep(folder, "evaluation", {name: part.evaluation for name, part in judged.items()})
    _keep(folder, "best_epoch", runs.best_epoch(folder))
    saved.model.cpu()
    return replace(saved, record=runs.read(folder)), judged


def _calibrate(plan: Plan, raw: Predictions, saved: SavedRun, fitted_on: str) -> Calibration:
    point = plan.task.operating_point(plan.options)
    return judge.calibrate(raw, plan.task, point, group_score=saved.group_score, fitted_on=fitted_on)


def _cross_calibrated(plan: Plan, raw: Predictions, splits: Splits, saved: SavedRun) -> Predictions:
    """Every fold's answers with the temperature and the threshold that the other folds give."""
    of_fold = {sample.id: number for number, fold in enumerate(splits.folds) for sample in fold.held_out}
    numbers = np.array([of_fold[sample.id] for sample in raw.samples])
    parts = []
    for number in range(len(splits.folds)):
        others, own = (judge.chosen(raw, np.flatnonzero(rows)) for rows in (numbers != number, numbers == number))
        parts.append(judge.crossed(own, _calibrate(plan, others, saved, "the other folds"), plan.task))
    return judge.joined(parts)


def _predict(
    plan: Plan,
    saved: SavedRun,
    members: Sequence[Sample],
    accelerator: Accelerator,
    keeping: Keeping | None,
    told: Listener,
) -> Predictions:
    return finished.predict_run(
        saved, members, device=str(accelerator.device), workers=_workers(plan.config, accelerator),
        advance=told.computing("held-out samples", len(members)),
        keeping=keeping, stop=_never_learnt(plan, saved.model),
    )  # fmt: skip


def _never_learnt(plan: Plan, adapted: AdaptedModel) -> int:
    """How many leading stages no epoch has trained."""
    from zooft import freeze

    freezer, argument = plan.registry.freezer(plan.config.freeze)
    plans = [freeze.plan(adapted, freezer, argument, epoch) for epoch in range(plan.config.epochs)]
    return min(freeze.frozen_prefix(adapted, each.frozen) for each in plans)


def _keep(folder: Path, key: str, value: Any) -> None:
    """Add to ``run.json`` what has become known."""
    runs.write_json(folder / runs.RUN_FILE, {**runs.read(folder), key: runs.to_json(value)})


def _export(plan: Plan, saved: SavedRun, splits: Splits, told: Listener) -> Verification:
    from zooft.verify import spread

    told.step("exporting to ONNX")
    candidate = saved.path / (runs.ONNX_FILE + ".candidate")
    finished.export_run(saved, candidate)
    registries.announce(plan.registry, "zooft_on_exported", run=saved.path, model=candidate)
    told.step("verifying the file")
    members = splits.val or splits.train
    chosen = [members[i] for i in spread(members, plan.config.verify_samples)]
    verification = finished.verify_file(
        saved, candidate, chosen, available=len(members), provider=plan.config.provider,
        advance=told.computing("samples, in torch and from the file", len(chosen)),
    )  # fmt: skip
    finished.settle(saved.path, candidate, verification)
    registries.announce(plan.registry, "zooft_on_verified", run=saved.path, verification=verification)
    return verification


def _report(
    plan: Plan,
    saved: SavedRun,
    found: Discovery,
    splits: Splits,
    judged: Mapping[str, Judgement],
    audited: Audit | None,
    verification: Verification | None,
) -> None:
    """What people look at."""
    from zooft.report import page
    from zooft.report.looked import heat

    epochs = [json.loads(line) for line in (saved.path / runs.EPOCHS_FILE).read_text(encoding="utf-8").splitlines()]
    show = partial(sample_tables.show, plan.task, plan.options)
    page.write(
        saved.path / runs.REPORT_FILE,
        page.Material(
            record=saved.record, epochs=epochs, rejected=found.rejected, audit=audited,
            evaluations={key: part.evaluation for key, part in judged.items()},
            predictions={key: part.predictions for key, part in judged.items()},
            verification=verification, stages=_stages(plan, saved, epochs), show=show, looked=partial(heat, saved),
            extra=plan.task.report(found.samples, plan.options), private=plan.task.private,
            samples=splits.named(), ports=sample_tables.ports(plan.task, plan.options), primary=plan.task.primary,
            intended_use=plan.task.intended_use, reader=plan.task.reader(plan.options),
        ),
    )  # fmt: skip


def _stages(plan: Plan, saved: SavedRun, epochs: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, bool]]:
    """Every stage's name, parameters, and whether it was frozen in the last epoch."""
    from zooft import freeze

    held = freeze.parameters_by_stage(saved.model)
    sizes = {name: sum(p.numel() for _, p in held.get(name, [])) for name in saved.model.stages}
    return [(name, size, name not in epochs[-1]["learning"]) for name, size in sizes.items()]


def _refuse_failure(verification: Verification | None, path: Path) -> None:
    if verification is not None and not verification.passed:
        raise VerificationError(
            f"the ONNX file doesn't answer as the model did: {'; '.join(verification.failures)}; "
            f"the file is kept as {path / runs.REFUSED_FILE}, the fine-tuned weights as {path / runs.WEIGHTS_FILE}",
            verification,
        )
