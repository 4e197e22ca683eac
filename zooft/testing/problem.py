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
from torch.utils.data import default_collate

from zooft.compute import trees
from zooft.contracts import Loss, Sample
from zooft.evaluation.predictions import Predictions
from zooft.hooks.guard import ask, part_place
from zooft.testing.breaches import accepted, conforming, expect
from zooft.train.loss import learnt, make_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from zooft.contracts import Labels, Task

_FEWEST = 4
_STEPS, _RATE = 200, 0.1
_LARGEST_ROW = 10_000
"""Numbers that a row of columns may hold."""
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
        wrong = ask(task.problem.training, "check", target, labels)
        expect(not wrong, f"{task.name}: target {number} is {target!r}, and its problem expects {wrong}")
    _check_strata(task, labels, targets)
    encoded = default_collate([ask(task.problem.training, "encode", target, labels) for target in targets])
    start = _outputs(task, labels, options, len(targets))
    _check_loss(task, labels, targets, options, start, encoded)
    taught = _taught(task, labels, targets, options, start, encoded)
    _check_figures(task, labels, targets, options, start, taught)
    _check_deployment(task, labels, targets, options, taught)


def _outputs(task: Task, labels: Labels, options: Any, rows: int) -> dict[str, Tensor]:
    sizes = ask(task.problem.training, "outputs", labels, options)
    expect(bool(sizes), f"{task.name}: its problem wants no outputs of the head")
    random = torch.Generator().manual_seed(0)
    return {name: torch.randn(rows, size, generator=random) for name, size in sizes.items()}


def _check_strata(task: Task, labels: Labels, targets: Sequence[Any]) -> None:
    place = part_place(task, "training", "strata")
    strata = ask(task.problem.training, "strata", targets, labels)
    if len(strata.numbers) != len(targets):
        raise place.error(f"gives {len(strata.numbers)} strata for {len(targets)} targets")
    if not all(0 <= int(number) < len(strata.names) for number in strata.numbers):
        raise place.error(f"gives numbers of strata beyond their {len(strata.names)} names")


def _check_loss(
    task: Task, labels: Labels, targets: Sequence[Any], options: Any, outputs: Mapping[str, Tensor], encoded: Any
) -> None:
    place = part_place(task, "training", "loss")
    module = make_loss(task, labels, targets, options, seed=0)
    wanting = trees.mapped(lambda tensor: tensor.clone().requires_grad_(), outputs)
    value = module(wanting, encoded)
    if not bool(torch.isfinite(value)):
        raise place.error(f"makes a loss that is {float(value)} for outputs near 0")
    value.backward()
    idle = [name.removeprefix("own.") for name, parameter in learnt(module) if parameter.grad is None]
    if idle:
        raise place.error(
            f"makes a loss that doesn't use {', '.join(idle)}; use it, or mark what is to stay fixed with requires_grad_(False)"
        )
    unused = [name for name, tensor in wanting.items() if tensor.grad is None]
    if unused:
        raise place.error(f"makes a loss that doesn't use the outputs {', '.join(unused)}")
    if not task.problem.training.coupled:
        _check_additive(task, module.eval(), outputs, encoded)


