"""A problem, tried on labels and targets: its loss, its columns and figures, its graph, and how it shows answers.

What answers of a problem look like isn't known here, so good ones are found by learning: outputs that a few hundred
steps down the loss have led to must do better by the primary metric than those where the way began.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import default_collate

from zooft.compute import trees
from zooft.contracts import InputSpec, Loss, Sample, Tap
from zooft.deploy.metadata_check import refuse_undeclared
from zooft.deploy.saved import geometry_of
from zooft.errors import UnknownNameError
from zooft.evaluation.predictions import Predictions
from zooft.hooks import registry
from zooft.hooks.guard import call_plugin, code_of, part_place, part_within, place_of
from zooft.testing.breaches import accept, expect, report_breaches
from zooft.train.distillation import make_divergence, try_divergence
from zooft.train.loss import collate, loss_parameters, make_loss, random_outputs, try_out

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from zooft.contracts import Arrays, Head, Labels, Output, Task
    from zooft.train.loss import TaskLoss

_FEWEST = 4
_STEPS, _RATE = 200, 0.1
_TOLERANCE = 1e-4
_TEMPERATURE = 4.0
_SPEC = InputSpec(height=64, width=64, resize=64, mean=(0.5,) * 3, std=(0.5,) * 3, mode="stretch")
"""Of a network that there isn't, for heads that read maps."""


@report_breaches()
def check_problem(
    task: Task,
    labels: Labels,
    targets: Sequence[Any],
    options: Any = None,
    *,
    arrays: Sequence[Arrays] = (),
    heads: Sequence[Head] = (),
) -> None:
    """The four parts of a task's problem do together what they promise.

    Args:
        task: whose problem it is; its data isn't read.
        labels: of the targets.
        targets: at least four, as they stand in samples, among them every kind of answer.
        options: the task's own; None for its defaults.
        arrays: of a problem whose targets have places in the image, what `Task.read` gives of these samples.
        heads: the plugin's own, where the task names one by default and the plugin isn't installed.
    """
    task = accept(task)
    options = task.options() if options is None else options
    call_plugin(task.problem.training, "check_options", options)
    expect(len(targets) >= _FEWEST, f"{task.name}: give at least {_FEWEST} targets to try its problem on")
    for number, target in enumerate(targets):
        expected = call_plugin(task.problem.training, "check", target, labels)
        if expected:
            raise part_place(task, "training", "check").error(
                f"refuses target {number}, {target!r}; it expects {expected}"
            )
    _check_strata(task, labels, targets)
    _check_order(task, targets, options)
    labels = call_plugin(task.problem.training, "prepare", labels, targets, options)
    trial = _trial(task, labels, targets, options, arrays, heads)
    _check_loss(trial)
    _check_divergence(trial)
    trained = _train_outputs(trial)
    _check_figures(trial, trained)
    if trial.placed:
        _check_placed(trial, trained)
    else:
        _check_deployment(trial, trained)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """What a problem is tried on.

    Attributes:
        task: whose problem.
        labels: prepared.
        targets: as they stand in samples.
        options: the task's.
        outputs: what a head may give, by name.
        encoded: the targets as a batch.
        seen: the targets as `EvaluationPart.columns` gets them.
        arrays: the samples' own, where targets have places in them.
    """

    task: Task
    labels: Labels
    targets: Sequence[Any]
    options: Any
    outputs: Mapping[str, Tensor]
    encoded: Any
    seen: Sequence[Any]
    arrays: Sequence[Arrays]

    @property
    def placed(self) -> bool:
        """Whether targets have places in the image."""
        return self.task.problem.training.move is not None

    def loss(self) -> TaskLoss:
        """The problem's, new."""
        return make_loss(self.task, self.labels, self.targets, self.options, seed=0)

    def predictions(self, outputs: Mapping[str, Tensor]) -> Predictions:
        """Columns of outputs."""
        given = {name: tensor.numpy() for name, tensor in outputs.items()}
        columns = call_plugin(self.task.problem.evaluation, "columns", given, self.seen, self.labels)
        samples = [
            Sample(id=str(i), source=None, target=target, group=f"group {i // 2}")
            for i, target in enumerate(self.targets)
        ]
        return Predictions(samples=samples, columns=columns)


