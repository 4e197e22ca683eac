"""How a class is shown: in tables of answers, in words, and on the report's page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import PresentationPart
from zooft.problems.classification.evaluation import calibration_of, predicted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Fitted, Labels
    from zooft.evaluation.predictions import Predictions

_FEW = 4
"""Classes that have a column each on the screen."""


def presentation_part() -> PresentationPart:
    """How classes are shown."""
    return PresentationPart(
        cells=_cells, columns=_names, target=_target, brief=_brief, record=_record, about=_about, opening=_opening, worst=_worst,
    )  # fmt: skip


def _names(labels: Labels) -> Sequence[str]:
    return ("class", *(f"p({name})" for name in labels[0].categories))


def _cells(predictions: Predictions, labels: Labels, _fitted: Fitted) -> Mapping[str, Sequence[Any]]:
    classes = labels[0].categories
    names = [classes[index] for index in predicted(predictions)]
    each = predictions["probabilities"].T
    return {"class": names} | {f"p({name})": [float(p) for p in each[index]] for index, name in enumerate(classes)}


def _target(target: Any, labels: Labels) -> str:
    return labels[0].categories[target]


def _brief(cells: Mapping[str, Any], labels: Labels) -> Mapping[str, Any]:
    """Of many classes the probability of the predicted one."""
    if len(labels[0].categories) <= _FEW:
        return cells
    return {"class": cells["class"], "probability": cells.get(f"p({cells['class']})", "")}


def _record(cells: Mapping[str, Any], labels: Labels) -> Mapping[str, Any]:
    given = {name: cells[f"p({name})"] for name in labels[0].categories}
    return {
        "class": cells["class"],
        "probability": given[cells["class"]],
        "probabilities": {name: p if math.isfinite(p) else None for name, p in given.items()},
    }


def _about(labels: Labels, fitted: Fitted) -> Mapping[str, Any]:
    classes = {"classes": list(labels[0].categories)}
    return {**classes, "threshold": calibration_of(fitted).threshold} if fitted else classes


def _opening(labels: Labels, fitted: Fitted) -> Sequence[str]:
    classes, threshold = labels[0].categories, calibration_of(fitted).threshold
    if threshold is not None:
        return (f"{classes[-1]} is said from a probability of {threshold:.4f} on",)
    return (f"the positive class is {classes[1]}",) if len(classes) == 2 else ()


def _worst(predictions: Predictions, _labels: Labels) -> NDArray[Any]:
    """How sure a wrong answer was; right ones below 0, the surest lowest."""
    said = predicted(predictions)
    sure = predictions["probabilities"][np.arange(len(said)), said]
    return np.where(said != predictions["target"], sure, -sure)
