"""How good boxes are: COCO's average precision and what belongs to it, from rows that `matching` has made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import zooft
from zooft_detection import matching
from zooft_detection.matching import AREAS, HITS, IOUS, LABELS, LEFT_OUT, SCORES, TRUTHS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = tuple[zooft.Label, ...]

THRESHOLDS = "thresholds"
"""What is fitted: for each class the score from which on a box counts as found."""
UNFITTED = 0.5
"""The threshold of a class that validation data doesn't have."""
SENSITIVITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
RECALLS = np.linspace(0.0, 1.0, 101)
_HALF, _QUARTERS = 0, 5
"""Numbers of the overlaps 0.5 and 0.75."""


def evaluation_part() -> zooft.EvaluationPart:
    """How good boxes are."""
    return zooft.EvaluationPart(
        columns=_columns, metrics=metrics, primary="ap", fit=_fit, details=details, telling=("ap50", "ap75")
    )


# rows


def _columns(outputs: Mapping[str, NDArray[Any]], targets: Sequence[Any], labels: Labels) -> Mapping[str, NDArray[Any]]:
    """Of a head's outputs and moved boxes, in the network's input."""
    import torch

    from zooft_detection import graph, settings
    from zooft_detection.pyramid import DISTANCES, SQUARES, boxes_of

    given = {name: torch.from_numpy(np.ascontiguousarray(found)) for name, found in outputs.items()}
    places = boxes_of(given[DISTANCES], given[SQUARES])
    most, iou = settings.of(labels)
    found = graph.select(places, graph.scores_of(given), most=most, iou=iou)
    rows = []
    for number, target in enumerate(targets):
        there = target["labels"] >= 0
        truth = matching.Truth(
            target["boxes"][there].astype(np.float64), target["labels"][there], target["ignored"][there]
        )
        boxes, scores, names = (each[number].numpy() for each in found[:3])
        rows.append(matching.row(boxes.astype(np.float64), scores, names, truth, len(labels)))
    return matching.columns(rows)


def deployed_columns(
    answers: Mapping[str, NDArray[Any]], targets: Sequence[Any], labels: Labels, _fitted: Mapping[str, Any]
) -> Mapping[str, NDArray[Any]]:
    """Of boxes as the file gives them and targets in the samples' own pixels."""
    rows = []
    for number, target in enumerate(targets):
        boxes, scores, names = (answers[name][number] for name in ("boxes", "scores", "labels"))
        truth = None if target is None else matching.Truth(*target.arrays())
        rows.append(matching.row(boxes.astype(np.float64), scores, names, truth, len(labels)))
    return matching.columns(rows) if rows else _nothing(answers, len(labels))


def _nothing(answers: Mapping[str, NDArray[Any]], classes: int) -> Mapping[str, NDArray[Any]]:
    count = answers["scores"].shape[1] if answers["scores"].ndim > 1 else 0
    none = matching.row(np.zeros((count, 4)), np.zeros(count), np.full(count, -1), None, classes)
    return {name: column[:0] for name, column in matching.columns([none]).items()}


# figures


class Sorted(NamedTuple):
    """Boxes of one class in all pictures, the likeliest first.

    Attributes:
        scores: ``(n,)``.
        right: ``(n, A, T)`` bool.
        wrong: ``(n, A, T)`` bool.
        truths: ``(A,)``.
    """

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    truths: NDArray[np.int64]


def of_class(predictions: zooft.Predictions, number: int, *, areas: int = len(AREAS)) -> Sorted:
    """Those of a class; of the first `areas` alone."""
    own = predictions[LABELS] == number
    scores = predictions[SCORES][own]
    order = np.argsort(-scores, kind="stable")
    bits = (1 << np.arange(len(IOUS))).astype(np.uint16)
    hits, left_out = (
        (predictions[name][own][order][:, :areas, None] & bits) > 0 for name in (HITS, LEFT_OUT)
    )  # (n, A, T)
    truths = predictions[TRUTHS][:, number, :areas].sum(0).astype(np.int64)
    return Sorted(scores[order], hits, ~hits & ~left_out, truths)


