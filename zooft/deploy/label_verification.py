"""Proof of a file where its run isn't at hand: by data with labels, without torch.

What such a proof is worth: it shows that the file is as good as its metadata states, not that it answers as a model
in torch does. Files with labels in another order, or with another preprocessing, don't stand it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zooft import runtime
from zooft.contracts import Computing, LabelVerification, unseen
from zooft.contracts.plurals import pluralize
from zooft.data import samples as sample_tables
from zooft.deploy import metadata_check, saved
from zooft.deploy.differences import stack
from zooft.deploy.verify import spread
from zooft.evaluation.evaluate import evaluate
from zooft.model.weights import file_sha256

if TYPE_CHECKING:
    from pathlib import Path

    from zooft.contracts import Discovery, Labels, Problem, Sample, Task
    from zooft.evaluation.bootstrap import Interval
    from zooft.evaluation.evaluate import Evaluation
    from zooft.hooks.registry import Registry
    from zooft.runtime import OnnxModel

_RESAMPLES = 1000
_HELD_OUT = ("test", "cross-validation", "val")
"""The splits whose figures are what to expect, the best first."""
_FEW = 20
_DECIDED = 8
"""Samples on which the outputs are compared with each other."""
_SHARE = 0.01
"""Of a figure, or of the samples: how far the same samples may be from what is recorded of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    """Figures of the metadata.

    Attributes:
        split: whose.
        figures: as the run's evaluation had them; empty where there are none.
        same: whether they are of the very samples that the file answered now.
        smaller: names of figures that are better when smaller.
    """

    split: str
    figures: Mapping[str, Any]
    same: bool
    smaller: frozenset[str]

    @property
    def samples(self) -> int:
        return int(self.figures.get("samples", 0))

    def value(self, name: str) -> float | None:
        found = self.figures.get("metrics", {}).get(name, {}).get("value")
        return None if found is None else float(found)

    def worst(self, name: str) -> float | None:
        """The end of the interval that is worse; about that of a share, where none was computed."""
        value, less = self.value(name), name not in self.smaller
        end = self.figures.get("metrics", {}).get(name, {}).get("low" if less else "high")
        if end is not None or value is None:
            return None if end is None else float(end)
        half = 1 / math.sqrt(max(self.samples, 1))
        return value - half if less else value + half


def verify(
    path: Path, data: Path, registry: Registry, *, most: int, provider: str, computing: Computing = unseen
) -> LabelVerification:
    """Run a file on labelled samples, and compare how well it does with its metadata.

    Args:
        path: of the file.
        data: folder or manifest, with labels.
        registry: where the task that reads the data is found.
        most: samples at most, evenly spread.
        provider: as set.
        computing: shows progress.

    Raises:
        DataError: no such data, or targets that the file doesn't know.
        RuntimeModelError: not a file that can be opened.
    """
    model = runtime.load(path, provider=provider)
    task, options = saved.task_of_file(model, registry)
    problem, about = task.problem, model.metadata
    found = sample_tables.discover(task, data, options, learning=False, computing=computing)
    split, members, notes = saved.samples_of(
        problem, found, about.labels, run=None, trained_on_val=about.data.get("val") == 0
    )
    cut, members = members, saved.whole_samples(problem, members)
    chosen = [members[i] for i in spread(members, most)]
    answers = saved.predict_file(model, task, options, chosen, advance=computing(f"{split} samples", len(chosen)))
    evaluation = evaluate(
        problem,
        about.labels,
        answers,
        split=split,
        resamples=_RESAMPLES,
        seed=0,
        fitted=about.fitted,
        group_rule=about.group_rule,
        group_name=about.data.get("group_name", "group"),
        facts=task.subgroups,
    )
    whole = len(chosen) == len(members) and about.data.get("fingerprint") in _fingerprints(problem, found, about.labels)
    lower = model.precision.name != "fp32"
    recorded = _record(about.metrics, split, problem, whole=whole and not lower)
    asked = chosen if cut is members else [cut[i] for i in spread(cut, most)]  # the file itself takes tiles
    own = metadata_check.alone(model, path, problem)
    disagreeing = _disagreements(model, task, options, [asked[i] for i in spread(asked, _DECIDED)])
    faults = [*own.faults, *disagreeing, *_faults(problem, evaluation, recorded, about.labels)]
    return LabelVerification(
        passed=not faults,
        provider=model.provider,
        requested_provider=provider,
        placement=model.placement,
        onnx_sha256=file_sha256(path),
        split=split,
        samples=len(chosen),
        available=len(members),
        recorded_split=recorded.split,
        same_samples=recorded.same,
        metrics={name: (recorded.value(name), interval.value) for name, interval in evaluation.metrics.items()},
        primary=evaluation.primary,
        failures=tuple(faults),
        notes=(*filter(None, [model.note]), *notes, *_notes(recorded, chosen, members)),
        declared=own.compared,
    )


def _fingerprints(problem: Problem, found: Discovery, labels: Labels) -> set[str]:
    """The data's, in the file's order of categories and, as that may be what is wrong with it, in others."""
    backwards = tuple(replace(label, categories=label.categories[::-1]) for label in labels)
    orders = (labels, found.labels, backwards)
    return {sample_tables.fingerprint(found, saved.make_relabel(problem, found.labels, order)) for order in orders}


