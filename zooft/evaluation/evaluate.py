"""All figures of one split: per sample, per group, per subgroup, and the problem's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.evaluation import subgroups as tables
from zooft.evaluation.bootstrap import Interval, intervals
from zooft.evaluation.groups import are_known, group_predictions, members_of
from zooft.evaluation.subgroups import Subgroup

if TYPE_CHECKING:
    from zooft.contracts import Fitted, Labels, Problem
    from zooft.evaluation.predictions import Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How good a model is on one split.

    Attributes:
        split: which samples.
        samples: how many.
        metrics: name to figure and interval, per sample.
        groups: how many groups, such as patients, a sample of unknown group counting as one; 0 where none are known.
        mixed_groups: how many of them have samples with different targets.
        group_metrics: as `metrics`, with one prediction per group; empty where no group has two samples.
        primary: name of the subgroups' metric.
        subgroups: rows by fact and value.
        group_name: what a group is, in the singular.
        one_class: the prediction for every group where the rule gives all groups the same one though their samples
            differ; there are no figures per group then, since they would look perfect. "" elsewhere.
        details: the problem's own tables and figures, as JSON values, such as a confusion matrix.
        smaller: names of figures that are better when smaller.
    """

    split: str
    samples: int
    metrics: Mapping[str, Interval]
    groups: int = 0
    mixed_groups: int = 0
    group_metrics: Mapping[str, Interval] = field(default_factory=dict)
    primary: str = ""
    subgroups: tuple[Subgroup, ...] = ()
    group_name: str = "group"
    one_class: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    smaller: frozenset[str] = frozenset()

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` prints it: the problem's details and the common figures, which win where names collide."""
        common = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "details"}
        return {**self.details, **common}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The predictions of one split and their figures."""

    predictions: Predictions
    evaluation: Evaluation


def evaluate(
    problem: Problem,
    labels: Labels,
    predictions: Predictions,
    *,
    split: str,
    resamples: int,
    seed: int,
    fitted: Fitted,
    group_rule: str = "",
    group_name: str = "group",
    facts: Sequence[str] = (),
) -> Evaluation:
    """All figures of one split.

    Args:
        problem: whose figures.
        labels: the meaning of the predictions.
        predictions: with samples and what was fitted already applied.
        split: its name.
        resamples: of the bootstrap; 0 for no intervals.
        seed: of the bootstrap.
        fitted: on validation data.
        group_rule: how a group's samples are combined into one prediction.
        group_name: what a group is, in the singular.
        facts: names of facts whose values get a row each.
    """
    part = problem.evaluation
    metrics = partial(_metrics, problem, labels)
    groups = predictions.groups
    members = members_of(groups)
    grouped = group_predictions(problem, predictions, members, labels, group_rule)
    each = intervals(metrics, predictions, groups=groups, resamples=resamples, seed=seed)
    one = "" if grouped is None else part.one_answer(predictions, grouped, labels)
    several = grouped is not None and not one and are_known(groups) and len(members) < len(predictions)
    # the same seed, so that the same groups are drawn as for the samples' figures
    of_groups = (
        intervals(metrics, grouped, groups=[None] * len(members), resamples=resamples, seed=seed)
        if several and grouped is not None
        else {}
    )
    return Evaluation(
        split=split,
        samples=len(predictions),
        metrics=each,
        groups=len(members) if are_known(groups) else 0,
        mixed_groups=sum(_differ(predictions, rows) for rows in members),
        group_metrics=of_groups,
        primary=part.primary,
        subgroups=tables.subgroups(
            metrics,
            predictions,
            facts=_facts(predictions, facts),
            names=facts,
            primary=part.primary,
            last=_last(labels),
            resamples=min(resamples, tables.RESAMPLES),
            seed=seed,
        ),
        group_name=group_name,
        one_class=one,
        details=part.details(predictions, None if one else grouped, labels, fitted, resamples > 0),
        smaller=part.smaller | {name for name in each if name.partition("/")[0] in part.smaller},
    )


def _metrics(problem: Problem, labels: Labels, predictions: Predictions) -> Mapping[str, float]:
    return problem.evaluation.metrics(predictions, labels)


def _differ(predictions: Predictions, rows: Any) -> bool:
    targets = predictions.columns.get("target")
    return targets is not None and targets.ndim == 1 and len(np.unique(targets[rows])) > 1


def _last(labels: Labels) -> int | None:
    return len(labels[0].categories) - 1 if len(labels) == 1 and labels[0].categories else None


def _facts(predictions: Predictions, names: Sequence[str]) -> list[dict[str, str | float]]:
    """Each sample's facts for the subgroup tables; empty where there are none."""
    return [{name: s.facts[name] for name in names if name in s.facts} for s in predictions.samples] if names else []
