"""What a task found: checked, fingerprinted and written to tables.

Owns the tables ``samples.csv`` and ``rejected.csv`` and the data's fingerprint.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from zooft.contracts import Port, Sample, unseen
from zooft.contracts.words import list_some
from zooft.errors import DataError
from zooft.hooks.guard import call_plugin, code_of, misfit_of, place_of
from zooft.storage import csv_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from zooft.contracts import Arrays, Computing, Discovery, InputSpec, Labels, Problem, Rejection, Task
    from zooft.data.split import Splits


def begin(task: Task, data: Path, options: Any) -> None:
    """Let the task prepare what it needs for a run's data.

    Raises:
        ZooftError: raised by the task itself.
        PluginError: the task failed.
    """
    call_plugin(task, "begin", data, options, doing="before reading the data")


def discover(
    task: Task, data: Path, options: Any, *, learning: bool = True, computing: Computing = unseen
) -> Discovery:
    """What the task finds.

    Args:
        task: the task that discovers.
        data: folder or manifest.
        options: the task's own.
        learning: whether there must be enough to learn from, such as two classes, none of them empty.
        computing: reports progress, by tasks that support it.

    Raises:
        ZooftError: raised by the task itself.
        DataError: no such data, or too little to train the task's problem on.
        PluginError: the task failed, or returned something invalid, such as one id twice.
    """
    if not data.exists():
        raise DataError(f"there is no data at {data}; give a folder or a manifest with --data")
    known = inspect.signature(task.discover).parameters
    extra = {name: value for name, value in (("computing", computing), ("learning", learning)) if name in known}
    found: Discovery = call_plugin(task, "discover", data, options, doing="to read the data", **extra)
    check_targets(task, found)
    _check_samples(task, found)
    if learning:
        _check_learnable(task.problem, found)
    return found


def ports(task: Task, options: Any) -> tuple[Port, ...]:
    """The deployed graph's inputs."""
    given = call_plugin(task, "port", options)
    found: tuple[Port, ...] = (given,) if isinstance(given, Port) else tuple(given)
    for port in found:
        if not _is_dtype(port.dtype):
            raise place_of(task, "port").amiss(
                port.dtype,
                "numpy's name of a type, such as uint8",
                what=f"Port.dtype of {port.name}",
                code=code_of(task, "port"),
            )
    return found


def _is_dtype(name: str) -> bool:
    try:
        return np.dtype(name).name == name
    except TypeError:
        return False


def read(task: Task, options: Any, sample: Sample) -> Arrays:
    """One sample in native units, an array for each port, without the batch axis.

    Raises:
        DataError: it can't be read any more; names the sample.
        PluginError: the task failed.
    """
    try:
        given = call_plugin(task, "read", sample.source, options, doing=f"to read {sample.id}")
    except DataError as error:
        raise DataError(f"{sample.id} was readable when the data was listed, and isn't any more: {error}") from error
    arrays = as_arrays(given, sample.id)
    _check_arrays(task, options, arrays, sample.id)
    return arrays


def _check_arrays(task: Task, options: Any, arrays: Arrays, name: str) -> None:
    """Raise PluginError where a sample doesn't match the task's ports: the exported file would refuse it."""
    wanted, place, code = ports(task, options), place_of(task, "read"), code_of(task, "read")
    if len(arrays) != len(wanted):
        what = f"the number of arrays of {name}"
        raise place.amiss(len(arrays), f"{len(wanted)}, one for each port of Task.port", what=what, code=code)
    for array, port in zip(arrays, wanted, strict=True):
        axes = port.axes[1:]  # the first one is the batch's
        fits = array.ndim == len(axes) and all(
            isinstance(axis, str) or axis == size for axis, size in zip(axes, array.shape, strict=True)
        )
        if array.dtype.name != port.dtype or not fits:
            found = f"{array.dtype.name} of shape {array.shape}"
            expected = f"{port.dtype} of shape ({', '.join(map(str, axes))}), as Task.port gives for {port.name}"
            raise place.error(f"gives in read: {name} is {found}; expected {expected}", code=code)


def as_arrays(given: NDArray[Any] | Arrays, name: str) -> Arrays:
    """What a task's `read` returned, as an array for each port.

    Args:
        given: one array, or several.
        name: of the sample.

    Raises:
        DataError: it has no pixels; a network would predict something nevertheless.
    """
    arrays = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    for array in arrays:
        if 0 in array.shape:
            raise DataError(f"{name} has no pixels (shape {array.shape}); leave it out")
    return arrays


