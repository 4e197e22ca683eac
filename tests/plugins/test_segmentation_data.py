"""Pictures and masks as people have them, and what is refused of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import zooft
from zooft_segmentation import classes, deploy, masks
from zooft_segmentation.discover import discover
from zooft_segmentation.options import SegmentationOptions

RED, BLUE = (200, 0, 0), (0, 0, 200)


def save(path: Path, array: NDArray[Any], **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **more)
    return path


def picture(rows: int = 6, columns: int = 8) -> NDArray[np.uint8]:
    return np.zeros((rows, columns, 3), np.uint8)


def mask(*values: int, rows: int = 6, columns: int = 8) -> NDArray[np.uint8]:
    """Stripes of these values."""
    return np.array([[values[row % len(values)]] * columns for row in range(rows)], np.uint8)


def coloured(*colours: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.array([[colours[row % len(colours)]] * 8 for row in range(6)], np.uint8)


def pair(root: Path, name: str, found: NDArray[Any], image: NDArray[Any] | None = None) -> None:
    save(root / "images" / f"{name}.png", picture() if image is None else image)
    save(root / "masks" / f"{name}.png", found)


def found(root: Path, **options: Any) -> zooft.Discovery:
    return discover(root, SegmentationOptions(**options))


def names(discovery: zooft.Discovery) -> list[str]:
    return [label.name for label in discovery.labels]


def reasons(discovery: zooft.Discovery) -> dict[str, str]:
    return {each.id: each.reason for each in discovery.rejected}


# layouts


def test_folders_side_by_side(tmp_path: Path) -> None:
    pair(tmp_path, "a", mask(0, 1))
    pair(tmp_path, "b", mask(1, 2))
    seen = found(tmp_path)
    assert [sample.id for sample in seen.samples] == ["images/a.png", "images/b.png"]
    assert names(seen) == ["class 0", "class 1", "class 2"]
    assert [sample.target.counts for sample in seen.samples] == [(24, 24, 0), (0, 24, 24)]
    assert any("go by the values in the masks" in note for note in seen.notes)


@pytest.mark.parametrize(
    ("image", "found_mask"),
    [
        ("images/{}/x.jpg", "masks/{}/x.png"),
        ("{}/images/x.jpg", "{}/labels/x.png"),
        ("{}/x.jpg", "{}annot/x.png"),
        ("{}/x.jpg", "{}_labels/x_L.png"),
        ("images/{}/x.jpg", "masks/{}/x_mask.png"),
    ],
)
def test_splits(tmp_path: Path, image: str, found_mask: str) -> None:
    for split in ("train", "val", "test"):
        save(tmp_path / image.format(split), picture())
        save(tmp_path / found_mask.format(split), mask(0, 1))
    assert sorted(sample.split or "" for sample in found(tmp_path).samples) == ["test", "train", "val"]


def test_table_of_pairs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png", picture())
        save(tmp_path / "elsewhere" / f"{name}.png", mask(0, 1))
    table = tmp_path / "pairs.csv"
    table.write_text("path,mask,split,group\na.png,elsewhere/a.png,train,one\nb.png,elsewhere/b.png,val,two\n")
    for root in (tmp_path, table):
        assert [(s.id, s.split, s.group) for s in found(root).samples] == [
            ("a.png", "train", "one"),
            ("b.png", "val", "two"),
        ]


def test_faults_of_a_table_name_its_line(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture())
    save(tmp_path / "m.png", mask(0, 1))
    (tmp_path / "pairs.csv").write_text(
        "path,mask,split\na.png,m.png,train\na.png,m.png,val\nb.png,,train\nc.png,m.png,later\n"
    )
    message = [each.reason for each in found(tmp_path).rejected]
    assert message == [
        "pairs.csv, line 3: the picture is in line 2, too; a picture has one mask",
        "pairs.csv, line 4: the cell mask is empty",
        "pairs.csv, line 5: the split 'later' isn't known; expected train, val or test",
    ]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "cats" / "a.png", picture())
    with pytest.raises(zooft.DataError, match="no pictures and masks side by side; it holds cats"):
        found(tmp_path)
    with pytest.raises(zooft.DataError, match="no such folder"):
        found(tmp_path / "none")


def test_what_has_no_counterpart_is_listed(tmp_path: Path) -> None:
    pair(tmp_path, "a", mask(0, 1))
    save(tmp_path / "images" / "alone.png", picture())
    save(tmp_path / "masks" / "other.png", mask(0, 1))
    (tmp_path / "images" / "notes.txt").write_text("x")
    save(tmp_path / "images" / "twice.jpg", picture())
    save(tmp_path / "images" / "twice.png", picture())
    assert reasons(found(tmp_path)) == {
        "images/alone.png": "no mask of this name in masks",
        "masks/other.png": "a mask without a picture of its name in images",
        "images/notes.txt": "not a picture, by its name",
        "images/twice.png": "another file of this name, twice.jpg; keep one",
        "images/twice.jpg": "another file of this name; keep one",
    }


# values


def test_void_is_left_out(tmp_path: Path) -> None:
    pair(tmp_path, "a", mask(0, 1, 11))
    seen = found(tmp_path, ignore_index=("11",))
    assert names(seen) == ["class 0", "class 1"]
    (sample,) = seen.samples
    assert (sample.target.counts, sample.target.void) == ((16, 16), 16)
    assert np.array_equal(sample.target.pixels()[:, 0], [0, 1, 255, 0, 1, 255])


def test_black_and_white(tmp_path: Path) -> None:
    pair(tmp_path, "a", mask(0, 255))
    save(tmp_path / "images" / "b.png", picture())
    Image.fromarray(mask(0, 1).astype(bool)).save(tmp_path / "masks" / "b.png")
    pair(tmp_path, "b", mask(0, 255))
    assert names(found(tmp_path, ignore_index=())) == ["background", "foreground"]


def test_a_palette_s_numbers_are_the_classes(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", picture())
    image = Image.fromarray(mask(0, 1, 2))
    image.putpalette(bytes(range(90)) + bytes(600))
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks" / "a.png")
    assert np.array_equal(found(tmp_path).samples[0].target.pixels(), mask(0, 1, 2))


def test_sixteen_bits(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(json.dumps({"sky": 0, "far": 1000}))
    pair(tmp_path, "a", mask(0, 1).astype(np.uint16) * 1000)
    seen = found(tmp_path)
    assert names(seen) == ["sky", "far"]
    assert np.array_equal(seen.samples[0].target.pixels(), mask(0, 1))


def test_colours_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("name,r,g,b\nred,200,0,0\nvoid,0,0,0\nblue,0,0,200\n")
    pair(tmp_path, "a", coloured(RED, BLUE, (0, 0, 0)))
    seen = found(tmp_path, ignore_index=("void",))
    assert names(seen) == ["red", "blue"]
    assert np.array_equal(seen.samples[0].target.pixels()[:3, 0], [0, 1, 255])
    assert classes.colours_of(seen.labels) == [RED, BLUE]


def test_a_palette_of_the_classes_colours_may_be_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("name,r,g,b\nred,200,0,0\nblue,0,0,200\n")
    save(tmp_path / "images" / "a.png", picture())
    image = Image.fromarray(mask(0, 1))
    image.putpalette(bytes([*BLUE, *RED]))
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks" / "a.png")
    assert np.array_equal(found(tmp_path).samples[0].target.pixels(), mask(1, 0))


def test_coco_s_categories_are_values(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(
        json.dumps({"categories": [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}]})
    )
    pair(tmp_path, "a", mask(7, 90))
    seen = found(tmp_path)
    assert np.array_equal(seen.samples[0].target.pixels(), mask(0, 1))


# what is refused


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (mask(0, 1, rows=5), "the mask is 8x5, the picture 8x6; a mask has its picture's size"),
        (mask(0, 1, 9), "values that are no class: 9, 16 pixels; name them in the file of classes, or leave them out"),
        (coloured(RED, BLUE), r"a mask of colours \(2 of them\), and nothing says what they mean; give --classes-file"),
        (mask(0, 1).astype(np.float32), "a mask of mode F; expected one channel of whole numbers"),
    ],
)
def test_bad_masks_are_listed(tmp_path: Path, bad: NDArray[Any], words: str) -> None:
    import re

    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    pair(tmp_path, "good", mask(0, 1))
    save(tmp_path / "images" / "bad.png", picture())
    suffix = "tif" if bad.dtype == np.float32 else "png"
    save(tmp_path / "masks" / f"bad.{suffix}", bad)
    seen = found(tmp_path)
    assert [sample.id for sample in seen.samples] == ["images/good.png"]
    (reason,) = reasons(seen).values()
    assert re.search(words, reason), reason


def test_other_bad_files_are_listed(tmp_path: Path) -> None:
    pair(tmp_path, "good", mask(0, 1))
    save(tmp_path / "images" / "lossy.png", picture())
    save(tmp_path / "masks" / "lossy.jpg", mask(0, 1))
    pair(tmp_path, "torn", mask(0, 1))
    (tmp_path / "masks" / "torn.png").write_bytes((tmp_path / "masks" / "torn.png").read_bytes()[:50])
    pair(tmp_path, "empty", mask(0, 1))
    (tmp_path / "images" / "empty.png").write_bytes(b"")
    message = reasons(found(tmp_path))
    assert "compressed with loss; save it as PNG" in message["images/lossy.png"]
    assert "torn.png: can't be decoded" in message["images/torn.png"]
    assert message["images/empty.png"] == "not a picture that Pillow knows"


def test_a_picture_that_its_exif_turns_has_a_mask_that_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "images" / "a.jpg", picture(6, 8), exif=exif)
    save(tmp_path / "masks" / "a.png", mask(0, 1, rows=8, columns=6))
    save(tmp_path / "images" / "b.jpg", picture(6, 8), exif=exif)
    save(tmp_path / "masks" / "b.png", mask(0, 1))
    seen = found(tmp_path)
    assert [sample.id for sample in seen.samples] == ["images/a.jpg"]
    assert "the picture's EXIF turns it, so turn the mask, too" in reasons(seen)["images/b.jpg"]


def test_masks_of_one_value_are_refused(tmp_path: Path) -> None:
    pair(tmp_path, "a", mask(3))
    with pytest.raises(zooft.DataError, match="all masks hold the value 3; expected two classes at least"):
        found(tmp_path)


def test_masks_of_greys_that_nothing_explains_are_refused(tmp_path: Path) -> None:
    pair(tmp_path, "a", mask(0, 128, 254))
    with pytest.raises(
        zooft.DataError, match="the masks hold the values 0, 128, 254 … 254, and nothing says what they mean"
    ):
        found(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.txt", "sky\nsky\n", "the name sky is there twice"),
        ("c.txt", "sky\nSky\n", r"'Sky' \(c.txt\) and 'sky' \(c.txt\)"),
        ("c.txt", "", "names no class"),
        ("c.json", "{", "isn't JSON"),
        ("c.json", '{"sky": [1, 2]}', "is no colour"),
        ("c.json", '{"sky": [1, 2, 300]}', "go from 0 to 255"),
        ("c.json", '[{"id": 3}]', "expected a name, or a mapping with one"),
        ("c.csv", "r,g,b\n1,2,3\n", "has no column name or class or label"),
        ("c.csv", "name,value\nsky,one\n", "line 2: a value or colour isn't a whole number"),
        ("c.csv", "name,value\nsky,1\nroad,1\n", "the value 1 is there twice"),
        ("c.txt", "0 0 0 sky\nroad\n", "the class road has no colour, and others have"),
    ],
)
def test_bad_files_of_classes_are_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(zooft.ConfigError, match=words):
        SegmentationOptions(classes_file=tmp_path / name)


def test_names_that_a_spreadsheet_would_compute_are_written_harmless_and_read_back(tmp_path: Path) -> None:
    names = ["=1+1", "'=1+1", "-road", "@sky", "ground", "'quoted'"]
    path = deploy.write_classes(tuple(zooft.Label(name=name) for name in names), tmp_path)
    written = [line.partition(",")[0] for line in path.read_text().splitlines()[1:]]
    assert [name for name in written if name[0] in "=+-@"] == []
    assert [each.name for each in classes.read_file(path)] == names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", "128 128 128\tsky\n64 0 0 road side\n"),
        ("c.txt", "sky 128 128 128\nroad side 64 0 0\n"),
        ("c.json", '{"sky": [128, 128, 128], "road side": [64, 0, 0]}'),
        ("c.json", '[{"name": "sky", "color": "#808080"}, {"name": "road side", "color": "#400000"}]'),
        ("c.csv", "class;red;green;blue\nsky;128;128;128\nroad side;64;0;0\n"),
    ],
)
def test_forms_of_files_of_classes(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    read = classes.read_file(tmp_path / name)
    assert read == (classes.ClassSpec("sky", 0, (128, 128, 128)), classes.ClassSpec("road side", 1, (64, 0, 0)))
    assert classes.from_json(SegmentationOptions(classes_file=tmp_path / name).classes_json) == read


def test_the_palette_is_pascal_voc_s() -> None:
    """As its development kit lists it."""
    assert classes.palette(6) == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]


@pytest.mark.parametrize("size", [(8,), (240, 5000), (1, 2, 3)])
def test_a_size_that_is_none_is_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(zooft.ConfigError, match="size: "):
        SegmentationOptions(size=size)


# a finished model on other data


def test_data_in_another_order_of_classes_is_renumbered(tmp_path: Path) -> None:
    pair(tmp_path, "a", mask(0, 1))
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    seen = found(tmp_path)
    part = training()
    known = classes.labels_of([classes.ClassSpec(name, n) for n, name in enumerate(("sky", "car", "road"))])
    assert part.unknown(seen.labels, known) == ""
    moved = part.relabel(seen.samples[0].target, seen.labels, known)
    assert isinstance(moved, masks.Mask)
    assert moved.counts == (24, 0, 24)
    assert np.array_equal(moved.pixels(), mask(2, 0))
    assert "the classes road" in part.unknown(seen.labels, known[:2])


def test_classes_without_names_are_known_by_their_numbers(tmp_path: Path) -> None:
    pair(tmp_path, "a", mask(0, 1))
    seen = found(tmp_path)
    known = classes.labels_of([classes.ClassSpec(name, n) for n, name in enumerate(("sky", "road", "car"))])
    assert training().unknown(seen.labels, known) == ""
    assert training().relabel(seen.samples[0].target, seen.labels, known).counts == (24, 24, 0)


def training() -> zooft.TrainingPart:
    from zooft_segmentation.training import training_part

    return training_part()


def test_copies_whose_masks_differ_are_distinguished_by_the_audit(tmp_path: Path) -> None:
    """Of the same shares, too: the audit compares the texts of targets."""
    from zooft_segmentation.presentation import presentation_part

    pair(tmp_path, "a", mask(0, 1))
    pair(tmp_path, "b", mask(1, 0))
    pair(tmp_path, "c", mask(0, 1))
    seen = found(tmp_path)
    texts = [presentation_part().target(sample.target, seen.labels) for sample in seen.samples]
    assert texts[0] == texts[2] != texts[1]
    assert all(text.startswith("class 0 50.0%, class 1 50.0% (") for text in texts)
