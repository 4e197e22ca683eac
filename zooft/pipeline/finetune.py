"""The whole story, in order: discover, split, adapt, freeze, train, evaluate, export, verify, publish.

With `plan`, which resolves names, and `record`, which writes ``run.json``, the only modules that see the configuration
as a whole; everything below them takes plain values.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zooft.audit import audit
from zooft.audit.thumbnails import ThumbnailCache
from zooft.compute import launcher
from zooft.compute import profile as timing
from zooft.compute.profile import Profile, Stopwatch
from zooft.compute.resources import Clock
from zooft.contracts import Verification
from zooft.contracts.plurals import pluralize
from zooft.data import samples as sample_tables
from zooft.data.split import Splits, split
from zooft.deploy import saved as finished
from zooft.deploy.verify import spread
from zooft.errors import PluginError, VerificationError
from zooft.evaluation import predictions_file
from zooft.evaluation.evaluate import Evaluated, evaluate
from zooft.evaluation.predictions import Predictions, join
from zooft.hooks import registry as registries
from zooft.pipeline import resume, training
from zooft.pipeline import teacher as teachers
from zooft.pipeline.cache_key import reading_key
from zooft.pipeline.events import RunEvents
from zooft.pipeline.plan import Beginning, Plan, resolve
from zooft.pipeline.record import begin_record
from zooft.pipeline.reporter import LoggingReporter, Reporter, SilentReporter
from zooft.report import page
from zooft.run import folder as runs
from zooft.run.record import read_record, update_record, write_record
from zooft.storage.cache import default_store
from zooft.storage.lookup import Lookup

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.nn import Parameter

    from zooft.audit import Audit
    from zooft.contracts import Discovery, Fitted, Labels, Problem, Sample
    from zooft.deploy.saved import SavedRun
    from zooft.evaluation.evaluate import Evaluation
    from zooft.hooks.registry import Registry
    from zooft.model.adapted import AdaptedModel
    from zooft.model.backbone import Backbone

logger = logging.getLogger("zooft")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneResult:
    """What a finished run is.

    Attributes:
        path: the run folder.
        best_epoch: from 1; the one whose weights are saved.
        evaluations: by split, ``val`` first.
        problem: the kind of prediction.
        labels: what the answers mean.
        verification: of the ONNX file; None with ``export=False``.
        profile: where the time went, with ``profile=True``.
    """

    path: Path
    best_epoch: int
    evaluations: Mapping[str, Evaluation]
    problem: Problem
    labels: Labels
    verification: Verification | None
    profile: Profile | None = None

    @property
    def onnx(self) -> Path | None:
        """The verified file."""
        return self.path / runs.ONNX_FILE if self.verification is not None else None


def finetune(*, reporter: Reporter | None = None, registry: Registry | None = None, **values: Any) -> FinetuneResult:
    """Fine-tune a backbone on a task; the arguments are the command line's options.

    Under torchrun or ``accelerate launch`` every process calls it; the main one reads, writes and reports, all train.

    Args:
        reporter: gets notes and progress.
        registry: instead of the installed plugins.
        values: `backbone`, `task`, `data` and any other option of `zooft finetune`, the task's own among them; or
            `resume`, and no others than where things are.

    Raises:
        ZooftError: states what was wrong and what to do; nothing half-made is left under the run's name.
    """
    return finetune_from(None, reporter=reporter, registry=registry, **values)


def finetune_from(
    begin: Beginning | None, *, reporter: Reporter | None = None, registry: Registry | None = None, **values: Any
) -> FinetuneResult:
    """As `finetune`, from a model that isn't the zoo's."""
    reporter = reporter or LoggingReporter() if launcher.process() == 0 else SilentReporter()
    if launcher.processes() > 1:
        return _finetune_together(registry, values, reporter)
    plan = _resolve(registry, values, begin)  # before torch is loaded: most faults are found here
    from zooft.compute import distributed

    accelerator = distributed.alone(plan.config.machine.device)
    with distributed.faults(accelerator), _working_folder(plan, accelerator) as (folder, events):
        return _finetune(plan, folder, accelerator, reporter, events)


def _finetune_together(registry: Registry | None, values: Mapping[str, Any], reporter: Reporter) -> FinetuneResult:
    from zooft.compute import distributed

    accelerator = distributed.start(cpu=values.get("device") == "cpu")
    # the main process, if it is still there, prints where the saved weights lie
    advice = (
        "" if accelerator.is_main_process else "if an epoch was finished, resume with --resume and the run's folder"
    )
    with distributed.faults(accelerator, advice=advice):
        plan = distributed.main_process_first(accelerator, lambda: _resolve(registry, values))
        distributed.main_only(accelerator, lambda: distributed.check_device(plan.config.machine.device))
        with _working_folder(plan, accelerator) as (folder, events):
            result = _finetune(plan, folder, accelerator, reporter, events)
        distributed.finish()
    return result


def _resolve(registry: Registry | None, values: Mapping[str, Any], begin: Beginning | None = None) -> Plan:
    known = registry or registries.load()
    if values.get("resume") is None:
        return resolve(known, values, begin)
    return resolve(known, resume.resume_options(known, values), resume.beginning(Path(values["resume"])))


@contextmanager
def _working_folder(plan: Plan, accelerator: Accelerator) -> Iterator[tuple[runs.WorkingFolder | None, RunEvents]]:
    """The run's folder, which the main process has, and its events; a failure, or Ctrl-C, reports what was saved."""
    from zooft.compute import distributed

    folder = distributed.main_only(accelerator, lambda: _folder(plan))
    events = RunEvents(plan.registry, folder, private=plan.task.private)
    with events.until_the_end():
        try:
            yield folder, events
        except BaseException as error:  # Ctrl-C too
            if folder is not None and resume.is_nothing_yet(plan):
                folder.discard()
                raise
            checkpoint = folder.abandon() if folder is not None else ""
            if checkpoint:
                error.add_note(checkpoint)
            raise


