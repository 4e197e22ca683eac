"""Proof that the file on disk answers as the model does.

Owns the checks and their limits: on real samples read by the deployed reader, at several batch sizes, on the
provider that truly ran. Reports, never repairs.

A file has two parts that go wrong in different ways, so they are compared apart:

- its **preprocessing** with torch's, in levels. Where levels are rounded, two right implementations round some of them
  the other way: up to 0.7 % of an image's, by one level. A mean that is off by one level, a shifted or swapped image
  move them all.
- its **network** with torch's, on the input that the file's own preprocessing made. Two right ones differ by 1e-5 of the
  logits' spread or less; injected defects (a dropped bias, a channel set to zero, half precision) by 5e-3 or more.
  1e-4 stands between the two. The best class alone would have missed several of these defects.

Then the file as a whole is right, whatever a flipped level does to the logits of samples that are nearly alike.
Where the logits' spread is too small to judge by, as with random weights, arithmetic in float64 tells rounding from
a defect: a right file is about as far from it as torch itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import LevelDifference, Verification
from zooft.deploy import differences
from zooft.deploy.declared import Declaration
from zooft.deploy.differences import Answers
from zooft.errors import RuntimeModelError
from zooft.model.weights import file_sha256

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from numpy.typing import NDArray

    from zooft.contracts import Arrays, InputSpec, Port, Sample
    from zooft.runtime import OnnxModel, Preprocessing

    Metrics = Callable[[NDArray[Any], NDArray[Any]], Mapping[str, float]]

NETWORK_LIMIT = 1e-4
"""Of the logits' spread."""
WHOLE_LIMIT = 1e-3
"""The same, of a file that doesn't say where its preprocessing ends: rounding to whole levels moves logits by up to 1e-4."""
LEVEL_LIMITS = {True: (2.01, 0.02), False: (0.1, 0.002)}
"""Largest and mean difference of levels: where they are rounded to whole ones, and where not."""
VACUOUS_SPREAD = 1e-3
BATCH_SIZES = (2, 3, 7)
_MUCH_LARGER = 10
"""Times: by how much the spread among generated images must exceed that among the samples to be judged by instead; and how much
further than torch's a right file's logits may be from those in float64."""
_IN_FLOAT64 = 4
"""Samples, those that differ most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the file is tried on.

    Attributes:
        arrays: samples in native units, an array for each port, without the batch axis; sizes may differ.
        targets: class indices, or None where no metric can be told.
        available: how many samples there were to choose from.
        data: whether they are real.
    """

    arrays: Sequence[Arrays]
    targets: NDArray[Any] | None
    available: int
    data: Literal["real", "generated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The model in torch, in its two parts, on the CPU.

    Attributes:
        prepare: a batch in native units, an array for each port, to the network's input.
        answer: the network's input to (probabilities, logits).
        exact: the network's input to logits computed in float64; may fail, as not every network can.
        input: what the network's input means.
        advice: what to do about a model that answers the same to everything.
    """

    prepare: Callable[..., NDArray[Any]]
    answer: Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]
    exact: Callable[[NDArray[Any]], NDArray[Any]]
    input: InputSpec
    advice: str = ""


@dataclass(frozen=True, slots=True)
class _Numbers:
    spread: float
    widest: float
    alike: bool
    whole: float
    network: float
    rounding: float
    difference: float
    agreement: float


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
    metrics: Metrics,
    requested: str,
    declaration: Declaration | None = None,
    probability_limit: float = 1e-2,
    advance: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Compare an opened file with the model in torch.

    Args:
        model: the file, opened from disk.
        path: where it lies, for its SHA-256.
        parts: the file's preprocessing alone; None where the file doesn't say which that is.
        reference: the model.
        material: what to run.
        metrics: the task's.
        requested: the provider as asked for.
        declaration: what is known of the file's metadata.
        probability_limit: the largest difference of a probability that is let pass, from the same network input.
        advance: told of every sample done.

    Returns:
        The record, passed or not.
    """
    declared = declaration or Declaration()
    found = _compared(_Trial(model, parts, reference), material, metrics, limit=probability_limit, advance=advance)
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
        max_probability_difference=found.numbers.difference,
        relative_rms=found.numbers.whole,
        top1_agreement=found.numbers.agreement,
        metrics=found.metrics,
        failures=failures,
        notes=(*_notes(model, material), *found.notes, *declared.notes),
        data=material.data,
        preprocessing=found.levels,
        network_rms=found.numbers.network if parts else None,
        spread=found.numbers.spread,
        declared=declared.compared,
    )


