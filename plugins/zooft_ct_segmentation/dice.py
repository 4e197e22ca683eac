"""How good masks of CT are: Dice of all a patient's slices together, and volumes in mm³ with their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_segmentation import AREAS, BOTH, FOUND, SHARES, TRUE, overlaps, problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = tuple[zooft.Label, ...]

VOLUMES = "mm3"
"""Column of patients: mm³ of each class, true, found and both, as `AREAS` has voxels."""


def evaluation_part() -> zooft.EvaluationPart:
    """How good masks of CT are."""
    return replace(
        problem().evaluation,
        metrics=metrics,
        primary="dice",
        smaller=frozenset({"volume_error", "false_positives"}),
        telling=(),
        group=group,
        decisive=decisive,
        details=details,
    )


def group(
    predictions: zooft.Predictions, members: Sequence[NDArray[Any]], _labels: Labels, _rule: str
) -> Mapping[str, NDArray[Any]]:
    """Voxels, and mm³ as far as they're known, of all slices of each patient together."""
    areas, shares = predictions[AREAS], predictions[SHARES]
    voxels = voxels_of(predictions)
    volumes = areas * voxels[:, None, None]
    found: dict[str, NDArray[Any]] = {
        AREAS: np.stack([areas[rows].sum(0) for rows in members]),
        VOLUMES: np.stack([volumes[rows].sum(0) for rows in members]),
        SHARES: np.stack([shares[rows].mean(0) for rows in members]),
    }
    # without truth there are no areas, but what was found is known by its share
    pixels = pixels_of(predictions)
    of_share = np.stack([(shares[rows] * (pixels * voxels)[rows, None]).sum(0) for rows in members])
    unknown = found[AREAS].sum((1, 2)) == 0
    found[VOLUMES][unknown, :, FOUND] = of_share[unknown]
    return found


def voxels_of(predictions: zooft.Predictions) -> NDArray[np.float64]:
    """Mm³ of a voxel of each slice ``(N,)``; NaN where that isn't known."""
    known = [float(getattr(sample.source, "voxel", np.nan)) for sample in predictions.samples]
    return np.array(known, np.float64) if known else np.full(len(predictions), np.nan)


def pixels_of(predictions: zooft.Predictions) -> NDArray[np.float64]:
    """Pixels of each slice ``(N,)``; NaN where that isn't known."""
    known = [float(getattr(sample.source, "pixels", np.nan)) for sample in predictions.samples]
    return np.array(known, np.float64) if known else np.full(len(predictions), np.nan)


def decisive(predictions: zooft.Predictions, _labels: Labels) -> int:
    """The slice that shows most of the structures."""
    return int(predictions[SHARES][:, 1:].sum(1).argmax())


def metrics(predictions: zooft.Predictions, labels: Labels) -> Mapping[str, float]:
    """Of slices, Dice of all their pixels together; of patients, the mean of each one's own, and volumes in mm³.

    Means are over the structures, without the background; of patients without a structure no Dice is defined.
    """
    if VOLUMES in predictions.columns:
        return _of_patients(predictions, labels)
    areas = predictions[AREAS].sum(0)
    iou, dice = overlaps(areas)
    figures = {"dice": _mean(dice[1:]), "iou": _mean(iou[1:])}
    for number, label in enumerate(labels[1:], start=1):
        figures[f"dice/{label.name}"] = float(dice[number])
    return figures


def _of_patients(predictions: zooft.Predictions, labels: Labels) -> Mapping[str, float]:
    areas, volumes = predictions[AREAS], predictions[VOLUMES]
    iou, dice = overlaps(areas)
    error = volumes[..., FOUND] - volumes[..., TRUE]
    without = areas[..., TRUE] == 0
    each = [_mean(dice[:, number]) for number in range(1, len(labels))]
    figures = {"dice": _mean(np.array(each)), "iou": _mean(iou[:, 1:])}
    for number, label in enumerate(labels[1:], start=1):
        figures[f"dice/{label.name}"] = each[number - 1]
        figures[f"volume_error/{label.name}"] = _mean(np.abs(error[:, number]))
        figures[f"volume_bias/{label.name}"] = _mean(error[:, number])
        wrong = areas[without[:, number], number, FOUND] > 0
        figures[f"false_positives/{label.name}"] = float(wrong.mean()) if len(wrong) else float("nan")
    return figures


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def details(
    predictions: zooft.Predictions, groups: zooft.Predictions | None, labels: Labels, fitted: Any, intervals: bool
) -> Mapping[str, Any]:
    """A row a class, the confusion by pixels, and a row for each patient and structure."""
    found = dict(problem().evaluation.details(predictions, None, labels, fitted, intervals))
    if groups is None or VOLUMES not in groups.columns:
        return found
    areas, volumes = groups[AREAS], groups[VOLUMES]
    _, dice = overlaps(areas)
    names = [sample.group or sample.id for sample in groups.samples] or [str(row) for row in range(len(groups))]
    found["patients"] = [
        {
            "patient": name,
            "structure": label.name,
            "true_mm3": _json(volumes[row, number, TRUE]),
            "found_mm3": _json(volumes[row, number, FOUND]),
            "error_mm3": _json(volumes[row, number, FOUND] - volumes[row, number, TRUE]),
            "overlap_mm3": _json(volumes[row, number, BOTH]),
            "dice": _json(dice[row, number]),
        }
        for row, name in enumerate(names)
        for number, label in enumerate(labels[1:], start=1)
    ]
    return found


def _json(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
