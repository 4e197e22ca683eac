"""How good masks are: pixels of each class, true, found, and both, a row a picture; figures from sums of these rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_segmentation.borders import border_figures, can_measure
from zooft_segmentation.masks import OUTSIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = tuple[zooft.Label, ...]

TRUE, FOUND, BOTH = range(3)
MOST_CONFUSED = 99
"""Classes up to which a row has a confusion matrix; a row may hold 10,000 numbers."""
AREAS, CONFUSION, SHARES, BORDERS, DISTANCES = "areas", "confusion", "shares", "borders", "hd95"


def evaluation_part() -> zooft.EvaluationPart:
    """How good masks are."""
    return zooft.EvaluationPart(
        columns=_columns,
        metrics=metrics,
        primary="miou",
        smaller=frozenset({"hd95"}),
        details=details,
        telling=("pixel_accuracy",),
    )


def _columns(outputs: Mapping[str, NDArray[Any]], targets: Sequence[Any], labels: Labels) -> Mapping[str, NDArray[Any]]:
    """Of a head's maps ``(N, C, h, w)`` and moved masks ``(H, W)``."""
    import torch

    logits = torch.from_numpy(np.ascontiguousarray(outputs["logits"]))
    found = []
    for row, true in enumerate(targets):
        grown = torch.nn.functional.interpolate(logits[row : row + 1], true.shape, mode="bilinear", align_corners=False)
        # `max`'s places are those of `argmax`, in a fifth of its time where the axis isn't the last
        found.append(grown[0].max(0).indices.to(torch.uint8).numpy())
    return columns_of(found, targets, len(labels))


def deployed_columns(
    answers: Mapping[str, NDArray[Any]], targets: Sequence[Any], labels: Labels, _fitted: Mapping[str, Any]
) -> Mapping[str, NDArray[Any]]:
    """Of masks as the file gives them and targets at the samples' own size; how borders lie, too, where scipy is."""
    true = [None if target is None else target.pixels() for target in targets]
    columns = columns_of(list(answers["mask"]), true, len(labels))
    if not can_measure():
        return columns
    unknown = np.full((2, len(labels)), np.nan, np.float32)
    borders = [
        unknown if theirs is None else border_figures(ours, theirs, len(labels))
        for ours, theirs in zip(answers["mask"], true, strict=True)
    ]
    both = np.stack(borders) if borders else np.empty((0, *unknown.shape), np.float32)
    return {**columns, BORDERS: both[:, 0], DISTANCES: both[:, 1]}


def columns_of(found: Sequence[Any], true: Sequence[Any], classes: int) -> Mapping[str, NDArray[Any]]:
    """Rows of masks ``(H, W)`` uint8: pixels by class, which of them are confused, and the share of each class found.

    Args:
        found: numbers of classes.
        true: the same, `OUTSIDE` where nothing is known; None of a picture without a mask.
        classes: how many there are.
    """
    areas = np.zeros((len(found), classes, 3), np.int64)
    confused = np.zeros((len(found), classes, classes) if classes <= MOST_CONFUSED else (0, 0, 0), np.int64)
    shares = np.zeros((len(found), classes), np.float32)
    for row, (ours, theirs) in enumerate(zip(found, true, strict=True)):
        shares[row] = np.bincount(ours.ravel(), minlength=classes)[:classes] / max(1, ours.size)
        if theirs is None:
            continue
        known = theirs != OUTSIDE
        pairs = theirs[known].astype(np.int64) * classes + ours[known]
        table = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
        areas[row, :, TRUE], areas[row, :, FOUND] = table.sum(1), table.sum(0)
        areas[row, :, BOTH] = np.diagonal(table)
        if classes <= MOST_CONFUSED:
            confused[row] = table
    columns: dict[str, NDArray[Any]] = {AREAS: areas, SHARES: shares}
    return columns | ({CONFUSION: confused} if classes <= MOST_CONFUSED else {})


