"""What a deployed file gives of numbers: their values, in their units."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import DeploymentPart, Output
from zooft.problems.regression.evaluation import column
from zooft.problems.regression.scaling import numbers_of, scale_of

if TYPE_CHECKING:
    from torch import nn

    from zooft.contracts import Columns, Fitted, Labels

VALUE = "value"


def deployment_part(tolerance: float) -> DeploymentPart:
    """How numbers are deployed.

    Args:
        tolerance: the largest difference of the file from the model that passes, root mean square, in standard
            deviations of each number's training targets.
    """
    return DeploymentPart(
        outputs=_outputs, graph=_graph, columns=_columns, agree=partial(_agree, tolerance), properties=_properties
    )


def _outputs(labels: Labels, _fitted: Fitted) -> Sequence[Output]:
    units = [label.unit or "1" for label in labels] if any(label.unit for label in labels) else [""]
    each = ", ".join(f"{label.name} in {label.unit}" if label.unit else label.name for label in labels)
    return (
        Output(
            name=VALUE,
            dtype="float32",
            axes=("batch", len(labels)),
            meaning=each if len(labels) == 1 else f"in this order: {each}",
            unit=units[0] if len(set(units)) == 1 else ", ".join(units),
        ),
    )


def _graph(labels: Labels, _fitted: Fitted) -> nn.Module:
    from zooft.problems.regression.graph import NumbersGraph

    return NumbersGraph(scale_of(labels))


def _columns(answers: Columns, targets: Sequence[Any], labels: Labels, _fitted: Fitted) -> Columns:
    return {
        "target": column(numbers_of(targets, labels), labels),
        "prediction": column(answers[VALUE].astype(np.float64), labels),
    }


def _agree(
    tolerance: float, torch: Columns, file: Columns, labels: Labels, _fitted: Fitted, _slack: Mapping[str, float]
) -> tuple[str, ...]:
    """Whether each number agrees by itself: among all of them, one in large units would hide the others."""
    apart = (file[VALUE].astype(np.float64) - torch[VALUE]) / scale_of(labels).std
    found = np.sqrt((apart**2).mean(0)) if len(apart) else np.zeros(len(labels))
    return tuple(
        f"{label.name} differs by {rms:.2g} standard deviations of its training targets (at most {tolerance:g} passes)"
        for label, rms in zip(labels, found, strict=True)
        if not rms <= tolerance
    )


def _properties(labels: Labels) -> Mapping[str, str]:
    return {"units": json.dumps({label.name: label.unit for label in labels}, ensure_ascii=False)}