def _trial(
    task: Task,
    labels: Labels,
    targets: Sequence[Any],
    options: Any,
    arrays: Sequence[Arrays],
    heads: Sequence[Head],
) -> _Trial:
    training = task.problem.training
    if training.move is None:
        encoded: Any = collate(task, labels, targets)
        seen: Sequence[Any] = targets
        outputs = random_outputs(task, labels, len(targets), options)
    else:
        expect(len(arrays) == len(targets), f"{task.name}: give check_problem the arrays of the {len(targets)} samples")
        geometry = geometry_of(task, task.input(_SPEC, options), options)
        moved = [
            call_plugin(training, "move", call_plugin(training, "encode", target, labels), geometry.of(each))
            for target, each in zip(targets, arrays, strict=True)
        ]
        encoded = (training.collate or default_collate)(moved)
        seen = [trees.arrays(trees.rows(encoded, row)) for row in range(len(targets))]
        outputs = None
    if training.gives != "vector":
        outputs = _of_head(task, labels, len(targets), options, heads)
    elif outputs is None:
        outputs = random_outputs(task, labels, len(targets), options)
    return _Trial(
        task=task,
        labels=labels,
        targets=targets,
        options=options,
        outputs=outputs,
        encoded=encoded,
        seen=seen,
        arrays=arrays,
    )


def _of_head(task: Task, labels: Labels, rows: int, options: Any, heads: Sequence[Head]) -> dict[str, Tensor]:
    """What the task's default head makes of random maps."""
    head = default_head(task, options, heads)
    taps = [_tap(stride) for stride in ((4, 8, 16, 32) if head.reads == "pyramid" else (32,))]
    random = torch.Generator().manual_seed(0)
    maps = [torch.randn(rows, tap.channels, tap.rows, tap.columns, generator=random) for tap in taps]
    sizes = call_plugin(task.problem.training, "outputs", labels, options)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        made: dict[str, Tensor] = call_plugin(head, "build", tuple(taps), sizes).eval()(maps)
    return made


def _tap(stride: int) -> Tap:
    rows = _SPEC.height // stride
    return Tap(stage=f"stride {stride}", layout="map", channels=8, rows=rows, columns=rows, stride=stride)


def default_head(task: Task, options: Any, heads: Sequence[Head]) -> Head:
    """The head that a task names.

    Args:
        task: whose head.
        options: its own.
        heads: of a plugin that isn't installed.
    """
    name = call_plugin(task, "head", options)
    own = [head for head in heads if head.name == name.rpartition("/")[2]]
    try:
        return own[0] if own else registry.load().head(name)
    except UnknownNameError as error:
        raise place_of(task, "head").error(f"names a head that isn't registered: {error}") from error


def _check_strata(task: Task, labels: Labels, targets: Sequence[Any]) -> None:
    place = part_place(task, "training", "strata")
    strata = call_plugin(task.problem.training, "strata", targets, labels)
    if len(strata.numbers) != len(targets):
        raise place.error(f"gives {len(strata.numbers)} strata for {len(targets)} targets")
    if not all(0 <= int(number) < len(strata.names) for number in strata.numbers):
        raise place.error(f"gives numbers of strata beyond their {len(strata.names)} names")


def _check_order(task: Task, targets: Sequence[Any], options: Any) -> None:
    """As many samples as there are, the same ones for the same seed, for batches smaller and larger than all."""
    if task.problem.training.order is None:
        return
    place = part_place(task, "training", "order")
    for size in (2, len(targets), 4 * len(targets)):
        found, again = (list(call_plugin(task.problem.training, "order", targets, options, size, 1)) for _ in range(2))
        if len(found) != len(targets) or not all(0 <= number < len(targets) for number in found):
            raise place.amiss(found, f"{len(targets)} numbers of samples, from 0 to {len(targets) - 1}")
        if found != again:
            raise place.error("gives another order for the same seed, so that a resumed run isn't the same")


