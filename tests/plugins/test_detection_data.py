"""Boxes out of COCO's, VOC's and YOLO's files, and what is done about those that are wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import detection_data as data
import example_data
import pytest
from PIL import Image

import zooft
from zooft_detection.deploy import category_of
from zooft_detection.discover import discover
from zooft_detection.options import DetectionOptions

FORMS = {"coco": data.coco, "voc": data.voc, "yolo": data.yolo}


def found_in(root: Path, **options: Any) -> zooft.Discovery:
    return discover(root, DetectionOptions(**options))


def reasons(found: zooft.Discovery) -> dict[str, str]:
    return {each.id: each.reason for each in found.rejected}


def names_of(found: zooft.Discovery) -> str:
    return "".join(sorted(Path(sample.id).stem for sample in found.samples))


def changed(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_say_the_same(tmp_path: Path, form: str) -> None:
    found = found_in(FORMS[form](tmp_path))
    assert [label.name for label in found.labels] == ["cell", "clump"]
    assert not found.rejected
    message = {Path(sample.id).stem: (sample.split, sample.target) for sample in found.samples}
    for split, name in data.names():
        boxes = data.BOXES[split][name]
        assert message[name][0] == split
        assert message[name][1].size == (48, 64)
        assert message[name][1].corners == tuple(pytest.approx(corners) for _, corners in boxes)
        assert message[name][1].classes == tuple(data.CLASSES.index(word) for word, _ in boxes)
    assert any("1 picture has no object" in note for note in found.notes)


def test_a_file_of_annotations_is_data_too(tmp_path: Path) -> None:
    root = data.coco(tmp_path / "coco")
    assert names_of(found_in(root / "annotations" / "instances_val.json")) == "ef"
    root = data.yolo(tmp_path / "yolo")
    assert names_of(found_in(root / "data.yaml")) == "abcdef"


def test_several_forms_in_one_folder_are_a_question(tmp_path: Path) -> None:
    data.coco(tmp_path)
    data.yolo(tmp_path)
    with pytest.raises(zooft.DataError, match="several forms: coco, yolo; choose one with --annotations"):
        found_in(tmp_path)
    assert len(found_in(tmp_path, annotations="yolo").samples) == 6


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    data.picture(tmp_path / "a.png")
    with pytest.raises(zooft.DataError, match=r"no annotations; expected COCO's JSON .*docs/detection.md"):
        found_in(tmp_path)


def test_roboflow_s_folders(tmp_path: Path) -> None:
    root = data.coco(tmp_path / "all")
    for split, folder in (("train", "train"), ("val", "valid")):
        (tmp_path / "new").mkdir(exist_ok=True)
        (root / "images" / split).rename(tmp_path / "new" / folder)
        (root / "annotations" / f"instances_{split}.json").rename(tmp_path / "new" / folder / "_annotations.coco.json")
    found = found_in(tmp_path / "new")
    assert {sample.split for sample in found.samples} == {"train", "val"}
    assert len(found.samples) == 6


# COCO


def test_coco_groups_and_categories_own_numbers(tmp_path: Path) -> None:
    root = data.coco(tmp_path)
    path = root / "annotations" / "instances_train.json"

    def patients(content: Any) -> None:
        for image in content["images"]:
            image["patient_id"] = 7

    changed(path, patients)
    found = found_in(root, group_key="patient_id")
    assert {sample.group for sample in found.samples} == {"7", None}
    assert [label.constants["number"] for label in found.labels] == [1, 2]


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (
            [50, 10, 40, 20],
            r"annotations/instances_train.json, annotation 1: the box lies outside the picture of 64x48: x 50 to 90",
        ),
        ([-5, 10, 20, 20], "lies outside the picture"),
        ([5, 10, -3, 20], "has a negative width or height"),
        ([float("nan"), 1, 2, 3], "isn't made of numbers"),
        ([1, 2, 3], r"annotation 1 has the bbox \[1, 2, 3\]; expected \[x, y, width, height\]"),
        (None, "annotation 1 has the bbox None"),
    ],
)
def test_wrong_boxes_are_listed_with_their_annotation(tmp_path: Path, box: Any, words: str) -> None:
    root = data.coco(tmp_path)
    changed(root / "annotations" / "instances_train.json", lambda content: content["annotations"][0].update(bbox=box))
    found = found_in(root)
    assert names_of(found) == "bcdef"
    (reason,) = reasons(found).values()
    assert re.search(words, reason)


def test_boxes_are_cut_with_outside_cut_and_where_it_is_rounding(tmp_path: Path) -> None:
    root = data.coco(tmp_path)
    path = root / "annotations" / "instances_train.json"
    changed(path, lambda content: content["annotations"][0].update(bbox=[50, 10, 40, 20]))
    found = found_in(root, outside="cut")
    assert found.samples[0].target.corners[0] == (50, 10, 64, 30)
    assert any("1 box beyond the picture's border cut at it" in note for note in found.notes)
    changed(path, lambda content: content["annotations"][0].update(bbox=[50, 10, 14.6, 20]))
    found = found_in(root)
    assert found.samples[0].target.corners[0] == (50, 10, 64, 30)
    assert any("by a pixel at most" in note for note in found.notes)


def test_a_box_without_area_is_left_out_and_listed(tmp_path: Path) -> None:
    root = data.coco(tmp_path)
    changed(root / "annotations" / "instances_train.json", lambda c: c["annotations"][0].update(bbox=[5, 5, 0, 0]))
    found = found_in(root)
    assert reasons(found) == {
        "annotations/instances_train.json, annotation 1": "the box [5, 5, 0, 0] has no area; its picture is used without it"
    }
    assert len(found.samples[0].target.corners) == 1


def test_corners_in_place_of_sizes_are_noticed(tmp_path: Path) -> None:
    root = data.coco(tmp_path)

    def as_corners(content: Any) -> None:
        for each in content["annotations"]:
            x, y, width, height = each["bbox"]
            each["bbox"] = [x, y, x + width, y + height]

    for split in ("train", "val"):
        changed(root / "annotations" / f"instances_{split}.json", as_corners)
    with pytest.raises(
        zooft.DataError, match=r"COCO's bbox has x, y, width, height, and .* fit as x and y of two corners"
    ):
        found_in(root)


def test_missing_pictures_and_images_are_listed(tmp_path: Path) -> None:
    root = data.coco(tmp_path)
    (root / "images" / "train" / "b.png").unlink()
    changed(root / "annotations" / "instances_val.json", lambda content: content["annotations"][0].update(image_id=99))
    message = reasons(found_in(root))
    assert message["b.png"] == "annotations/instances_train.json: there is no picture b.png"
    assert message["annotations/instances_val.json, image 99"] == "no such image; 1 annotations name it: 1"


def test_crowds_count_nowhere(tmp_path: Path) -> None:
    root = data.coco(tmp_path)
    changed(root / "annotations" / "instances_train.json", lambda content: content["annotations"][0].update(iscrowd=1))
    found = found_in(root)
    assert found.samples[0].target.ignored == (True, False)
    assert any("1 region is a crowd" in note for note in found.notes)


def test_a_picture_listed_twice(tmp_path: Path) -> None:
    root = data.coco(tmp_path)

    def again(content: Any) -> None:
        content["images"].append({**content["images"][0], "id": 50})

    changed(root / "annotations" / "instances_train.json", again)
    found = found_in(root)
    message = reasons(found)
    assert "(image 1), too, with other boxes" in message["a.png"]
    assert "it has other boxes in annotations/instances_train.json (image 50)" in message["images/train/a.png"]
    assert names_of(found) == "bcdef"


def test_what_isn_t_coco_is_refused_with_its_line(tmp_path: Path) -> None:
    root = data.coco(tmp_path)
    path = root / "annotations" / "instances_val.json"
    path.write_text('{"images": [],\n "annotations": [,]}')
    with pytest.raises(zooft.DataError, match=r"instances_val.json, line 2: not JSON"):
        found_in(root)
    path.write_text('{"images": []}')
    with pytest.raises(zooft.DataError, match="no list annotations, categories"):
        found_in(root)


def test_other_categories_are_refused(tmp_path: Path) -> None:
    root = data.coco(tmp_path)
    changed(root / "annotations" / "instances_train.json", lambda c: c["annotations"][0].update(category_id=9))
    assert "annotation 1 has the category 9; there are 1, 2" in reasons(found_in(root))["a.png"]
    changed(root / "annotations" / "instances_val.json", lambda c: c["categories"][0].update(name="other"))
    with pytest.raises(zooft.DataError, match="the category 1 is other, and elsewhere cell"):
        found_in(root)


def test_a_picture_of_another_size(tmp_path: Path) -> None:
    root = data.coco(tmp_path)
    changed(root / "annotations" / "instances_train.json", lambda c: c["images"][0].update(width=640))
    assert "the picture is 64x48, and its boxes are of 640x48" in reasons(found_in(root))["images/train/a.png"]


# VOC


@pytest.mark.parametrize(
    ("corners", "words"),
    [
        ((50, 10, 90, 20), r"Annotations/a.xml, line 8: the box lies outside"),
        ((30, 10, 20, 20), "has a negative width"),
        (("nan", 1, 2, 3), "isn't made of numbers"),
        (("x", 1, 2, 3), "line 8: its box is x, 1, 2, 3; expected four numbers"),
    ],
)
def test_wrong_boxes_are_listed_with_their_line(tmp_path: Path, corners: Any, words: str) -> None:
    root = data.voc(tmp_path)
    (root / "Annotations" / "a.xml").write_text(data.sheet("a", [("cell", corners)]))
    found = found_in(root)
    assert names_of(found) == "bcdef"
    (reason,) = reasons(found).values()
    assert re.search(words, reason)


def test_classes_of_voc_have_coco_s_numbers_which_begin_at_one(tmp_path: Path) -> None:
    labels = found_in(data.voc(tmp_path)).labels
    assert category_of(labels) == list(range(1, len(labels) + 1))


def test_damaged_and_hostile_xml(tmp_path: Path) -> None:
    root = data.voc(tmp_path)
    (root / "Annotations" / "a.xml").write_text("<annotation>\n<size>\n</annotation>")
    (root / "Annotations" / "b.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]>\n<annotation>&b;</annotation>')
    message = reasons(found_in(root))
    assert message["Annotations/a.xml"] == "line 3: not XML: mismatched tag"
    assert "declares a document type" in message["Annotations/b.xml"]


def test_lists_of_splits_are_held_to(tmp_path: Path) -> None:
    root = data.voc(tmp_path)
    lists = root / "ImageSets" / "Main"
    (lists / "train.txt").write_text("a\nb\nnone\ne\n")
    message = reasons(found_in(root))
    assert message["Annotations/e.xml"] == "it is in train.txt and val.txt; a picture belongs to one split"
    assert message["none"] == "train.txt, line 3: there is no annotation none.xml"
    assert message["Annotations/c.xml"] == "it is in none of train.txt, val.txt"


def test_difficult_objects_count_nowhere(tmp_path: Path) -> None:
    root = data.voc(tmp_path)
    path = root / "Annotations" / "d.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
    found = found_in(root)
    assert next(s for s in found.samples if s.id.endswith("d.png")).target.ignored == (True, False)


def test_pictures_without_annotation_and_annotations_without_picture(tmp_path: Path) -> None:
    root = data.voc(tmp_path)
    (root / "JPEGImages" / "a.png").unlink()
    data.picture(root / "JPEGImages" / "z.png")
    message = reasons(found_in(root))
    assert message["Annotations/a.xml"] == "there is no picture a.png"
    assert message["JPEGImages/z.png"] == "no annotation of this picture"


def test_two_annotations_of_one_picture(tmp_path: Path) -> None:
    root = data.voc(tmp_path)
    for path in (root / "ImageSets").rglob("*.txt"):
        path.unlink()
    (root / "Annotations" / "other.xml").write_text(data.sheet("a", [("cell", (1, 1, 9, 9))]))
    found = found_in(root)
    message = reasons(found)
    assert message["JPEGImages/a.png"] == "Annotations/a.xml: it has other boxes in Annotations/other.xml"
    assert names_of(found) == "bcdef"
    assert message["Annotations/other.xml"] == ("the picture a.png is in Annotations/a.xml, too, with other boxes")


# YOLO


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2 0.5 0.5 0.1 0.1", r"labels/train/a.txt, line 2: the class 2 isn't among those of the YAML, 0, 1"),
        ("0 0.5 0.5 0.1", "line 2: 4 words; expected class, x, y, width, height"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5", "outlines"),
        ("0 nan 0.5 0.1 0.1", "line 2: the box isn't made of numbers"),
        ("0 0.5 0.5 -0.1 0.1", "line 2: the box has a negative width"),
        ("0 0.9 0.5 0.5 0.1", "line 2: the box lies outside"),
        ("0 30 20 10 10", "line 2: 30 20 10 10 look like pixels"),
        ("cell 0.5 0.5 0.1 0.1", "the class cell isn't among"),
        ("0 a 0.5 0.1 0.1", "a 0.5 0.1 0.1 aren't four numbers"),
    ],
)
def test_wrong_lines_are_listed(tmp_path: Path, line: str, words: str) -> None:
    root = data.yolo(tmp_path)
    path = root / "labels" / "train" / "a.txt"
    path.write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    found = found_in(root)
    assert names_of(found) == "bcdef"
    assert re.search(words, reasons(found)["images/train/a.png"])


def test_corners_in_place_of_middle_and_size_are_noticed(tmp_path: Path) -> None:
    root = data.yolo(tmp_path)
    for split, name in data.names():
        lines = [
            f"{data.CLASSES.index(word)} {left / 64} {top / 48} {right / 64} {bottom / 48}\n"
            for word, (left, top, right, bottom) in data.BOXES[split][name]
        ]
        (root / "labels" / split / f"{name}.txt").write_text("".join(lines))
    with pytest.raises(zooft.DataError, match="fit as x and y of two corners"):
        found_in(root)


def test_pictures_without_text_file_have_no_object(tmp_path: Path) -> None:
    root = data.yolo(tmp_path)
    (root / "labels" / "train" / "b.txt").unlink()
    found = found_in(root)
    assert any("1 picture has no text file" in note for note in found.notes)
    for path in (root / "labels").rglob("*.txt"):
        path.unlink()
    with pytest.raises(zooft.DataError, match=r"none of the 6 pictures .* for images/a.jpg it is labels/a.txt"):
        found_in(root)


def test_a_picture_in_two_splits_belongs_to_neither(tmp_path: Path) -> None:
    root = data.yolo(tmp_path)
    text = (root / "data.yaml").read_text()
    (root / "data.yaml").write_text(text.replace("val: images/val", "val: [images/val, images/train]"))
    found = found_in(root)
    assert names_of(found) == "ef"
    assert all("it is listed twice, for train and for val" in reason for reason in reasons(found).values())


def test_lists_of_pictures(tmp_path: Path) -> None:
    root = data.yolo(tmp_path)
    (root / "train.txt").write_text("./images/train/a.png\n./images/train/nothing.png\n")
    text = (root / "data.yaml").read_text().replace("train: images/train", "train: train.txt")
    (root / "data.yaml").write_text(text)
    found = found_in(root)
    assert names_of(found) == "aef"
    assert "train.txt, line 2: there is no such picture" in reasons(found).values()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: images/train\nval: [\nnames: [a]", "data.yaml, line 3: not YAML"),
        ("train: images/none\nnames: [a]", "train is images/none, which isn't in"),
        ("train: images/train\nnames: [a, a]", "several classes are called a"),
        ("train: images/train\nnames: 3", "names is 3"),
    ],
)
def test_a_wrong_yaml_is_refused(tmp_path: Path, text: str, words: str) -> None:
    root = data.yolo(tmp_path)
    (root / "data.yaml").write_text(text)
    with pytest.raises(zooft.DataError, match=words):
        found_in(root)


def test_boxes_of_a_turned_picture(tmp_path: Path) -> None:
    """COCO and VOC count pixels as they are stored; YOLO's shares are those of the picture as it is shown."""
    for form, root in (("coco", data.coco(tmp_path / "coco")), ("yolo", data.yolo(tmp_path / "yolo"))):
        path = root / "images" / "train" / "b.png"
        with Image.open(path) as image:
            exif = image.getexif()
            exif[0x0112] = 6
            image.save(path, exif=exif)
        found = found_in(root)
        if form == "coco":
            assert "EXIF turns it" in reasons(found)["images/train/b.png"]
        else:
            assert next(s for s in found.samples if s.id.endswith("b.png")).target.corners == ((0, 0, 48, 64),)


def test_torn_pictures_and_boxes_that_stand_twice(tmp_path: Path) -> None:
    root = data.yolo(tmp_path)
    (root / "images" / "train" / "a.png").write_bytes(b"no picture")
    path = root / "labels" / "train" / "b.txt"
    path.write_text(path.read_text() * 2)
    found = found_in(root)
    assert reasons(found) == {"images/train/a.png": "not a picture that Pillow knows"}
    assert any("1 box is listed twice" in note for note in found.notes)


def test_real_blood_cells() -> None:
    found = found_in(example_data.real("bccd"))
    assert {sample.split for sample in found.samples} == {"train", "val"}
    assert len(found.samples) == 292
    assert [label.name for label in found.labels] == ["Platelets", "RBC", "WBC"]
    assert sorted(reasons(found)) == [
        "Annotations/BloodImage_00338.xml, line 158",
        "Annotations/BloodImage_00343.xml, line 50",
    ]


def test_real_coco128() -> None:
    """Its YAML lies beside the folder of its pictures."""
    found = found_in(example_data.real("coco128") / "object_detection" / "config.yaml")
    assert len(found.labels) == 80
    assert len(found.samples) >= 250
