"""Proof of a file where its run isn't at hand: by data with labels, without torch.

Owns what such a proof is worth: it says that the file is as good as its metadata says, not that it answers as a model in
torch does. Files with classes in another order, or with another preprocessing, don't stand it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft import runtime
from zooft.contracts import Computing, LabelVerification, unseen
from zooft.data import samples as sample_tables
from zooft.deploy import declared, saved
from zooft.deploy.verify import spread
from zooft.evaluation import judge, metrics
from zooft.model.weights import file_sha256

if TYPE_CHECKING:
    from pathlib import Path

    from zooft.contracts import Discovery, Sample, Task
    from zooft.evaluation.metrics import Evaluation, Interval
    from zooft.hooks.registry import Registry
    from zooft.runtime import OnnxModel

_RESAMPLES = 1000
_HELD_OUT = ("test", "cross-validation", "val")
"""The splits whose figures say what to expect, the best first."""
_FEW = 20
_DECIDED = 8
"""Samples of which the output ``prediction`` is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    """Figures of the metadata.

    Attributes:
        split: whose.
        figures: as the run's evaluation had them; empty where there are none.
        same: whether they are of the very samples that were asked now.
    """

    split: str
    figures: Mapping[str, Any]
    same: bool

    @property
    def samples(self) -> int:
        return int(self.figures.get("samples", 0))

    def value(self, name: str) -> float | None:
        found = self.figures.get("metrics", {}).get(name, {}).get("value")
        return None if found is None else float(found)

    def worst(self, name: str) -> float | None:
        """The end of the interval that is worse; about that of a share, where none was computed."""
        value, less = self.value(name), name not in metrics.SMALLER_IS_BETTER
        end = self.figures.get("metrics", {}).get(name, {}).get("low" if less else "high")
        if end is not None or value is None:
            return None if end is None else float(end)
        half = 1 / math.sqrt(max(self.samples, 1))
        return value - half if less else value + half


def verify(
    path: Path, data: Path, registry: Registry, *, most: int, provider: str, computing: Computing = unseen
) -> LabelVerification:
    """Ask a file about labelled samples, and compare how well it does with what its metadata says.

    Args:
        path: of the file.
        data: folder or manifest, with labels.
        registry: where the task that reads the data is looked up.
        most: samples at most, evenly spread.
        provider: as asked for.
        computing: told how far it is.

    Raises:
        DataError: no such data, or classes that the file doesn't know.
        RuntimeModelError: not a file that can be opened.
    """
    model = runtime.load(path, provider=provider)
    task, options = saved.task_of_file(model, registry)
    classes, about = model.metadata.classes, model.metadata
    found = sample_tables.discover(task, data, options, learning=False, computing=computing)
    split, members, notes = saved.samples_of(found, classes, run=None, val_was_learnt=about.data.get("val") == 0)
    asked = [members[i] for i in spread(members, most)]
    answers = saved.predict_file(model, task, options, asked, advance=computing(f"{split} samples", len(asked)))
    judged = judge.evaluate(
        task, classes, answers, split=split, resamples=_RESAMPLES, seed=0, calibration=about.calibration,
        group_score=about.group_score, group_name=about.data.get("group_name", "group"),
    )  # fmt: skip
    whole = len(asked) == len(members) and about.data.get("fingerprint") in _fingerprints(found, classes)
    recorded = _recorded(about.metrics, split, whole=whole)
    own = declared.alone(model, path)
    undecided = _undecided(model, task, options, [asked[i] for i in spread(asked, _DECIDED)])
    faults = [*own.faults, *undecided, *_faults(judged, recorded, task.primary, classes)]
    return LabelVerification(
        passed=not faults,
        provider=model.provider,
        requested_provider=provider,
        placement=model.placement,
        onnx_sha256=file_sha256(path),
        split=split,
        samples=len(asked),
        available=len(members),
        recorded_split=recorded.split,
        same_samples=recorded.same,
        metrics={name: (recorded.value(name), interval.value) for name, interval in judged.metrics.items()},
        primary=judged.primary,
        failures=tuple(faults),
        notes=(*filter(None, [model.note]), *notes, *_notes(judged, recorded, asked, members)),
        declared=own.compared,
    )


def _fingerprints(found: Discovery, classes: Sequence[str]) -> set[str]:
    """The data's, in the file's order of the classes and, as that may be what is wrong with it, in others."""
    orders = (classes, found.classes, tuple(reversed(classes)))
    return {sample_tables.fingerprint(found, order) for order in orders}