def _check_loss(trial: _Trial) -> None:
    module = trial.loss()
    try_out(module, trial.task, trial.outputs, trial.encoded)
    module(trees.tree_map(lambda x: x.clone().requires_grad_(), dict(trial.outputs)), trial.encoded).backward()
    idle = [name.removeprefix("own.") for name, parameter in loss_parameters(module) if parameter.grad is None]
    if idle:
        raise part_place(trial.task, "training", "loss").error(
            f"makes a loss that doesn't use {', '.join(idle)}; use it, or mark what is to stay fixed with "
            "requires_grad_(False)"
        )


def _check_divergence(trial: _Trial) -> None:
    """Of answers from a teacher's: 0 from the same, positive from others, a sum over samples to learn from."""
    task, labels = trial.task, trial.labels
    if task.problem.training.distill is None:
        return
    place, code = part_place(task, "training", "distill"), code_of(task.problem.training, "distill")
    module = make_divergence(task, labels, labels, trial.options, temperature=_TEMPERATURE)
    try_divergence(task, module, trial.outputs)
    measured = part_within(task, "training", "distill", module)
    random = torch.Generator().manual_seed(1)
    theirs = {name: each + torch.randn(each.shape, generator=random) for name, each in trial.outputs.items()}
    ours = {name: each.detach().clone().requires_grad_() for name, each in trial.outputs.items()}
    found = measured(ours, theirs)
    whole = {name: _value(found, name) for name in ("total", "weight")}
    for name, value in whole.items():
        if not 0 < value < math.inf:
            raise place.amiss(value, "a positive number", what=f"the {name} between two different answers", code=code)
    found.total.backward()
    if not any(each.grad is not None and bool(each.grad.any()) for each in ours.values()):
        raise place.error("makes a loss from which the outputs learn nothing", code=code)
    cut = len(trial.targets) // 3 + 1
    for name, value in whole.items():
        parts = [
            _value(measured(trees.rows(dict(trial.outputs), rows), trees.rows(theirs, rows)), name)
            for rows in (slice(0, cut), slice(cut, None))
        ]
        if not math.isclose(math.fsum(parts), value, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
            raise place.error(
                f"makes a loss whose {name} doesn't add up: {math.fsum(parts):.6g} for the parts of a batch, "
                f"{value:.6g} for the whole; give sums over the samples",
                code=code,
            )
    if task.problem.training.gives == "map":  # of a teacher whose input or stride is another
        smaller = {name: torch.nn.functional.avg_pool2d(each, 2) for name, each in theirs.items()}
        value = float(measured(dict(trial.outputs), smaller).total)
        if not 0 < value < math.inf:
            raise place.amiss(value, "a positive number", what="the total from maps of half the size", code=code)


def _value(found: Loss, name: str) -> float:
    return float(torch.as_tensor(getattr(found, name)).detach())


def _train_outputs(trial: _Trial) -> dict[str, Tensor]:
    """Outputs after some steps down the loss, each sample's free to move."""
    module = trial.loss()
    moving = {name: tensor.clone().requires_grad_() for name, tensor in trial.outputs.items()}
    optimizer = torch.optim.Adam([*moving.values(), *(p for _, p in loss_parameters(module))], lr=_RATE)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        module(moving, trial.encoded).backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in moving.items()}