def digest(task: Task, options: Any, sample: Sample) -> str:
    """SHA-256 of a sample's content, hexadecimal: the task's own, or of the arrays that it reads.

    Raises:
        DataError: it can't be read any more; names the sample.
        PluginError: the task failed.
    """
    if task.digest is None:
        return _arrays_sha256(read(task, options, sample))
    try:
        own: str = call_plugin(task, "digest", sample.source, options, doing=f"to read {sample.id}")
    except DataError as error:
        raise DataError(f"{sample.id} was readable when the data was listed, and isn't any more: {error}") from error
    return own


def is_unchanged(task: Task, options: Any, sample: Sample, digest: str) -> bool:
    """Whether a sample's content still has this digest; True where only reading it would show that."""
    return task.digest is None or call_plugin(task, "digest", sample.source, options) == digest


def decode_small(task: Task, spec: InputSpec, options: Any, sample: Sample) -> Arrays:
    """What random views of a sample are computed from, in the form of `read`: the task's own, or what `read` returns.

    Raises:
        DataError: it can't be read any more; names the sample.
        PluginError: the task failed.
    """
    if task.decode_small is None:
        return read(task, options, sample)
    try:
        own: Arrays = call_plugin(task, "decode_small", sample.source, spec, options, doing=f"to read {sample.id}")
    except DataError as error:
        raise DataError(f"{sample.id} was readable when the data was listed, and isn't any more: {error}") from error
    return tuple(own)


def _arrays_sha256(arrays: Arrays) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def show(task: Task, options: Any, sample: Sample) -> NDArray[Any]:
    """One sample as a picture for people, ``(H, W)`` or ``(H, W, 3)`` uint8."""
    arrays = read(task, options, sample)
    return picture(task, options, arrays if task.redact is None else call_plugin(task, "redact", arrays, options))


def picture(task: Task, options: Any, arrays: Arrays) -> NDArray[Any]:
    """Arrays that were read, as the task draws them: for comparisons, not for people, since nothing is redacted."""
    shown: NDArray[Any] = call_plugin(task, "show", arrays, options)
    return shown.squeeze()


def targets(samples: Iterable[Sample]) -> list[Any]:
    """The targets of samples, unchanged."""
    return [sample.target for sample in samples]


def by_stratum(problem: Problem, samples: Iterable[Sample], labels: Labels) -> dict[str, int]:
    """How many labelled samples each class has, or each stratum of this problem."""
    strata = problem.training.strata([s.target for s in samples if s.target is not None], labels)
    counts = np.bincount(np.asarray(strata.numbers, np.int64), minlength=len(strata.names))
    return dict(zip(strata.names, counts.tolist(), strict=False))


def about_absent(problem: Problem, samples: Iterable[Sample], labels: Labels, *, where: str) -> list[str]:
    """A warning where the evaluated samples lack some of the model's categories, which the figures don't show."""
    absent = problem.training.absent(targets(samples), labels)
    if not absent:
        return []
    return [f"warning: none of {where} is of class {list_some(absent, 8)}, so the figures don't cover it"]


def fingerprint(found: Discovery, relabel: Callable[[Any], Any] = lambda target: target) -> str:
    """SHA-256 over ids, targets and splits, in the order of the ids.

    Args:
        found: the samples.
        relabel: maps a target to the order of other labels, such as a model's.
    """
    samples = found.samples
    digest = hashlib.sha256()
    ids = [sample.id for sample in samples]
    for row in sorted(range(len(ids)), key=ids.__getitem__):
        sample = samples[row]
        digest.update(f"{sample.id}\0{relabel(sample.target)}\0{sample.split}\n".encode())
    return digest.hexdigest()


def write_samples(path: Path, splits: Splits, show: Callable[[Any], str]) -> None:
    """``samples.csv``: id, target, group, split.

    Args:
        path: of the file.
        splits: the samples of each split.
        show: a target as text.
    """
    rows = ((s.id, show(s.target), s.group or "", name) for name, members in splits.by_name().items() for s in members)
    csv_files.write(path, ("id", "target", "group", "split"), rows)


def write_rejected(path: Path, rejected: Sequence[Rejection]) -> None:
    """``rejected.csv``: id, reason."""
    csv_files.write(path, ("id", "reason"), ((rejection.id, rejection.reason) for rejection in rejected))


