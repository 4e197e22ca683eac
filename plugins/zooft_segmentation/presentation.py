"""How masks are shown: the share of each class, tables, and pictures with masks drawn in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_segmentation import plots, tiles
from zooft_segmentation.areas import AREAS, SHARES, TRUE, row_miou
from zooft_segmentation.classes import colours_of
from zooft_segmentation.drawing import draw_comparison

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = tuple[zooft.Label, ...]

LARGEST = "largest"
_LISTED = 6
_LOSSES = {
    "ce+dice": "cross entropy and 1 - Dice",
    "ce": "cross entropy",
    "dice": "1 - Dice",
    "focal": "focal loss",
    "lovasz": "Lovász-Softmax",
}


def presentation_part() -> zooft.PresentationPart:
    """How masks are shown."""
    return zooft.PresentationPart(
        cells=_cells,
        columns=_columns,
        target=_target,
        brief=_brief,
        record=_record,
        entries=(LARGEST, "shares"),
        about=_about,
        worst=_worst,
        caption=_caption,
        tables=_tables,
        sections=_sections,
        describe=_describe,
        usage=_usage,
        picture=_picture,
    )


def _columns(labels: Labels) -> Sequence[str]:
    return (LARGEST, *(f"share({label.name})" for label in labels))


def _cells(predictions: zooft.Predictions, labels: Labels, _fitted: Any) -> Mapping[str, Sequence[Any]]:
    shares = predictions[SHARES]
    largest = [labels[number].name for number in shares.argmax(1)]
    return {LARGEST: largest} | {
        f"share({label.name})": [float(share) for share in shares[:, number]] for number, label in enumerate(labels)
    }


def _brief(cells: Mapping[str, Any], labels: Labels) -> Mapping[str, Any]:
    """The classes with the most pixels."""
    if cells[LARGEST] == "":
        return {LARGEST: ""}
    shares = [float(cells[f"share({label.name})"]) for label in labels]
    return {LARGEST: _list(shares, labels)}


def _record(cells: Mapping[str, Any], labels: Labels) -> Mapping[str, Any]:
    return {LARGEST: cells[LARGEST], "shares": {label.name: cells[f"share({label.name})"] for label in labels}}


def _about(labels: Labels, _fitted: Any) -> Mapping[str, Any]:
    return {"classes": [label.name for label in labels]}


def _list(shares: Sequence[float], labels: Labels) -> str:
    """Such as ``road 41 %, sky 20 %``, the largest first; what has no pixel isn't there."""
    order = sorted((n for n, share in enumerate(shares) if share > 0), key=lambda n: -shares[n])
    return zooft.list_some([f"{labels[n].name} {shares[n]:.1%}" for n in order], _LISTED)


def _target(target: Any, labels: Labels) -> str:
    """Shares of the classes, and what distinguishes masks of the same shares: the audit compares these texts."""
    pixels = sum(target.counts)
    shares = _list([count / pixels for count in target.counts], labels) if pixels else "nothing but void"
    return f"{shares} ({target.mark})" if target.mark else shares


def _worst(predictions: zooft.Predictions, _labels: Labels) -> NDArray[Any]:
    """What a picture's mIoU lacks; of pictures without any class nothing."""
    return np.asarray(1 - np.nan_to_num(row_miou(predictions[AREAS]), nan=1.0))


def _caption(predictions: zooft.Predictions, labels: Labels, _fitted: Any) -> tuple[str, Sequence[str]]:
    row = predictions[AREAS][:1]
    miou = float(row_miou(row)[0])
    shares = [float(share) for share in predictions[SHARES][0]]
    title = "no class in truth" if math.isnan(miou) else f"mIoU {miou:.3f}"
    pixels = row[0, :, TRUE].sum()
    true = [float(count / pixels) for count in row[0, :, TRUE]] if pixels else []
    lines = [f"predicted: {_list(shares, labels)}"]
    return title, [*lines, f"true: {_list(true, labels)}"] if true else lines


def _tables(evaluation: Any, _labels: Labels) -> Sequence[zooft.Table]:
    classes = evaluation.details.get("classes", ())
    rows = tuple(
        (
            each["name"],
            f"{each['images']:,}",
            f"{each['pixels']:,}",
            zooft.format_figure(each["iou"], evaluation.metrics.get(f"iou/{each['name']}")),
            zooft.format_figure(each["dice"]),
            zooft.format_figure(each["precision"]),
            zooft.format_figure(each["recall"]),
            zooft.format_figure(each.get("boundary_f1")),
            zooft.format_figure(each.get("hd95"), form=".1f"),
        )
        for each in classes
    )
    columns = ("Class", "Images", "Pixels", "IoU", "Dice", "Precision", "Recall", "Boundary F1", "HD95, px")
    return (zooft.Table(title="Per class", columns=columns, rows=rows),)


def _sections(evaluated: Any, labels: Labels, _fitted: Any, _rule: str) -> Sequence[Any]:
    found: list[Any] = list(_tables(evaluated.evaluation, labels))
    confusion = evaluated.evaluation.details.get("confusion")
    if confusion:
        found.append(plots.confusion(np.array(confusion, np.float64), [label.name for label in labels]))
    found.append(plots.legend([label.name for label in labels], colours_of(labels)))
    return found


def _describe(labels: Labels, _fitted: Any, options: Mapping[str, Any]) -> zooft.Description:
    names = [label.name for label in labels]
    some = zooft.list_some(names, _LISTED)
    kind = _LOSSES.get(str(options.get("segmentation_loss")), "")
    balance = [f"The loss is {kind}, of each picture."] if kind else []
    if options.get("class_weights") == "balanced":
        balance.append("Classes with few pixels where they are count more, ten times at most.")
    return zooft.Description(
        aim=f"classify every pixel as {some}",
        purpose=f"It gives every pixel of a picture one of {len(names)} classes: {some}.",
        head=f"{len(names)} classes a pixel",
        note="pixels that the data leaves out (void) count nowhere",
        output=("A mask of the picture's own size, each pixel the number of its class.",),
        balance=tuple(balance),
    )


def _usage(labels: Labels, _fitted: Any, _rule: str, _group_name: str) -> Sequence[str]:
    size = int(labels[0].constants.get(tiles.SIZE, 0))
    cut = [f"# a square of {size} pixels; larger pictures are cut and blended as docs/deploy.md shows under Masks"]
    return [
        *(cut if size else []),
        f"classes = {[label.name for label in labels]!r}",
        'for mask in outputs["mask"]:  # (H, W) uint8, the number of a class at each pixel',
        "    print({classes[n]: float((mask == n).mean()) for n in np.unique(mask)})",
    ]


def _picture(
    picture: NDArray[Any], answers: Mapping[str, NDArray[Any]], target: Any, labels: Labels, _fitted: Any
) -> NDArray[Any]:
    return draw_comparison(picture, answers["mask"], target, labels)
