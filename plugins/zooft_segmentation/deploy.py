"""What the file gives: a mask of each picture's own size."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_segmentation import needs, tiles
from zooft_segmentation.areas import deployed_columns
from zooft_segmentation.classes import colours_of, to_cell
from zooft_segmentation.drawing import paint
from zooft_segmentation.training import HEAD

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    Labels = tuple[zooft.Label, ...]

MASK, PROBABILITIES = "mask", "probabilities"
_MOST_DIFFERING = 1e-3
_CLASSES = "classes.csv"


def deployment_part() -> zooft.DeploymentPart:
    """What the file gives."""
    return zooft.DeploymentPart(
        outputs=_outputs,
        graph=_graph,
        columns=deployed_columns,
        agree=_agree,
        properties=_properties,
        whole=tiles.whole_answer,
        whole_samples=tiles.whole_samples,
        writers={"masks": write_masks, "overlays": write_overlays, "coco-rle": write_coco},
    )


def gives_probabilities(labels: Labels) -> bool:
    """Whether --probabilities is set, or the file reads tiles, which are blended by their probabilities."""
    known = labels[0].constants
    return bool(known.get(PROBABILITIES, 0) or known.get(tiles.SIZE, 0))


def _outputs(labels: Labels, _fitted: Any) -> Sequence[zooft.Output]:
    made = [
        zooft.Output(
            name=MASK,
            dtype="uint8",
            axes=("batch", "height", "width"),
            measure="exact",
            tolerance=0.0,
            meaning="number of the likeliest class at each pixel of the input, from 0, in the order of the labels",
        ),
        zooft.Output(
            name=HEAD,
            dtype="float32",
            axes=("batch", len(labels), "map_height", "map_width"),
            measure="spread",
            tolerance=1e-4,
            meaning="a number for each class at each place of the network's own map, before anything is resized",
        ),
    ]
    if gives_probabilities(labels):
        made.append(
            zooft.Output(
                name=PROBABILITIES,
                dtype="float32",
                axes=("batch", len(labels), "height", "width"),
                measure="absolute",
                tolerance=1e-2,
                meaning="of each class at each pixel of the input",
            )
        )
    return made


def _graph(labels: Labels, _fitted: Any) -> nn.Module:
    from zooft_segmentation.graph import Masks

    return Masks(probabilities=gives_probabilities(labels))


def _agree(
    torch: Mapping[str, NDArray[Any]], file: Mapping[str, NDArray[Any]], _labels: Labels, _fitted: Any, _slack: Any
) -> tuple[str, ...]:
    """Of all pixels, one in a thousand may be a near tie. That there are no others the comparison of `HEAD` proves."""
    pairs = list(zip(torch[MASK], file[MASK], strict=True))
    if wrong := [number for number, (ours, theirs) in enumerate(pairs) if ours.shape != theirs.shape]:
        return (f"{zooft.pluralize(len(wrong), 'mask has', 'masks have')} another size",)
    pixels = sum(ours.size for ours, _ in pairs)
    differing = sum(int((ours != theirs).sum()) for ours, theirs in pairs)
    if differing <= _MOST_DIFFERING * pixels:
        return ()
    return (f"{differing / pixels:.2%} of the masks' pixels differ; at most {_MOST_DIFFERING:.1%} may, as near ties",)


def _properties(labels: Labels) -> Mapping[str, str]:
    known = labels[0].constants
    return {
        "classes": json.dumps([label.name for label in labels]),
        "palette": json.dumps([list(colour) for colour in colours_of(labels)]),
        **({name: str(int(known[name])) for name in (tiles.SIZE, tiles.OVERLAP)} if tiles.SIZE in known else {}),
    }


# formats of predict


def write_masks(answers: Iterable[zooft.FileAnswer], labels: Labels, _fitted: Any, folder: Path) -> Sequence[Path]:
    """A PNG a picture, its pixels the numbers of the classes, with a palette; and which number is which."""
    from PIL import Image

    palette = bytes(level for colour in colours_of(labels) for level in colour)
    names, written = zooft.FileNames(folder), [write_classes(labels, folder)]
    for answer in answers:
        written.append(names.path(answer.key, ".png"))
        image = Image.fromarray(answer.outputs[MASK], mode=None)
        image.putpalette(palette)
        image.save(written[-1])
    return written


def write_overlays(answers: Iterable[zooft.FileAnswer], labels: Labels, _fitted: Any, folder: Path) -> Sequence[Path]:
    """A PNG a picture, with the mask drawn in."""
    from PIL import Image

    names, written = zooft.FileNames(folder), list[Path]()
    for answer in answers:
        written.append(names.path(answer.key, ".png"))
        Image.fromarray(paint(answer.picture(), answer.outputs[MASK], labels)).save(written[-1])
    return written


def write_coco(answers: Iterable[zooft.FileAnswer], labels: Labels, _fitted: Any, folder: Path) -> Sequence[Path]:
    """One COCO JSON: a compressed RLE for every class of every picture.

    Raises:
        ConfigError: the library that writes it is missing.
    """
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise zooft.ConfigError(f"the format coco-rle needs pycocotools: {needs.EXTRA}") from None
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for answer in answers:
        mask = answer.outputs[MASK]
        images.append({"id": len(images) + 1, "file_name": answer.key, "height": mask.shape[0], "width": mask.shape[1]})
        for number in np.unique(mask).tolist():
            rle = coco.encode(np.asfortranarray(mask == number, np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": number,
                    "area": int(coco.area(rle)),
                    "bbox": coco.toBbox(rle).tolist(),
                    "iscrowd": 0,
                    "segmentation": {"size": [*map(int, rle["size"])], "counts": rle["counts"].decode("ascii")},
                }
            )
    categories = [{"id": number, "name": label.name} for number, label in enumerate(labels)]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "masks.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return [path]


def write_classes(labels: Labels, folder: Path) -> Path:
    """As --classes-file reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _CLASSES
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "value", "r", "g", "b"])
        for number, (label, colour) in enumerate(zip(labels, colours_of(labels), strict=True)):
            writer.writerow([to_cell(label.name), number, *colour])
    return path