def _folder(plan: Plan) -> runs.WorkingFolder:
    before = plan.config.resume
    if before is not None and not runs.is_finished(before):
        return runs.reopen(before)
    return runs.claim(
        plan.config.out,
        task=plan.task.name,
        model=plan.model,
        settings=resume.settings(plan),
        local=resume.local_settings(plan),
        after=before,
    )


def _finetune(
    plan: Plan, folder: runs.WorkingFolder | None, accelerator: Accelerator, reporter: Reporter, events: RunEvents
) -> FinetuneResult:
    """What all processes do, step by step; `folder` is the main one's alone."""
    from zooft.compute.distributed import first, main_only, main_process_first

    clock = Clock()
    stopwatch = Stopwatch(on=plan.config.profile and folder is not None, wait=partial(_finish_work, accelerator))
    stopwatch.count_startup()
    digests = Lookup()  # of samples' content, by which thumbnails and features are cached
    path = folder.path if folder is not None else None
    reporter.step("reading the data")
    with stopwatch.part("finding the data"):
        found, splits = first(accelerator, lambda: _read_data(plan, training.on_main(path), reporter))
    audited = None
    if plan.config.audit:
        with stopwatch.part("audit"):
            audited = main_only(
                accelerator, lambda: _audit(plan, training.on_main(path), found, splits, reporter, digests)
            )
    clock.lap("data")
    reporter.step(f"loading {plan.family.name}:{plan.model}")
    with stopwatch.part("building the model"):
        backbone, adapted = main_process_first(accelerator, lambda: training.adapt(plan, found.labels))
    reporter.note(f"weights: {backbone.weights.source}")
    if plan.config.deployment.export and plan.config.resume is None:  # a resumed run was tried when it was started
        with stopwatch.part("trying the export"):
            main_only(accelerator, lambda: finished.try_export(adapted, backbone.input, plan.task, plan.options))
    if backbone.fixed:
        shown = ", ".join(sorted(backbone.fixed)[:3]) + (", …" if len(backbone.fixed) > 3 else "")
        reporter.note(
            f"{pluralize(len(backbone.fixed), 'parameter stays', 'parameters stay')}"
            f" frozen, whatever --freeze is, as {plan.family.name} has "
            f"fixed them: {shown}"
        )
    main_only(
        accelerator, lambda: _write_record(plan, training.on_main(path), backbone, adapted, splits, found, events)
    )
    with stopwatch.part("opening the teacher"):
        teacher = main_process_first(accelerator, lambda: teachers.open_teacher(plan))
    context = training.prepare_context(
        plan, backbone, splits, accelerator, reporter, stopwatch, digests, events, teacher=teacher
    )
    crossed = training.cross_validate(context, splits, found.labels, path) if splits.folds else None
    reporter.step(f"training on {_where(accelerator)}" + (", with all samples" if splits.folds else ""))
    training.fit_model(
        context,
        backbone,
        adapted,
        found.labels,
        splits.train,
        splits.val,
        path,
        checkpoint=training.load_checkpoint(context, path),
    )
    clock.lap("training")
    made = first(
        accelerator,
        lambda: _complete(context.alone(), training.on_main(folder), found, splits, crossed, audited, clock),
    )
    return FinetuneResult(
        path=made.path,
        best_epoch=made.best_epoch,
        evaluations=made.evaluations,
        problem=plan.task.problem,
        labels=found.labels,
        verification=made.verification,
        profile=made.profile,
    )