def _undecided(model: OnnxModel, task: Task, options: Any, asked: Sequence[Sample]) -> list[str]:
    """The graph's own decision against the threshold that the metadata names."""
    for sample in asked:
        probabilities, _, said = model.outputs(*(array[None] for array in sample_tables.read(task, options, sample)))
        if said is not None and not np.array_equal(said, model.decide(probabilities)):
            return ["the output prediction isn't the class that probabilities and the metadata's threshold give"]
    return []


def _recorded(figures: Mapping[str, Any], split: str, *, whole: bool) -> _Recorded:
    """The figures to compare with: those of the same samples, or those of held-out ones."""
    if whole and split in figures and split != "train":
        return _Recorded(split=split, figures=figures[split], same=True)
    name = next((held for held in _HELD_OUT if held in figures), "")
    return _Recorded(split=name, figures=figures.get(name, {}), same=False)


def _faults(judged: Evaluation, recorded: _Recorded, primary: str, classes: Sequence[str]) -> list[str]:
    if recorded.same:
        return _otherwise(judged, recorded)
    names = [name for name in dict.fromkeys((primary, "accuracy", "balanced_accuracy")) if name in judged.metrics]
    faults = [text for name in names for text in _worse(name, judged.metrics[name], recorded)]
    guessing = {"balanced_accuracy": 1 / len(classes), "auroc": 0.5}
    return [
        *faults,
        *(text for name, share in guessing.items() for text in _wrong_way(name, share, judged, recorded, classes)),
    ]


def _wrong_way(
    name: str, share: float, judged: Evaluation, recorded: _Recorded, classes: Sequence[str]
) -> Iterator[str]:
    """Worse than guessing, unless its metadata says so itself."""
    now, before = judged.metrics.get(name), recorded.value(name)
    if now is None or now.high is None or now.high >= share or (before is not None and before < share):
        return
    yield (
        f"it does worse than guessing ({name.replace('_', ' ')} {now.value:.3f}, guessing has {share:.3f}): its classes, "
        f"{', '.join(classes)}, may be in the wrong order"
    )


def _otherwise(judged: Evaluation, recorded: _Recorded) -> list[str]:
    """On the samples that the recorded figures are of, all must come out as before, but for one sample in a hundred."""
    allowed = max(1.0, 0.01 * judged.samples)
    before = np.array(recorded.figures.get("confusion", judged.confusion), dtype=float)
    now = np.array(judged.confusion, dtype=float)
    moved = np.abs(now - before).sum() / 2 if now.shape == before.shape else math.inf
    if moved <= allowed:
        return []
    figures = ", ".join(
        f"{name} {value:.4f} instead of {recorded.value(name):.4f}"
        for name, value in ((name, interval.value) for name, interval in judged.metrics.items())
        if name in {judged.primary, "accuracy"} and recorded.value(name) is not None
    )
    return [
        f"on the very {recorded.split} samples that its metadata has figures of, it answers {moved:.0f} of {judged.samples} otherwise"
        + (f": {figures}" if figures else "")
    ]


def _worse(name: str, now: Interval, recorded: _Recorded) -> list[str]:
    """Clearly worse than recorded: the two intervals don't meet."""
    worst = recorded.worst(name)
    less = name not in metrics.SMALLER_IS_BETTER
    best = now.value if now.high is None or now.low is None else now.high if less else now.low
    if worst is None or math.isnan(best) or (best >= worst if less else best <= worst):
        return []
    return [
        f"its {name.replace('_', ' ')} on this data is {now.value:.4f} ({'at most' if less else 'at least'} {best:.4f}); its metadata says "
        f"{recorded.value(name):.4f} on {recorded.split} samples ({'at least' if less else 'at most'} {worst:.4f}): either this data is of another "
        "kind, or the file isn't what it says"
    ]


def _notes(judged: Evaluation, recorded: _Recorded, asked: Sequence[Any], members: Sequence[Any]) -> list[str]:
    notes = ["compared with labels, not with the model in torch: --run RUN compares with that"]
    if len(asked) < len(members):
        notes.append(f"{len(asked)} of {len(members)} samples were asked, evenly spread")
    if len(asked) < _FEW:
        notes.append(f"{len(asked)} samples prove little")
    if not recorded.figures:
        notes.append("its metadata has no figures of held-out samples to compare with, only guessing was")
    elif recorded.same:
        notes.append(f"these are the {recorded.split} samples that the figures in its metadata are of")
    return notes