def _disagreements(model: OnnxModel, task: Task, options: Any, samples: Sequence[Sample]) -> tuple[str, ...]:
    """The graph's outputs against each other, by what the metadata states of them."""
    about = model.metadata
    slack = {output.name: math.inf for output in about.outputs}
    found = [model.run(*(array[None] for array in sample_tables.read(task, options, sample))) for sample in samples]
    together = {name: stack([answers[name] for answers in found]) for name in found[0]}
    return task.problem.deployment.agree(together, together, about.labels, about.fitted, slack)


def _record(figures: Mapping[str, Any], split: str, problem: Problem, *, whole: bool) -> _Recorded:
    """The figures to compare with: those of the same samples, or those of held-out ones."""
    smaller = problem.evaluation.smaller
    if whole and split in figures and split != "train":
        return _Recorded(split=split, figures=figures[split], same=True, smaller=smaller)
    name = next((held for held in _HELD_OUT if held in figures), "")
    return _Recorded(split=name, figures=figures.get(name, {}), same=False, smaller=smaller)


def _faults(problem: Problem, evaluation: Evaluation, recorded: _Recorded, labels: Labels) -> list[str]:
    part = problem.evaluation
    if recorded.same:
        return _otherwise(problem, evaluation, recorded)
    names = [name for name in dict.fromkeys((part.primary, *part.telling)) if name in evaluation.metrics]
    faults = [text for name in names for text in _worse(name, evaluation.metrics[name], recorded)]
    known = ", ".join(name for label in labels for name in label.categories)
    return [
        *faults,
        *(
            text
            for name, share in part.guessing(labels).items()
            for text in _wrong_way(name, share, evaluation, recorded, known)
        ),
    ]


def _wrong_way(name: str, share: float, evaluation: Evaluation, recorded: _Recorded, known: str) -> Iterator[str]:
    """Worse than guessing, unless its metadata states so itself."""
    now, before = evaluation.metrics.get(name), recorded.value(name)
    if now is None or now.high is None or now.high >= share or (before is not None and before < share):
        return
    yield (
        f"it does worse than guessing ({name.replace('_', ' ')} {now.value:.3f}, guessing has {share:.3f}): its "
        f"answers, {known}, may be in the wrong order"
    )


def _otherwise(problem: Problem, evaluation: Evaluation, recorded: _Recorded) -> list[str]:
    """On the samples that the recorded figures are of, all must come out as before, but for one sample in a hundred."""
    moved = problem.evaluation.moved(recorded.figures.get("details", {}), evaluation.details)
    if math.isnan(moved):
        return _other_figures(evaluation, recorded)
    if moved <= max(1.0, _SHARE * evaluation.samples):
        return []
    figures = ", ".join(
        f"{name} {interval.value:.4f} instead of {recorded.value(name):.4f}"
        for name, interval in evaluation.metrics.items()
        if name in {evaluation.primary, problem.evaluation.telling[0] if problem.evaluation.telling else ""}
        and recorded.value(name) is not None
    )
    return [
        f"on the very {recorded.split} samples that its metadata has figures of, it answers {moved:.0f} of "
        f"{evaluation.samples} otherwise" + (f": {figures}" if figures else "")
    ]


def _other_figures(evaluation: Evaluation, recorded: _Recorded) -> list[str]:
    """Where a problem can't count the answers that differ: figures that do."""
    pairs = [(name, recorded.value(name), interval.value) for name, interval in evaluation.metrics.items()]
    other = [
        f"{name} {now:.4g} instead of {before:.4g}"
        for name, before, now in pairs
        if before is not None and not math.isnan(now) and abs(now - before) > _SHARE * max(abs(before), abs(now))
    ]
    if not other:
        return []
    return [f"on the very {recorded.split} samples that its metadata has figures of, it has {', '.join(other)}"]


def _worse(name: str, now: Interval, recorded: _Recorded) -> list[str]:
    """Clearly worse than recorded: the two intervals don't meet."""
    worst = recorded.worst(name)
    less = name not in recorded.smaller
    best = now.value if now.high is None or now.low is None else now.high if less else now.low
    if worst is None or math.isnan(best) or (best >= worst if less else best <= worst):
        return []
    return [
        f"its {name.replace('_', ' ')} on this data is {now.value:.4f} ({'at most' if less else 'at least'} "
        f"{best:.4f}); its metadata states {recorded.value(name):.4f} on {recorded.split} samples "
        f"({'at least' if less else 'at most'} {worst:.4f}): either this data is of another kind, or the file isn't "
        "what it states"
    ]


def _notes(recorded: _Recorded, chosen: Sequence[Any], members: Sequence[Any]) -> list[str]:
    notes = ["compared with labels, not with the model in torch: --run RUN compares with that"]
    if len(chosen) < len(members):
        notes.append(f"{len(chosen)} of {len(members)} samples were answered, evenly spread")
    if len(chosen) < _FEW:
        notes.append(f"{pluralize(len(chosen), 'sample proves', 'samples prove')} little")
    if not recorded.figures:
        notes.append("its metadata has no figures of held-out samples to compare with, only guessing was")
    elif recorded.same:
        notes.append(f"these are the {recorded.split} samples that the figures in its metadata are of")
    return notes
