"""What is found below a folder or in a manifest; and that nothing is left out unsaid."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from pathlib import Path

import example_data
import pytest

import zooft
from zooft.data.samples import discover as discover_checked
from zooft.hooks import registry
from zooft_images.discover import discover
from zooft_images.options import ClassificationOptions

OPTIONS = ClassificationOptions()
BY_PATIENT = ClassificationOptions(group_column="patient")
GIVEN_SPLIT = {"train": "train", "Training": "train", "val": "val", "valid": "val", "validation": "val", "TEST": "test"}


def rejected(found: zooft.Discovery) -> dict[str, str]:
    return {rejection.id: rejection.reason for rejection in found.rejected}


def labels(found: zooft.Discovery) -> dict[str, str]:
    return {sample.id: found.classes[sample.target] for sample in found.samples}


def check(path: Path) -> zooft.Discovery:
    """Discovery as a run does it, with the core's own checks behind the task's."""
    return discover_checked(registry.load().task("classification"), path, OPTIONS)


def two_files(root: Path) -> Path:
    """A folder with a.png, b.png, c.png and no labels yet."""
    for index, name in enumerate("abc"):
        example_data.save(root / f"{name}.png", seed=index)
    return root / "labels.csv"


# class folders


def test_class_folders_name_the_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path, {"wasp": 1, "ant": 2, "Bee": 1, "10": 1, "9": 1})
    found = discover(tmp_path, OPTIONS)
    assert found.classes == ("10", "9", "Bee", "ant", "wasp")
    assert Counter(labels(found).values()) == {"wasp": 1, "ant": 2, "Bee": 1, "10": 1, "9": 1}
    assert all(sample.split is None and sample.group is None for sample in found.samples)


def test_the_positive_one_of_two_classes_stands_last_and_is_reported(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path / "parts", {"good": 1, "defect": 2})
    found = discover(tmp_path / "parts", OPTIONS)
    assert found.classes == ("good", "defect")
    assert Counter(labels(found).values()) == {"good": 1, "defect": 2}
    assert any("is 'defect', and 'good' the negative one: by the meaning of the names" in note for note in found.notes)
    example_data.write_classes(tmp_path / "insects", {"ants": 1, "bees": 1})
    found = discover(tmp_path / "insects", OPTIONS)
    assert found.classes == ("ants", "bees")
    assert any("is 'bees', and 'ants' the negative one: the last by name" in note for note in found.notes)
    assert discover(tmp_path / "insects", ClassificationOptions(positive="ants")).classes == ("bees", "ants")
    with pytest.raises(zooft.ConfigError, match="they have ants, bees"):
        discover(tmp_path / "insects", ClassificationOptions(positive="wasps"))
    assert discover(tmp_path / "insects", ClassificationOptions(positive="wasps"), learning=False).notes == ()


def test_ids_are_relative_with_forward_slashes_and_in_order(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path, {"ant": 2, "bee": 1})
    example_data.save(tmp_path / "bee" / "2024" / "may" / "x.png")
    ids = [sample.id for sample in discover(tmp_path, OPTIONS).samples]
    assert ids == ["ant/00.png", "ant/01.png", "bee/00.png", "bee/2024/may/x.png"]


@pytest.mark.parametrize("name", GIVEN_SPLIT)
def test_split_folders_are_honoured_under_their_usual_names(tmp_path: Path, name: str) -> None:
    example_data.write_classes(tmp_path / name, {"ant": 1, "bee": 2})
    found = discover(tmp_path, OPTIONS)
    assert found.classes == ("ant", "bee")
    assert {sample.split for sample in found.samples} == {GIVEN_SPLIT[name]}


def test_train_val_and_test_folders_share_their_classes(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path / "train", {"ant": 2, "bee": 2})
    example_data.write_classes(tmp_path / "val", {"ant": 1, "bee": 1})
    example_data.write_classes(tmp_path / "test", {"bee": 1, "cat": 1})
    found = discover(tmp_path, OPTIONS)
    assert found.classes == ("ant", "bee", "cat")
    assert Counter(sample.split for sample in found.samples) == {"train": 4, "val": 2, "test": 2}


def test_class_folders_beside_split_folders_are_an_error(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path, {"train/bee": 1, "ant": 1})
    with pytest.raises(zooft.DataError, match="others beside them: ant"):
        discover(tmp_path, OPTIONS)


def test_hymenoptera_is_the_usual_244_and_153_without_the_gif() -> None:
    found = discover(example_data.real("hymenoptera"), OPTIONS)
    counts = Counter((sample.split, found.classes[sample.target]) for sample in found.samples)
    assert counts == {("train", "ants"): 123, ("train", "bees"): 121, ("val", "ants"): 70, ("val", "bees"): 83}
    assert list(rejected(found)) == ["train/ants/imageNotFound.gif"]
    assert rejected(found)["train/ants/imageNotFound.gif"].startswith("GIF isn't an accepted format")


def test_a_manifest_beside_class_folders_is_not_used_and_that_is_reported(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path, {"ant": 1, "bee": 1})
    example_data.write_manifest(tmp_path / "labels.csv", ["path", "label"], [["ant/00.png", "bee"]])
    found = discover(tmp_path, OPTIONS)
    assert labels(found) == {"ant/00.png": "ant", "bee/00.png": "bee"}
    assert any("class folders are used, not labels.csv" in note for note in found.notes)


def test_names_of_any_script_are_preserved(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path, {"Ameise ü": 1, "蜂": 1})
    example_data.save(tmp_path / "蜂" / "фото 🐝.png")
    found = discover(tmp_path, OPTIONS)
    assert labels(found) == {"Ameise ü/00.png": "Ameise ü", "蜂/00.png": "蜂", "蜂/фото 🐝.png": "蜂"}


def test_names_that_are_not_unicode_become_ids_that_a_file_can_hold(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path, {"ant": 1, "bee": 1})
    try:
        (tmp_path / "ant" / "00.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/ant/\xff.png"))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    ids = [sample.id for sample in discover(tmp_path, OPTIONS).samples]
    assert ids == ["ant/\\udcff.png", "bee/00.png"]


def test_hidden_files_and_folders_are_left_out_counted_and_listed_where_they_look_like_pictures(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path, {"ant": 1, "bee": 1})
    example_data.save(tmp_path / ".cache" / "x.png")
    example_data.save(tmp_path / "ant" / ".ipynb_checkpoints" / "00-checkpoint.png")
    (tmp_path / "ant" / ".DS_Store").write_bytes(b"x")
    example_data.save(tmp_path / "bee" / ".hidden.png")
    (tmp_path / "bee" / "._00.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "bee" / "Thumbs.db").write_bytes(b"x")
    example_data.save(tmp_path / "__MACOSX" / "ant" / "._00.png")
    (tmp_path / "bee" / "@eaDir" / "00.png").mkdir(parents=True)
    found = discover(tmp_path, OPTIONS)
    assert list(labels(found)) == ["ant/00.png", "bee/00.png"]
    assert found.classes == ("ant", "bee")
    assert set(rejected(found)) == {".cache", "__MACOSX", "ant/.ipynb_checkpoints", "bee/._00.png", "bee/.hidden.png"}
    assert "1 picture" in rejected(found)[".cache"]
    (messages,) = [note for note in found.notes if "left out" in note]
    assert messages.count(" 1 ") == 4
    assert messages.endswith("and 4 other names")


def test_stray_files_are_listed_with_reasons(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path / "train", {"ant": 1, "bee": 1})
    example_data.save(tmp_path / "above.png")
    example_data.save(tmp_path / "train" / "beside.png")
    (tmp_path / "train" / "ant" / "notes.txt").write_text("an ant")
    assert rejected(discover(tmp_path, OPTIONS)) == {
        "above.png": "beside the class folders, so without a label",
        "train/beside.png": "beside the class folders, so without a label",
        "train/ant/notes.txt": "not an image that Pillow knows",
    }


@pytest.mark.timeout(30)
def test_pipes_and_broken_links_are_listed_and_nothing_hangs(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    example_data.write_classes(tmp_path, {"ant": 1, "bee": 1})
    os.mkfifo(tmp_path / "ant" / "pipe.png")
    (tmp_path / "ant" / "dangling.png").symlink_to("gone.png")
    (tmp_path / "ant" / "circle.png").symlink_to("circle.png")
    (tmp_path / "ant" / "up").symlink_to("..", target_is_directory=True)
    os.mkfifo(tmp_path / "beside")
    found = discover(tmp_path, OPTIONS)
    assert list(labels(found)) == ["ant/00.png", "bee/00.png"]
    assert rejected(found) == {
        "beside": "beside the class folders, so without a label",
        "ant/circle.png": "a link that leads nowhere",
        "ant/dangling.png": "a link that leads nowhere",
        "ant/pipe.png": "not a regular file",
        "ant/up": "a folder, or a link to one, which isn't followed",
    }


def test_links_to_images_and_to_class_folders_are_used(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path / "store", {"a": 1, "b": 2})
    root = tmp_path / "data"
    root.mkdir()
    (root / "ant").symlink_to(tmp_path / "store" / "a", target_is_directory=True)
    (root / "bee").mkdir()
    (root / "bee" / "x.png").symlink_to(tmp_path / "store" / "b" / "01.png")
    assert labels(discover(root, OPTIONS)) == {"ant/00.png": "ant", "bee/x.png": "bee"}


def test_a_folder_that_cannot_be_read_is_an_error_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example_data.write_classes(tmp_path, {"ant": 1, "bee": 1})
    example_data.save(tmp_path / "ant" / "locked" / "x.png")
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(zooft.DataError, match=r"locked can't be read: Permission denied"):
        discover(tmp_path, OPTIONS)


def test_threads_leave_the_warning_filters_as_they_were() -> None:
    before = list(warnings.filters)
    found = discover(example_data.real("hymenoptera"), OPTIONS)
    assert found.samples
    assert list(warnings.filters) == before


def test_every_odd_image_in_a_class_folder_is_a_sample_or_a_rejection(tmp_path: Path) -> None:
    corner = example_data.real("image_corner")
    example_data.write_classes(tmp_path, {"plain": 1})
    (tmp_path / "odd").symlink_to(corner, target_is_directory=True)
    found = discover(tmp_path, OPTIONS)
    named = [sample.id for sample in found.samples] + [rejection.id for rejection in found.rejected]
    assert sorted(named) == sorted(["plain/00.png", *(f"odd/{path.name}" for path in corner.iterdir())])


# manifests


def test_a_manifest_gives_paths_labels_groups_and_splits(tmp_path: Path) -> None:
    manifest = two_files(tmp_path)
    rows = [["a.png", "yes", "p1", "train"], ["b.png", "no", "p2", "Validation"], ["c.png", "no", "", "test"]]
    example_data.write_manifest(manifest, ["path", "label", "group", "split"], rows)
    found = discover(manifest, OPTIONS)
    assert found.classes == ("no", "yes")
    assert [(s.id, s.group, s.split) for s in found.samples] == [
        ("a.png", "p1", "train"),
        ("b.png", "p2", "val"),
        ("c.png", None, "test"),
    ]


def test_a_folder_with_nothing_but_files_is_read_by_its_manifest(tmp_path: Path) -> None:
    example_data.write_manifest(two_files(tmp_path), ["path", "label"], [["a.png", "yes"], ["b.png", "no"]])
    assert labels(discover(tmp_path, OPTIONS)) == {"a.png": "yes", "b.png": "no"}


def test_a_byte_order_mark_and_spaces_do_not_matter(tmp_path: Path) -> None:
    two_files(tmp_path).write_bytes("path,label\r\n a.png , yes \r\nb.png,né\r\n".encode("utf-8-sig"))
    assert labels(discover(tmp_path / "labels.csv", OPTIONS)) == {"a.png": "yes", "b.png": "né"}


@pytest.mark.parametrize("column", ["label", "split", "group"])
def test_lines_that_contradict_each_other_are_an_error_with_the_line(tmp_path: Path, column: str) -> None:
    first = {"path": "a.png", "label": "yes", "split": "train", "group": "p1"}
    second = first | {"path": "./a.png", column: {"label": "no", "split": "val", "group": "p2"}[column]}
    example_data.write_manifest(two_files(tmp_path), list(first), [list(first.values()), list(second.values())])
    with pytest.raises(zooft.DataError, match=rf"labels.csv, line 3: a.png has the {column} "):
        discover(tmp_path / "labels.csv", OPTIONS)


def test_one_image_under_two_names_with_two_labels_is_an_error(tmp_path: Path) -> None:
    manifest = two_files(tmp_path)
    (tmp_path / "alias.png").symlink_to("a.png")
    example_data.write_manifest(manifest, ["path", "label"], [["a.png", "yes"], ["alias.png", "no"]])
    with pytest.raises(zooft.DataError, match="label 'no' here and 'yes' in line 2"):
        discover(manifest, OPTIONS)


def test_repeated_lines_count_once_and_that_is_reported(tmp_path: Path) -> None:
    manifest = two_files(tmp_path)
    example_data.write_manifest(manifest, ["path", "label"], [["a.png", "yes"], ["a.png", "yes"], ["b.png", "no"]])
    found = discover(manifest, OPTIONS)
    assert len(found.samples) == 2
    assert any("1 line of labels.csv with a file that is listed above" in note for note in found.notes)


def test_lines_that_cannot_be_used_are_listed_with_reasons(tmp_path: Path) -> None:
    manifest = two_files(tmp_path)
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "folder").mkdir()
    bad = {"gone.png": "yes", "c.png": "", "circle.png": "no", "folder": "no", "x" * 300 + ".png": "no"}
    rows = [["a.png", "yes", "train"], ["b.png", "no", "train"], *([p, label, "train"] for p, label in bad.items())]
    example_data.write_manifest(manifest, ["path", "label", "split"], [*rows, ["", "yes", ""]])
    found = discover(manifest, OPTIONS)
    assert list(labels(found)) == ["a.png", "b.png"]
    reasons = [(rejection.id[:8], rejection.reason) for rejection in found.rejected]
    assert reasons[:4] == [
        ("gone.png", "no such file"),
        ("c.png", "the line has no path or no label"),
        ("circle.p", "no such file"),
        ("x" * 8, "not a usable path: File name too long"),
    ]
    assert ("line 9", "the line has no path or no label") in [(r.id, r.reason) for r in found.rejected]
    assert ("folder", "a folder, or a link to one, which isn't followed") in reasons
    assert len(found.rejected) == 6


def test_a_misspelt_split_is_an_error_and_not_another_experiment(tmp_path: Path) -> None:
    example_data.save(tmp_path / "a.png")
    rows = [["a.png", "yes", "validaton"]]
    manifest = example_data.write_manifest(tmp_path / "labels.csv", ["path", "label", "split"], rows)
    with pytest.raises(zooft.DataError, match="'validaton'; there are train, val and test"):
        discover(manifest, OPTIONS)


def test_paths_may_lead_out_of_the_folder_and_ids_stay_relative(tmp_path: Path) -> None:
    example_data.save(tmp_path / "pictures" / "x.png")
    example_data.save(tmp_path / "lists" / "y.png")
    absolute = str(tmp_path / "pictures" / ".." / "lists" / "y.png")
    rows = [["../pictures/x.png", "yes"], [absolute, "no"]]
    manifest = example_data.write_manifest(tmp_path / "lists" / "labels.csv", ["path", "label"], rows)
    assert labels(discover(manifest, OPTIONS)) == {"../pictures/x.png": "yes", "y.png": "no"}


def test_links_in_a_manifest_keep_the_name_that_was_written(tmp_path: Path) -> None:
    example_data.save(tmp_path / "secret-store" / "x.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one.png").symlink_to(tmp_path / "secret-store" / "x.png")
    manifest = example_data.write_manifest(tmp_path / "data" / "labels.csv", ["path", "label"], [["one.png", "yes"]])
    assert list(labels(discover(manifest, OPTIONS))) == ["one.png"]


def test_a_class_whose_paths_are_all_wrong_is_not_forgotten(tmp_path: Path) -> None:
    rows = [["a.png", "yes"], ["b.png", "no"], ["typo.png", "maybe"]]
    example_data.write_manifest(two_files(tmp_path), ["path", "label"], rows)
    with pytest.raises(zooft.DataError, match=r"no usable samples of class maybe; 1 file was rejected.*typo.png"):
        check(tmp_path)


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    rows = [["a.png", "yes", "p1", "54"], ["b.png", "no", "p2", "61"]]
    manifest = example_data.write_manifest(two_files(tmp_path), ["path", "label", "patient", "age"], rows)
    assert any("aren't used: patient, age" in note for note in discover(manifest, OPTIONS).notes)
    found = discover(manifest, BY_PATIENT)
    assert [sample.group for sample in found.samples] == ["p1", "p2"]
    assert any("aren't used: age" in note for note in found.notes)


@pytest.mark.parametrize(
    ("column", "pointed_out", "option"),
    [
        ("patient", "patient", "patient"),
        ("Subject ID", "subject id", "'subject id'"),
        ("case", "case", "case"),
        ("weight", "", ""),
    ],
)
def test_an_unused_column_that_looks_like_groups_is_pointed_out(
    tmp_path: Path, column: str, pointed_out: str, option: str
) -> None:
    for number in range(4):
        example_data.save(tmp_path / f"{number}.png", 40 * number, seed=number)
    rows = [[f"{number}.png", "ab"[number % 2], f"p{number // 2}"] for number in range(4)]
    manifest = example_data.write_manifest(tmp_path / "t.csv", ["path", "label", column], rows)
    about = [note for note in discover(manifest, OPTIONS).notes if "must not divide" in note]
    assert bool(about) == bool(pointed_out)
    if about:
        assert about[0].startswith(f"warning: the column {pointed_out} of {manifest.name} isn't used")
        assert "(2 values in 4 rows)" in about[0]
        assert f"Give --group-column {option}, or call it group" in about[0]
    found = discover(manifest, ClassificationOptions(group_column=column))
    assert [sample.group for sample in found.samples] == ["p0", "p0", "p1", "p1"]
    assert not any("must not divide" in note for note in found.notes)


@pytest.mark.parametrize("group", ["q", ""])
def test_where_groups_are_known_no_other_column_is_pointed_out(tmp_path: Path, group: str) -> None:
    for number in range(4):
        example_data.save(tmp_path / f"{number}.png", 40 * number, seed=number)
    rows = [[f"{number}.png", "ab"[number % 2], group, f"p{number // 2}"] for number in range(4)]
    manifest = example_data.write_manifest(tmp_path / "t.csv", ["path", "label", "group", "patient"], rows)
    notes = discover(manifest, OPTIONS).notes
    assert any("aren't used: patient" in note for note in notes)
    assert any("must not divide" in note for note in notes) == (group == "")


def test_a_group_column_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    manifest = example_data.write_manifest(two_files(tmp_path), ["path", "label"], [["a.png", "yes"], ["b.png", "no"]])
    with pytest.raises(zooft.DataError, match="no column 'patient' to group by; it has path, label"):
        discover(manifest, BY_PATIENT)


def test_a_blank_group_column_is_allowed_and_class_folders_note_that_they_have_none(tmp_path: Path) -> None:
    rows = [["a.png", "yes", ""], ["b.png", "no", ""]]
    manifest = example_data.write_manifest(two_files(tmp_path), ["path", "label", "patient"], rows)
    assert [sample.group for sample in discover(manifest, BY_PATIENT).samples] == [None, None]
    folders = example_data.write_classes(tmp_path / "folders", {"yes": 1, "no": 1})
    assert any("--group-column patient is for manifests" in note for note in discover(folders, BY_PATIENT).notes)
    by_kind = discover(folders, ClassificationOptions(label_column="kind"))
    assert any("class folders name the classes; --label-column kind is for" in note for note in by_kind.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has nothing"),
        (b"path:label\na.png:yes\n", "has path:label"),
        (b"file,label\na.png,yes\n", "path is missing"),
        ("path,label\na.png,né\n".encode("latin-1"), "isn't a CSV file in UTF-8: line 2"),
        ("path,label\na.png,yes\n".encode("utf-16-le"), "line 1, holds NUL"),
        (b"path,label\n" + b"x" * 200_000 + b",yes\n", "labels.csv, line 2, has a cell of more than 2,000 characters"),
        (b"path,label,label\na.png,yes,no\n", "has the column label twice"),
        (b"path,label\na.png,yes,no\n", "line 2, has more fields"),
        (b"path,label\na.png,Yes\nb.png,yes\n", "classes that differ only in case"),
        (b"path,label\na.png,yes\nb.png,nan\n", "line 3: 'nan' can't be the name of a class"),
        (b'path,label\na.png,"yes\nb.png,no\n', "labels.csv, line 2: a cell that begins with a quotation mark"),
        (b"path,label\n", "no images in"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    two_files(tmp_path).write_bytes(content)
    with pytest.raises(zooft.DataError, match=message):
        discover(tmp_path / "labels.csv", OPTIONS)


def test_a_table_of_windows_in_utf_16_is_read_and_that_is_reported(tmp_path: Path) -> None:
    text = "PATH;Label\r\n.\\a.png;yes\r\nb.png;no\r\n"
    two_files(tmp_path).write_bytes(text.encode("utf-16"))
    found = discover(tmp_path / "labels.csv", OPTIONS)
    assert labels(found) == {"a.png": "yes", "b.png": "no"}
    assert "labels.csv is in UTF-16, and read as that" in found.notes


def test_class_folders_that_differ_in_case_or_mean_nothing_are_refused(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path / "case", {"Ant": 1, "ant": 1})
    with pytest.raises(zooft.DataError, match=r"'Ant' .the folder Ant. and 'ant' .the folder ant."):
        discover(tmp_path / "case", OPTIONS)
    example_data.write_classes(tmp_path / "nothing", {"ant": 1, "NaN": 1})
    with pytest.raises(zooft.DataError, match="the folder NaN: 'NaN' can't be the name of a class"):
        discover(tmp_path / "nothing", OPTIONS)


def test_an_image_given_as_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(zooft.DataError, match="is a picture; --data takes a folder"):
        discover(example_data.save(tmp_path / "one.png"), OPTIONS)


# what a run needs


def test_an_empty_class_folder_is_an_error(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path, {"ant": 2, "bee": 2, "wasp": 0})
    with pytest.raises(zooft.DataError, match="no usable samples of class wasp"):
        check(tmp_path)


def test_a_class_of_nothing_but_unreadable_images_is_an_error_with_the_first_reason(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path, {"ant": 2, "bee": 0})
    (tmp_path / "bee" / "x.jpg").write_bytes(b"no image")
    with pytest.raises(
        zooft.DataError, match=r"class bee; 1 of its files was rejected, the first: bee/x.jpg: not an image"
    ):
        check(tmp_path)


def test_one_class_is_nothing_to_classify(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path, {"ant": 3})
    with pytest.raises(zooft.DataError, match="only one class, 'ant'"):
        check(tmp_path)


def test_an_empty_folder_is_an_error_that_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(zooft.DataError, match="expected class folders with images, or a CSV manifest"):
        check(tmp_path)


def test_images_without_class_folders_are_an_error_that_names_one(tmp_path: Path) -> None:
    two_files(tmp_path)
    with pytest.raises(zooft.DataError, match=r"3 files lie beside each other without class folders, such as a.png"):
        check(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(zooft.DataError, match=r"there is no data at .*nowhere"):
        check(tmp_path / "nowhere")