def generated(ports: Sequence[Port], seed: int = 0) -> list[Arrays]:
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


# asking


@dataclass(frozen=True, slots=True)
class _Trial:
    """The file and the model, asked the same."""

    model: OnnxModel
    parts: Preprocessing | None
    reference: Reference

    def input(self, batch: Sequence[NDArray[Any]], torchs: NDArray[Any]) -> NDArray[Any]:
        """The network's input as the file's preprocessing makes it; torch's, where that can't be told."""
        return torchs if self.parts is None else self.parts.run(*batch)

    def ask(self, batch: Sequence[NDArray[Any]]) -> _Asked:
        """All three ways at once.

        Raises:
            _Unrunnable: the file doesn't.
        """
        torchs = self.reference.prepare(*batch)
        ours = self.reference.answer(torchs)
        try:
            given = self.input(batch, torchs)
            *file, said = self.model.outputs(*batch)
        except RuntimeModelError:
            raise
        except Exception as error:  # onnxruntime's errors have no common kind
            raise _Unrunnable(str(error)) from error
        level = None if self.parts is None else differences.levels(torchs, given, self.reference.input)
        fits = given.shape == torchs.shape and not np.array_equal(given, torchs)
        answers = Answers(ours, self.reference.answer(given) if fits else ours, (file[0], file[1]))
        decided = said is None or np.array_equal(said, self.model.decide(file[0]))
        return _Asked(answers, [level] if level else [], 0 if decided else 1)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What came of a batch, or of several.

    Attributes:
        answers: the three ways.
        levels: how far the preprocessings are apart, of each batch.
        undecided: batches whose output ``prediction`` isn't the class that probabilities and threshold give.
    """

    answers: Answers
    levels: Sequence[LevelDifference]
    undecided: int


class _Unrunnable(Exception):  # noqa: N818 -- never leaves this module
    """The file can't be run on a batch."""


def _ask_all(trial: _Trial, arrays: Sequence[Arrays], advance: Callable[[int], None]) -> _Asked:
    """Every sample alone.

    Raises:
        _Unrunnable: the file doesn't run on one of them.
    """
    found = []
    for sample in arrays:
        try:
            found.append(trial.ask([array[None] for array in sample]))
        except _Unrunnable as error:
            raise _Unrunnable(f"the file doesn't run on a sample of shape {sample[0].shape}: {error}") from error
        advance(1)
    return _Asked(
        differences.joined([one.answers for one in found]),
        [level for one in found for level in one.levels],
        sum(one.undecided for one in found),
    )


def _on_generated(trial: _Trial, material: Material) -> _Asked | None:
    """On images that differ more, and in other sizes, than a user's may; None where torch itself can't take them.

    Raises:
        _Unrunnable: as `_ask_all`.
    """
    if material.data == "generated":
        return None
    arrays = generated(trial.model.ports)
    try:
        for sample in arrays:
            trial.reference.prepare(*(array[None] for array in sample))
    except Exception:  # plugin code, and values that its port may not mean
        return None
    asked = _ask_all(trial, arrays, lambda _: None)
    return asked if asked.answers.finite.all() else None


def _batches(trial: _Trial, arrays: Sequence[Arrays], limit: float) -> tuple[list[str], list[LevelDifference]]:
    """Several samples at once, cut to a common size."""
    failures, found = list[str](), list[LevelDifference]()
    for size in BATCH_SIZES:
        batch = _common([arrays[i % len(arrays)] for i in range(size)])
        try:
            asked = trial.ask(batch)
        except (RuntimeModelError, _Unrunnable) as error:
            failures.append(f"the file doesn't run on a batch of {size}: {error}")
            continue
        found += asked.levels
        got, wanted = asked.answers.file[0], asked.answers.same[0]
        if asked.undecided or got.shape != wanted.shape or not np.allclose(got, wanted, rtol=0, atol=limit):
            failures.append(f"a batch of {size} gives other answers than torch")
    return failures, found


def _common(samples: Sequence[Arrays]) -> list[NDArray[Any]]:
    return [_cut_and_stacked(arrays) for arrays in zip(*samples, strict=True)]


