"""How boxes are shown: how many of each class, tables, curves, and pictures with boxes drawn in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_detection import matching, plots
from zooft_detection.deploy import detections
from zooft_detection.drawing import draw_comparison
from zooft_detection.evaluation import SENSITIVITIES, likely, row_ap50, thresholds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = tuple[zooft.Label, ...]

FOUND = "found"
_LISTED = 6
_FEW = 12
"""Classes up to which each has a column of its own on the screen."""


def presentation_part() -> zooft.PresentationPart:
    """How boxes are shown."""
    return zooft.PresentationPart(
        cells=_cells,
        columns=_columns,
        target=_target,
        brief=_brief,
        record=_record,
        entries=(FOUND, "counts"),
        about=_about,
        opening=_opening,
        worst=_worst,
        caption=_caption,
        tables=_tables,
        sections=_sections,
        describe=_describe,
        usage=_usage,
        picture=_picture,
    )


def _columns(labels: Labels) -> Sequence[str]:
    return (FOUND, *(f"count({label.name})" for label in labels))


def _cells(predictions: zooft.Predictions, labels: Labels, fitted: Any) -> Mapping[str, Sequence[Any]]:
    counts = _counts(predictions, labels, fitted)
    return {FOUND: [_list(row, labels) for row in counts]} | {
        f"count({label.name})": [int(row[number]) for row in counts] for number, label in enumerate(labels)
    }


def _counts(predictions: zooft.Predictions, labels: Labels, fitted: Any) -> NDArray[np.int64]:
    """Boxes from their thresholds on, ``(N, C)``."""
    names = predictions[matching.LABELS]
    found = likely(predictions[matching.SCORES], names, thresholds(fitted, labels))
    return np.stack([((names == number) & found).sum(1) for number in range(len(labels))], 1)


def _list(counts: Sequence[Any] | NDArray[Any], labels: Labels) -> str:
    """Such as ``12 RBC, 1 WBC``, the most first."""
    order = sorted((n for n, count in enumerate(counts) if count), key=lambda n: -int(counts[n]))
    return zooft.list_some([f"{int(counts[n])} {labels[n].name}" for n in order], _LISTED) or "nothing"


def _brief(cells: Mapping[str, Any], _labels: Labels) -> Mapping[str, Any]:
    return {FOUND: cells[FOUND]}


def _record(cells: Mapping[str, Any], labels: Labels) -> Mapping[str, Any]:
    return {FOUND: cells[FOUND], "counts": {label.name: cells[f"count({label.name})"] for label in labels}}


def _about(labels: Labels, fitted: Any) -> Mapping[str, Any]:
    return {"classes": [label.name for label in labels], "thresholds": thresholds(fitted, labels).tolist()}


def _opening(labels: Labels, fitted: Any) -> Sequence[str]:
    if len(labels) > _FEW:
        return ("a box counts as found from the threshold of its class on",)
    limits = thresholds(fitted, labels)
    words = ", ".join(f"{label.name} {limit:.2f}" for label, limit in zip(labels, limits, strict=True))
    return (f"a box counts as found from the score of its class on: {words}",)


def _target(target: Any, labels: Labels) -> str:
    """How many of each class, and what distinguishes pictures of the same numbers: the audit compares these texts."""
    counts = Counter(number for number, ignored in zip(target.classes, target.ignored, strict=True) if not ignored)
    words = _list([counts[number] for number in range(len(labels))], labels)
    if not target.corners:
        return words
    rows, columns = target.size
    shares = np.array(target.corners) / np.array([columns, rows, columns, rows])
    return f"{words} (middle {', '.join(f'{share:.3f}' for share in _middle(shares))})"


def _middle(shares: NDArray[np.float64]) -> tuple[float, float]:
    """Of all boxes, as shares of the picture."""
    x, y = ((shares[:, :2] + shares[:, 2:]) / 2).mean(0)
    return float(x), float(y)


def _worst(predictions: zooft.Predictions, _labels: Labels) -> NDArray[Any]:
    """What a picture's own AP50 lacks."""
    return np.asarray(1 - row_ap50(predictions))


def _caption(predictions: zooft.Predictions, labels: Labels, fitted: Any) -> tuple[str, Sequence[str]]:
    true = predictions[matching.TRUTHS][0, :, 0]
    title = f"AP50 {row_ap50(predictions)[0]:.3f}" if true.sum() else "no object in truth"
    found = _list(_counts(predictions, labels, fitted)[0], labels)
    return title, [f"predicted: {found}", f"true: {_list(true, labels)}"]


