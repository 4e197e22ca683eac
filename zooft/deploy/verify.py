"""Proof that the file on disk answers as the model does.

Owns the checks and their limits: on real samples read by the deployed reader, at several batch sizes, on the
provider that truly ran. Reports, never repairs.

A file has two parts that go wrong in different ways, so they are compared apart:

- its **preprocessing** with torch's, in levels. Where levels are rounded, two right implementations round some of them
  the other way: up to 0.7 % of an image's, by one level. A mean that is off by one level, a shifted or swapped image
  move them all.
- its **network** with torch's, on the input that the file's own preprocessing made. Each output defines by what it is
  measured. Of those measured by their spread among samples, two right ones differ by 1e-5 of it or less; injected
  defects (a dropped bias, a channel set to zero, half precision) by 5e-3 or more. 1e-4 stands between the two. The
  answers for people alone would have missed several of these defects.

Then the file as a whole is right, whatever a flipped level does to the numbers of samples that are nearly alike.
Where their spread is too small to compare with, as with random weights, arithmetic in float64 separates rounding from
a defect: a right file is about as far from it as torch itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import LevelDifference, OutputDifference, Verification
from zooft.deploy import differences
from zooft.deploy.differences import Answers
from zooft.deploy.metadata_check import Declaration
from zooft.deploy.precision_gate import worse
from zooft.errors import RuntimeModelError
from zooft.evaluation.predictions import Predictions
from zooft.model.weights import file_sha256

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from numpy.typing import NDArray

    from zooft.contracts import Arrays, Columns, Fitted, InputSpec, Labels, Output, Port, Problem, Sample
    from zooft.runtime import OnnxModel, Precision, Preprocessing

WHOLE = 10
"""Times: how much more such an output may differ of a file that doesn't mark where its preprocessing ends, since
rounding to whole levels moves such outputs by up to 1e-4."""
_CLEARLY = 100
"""Times its limit: what no right file moves an output measured by its spread by."""
LEVEL_LIMITS = {True: (2.01, 0.02), False: (0.1, 0.002)}
"""Largest and mean difference of levels: where they are rounded to whole ones, and where not."""
VACUOUS_SPREAD = 1e-3
LOWER = {"fp16": (0.1, 0.1), "int8": (0.5, math.inf)}
"""By precision, of networks that aren't float32: the limits of outputs that are measured by their spread, and by the
largest difference. What they are good for is decided by the problem's own figure."""
BATCH_SIZES = (2, 3, 7)
_ROUNDED = 1e-2
"""Of the largest number of a column, what rounding may move it by."""
_MUCH_LARGER = 10
"""Times: by how much the spread among generated images must exceed that among the samples to be used instead.

And how much further than torch's a right file's numbers may be from those in float64."""
_IN_FLOAT64 = 4
"""Samples, those that differ most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the file is tried on.

    Attributes:
        arrays: samples in native units, an array for each port, without the batch axis; sizes may differ.
        targets: as in `Sample.target`, or None where no figure can be computed.
        available: how many samples there were to choose from.
        data: whether they are real.
    """

    arrays: Sequence[Arrays]
    targets: Sequence[Any] | None
    available: int
    data: Literal["real", "generated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The model in torch, in its two parts, on the CPU.

    Attributes:
        prepare: a batch in native units, an array for each port, to the network's input.
        answer: the network's input and that batch to the outputs, by name.
        exact: the same computed in float64; may fail, as not every network can.
        input: what the network's input means.
        advice: what to do about a model that answers the same to everything.
        both: as `answer`, the head's outputs and the graph's, of one pass; None where these aren't compared.
    """

    prepare: Callable[..., NDArray[Any]]
    answer: Callable[[NDArray[Any], Sequence[NDArray[Any]]], Columns]
    exact: Callable[[NDArray[Any], Sequence[NDArray[Any]]], Columns]
    input: InputSpec
    advice: str = ""
    both: Callable[[NDArray[Any], Sequence[NDArray[Any]]], tuple[Columns, Columns]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """What the answers are, by the run and not by the file's own metadata.

    Attributes:
        problem: whose they are.
        labels: what they mean.
        fitted: on validation data.
        precision: of the file's network, by the file.
    """

    problem: Problem
    labels: Labels
    fitted: Fitted
    precision: Precision | None = None

    @property
    def lower(self) -> Precision | None:
        """The precision, where it isn't float32."""
        return None if self.precision is None or self.precision.name == "fp32" else self.precision

    def outputs(self, measure: str = "") -> list[Output]:
        """Of the graph, in order: those with a measure, or all; with the tolerance that fits the precision."""
        found = self.problem.deployment.outputs(self.labels, self.fitted)
        return [self._tolerant(output) for output in found if measure in ("", output.measure)]

    def _tolerant(self, output: Output) -> Output:
        if self.lower is None or output.measure not in ("spread", "absolute"):
            return output
        spread, absolute = LOWER[self.lower.name]
        return replace(output, tolerance=spread if output.measure == "spread" else absolute)

    def faults(self, torch: Columns, file: Columns, slack: Mapping[str, float]) -> tuple[str, ...]:
        """What of the answers doesn't agree by the problem's own lights.

        Of a network in lower precision, some decisions are others: its figure is compared instead, and here its own
        outputs with each other.
        """
        torch = file if self.lower is not None else torch
        return self.problem.deployment.agree(torch, file, self.labels, self.fitted, slack)

    def metrics(self, answers: Columns, targets: Sequence[Any]) -> Mapping[str, float]:
        """The problem's figures."""
        columns = self.problem.deployment.columns(differences.wide(answers), targets, self.labels, self.fitted)
        return self.problem.evaluation.metrics(Predictions(samples=(), columns=columns), self.labels)

    def foreign(self, head: Columns, answers: Columns, targets: Sequence[Any]) -> str:
        """Which columns of the graph's answers aren't those of the head's outputs, in words."""
        evaluation = self.problem.evaluation
        raw = Predictions(samples=(), columns=evaluation.columns(head, targets, self.labels))
        wanted = (evaluation.apply(raw, self.fitted, self.labels) if self.fitted else raw).columns
        found = self.problem.deployment.columns(differences.wide(answers), targets, self.labels, self.fitted)
        other = [name for name in found if name in wanted and not _same(found[name], wanted[name])]
        if not other:
            return ""
        return (
            f"the graph of the problem {self.problem.name} gives other {', '.join(other)} than the head's outputs do "
            "by EvaluationPart.columns and apply (fields DeploymentPart.graph and DeploymentPart.columns)"
        )

    @property
    def any_slack(self) -> Mapping[str, float]:
        """Where it isn't known how far the answers may be apart."""
        return {output.name: math.inf for output in self.outputs("spread")}


@dataclass(frozen=True, slots=True)
class _Spread:
    """How far an output is apart that is measured by its spread among samples.

    Attributes:
        scale: the spread.
        widest: the larger one of that among the samples and that among generated images.
        alike: whether the former is much smaller.
        whole: from native units on, over `scale`.
        network: of the networks alone.
        rounding: by levels that are rounded the other way, in torch.
    """

    scale: float
    widest: float
    alike: bool
    whole: float
    network: float
    rounding: float


@dataclass(frozen=True, slots=True)
class _Numbers:
    """All differences.

    Attributes:
        outputs: as they are recorded.
        spread: by name of an output.
        agreement: share of samples with the same exact answers.
    """

    outputs: Mapping[str, OutputDifference] = field(default_factory=dict)
    spread: Mapping[str, _Spread] = field(default_factory=dict)
    agreement: float | None = None

    @property
    def worst(self) -> _Spread:
        """Of the output whose networks are furthest apart."""
        unknown = _Spread(math.nan, math.nan, False, math.inf, math.inf, math.nan)
        return max(self.spread.values(), key=lambda one: one.network, default=unknown)


def _same(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    """Whether two columns are the same but for rounding.

    Of other than floats, of which a rounded one may tip another, only the shape.
    """
    if found.shape != wanted.shape:
        return False
    if found.dtype.kind != "f" or wanted.dtype.kind != "f":
        return True
    size = float(np.nanmax(np.abs(wanted), initial=0.0, where=np.isfinite(wanted)))
    return bool(np.allclose(found, wanted, rtol=0, atol=_ROUNDED * size + 1e-6, equal_nan=True))


def spread(samples: Sequence[Sample], most: int) -> list[int]:
    """Indices of at most `most` samples, evenly over the list."""
    if len(samples) <= most:
        return list(range(len(samples)))
    return [round(i * (len(samples) - 1) / max(1, most - 1)) for i in range(most)]


def verify(
    model: OnnxModel,
    path: Path,
    *,
    parts: Preprocessing | None,
    reference: Reference,
    material: Material,
    answering: Answering,
    requested: str,
    declaration: Declaration | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Compare an opened file with the model in torch.

    Args:
        model: the file, opened from disk.
        path: where it lies, for its SHA-256.
        parts: the file's preprocessing alone; None where the file doesn't mark which that is.
        reference: the model.
        material: what to run.
        answering: what the answers are.
        requested: the provider as set.
        declaration: what is known of the file's metadata.
        advance: called for every sample done.

    Returns:
        The record, passed or not.
    """
    declared = declaration or Declaration()
    found = _compare(_Trial(model, parts, reference, answering), material, advance=advance)
    worst = found.numbers.worst
    failures = (*declared.faults, *found.failures)
    return Verification(
        passed=not failures,
        provider=model.provider,
        requested_provider=requested,
        placement=model.placement,
        onnx_sha256=file_sha256(path),
        samples=len(material.arrays),
        available=material.available,
        batch_sizes=(1, *BATCH_SIZES),
        relative_rms=max((one.whole for one in found.numbers.spread.values()), default=worst.whole),
        agreement=found.numbers.agreement,
        metrics=found.metrics,
        failures=failures,
        notes=(*_notes(model, material), *found.notes, *declared.notes),
        data=material.data,
        preprocessing=found.levels,
        network_rms=worst.network if parts else None,
        spread=worst.scale,
        declared=declared.compared,
        outputs=found.numbers.outputs,
        figures=answering.problem.deployment.figures(found.numbers.outputs),
        precision=None if answering.lower is None else asdict(answering.lower),
    )


def differs(record: Verification) -> bool:
    """Whether numbers of the file aren't torch's, so that it makes sense to search where that begins."""
    apart = [one.whole if one.network is None else one.network for one in record.outputs.values()]
    beyond = any(not found <= one.limit for found, one in zip(apart, record.outputs.values(), strict=True))
    return beyond or not record.outputs or bool(_level_faults(record.preprocessing))


def generate_samples(ports: Sequence[Port], seed: int = 0) -> list[Arrays]:
    """Smooth random samples of several sizes, for a check where no data is at hand.

    Args:
        ports: the graph's inputs.
        seed: of the generator.
    """
    rng = np.random.default_rng(seed)
    sizes = [(224, 224), (300, 400), (257, 193), (512, 384)]
    return [tuple(_smooth(rng, port, size) for port in ports) for size in sizes]


def _smooth(rng: np.random.Generator, port: Port, size: tuple[int, int]) -> NDArray[Any]:
    """Levels for bytes, HU for wider whole numbers, sizes in mm for floats."""
    wanted = port.shape(*size)
    if port.dtype.startswith("float"):
        return rng.uniform(0.5, 1.0, wanted).astype(port.dtype)
    wide = port.dtype != "uint8"
    coarse = rng.integers(
        -1024 if wide else 0, 1024 if wide else 256, [max(1, n // 32) if n > 4 else n for n in wanted]
    )
    for axis, length in enumerate(wanted):
        coarse = np.take(coarse, np.linspace(0, coarse.shape[axis] - 1, length).astype(int), axis)
    return coarse.astype(port.dtype)


# running


@dataclass(frozen=True, slots=True)
class _Trial:
    """The file and the model, given the same."""

    model: OnnxModel
    parts: Preprocessing | None
    reference: Reference
    answering: Answering

    def input(self, batch: Sequence[NDArray[Any]], torchs: NDArray[Any]) -> NDArray[Any]:
        """The network's input as the file's preprocessing makes it; torch's, where that isn't known."""
        return torchs if self.parts is None else self.parts.run(*batch)

    def run(self, batch: Sequence[NDArray[Any]]) -> _Result:
        """All three ways at once.

        Raises:
            _Unrunnable: the file doesn't.
        """
        torchs = self.reference.prepare(*batch)
        head, ours = self._in_torch(torchs, batch)
        try:
            given = self.input(batch, torchs)
            file = self.model.run(*batch)
        except RuntimeModelError:
            raise
        except Exception as error:  # onnxruntime's errors have no common kind
            raise _Unrunnable(str(error)) from error
        level = None if self.parts is None else differences.levels(torchs, given, self.reference.input)
        fits = given.shape == torchs.shape and not np.array_equal(given, torchs)
        same = self.reference.answer(given, batch) if fits else ours
        self._refuse_others(same, file)
        return _Result(Answers(ours, same, file), [level] if level else [], [head] if head else [])

    def _in_torch(self, x: NDArray[Any], batch: Sequence[NDArray[Any]]) -> tuple[Columns | None, Columns]:
        """The head's outputs, where they are compared, and the graph's."""
        return self.reference.both(x, batch) if self.reference.both else (None, self.reference.answer(x, batch))

    def _refuse_others(self, ours: Columns, theirs: Columns) -> None:
        for name in _numeric_outputs(self.answering):
            if name not in theirs:
                raise RuntimeModelError(f"the file has no output {name}, which its run's model gives; export it again")
        for name in ours.keys() & theirs.keys():
            if ours[name].shape != theirs[name].shape:
                raise _Unrunnable(f"it gives {name} of shape {theirs[name].shape}, and torch {ours[name].shape}")


@dataclass(frozen=True, slots=True)
class _Result:
    """What came of a batch, or of several.

    Attributes:
        answers: the three ways.
        levels: how far the preprocessings are apart, of each batch.
        heads: the head's outputs in torch, of each batch; empty where they aren't compared with the graph's.
    """

    answers: Answers
    levels: Sequence[LevelDifference]
    heads: Sequence[Columns]


class _Unrunnable(Exception):  # noqa: N818 -- never leaves this module
    """The file can't be run on a batch."""


def _run_all(trial: _Trial, arrays: Sequence[Arrays], advance: Callable[[int], None]) -> _Result:
    """Every sample alone.

    Raises:
        _Unrunnable: the file doesn't run on one of them.
    """
    found = []
    for sample in arrays:
        try:
            found.append(trial.run([array[None] for array in sample]))
        except _Unrunnable as error:
            raise _Unrunnable(f"the file doesn't run on a sample of shape {sample[0].shape}: {error}") from error
        advance(1)
    return _Result(
        differences.join([one.answers for one in found]),
        [level for one in found for level in one.levels],
        [head for one in found for head in one.heads],
    )


def _on_generated(trial: _Trial, material: Material) -> _Result | None:
    """On images that differ more, and in other sizes, than a user's may; None where torch itself can't take them.

    Raises:
        _Unrunnable: as `_run_all`.
    """
    if material.data == "generated":
        return None
    arrays = generate_samples(trial.model.ports)
    try:
        for sample in arrays:
            trial.reference.prepare(*(array[None] for array in sample))
    except Exception:  # plugin code, and values that its port may not mean
        return None
    result = _run_all(trial, arrays, lambda _: None)
    return None if result.answers.not_finite(_numeric_outputs(trial.answering)) else result


def _batches(trial: _Trial, arrays: Sequence[Arrays]) -> tuple[dict[int, _Result], dict[int, str]]:
    """Several samples at once, cut to a common size: by how many, what came of it, and why nothing did."""
    found, failures = dict[int, _Result](), dict[int, str]()
    for size in BATCH_SIZES:
        batch = _common([arrays[i % len(arrays)] for i in range(size)])
        try:
            found[size] = trial.run(batch)
        except (RuntimeModelError, _Unrunnable) as error:
            failures[size] = f"the file doesn't run on a batch of {size}: {error}"
    return found, failures


def _common(samples: Sequence[Arrays]) -> list[NDArray[Any]]:
    return [_cut_and_stack(arrays) for arrays in zip(*samples, strict=True)]


def _cut_and_stack(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    least = tuple(min(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True))
    window = tuple(slice(0, size) for size in least)
    return np.stack([array[window] for array in arrays])


# evaluation


@dataclass(frozen=True, slots=True)
class _Found:
    """What the comparison has shown."""

    numbers: _Numbers
    metrics: Mapping[str, tuple[float, float]]
    levels: LevelDifference | None
    failures: Sequence[str]
    notes: Sequence[str]


def _numeric_outputs(answering: Answering) -> list[str]:
    """Outputs that are numbers."""
    return [output.name for output in answering.outputs() if output.measure not in ("exact", "own")]


def _compare(trial: _Trial, material: Material, *, advance: Callable[[int], None]) -> _Found:
    batches, unrunnable = _batches(trial, material.arrays)
    numbers, values, notes = _Numbers(), dict[str, tuple[float, float]](), list[str]()
    level = [level for one in batches.values() for level in one.levels]
    failures = list[str]()
    try:
        alone, generally = _run_all(trial, material.arrays, advance), _on_generated(trial, material)
    except _Unrunnable as error:
        failures.append(str(error))
    else:
        answers, others = alone.answers, generally.answers if generally else None
        if trial.answering.lower is not None:  # ranges of activations are those of real samples
            others = None
        level += [*alone.levels, *(generally.levels if generally else ())]
        numbers = _numbers(trial, answers, others)
        found, explained = _evaluate(trial, numbers, answers, others, material)
        failures += found
        notes += [*explained, *_about(numbers, trial.parts)]
        if material.targets is not None:
            values, moved = _metrics(trial.answering, material.targets, answers)
            failures += moved
            failures += _check_translation(trial, alone, material.targets)
    wrong_batches = [
        unrunnable.get(size) or _batch_fault(trial.answering, numbers, batches[size].answers, size)
        for size in BATCH_SIZES
    ]
    levels = differences.all_levels(level) if level else None
    wrong_levels = _level_faults(levels)
    notes += [] if wrong_levels else _describe_flips(trial, numbers, levels)
    return _Found(numbers, values, levels, [*filter(None, wrong_batches), *failures, *wrong_levels], notes)


def _check_translation(trial: _Trial, alone: _Result, targets: Sequence[Any]) -> list[str]:
    """Whether the last piece of the graph agrees with the columns that the run's figures are made of, in torch."""
    for row, head in enumerate(alone.heads):
        answers = {name: values[row : row + 1] for name, values in alone.answers.torch.items()}
        fault = trial.answering.foreign(head, answers, [targets[row]])
        if fault:
            return [fault]
    return []


def _batch_fault(answering: Answering, numbers: _Numbers, answers: Answers, size: int) -> str:
    """Whether samples answer otherwise in company, by the largest differences.

    Where no output has any, by the spread.
    """
    limits = {output.name: output.tolerance for output in answering.outputs("absolute")}
    if not limits:
        limits = _slack(numbers, answering)
    right = all(differences.largest(answers.same[name], answers.file[name]) <= limit for name, limit in limits.items())
    if right and not answering.faults(answers.same, answers.file, answering.any_slack):
        return ""
    return f"a batch of {size} gives other answers than torch"


def _slack(numbers: _Numbers, answering: Answering) -> dict[str, float]:
    """By output that is measured by its spread, what no right file moves it by."""
    return {
        output.name: _CLEARLY * numbers.outputs[output.name].limit * numbers.spread[output.name].scale
        if output.name in numbers.spread
        else math.inf
        for output in answering.outputs("spread")
    }


def _numbers(trial: _Trial, answers: Answers, others: Answers | None) -> _Numbers:
    recorded, spreads = dict[str, OutputDifference](), dict[str, _Spread]()
    exact = np.ones(len(next(iter(answers.file.values()))), dtype=bool)
    several = False
    for output in trial.answering.outputs():
        name = output.name
        if name not in answers.file or output.measure == "own":  # an older file has fewer
            continue
        ours, same, file = answers.torch[name], answers.same[name], answers.file[name]
        limit, scale = output.tolerance, None
        if output.measure == "spread":
            found = spreads[name] = _spread(answers, others, name)
            limit *= WHOLE if trial.parts is None else 1
            whole, network, scale = found.whole, found.network, found.scale
        elif output.measure == "absolute":
            whole, network = differences.largest(ours, file), differences.largest(same, file)
        else:
            agree, several = differences.same_rows(ours, file), True
            exact &= agree
            whole, network = 1 - float(agree.mean()), 1 - float(differences.same_rows(same, file).mean())
        recorded[name] = OutputDifference(
            measure=output.measure, whole=whole, network=network if trial.parts else None, limit=limit, spread=scale
        )
    return _Numbers(recorded, spreads, float(exact.mean()) if several else None)


def _spread(answers: Answers, others: Answers | None, name: str) -> _Spread:
    ours, same, file = answers.torch[name], answers.same[name], answers.file[name]
    own = differences.spread(ours)
    wide = 0.0 if others is None else differences.spread(others.torch[name])
    scale = max(own, wide / _MUCH_LARGER)
    apart = [_share(differences.rms(file, same), scale)]
    if others is not None:
        apart.append(_share(differences.rms(others.file[name], others.same[name]), max(scale, wide)))
    return _Spread(
        scale=scale,
        widest=max(own, wide),
        alike=own < wide / _MUCH_LARGER,
        whole=_share(differences.rms(file, ours), scale),
        network=max(apart) if all(number == number for number in apart) else math.inf,
        rounding=_share(differences.rms(same, ours), scale),
    )


def _share(rms: float, scale: float) -> float:
    return rms / scale if scale > 0 else math.inf


def _evaluate(
    trial: _Trial, numbers: _Numbers, answers: Answers, others: Answers | None, material: Material
) -> tuple[list[str], list[str]]:
    """What doesn't hold, and what explains a difference."""
    answering = trial.answering
    measured = _numeric_outputs(answering)
    missing = answers.not_finite(measured)
    if missing:
        return [
            f"the model itself gives {', '.join(missing)} that aren't finite, in torch: train it again, with a lower "
            "--lr"
        ], []
    failures, notes = [], []
    failures += [
        f"the file gives {name} that aren't finite"
        for name in measured
        if not differences.is_finite(answers.file[name])
    ]
    for name, found in numbers.spread.items():
        limit = numbers.outputs[name].limit
        if found.widest < VACUOUS_SPREAD:
            failures.append(_vacuous(name, found.widest, trial.reference.advice))
        if not found.network <= limit:
            explained = _by_rounding(trial, answers, others, material, name)
            notes += explained
            failures += [] if explained else [_network_fault(name, found.network, limit, trial.parts)]
    for output in answering.outputs("absolute"):
        apart = differences.largest(answers.same[output.name], answers.file[output.name])
        if not apart <= output.tolerance:
            failures.append(f"the output {output.name} differs by {apart:.2g}; the limit is {output.tolerance:g}")
    failures += answering.faults(answers.same, answers.file, _slack(numbers, answering))
    if others is not None:
        apart_too = answering.faults(others.same, others.file, answering.any_slack)
        failures += [f"on generated images, {fault}" for fault in apart_too]
    return failures, notes


def _network_fault(name: str, found: float, limit: float, parts: Preprocessing | None) -> str:
    given = "" if parts is None else ", though torch's network was given the file's own input"
    return f"the output {name} differs by {found:.1e} of its spread{given}; the limit is {limit:.0e}"


def _vacuous(name: str, found: float, advice: str) -> str:
    return (
        f"the model answers the same to everything (spread of {name} {found:.1e}), so the comparison proves nothing"
        + (f"; {advice}" if advice else "")
    )


def _level_faults(found: LevelDifference | None) -> list[str]:
    if found is None:
        return []
    largest, mean = LEVEL_LIMITS[found.whole]
    if found.largest <= largest and found.mean <= mean:
        return []
    if not math.isfinite(found.mean):
        return ["the file's preprocessing gives another shape than torch's, or values that aren't finite"]
    return [
        f"the file's preprocessing isn't torch's: levels of 0 to 255 differ by up to {found.largest:.2g} (the limit is "
        f"{math.floor(largest * 10) / 10:g}) and by {found.mean:.2g} on average (the limit is {mean:g})"
    ]


def _by_rounding(trial: _Trial, answers: Answers, others: Answers | None, material: Material, name: str) -> list[str]:
    """A sentence, where the file is as near to arithmetic in float64 as torch is, on the samples that differ most."""
    if trial.parts is None:
        return []
    apart = differences.largest_by_row(answers.same[name], answers.file[name])
    pairs = [(answers, material.arrays, int(row)) for row in np.argsort(apart)[-_IN_FLOAT64:]]
    if others is not None:
        worst = differences.largest_by_row(others.same[name], others.file[name])
        pairs.append((others, generate_samples(trial.model.ports), int(worst.argmax())))
    ours, theirs = [], []
    try:
        for which, arrays, row in pairs:
            batch = [array[None] for array in arrays[row]]
            exact = trial.reference.exact(trial.input(batch, trial.reference.prepare(*batch)), batch)[name][0]
            ours.append(np.ravel(which.same[name][row] - exact))
            theirs.append(np.ravel(which.file[name][row] - exact))
    except Exception:  # a network's own reasons not to run in float64
        return []
    noise, found = (float(np.sqrt((np.concatenate(part) ** 2).mean())) for part in (ours, theirs))
    if not found <= _MUCH_LARGER * noise:
        return []
    return [
        f"the spread of {name} is so small that rounding of float32 shows: against arithmetic in float64 the file is "
        f"off by {found:.1e}, torch itself by {noise:.1e}"
    ]


def _metrics(
    answering: Answering, targets: Sequence[Any], answers: Answers
) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Torch's and the file's, and whether they differ by more than flipped levels explain."""
    ways = (answers.torch, answers.same, answers.file)
    ours, same, theirs = (answering.metrics(way, targets) for way in ways)
    moved = [name for name in ours if not _close(float(same[name]), float(theirs[name]), len(targets))]
    faults = [f"the file's {', '.join(moved)} isn't the model's"] if moved else []
    if answering.lower is not None:
        faults = _beyond(answering, answering.lower, ours, theirs)
    return {name: (float(ours[name]), float(theirs[name])) for name in ours}, faults


def _beyond(
    answering: Answering, stated: Precision, ours: Mapping[str, float], theirs: Mapping[str, float]
) -> list[str]:
    """Whether the file in lower precision is worse than it may be, by what it states itself."""
    part = answering.problem.evaluation
    drop = worse(float(ours[part.primary]), float(theirs[part.primary]), smaller=part.primary in part.smaller)
    if not drop > stated.max_drop + 1e-12:
        return []
    return [
        f"the file's {part.primary} is {theirs[part.primary]:.4f}, the model's {ours[part.primary]:.4f}: worse by "
        f"{drop:.4f}, and its metadata states {stated.max_drop:g} at most"
    ]


def _close(ours: float, theirs: float, samples: int) -> bool:
    """Equal but for one sample in a thousand, or both undefined."""
    return (math.isnan(ours) and math.isnan(theirs)) or abs(ours - theirs) <= max(1e-3, 1.5 / max(samples, 1) ** 2)


def _describe_flips(trial: _Trial, numbers: _Numbers, level: LevelDifference | None) -> list[str]:
    moved = {
        output.name: numbers.spread[output.name].rounding
        for output in trial.answering.outputs("spread")
        if output.name in numbers.spread and numbers.spread[output.name].rounding > output.tolerance
    }
    if level is None or not (level.whole and level.differing and moved):
        return []
    far = ", ".join(f"{name} by {rounding:.1e}" for name, rounding in moved.items())
    return [
        f"{level.differing:,} of {level.values:,} levels are rounded the other way by onnxruntime, by at most "
        f"{level.largest:.0f}; in torch, too, that moves {far} of the spread"
    ]


def _about(numbers: _Numbers, parts: Preprocessing | None) -> list[str]:
    notes = [
        f"the samples are nearly alike to the model, so differences are compared with a tenth of the spread of {name} "
        f"among generated images, {found.widest:.2g}"
        for name, found in numbers.spread.items()
        if found.alike
    ]
    if parts is None:
        notes.append(
            "the file doesn't mark where its preprocessing ends (an older zooft wrote it), so only the whole was "
            "compared; export it again for a stricter check"
        )
    return notes


def _notes(model: OnnxModel, material: Material) -> list[str]:
    notes = [model.note] if model.note else []
    if model.precision.name != "fp32":
        spread, absolute = LOWER[model.precision.name]
        notes.append(
            f"its network is {model.precision.name}: outputs may differ by {spread:g} of their spread"
            + ("" if math.isinf(absolute) else f" or by {absolute:g}")
            + f", and {model.precision.primary.replace('_', ' ')} may be worse by {model.precision.max_drop:g}; "
            "its preprocessing is compared as ever, and its answers with each other"
        )
    if material.data == "generated":
        notes.append("compared on generated images only: give --data to verify on real samples")
    elif len(material.arrays) < material.available:
        notes.append(f"compared on {len(material.arrays)} of {material.available} validation samples, evenly spread")
    return notes