def _cut_and_stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    least = tuple(min(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True))
    window = tuple(slice(0, size) for size in least)
    return np.stack([array[window] for array in arrays])


# judging


@dataclass(frozen=True, slots=True)
class _Found:
    """What the comparison has shown."""

    numbers: _Numbers
    metrics: Mapping[str, tuple[float, float]]
    levels: LevelDifference | None
    failures: Sequence[str]
    notes: Sequence[str]


_UNKNOWN = _Numbers(math.nan, math.nan, False, math.inf, math.inf, math.nan, math.inf, 0.0)
"""Of a file that doesn't run."""


def _compared(
    trial: _Trial, material: Material, metrics: Metrics, *, limit: float, advance: Callable[[int], None]
) -> _Found:
    failures, level = _batches(trial, material.arrays, limit)
    numbers, values, notes = _UNKNOWN, dict[str, tuple[float, float]](), list[str]()
    try:
        asked, generally = _ask_all(trial, material.arrays, advance), _on_generated(trial, material)
    except _Unrunnable as error:
        failures.append(str(error))
    else:
        answers, others = asked.answers, generally.answers if generally else None
        level += [*asked.levels, *(generally.levels if generally else ())]
        numbers = _numbers(answers, others)
        said, explained = _judge(trial, numbers, answers, others, material, limit=limit)
        failures += [*_undecided(asked, generally), *said]
        notes += [*explained, *_about(numbers, trial.parts)]
        if material.targets is not None:
            values, moved = _metrics(metrics, material.targets, answers)
            failures += moved
    levels = differences.all_levels(level) if level else None
    wrong_levels = _level_faults(levels)
    notes += [] if wrong_levels else _flipped(numbers, levels)
    return _Found(numbers, values, levels, [*failures, *wrong_levels], notes)


def _numbers(answers: Answers, others: Answers | None) -> _Numbers:
    own = differences.spread(answers.torch[1])
    wide = 0.0 if others is None else differences.spread(others.torch[1])
    scale = max(own, wide / _MUCH_LARGER)
    apart = [_share(differences.rms(answers.file[1], answers.same[1]), scale)]
    if others is not None:
        apart.append(_share(differences.rms(others.file[1], others.same[1]), max(scale, wide)))
    agree = answers.file[0].argmax(1) == answers.torch[0].argmax(1)
    return _Numbers(
        spread=scale,
        widest=max(own, wide),
        alike=own < wide / _MUCH_LARGER,
        whole=_share(differences.rms(answers.file[1], answers.torch[1]), scale),
        network=max(apart) if all(number == number for number in apart) else math.inf,
        rounding=_share(differences.rms(answers.same[1], answers.torch[1]), scale),
        difference=float(np.abs(answers.file[0] - answers.torch[0]).max()),
        agreement=float(agree.mean()),
    )


def _share(rms: float, scale: float) -> float:
    return rms / scale if scale > 0 else math.inf


def _judge(
    trial: _Trial, numbers: _Numbers, answers: Answers, others: Answers | None, material: Material, *, limit: float
) -> tuple[list[str], list[str]]:
    """What doesn't hold, and what explains a difference."""
    if not answers.finite.all():
        return ["the model itself gives logits that aren't finite, in torch: train it again, with a lower --lr"], []
    failures, notes = [], []
    if not np.isfinite(answers.file[0]).all():
        failures.append("the file gives probabilities that aren't finite")
    if numbers.widest < VACUOUS_SPREAD:
        failures.append(_vacuous(numbers.widest, trial.reference.advice))
    bound = WHOLE_LIMIT if trial.parts is None else NETWORK_LIMIT
    if not numbers.network <= bound:
        explained = _by_rounding(trial, answers, others, material)
        notes += explained
        failures += [] if explained else [_network_fault(numbers.network, bound, trial.parts)]
    apart = float(np.abs(answers.file[0] - answers.same[0]).max())
    if not apart <= limit:
        failures.append(f"a probability differs by {apart:.2g}; the limit is {limit:g}")
    flipped = _clear_flips(answers, 100 * bound * numbers.spread)
    if flipped:
        failures.append(f"{flipped} samples get another best class, though torch's choice is clear")
    return failures, notes


def _network_fault(found: float, bound: float, parts: Preprocessing | None) -> str:
    given = "" if parts is None else ", though torch's network was given the file's own input"
    return f"the logits differ by {found:.1e} of their spread{given}; the limit is {bound:.0e}"