def precisions(own: Sorted) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """COCO's ``accumulate``.

    Returns:
        Precision ``(101, A, T)`` at `RECALLS`, and the largest recall ``(A, T)``; NaN where there are no true boxes.
    """
    shape = own.right.shape[1:]
    found = np.full((len(RECALLS), *shape), np.nan)
    reached = np.full(shape, np.nan)
    there = own.truths > 0
    found[:, there], reached[there] = 0.0, 0.0
    if not len(own.scores) or not there.any():
        return found, reached
    right, wrong = (each.cumsum(0, dtype=np.float64) for each in (own.right, own.wrong))
    recall = right / np.maximum(own.truths, 1)[:, None]
    precision = right / (right + wrong + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    reached[there] = recall[-1][there]
    for area in np.flatnonzero(there):
        for level in range(shape[1]):
            places = np.searchsorted(recall[:, area, level], RECALLS, side="left")
            within = places < len(precision)
            found[within, area, level] = precision[places[within], area, level]
    return found, reached


def metrics(predictions: zooft.Predictions, labels: Labels) -> Mapping[str, float]:
    """COCO's figures: means over the classes that are there in truth; NaN where there is none."""
    each = [precisions(of_class(predictions, number)) for number in range(len(labels))]
    curves = np.stack([found for found, _ in each])  # (C, 101, A, T)
    recalls = np.stack([reached for _, reached in each])  # (C, A, T)
    ap = curves.mean(1)  # (C, A, T)
    figures = {
        "ap": _mean(ap[:, 0]),
        "ap50": _mean(ap[:, 0, _HALF]),
        "ap75": _mean(ap[:, 0, _QUARTERS]),
        "recall": _mean(recalls[:, 0]),
    }
    for number, name in enumerate(AREAS):
        if number:
            figures[f"ap_{name}"] = _mean(ap[:, number])
    for number, label in enumerate(labels):
        figures[f"ap/{label.name}"] = float(ap[number, 0].mean())
        figures[f"ap50/{label.name}"] = float(ap[number, 0, _HALF])
    return figures


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def row_ap50(predictions: zooft.Predictions) -> NDArray[np.float64]:
    """Of each picture ``(N,)`` by itself; of one without objects, 1 minus its largest score."""
    found = np.empty(len(predictions))
    for number in range(len(found)):
        one = zooft.Predictions(samples=(), columns=predictions.rows(np.array([number])))
        there = np.flatnonzero(one[TRUTHS][0, :, 0])
        each = [precisions(of_class(one, int(name), areas=1))[0][:, 0, _HALF].mean() for name in there]
        found[number] = np.mean(each) if each else 1 - one[SCORES][0].max(initial=0.0)
    return found


# what is fitted


def _fit(predictions: zooft.Predictions, labels: Labels, _rule: str, _options: Any) -> Mapping[str, Any]:
    """For each class the threshold of the largest F1 at an overlap of 0.5."""
    return {THRESHOLDS: [_threshold(of_class(predictions, number, areas=1)) for number in range(len(labels))]}


def _threshold(own: Sorted) -> float:
    """In the middle between the last score that counts and the next one."""
    if not own.truths[0] or not own.right[:, 0, _HALF].any():
        return UNFITTED
    right, wrong = (each[:, 0, _HALF].cumsum() for each in (own.right, own.wrong))
    f1 = 2 * right / (right + wrong + own.truths[0])
    # of equal scores the last one, since a threshold can't part them
    last = np.append(own.scores[1:] < own.scores[:-1], True)
    best = int(np.where(last, f1, -1).argmax())
    following = own.scores[best + 1] if best + 1 < len(own.scores) else 0.0
    return float((own.scores[best] + following) / 2)


def thresholds(fitted: Mapping[str, Any], labels: Labels) -> NDArray[np.float64]:
    """For each class ``(C,)``."""
    return np.array(fitted.get(THRESHOLDS) or [UNFITTED] * len(labels), np.float64)


def likely(scores: NDArray[Any], labels: NDArray[Any], limits: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which boxes count as found, of any shape."""
    found: NDArray[np.bool_] = (labels >= 0) & (scores >= limits[np.maximum(labels, 0)])
    return found


# details


def details(
    predictions: zooft.Predictions,
    _groups: zooft.Predictions | None,
    labels: Labels,
    fitted: Mapping[str, Any],
    _intervals: bool,
) -> Mapping[str, Any]:
    """A row a class, at its threshold; and how many boxes are wrong a picture where so many are found (FROC)."""
    limits = thresholds(fitted, labels)
    classes = []
    for number, label in enumerate(labels):
        own = of_class(predictions, number)
        curves, _ = precisions(own)
        counted = own.scores >= limits[number]
        right, wrong = (int(each[counted, 0, _HALF].sum()) for each in (own.right, own.wrong))
        objects = int(own.truths[0])
        classes.append(
            {
                "name": label.name,
                "objects": objects,
                "images": int((predictions[TRUTHS][:, number, 0] > 0).sum()),
                "ap": _json(curves[:, 0].mean()),
                "ap50": _json(curves[:, 0, _HALF].mean()),
                "ap75": _json(curves[:, 0, _QUARTERS].mean()),
                **{f"ap_{name}": _json(curves[:, area].mean()) for area, name in enumerate(AREAS) if area},
                "threshold": float(limits[number]),
                "precision": right / (right + wrong) if right + wrong else None,
                "recall": right / objects if objects else None,
                "wrong_per_image": wrong / max(1, len(predictions)),
                "froc": _froc(own, len(predictions)),
            }
        )
    return {"classes": classes, "sensitivities": list(SENSITIVITIES)}


def _froc(own: Sorted, pictures: int) -> list[float | None]:
    """Wrong boxes a picture at each of `SENSITIVITIES`; None where so many are never found."""
    found, wrong = froc_curve(own, pictures)
    places = np.searchsorted(found, SENSITIVITIES, side="left")
    return [float(wrong[place]) if place < len(wrong) else None for place in places]


def froc_curve(own: Sorted, pictures: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of the true boxes that are found, and wrong boxes a picture, as the threshold falls, at an overlap of 0.5.

    Free-response ROC (Chakraborty 1989).
    """
    right, wrong = (each[:, 0, _HALF].cumsum() for each in (own.right, own.wrong))
    return right / max(1, own.truths[0]), wrong / max(1, pictures)


def _json(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
