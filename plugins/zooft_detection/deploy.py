"""What the file gives: boxes in each picture's own pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_detection import settings
from zooft_detection.discover import NUMBER
from zooft_detection.drawing import draw_boxes
from zooft_detection.evaluation import deployed_columns, likely, thresholds

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    Labels = tuple[zooft.Label, ...]

_HALF_A_PIXEL = 0.5
_SAME_SCORE = 1e-2


def deployment_part() -> zooft.DeploymentPart:
    """What the file gives."""
    return zooft.DeploymentPart(
        outputs=_outputs,
        graph=_graph,
        columns=deployed_columns,
        agree=_agree,
        properties=_properties,
        writers={"coco": write_coco, "yolo": write_yolo, "overlays": write_overlays},
    )


def _outputs(labels: Labels, _fitted: Any) -> Sequence[zooft.Output]:
    most = settings.of(labels).most
    return [
        zooft.Output(
            name="boxes",
            dtype="float32",
            axes=("batch", most, 4),
            unit="pixel",
            measure="own",
            meaning="corners of each box in the input: x and y from its upper left corner, x and y of the lower right "
            "corner; the likeliest box first, zeros behind the last one",
        ),
        zooft.Output(
            name="scores",
            dtype="float32",
            axes=("batch", most),
            measure="own",
            meaning="of each box, 0.05 to 1, and 0 behind the last one; not a probability: the geometric mean of "
            "class and centreness. A box counts as found from the threshold of its class on (metadata, fitted)",
        ),
        zooft.Output(
            name="labels",
            dtype="int64",
            axes=("batch", most),
            measure="own",
            meaning="number of each box's class, from 0, in the order of the labels; -1 behind the last box",
        ),
        zooft.Output(name="count", dtype="int64", axes=("batch",), measure="own", meaning="how many boxes there are"),
        zooft.Output(
            name="logits",
            dtype="float32",
            axes=("batch", "places", len(labels)),
            measure="spread",
            tolerance=1e-4,
            meaning="a number for each class at each place of the network's own maps, before boxes are chosen",
        ),
        zooft.Output(
            name="place_boxes",
            dtype="float32",
            axes=("batch", "places", 4),
            measure="spread",
            tolerance=1e-4,
            meaning="corners of the box that each place sees, in pixels of the network's input, before boxes are "
            "chosen",
        ),
    ]


def _graph(labels: Labels, _fitted: Any) -> nn.Module:
    from zooft_detection.graph import Boxes

    most, iou = settings.of(labels)
    return Boxes(most=most, iou=iou)


def _agree(
    torch: Mapping[str, NDArray[Any]],
    file: Mapping[str, NDArray[Any]],
    labels: Labels,
    fitted: Mapping[str, Any],
    _slack: Any,
) -> tuple[str, ...]:
    """Every box above its threshold has a counterpart of its own in the other prediction, within half a pixel."""
    limits = thresholds(fitted, labels)
    lost = compared = 0
    for row in range(len(torch["count"])):
        ours, theirs = ({name: answer[name][row] for name in ("boxes", "scores", "labels")} for answer in (torch, file))
        for one, other in ((ours, theirs), (theirs, ours)):
            found, without = _partners(one, other, limits)
            compared, lost = compared + found + without, lost + without
    if not lost:
        return ()
    return (f"{lost} of {compared} boxes without a counterpart within half a pixel",)


def _partners(
    ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]], limits: NDArray[np.float64]
) -> tuple[int, int]:
    """Boxes above their thresholds that have a counterpart of their own, and those that have none."""
    free = theirs["labels"] >= 0
    found = without = 0
    for number in np.flatnonzero(likely(ours["scores"], ours["labels"], limits)):
        apart = np.abs(theirs["boxes"] - ours["boxes"][number]).max(-1)
        fits = free & (theirs["labels"] == ours["labels"][number]) & (apart <= _HALF_A_PIXEL)
        fits &= np.abs(theirs["scores"] - ours["scores"][number]) <= _SAME_SCORE
        if fits.any():
            free[np.where(fits, apart, np.inf).argmin()] = False
            found += 1
        else:
            without += 1
    return found, without


def _properties(labels: Labels) -> Mapping[str, str]:
    return {"classes": json.dumps([label.name for label in labels])}


def category_of(labels: Labels) -> list[int]:
    """The number that the data had for each class; from 1 where it had none."""
    numbers = [label.constants.get(NUMBER) for label in labels]
    if any(number is None for number in numbers) or len(set(numbers)) < len(numbers):
        return list(range(1, len(labels) + 1))
    return [int(number) for number in numbers if number is not None]


# formats of predict


def write_coco(answers: Iterable[zooft.FileAnswer], labels: Labels, _fitted: Any, folder: Path) -> Sequence[Path]:
    """Two files: all boxes with their scores as COCO's results, and the pictures and categories that they name."""
    numbers = category_of(labels)
    images: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for answer in answers:
        rows, columns = answer.picture().shape[:2]
        images.append({"id": len(images) + 1, "file_name": answer.key, "height": rows, "width": columns})
        found = answer.outputs
        for place in range(int(found["count"])):
            left, top, right, bottom = (float(each) for each in found["boxes"][place])
            results.append(
                {
                    "image_id": len(images),
                    "category_id": numbers[int(found["labels"][place])],
                    "bbox": [left, top, right - left, bottom - top],
                    "score": float(found["scores"][place]),
                }
            )
    categories = [{"id": number, "name": label.name} for number, label in zip(numbers, labels, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    written = {"boxes.json": results, "images.json": {"images": images, "annotations": [], "categories": categories}}
    for name, content in written.items():
        (folder / name).write_text(json.dumps(content), "utf-8")
    return [folder / name for name in written]


def write_yolo(answers: Iterable[zooft.FileAnswer], labels: Labels, fitted: Any, folder: Path) -> Sequence[Path]:
    """A text file a picture: class, middle, width and height as shares, score; boxes from their thresholds on."""
    limits, names = thresholds(fitted, labels), zooft.FileNames(folder, taken=("classes",))
    written = [folder / "classes.txt"]
    written[0].write_text("".join(f"{label.name}\n" for label in labels), "utf-8")
    for answer in answers:
        rows, columns = answer.picture().shape[:2]
        written.append(names.path(answer.key, ".txt"))
        lines = []
        for box, score, label in detections(answer.outputs, limits):
            left, top, right, bottom = (float(each) / side for each, side in zip(box, (columns, rows) * 2, strict=True))
            shares = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
            lines.append(f"{label} {' '.join(f'{share:.6f}' for share in shares)} {score:.4f}\n")
        written[-1].write_text("".join(lines), "utf-8")
    return written


def write_overlays(answers: Iterable[zooft.FileAnswer], labels: Labels, fitted: Any, folder: Path) -> Sequence[Path]:
    """A PNG a picture, with the boxes from their thresholds on drawn in."""
    from PIL import Image

    limits, names, written = thresholds(fitted, labels), zooft.FileNames(folder, taken=("classes",)), list[Path]()
    for answer in answers:
        written.append(names.path(answer.key, ".png"))
        boxes = list(detections(answer.outputs, limits))
        Image.fromarray(draw_boxes(answer.picture(), boxes, labels)).save(written[-1])
    return written


def detections(
    answers: Mapping[str, NDArray[Any]], limits: NDArray[np.float64]
) -> Iterable[tuple[NDArray[Any], float, int]]:
    """Corners, score and class of one picture's boxes from their thresholds on."""
    for place in np.flatnonzero(likely(answers["scores"], answers["labels"], limits)):
        yield answers["boxes"][place], float(answers["scores"][place]), int(answers["labels"][place])
