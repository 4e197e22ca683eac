"""What a deployed classifier gives: probabilities, calibrated logits, and the class that they decide for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import DeploymentPart, Output
from zooft.contracts.plurals import pluralize
from zooft.errors import ConfigError
from zooft.problems.classification.evaluation import calibration_of, targets_column
from zooft.problems.classification.metrics import decide

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from zooft.contracts import Columns, Fitted, Labels, OutputDifference
    from zooft.problems.classification.calibration import Activation

ACTIVATIONS = ("softmax", "sigmoid")


def deployment_part(*, activation: Activation, probability_limit: float) -> DeploymentPart:
    """How classes are deployed.

    Args:
        activation: logits to probabilities, inside the graph.
        probability_limit: the largest difference of a probability between the file and the model that passes.

    Raises:
        ConfigError: there is no such activation.
    """
    if activation not in ACTIVATIONS:
        raise ConfigError(f"there is no activation {activation!r}; there are {' and '.join(ACTIVATIONS)}")
    return DeploymentPart(
        outputs=partial(_outputs, activation, probability_limit),
        graph=partial(_graph, activation),
        columns=_columns,
        agree=_agree,
        properties=_properties,
        figures=_figures,
    )


def _outputs(activation: Activation, limit: float, labels: Labels, fitted: Fitted) -> Sequence[Output]:
    classes = len(labels[0].categories)
    threshold = calibration_of(fitted).threshold
    decided = (
        "the likeliest class, the first of equals"
        if threshold is None
        else f"1 where the second class's probability is at least {threshold:g}, else 0"
    )
    return (
        Output(
            name="probabilities",
            dtype="float32",
            axes=("batch", classes),
            measure="absolute",
            tolerance=limit,
            meaning=f"of the classes in their order, by {activation}",
        ),
        Output(name="logits", dtype="float32", axes=("batch", classes), meaning="divided by the temperature"),
        Output(
            name="prediction",
            dtype="int64",
            axes=("batch",),
            measure="exact",
            tolerance=0.0,
            meaning=f"index of a class: {decided}",
        ),
    )


def _graph(activation: Activation, _labels: Labels, fitted: Fitted) -> nn.Module:
    from zooft.problems.classification.graph import ClassGraph

    return ClassGraph(activation, calibration_of(fitted))


def _columns(answers: Columns, targets: Sequence[Any], _labels: Labels, fitted: Fitted) -> Columns:
    columns = {
        "target": targets_column(targets),
        "logits": answers["logits"],
        "probabilities": answers["probabilities"],
    }
    threshold = calibration_of(fitted).threshold
    return columns if threshold is None else {**columns, "threshold": np.full(len(targets), threshold)}


def _agree(
    torch: Columns, file: Columns, _labels: Labels, fitted: Fitted, slack: Mapping[str, float]
) -> tuple[str, ...]:
    """Whether ``prediction`` is what the file's probabilities and threshold give, and no clear choice was moved."""
    faults = []
    # an old file may have no such output
    given, threshold = file.get("prediction"), calibration_of(fitted).threshold
    wrong = 0 if given is None else int((given != decide(file["probabilities"], threshold)).sum())
    if wrong:
        faults.append(f"of {wrong} samples the output prediction isn't the class that probabilities and threshold give")
    flipped = _clear_flips(torch["logits"], file["logits"], slack["logits"])
    if flipped:
        faults.append(
            f"{pluralize(flipped, 'sample gets', 'samples get')} another best class, though torch's choice is clear"
        )
    return tuple(faults)


def _clear_flips(ours: NDArray[Any], theirs: NDArray[Any], margin: float) -> int:
    """Samples whose best class changed although it led by more than a right file can move it."""
    ordered = np.sort(ours.astype(np.float64), 1)
    clear = ordered[:, -1] - ordered[:, -2] > margin
    return int((clear & (theirs.argmax(1) != ours.argmax(1))).sum())


def _properties(labels: Labels) -> Mapping[str, str]:
    classes = labels[0].categories
    found = {
        "classes": json.dumps(list(classes), ensure_ascii=False),
        "names": str(dict(enumerate(classes))),
        "model_info labels": " ".join(name.replace(" ", "_") for name in classes),
    }
    return {**found, "positive_class": classes[1]} if len(classes) == 2 else found


def _figures(differences: Mapping[str, OutputDifference]) -> Mapping[str, float]:
    """By the names that files of version 0.1 have, which others may read."""
    found = {"max_probability_difference": "probabilities", "top1_agreement": "prediction"}
    return {
        name: 1 - differences[output].whole if output == "prediction" else differences[output].whole
        for name, output in found.items()
        if output in differences
    }
