"""Proof that the file on disk answers as the model does.

Owns the checks and their limits: on real samples read by the deployed reader, at several batch sizes, on the
provider that truly ran; numeric difference, best class and the task's metrics against torch. Reports, never
repairs.

The limit on the logits: injected defects (a dropped bias, a channel set to zero, a mean off by one level, half
precision) move them by 5e-3 of their standard deviation or more, rounding to whole levels inside the graph by up to
1e-4. 1e-3 stands between the two. The best class alone would have missed several of these defects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import Verification
from zooft.errors import RuntimeModelError
from zooft.weights import file_sha256

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from numpy.typing import NDArray

    from zooft.contracts import Arrays, Port, Sample
    from zooft.runtime import OnnxModel

    Reference = Callable[..., tuple[NDArray[Any], NDArray[Any]]]

RELATIVE_RMS_LIMIT = 1e-3
VACUOUS_SPREAD = 1e-3
BATCH_SIZES = (2, 3, 7)


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


@dataclass(frozen=True, slots=True)
class _Answers:
    torch_probabilities: NDArray[Any]
    torch_logits: NDArray[Any]
    onnx_probabilities: NDArray[Any]
    onnx_logits: NDArray[Any]


def spread(samples: Sequence[Sample], most: int) -> list[int]:
    """Indices of at most `most` samples, evenly over the list."""
    if len(samples) <= most:
        return list(range(len(samples)))
    return [round(i * (len(samples) - 1) / max(1, most - 1)) for i in range(most)]


def verify(
    model: OnnxModel,
    path: Path,
    *,
    reference: Reference,
    material: Material,
    metrics: Callable[[NDArray[Any], NDArray[Any]], Mapping[str, float]],
    requested: str,
    probability_limit: float = 1e-2,
    advance: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Compare an opened file with the model in torch.

    Args:
        model: the file, opened from disk.
        path: where it lies, for its SHA-256.
        reference: a batch in native units, an array for each port, to (probabilities, logits) in torch, on the CPU, in float32.
        material: what to run.
        metrics: the task's.
        requested: the provider as asked for.
        probability_limit: the largest difference of a probability that is let pass.
        advance: told of every sample done.

    Returns:
        The record, passed or not.
    """
    answers, broken = _answers(model, reference, material.arrays, advance)
    batch_failures, sizes = _batches(model, reference, material.arrays, probability_limit)
    values: dict[str, tuple[float, float]] = {}
    numbers = {"difference": math.inf, "rms": math.inf, "agreement": 0.0}
    failures = [*broken, *batch_failures]
    if answers is not None:
        if material.targets is not None:
            values = _metrics(metrics, material.targets, answers)
        numbers = _numbers(answers)
        failures += _judge(numbers, answers, values, probability_limit)
    return Verification(
        passed=not failures,
        provider=model.provider,
        requested_provider=requested,
        placement=model.placement,
        onnx_sha256=file_sha256(path),
        samples=len(material.arrays),
        available=material.available,
        batch_sizes=(1, *sizes),
        max_probability_difference=numbers["difference"],
        relative_rms=numbers["rms"],
        top1_agreement=numbers["agreement"],
        metrics=values,
        failures=tuple(failures),
        notes=tuple(_notes(model, material)),
        data=material.data,
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


def _answers(
    model: OnnxModel, reference: Reference, arrays: Sequence[Arrays], advance: Callable[[int], None]
) -> tuple[_Answers | None, list[str]]:
    columns: tuple[list[NDArray[Any]], ...] = ([], [], [], [])
    for sample in arrays:
        batch = [array[None] for array in sample]
        try:
            got = (*reference(*batch), *model.run(*batch))
        except RuntimeModelError:
            raise
        except Exception as error:  # onnxruntime's errors have no common kind
            return None, [f"the file doesn't run on a sample of shape {sample[0].shape}: {error}"]
        for column, value in zip(columns, got, strict=True):
            column.append(value)
        advance(1)
    return _Answers(*(np.concatenate(column).astype(np.float64) for column in columns)), []


def _batches(
    model: OnnxModel, reference: Reference, arrays: Sequence[Arrays], limit: float
) -> tuple[list[str], tuple[int, ...]]:
    """Several samples at once, cut to a common size."""
    failures = []
    for size in BATCH_SIZES:
        batch = _common([arrays[i % len(arrays)] for i in range(size)])
        wanted, _ = reference(*batch)
        try:
            got, _ = model.run(*batch)
        except Exception as error:  # onnxruntime's errors have no common kind
            failures.append(f"the file doesn't run on a batch of {size}: {error}")
            continue
        if got.shape != wanted.shape or not np.allclose(got, wanted, rtol=0, atol=limit):
            failures.append(f"a batch of {size} gives other answers than torch")
    return failures, BATCH_SIZES


def _common(samples: Sequence[Arrays]) -> list[NDArray[Any]]:
    return [_cut_and_stacked(arrays) for arrays in zip(*samples, strict=True)]


def _cut_and_stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    least = tuple(min(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True))
    window = tuple(slice(0, size) for size in least)
    return np.stack([array[window] for array in arrays])


def _numbers(answers: _Answers) -> dict[str, float]:
    scale = _spread(answers.torch_logits)
    rms = float(np.sqrt(((answers.onnx_logits - answers.torch_logits) ** 2).mean()))
    agree = answers.onnx_probabilities.argmax(1) == answers.torch_probabilities.argmax(1)
    return {
        "difference": float(np.abs(answers.onnx_probabilities - answers.torch_probabilities).max()),
        "rms": rms / scale if scale > 0 else math.inf,
        "agreement": float(agree.mean()),
    }


def _spread(logits: NDArray[Any]) -> float:
    """The logits' standard deviation over the samples: what a model says of every image alike doesn't count.

    Of a single sample, over the classes.
    """
    return float(logits.std() if len(logits) == 1 else (logits - logits.mean(0)).std())


def _judge(
    numbers: Mapping[str, float], answers: _Answers, values: Mapping[str, tuple[float, float]], limit: float
) -> list[str]:
    failures = []
    if not np.isfinite(answers.onnx_probabilities).all():
        failures.append("the file gives probabilities that aren't finite")
    if _spread(answers.torch_logits) < VACUOUS_SPREAD:
        failures.append(
            f"the model answers the same to everything (logits' spread {_spread(answers.torch_logits):.1e}), "
            "so the comparison proves nothing"
        )
    if not numbers["rms"] <= RELATIVE_RMS_LIMIT:
        failures.append(
            f"the logits differ by {numbers['rms']:.1e} of their spread; the limit is {RELATIVE_RMS_LIMIT:.0e}"
        )
    if not numbers["difference"] <= limit:
        failures.append(f"a probability differs by {numbers['difference']:.2g}; the limit is {limit:g}")
    flipped = _clear_flips(answers)
    if flipped:
        failures.append(f"{flipped} samples get another best class, though torch's choice is clear")
    moved = [name for name, (ours, theirs) in values.items() if not _close(ours, theirs, len(answers.onnx_logits))]
    if moved:
        failures.append(f"the file's {', '.join(moved)} isn't the model's")
    return failures


def _clear_flips(answers: _Answers) -> int:
    """Samples whose best class changed although it led by ten times the largest difference."""
    ordered = np.sort(answers.torch_logits, 1)
    margin = ordered[:, -1] - ordered[:, -2]
    clear = margin > 10 * np.abs(answers.onnx_logits - answers.torch_logits).max()
    return int((clear & (answers.onnx_logits.argmax(1) != answers.torch_logits.argmax(1))).sum())


def _metrics(
    metrics: Callable[[NDArray[Any], NDArray[Any]], Mapping[str, float]],
    targets: NDArray[Any],
    answers: _Answers,
) -> dict[str, tuple[float, float]]:
    ours, theirs = metrics(targets, answers.torch_probabilities), metrics(targets, answers.onnx_probabilities)
    return {name: (float(ours[name]), float(theirs[name])) for name in ours}


def _close(ours: float, theirs: float, samples: int) -> bool:
    """Equal but for one sample in a thousand, or both undefined."""
    return (math.isnan(ours) and math.isnan(theirs)) or abs(ours - theirs) <= max(1e-3, 1.5 / max(samples, 1) ** 2)


def _notes(model: OnnxModel, material: Material) -> list[str]:
    notes = [model.note] if model.note else []
    if material.data == "generated":
        notes.append("compared on generated images only: give --data to verify on real samples")
    elif len(material.arrays) < material.available:
        notes.append(f"compared on {len(material.arrays)} of {material.available} validation samples, evenly spread")
    return notes
