"""A problem, tried on labels and targets: its loss, its columns and figures, its graph, and how it shows answers.

What answers of a problem look like isn't known here, so good ones are found by learning: outputs that a few hundred steps down the
loss have led to must do better by the primary metric than those where the way began.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zooft.compute import trees
from zooft.contracts import Sample
from zooft.deploy.declared import refuse_undeclared
from zooft.evaluation.predictions import Predictions
from zooft.hooks.guard import ask, part_place, part_within
from zooft.testing.breaches import accepted, conforming, expect
from zooft.train.loss import collated, learnt, make_loss, random_outputs, try_out

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from zooft.contracts import Labels, Task

_FEWEST = 4
_STEPS, _RATE = 200, 0.1
_TOLERANCE = 1e-4


@conforming()
def check_problem(task: Task, labels: Labels, targets: Sequence[Any], options: Any = None) -> None:
    """The four parts of a task's problem do together what they promise.

    Args:
        task: whose problem it is; its data isn't read.
        labels: what the targets say.
        targets: at least four, as they stand in samples, among them every kind of answer.
        options: the task's own; None for its defaults.
    """
    task = accepted(task)
    options = task.options() if options is None else options
    ask(task.problem.training, "check_options", options)
    expect(len(targets) >= _FEWEST, f"{task.name}: give at least {_FEWEST} targets to try its problem on")
    for number, target in enumerate(targets):
        expected = ask(task.problem.training, "check", target, labels)
        if expected:
            raise part_place(task, "training", "check").error(
                f"refuses target {number}, {target!r}; it expects {expected}"
            )
    _check_strata(task, labels, targets)
    labels = ask(task.problem.training, "prepare", labels, targets, options)
    encoded = collated(task, labels, targets)
    start = random_outputs(task, labels, len(targets), options)
    _check_loss(task, labels, targets, options, encoded)
    taught = _taught(task, labels, targets, options, start, encoded)
    _check_figures(task, labels, targets, options, start, taught)
    _check_deployment(task, labels, targets, options, taught)


def _check_strata(task: Task, labels: Labels, targets: Sequence[Any]) -> None:
    place = part_place(task, "training", "strata")
    strata = ask(task.problem.training, "strata", targets, labels)
    if len(strata.numbers) != len(targets):
        raise place.error(f"gives {len(strata.numbers)} strata for {len(targets)} targets")
    if not all(0 <= int(number) < len(strata.names) for number in strata.numbers):
        raise place.error(f"gives numbers of strata beyond their {len(strata.names)} names")


def _check_loss(task: Task, labels: Labels, targets: Sequence[Any], options: Any, encoded: Any) -> None:
    module = make_loss(task, labels, targets, options, seed=0)
    try_out(module, task, labels, targets, options)
    outputs = random_outputs(task, labels, len(targets), options)
    module(trees.mapped(lambda tensor: tensor.requires_grad_(), outputs), encoded).backward()
    idle = [name.removeprefix("own.") for name, parameter in learnt(module) if parameter.grad is None]
    if idle:
        raise part_place(task, "training", "loss").error(
            f"makes a loss that doesn't use {', '.join(idle)}; use it, or mark what is to stay fixed with requires_grad_(False)"
        )


def _taught(
    task: Task, labels: Labels, targets: Sequence[Any], options: Any, outputs: Mapping[str, Tensor], encoded: Any
) -> dict[str, Tensor]:
    """Outputs after some steps down the loss, each sample's free to move."""
    module = make_loss(task, labels, targets, options, seed=0)
    moving = {name: tensor.clone().requires_grad_() for name, tensor in outputs.items()}
    optimizer = torch.optim.Adam([*moving.values(), *(p for _, p in learnt(module))], lr=_RATE)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        module(moving, encoded).backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in moving.items()}


def _check_figures(
    task: Task,
    labels: Labels,
    targets: Sequence[Any],
    options: Any,
    start: Mapping[str, Tensor],
    taught: Mapping[str, Tensor],
) -> None:
    part, place = task.problem.evaluation, part_place(task, "evaluation", "metrics")
    before, after = (_predictions(task, labels, targets, outputs) for outputs in (start, taught))
    figures = [ask(part, "metrics", given, labels) for given in (before, after)]
    if set(figures[0]) != set(figures[1]):
        raise place.error(f"gives {', '.join(figures[0])} for some predictions and {', '.join(figures[1])} for others")
    primary = [float(values[part.primary]) for values in figures]
    for value in primary:
        if not math.isfinite(value):
            raise place.amiss(value, "a finite number", what=f"the primary metric, {part.primary},")
    some = _without_one_stratum(task, labels, targets)
    ask(part, "metrics", Predictions(samples=(), columns=after.rows(some)), labels)  # NaN is fine, an error isn't
    _check_smaller(task, figures[0])
    better = primary[1] < primary[0] if part.primary in part.smaller else primary[1] > primary[0]
    if not better:
        raise place.error(
            f"gives {primary[0]:.4g} as {part.primary} for random outputs and {primary[1]:.4g} for those that the loss has led to; "
            f"the primary metric must be {'smaller' if part.primary in part.smaller else 'larger'} for better answers, since it chooses "
            "the best epoch (name it in `smaller` where smaller is better)"
        )
    fitted = ask(part, "fit", after, labels, "", options)
    applied = ask(part, "apply", after, fitted, labels)
    ask(part, "details", applied, None, labels, fitted, False)
    _check_groups(task, labels, applied)
    _check_presentation(task, labels, targets, applied, fitted)


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
    numbers = np.asarray(ask(task.problem.training, "strata", targets, labels).numbers)
    some: NDArray[Any] = np.flatnonzero(numbers != numbers.max())
    return some if len(some) else np.arange(len(targets))


