"""A task, tried on a folder of its data."""

from __future__ import annotations

import ast
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zooft.contracts import InputSpec
from zooft.data import samples
from zooft.errors import UnknownNameError
from zooft.hooks import registry
from zooft.hooks.guard import ask, place_of, within
from zooft.testing.breaches import accepted, conforming, expect
from zooft.train.loss import learnt, make_loss

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from zooft.contracts import Discovery, Head, Sample, Task

_MOST_READ = 100


@conforming()
def check_task(task: Task, data: Path, options: Any = None, *, heads: Sequence[Head] = ()) -> None:
    """Discovery and reading are deterministic and fit the port; preprocessing, loss and metrics give what is promised.

    Args:
        task: what the plugin registers.
        data: a folder with at least one sample of each class.
        options: the task's own; None for its defaults.
        heads: the plugin's own, where the task names one by default and the plugin isn't installed.
    """
    task = accepted(task)
    options = task.options() if options is None else options
    found = samples.discover(task, data, options, learning=False)
    expect(
        found == samples.discover(task, data, options, learning=False),
        f"{task.name}: discovering twice gives two different answers",
    )
    targets = np.array([sample.target for sample in found.samples])
    _check_default_head(task, options, heads)
    _check_reader(task, options)
    ask(task, "operating_point", options)
    ask(task, "report", found.samples, options)
    for sample in found.samples[:: math.ceil(len(found.samples) / _MOST_READ)]:
        samples.read(task, options, sample)  # refuses arrays that aren't as the ports say
    _check_reading(task, found.samples[0], options)
    _check_metrics(task, targets, len(found.classes))
    _check_loss(task, found, options)


def _check_default_head(task: Task, options: Any, heads: Sequence[Head]) -> None:
    name, bag = ask(task, "head", options), ask(task, "bag", options)
    own = [head for head in heads if head.name == name.rpartition("/")[2]]
    try:
        head = own[0] if own else registry.load().head(name)
    except UnknownNameError as error:
        raise place_of(task, "head").error(f"names a head that isn't registered: {error}") from error
    if head.bag != bag:
        raise place_of(task, "head").error(f"names {name}, whose bag is {head.bag}; its own bag is {bag}")


def _check_reader(task: Task, options: Any) -> None:
    source = ask(task, "reader", options)
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise place_of(task, "reader").error(f"gives a source that isn't Python: {error}") from error
    named = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if source.strip() and "read" not in named:
        raise place_of(task, "reader").error("gives a source without a function read(path)")


def _check_reading(task: Task, sample: Sample, options: Any) -> None:
    arrays, again = samples.read(task, options, sample), samples.read(task, options, sample)
    expect(all(map(np.array_equal, arrays, again)), f"{task.name}: reading isn't deterministic")
    if task.digest is not None:
        digest = samples.digest(task, options, sample)
        expect(digest == samples.digest(task, options, sample), f"{task.name}: a sample's digest isn't the same twice")
    channels = ask(task, "channels", options)
    spec = InputSpec(height=32, width=32, resize=36, mean=(0.5,) * channels, std=(0.5,) * channels)
    preprocess = within(task, "preprocess", ask(task, "preprocess", spec, options))
    x = preprocess(*(torch.from_numpy(array)[None] for array in arrays))
    wanted = (1, len(arrays[0]), channels, 32, 32) if ask(task, "bag", options) else (1, channels, 32, 32)
    expect(
        tuple(x.shape) == wanted and x.dtype == torch.float32,
        f"{task.name}: preprocessing gives {x.dtype} {tuple(x.shape)}, expected float32 {wanted}",
    )
    view = ask(task, "augment", spec, options)
    if view is not None:
        seen = within(task, "augment", view)(*samples.sketch(task, spec, options, sample))
        expect(
            tuple(seen.shape) == wanted[1:], f"{task.name}: augment gives {tuple(seen.shape)}, expected {wanted[1:]}"
        )
    ask(task, "explain", spec, options)
    picture = samples.show(task, options, sample)
    expect(
        picture.dtype == np.uint8 and picture.ndim in (2, 3),
        f"{task.name}: shows {picture.dtype} {picture.shape}, expected a uint8 picture",
    )


def _check_metrics(task: Task, targets: NDArray[Any], classes: int) -> None:
    """The same names for answers of any kind; the primary one is a number, and larger for better answers."""
    place, rng = place_of(task, "metrics"), np.random.default_rng(0)
    targets = np.concatenate([targets, np.arange(classes).repeat(2)])
    right = np.full((len(targets), classes), 0.1 / max(1, classes - 1))
    right[np.arange(len(targets)), targets] = 0.9
    answers = {
        "right": right, "wrong": np.roll(right, 1, axis=1), "even": np.full((len(targets), classes), 1 / classes),
        "random": rng.dirichlet(np.ones(classes), len(targets)),
    }  # fmt: skip
    values = {name: ask(task, "metrics", targets, probabilities) for name, probabilities in answers.items()}
    for name, given in values.items():
        if set(given) != set(values["right"]):
            raise place.error(
                f"gives {', '.join(given)} for {name} answers and {', '.join(values['right'])} for right ones"
            )
        if not math.isfinite(given[task.primary]):
            raise place.amiss(
                given[task.primary], "a finite number", what=f"the primary metric, {task.primary}, of {name} answers"
            )
    best, worst = (float(values[name][task.primary]) for name in ("right", "wrong"))
    if classes > 1 and not best > worst:
        raise place.error(
            f"gives {best:.4g} as {task.primary} for right answers and {worst:.4g} for wrong ones; the primary metric must be larger "
            "for better ones, since it chooses the best epoch"
        )
    some = targets != classes - 1  # as a small split may lack a class; figures may then be undefined
    ask(task, "metrics", targets[some], right[some])


def _check_loss(task: Task, found: Discovery, options: Any) -> None:
    targets = [int(sample.target) for sample in found.samples]
    logits = torch.zeros(len(targets), len(found.classes), requires_grad=True)
    module = make_loss(task, targets, options, seed=0)
    loss = module(logits, torch.tensor(targets))
    expect(bool(torch.isfinite(loss)), f"{task.name}: its loss isn't finite")
    loss.backward()
    idle = [name.removeprefix("own.") for name, parameter in learnt(module) if parameter.grad is None]
    if idle:
        raise place_of(task, "loss").error(
            f"makes a loss that doesn't use {', '.join(idle)}; use it, or mark what is to stay fixed with requires_grad_(False)"
        )
