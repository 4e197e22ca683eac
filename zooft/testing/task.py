"""A task, tried on a folder of its data."""

from __future__ import annotations

import ast
import hashlib
import io
import math
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import torch

from zooft.contracts import InputSpec, Row, Sample, Source, View
from zooft.data import samples
from zooft.errors import ZooftError
from zooft.hooks.guard import call_plugin, place_of, within
from zooft.testing.breaches import accept, expect, report_breaches
from zooft.testing.problem import check_problem, default_head

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from zooft.contracts import Head, Task

_MOST_READ = 100
_MOST_AT_ONCE = 8
"""Samples that threads read at once, each of them by several."""
_THREADS = 4
_MOST_PLACED = 8
"""Samples whose targets have places in the image, each of which is read and answered at its own size."""


@report_breaches()
def check_task(task: Task, data: Path, options: Any = None, *, heads: Sequence[Head] = ()) -> None:
    """Discovery and reading are deterministic and fit the port; preprocessing and problem give what is promised.

    Args:
        task: what the plugin registers.
        data: a folder with at least one sample of each class.
        options: the task's own; None for its defaults.
        heads: the plugin's own, where the task names one by default and the plugin isn't installed.
    """
    task = accept(task)
    options = task.options() if options is None else options
    found = samples.discover(task, data, options, learning=False)
    expect(
        found == samples.discover(task, data, options, learning=False),
        f"{task.name}: discovering twice gives two different answers",
    )
    _check_default_head(task, options, heads)
    _check_reader(task, options)
    call_plugin(task, "report", found.samples, options)
    for sample in found.samples[:: math.ceil(len(found.samples) / _MOST_READ)]:
        samples.read(task, options, sample)  # refuses arrays that aren't as the ports define
    _check_reading(task, found.samples[0], options)
    _check_threads(task, found.samples[:: math.ceil(len(found.samples) / _MOST_AT_ONCE)], options)
    if task.of_row is not None:
        _check_row(task, options)
    if task.problem.training.move is None:
        return check_problem(task, found.labels, samples.targets(found.samples), options, heads=heads)
    few = found.samples[:: math.ceil(len(found.samples) / _MOST_PLACED)]
    arrays = [samples.read(task, options, sample) for sample in few]
    return check_problem(task, found.labels, samples.targets(few), options, arrays=arrays, heads=heads)


def _check_default_head(task: Task, options: Any, heads: Sequence[Head]) -> None:
    head, bag = default_head(task, options, heads), call_plugin(task, "bag", options)
    name = call_plugin(task, "head", options)
    if (head.reads == "bag") != bag:
        raise place_of(task, "head").error(f"names {name}, which reads a {head.reads}; its own bag is {bag}")
    gives = task.problem.training.gives
    if head.gives != gives:
        raise place_of(task, "head").error(f"names {name}, which gives a {head.gives}; its problem needs a {gives}")


def _check_reader(task: Task, options: Any) -> None:
    source = call_plugin(task, "reader", options)
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
    channels = call_plugin(task, "channels", options)
    spec = InputSpec(height=32, width=32, resize=36, mean=(0.5,) * channels, std=(0.5,) * channels)
    preprocess = within(task, "preprocess", call_plugin(task, "preprocess", spec, options))
    x = preprocess(*(torch.from_numpy(array)[None] for array in arrays))
    wanted = (1, len(arrays[0]), channels, 32, 32) if call_plugin(task, "bag", options) else (1, channels, 32, 32)
    expect(
        tuple(x.shape) == wanted and x.dtype == torch.float32,
        f"{task.name}: preprocessing gives {x.dtype} {tuple(x.shape)}, expected float32 {wanted}",
    )
    view = call_plugin(task, "augment", spec, options)
    if view is not None:
        made = within(task, "augment", view)(*samples.decode_small(task, spec, options, sample))
        seen = made.image if isinstance(made, View) else made
        expect(
            tuple(seen.shape) == wanted[1:], f"{task.name}: augment gives {tuple(seen.shape)}, expected {wanted[1:]}"
        )
    call_plugin(task, "explain", spec, options)
    picture = samples.show(task, options, sample)
    expect(
        picture.dtype == np.uint8 and picture.ndim in (2, 3),
        f"{task.name}: shows {picture.dtype} {picture.shape}, expected a uint8 picture",
    )


def _check_threads(task: Task, some: Sequence[Sample], options: Any) -> None:
    """The same arrays in several threads at once, as `zooft predict` reads, as one after the other."""
    place = place_of(task, "read")

    def read(sample: Sample) -> str:
        try:
            return _sha256(samples.read(task, options, sample))
        except ZooftError as error:
            raise place.error(f"fails on {sample.id} where threads read at once: {error}") from error

    alone = [_sha256(samples.read(task, options, sample)) for sample in some]
    # other samples at once, then the same one at once
    order = [*range(len(some))] * _THREADS + [number for number in range(len(some)) for _ in range(_THREADS)]
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        # readers change the process's filters and put them back, each in its thread: what they put back is this
        warnings.simplefilter("ignore")
        together = list(pool.map(lambda number: read(some[number]), order))
    for number, found in zip(order, together, strict=True):
        if found != alone[number]:
            raise place.error(f"gives other arrays of {some[number].id} where threads read at once; expected the same")


def _sha256(arrays: Sequence[Any]) -> str:
    """Of volumes, several don't fit into memory."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _content(image: bytes) -> bytes:
    """Of a data source whose rows hold their own content."""
    return image


def _check_row(task: Task, options: Any) -> None:
    """A row of a data source is read, here and as another process would be sent it."""
    place = place_of(task, "of_row")
    file = io.BytesIO()
    PIL.Image.fromarray(np.arange(40 * 48 * 3, dtype=np.uint8).reshape(40, 48, 3)).save(file, "PNG")
    source = Source(
        name="rows",
        summary="",
        recognises=lambda _path: False,
        columns=lambda _path: [],
        rows=lambda _path, _wanted: iter(()),
        content=_content,
    )
    sample: Sample = call_plugin(task, "of_row", source, Row(id="rows/7", content=file.getvalue()), options)
    if sample.id != "rows/7" or sample.target is not None:
        raise place.error(
            f"makes {sample.id!r} with the target {sample.target!r} of the row 'rows/7'; expected its id, and no target"
        )
    try:
        sent = pickle.loads(pickle.dumps(sample))  # noqa: S301 -- made in this line
    except Exception as error:  # a lambda, an open file: pickle fails in many ways
        raise place.error(f"gives a sample that can't be sent to another process: {error}") from error
    try:
        here, there = samples.read(task, options, sample), samples.read(task, options, sent)
    except ZooftError as error:
        raise place.error(f"gives a sample that can't be read: {error}") from error
    if not all(map(np.array_equal, here, there)):
        raise place.error("gives a sample that is read otherwise in another process; expected the same")
