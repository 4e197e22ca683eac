"""A model's answers to samples: calibrated on validation data, and judged.

Owns what a set of answers is, and the order of things: first the temperature, then the threshold, then the figures.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import Calibration, GroupResult
from zooft.data import samples as sample_tables
from zooft.evaluation import calibration as calibrating
from zooft.evaluation import metrics
from zooft.storage import csv_files
from zooft.storage.sequences import pick, spilled_as

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from zooft.contracts import GroupScore, OperatingPoint, Rejection, Sample, Task
    from zooft.evaluation.metrics import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """A model's answers to samples, in their order.

    Attributes:
        samples: what was asked.
        targets: ``(N,)`` class indices.
        logits: ``(N, classes)``, divided by the temperature where there is one.
        probabilities: ``(N, classes)``.
        thresholds: ``(N,)`` where each fold of a cross-validation has its own; None where all have one.
    """

    samples: Sequence[Sample]
    targets: NDArray[Any]
    logits: NDArray[Any]
    probabilities: NDArray[Any]
    thresholds: NDArray[Any] | None = None

    @property
    def groups(self) -> list[str | None]:
        """One a sample."""
        return [sample.group for sample in self.samples]

    def said(self, threshold: float | None) -> NDArray[Any]:
        """The classes ``(N,)`` at a threshold, or at each fold's own."""
        return metrics.decide(self.probabilities, threshold if self.thresholds is None else self.thresholds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Answers to one split and how good they are."""

    predictions: Predictions
    evaluation: Evaluation


def predictions(samples: Sequence[Sample], logits: NDArray[Any], probabilities: NDArray[Any]) -> Predictions:
    """Answers beside what is true."""
    return Predictions(
        samples=samples, targets=sample_tables.targets(samples), logits=logits, probabilities=probabilities
    )


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Several models' answers to several samples as one, such as the folds of a cross-validation."""
    return Predictions(
        samples=spilled_as([part.samples for part in parts], chain(*(part.samples for part in parts))),
        targets=np.concatenate([part.targets for part in parts]),
        logits=np.concatenate([part.logits for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        thresholds=_thresholds(parts),
    )


def _thresholds(parts: Sequence[Predictions]) -> NDArray[Any] | None:
    own = [part.thresholds for part in parts if part.thresholds is not None]
    return np.concatenate(own) if len(own) == len(parts) else None


def chosen(answers: Predictions, rows: NDArray[Any]) -> Predictions:
    """Some of the answers, by their positions."""
    return Predictions(
        samples=pick(answers.samples, rows),
        targets=answers.targets[rows],
        logits=answers.logits[rows],
        probabilities=answers.probabilities[rows],
    )


def calibrate(
    answers: Predictions, task: Task, point: OperatingPoint | None, *, group_score: GroupScore, fitted_on: str
) -> Calibration:
    """Temperature and threshold that fit uncalibrated answers; neither where the task wants none."""
    if point is None:
        return Calibration()
    return calibrating.fit(
        answers.logits, answers.targets, point, activation=task.activation, fitted_on=fitted_on,
        groups=answers.groups, group_score=group_score,
    )  # fmt: skip


def crossed(answers: Predictions, calibration: Calibration, task: Task) -> Predictions:
    """Uncalibrated answers of one fold with the temperature and the threshold that other folds gave."""
    own = None if calibration.threshold is None else np.full(len(answers.samples), calibration.threshold)
    return replace(calibrated(answers, calibration, task), thresholds=own)


def calibrated(answers: Predictions, calibration: Calibration, task: Task) -> Predictions:
    """Uncalibrated answers with a temperature."""
    return replace(
        answers,
        logits=answers.logits / np.asarray(calibration.temperature, answers.logits.dtype),
        probabilities=calibrating.apply(calibration, answers.logits, task.activation),
    )


def evaluate(
    task: Task,
    classes: Sequence[str],
    answers: Predictions,
    *,
    split: str,
    resamples: int,
    seed: int,
    calibration: Calibration,
    group_score: GroupScore,
    group_name: str,
) -> Evaluation:
    """All figures of some answers."""
    return metrics.evaluate(
        task.metrics, answers.targets, answers.probabilities, split=split, classes=classes, groups=answers.groups,
        resamples=resamples, seed=seed, group_score=group_score, threshold=calibration.threshold, primary=task.primary, thresholds=answers.thresholds,
        facts=_facts(answers.samples, task.subgroups), subgroups=task.subgroups, group_name=group_name,
    )  # fmt: skip


def _facts(samples: Sequence[Sample], names: Sequence[str]) -> list[dict[str, str | float]]:
    """What stands in the subgroup tables; nothing where there are none."""
    return [{name: s.facts[name] for name in names if name in s.facts} for s in samples] if names else []


def by_group(
    answers: Predictions,
    classes: Sequence[str],
    *,
    threshold: float | None,
    group_score: GroupScore,
    rejected: Sequence[Rejection] = (),
) -> list[GroupResult]:
    """One answer for each group, in the order of the groups' first samples; a sample without a group is one alone.

    Groups of which everything was `rejected` get none: `unanswered` names them.
    """
    lacking = unjudged(rejected)
    grouped = metrics.by_group(answers.groups, answers.targets, answers.probabilities, group_score)
    said = metrics.decide(grouped.probabilities, threshold)
    return [
        _result(chosen(answers, np.asarray(own)), grouped.probabilities[i], classes[int(said[i])], lacking)
        for i, own in enumerate(grouped.members)
    ]


def unjudged(rejected: Iterable[Rejection]) -> dict[str, tuple[Rejection, ...]]:
    """What wasn't used, by the group that it belongs to, where that is known."""
    by: dict[str, list[Rejection]] = {}
    for each in rejected:
        if each.group is not None:
            by.setdefault(each.group, []).append(each)
    return {group: tuple(own) for group, own in by.items()}


def unanswered(rejected: Iterable[Rejection], answered: Collection[str]) -> dict[str, tuple[Rejection, ...]]:
    """Groups that got no answer because nothing of them could be used, each with all reasons."""
    return {group: own for group, own in unjudged(rejected).items() if group not in answered}


def _result(
    answers: Predictions, probabilities: NDArray[Any], prediction: str, lacking: Mapping[str, tuple[Rejection, ...]]
) -> GroupResult:
    decisive, members = int(answers.probabilities[:, -1].argmax()), tuple(answers.samples)
    group = members[0].group or members[0].id
    return GroupResult(
        group=group,
        prediction=prediction,
        probabilities=tuple(float(p) for p in probabilities),
        members=members,
        decisive=members[decisive],
        unjudged=lacking.get(group, ()),
    )


def write_predictions(
    path: Path, judged: Mapping[str, Judgement], classes: Sequence[str], fold_of: Mapping[str, int]
) -> None:
    """``predictions.csv``: what was said of every sample that wasn't learnt from, for whoever wants to judge anew.

    Args:
        path: of the file.
        judged: by split.
        classes: their names, in order.
        fold_of: id to the fold, from 1, that it was held out in; empty without folds.
    """
    columns = ("id", "group", "split", "fold", "target", "prediction", *(f"p({name})" for name in classes))
    csv_files.write(path, columns, _rows(judged, classes, fold_of))


def _rows(
    judged: Mapping[str, Judgement], classes: Sequence[str], fold_of: Mapping[str, int]
) -> Iterator[tuple[Any, ...]]:
    for split, part in judged.items():
        answers = part.predictions
        for row, said in enumerate(answers.said(part.evaluation.threshold)):
            sample, probabilities = answers.samples[row], (f"{p:.6f}" for p in answers.probabilities[row])
            fold = fold_of.get(sample.id, "") if split == "cross-validation" else ""
            yield (sample.id, sample.group or "", split, fold, classes[sample.target], classes[said], *probabilities)
