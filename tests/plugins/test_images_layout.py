"""Folders as tired people lay them out: read as they are meant, or refused with what they look like and what to do."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import example_data
import pytest
from commands import command

import zooft
from zooft.data.samples import discover as discover_checked
from zooft.hooks import registry
from zooft_images.discover import discover
from zooft_images.options import ClassificationOptions

OPTIONS = ClassificationOptions()


def lay(root: Path, counts: Mapping[str, int]) -> Path:
    return example_data.write_classes(root / "d", counts)


def check(path: Path) -> zooft.Discovery:
    """Discovery as a run does it, with the core's own checks behind the task's."""
    return discover_checked(registry.load().task("classification"), path, OPTIONS)


def counted(found: zooft.Discovery) -> dict[tuple[str | None, str], int]:
    return dict(Counter((sample.split, found.classes[sample.target]) for sample in found.samples))


def test_splits_inside_class_folders_are_used(tmp_path: Path) -> None:
    root = lay(tmp_path, {"ant/train": 3, "ant/val": 2, "bee/Training": 3, "bee/valid": 1, "bee/testing": 1})
    (root / "ant" / "notes.txt").write_text("x")
    found = check(root)
    assert counted(found) == {
        ("train", "ant"): 3,
        ("val", "ant"): 2,
        ("train", "bee"): 3,
        ("val", "bee"): 1,
        ("test", "bee"): 1,
    }
    assert "each class folder holds folders of splits, which are used as such" in found.notes
    assert [rejection.id for rejection in found.rejected] == ["ant/notes.txt"]


@pytest.mark.parametrize(
    "names",
    [
        ("images", "masks"),
        ("JPEGImages", "SegmentationClass"),
        ("train/images", "train/masks"),
        ("images/train", "labels/train"),
    ],
)
def test_pictures_beside_their_masks_are_not_two_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(
        zooft.DataError, match=r"look like pictures and what is marked in them.*give each class a folder"
    ):
        check(lay(tmp_path, dict.fromkeys(names, 3)))


@pytest.mark.parametrize("name", ["annotations.json", "train.txt", "data.yaml"])
def test_one_folder_of_pictures_beside_what_is_known_of_them_is_pointed_out(tmp_path: Path, name: str) -> None:
    root = lay(tmp_path, {"images": 3})
    (root / name).write_text("{}")
    with pytest.raises(zooft.DataError, match=rf"no folder for each class.*{re.escape(name)}.*--task detection"):
        check(root)


def test_classes_called_by_such_words_among_others_are_classes(tmp_path: Path) -> None:
    assert set(check(lay(tmp_path, {"masks": 3, "no_masks": 3})).classes) == {"masks", "no_masks"}
    assert len(check(lay(tmp_path / "more", {"photos": 3, "masks": 3, "drawings": 3})).classes) == 3


def test_a_table_of_tabs_beside_pictures_is_pointed_at(tmp_path: Path) -> None:
    root = lay(tmp_path, {"": 3})
    (root / "classes.tsv").write_text("path\tlabel\n")
    with pytest.raises(zooft.DataError, match=r"if classes\.tsv names their classes, give it with --data"):
        check(root)


@pytest.mark.parametrize("odd", [{"bee": 2}, {"bee/2024": 2}, {"bee/train": 1, "bee": 1}])
def test_splits_inside_some_class_folders_only_are_an_error(tmp_path: Path, odd: dict[str, int]) -> None:
    with pytest.raises(
        zooft.DataError, match=r"ant holds folders of splits \(train and val\), and bee other folders or pictures"
    ):
        discover(lay(tmp_path, {"ant/train": 2, "ant/val": 1, **odd}), OPTIONS)


def test_a_class_may_be_called_train_or_test(tmp_path: Path) -> None:
    found = check(lay(tmp_path, {"bus": 2, "train": 3, "test": 1}))
    assert counted(found) == {(None, "bus"): 2, (None, "train"): 3, (None, "test"): 1}
    assert any(note.startswith("test and train: read as classes, not as splits") for note in found.notes)


@pytest.mark.parametrize("levels", ["data", "archive/data", "a/b/c"])
@pytest.mark.parametrize(
    "inner", [{"train/a": 2, "train/b": 2, "val/a": 1}, {"train/a": 2, "train/b": 1}, {"a": 1, "b": 1}]
)
def test_a_folder_too_high_is_answered_with_the_one_to_give(tmp_path: Path, levels: str, inner: dict[str, int]) -> None:
    root = lay(tmp_path, {f"{levels}/{name}": count for name, count in inner.items()})
    (root / levels / "README.txt").write_text("x")
    with pytest.raises(zooft.DataError) as refused:
        discover(root, OPTIONS)
    assert f"give --data {root / levels};" in str(refused.value)
    assert check(root / levels).samples


def test_a_manifest_one_folder_below_is_found_too(tmp_path: Path) -> None:
    root = lay(tmp_path, {"data/images": 2})
    (root / "data" / "labels.csv").write_text("path,label\nimages/00.png,a\nimages/01.png,b\n")
    with pytest.raises(zooft.DataError, match=r"give --data .*/d/data;"):
        discover(root, OPTIONS)
    assert check(root / "data").classes == ("a", "b")


@pytest.mark.parametrize("below", [{"images": 2}, {"train": 1, "test": 1}, {"train_images": 2, "test_images": 1}])
def test_a_manifest_counts_where_the_folders_cannot_be_classes(tmp_path: Path, below: dict[str, int]) -> None:
    root = lay(tmp_path, below)
    first = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))[:2]
    (root / "labels.csv").write_text(
        "path,label\n" + "".join(f"{path},{label}\n" for path, label in zip(first, "ab", strict=True))
    )
    assert [sample.id for sample in check(root).samples] == first


@pytest.mark.parametrize("images", ["images", "train_images"])
def test_a_table_beside_one_folder_is_pointed_at(tmp_path: Path, images: str) -> None:
    root = lay(tmp_path, {images: 2})
    (root / "train.csv").write_text("path,label\n")
    with pytest.raises(zooft.DataError, match=r"give --data .*/d/train.csv if that names files and classes"):
        check(root)


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.feather"])
def test_other_tables_than_csv_are_answered_with_csv(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(zooft.DataError, match="write it as CSV"):
        check(tmp_path / name)


def test_one_class_folder_with_folders_of_its_own_is_one_class(tmp_path: Path) -> None:
    root = lay(tmp_path, {"ant": 1, "ant/2024": 1, "ant/2025": 1})
    assert counted(discover(root, OPTIONS)) == {(None, "ant"): 3}
    with pytest.raises(zooft.DataError, match="only one class, 'ant'"):
        check(root)


@pytest.mark.parametrize(
    "names",
    [("seg_train", "seg_test"), ("train_set", "holdout"), ("Train Images", "Test Images"), ("trainingSet", "evalSet")],
)
def test_splits_under_other_names_are_not_learnt_as_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    nested = lay(tmp_path, {f"{name}/{label}": 2 for name in names for label in ("ant", "bee")})
    flat = example_data.write_classes(tmp_path / "flat", dict.fromkeys(names, 2))
    (flat / "train.csv").write_text("x")
    for root in (nested, flat):
        with pytest.raises(
            zooft.DataError, match=r"look like splits and aren't called so; call splits train, val and test"
        ):
            discover(root, OPTIONS)
    with pytest.raises(zooft.DataError, match=r"or give --data .*train.csv"):
        discover(flat, OPTIONS)


@pytest.mark.parametrize(
    "names", [("valid", "invalid"), ("covid_tested", "untested"), ("trained", "wild"), ("latest", "contest")]
)
def test_classes_whose_names_hold_such_words_are_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    assert set(check(lay(tmp_path, dict.fromkeys(names, 2))).classes) == set(names)


def test_a_warning_shows_where_the_inner_folders_may_be_the_classes(tmp_path: Path) -> None:
    root = lay(tmp_path, {f"{outer}/{inner}": 1 for outer in ("entrenamiento", "prueba") for inner in ("ant", "bee")})
    (messages,) = [note for note in check(root).notes if note.startswith("warning")]
    assert "the classes are entrenamiento and prueba, and all of them hold the folders ant, bee" in messages
    plain = check(example_data.write_classes(tmp_path / "p", {"animals/ant": 1, "animals/bee": 1, "plants/oak": 1}))
    (messages,) = [note for note in plain.notes if note.startswith("2 class folders hold folders, such as animals/ant")]
    assert "all that lies in them is of the outer one's class" in messages
    assert "column group" in messages


def test_folders_of_subjects_are_not_mistaken_for_classes_in_silence(tmp_path: Path) -> None:
    few = check(lay(tmp_path, {f"patient {i}": 2 for i in range(25)}))
    assert any(note.startswith("warning: 25 classes in 50 pictures") for note in few.notes)
    many = check(example_data.write_classes(tmp_path / "m", {f"kind {i}": 3 for i in range(25)}))
    assert not any("25 classes" in note for note in many.notes)


def test_a_folder_twice_by_unpacking_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        zooft.DataError, match="train holds one folder, train, and the folders of the classes lie in that"
    ):
        discover(lay(tmp_path, {"train/train/a/x": 1, "train/train/b/x": 1, "val/a": 1}), OPTIONS)


def test_an_empty_split_folder_and_one_under_two_names_are_reported(tmp_path: Path) -> None:
    root = lay(tmp_path, {"train/a": 2, "train/b": 2, "Train/a": 1})
    if len(list(root.iterdir())) < 2:
        pytest.skip("this file system doesn't distinguish capitals")
    (root / "val").mkdir()
    (root / "test" / "a").mkdir(parents=True)
    notes = check(root).notes
    assert sum("so there is no split of that name" in note for note in notes) == 2
    assert "the folder val has no files in class folders, so there is no split of that name" in notes
    assert "the folders Train and train are all read as train" in notes


@pytest.mark.parametrize("name", ["Testing", "TEST", "dev", "Validation", "valid"])
def test_more_names_of_splits_are_known(tmp_path: Path, name: str) -> None:
    found = check(lay(tmp_path, {"Training/a": 1, "Training/b": 1, f"{name}/a": 1, f"{name}/b": 1}))
    assert {split for split, _ in counted(found)} == {"train", "test" if name.lower().startswith("test") else "val"}


def test_who_gives_one_split_alone_hears_of_the_others(tmp_path: Path) -> None:
    root = lay(tmp_path, {"train/a": 1, "train/b": 1, "val/a": 1})
    assert (
        "val lies beside train and isn't used; give the folder above to use that split" in check(root / "train").notes
    )


def test_pictures_without_class_folders_are_counted_with_what_to_do(tmp_path: Path) -> None:
    for counts in ({".": 3}, {"train": 2, "val": 1}):
        root = example_data.write_classes(tmp_path / str(len(counts)), counts)
        with pytest.raises(zooft.DataError, match=r"3 files lie beside each other without class folders.*labels.csv"):
            discover(root, OPTIONS)


def test_unlabelled_test_pictures_beside_labelled_ones_are_listed(tmp_path: Path) -> None:
    found = check(lay(tmp_path, {"train/a": 2, "train/b": 2, "test": 3}))
    assert counted(found) == {("train", "a"): 2, ("train", "b"): 2}
    assert [rejection.id for rejection in found.rejected] == [f"test/0{i}.png" for i in range(3)]


def test_links_that_lead_back_up_are_no_classes(tmp_path: Path) -> None:
    root = lay(tmp_path, {"ant": 1, "bee": 1})
    (root / "again").symlink_to(root, target_is_directory=True)
    (root / "up").symlink_to("..", target_is_directory=True)
    found = check(root)
    assert found.classes == ("ant", "bee")
    assert {r.id: r.reason for r in found.rejected} == dict.fromkeys(
        ("again", "up"), "a link to a folder that it lies in, which isn't followed"
    )


@pytest.mark.parametrize("name", ["wasp", "train/ant"])
def test_one_folder_under_two_names_is_an_error(tmp_path: Path, name: str) -> None:
    root = lay(tmp_path, {"val/ant": 1, "train/bee": 1} if "/" in name else {"ant": 1, "bee": 1})
    (root / name).symlink_to(root / ("val/ant" if "/" in name else "ant"), target_is_directory=True)
    with pytest.raises(zooft.DataError, match="are one folder, by a link; leave one of the two"):
        discover(root, OPTIONS)


def test_one_class_in_two_unicode_forms_is_an_error_in_its_own_words(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")]
    root = lay(tmp_path, {f"train/{forms[0]}": 1, "train/b": 1, f"val/{forms[1]}": 1, "val/b": 1})
    with pytest.raises(zooft.DataError, match="Unicode form"):
        discover(root, OPTIONS)


def test_a_class_of_nothing_readable_is_reported_with_its_own_files(tmp_path: Path) -> None:
    root = lay(tmp_path, {"ant": 2, "bee": 0})
    (root / "ant" / "a.txt").write_text("x")
    for index in range(3):
        (root / "bee" / f"{index}.jpg").write_bytes(b"no image")
    with pytest.raises(
        zooft.DataError, match=r"class bee; 3 of its files were rejected, the first: bee/0.jpg: not an image"
    ):
        check(root)


def test_names_that_are_not_unicode_go_through_every_command(tmp_path: Path) -> None:
    root = lay(tmp_path, {"train/a": 6, "train/b": 6, "val/a": 2, "val/b": 2})
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xfc\xff")
    try:
        Path(root).rename(odd)
        (Path(odd) / "train" / "a" / "00.png").rename(os.fsdecode(os.fsencode(odd) + b"/train/a/\xff.png"))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    run = tmp_path / "run"
    command(
        "finetune",
        "--backbone",
        "timm:test_resnet",
        "--task",
        "classification",
        "--data",
        odd,
        "--weights",
        "random",
        "--no-cache",
        "--no-export",
        "--no-audit",
        "--bootstrap",
        "0",
        "--epochs",
        "1",
        "--out",
        run,
    )
    assert "fine-tuned on \\udcfc\\udcff" in (run / "report.html").read_text(encoding="utf-8")
    assert "udcff.png,a,,train" in (run / "samples.csv").read_text(encoding="utf-8")
    command(
        "audit", odd, "--task", "classification", "--json", "--out", tmp_path / "audit.json", status=1
    )  # equal pictures
    command("evaluate", run, "--data", odd, "--bootstrap", "0", "--json")
    missing = command("audit", odd + "-gone", "--task", "classification", status=1)
    assert "there is no data" in missing.stderr