class _Completed(NamedTuple):
    """What the main process sends the others of a result: no problem, whose functions can't be pickled."""

    path: Path
    best_epoch: int
    evaluations: Mapping[str, Evaluation]
    verification: Verification | None
    profile: Profile | None


def _complete(
    context: training.TrainingContext,
    folder: runs.WorkingFolder,
    found: Discovery,
    splits: Splits,
    crossed: Predictions | None,
    audited: Audit | None,
    clock: Clock,
) -> _Completed:
    """The main process evaluates, exports, reports and publishes the trained weights."""
    plan, reporter = context.plan, context.reporter
    reporter.step("evaluating the last epoch" if splits.folds else "evaluating the best epoch")
    with context.clock.part("evaluation"):
        saved, evaluated = _evaluate(context, folder.path, splits, crossed)
    clock.lap("evaluation")
    verification = None
    if plan.config.deployment.export:
        with context.clock.part("export and verification"):
            verification = _export(context, saved, splits)
    clock.lap("export")
    if plan.begin is not None and plan.begin.accept is not None:
        update_record(folder.path, pruned=plan.begin.accept(saved, splits.val, verification))
    update_record(folder.path, resources=clock.resources())
    if plan.config.report:
        with context.clock.part("report"), _without_report(reporter):
            saved = replace(saved, record=read_record(saved.path))
            _report(plan, saved, found, splits, evaluated, audited, verification)
    profile = _profile(context, folder.path)
    path = folder.publish()
    _refuse_failure(verification, path)
    evaluations = {name: part.evaluation for name, part in evaluated.items()}
    return _Completed(path, runs.best_epoch(path), evaluations, verification, profile)


def _profile(context: training.TrainingContext, folder: Path) -> Profile | None:
    """Where the time went, and what the machine could have done; None unless set."""
    if not context.clock.on:
        return None
    parts = context.clock.parts()
    peak = timing.measure_peak(context.accelerator.device)
    profile = Profile(parts=parts, dtype=context.clock.dtype, learning_gflop=context.clock.gflop, peak=peak)
    update_record(folder, profile=timing.as_record(profile))
    return profile


def _finish_work(accelerator: Accelerator) -> None:
    """A GPU works on while the clock is read, unless it is waited for."""
    if accelerator.device.type != "cpu":
        from zooft.train.speed import synchronize

        synchronize(accelerator.device)