def check_targets(task: Task, found: Discovery, *, unlabelled: bool = False, field: str = "discover") -> None:
    """Raise PluginError where a sample isn't one or its target is of another problem, or a category is repeated.

    Args:
        task: that found them.
        found: what was found.
        unlabelled: whether samples may have no target, as those that are only to be predicted.
        field: of the task, that found them.
    """
    place, check = place_of(task, field), task.problem.training.check
    for label in found.labels:
        if len(set(label.categories)) < len(label.categories):
            raise place.amiss(label.categories, "each class once", what="classes", code=code_of(task, field))
        if label.nothing and label.nothing not in label.categories:
            raise place.amiss(
                label.nothing, "one of the classes", what="nothing of the label", code=code_of(task, field)
            )
    for sample in found.samples:
        if not isinstance(sample, Sample):
            raise place.amiss(sample, "a Sample", what="one of samples", code=code_of(task, field))
        if not _is_sound(sample) and (misfit := misfit_of(sample)) is not None:
            what = f"{misfit.where} of the sample {sample.id}"
            raise place.amiss(misfit.came, misfit.expected, what=what, code=code_of(task, field))
        if sample.target is None and unlabelled:
            continue
        expected = check(sample.target, found.labels)
        if expected:
            what = f"the target of the sample {sample.id}"
            expected = f"{expected}, or None" if unlabelled else expected
            raise place.amiss(sample.target, expected, what=what, code=code_of(task, field))


def _is_sound(sample: Sample) -> bool:
    """Whether each field is certainly of its type, in a fraction of the time that `misfit_of` takes."""
    return (
        type(sample.id) is str
        and (sample.group is None or type(sample.group) is str)
        and sample.split in (None, "train", "val", "test")
        and isinstance(sample.facts, Mapping)
        and all(type(key) is str and type(value) in (str, float, int) for key, value in sample.facts.items())
    )


def _check_samples(task: Task, found: Discovery) -> None:
    if not found.samples:
        raise DataError(f"no usable samples in the data{_because(found)}")
    # hashes first: a table of a million names takes as much memory as everything else
    hashes, counts = np.unique(np.fromiter((hash(s.id) for s in found.samples), np.int64), return_counts=True)
    if (counts > 1).any():
        alike = set(hashes[counts > 1].tolist())
        known = Counter(sample.id for sample in found.samples if hash(sample.id) in alike)
        twice = [name for name, n in known.items() if n > 1]
        if twice:
            raise place_of(task, "discover").amiss(
                twice[0],
                "an id for each sample alone",
                what=f"Sample.id of several samples ({len(twice)} such ids)",
                code=code_of(task, "discover"),
            )


def _because(found: Discovery) -> str:
    rejected = rejected_sentence(found)
    return f"; {rejected}" if rejected else ""


def _check_learnable(problem: Problem, found: Discovery) -> None:
    everything = targets(found.samples)
    empty = problem.training.absent(everything, found.labels)
    if empty:
        raise DataError(f"no usable samples of class {', '.join(empty)}{_because_of_files(found, empty)}")
    reason = problem.training.unlearnable(everything, found.labels)
    if reason:
        raise DataError(f"{reason}{_because(found)}")


def _because_of_files(found: Discovery, classes: Sequence[str]) -> str:
    """A sentence on the rejected files of these classes, where their names show the class; else on all."""
    names = set(classes)
    theirs = [each for each in found.rejected if not names.isdisjoint(each.id.split("/"))]
    if not theirs:
        return _because(found)
    number = len(theirs)
    of_it = (
        f"{number} of its files {'was' if number == 1 else 'were'}"
        if len(names) == 1
        else f"{number} of their files were"
    )
    return f"; {of_it} rejected, the first: {theirs[0].id}: {theirs[0].reason}"


def rejected_sentence(found: Discovery) -> str:
    """How many files were rejected and why: the reason of the first or of the most common kind; empty for none."""
    if not found.rejected:
        return ""
    kinds = [re.sub(r"\d[\d.,]*", "0", each.reason) for each in found.rejected]  # numbers differ between files
    counts = Counter(kinds)
    common = max(kinds, key=counts.__getitem__)
    one, number = found.rejected[kinds.index(common)], len(found.rejected)
    which = "the first" if one is found.rejected[0] else f"{counts[common]} of them like this one"
    return f"{number} {'file was' if number == 1 else 'files were'} rejected, {which}: {one.id}: {one.reason}"