def _check_figures(trial: _Trial, trained: Mapping[str, Tensor]) -> None:
    task, labels, options = trial.task, trial.labels, trial.options
    part, place = task.problem.evaluation, part_place(task, "evaluation", "metrics")
    before, after = (trial.predictions(outputs) for outputs in (trial.outputs, trained))
    figures = [call_plugin(part, "metrics", given, labels) for given in (before, after)]
    if set(figures[0]) != set(figures[1]):
        raise place.error(f"gives {', '.join(figures[0])} for some predictions and {', '.join(figures[1])} for others")
    primary = [float(values[part.primary]) for values in figures]
    for value in primary:
        if not math.isfinite(value):
            raise place.amiss(value, "a finite number", what=f"the primary metric, {part.primary},")
    some = _without_one_stratum(task, labels, trial.targets)
    call_plugin(
        part, "metrics", Predictions(samples=(), columns=after.rows(some)), labels
    )  # NaN is fine, an error isn't
    _check_smaller(task, figures[0])
    better = primary[1] < primary[0] if part.primary in part.smaller else primary[1] > primary[0]
    if not better:
        raise place.error(
            f"gives {primary[0]:.4g} as {part.primary} for random outputs and {primary[1]:.4g} for those that the "
            f"loss has led to; the primary metric must be {'smaller' if part.primary in part.smaller else 'larger'} "
            "for better answers, since it chooses the best epoch (name it in `smaller` where smaller is better)"
        )
    fitted = call_plugin(part, "fit", after, labels, "", options)
    applied = call_plugin(part, "apply", after, fitted, labels)
    call_plugin(part, "details", applied, None, labels, fitted, False)
    _check_groups(task, labels, applied)
    _check_presentation(task, labels, trial.targets, applied, fitted)


def _check_smaller(task: Task, figures: Mapping[str, float]) -> None:
    """Whether a name is a misspelt one; some may be those of other settings, such as of other metrics."""
    for name in sorted(task.problem.evaluation.smaller - set(figures)):
        meant = [known for known in figures if get_close_matches(name.lower(), [known.lower()])]
        if meant and name not in {known.partition("/")[0] for known in figures}:
            raise part_place(task, "evaluation", "smaller").error(
                f"names a figure that isn't there, {name}; {meant[0]} may be meant"
            )


def _without_one_stratum(task: Task, labels: Labels, targets: Sequence[Any]) -> NDArray[Any]:
    """Rows as a small split may have them, which lacks a class."""
    numbers = np.asarray(call_plugin(task.problem.training, "strata", targets, labels).numbers)
    some: NDArray[Any] = np.flatnonzero(numbers != numbers.max())
    return some if len(some) else np.arange(len(targets))