def _where(accelerator: Accelerator) -> str:
    number = accelerator.num_processes
    return str(accelerator.device) if number == 1 else f"{number} processes, {accelerator.device.type}"


def _read_data(plan: Plan, folder: Path, reporter: Reporter) -> tuple[Discovery, Splits]:
    sample_tables.begin(plan.task, plan.config.data, plan.options)
    found = sample_tables.discover(plan.task, plan.config.data, plan.options, computing=reporter.computing)
    if plan.config.resume is not None:
        resume.check_data(folder, found)
    elif plan.begin is not None:
        resume.check_data(plan.begin.before, found)
    problem = plan.task.problem
    splits = _split(plan, found, reporter)
    sample_tables.write_samples(
        folder / runs.SAMPLES_FILE, splits, lambda target: problem.presentation.target(target, found.labels)
    )
    sample_tables.write_rejected(folder / runs.REJECTED_FILE, found.rejected)
    found = replace(found, labels=training.prepare(plan, found.labels, splits.train))
    reporter.list_rejected(found.rejected)
    for text in (*found.notes, *splits.notes):
        reporter.note(text)
    return found, splits


def _split(plan: Plan, found: Discovery, reporter: Reporter) -> Splits:
    """The teacher's own split where the data is its own; else the data's, or a new one."""
    teacher, options = plan.teacher, plan.config.evaluation
    strata = plan.task.problem.training.strata(sample_tables.targets(found.samples), found.labels)
    if teacher is None:
        return split(found.samples, strata, fraction=options.val_fraction, seed=plan.config.seed, folds=options.folds)
    teachers.refuse_other_labels(teacher, found.labels)
    taken = None if options.folds else teachers.with_its_split(teacher, found)
    splits = split(
        found.samples if taken is None else taken,
        strata,
        fraction=options.val_fraction,
        seed=plan.config.seed,
        folds=options.folds,
        given="the data's own split" if taken is None else "the teacher's split",
    )
    if taken is not None:
        splits = teachers.in_its_order(teacher, splits)
    notes = teachers.refuse_seen(teacher, plan.task, plan.options, found, splits, reporter.computing)
    return replace(splits, notes=(*splits.notes, *notes))


def _audit(plan: Plan, folder: Path, found: Discovery, splits: Splits, reporter: Reporter, digests: Lookup) -> Audit:
    reporter.step("looking for leaks and shortcuts")
    audited = audit(
        found.samples,
        plan.task.problem,
        found.labels,
        partial(sample_tables.read, plan.task, plan.options),
        show=partial(sample_tables.picture, plan.task, plan.options),
        computing=reporter.computing,
        seed=plan.config.seed,
        splits=splits.names,
        cache=_thumbnail_cache(plan, reporter, digests),
        notes=found.notes,
    )
    runs.write_json(folder / runs.AUDIT_FILE, audited)
    for finding in audited.findings:
        # of classes that a split leaves out, splitting has reported already
        if finding.severity != "info" and finding.kind != "absent_classes":
            reporter.note(f"{finding.severity}: {finding.text}")
    return audited


def _thumbnail_cache(plan: Plan, reporter: Reporter, digests: Lookup) -> ThumbnailCache | None:
    """The cache of thumbnails; None with ``--no-cache``."""
    if not plan.config.caching.cache:
        return None
    shelf = default_store(reporter.note).shelf({**reading_key(plan), "what": "looks"})

    def digest(sample: Sample) -> str:
        known = digests.get(sample.id)
        if known is None:
            known = digests[sample.id] = sample_tables.digest(plan.task, plan.options, sample)
        return known

    return ThumbnailCache(shelf, digest, partial(sample_tables.is_unchanged, plan.task, plan.options))


