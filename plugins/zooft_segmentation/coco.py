"""COCO's annotations as masks: regions of instances, as polygons or run lengths, and panoptic PNGs.

Regions lie over each other, the smallest above. What no region covers is background; crowds, which hold many things
that nobody has outlined, are left out.
"""

from __future__ import annotations

import json
import math
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_segmentation import classes, masks, needs
from zooft_segmentation.masks import OUTSIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft_segmentation.options import SegmentationOptions
    from zooft_segmentation.pairs import Split

BACKGROUND = "background"
_FILES = re.compile(r"^(instances|panoptic|stuff)_.*\.json$", re.IGNORECASE)
_SPLITS = re.compile(r"train|val|test", re.IGNORECASE)
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Region:
    """One annotation.

    Attributes:
        number: of its class; `OUTSIDE` for a crowd.
        shape: polygons, or run lengths, as COCO has them; of a panoptic PNG, the id that its pixels hold.
    """

    number: int
    shape: Any


@dataclass(frozen=True, slots=True)
class Regions:
    """A sample's target, as `masks.Mask` is one.

    Attributes:
        size: rows and columns.
        regions: from the lowest to the uppermost.
        panoptic: the PNG whose ids the regions name; None where they have shapes of their own.
        ground: number of the class of what no region covers; `OUTSIDE` for none.
        counts: pixels of each class.
        void: pixels that are left out.
        mark: equal for equal masks.
    """

    size: tuple[int, int]
    regions: tuple[Region, ...]
    panoptic: Path | None
    ground: int
    counts: tuple[int, ...] = ()
    void: int = 0
    mark: str = ""

    def pixels(self) -> NDArray[np.uint8]:
        """``(H, W)``, the number of each pixel's class; `OUTSIDE` where there is none.

        Raises:
            DataError: the panoptic PNG can't be read.
            ConfigError: the library that draws shapes is missing.
        """
        drawn = np.full(self.size, self.ground, np.uint8)
        if self.panoptic is not None:
            ids = _ids(self.panoptic)
            if ids.shape != self.size:
                raise zooft.DataError(
                    f"{self.panoptic.name} is {ids.shape[1]}x{ids.shape[0]}, its picture another size"
                )
            for region in self.regions:
                drawn[ids == region.shape] = region.number
            return drawn
        for region in self.regions:
            drawn[_draw_shape(region.shape, self.size)] = region.number
        return drawn

    def renumber(self, numbers: Sequence[int], count: int) -> Regions:
        """With other numbers of the classes: ``numbers[old]``, of `count` ones."""
        counts = [0] * count
        for old, new in enumerate(numbers):
            counts[new] += self.counts[old]
        moved = tuple(replace(each, number=_renumber(each.number, numbers)) for each in self.regions)
        return replace(self, regions=moved, ground=_renumber(self.ground, numbers), counts=tuple(counts))


def _renumber(number: int, numbers: Sequence[int]) -> int:
    return number if number == OUTSIDE else numbers[number]


def annotation_files(root: Path) -> list[Path]:
    """COCO's, where data is of this form: the file itself, or those in a folder or its ``annotations``."""
    if root.is_file():
        return [root] if root.suffix.lower() == ".json" else []
    folders = [folder for folder in (root / "annotations", root) if folder.is_dir()]
    found = [path for folder in folders for path in sorted(folder.glob("*.json")) if _FILES.match(path.name)]
    panoptic = [path for path in found if path.name.lower().startswith("panoptic")]
    return panoptic or found  # panoptic ones cover more of the same pictures