def overlaps(areas: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """IoU and Dice ``(…, C)`` of areas ``(…, C, 3)``; NaN of classes that aren't there in truth."""
    true, found, both = (areas[..., part].astype(np.float64) for part in (TRUE, FOUND, BOTH))
    there = true > 0
    iou = np.divide(both, true + found - both, out=np.full_like(both, np.nan), where=there)
    dice = np.divide(2 * both, true + found, out=np.full_like(both, np.nan), where=there)
    return iou, dice


def metrics(predictions: zooft.Predictions, labels: Labels) -> Mapping[str, float]:
    """Means over the classes that are there in truth, and each class's own; NaN where there is none."""
    rows = predictions[AREAS]
    areas = rows.sum(0)
    iou, dice = overlaps(areas)
    pixels = float(areas[:, TRUE].sum())
    figures = {
        "miou": _mean(iou),
        "mdice": _mean(dice),
        "pixel_accuracy": float(areas[:, BOTH].sum()) / pixels if pixels else float("nan"),
        "mean_accuracy": _mean(_recall(areas)),
        "miou_of_images": _mean(row_miou(rows)),
    }
    if BORDERS in predictions.columns:
        figures["boundary_f1"] = _mean(_means(predictions[BORDERS]))
    if DISTANCES in predictions.columns:
        figures["hd95"] = _mean(_means(predictions[DISTANCES]))
    for number, label in enumerate(labels):
        figures[f"iou/{label.name}"] = float(iou[number])
    return figures


def row_miou(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Of each picture ``(N,)``, over the classes that it has; NaN where it has none."""
    iou, _ = overlaps(rows)
    there = ~np.isnan(iou)
    summed = np.where(there, iou, 0).sum(-1)
    means: NDArray[np.float64] = np.divide(summed, there.sum(-1), out=np.full(len(rows), np.nan), where=there.any(-1))
    return means


def _recall(areas: NDArray[Any]) -> NDArray[np.float64]:
    true, both = areas[..., TRUE].astype(np.float64), areas[..., BOTH].astype(np.float64)
    return np.divide(both, true, out=np.full_like(both, np.nan), where=true > 0)


def _precision(areas: NDArray[Any]) -> NDArray[np.float64]:
    found, both = areas[..., FOUND].astype(np.float64), areas[..., BOTH].astype(np.float64)
    return np.divide(both, found, out=np.full_like(both, np.nan), where=found > 0)


def _means(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Of each column ``(C,)``, over the rows that have it; NaN where none has."""
    there = ~np.isnan(rows)
    summed = np.where(there, rows, 0).sum(0, dtype=np.float64)
    means: NDArray[np.float64] = np.divide(summed, there.sum(0), out=np.full_like(summed, np.nan), where=there.any(0))
    return means


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def details(
    predictions: zooft.Predictions, _groups: zooft.Predictions | None, labels: Labels, _fitted: Any, _intervals: bool
) -> Mapping[str, Any]:
    """A row a class, and the confusion matrix: pixels of each true class (rows) and predicted class (columns)."""
    rows = predictions[AREAS]
    areas = rows.sum(0)
    iou, dice = overlaps(areas)
    recall, precision = _recall(areas), _precision(areas)
    borders, distances = (
        _means(predictions[name]) if name in predictions.columns else np.full(len(labels), np.nan)
        for name in (BORDERS, DISTANCES)
    )
    classes = [
        {
            "name": label.name,
            "pixels": int(areas[n, TRUE]),
            "found": int(areas[n, FOUND]),
            "images": int((rows[:, n, TRUE] > 0).sum()),
            "iou": _json(iou[n]),
            "dice": _json(dice[n]),
            "precision": _json(precision[n]),
            "recall": _json(recall[n]),
            "boundary_f1": _json(borders[n]),
            "hd95": _json(distances[n]),
        }
        for n, label in enumerate(labels)
    ]
    found: dict[str, Any] = {"classes": classes}
    if CONFUSION in predictions.columns:
        found["confusion"] = predictions[CONFUSION].sum(0).tolist()
    return found


def _json(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