def _write_record(
    plan: Plan,
    folder: Path,
    backbone: Backbone,
    adapted: AdaptedModel,
    splits: Splits,
    found: Discovery,
    events: RunEvents,
) -> None:
    """``run.json``, and the news that the run has begun."""
    begun = begin_record(plan, backbone, adapted, splits, found)
    if plan.begin is not None:
        begun = replace(begun, pruned=plan.begin.pruned)
    if plan.config.resume is not None:
        resume.check_weights(folder, backbone)
        resume.check_stages(folder, backbone)
        resume.check_teacher(folder, plan)
        begun = resume.carry_over(folder, begun, epochs=plan.config.training.epochs)
    write_record(folder, begun)
    events.on_start(
        samples=len(found.samples),
        config={**resume.settings(plan), "backbone": backbone.reference},
        counts=begun.data.counts,
        resumed=plan.config.resume is not None,
    )


def _evaluate(
    context: training.TrainingContext, folder: Path, splits: Splits, crossed: Predictions | None
) -> tuple[SavedRun, dict[str, Evaluated]]:
    """The saved epoch, fitted and evaluated on what it wasn't trained on, from the files that the run has written."""
    plan = context.plan
    problem, labels = plan.task.problem, read_record(folder).labels
    saved = finished.open_run(folder, plan.registry, like=context.backbone)
    raw = crossed or training.predict(context, saved, splits.val)
    what = "the held-out samples of every fold" if crossed else "the validation samples"
    fitted = _fit(plan, raw, saved, what)
    update_record(folder, fitted=runs.to_json(fitted))
    predictions = {"val": problem.evaluation.apply(raw, fitted, labels)}
    if crossed:
        predictions = {"cross-validation": _cross_fitted(plan, raw, splits, saved)}
    saved = replace(saved, fitted=fitted)
    if splits.test:
        predictions["test"] = training.predict(context, saved, splits.test)
    evaluated = {
        name: Evaluated(
            predictions=part,
            evaluation=evaluate(
                problem,
                labels,
                part,
                split=name,
                resamples=plan.config.evaluation.bootstrap,
                seed=plan.config.seed,
                fitted=fitted,
                group_rule=saved.group_rule,
                group_name=saved.record.data.group_name,
                facts=plan.task.subgroups,
            ),
        )
        for name, part in predictions.items()
    }
    fold_of = {name: number + 1 for name, number in _folds(plan, splits).items()}
    predictions_file.write(folder / runs.PREDICTIONS_FILE, evaluated, problem, labels, fitted, fold_of)
    figures = {name: part.evaluation for name, part in evaluated.items()}
    best_epoch = runs.best_epoch(folder)
    update_record(folder, evaluation=runs.to_json(figures), best_epoch=best_epoch)
    context.events.on_evaluated(figures, best_epoch=best_epoch)
    saved.model.cpu()
    return replace(saved, record=read_record(folder)), evaluated


def _fit(plan: Plan, raw: Predictions, saved: SavedRun, fitted_on: str) -> Fitted:
    """What fits these predictions, and on which samples that was."""
    fitted = plan.task.problem.evaluation.fit(raw, saved.labels, saved.group_rule, plan.options)
    if not fitted:
        return fitted
    return {**fitted, "fitted_on": "; ".join(filter(None, [fitted_on, fitted.get("fitted_on", "")]))}


def _folds(plan: Plan, splits: Splits) -> Mapping[str, int]:
    """The id of each sample that figures are computed of to the number of the fold that holds it out, from 0."""
    return {
        sample.id: number
        for number, fold in enumerate(splits.folds)
        for sample in finished.whole_samples(plan.task.problem, fold.held_out)
    }


def _cross_fitted(plan: Plan, raw: Predictions, splits: Splits, saved: SavedRun) -> Predictions:
    """Every fold's predictions with what was fitted on the other folds."""
    of_fold = _folds(plan, splits)
    numbers = np.array([of_fold[sample.id] for sample in raw.samples])
    parts = []
    for number in range(len(splits.folds)):
        others, own = (raw.take(np.flatnonzero(rows)) for rows in (numbers != number, numbers == number))
        fitted = _fit(plan, others, saved, "the other folds")
        parts.append(plan.task.problem.evaluation.apply(own, fitted, saved.labels))
    return join(parts)


