"""A verified file in lower precision, made from a run's verified float32 file, or none.

Owns the order of things: ranges on training samples, a network in 8 bits, the gate on validation samples, and layers
that go back to float32 one after the other, the worst first, until it holds (as NNCF's accuracy control does).
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft import runtime
from zooft.contracts import Computing, unseen
from zooft.data import samples as sample_tables
from zooft.deploy import benchmark, precision_gate, quantize, rounding, saved
from zooft.deploy import network as networks
from zooft.errors import DataError, ExportError, VerificationError
from zooft.model.weights import file_sha256
from zooft.run import folder as runs
from zooft.runtime.metadata import KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx

    from zooft.contracts import Sample, Verification
    from zooft.deploy.precision_gate import Drop
    from zooft.deploy.saved import SavedRun
    from zooft.evaluation.predictions import Predictions
    from zooft.runtime import Precision

FEWEST = 8
"""Training samples below which ranges of activations mean nothing."""
_FEW = 32
_TRIED = 16
"""Of the calibration's samples: those on which errors of layers are measured."""
_SECONDS = 4.0
"""Of measuring which operators and layers take less time in float32."""
_WITHOUT = ("", " without the first layer", " without the first two layers", " without the first three layers")
_WORTH = 1.02
"""Times the least time up to which more of them are quantised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a file in lower precision is made.

    Attributes:
        name: ``fp16`` or ``int8``.
        max_drop: by how much the primary figure may be worse.
        calibration: training samples at most.
        resamples: of the bootstrap.
        seed: of it, and of the choice of samples.
        provider: that runs the files.
    """

    name: str
    max_drop: float = 0.01
    calibration: int = 128
    resamples: int = 1000
    seed: int = 0
    provider: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """A file in lower precision that the gate let through, not yet verified.

    Attributes:
        path: of the file.
        precision: what it states.
        drop: by how much it is worse than the float32 file.
    """

    path: Path
    precision: Precision
    drop: Drop


def usable_source(folder: Path) -> bool:
    """Whether a run's ``model.onnx`` can be lowered: verified, unchanged, and marked by this version."""
    path, record = folder / runs.ONNX_FILE, folder / runs.VERIFICATION_FILE
    try:
        about = json.loads(record.read_text(encoding="utf-8"))
        passed = bool(about["passed"]) and about["onnx_sha256"] == file_sha256(path)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return passed and networks.is_marked(runtime.parse_file(path))


def calibration_samples(samples: Sequence[Sample], *, most: int, seed: int) -> tuple[list[Sample], tuple[str, ...]]:
    """A random choice of training samples, of each class equally many as far as there are, and notes.

    Args:
        samples: the run's training samples.
        most: samples at most.
        seed: of the choice.

    Raises:
        DataError: too few, or of one class alone.
    """
    if len(samples) < FEWEST:
        raise DataError(
            f"there are {len(samples)} training samples to calibrate 8-bit activations on, and fewer than {FEWEST} "
            "say nothing of their ranges; give more with --data, or use --precision fp16, which needs none"
        )
    rng = np.random.default_rng(seed)
    order = [int(place) for place in rng.permutation(len(samples))]
    by_class: dict[Any, list[int]] = {}
    for place in order:
        target = samples[place].target
        by_class.setdefault(target if isinstance(target, (int, np.integer)) else "", []).append(place)
    if len(by_class) == 1 and "" not in by_class:
        raise DataError(
            f"all {len(samples)} training samples are of one class, and ranges of activations measured on them don't "
            "hold for others; give data with all classes with --data, or use --precision fp16, which needs none"
        )
    turns = [place for turn in _turns(list(by_class.values())) for place in turn]
    chosen = sorted(turns[:most])
    notes = (
        (f"calibrated on {len(chosen)} training samples only; ranges of activations may be too narrow",)
        if len(chosen) < _FEW
        else ()
    )
    return [samples[place] for place in chosen], notes