def _tables(evaluation: Any, _labels: Labels) -> Sequence[zooft.Table]:
    classes = evaluation.details.get("classes", ())
    rows = tuple(
        (
            each["name"],
            f"{each['objects']:,}",
            f"{each['images']:,}",
            zooft.format_figure(each["ap"], evaluation.metrics.get(f"ap/{each['name']}")),
            zooft.format_figure(each["ap50"]),
            zooft.format_figure(each["ap75"]),
            f"{each['threshold']:.2f}",
            zooft.format_figure(each["precision"]),
            zooft.format_figure(each["recall"]),
        )
        for each in classes
    )
    heads = ("Class", "Objects", "Images", "AP", "AP50", "AP75", "Threshold", "Precision", "Recall")
    return (zooft.Table(title="Per class", columns=heads, rows=rows),)


def _sections(evaluated: Any, labels: Labels, _fitted: Any, _rule: str) -> Sequence[Any]:
    evaluation = evaluated.evaluation
    found: list[Any] = [*_tables(evaluation, labels), _sizes(evaluation), _froc(evaluation)]
    found.append(plots.precision_recall(evaluated.predictions, [label.name for label in labels]))
    found.append(plots.froc(evaluated.predictions, [label.name for label in labels]))
    return [each for each in found if each is not None]


def _sizes(evaluation: Any) -> zooft.Table:
    names = [name for name in matching.AREAS if name != "all"]
    rows = [
        (each["name"], *(zooft.format_figure(each[f"ap_{name}"]) for name in names))
        for each in evaluation.details.get("classes", ())
    ]
    mean = ("mean", *(_with_interval(evaluation, f"ap_{name}") for name in names))
    heads = ("AP by size", "small (up to 32² pixels)", "medium (up to 96²)", "large")
    return zooft.Table(title="By size of the objects", columns=heads, rows=(mean, *rows))


def _with_interval(evaluation: Any, name: str) -> str:
    found = evaluation.metrics.get(name)
    return zooft.format_figure(None if found is None else found.value, found)


def _froc(evaluation: Any) -> zooft.Table:
    rows = tuple(
        (each["name"], *("not reached" if value is None else f"{value:.2f}" for value in each["froc"]))
        for each in evaluation.details.get("classes", ())
    )
    heads = ("Class", *(f"{share:.0%} found" for share in SENSITIVITIES))
    return zooft.Table(title="Wrong boxes an image where so many objects are found (FROC)", columns=heads, rows=rows)


def _describe(labels: Labels, _fitted: Any, options: Mapping[str, Any]) -> zooft.Description:
    names = [label.name for label in labels]
    some = zooft.list_some(names, _LISTED)
    return zooft.Description(
        aim=f"find {some} and draw a box around each",
        purpose=f"It draws boxes around objects of {len(names)} classes: {some}.",
        head=f"{len(names)} classes and a box at every place",
        note="regions that the data leaves out (crowds, difficult ones) count nowhere",
        output=(f"At most {options.get('max_boxes', 100)} boxes a picture, with class and score, in its own pixels.",),
        fitted="a threshold of the score for each class, by the largest F1 at an overlap of 0.5",
        balance=("The loss is focal loss of the classes, GIoU loss of the boxes and cross entropy of the centreness.",),
    )


def _usage(labels: Labels, fitted: Any, _rule: str, _group_name: str) -> Sequence[str]:
    return [
        f"classes = {[label.name for label in labels]!r}",
        f"thresholds = np.array({[round(float(limit), 4) for limit in thresholds(fitted, labels)]!r})",
        'for boxes, scores, labels in zip(outputs["boxes"], outputs["scores"], outputs["labels"]):',
        "    for place in np.flatnonzero((labels >= 0) & (scores >= thresholds[labels])):",
        "        print(classes[labels[place]], scores[place], boxes[place])  # x, y, x, y in pixels",
    ]


def _picture(
    picture: NDArray[Any], answers: Mapping[str, NDArray[Any]], target: Any, labels: Labels, fitted: Any
) -> NDArray[Any]:
    return draw_comparison(picture, detections(answers, thresholds(fitted, labels)), target, labels)