def _predictions(task: Task, labels: Labels, targets: Sequence[Any], outputs: Mapping[str, Tensor]) -> Predictions:
    arrays = {name: tensor.numpy() for name, tensor in outputs.items()}
    columns = ask(task.problem.evaluation, "columns", arrays, targets, labels)
    samples = [
        Sample(id=str(i), source=None, target=target, group=f"group {i // 2}") for i, target in enumerate(targets)
    ]
    return Predictions(samples=samples, columns=columns)


def _check_groups(task: Task, labels: Labels, given: Predictions) -> None:
    part = task.problem.evaluation
    if part.group is None:
        return
    members = [np.array(rows) for rows in np.array_split(np.arange(len(given)), max(2, len(given) // 2))]
    for rule in part.rules or ("",):
        columns = ask(part, "group", given, members, labels, rule)
        ask(part, "metrics", Predictions(samples=(), columns=columns), labels)


def _check_presentation(task: Task, labels: Labels, targets: Sequence[Any], given: Predictions, fitted: Any) -> None:
    part = task.problem.presentation
    cells, names = ask(part, "cells", given, labels, fitted), list(ask(part, "columns", labels))
    if list(cells) != names:
        raise part_place(task, "presentation", "cells").error(
            f"gives the columns {', '.join(cells)}, and `columns` says {', '.join(names)}"
        )
    ask(part, "worst", given, labels)
    if part.wrong is not None:
        ask(part, "wrong", given, labels)
    if part.caption is not None:
        ask(part, "caption", given.take(np.arange(1)), labels, fitted)
    ask(part, "target", targets[0], labels)
    first = {name: column[0] for name, column in cells.items()}
    ask(part, "brief", first, labels)
    ask(part, "record", first, labels)


def _check_deployment(
    task: Task, labels: Labels, targets: Sequence[Any], options: Any, taught: Mapping[str, Tensor]
) -> None:
    part, place = task.problem.deployment, part_place(task, "deployment", "graph")
    given = _predictions(task, labels, targets, taught)
    fitted = ask(task.problem.evaluation, "fit", given, labels, "", options)
    declared = ask(part, "outputs", labels, fitted)
    graph = part_within(task, "deployment", "graph", ask(part, "graph", labels, fitted).eval())
    batch = (torch.zeros(len(targets), 8, 8, 3, dtype=torch.uint8),)
    with torch.inference_mode():
        found = graph(dict(taught), batch)
        fewer = graph(trees.rows(dict(taught), slice(0, 2)), (batch[0][:2],))
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
    columns = ask(part, "columns", answers, targets, labels, fitted)
    deployed = replace(given, columns=columns)
    wanted = ask(task.problem.evaluation, "apply", given, fitted, labels)
    _expect_same_figures(task, labels, deployed, wanted)
    slack = {output.name: 0.0 for output in declared if output.measure == "spread"}
    disagreeing = ask(part, "agree", answers, answers, labels, fitted, slack)
    if disagreeing:
        raise part_place(task, "deployment", "agree").error(
            f"says that an answer doesn't agree with itself: {'; '.join(disagreeing)}"
        )


def _expect_same_figures(task: Task, labels: Labels, deployed: Predictions, wanted: Predictions) -> None:
    ours, theirs = (ask(task.problem.evaluation, "metrics", given, labels) for given in (deployed, wanted))
    for name, value in theirs.items():
        if name not in ours:
            raise part_place(task, "deployment", "columns").error(f"gives columns without the figure {name}")
        if not math.isclose(ours[name], value, rel_tol=1e-3, abs_tol=1e-3) and not (
            ours[name] != ours[name] and value != value
        ):
            raise part_place(task, "deployment", "columns").error(
                f"gives columns by which {name} is {ours[name]:.4g}, and {value:.4g} by those of the head's outputs; graph and columns must "
                "say what EvaluationPart.columns and apply say"
            )
