"""``zooft prune``: channels out of a finished run's backbone, some epochs, the gate; beside it a smaller backbone.

A run of its own comes of it, or nothing: `finetune_from` trains, evaluates, exports and verifies as for any run, and
asks before it publishes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft import config as configuration
from zooft import runtime
from zooft.compute import launcher
from zooft.contracts import parse_reference
from zooft.contracts.plurals import pluralize
from zooft.data import samples as sample_tables
from zooft.deploy import contenders as comparison
from zooft.deploy import precisions
from zooft.deploy import saved as finished
from zooft.deploy.contenders import Contender
from zooft.deploy.verify import spread
from zooft.errors import ConfigError, DataError, ModelError, PruningError, RunError, VerificationError, ZooftError
from zooft.hooks import registry as registries
from zooft.hooks.guard import call_plugin
from zooft.pipeline import resume
from zooft.pipeline.finetune import FinetuneResult, finetune, finetune_from
from zooft.pipeline.plan import Beginning
from zooft.pipeline.reporter import LoggingReporter
from zooft.run import folder as runs
from zooft.run.record import PrunedRecord, read_record

if TYPE_CHECKING:
    from torch import Tensor

    from zooft.contracts import Labels, PrunedSizes, Sample, Verification
    from zooft.deploy.precision_gate import Drop
    from zooft.deploy.saved import SavedRun
    from zooft.hooks.registry import Registry
    from zooft.model.adapted import AdaptedModel
    from zooft.model.backbone import Backbone
    from zooft.model.pruning import Outcome
    from zooft.pipeline.plan import Plan
    from zooft.pipeline.reporter import Reporter

ORIGINAL, PRUNED = "original", "pruned"
"""Rows of the table; a smaller backbone's row has its name."""
_FEWEST_EPOCHS = 3
_IMAGES, _AT_A_TIME = 128, 16
"""Training samples on which channels are compared, and images of a batch of them."""
_COMPARED = re.compile(
    "head|freeze|batch_size|optimizer|lr|backbone_lr|momentum|weight_decay|schedule|warmup|step_epochs|step_factor|power"
    "|val_fraction|seed"
)
"""Options that a smaller backbone's run must share to be of use again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a run is pruned.

    Attributes:
        ratio: of the channels of each group of layers.
        max_drop: by how much the primary figure may be worse.
        epochs: after pruning; None for a third of the run's, three at least.
        samples: validation samples at most, for the gate.
        smaller: the backbone to compare with, by name; None for the one whose size comes nearest.
        compare: whether there is one.
        provider: that runs the files.
    """

    ratio: float
    max_drop: float = 0.01
    epochs: int | None = None
    samples: int = 500
    smaller: str | None = None
    compare: bool = True
    provider: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What came of it.

    Attributes:
        result: of the pruned run.
        smaller: the folder of the run with a smaller backbone; None where there is none.
        drop: by how much the pruned run's figure is worse.
        table: costs and figures, by name.
    """

    result: FinetuneResult
    smaller: Path | None
    drop: Drop
    table: Mapping[str, Mapping[str, Any]]


def prune(
    run: Path,
    settings: Settings,
    *,
    data: Path | None = None,
    out: Path | None = None,
    local: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
    registry: Registry | None = None,
) -> Pruned:
    """Prune a finished run into a new one.

    Args:
        run: its folder.
        settings: how.
        data: the run's; None for where it was.
        out: the new run's folder; None for the run's name with ``-pruned``.
        local: more options that aren't recorded: ``device``, and the task's own for where things lie.
        reporter: gets notes and progress.
        registry: instead of the installed plugins.

    Raises:
        ZooftError: the run can't be pruned, or the gate doesn't hold; nothing is left of the pruned run.
    """
    reporter, known = reporter or LoggingReporter(), registry or registries.load()
    run = run if run.name else run.resolve()  # of "." there is no name to make others of
    out = out or run.with_name(f"{run.name}-pruned")
    values = _values(known, run, settings, data=data, out=out, local=local or {})
    reporter.step(f"pruning {run}")
    before = finished.open_run(run, known)
    _refuse_frozen(before, known, reporter)
    images = _training_images(before, values, reporter)
    begun, state = _shrink(before, known, settings, images, reporter)
    smaller = _train_smaller(before, known, values, settings, reporter) if settings.compare else None
    reporter.step("training the pruned model")
    gate = _Gate(before, known, smaller, settings, int(values["seed"]), reporter)
    beginning = Beginning(
        before=run,
        model=lambda plan, labels: _loaded(before, begun.sizes, state, plan, labels),
        pruned=begun,
        accept=gate.accept,
    )
    result = finetune_from(beginning, reporter=reporter, registry=known, **values)
    assert gate.drop is not None  # noqa: S101 -- the run has been published
    return Pruned(result=result, smaller=smaller, drop=gate.drop, table=gate.table)


def _values(
    registry: Registry, run: Path, settings: Settings, *, data: Path | None, out: Path, local: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of the pruned run: those of the run itself, but that everything learns.

    Raises:
        ConfigError: options that can't be used.
        RunError: the run isn't finished.
        DataError: it has no validation samples, or it isn't known where its data is.
    """
    if not 0 < settings.ratio < 1:
        raise ConfigError(
            f"--ratio is the share of channels to take out, between 0 and 1, and {settings.ratio:g} was given; try 0.3"
        )
    if launcher.processes() > 1:
        raise ConfigError("zooft prune trains in one process; start it without torchrun")
    if not runs.is_finished(run):
        found = f"{runs.working_or_final(run)} is being worked on or was interrupted" if _is_begun(run) else "it isn't"
        raise RunError(f"zooft prune takes the folder of a finished run, and {found}; finish the run first")
    record = read_record(run)
    if not record.data.val:
        raise DataError(
            f"{run} has no validation samples, as it was cross-validated and then learnt from all (--folds), so "
            "whether pruning costs too much can't be measured; train it without --folds first"
        )
    where = data or (Path(record.data.path) if record.data.path else None)
    if where is None:
        raise DataError(f"{run} doesn't record where its data is; give it with --data")
    runs.refuse_taken(out)
    runtime.choose(settings.provider)
    own = configuration.read_toml(run / runs.SETTINGS_FILE)
    unknown = set(local) - {"device", *configuration.local_names(registry.task(record.task).options)}
    if unknown:
        raise ConfigError(f"{', '.join(sorted(unknown))}: only options for where things lie can be given anew")
    epochs = settings.epochs or max(_FEWEST_EPOCHS, round(int(own["epochs"]) / 3))
    return {
        **own,
        **local,
        "data": where,
        "out": out,
        "epochs": epochs,
        "freeze": "standard/none",
        "provider": settings.provider,
        "export": True,
        "sweep": False,
        "profile": False,
    }