def _export(context: training.TrainingContext, saved: SavedRun, splits: Splits) -> Verification:
    plan, reporter = context.plan, context.reporter
    reporter.step("exporting to ONNX")
    candidate = saved.path / (runs.ONNX_FILE + ".candidate")
    finished.export_run(saved, candidate, note=reporter.note)
    context.events.on_exported(candidate)
    reporter.step("verifying the file")
    members = splits.val or splits.train
    chosen = [members[i] for i in spread(members, plan.config.deployment.verify_samples)]
    verification = finished.verify_file(
        saved,
        candidate,
        chosen,
        available=len(members),
        provider=plan.config.deployment.provider,
        advance=reporter.computing("samples, in torch and from the file", len(chosen)),
    )
    finished.settle(saved.path, candidate, verification, note=reporter.note)
    context.events.on_verified(verification)
    return verification


@contextmanager
def _without_report(reporter: Reporter) -> Iterator[None]:
    """A page that can't be drawn mustn't cost the run."""
    try:
        yield
    except Exception as error:
        logger.debug("no report", exc_info=True)
        why = str(error) if isinstance(error, PluginError) else type(error).__name__
        reporter.note(f"the report couldn't be made ({why}); all else is there")


def _report(
    plan: Plan,
    saved: SavedRun,
    found: Discovery,
    splits: Splits,
    evaluated: Mapping[str, Evaluated],
    audited: Audit | None,
    verification: Verification | None,
) -> None:
    """What people look at."""
    from zooft.report.gradcam import grad_cam

    epochs = [json.loads(line) for line in (saved.path / runs.EPOCHS_FILE).read_text(encoding="utf-8").splitlines()]
    show = partial(sample_tables.show, plan.task, plan.options)
    page.write(
        saved.path / runs.REPORT_FILE,
        page.ReportInputs(
            record=saved.record,
            problem=plan.task.problem,
            epochs=epochs,
            rejected=found.rejected,
            audit=audited,
            evaluated=evaluated,
            verification=verification,
            stages=_stages(plan, saved, epochs),
            show=show,
            gradcam=partial(grad_cam, saved),
            extra=plan.task.report(found.samples, plan.options),
            private=plan.task.private,
            samples=splits.by_name(),
            ports=sample_tables.ports(plan.task, plan.options),
            intended_use=plan.task.intended_use,
            reader=plan.task.reader(plan.options),
            answer=finished.make_answer(saved) if plan.task.problem.presentation.picture is not None else None,
        ),
    )


def _stages(plan: Plan, saved: SavedRun, epochs: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, int]]:
    """Every stage's name, its parameters, and how many of these trained in the last epoch."""
    from zooft.model import freeze

    freezer, argument = plan.registry.freezer(plan.config.model.freeze)
    last = freeze.plan(saved.model, freezer, argument, int(epochs[-1]["epoch"]) - 1)
    held, learning = freeze.parameters_by_stage(saved.model), freeze.learning_by_stage(saved.model, [last])

    def size(named: Sequence[tuple[str, Parameter]]) -> int:
        return sum(parameter.numel() for _, parameter in named)

    return [(name, size(held.get(name, [])), size(learning.get(name, []))) for name in saved.model.stages]


def _refuse_failure(verification: Verification | None, path: Path) -> None:
    if verification is not None and not verification.passed:
        raise VerificationError(
            f"the ONNX file couldn't be verified: {'; '.join(verification.failures)}; "
            f"the file is saved as {path / runs.REFUSED_FILE}, the fine-tuned weights as {path / runs.WEIGHTS_FILE}",
            verification,
        )
