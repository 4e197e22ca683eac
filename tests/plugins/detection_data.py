"""A small data set of boxes, written in each of the three forms."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

ROWS, COLUMNS = 48, 64
CLASSES = ("cell", "clump")
Box = tuple[str, tuple[float, float, float, float]]
BOXES: Mapping[str, Mapping[str, Sequence[Box]]] = {
    "train": {
        "a": [("cell", (4, 6, 20, 30)), ("clump", (30, 10, 60, 44))],
        "b": [("clump", (0, 0, 64, 48))],
        "c": [],
        "d": [("cell", (8, 8, 16, 20)), ("cell", (40, 8, 52, 20))],
    },
    "val": {"e": [("cell", (12, 4, 40, 28))], "f": [("clump", (2, 3, 30, 40))]},
}


def picture(path: Path, *, seed: int = 0) -> Path:
    """Noise, 64x48."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
    Image.fromarray(levels).save(path)
    return path


def names() -> list[tuple[str, str]]:
    """Split and name of each picture."""
    return [(split, name) for split, own in BOXES.items() for name in own]


def coco(root: Path) -> Path:
    """``images/SPLIT/NAME.png`` and ``annotations/instances_SPLIT.json``."""
    for split, own in BOXES.items():
        images, annotations = [], []
        for number, (name, boxes) in enumerate(own.items(), 1):
            picture(root / "images" / split / f"{name}.png", seed=ord(name))
            images.append({"id": number, "file_name": f"{name}.png", "height": ROWS, "width": COLUMNS})
            for word, (left, top, right, bottom) in boxes:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": CLASSES.index(word) + 1,
                        "bbox": [left, top, right - left, bottom - top],
                        "area": 1,
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": number, "name": word} for number, word in enumerate(CLASSES, 1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def sheet(name: str, boxes: Sequence[Box], *, size: tuple[int, int] = (ROWS, COLUMNS)) -> str:
    """An XML as LabelImg writes it, an element a line."""
    lines = ["<annotation>", f"<filename>{escape(name)}.png</filename>"]
    lines += ["<size>", f"<width>{size[1]}</width>", f"<height>{size[0]}</height>", "<depth>3</depth>", "</size>"]
    for word, corners in boxes:
        lines += ["<object>", f"<name>{escape(word)}</name>", "<difficult>0</difficult>", "<bndbox>"]
        lines += [
            f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        ]
        lines += ["</bndbox>", "</object>"]
    return "\n".join([*lines, "</annotation>"])


def voc(root: Path) -> Path:
    """``JPEGImages``, ``Annotations`` and ``ImageSets/Main``."""
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, name in names():
        picture(root / "JPEGImages" / f"{name}.png", seed=ord(name))
        (root / "Annotations" / f"{name}.xml").write_text(sheet(name, BOXES[split][name]))
    for split, own in BOXES.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(own) + "\n")
    return root


def yolo(root: Path) -> Path:
    """``images/SPLIT``, ``labels/SPLIT`` and ``data.yaml``."""
    for split, name in names():
        picture(root / "images" / split / f"{name}.png", seed=ord(name))
        label = root / "labels" / split / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("".join(line(word, corners) for word, corners in BOXES[split][name]))
    words = "\n".join(f"  {number}: {word}" for number, word in enumerate(CLASSES))
    (root / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\nnames:\n{words}\n")
    return root


def line(word: str, corners: tuple[float, float, float, float]) -> str:
    """Of a text file, with all digits."""
    left, top, right, bottom = corners
    shares = (left + right) / 2 / COLUMNS, (top + bottom) / 2 / ROWS, (right - left) / COLUMNS, (bottom - top) / ROWS
    return f"{CLASSES.index(word)} {' '.join(repr(float(share)) for share in shares)}\n"


def moved(root: Path, old: str, new: str) -> None:
    """Give a file another name."""
    shutil.move(root / old, root / new)