def _check_groups(task: Task, labels: Labels, given: Predictions) -> None:
    part = task.problem.evaluation
    if part.group is None:
        return
    members = [np.array(rows) for rows in np.array_split(np.arange(len(given)), max(2, len(given) // 2))]
    for rule in part.rules or ("",):
        columns = call_plugin(part, "group", given, members, labels, rule)
        call_plugin(part, "metrics", Predictions(samples=(), columns=columns), labels)


def _check_presentation(task: Task, labels: Labels, targets: Sequence[Any], given: Predictions, fitted: Any) -> None:
    part = task.problem.presentation
    cells, names = call_plugin(part, "cells", given, labels, fitted), list(call_plugin(part, "columns", labels))
    if list(cells) != names:
        raise part_place(task, "presentation", "cells").error(
            f"gives the columns {', '.join(cells)}, and `columns` gives {', '.join(names)}"
        )
    call_plugin(part, "worst", given, labels)
    if part.wrong is not None:
        call_plugin(part, "wrong", given, labels)
    if part.caption is not None:
        call_plugin(part, "caption", given.take(np.arange(1)), labels, fitted)
    call_plugin(part, "target", targets[0], labels)
    first = {name: column[0] for name, column in cells.items()}
    call_plugin(part, "brief", first, labels)
    call_plugin(part, "record", first, labels)


def _check_deployment(trial: _Trial, trained: Mapping[str, Tensor]) -> None:
    task, labels, targets = trial.task, trial.labels, trial.targets
    part, place = task.problem.deployment, part_place(task, "deployment", "graph")
    given = trial.predictions(trained)
    fitted = call_plugin(task.problem.evaluation, "fit", given, labels, "", trial.options)
    declared = call_plugin(part, "outputs", labels, fitted)
    graph = part_within(task, "deployment", "graph", call_plugin(part, "graph", labels, fitted).eval())
    batch = (torch.zeros(len(targets), 8, 8, 3, dtype=torch.uint8),)
    with torch.inference_mode():
        found = graph(dict(trained), batch)
        fewer = graph(trees.rows(dict(trained), slice(0, 2)), (batch[0][:2],))
    refuse_undeclared(task, declared, found, rows=len(targets))
    for output, tensor, part_of_it in zip(declared, found, fewer, strict=True):
        same = tensor[:2].shape == part_of_it.shape and torch.allclose(
            tensor[:2].double(), part_of_it.double(), atol=_TOLERANCE, rtol=_TOLERANCE
        )
        if not same:
            raise place.error(
                f"makes a module that gives other values of {output.name} for the same samples in a smaller batch"
            )
    answers = {output.name: tensor.numpy() for output, tensor in zip(declared, found, strict=True)}
    columns = call_plugin(part, "columns", answers, targets, labels, fitted)
    deployed = replace(given, columns=columns)
    wanted = call_plugin(task.problem.evaluation, "apply", given, fitted, labels)
    _expect_same_figures(task, labels, deployed, wanted)
    _expect_agreement(task, labels, fitted, declared, answers)


def _check_placed(trial: _Trial, trained: Mapping[str, Tensor]) -> None:
    """The graph on every sample's own pixels, of several sizes.

    Its columns give the same figures, and agree with themselves.
    """
    task, labels, part = trial.task, trial.labels, trial.task.problem.deployment
    given = trial.predictions(trained)
    fitted = call_plugin(task.problem.evaluation, "fit", given, labels, "", trial.options)
    declared = call_plugin(part, "outputs", labels, fitted)
    graph = part_within(task, "deployment", "graph", call_plugin(part, "graph", labels, fitted).eval())
    geometry = geometry_of(task, task.input(_SPEC, trial.options), trial.options)
    for row, (target, arrays) in enumerate(zip(trial.targets, trial.arrays, strict=True)):
        batch = tuple(torch.from_numpy(array)[None] for array in arrays)
        with torch.inference_mode():
            found = graph(trees.rows(dict(trained), slice(row, row + 1)), batch, geometry.back(batch))
        refuse_undeclared(task, declared, found, rows=1)
        answers = {output.name: tensor.numpy() for output, tensor in zip(declared, found, strict=True)}
        columns = call_plugin(part, "columns", answers, [target], labels, fitted)
        figures = call_plugin(task.problem.evaluation, "metrics", Predictions(samples=(), columns=columns), labels)
        lost = set(call_plugin(task.problem.evaluation, "metrics", given, labels)) - set(figures)
        if lost:
            raise part_place(task, "deployment", "columns").error(
                f"gives columns without the figures {', '.join(sorted(lost))}"
            )
        _expect_agreement(task, labels, fitted, declared, answers)


def _expect_agreement(task: Task, labels: Labels, fitted: Any, declared: Sequence[Output], answers: Any) -> None:
    slack = {output.name: 0.0 for output in declared if output.measure == "spread"}
    disagreeing = call_plugin(task.problem.deployment, "agree", answers, answers, labels, fitted, slack)
    if disagreeing:
        raise part_place(task, "deployment", "agree").error(
            f"finds that an answer doesn't agree with itself: {'; '.join(disagreeing)}"
        )


def _expect_same_figures(task: Task, labels: Labels, deployed: Predictions, wanted: Predictions) -> None:
    ours, theirs = (call_plugin(task.problem.evaluation, "metrics", given, labels) for given in (deployed, wanted))
    for name, value in theirs.items():
        if name not in ours:
            raise part_place(task, "deployment", "columns").error(f"gives columns without the figure {name}")
        if not math.isclose(ours[name], value, rel_tol=1e-3, abs_tol=1e-3) and not (
            ours[name] != ours[name] and value != value
        ):
            raise part_place(task, "deployment", "columns").error(
                f"gives columns by which {name} is {ours[name]:.4g}, and {value:.4g} by those of the head's outputs; "
                "graph and columns must give what EvaluationPart.columns and apply give"
            )
