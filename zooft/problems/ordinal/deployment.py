"""What a deployed file gives of grades: their probabilities, and the likeliest one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import DeploymentPart, Output
from zooft.contracts.plurals import pluralize
from zooft.problems.ordinal.evaluation import targets_column

if TYPE_CHECKING:
    from torch import nn

    from zooft.contracts import Columns, Fitted, Labels

LOGITS = "cumulative_logits"


def deployment_part(probability_limit: float) -> DeploymentPart:
    """How grades are deployed.

    Args:
        probability_limit: the largest difference of a probability between the file and the model that passes.
    """
    return DeploymentPart(
        outputs=partial(_outputs, probability_limit),
        graph=_graph,
        columns=_columns,
        agree=_agree,
        properties=_properties,
    )


def _outputs(limit: float, labels: Labels, _fitted: Fitted) -> Sequence[Output]:
    grades = labels[0].categories
    return (
        Output(
            name="probabilities",
            dtype="float32",
            axes=("batch", len(grades)),
            measure="absolute",
            tolerance=limit,
            meaning="of the grades in their order",
        ),
        Output(
            name=LOGITS,
            dtype="float32",
            axes=("batch", len(grades) - 1),
            meaning=f"of a grade of at least {', '.join(grades[1:])}; descending",
        ),
        Output(
            name="grade",
            dtype="int64",
            axes=("batch",),
            measure="exact",
            tolerance=0.0,
            meaning=(
                f"index of the median grade: how many cumulative logits are above 0; 0 is {grades[0]}, "
                f"{len(grades) - 1} is {grades[-1]}"
            ),
        ),
    )


def _graph(_labels: Labels, _fitted: Fitted) -> nn.Module:
    from zooft.problems.ordinal.graph import GradeGraph

    return GradeGraph()


def _columns(answers: Columns, targets: Sequence[Any], _labels: Labels, _fitted: Fitted) -> Columns:
    return {
        "target": targets_column(targets),
        "probabilities": answers["probabilities"],
        "prediction": answers["grade"].astype(np.int64),
    }


def _agree(
    torch: Columns, file: Columns, _labels: Labels, _fitted: Fitted, slack: Mapping[str, float]
) -> tuple[str, ...]:
    """Whether ``grade`` is what the file's logits give, and no clear one was moved."""
    faults = []
    wrong = int((file["grade"] != (file[LOGITS] > 0).sum(1)).sum())
    if wrong:
        faults.append(f"of {wrong} samples the output grade isn't the one that {LOGITS} give")
    crossed = (torch[LOGITS] > 0) != (file[LOGITS] > 0)
    clear = np.abs(torch[LOGITS]) > slack.get(LOGITS, np.inf)
    moved = int((crossed & clear).any(1).sum())
    if moved:
        faults.append(f"{pluralize(moved, 'sample gets', 'samples get')} another grade, though torch's is clear")
    return tuple(faults)


def _properties(labels: Labels) -> Mapping[str, str]:
    grades = labels[0].categories
    return {
        "classes": json.dumps(list(grades), ensure_ascii=False),
        "names": str(dict(enumerate(grades))),
    }