def _turns(groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """One of each group, then the next of each."""
    return [[group[turn] for group in groups if turn < len(group)] for turn in range(max(map(len, groups)))]


def lower(
    run: SavedRun,
    source: Path,
    candidate: Path,
    *,
    settings: Settings,
    calibration: Sequence[Sample],
    samples: Sequence[Sample],
    note: Callable[[str], None] = lambda _text: None,
    computing: Computing = unseen,
) -> Lowered:
    """Make a file in lower precision that is good enough, or none.

    Args:
        run: whose file.
        source: its verified float32 file.
        candidate: where the new file is written.
        settings: how.
        calibration: training samples, for int8.
        samples: validation samples with targets, for the gate.
        note: called with a sentence on what was chosen.
        computing: shows progress.

    Raises:
        ExportError: the network has nothing to quantise, or the file can't be taken apart.
        DataError: no sample has a target.
        VerificationError: the gate doesn't hold; nothing is left.
    """
    if not samples or any(sample.target is None for sample in samples):
        raise DataError(
            "the gate compares figures on validation samples with targets, and there are none; give labelled data "
            "with --data"
        )
    if runtime.in_two_files(source):
        raise ExportError(f"{source} is above 2 GB and in two files, which can't be lowered in precision")
    apart = networks.take_apart(runtime.parse_file(source))
    answer = functools.partial(_answers, run, samples=samples, provider=settings.provider, computing=computing)
    before = answer(source)
    gate = functools.partial(precision_gate.drop, run.problem, run.labels, before)
    weigh = functools.partial(_too_few, run, before, settings)
    stated = runtime.Precision(
        name=settings.name,
        source_sha256=file_sha256(source),
        layers=len(quantize.layers(apart.network)),
        primary=run.problem.evaluation.primary,
        max_drop=settings.max_drop,
    )
    try:
        if settings.name == "fp16":
            write(apart, quantize.halve(apart.network), candidate, stated)
            now = answer(candidate)
            found = gate(now)
            if not found.holds(settings.max_drop):
                raise VerificationError(_refusal(found, settings, weigh(found, now) or "--max-drop allows more"))
        else:
            stated, now = _search(
                run, apart, candidate, stated, settings, calibration, answer, gate, weigh, note, computing
            )
    except BaseException:
        candidate.unlink(missing_ok=True)
        raise
    return Lowered(path=candidate, precision=stated, drop=gate(now, resamples=settings.resamples, seed=settings.seed))


def _search(
    run: SavedRun,
    apart: networks.TakenApart,
    candidate: Path,
    stated: Precision,
    settings: Settings,
    calibration: Sequence[Sample],
    answer: Callable[[Path], Predictions],
    gate: Callable[..., Drop],
    weigh: Callable[[Drop, Predictions], str],
    note: Callable[[str], None],
    computing: Computing,
) -> tuple[Precision, Predictions]:
    """Leave layers out, the worst first, until the gate holds."""
    calibrated, first, few = _calibrate(run, apart, calibration, note, computing)
    left, ranked, few_samples = list(first), list[tuple[quantize.Layer, float]](), ""
    stated = replace(stated, calibration=calibrated.samples, operators=tuple(calibrated.operators))
    while True:
        network = quantize.quantize(calibrated, left_out=quantize.nodes(left))
        stated = replace(stated, left_out=tuple(layer.name for layer in left))
        write(apart, network, candidate, stated)
        now = answer(candidate)
        found = gate(now)
        if found.holds(settings.max_drop):
            return stated, now
        if len(left) == len(first):
            eight, few_samples = _in_eight_bits(calibrated, network), weigh(found, now)
            if few_samples:
                note(few_samples)
        if len(left) >= (len(first) + len(eight)) // 2:
            found = gate(now, resamples=settings.resamples, seed=settings.seed)
            raise VerificationError(
                _refusal(
                    found,
                    settings,
                    few_samples
                    or "--precision fp16 differs less, more --calibration samples may help, and --max-drop allows more",
                    f", with {len(left)} of {len(first) + len(eight)} layers left in float32",
                )
            )
        ranked = ranked or rounding.rank(calibrated, eight, few, computing("layers, each alone in 8 bits", len(eight)))
        worst, alone = ranked[len(left) - len(first)]
        left.append(worst)
        note(f"{found.describe()}: {worst.name} goes back to float32 (error of the outputs by it alone: {alone:.3f})")


def _calibrate(
    run: SavedRun,
    apart: networks.TakenApart,
    calibration: Sequence[Sample],
    note: Callable[[str], None],
    computing: Computing,
) -> tuple[quantize.Calibrated, list[quantize.Layer], list[dict[str, Any]]]:
    """How the network is rounded, its first layers that stay in float32, and samples that errors are measured on."""
    feeds = networks.feeds(apart)
    advance = computing("training samples, for the ranges of activations", len(calibration))

    def feed(sample: Sample) -> dict[str, Any]:
        advance(1)
        return feeds.of(sample_tables.read(run.task, run.options, sample))

    calibrated = quantize.calibrate(apart.network, map(feed, calibration))
    few = [feed(sample) for sample in calibration[:: max(1, len(calibration) // _TRIED)][:_TRIED]]
    choices, errors = quantize.choose_operators(calibrated, few)
    note(
        "error of the network's outputs in 8 bits, as a share of their standard deviation: "
        + ", ".join(f"{value:.3f} with {name} operators" for name, value in errors.items())
    )
    calibrated, first = fastest(choices, few[0], note)
    return replace(calibrated, shifts=rounding.shifts(calibrated, few)), first, few


def _in_eight_bits(calibrated: quantize.Calibrated, network: onnx.ModelProto) -> list[quantize.Layer]:
    eight = quantize.quantized_nodes(network)
    return [layer for layer in quantize.layers(calibrated.network) if layer.name in eight]


def fastest(
    choices: Mapping[str, quantize.Calibrated],
    feed: Mapping[str, Any],
    note: Callable[[str], None] = lambda _text: None,
) -> tuple[quantize.Calibrated, list[quantize.Layer]]:
    """Which operators are quantised, and the first layers that stay in float32, as takes least time on this machine.

    Args:
        choices: by name.
        feed: of one sample.
        note: called with a sentence on what was measured.
    """
    stem = quantize.stem(next(iter(choices.values())).network)
    tried = {
        f"{name} operators" + _WITHOUT[count]: (each, stem[:count])
        for count in range(len(stem) + 1)
        for name, each in choices.items()
    }
    if len(tried) == 1:
        return next(iter(tried.values()))
    runs = {
        name: functools.partial(
            networks.open_session(quantize.quantize(each, left_out=quantize.nodes(left)), threads=1).run,
            None,
            dict(feed),
        )
        for name, (each, left) in tried.items()
    }
    ms = benchmark.alternate(runs, _SECONDS, clock=time.process_time)
    best = next(name for name, each in ms.items() if each <= _WORTH * min(ms.values()))
    note(f"quantised: {best}; ms of the network: " + ", ".join(f"{each:.1f} with {name}" for name, each in ms.items()))
    return tried[best]


def _too_few(run: SavedRun, before: Predictions, settings: Settings, found: Drop, now: Predictions) -> str:
    """What to do where one sample alone weighs more than what is allowed; nothing where none does."""
    alone = precision_gate.heaviest(run.problem, run.labels, before, now)
    if alone <= settings.max_drop + 1e-12 or not math.isfinite(alone):
        return ""
    metric = found.metric.replace("_", " ")
    return (
        f"one of the {found.samples} validation samples alone makes {metric} worse by {alone:.4f}, more than the "
        f"{settings.max_drop:g} of --max-drop, so that the gate goes by single samples: give more of them (--samples, "
        "or --data with more), or allow more by --max-drop"
    )


def _refusal(found: Drop, settings: Settings, advice: str, state: str = "") -> str:
    return (
        f"{settings.name} reaches {found.describe()} on {found.samples} samples{state}; at most {settings.max_drop:g} "
        f"is allowed, so nothing was written: {advice}"
    )


def _answers(
    run: SavedRun, path: Path, *, samples: Sequence[Sample], provider: str, computing: Computing
) -> Predictions:
    model = runtime.load(path, provider=provider)
    advance = computing(f"validation samples, by {path.name.removesuffix('.candidate')}", len(samples))
    return saved.predict_file(model, run.task, run.options, samples, advance=advance)


def write(apart: networks.TakenApart, network: onnx.ModelProto, path: Path, stated: Precision) -> None:
    """A file whole or not at all: another network in the float32 file's graph, and what it states of it.

    Args:
        apart: the float32 file.
        network: instead of its.
        path: where to.
        stated: of the new file.
    """
    import onnx

    whole = networks.put_back(apart, network)
    onnx.checker.check_model(whole, full_check=True)
    properties = {entry.key: entry.value for entry in whole.metadata_props} | stated.to_properties()
    about = json.loads(properties[KEY]) | {"weights_sha256": runtime.tensors_sha256(whole)}
    properties[KEY] = json.dumps(about, sort_keys=True, ensure_ascii=False)
    onnx.helper.set_model_props(whole, properties)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(whole.SerializeToString(deterministic=True))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _advice(name: str) -> str:
    training = "a model that answers nearly the same to everything, as after few epochs, differs most: train it longer"
    return training if name == "fp16" else f"--precision fp16 differs less, and {training}"


def settle(folder: Path, lowered: Lowered, verification: Verification) -> Path:
    """Give a file that passed its name, and write its own record of verification.

    Raises:
        VerificationError: it didn't pass; nothing is left of it.
    """
    name = lowered.precision.name
    if not verification.passed:
        lowered.path.unlink(missing_ok=True)
        raise VerificationError(
            f"the {name} file failed its verification, so nothing was written: {'; '.join(verification.failures)}"
            f"; {_advice(name)}"
        )
    target = folder / runs.PRECISION_FILE.format(name)
    lowered.path.replace(target)
    runs.write_json(folder / runs.PRECISION_VERIFICATION_FILE.format(name), verification.as_json())
    return target