def _is_begun(run: Path) -> bool:
    return runs.working_or_final(run).is_dir()


def _refuse_frozen(before: SavedRun, registry: Registry, reporter: Reporter) -> None:
    """Raise RunError where no epoch of a run has trained anything of its backbone; note what was frozen."""
    from zooft.model import freeze

    config = before.record.config
    freezer, argument = registry.freezer(str(config["freeze"]))
    plans = [freeze.plan(before.model, freezer, argument, epoch) for epoch in range(int(config["epochs"]))]
    if not freeze.learning_by_stage(before.model, plans):
        raise RunError(
            f"the backbone of {before.path} was frozen ({config['freeze']}): its head has learnt to read exactly these "
            "channels, and fewer would have to learn anew, which a frozen backbone doesn't; train a run with "
            "--freeze none, or last:2, and prune that one"
        )
    if any(plan.frozen for plan in plans):
        reporter.note(f"the run was trained with --freeze {config['freeze']}; from here on everything learns")


def _training_images(before: SavedRun, values: Mapping[str, Any], reporter: Reporter) -> list[Tensor]:
    """Some training samples as the trunk sees them, in batches of more than one image.

    Raises:
        DataError: the data isn't the run's.
    """
    import torch

    wanted = configuration.names(before.task.options)
    options = configuration.build(before.task.options, {n: value for n, value in values.items() if n in wanted})
    sample_tables.begin(before.task, values["data"], options)
    found = sample_tables.discover(before.task, values["data"], options, computing=reporter.computing)
    resume.check_data(before.path, found)
    _, members, _ = finished.samples_of(before.problem, found, before.labels, run=before.path, split="train")
    views = finished.make_views(before, members)
    instances = views[0][0].shape[0] if before.model.bag else 1
    made = [views[index][0] for index in spread(members, max(2, _IMAGES // instances))]
    images = torch.cat(made) if before.model.bag else torch.stack(made)
    return [part for part in torch.split(images, _AT_A_TIME) if len(part) > 1]


def _shrink(
    before: SavedRun, registry: Registry, settings: Settings, images: Sequence[Tensor], reporter: Reporter
) -> tuple[PrunedRecord, dict[str, Tensor]]:
    """What is taken out of a run's model, and the tensors that are left, under the zoo's names.

    Raises:
        ModelError: it can't be pruned, or not be built again.
    """
    from zooft.model import pruning
    from zooft.model.adapted import zoo_state_dict

    model = before.model
    size, cost = _count(model), pruning.multiplications(model, before.input)
    seed = int(before.record.config["seed"])
    outcome = pruning.prune(model, before.input, settings.ratio, images=images, seed=seed)
    pruning.measure_norms(model, images)
    sizes = pruning.sizes(_plain(before, registry).module, model.trunk)
    state = zoo_state_dict(model)
    _check_rebuilt(before, registry, sizes, state)
    reporter.note(_describe(outcome))
    reporter.note(
        f"parameters {size:,} → {_count(model):,}, multiplications {cost:,} → "
        f"{pruning.multiplications(model, before.input):,}"
    )
    earlier = before.record.pruned
    if earlier is not None:
        reporter.note(f"{before.path} was pruned before (--ratio {earlier.ratio:g}), and is pruned further")
    return PrunedRecord(
        ratio=settings.ratio,
        sizes=sizes,
        groups=outcome.groups,
        whole=outcome.whole,
        before=outcome.before,
        after=outcome.after,
    ), state


def _describe(outcome: Outcome) -> str:
    whole = pluralize(outcome.whole, "group stays", "groups stay")
    return (
        f"{outcome.before - outcome.after:,} of {outcome.before:,} channels were taken out, in "
        f"{pluralize(outcome.groups, 'group', 'groups')} of layers that share them; {whole} whole: what the head "
        "reads, and what can't lose channels and compute the same"
    )


def _count(model: AdaptedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _plain(before: SavedRun, registry: Registry, sizes: PrunedSizes | None = None) -> Backbone:
    from zooft.model.backbone import for_task, rebuild_backbone

    record = before.record
    backbone = rebuild_backbone(
        registry.family(record.backbone.family),
        record.backbone.name,
        channels=before.task.channels(before.options),
        record=record.weights,
        pruned=sizes,
    )
    return for_task(backbone, before.task, before.options)


def _check_rebuilt(before: SavedRun, registry: Registry, sizes: PrunedSizes, state: Mapping[str, Tensor]) -> None:
    """Raise ModelError where sizes and tensors don't give the same model again, to the bit."""
    import torch

    from zooft.model.loading import load_strictly

    again = _plain(before, registry, sizes).module
    names = set(again.state_dict())
    load_strictly(again, {name: t for name, t in state.items() if name in names}, without=(), what="the pruned model")
    trunk, spec = before.model.trunk.eval(), before.input
    image = torch.randn(2, spec.channels, spec.height, spec.width, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        same = torch.equal(again.eval()(image), trunk(image))
    if not same:
        raise ModelError(
            f"the pruned {before.record.backbone.reference} couldn't be built again from its sizes, so a run of it "
            "couldn't be opened; take a smaller backbone instead"
        )


def _loaded(
    before: SavedRun, sizes: PrunedSizes, state: Mapping[str, Tensor], plan: Plan, labels: Labels
) -> tuple[Backbone, AdaptedModel]:
    """The pruned model with the weights that are left."""
    from zooft.model.adapted import load_zoo_state_dict

    backbone, model = resume.build_pruned(before.record, sizes, plan, labels)
    load_zoo_state_dict(model, state, what=f"{before.path}, pruned")
    return backbone, model


def _train_smaller(
    before: SavedRun,
    registry: Registry,
    values: Mapping[str, Any],
    settings: Settings,
    reporter: Reporter,
) -> Path | None:
    """Train a smaller backbone for as many epochs as the pruned one will have seen; None, with a note, if it can't."""
    own = configuration.read_toml(before.path / runs.SETTINGS_FILE)
    reference = settings.smaller or _find_smaller(before, registry)
    if reference is None:
        reporter.note(
            f"no smaller model of the kind of {before.record.backbone.reference} was found to compare with; name one "
            "with --smaller"
        )
        return None
    epochs = int(own["epochs"]) + int(values["epochs"])
    name = reference.rpartition("/")[2]
    base = Path(values["out"])
    base = base.with_name(f"{base.name}-{runs.slug(parse_reference(reference)[1])}")
    out, is_there = _folder(base, lambda path: _is_trained(path, before, parse_reference(reference)[1], epochs))
    if is_there:
        reporter.note(f"{name} was trained before, in the same way: {out}")
        return out
    chosen = {
        **values,
        "backbone": reference,
        "freeze": own["freeze"],
        "epochs": epochs,
        "weights": "random" if before.record.weights.kind == "random" else "pretrained",
        "out": out,
        "audit": False,
    }
    reporter.step(f"training {name} to compare with, {epochs} epochs")
    try:
        return finetune(reporter=reporter, registry=registry, **chosen).path
    except ZooftError as error:
        if settings.smaller is not None:  # the user wants this one
            raise
        reporter.note(f"{name} couldn't be trained to compare with: {error}")
        return None


def _folder(base: Path, fits: Callable[[Path], bool]) -> tuple[Path, bool]:
    """The first of ``base``, ``base-2``, … that is free, or that has what is wanted already."""
    for number in itertools.count(1):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        if not runs.working_or_final(path).exists():
            return path, False
        if fits(path):
            return path, True
    raise AssertionError("there is no end of numbers")


def _is_trained(path: Path, before: SavedRun, model: str, epochs: int) -> bool:
    """Whether a finished run is of a model on the same data with the same options, with a file."""
    try:
        record, first = read_record(path), before.record
    except RunError:
        return False
    options = {name: value for name, value in record.config.items() if _COMPARED.fullmatch(name)}
    return (
        runs.is_finished(path)
        and precisions.usable_source(path)
        and record.pruned is None
        and (record.weights.kind == "random") == (first.weights.kind == "random")
        and model in (record.backbone.name, record.backbone.name.partition(".")[0])
        and record.config["epochs"] == epochs
        and record.data.fingerprint == first.data.fingerprint
        and record.options == first.options
        and options == {name: value for name, value in first.config.items() if _COMPARED.fullmatch(name)}
    )


def _find_smaller(before: SavedRun, registry: Registry) -> str | None:
    from zooft.model import relatives

    record = before.record.backbone
    family_name = record.family
    left = _count(before.model)  # pruned by now
    found = relatives.find_smaller(
        registry.family(family_name),
        record.name,
        near=left,
        below=_whole_size(registry, before),
        sources=[entry.value for entry in registry.weights],
        pretrained=before.record.weights.kind != "random",
    )
    return None if found is None else f"{family_name}:{found.name}"


def _whole_size(registry: Registry, before: SavedRun) -> int:
    """Parameters of the zoo's model, its own classifier's among them."""
    from zooft.model.skip_init import on_meta

    family = registry.family(before.record.backbone.family)
    module = on_meta(lambda: call_plugin(family, "build", before.record.backbone.name))
    return sum(parameter.numel() for parameter in module.parameters())


class _Gate:
    """Compares the pruned run with the one that it comes from, before it is published."""

    def __init__(
        self,
        before: SavedRun,
        registry: Registry,
        smaller: Path | None,
        settings: Settings,
        seed: int,
        reporter: Reporter,
    ) -> None:
        self._path, self._registry, self._smaller = before.path, registry, smaller
        self._settings, self._seed, self._reporter = settings, seed, reporter
        self.drop: Drop | None = None
        self.table: dict[str, dict[str, Any]] = {}

    def accept(self, run: SavedRun, samples: Sequence[Sample], verification: Verification | None) -> PrunedRecord:
        """The record of what was pruned, with figures.

        Raises:
            VerificationError: the file isn't the model, or the figures are too much worse.
        """
        if verification is None or not verification.passed:
            failures = "" if verification is None else f": {'; '.join(verification.failures)}"
            raise VerificationError(f"the pruned model's file failed its verification{failures}; nothing was written")
        picked = [samples[i] for i in spread(samples, self._settings.samples)]
        if any(sample.target is None for sample in picked):
            raise DataError("the gate compares figures on validation samples with targets, and some have none")
        self._reporter.step("comparing with the run that was pruned")
        with ExitStack() as stack:
            before = finished.open_run(self._path, self._registry)  # the one in memory is pruned
            file = stack.enter_context(comparison.verified_file(before, picked, provider=self._settings.provider))
            found = {ORIGINAL: Contender(before, file), PRUNED: Contender(run, run.path / runs.ONNX_FILE)}
            found |= self._others()
            answers = {
                name: comparison.answers(
                    each, picked, provider=self._settings.provider, computing=self._reporter.computing
                )
                for name, each in found.items()
            }
            self.drop = comparison.drop(before, answers[ORIGINAL], answers[PRUNED], seed=self._seed)
            self.table = comparison.table(found, answers, picked[0], seed=self._seed)
        described = self.drop.describe("the original's")
        if not self.drop.holds(self._settings.max_drop):
            raise PruningError(
                f"pruned by {self._settings.ratio:g} it reaches {described} on {self.drop.samples} samples; at most "
                f"{self._settings.max_drop:g} is allowed, so nothing was written: a smaller --ratio, more --epochs or "
                f"a larger --max-drop may help{self._about_smaller()}",
                self.table,
            )
        self._reporter.note(f"{described}, on {self.drop.samples} samples")
        record = run.record.pruned
        assert record is not None  # noqa: S101 -- written when training began
        gate = {**asdict(self.drop), "max_drop": self._settings.max_drop}
        return replace(record, gate=gate, table=self.table)

    def _others(self) -> dict[str, Contender]:
        if self._smaller is None:
            return {}
        run = finished.open_run(self._smaller, self._registry)
        return {run.record.backbone.name: Contender(run, self._smaller / runs.ONNX_FILE)}

    def _about_smaller(self) -> str:
        return "" if self._smaller is None else f"; the run of a smaller backbone is there: {self._smaller}"
