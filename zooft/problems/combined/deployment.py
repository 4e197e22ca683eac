"""One file with every answer's outputs, each under its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from zooft.contracts import DeploymentPart, Output
from zooft.problems.combined.evaluation import part_columns
from zooft.problems.combined.parts import BETWEEN, Kinds, Part

if TYPE_CHECKING:
    from torch import nn

    from zooft.contracts import Columns, Fitted, Labels


def deployment_part(kinds: Kinds) -> DeploymentPart:
    """How several answers are deployed."""
    return DeploymentPart(
        outputs=partial(_outputs, kinds),
        graph=partial(_graph, kinds),
        columns=partial(_columns, kinds),
        agree=partial(_agree, kinds),
    )


def _outputs(kinds: Kinds, labels: Labels, fitted: Fitted) -> Sequence[Output]:
    return [
        replace(output, name=f"{part.name}{BETWEEN}{output.name}", meaning=f"{part.name}: {output.meaning}")
        for part in kinds.parts(labels)
        for output in part.problem.deployment.outputs(part.labels, fitted.get(part.name, {}))
    ]


def _graph(kinds: Kinds, labels: Labels, fitted: Fitted) -> nn.Module:
    from zooft.problems.combined.graph import SideBySide

    return SideBySide(
        {
            part.name: part.problem.deployment.graph(part.labels, fitted.get(part.name, {}))
            for part in kinds.parts(labels)
        }
    )


def _columns(kinds: Kinds, answers: Columns, targets: Sequence[Any], labels: Labels, fitted: Fitted) -> Columns:
    def make(part: Part, own: Sequence[Any]) -> Columns:
        given = part.own(answers)
        return part.problem.deployment.columns(given, own, part.labels, fitted.get(part.name, {}))

    return part_columns(kinds, targets, labels, make)


def _agree(
    kinds: Kinds, torch: Columns, file: Columns, labels: Labels, fitted: Fitted, slack: Mapping[str, float]
) -> tuple[str, ...]:
    found: list[str] = []
    for part in kinds.parts(labels):
        own = fitted.get(part.name, {})
        failures = part.problem.deployment.agree(part.own(torch), part.own(file), part.labels, own, part.own(slack))
        found += [f"{part.name}: {text}" for text in failures]
    return tuple(found)
