"""What a deployed file gives of labels: a probability each, and which are there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import DeploymentPart, Output
from zooft.problems.multilabel.evaluation import decide, thresholds_of
from zooft.problems.multilabel.training import targets_column

if TYPE_CHECKING:
    from torch import nn

    from zooft.contracts import Columns, Fitted, Labels


def deployment_part(probability_limit: float) -> DeploymentPart:
    """How labels are deployed.

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


def _outputs(limit: float, labels: Labels, fitted: Fitted) -> Sequence[Output]:
    each = ", ".join(
        f"{label.name} from {line:.4g}" for label, line in zip(labels, thresholds_of(fitted, labels), strict=True)
    )
    return (
        Output(
            name="probabilities",
            dtype="float32",
            axes=("batch", len(labels)),
            measure="absolute",
            tolerance=limit,
            meaning="of the labels in their order, each by itself",
        ),
        Output(name="logits", dtype="float32", axes=("batch", len(labels)), meaning="of the labels in their order"),
        Output(
            name="present",
            dtype="int64",
            axes=("batch", len(labels)),
            measure="exact",
            tolerance=0.0,
            meaning=f"1 where a label's probability is at least its threshold, else 0: {each}",
        ),
    )


def _graph(labels: Labels, fitted: Fitted) -> nn.Module:
    from zooft.problems.multilabel.graph import LabelsGraph

    return LabelsGraph(thresholds_of(fitted, labels).tolist())


def _columns(answers: Columns, targets: Sequence[Any], labels: Labels, fitted: Fitted) -> Columns:
    columns = {
        "target": targets_column(targets, labels),
        "logits": answers["logits"],
        "probabilities": answers["probabilities"],
    }
    return {**decide(columns, thresholds_of(fitted, labels)), "present": answers["present"].astype(np.uint8)}


def _agree(
    torch: Columns, file: Columns, labels: Labels, fitted: Fitted, slack: Mapping[str, float]
) -> tuple[str, ...]:
    """Whether ``present`` is what the file's probabilities give, and no clear answer was moved."""
    faults = []
    lines = thresholds_of(fitted, labels)
    wrong = int(((file["probabilities"] >= lines) != (file["present"] == 1)).any(1).sum())
    if wrong:
        faults.append(f"of {wrong} samples the output present isn't what probabilities and thresholds give")
    with np.errstate(divide="ignore"):  # a threshold of 0 or 1 is far from every logit
        steps = np.log(lines.astype(np.float64)) - np.log1p(-lines.astype(np.float64))
    clear = np.abs(torch["logits"] - steps) > slack.get("logits", np.inf)
    moved = int(((torch["present"] != file["present"]) & clear).any(1).sum())
    if moved:
        faults.append(f"{moved} samples get other labels, though torch's answer is clear")
    return tuple(faults)


def _properties(labels: Labels) -> Mapping[str, str]:
    names = [label.name for label in labels]
    return {"labels": json.dumps(names, ensure_ascii=False), "names": str(dict(enumerate(names)))}