def _check_additive(task: Task, module: Any, outputs: Mapping[str, Tensor], encoded: Any) -> None:
    """Halves of a batch, of other sizes, give the loss of the whole."""
    whole = module.sums(outputs, encoded)
    if not isinstance(whole, Loss):
        return  # a mean, which halves of equal size approach and nothing more is promised of
    count = trees.length(outputs)
    cuts = [slice(0, count // 3 + 1), slice(count // 3 + 1, count)]
    parts = [module.sums(trees.rows(outputs, cut), trees.rows(encoded, cut)) for cut in cuts]
    for name in ("total", "weight"):
        found, wanted = float(sum(getattr(part, name) for part in parts)), float(getattr(whole, name))
        if not math.isclose(found, wanted, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
            raise part_place(task, "training", "loss").error(
                f"makes a loss whose {name} doesn't add up: {found:.6g} for the parts of a batch, {wanted:.6g} for the whole; give sums "
                "over the samples, or say coupled=True where it needs the whole batch"
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
            raise place.amiss(value, "a finite number", what=f"the primary metric, {part.primary}")
    some = _without_one_stratum(task, labels, targets)
    ask(part, "metrics", Predictions(samples=(), columns=after.rows(some)), labels)  # NaN is fine, an error isn't
    there = set(figures[0]) | {name.partition("/")[0] for name in figures[0]}  # mae stands for mae/age too
    for name in sorted(part.smaller - there):  # some may be those of other settings, such as of other metrics
        meant = [known for known in figures[0] if get_close_matches(name.lower(), [known.lower()])]
        if meant:
            raise part_place(task, "evaluation", "smaller").error(
                f"names a figure that isn't there, {name}; {meant[0]} may be meant"
            )
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


def _without_one_stratum(task: Task, labels: Labels, targets: Sequence[Any]) -> NDArray[Any]:
    """Rows as a small split may have them, which lacks a class."""
    numbers = np.asarray(ask(task.problem.training, "strata", targets, labels).numbers)
    some: NDArray[Any] = np.flatnonzero(numbers != numbers.max())
    return some if len(some) else np.arange(len(targets))


def _predictions(task: Task, labels: Labels, targets: Sequence[Any], outputs: Mapping[str, Tensor]) -> Predictions:
    arrays = {name: tensor.numpy() for name, tensor in outputs.items()}
    columns = ask(task.problem.evaluation, "columns", arrays, targets, labels)
    _check_columns(task, "evaluation", columns, len(targets))
    samples = [
        Sample(id=str(i), source=None, target=target, group=f"group {i // 2}") for i, target in enumerate(targets)
    ]
    return Predictions(samples=samples, columns=columns)


def _check_columns(task: Task, part: str, columns: Mapping[str, NDArray[Any]], rows: int) -> None:
    place = part_place(task, part, "columns")
    for name, column in columns.items():
        if len(column) != rows:
            raise place.error(f"gives {len(column)} rows of {name} for {rows} samples")
        if column[:1].size > _LARGEST_ROW:
            raise place.error(
                f"gives {column[:1].size:,} numbers a sample in {name}; keep rows small, since they are held for all samples at once"
            )


def _check_groups(task: Task, labels: Labels, given: Predictions) -> None:
    part = task.problem.evaluation
    if part.group is None:
        return
    members = [np.array(rows) for rows in np.array_split(np.arange(len(given)), max(2, len(given) // 2))]
    for rule in part.rules or ("",):
        columns = ask(part, "group", given, members, labels, rule)
        for name, column in columns.items():
            if len(column) != len(members):
                raise part_place(task, "evaluation", "group").error(
                    f"gives {len(column)} rows of {name} for {len(members)} groups by the rule {rule!r}"
                )
        ask(part, "metrics", Predictions(samples=(), columns=columns), labels)


def _check_presentation(task: Task, labels: Labels, targets: Sequence[Any], given: Predictions, fitted: Any) -> None:
    part = task.problem.presentation
    cells, names = ask(part, "cells", given, labels, fitted), list(ask(part, "columns", labels))
    if list(cells) != names:
        raise part_place(task, "presentation", "cells").error(
            f"gives the columns {', '.join(cells)}, and `columns` says {', '.join(names)}"
        )
    for name, column in cells.items():
        if len(column) != len(given):
            raise part_place(task, "presentation", "cells").error(
                f"gives {len(column)} cells of {name} for {len(given)} rows"
            )
    if len(ask(part, "worst", given, labels)) != len(given):
        raise part_place(task, "presentation", "worst").error(f"doesn't give one number for each of {len(given)} rows")
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
    graph = ask(part, "graph", labels, fitted).eval()
    batch = (torch.zeros(len(targets), 8, 8, 3, dtype=torch.uint8),)
    with torch.inference_mode():
        found = graph(dict(taught), batch)
        fewer = graph(trees.rows(dict(taught), slice(0, 2)), (batch[0][:2],))
    if len(found) != len(declared):
        raise place.error(f"makes a module that gives {len(found)} tensors, and `outputs` names {len(declared)}")
    for output, tensor, part_of_it in zip(declared, found, fewer, strict=True):
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind != output.dtype or tensor.ndim != len(output.axes) or len(tensor) != len(targets):
            raise place.error(
                f"gives {output.name} as {kind} {tuple(tensor.shape)}, and `outputs` says {output.dtype} {output.axes}"
            )
        if not torch.allclose(tensor[:2].double(), part_of_it.double(), atol=_TOLERANCE, rtol=_TOLERANCE):
            raise place.error(f"gives other values of {output.name} for the same samples in a smaller batch")
    answers = {output.name: tensor.numpy() for output, tensor in zip(declared, found, strict=True)}
    columns = ask(part, "columns", answers, targets, labels, fitted)
    _check_columns(task, "deployment", columns, len(targets))
    deployed = replace(given, columns=columns)
    wanted = ask(task.problem.evaluation, "apply", given, fitted, labels)
    _expect_same_figures(task, labels, deployed, wanted)
    slack = {output.name: 0.0 for output in declared if output.measure == "spread"}
    disagreeing = ask(part, "agree", answers, answers, labels, fitted, slack)
    expect(not disagreeing, f"{task.name}: an answer doesn't agree with itself: {'; '.join(map(str, disagreeing))}")


def _expect_same_figures(task: Task, labels: Labels, deployed: Predictions, wanted: Predictions) -> None:
    ours, theirs = (ask(task.problem.evaluation, "metrics", given, labels) for given in (deployed, wanted))
    for name, value in theirs.items():
        if not math.isclose(ours[name], value, rel_tol=1e-3, abs_tol=1e-3) and not (
            ours[name] != ours[name] and value != value
        ):
            raise part_place(task, "deployment", "columns").error(
                f"gives columns by which {name} is {ours[name]:.4g}, and {value:.4g} by those of the head's outputs"
            )