def discover(
    root: Path, files: Sequence[Path], options: SegmentationOptions, computing: zooft.Computing
) -> zooft.Discovery:
    """Samples, classes and what was rejected.

    Args:
        root: the data.
        files: of annotations.
        options: the task's own.
        computing: called with the progress.

    Raises:
        DataError: not COCO's form, or nothing that can be used.
        ConfigError: the library that draws shapes is missing.
    """
    contents = [_read(path) for path in files]
    categories = _categories(files, contents)
    panoptic = any("segments_info" in each for content in contents for each in content["annotations"])
    ignored = {each.lower() for each in options.ignore_index}
    used = [
        name for name in ([] if panoptic else [BACKGROUND]) + list(categories.values()) if name.lower() not in ignored
    ]
    numbers = {name: number for number, name in enumerate(used)}
    if not 2 <= len(used) <= masks.MOST_CLASSES:
        raise zooft.DataError(f"{root} has {len(used)} classes; from 2 to {masks.MOST_CLASSES} are possible")
    given = {key: numbers.get(name, OUTSIDE) for key, name in categories.items()}
    ground = OUTSIDE if panoptic else numbers.get(BACKGROUND, OUTSIDE)
    samples: list[zooft.Sample] = []
    rejected: list[zooft.Rejection] = []
    advance = computing("drawing masks", sum(len(content["images"]) for content in contents))
    for path, content in zip(files, contents, strict=True):
        for found in _samples(root, path, content, given, ground, len(used)):
            advance(1)
            (rejected if isinstance(found, zooft.Rejection) else samples).append(found)  # type: ignore[arg-type]
    if not samples:
        first = f"; the first of {len(rejected)}: {rejected[0].id}: {rejected[0].reason}" if rejected else ""
        raise zooft.DataError(f"no picture of {', '.join(path.name for path in files)} can be used{first}")
    crowds = sum(any(each.number == OUTSIDE for each in sample.target.regions) for sample in samples)
    notes = (
        [
            f"{zooft.pluralize(crowds, 'picture has', 'pictures have')}"
            " regions that are left out: crowds, or classes of --ignore-index"
        ]
        if crowds
        else []
    )
    specs = [classes.ClassSpec(name, number) for number, name in enumerate(used)]
    return zooft.Discovery(
        samples=tuple(samples), labels=classes.labels_of(specs), rejected=tuple(rejected), notes=tuple(notes)
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise zooft.DataError(f"{path.name} isn't JSON: {error}") from error
    wanted = ("images", "annotations", "categories")
    lacking = [key for key in wanted if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if lacking:
        raise zooft.DataError(f"{path.name} isn't COCO's form: it has no list {', '.join(lacking)}")
    return dict(content)


def _categories(files: Sequence[Path], contents: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Of all files, by id; they must be the same in each."""
    found: dict[int, str] = {}
    for path, content in zip(files, contents, strict=True):
        for each in content["categories"]:
            try:
                key, name = int(each["id"]), str(each["name"]).strip()
            except (KeyError, TypeError, ValueError) as error:
                raise zooft.DataError(f"{path.name}: a category without id and name") from error
            if found.setdefault(key, name) != name:
                raise zooft.DataError(f"{path.name}: the category {key} is {name}, and elsewhere {found[key]}")
    if len(set(found.values())) < len(found):
        raise zooft.DataError(f"{files[0].name}: two categories have one name")
    return dict(sorted(found.items()))


def _samples(
    root: Path, path: Path, content: Mapping[str, Any], given: Mapping[int, int], ground: int, count: int
) -> Iterator[zooft.Sample | zooft.Rejection]:
    by_image: dict[Any, list[Any]] = {}
    for each in content["annotations"]:
        by_image.setdefault(each.get("image_id") if isinstance(each, dict) else None, []).append(each)
    split = _split_of(path)
    seen: set[str] = set()
    for image in content["images"]:
        name = str(image.get("file_name", "")) if isinstance(image, dict) else ""
        where = f"{path.name}: {name or 'an image without file_name'}"
        try:
            if not name or name in seen:
                raise zooft.DataError("it is listed twice" if name else "no file_name")
            seen.add(name)
            yield _sample(root, path, image, by_image.get(image.get("id"), []), given, ground, count, split)
        except zooft.DataError as error:
            yield zooft.Rejection(name or where, f"{path.name}: {error}")


def _sample(
    root: Path,
    path: Path,
    image: Mapping[str, Any],
    annotations: Sequence[Any],
    given: Mapping[int, int],
    ground: int,
    count: int,
    split: Split | None,
) -> zooft.Sample:
    source = _picture(path, str(image["file_name"]))
    with zooft.image_opened(source) as picture:
        picture.load()
        if picture.getexif().get(0x0112, 1) != 1:
            raise zooft.DataError(
                "its EXIF turns it, and COCO's annotations are of the pixels as they are stored; save it upright, or "
                "without that entry where the annotations fit what is stored"
            )
        size = picture.height, picture.width
        facts: dict[str, str | float] = {
            "format": picture.format or "",
            "mode": picture.mode,
            "width": float(size[1]),
            "height": float(size[0]),
        }
    if (image.get("height"), image.get("width")) != size:
        raise zooft.DataError(
            f"the picture is {size[1]}x{size[0]}, and the annotations are of {image.get('width')}x{image.get('height')}"
        )
    target = _target(path, annotations, size, given, ground)
    drawn = target.pixels()
    pixels = np.bincount(drawn.ravel(), minlength=256)
    mark = f"{zlib.crc32(drawn.tobytes()):08x}"
    target = replace(target, counts=tuple(pixels[:count].tolist()), void=int(pixels[OUTSIDE]), mark=mark)
    name = source.relative_to(root).as_posix() if source.is_relative_to(root) else str(image["file_name"])
    return zooft.Sample(id=name, source=source, target=target, split=split, facts=facts)


def _target(
    path: Path, annotations: Sequence[Any], size: tuple[int, int], given: Mapping[int, int], ground: int
) -> Regions:
    if any("segments_info" in each for each in annotations):
        (only,) = annotations[:1]
        name = str(only.get("file_name", ""))
        folders = (path.with_suffix(""), path.parent / path.stem, path.parent)
        png = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if png is None:
            raise zooft.DataError(f"the panoptic PNG {name} isn't in {path.stem}")
        regions = [Region(_number(each, given), int(each["id"])) for each in only["segments_info"]]
        return Regions(size, tuple(regions), png, OUTSIDE)
    needs.require_coco()
    shapes = [(each, _check_shape(each, size)) for each in annotations if each.get("segmentation")]
    ordered = sorted(shapes, key=lambda pair: -float(pair[0].get("area") or 0))
    return Regions(size, tuple(Region(_number(each, given), shape) for each, shape in ordered), None, ground)


def _number(annotation: Mapping[str, Any], given: Mapping[int, int]) -> int:
    key = annotation.get("category_id")
    if not isinstance(key, int) or key not in given:
        raise zooft.DataError(f"the category {key} isn't among the categories; there are {_few(given)}")
    return OUTSIDE if annotation.get("iscrowd") else given[key]


def _few(given: Mapping[int, int]) -> str:
    return ", ".join(map(str, list(given)[:_SHOWN])) + (" …" if len(given) > _SHOWN else "")


def _check_shape(annotation: Mapping[str, Any], size: tuple[int, int]) -> Any:
    """A shape as COCO has it, whose numbers lie in the picture, a pixel apart at most."""
    shape, key = annotation["segmentation"], annotation.get("id")
    if isinstance(shape, dict):
        if list(shape.get("size", ())) != list(size):
            raise zooft.DataError(
                f"the run lengths of annotation {key} are of {shape.get('size')}, the picture is {list(size)}"
            )
        return shape
    for polygon in shape:
        if fault := _fault(polygon, size):
            raise zooft.DataError(f"annotation {key} {fault}")
    return tuple(tuple(polygon) for polygon in shape)


def _fault(polygon: Sequence[Any], size: tuple[int, int]) -> str:
    """What is wrong with x and y of its points, in words; "" where nothing is."""
    if len(polygon) < 6 or len(polygon) % 2:
        return f"has a polygon of {len(polygon)} numbers; expected x,y of three points at least"
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in polygon):
        return "has a polygon with something else than numbers"
    xs, ys = polygon[::2], polygon[1::2]
    if min(xs) >= -1 and min(ys) >= -1 and max(xs) <= size[1] + 1 and max(ys) <= size[0] + 1:
        return ""
    range_ = f"x {min(xs):g} to {max(xs):g}, y {min(ys):g} to {max(ys):g}"
    return f"lies outside the picture: {range_} of {size[1]}x{size[0]}"


def _draw_shape(shape: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    needs.require_coco()
    from pycocotools import mask as coco

    rows, columns = size
    if isinstance(shape, dict):
        codes = coco.frPyObjects(shape, rows, columns) if isinstance(shape["counts"], list) else shape
    else:
        codes = coco.merge(coco.frPyObjects([list(polygon) for polygon in shape], rows, columns))
    return np.asarray(_decode(codes), bool)


def _decode(codes: Mapping[str, Any]) -> Any:
    from pycocotools import mask as coco

    rows, columns = codes["size"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pycocotools' own arrays under numpy 2
        return np.asarray(coco.decode(codes)).reshape(rows, columns)


def _ids(path: Path) -> NDArray[Any]:
    """Of a panoptic PNG ``(H, W)``: red + 256 green + 65536 blue."""
    with zooft.image_opened(path) as image:
        levels = np.array(image.convert("RGB")).astype(np.int32)
    return np.asarray(levels[..., 0] + 256 * levels[..., 1] + 65536 * levels[..., 2])


def _picture(path: Path, name: str) -> Path:
    """Where COCO's own folders have it: beside the annotations, or in a folder called as their split."""
    above, word = path.parent.parent, path.stem.split("_", 1)[-1]
    folders = [
        path.parent,
        path.parent / "images",
        above,
        above / "images",
        above / word,
        above / "images" / word,
        path.parent / word,
    ]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise zooft.DataError(f"there is no picture {name} in {above.name} or {word}")


def _split_of(path: Path) -> Split | None:
    match = _SPLITS.search(path.stem)
    return zooft.SPLIT_NAMES.get(match[0].lower()) if match else None
