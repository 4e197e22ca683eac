"""COCO's annotations as masks; the truth is what pycocotools draws, and ids by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zooft
from zooft_segmentation.discover import discover
from zooft_segmentation.options import SegmentationOptions

SQUARE = [2, 2, 8, 2, 8, 8, 2, 8]
LARGE = [0, 0, 12, 0, 12, 10, 0, 10]
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]


def write(
    root: Path, annotations: list[dict[str, Any]], *, name: str = "instances_train2017.json", **image: Any
) -> Path:
    folder = root / "train2017"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((10, 12, 3), np.uint8)).save(folder / "a.png")
    path = root / "annotations" / name
    path.parent.mkdir(exist_ok=True)
    images = [{"id": 1, "file_name": "a.png", "height": 10, "width": 12, **image}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return path


def instance(number: int, category: int, polygon: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": 1,
        "category_id": category,
        "segmentation": polygon,
        "area": 36,
        "iscrowd": 0,
        **more,
    }


def found(root: Path, **options: Any) -> zooft.Discovery:
    return discover(root, SegmentationOptions(**options))


def reason(root: Path) -> str:
    with pytest.raises(zooft.DataError) as caught:
        found(root)
    return str(caught.value)


def test_the_smallest_region_lies_above(tmp_path: Path) -> None:
    path = write(tmp_path, [instance(1, 3, [SQUARE]), instance(2, 7, [LARGE], area=120)])
    for root in (tmp_path, path):
        seen = found(root)
        assert [label.name for label in seen.labels] == ["background", "cat", "dog"]
        (sample,) = seen.samples
        expected = np.full((10, 12), 2, np.uint8)
        expected[2:8, 2:8] = 1
        assert np.array_equal(sample.target.pixels(), expected)
        assert (sample.split, sample.target.counts) == ("train", (0, 36, 84))


def test_crowds_and_run_lengths(tmp_path: Path) -> None:
    """Uncompressed run lengths go down the columns: 30 pixels of nothing, then two columns and a half."""
    crowd = {"size": [10, 12], "counts": [30, 25, 65]}
    write(tmp_path, [instance(1, 3, [SQUARE]), instance(2, 3, crowd, iscrowd=1, area=25)])
    seen = found(tmp_path)
    expected = np.zeros((10, 12), np.uint8)
    expected[2:8, 2:8] = 1
    columns = np.zeros(120, bool)
    columns[30:55] = True
    expected[columns.reshape(12, 10).T] = 255
    assert np.array_equal(seen.samples[0].target.pixels(), expected)
    assert seen.samples[0].target.void == 25
    assert "1 picture has regions that are left out" in seen.notes[0]


def test_a_picture_without_regions_is_background(tmp_path: Path) -> None:
    write(tmp_path, [])
    assert found(tmp_path).samples[0].target.counts == (120, 0, 0)


def test_background_can_be_left_out(tmp_path: Path) -> None:
    write(tmp_path, [instance(1, 3, [SQUARE])])
    seen = found(tmp_path, ignore_index=("background",))
    assert [label.name for label in seen.labels] == ["cat", "dog"]
    assert (seen.samples[0].target.counts, seen.samples[0].target.void) == ((36, 0), 84)


def test_panoptic(tmp_path: Path) -> None:
    ids = np.zeros((10, 12), np.int32)
    ids[:5], ids[5:, :6], ids[5:, 6:9] = 70_000, 300, 9
    png = tmp_path / "annotations" / "panoptic_train2017" / "a_ids.png"
    png.parent.mkdir(parents=True)
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(png)
    segments = [
        {"id": 70_000, "category_id": 3, "iscrowd": 0},
        {"id": 300, "category_id": 7, "iscrowd": 0},
        {"id": 9, "category_id": 7, "iscrowd": 1},
    ]
    write(
        tmp_path, [{"image_id": 1, "file_name": "a_ids.png", "segments_info": segments}], name="panoptic_train2017.json"
    )
    seen = found(tmp_path)
    assert [label.name for label in seen.labels] == ["cat", "dog"]
    expected = np.select([ids == 70_000, ids == 300], [0, 1], default=255)
    assert np.array_equal(seen.samples[0].target.pixels(), expected)
    assert np.array_equal(
        seen.samples[0].target.renumber([1, 0], 2).pixels(), np.where(expected == 255, 255, 1 - expected)
    )


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (instance(1, 9, [SQUARE]), "the category 9 isn't among the categories; there are 3, 7"),
        (instance(5, 3, [[2, 2, 40, 2, 8, 8]]), "annotation 5 lies outside the picture: x 2 to 40, y 2 to 8 of 12x10"),
        (instance(5, 3, [[2, 2, 8]]), "annotation 5 has a polygon of 3 numbers"),
        (
            instance(5, 3, [[2, 2, float("nan"), 2, 8, 8]]),
            "annotation 5 has a polygon with something else than numbers",
        ),
        (instance(5, 3, {"size": [4, 4], "counts": [16]}), r"the run lengths of annotation 5 are of \[4, 4\]"),
    ],
)
def test_bad_annotations_are_listed(tmp_path: Path, annotation: dict[str, Any], words: str) -> None:
    import re

    write(tmp_path, [annotation])
    assert re.search(words, reason(tmp_path))


def test_missing_and_other_pictures(tmp_path: Path) -> None:
    write(tmp_path, [], height=20)
    assert "the picture is 12x10, and the annotations are of 12x20" in reason(tmp_path)
    write(tmp_path, [], file_name="b.png")
    assert "there is no picture b.png in" in reason(tmp_path)
    (tmp_path / "annotations" / "instances_train2017.json").write_text("[]")
    assert "isn't COCO's form: it has no list images, annotations, categories" in reason(tmp_path)


def test_a_picture_that_exif_turns_is_refused_since_coco_means_stored_pixels(tmp_path: Path) -> None:
    write(tmp_path, [instance(1, 3, [SQUARE])])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((10, 12, 3), np.uint8)).save(tmp_path / "train2017" / "a.png", exif=exif)
    assert "its EXIF turns it" in reason(tmp_path)