def _vacuous(found: float, advice: str) -> str:
    return (
        f"the model answers the same to everything (logits' spread {found:.1e}), so the comparison proves nothing"
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


def _by_rounding(trial: _Trial, answers: Answers, others: Answers | None, material: Material) -> list[str]:
    """A sentence, where the file is as near to arithmetic in float64 as torch is, on the samples that differ most."""
    if trial.parts is None:
        return []
    apart = np.abs(answers.file[1] - answers.same[1]).max(1)
    pairs = [(answers, material.arrays, int(row)) for row in np.argsort(apart)[-_IN_FLOAT64:]]
    if others is not None:
        worst = np.abs(others.file[1] - others.same[1]).max(1)
        pairs.append((others, generated(trial.model.ports), int(worst.argmax())))
    ours, theirs = [], []
    try:
        for which, arrays, row in pairs:
            batch = [array[None] for array in arrays[row]]
            exact = trial.reference.exact(trial.input(batch, trial.reference.prepare(*batch)))[0]
            ours.append(which.same[1][row] - exact)
            theirs.append(which.file[1][row] - exact)
    except Exception:  # a network's own reasons not to run in float64
        return []
    noise, found = (float(np.sqrt((np.concatenate(part) ** 2).mean())) for part in (ours, theirs))
    if not found <= _MUCH_LARGER * noise:
        return []
    return [
        f"the logits' spread is so small that rounding of float32 shows: against arithmetic in float64 the file is off by {found:.1e}, "
        f"torch itself by {noise:.1e}"
    ]


def _clear_flips(answers: Answers, margin: float) -> int:
    """Samples whose best class changed although it led by more than a right file can move it."""
    ordered = np.sort(answers.same[1], 1)
    clear = ordered[:, -1] - ordered[:, -2] > margin
    return int((clear & (answers.file[1].argmax(1) != answers.same[1].argmax(1))).sum())


def _metrics(
    metrics: Metrics, targets: NDArray[Any], answers: Answers
) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Torch's and the file's, and whether they differ by more than flipped levels explain."""
    ours, same, theirs = (metrics(targets, pair[0]) for pair in (answers.torch, answers.same, answers.file))
    moved = [name for name in ours if not _close(float(same[name]), float(theirs[name]), len(targets))]
    said = [f"the file's {', '.join(moved)} isn't the model's"] if moved else []
    return {name: (float(ours[name]), float(theirs[name])) for name in ours}, said


def _close(ours: float, theirs: float, samples: int) -> bool:
    """Equal but for one sample in a thousand, or both undefined."""
    return (math.isnan(ours) and math.isnan(theirs)) or abs(ours - theirs) <= max(1e-3, 1.5 / max(samples, 1) ** 2)


def _undecided(*asked: _Asked | None) -> list[str]:
    number = sum(one.undecided for one in asked if one is not None)
    return (
        [f"of {number} samples the output prediction isn't the class that probabilities and threshold give"]
        if number
        else []
    )


def _flipped(numbers: _Numbers, level: LevelDifference | None) -> list[str]:
    if level is None or not (level.whole and level.differing and numbers.rounding > NETWORK_LIMIT):
        return []
    return [
        f"{level.differing:,} of {level.values:,} levels are rounded the other way by onnxruntime, by at most {level.largest:.0f}; "
        f"in torch, too, that moves the logits by {numbers.rounding:.1e} of their spread"
    ]


def _about(numbers: _Numbers, parts: Preprocessing | None) -> list[str]:
    notes = []
    if numbers.alike:
        notes.append(
            f"the samples are nearly alike to the model, so differences are judged by a tenth of the logits' spread among generated "
            f"images, {numbers.widest:.2g}"
        )
    if parts is None:
        notes.append(
            "the file doesn't say where its preprocessing ends (an older zooft wrote it), so only the whole was compared; "
            "export it again for a stricter check"
        )
    return notes


def _notes(model: OnnxModel, material: Material) -> list[str]:
    notes = [model.note] if model.note else []
    if material.data == "generated":
        notes.append("compared on generated images only: give --data to verify on real samples")
    elif len(material.arrays) < material.available:
        notes.append(f"compared on {len(material.arrays)} of {material.available} validation samples, evenly spread")
    return notes
