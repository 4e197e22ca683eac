"""WebDataset shards against the same pictures in folders, and what damaged or hostile ones do: nothing, but with a reason."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
import tracemalloc
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import pytest

import zooft
from zooft.data.samples import discover as discover_checked
from zooft.hooks import registry
from zooft_images import read as reader
from zooft_images.discover import discover
from zooft_images.options import ClassificationOptions
from zooft_images.shards import Member, Shard, scan

OPTIONS = ClassificationOptions()
BLOCK = 512


def rejected(found: zooft.Discovery) -> dict[str, str]:
    assert len({rejection.id for rejection in found.rejected}) == len(found.rejected)
    return {rejection.id: rejection.reason for rejection in found.rejected}


def labels(found: zooft.Discovery) -> dict[str, str]:
    return {sample.id: found.classes[sample.target] for sample in found.samples}


def notes(found: zooft.Discovery) -> list[str]:
    """All but which of two classes is positive."""
    return [note for note in found.notes if not note.startswith("the positive class")]


def png(seed: int = 0) -> bytes:
    """A small picture's file; no two seeds give the same."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(example_data.picture(128, size=(8, 9), seed=seed)).save(file, "PNG")
    return file.getvalue()


def write(path: Path, members: Mapping[str, bytes | str] | Sequence[tuple[str, bytes | str]], **more: Any) -> Path:
    """A tar file by the standard library, which the code under test only reads with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = members.items() if isinstance(members, Mapping) else members
    with tarfile.open(path, "w", **more) as tar:
        for name, content in pairs:
            raw = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path


def pairs(count: int, start: int = 0) -> dict[str, bytes | str]:
    """Pictures 00, 01, ... that are ants and bees in turns."""
    made: dict[str, bytes | str] = {}
    for index in range(start, start + count):
        made |= {f"{index:02}.png": png(index), f"{index:02}.cls": ("ant", "bee")[index % 2]}
    return made


def one(path: Path, **more: str) -> zooft.Discovery:
    """A shard with a sound picture of each class and one that is the test's."""
    members = pairs(2) | {key.replace("_", "."): value for key, value in more.items()}
    return discover(write(path / "x.tar", members), OPTIONS)


# the same as folders


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """Some pictures of hymenoptera with their splits, as folders and as shards of seven."""
    source = example_data.real("hymenoptera")
    folder, shards = tmp_path / "folder", tmp_path / "shards"
    for split in ("train", "val"):
        files = sorted((source / split).rglob("*.jpg"))[::12]
        members: list[list[tuple[str, bytes | str]]] = [[]]
        for index, path in enumerate(files):
            copy = folder / split / path.parent.name / f"{path.parent.name}{index}.jpg"
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
            if len(members[-1]) >= 14:
                members.append([])
            members[-1] += [(f"{copy.stem}.jpg", path.read_bytes()), (f"{copy.stem}.cls", path.parent.name)]
        for number, some in enumerate(members):
            write(shards / split / f"pictures-{number:06}.tar", some)
    return folder, shards


def test_shards_give_what_folders_give(both: tuple[Path, Path]) -> None:
    of_folder, of_shards = (discover(path, OPTIONS) for path in both)
    assert of_shards.classes == of_folder.classes == ("ants", "bees")
    assert not of_shards.rejected
    # train/ants/ants0.jpg and train/pictures-000000.tar/ants0.jpg
    expected = {(s.split, Path(s.id).name): s for s in of_folder.samples}
    assert len(expected) == len(of_shards.samples) > 30
    for sample in of_shards.samples:
        like = expected[sample.split, Path(sample.id).name]
        assert sample.target == like.target
        assert dict(sample.facts) == dict(like.facts)
        np.testing.assert_array_equal(reader.read(sample.source, OPTIONS), reader.read(like.source, OPTIONS))


def test_finetuning_on_shards_ends_as_on_folders(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = example_data.write_classes(tmp_path / "folder", {"dark": 10, "light": 10})
    for number, name in enumerate(
        example_data.LEVELS
    ):  # in the order of the folders, so that the held-out ones are the same
        files = sorted((folder / name).iterdir())
        members: dict[str, bytes | str] = {}
        for path in files:
            members |= {f"{name}{path.stem}.png": path.read_bytes(), f"{name}{path.stem}.cls": name}
        write(tmp_path / "shards" / f"all-{number:03}.tar", members)
    results = [
        zooft.finetune(
            backbone="timm:test_resnet",
            task="classification",
            data=place,
            out=tmp_path / "runs" / place.name,
            weights="random",
            freeze="none",
            epochs=1,
            bootstrap=0,
            export=False,
            device="cpu",
            seed=3,
        )
        for place in (folder, tmp_path / "shards")
    ]
    losses = [
        [
            (line["train_loss"], line["val_loss"], line["metrics"])
            for line in map(json.loads, (result.path / "metrics.jsonl").read_text().splitlines())
        ]
        for result in results
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 1
    ours, theirs = (load_file(result.path / "model.safetensors") for result in results)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


# where shards lie, and splits


def test_one_tar_file_is_data(tmp_path: Path) -> None:
    found = discover(write(tmp_path / "all.tar", pairs(3)), OPTIONS)
    assert labels(found) == {"all.tar/00.png": "ant", "all.tar/01.png": "bee", "all.tar/02.png": "ant"}
    assert {sample.split for sample in found.samples} == {None}


def test_shards_of_one_key_are_distinguished_by_their_names(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"x-{number}.tar", pairs(2))
    found = discover_checked(registry.load().task("classification"), tmp_path, OPTIONS)
    assert [sample.id for sample in found.samples] == [
        "x-0.tar/00.png",
        "x-0.tar/01.png",
        "x-1.tar/00.png",
        "x-1.tar/01.png",
    ]


def test_splits_are_read_from_the_names_of_shards(tmp_path: Path) -> None:
    for name in ("in1k-train-000000", "in1k-train-000001", "in1k-validation-000000", "in1k-TEST-000000"):
        write(tmp_path / f"{name}.tar", pairs(2))
    found = discover(tmp_path, OPTIONS)
    assert Counter(sample.split for sample in found.samples) == {"train": 4, "val": 2, "test": 2}
    assert any("splits are taken from the names of the shards: " in note for note in found.notes)


def test_a_word_within_a_word_is_no_split(tmp_path: Path) -> None:
    write(tmp_path / "trains-and-contests-0.tar", pairs(2))
    assert {sample.split for sample in discover(tmp_path, OPTIONS).samples} == {None}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a-train-0.tar", "b-0.tar"), "a-train-0.tar names its split and b-0.tar doesn't"),
        (("train-val-0.tar",), "names several splits: train and val"),
        (("train/a.tar", "b.tar"), "split folders and shards beside them, such as b.tar"),
        (("a.tar.gz",), "compressed with gzip"),
    ],
)
def test_what_would_quietly_be_another_experiment_is_an_error(
    tmp_path: Path, names: Sequence[str], message: str
) -> None:
    for name in names:
        write(tmp_path / name, pairs(2))
        if name.endswith(".gz"):
            (tmp_path / name).write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    with pytest.raises(zooft.DataError, match=message):
        discover(tmp_path, OPTIONS)


def test_an_archive_beside_class_folders_is_not_mistaken_for_a_shard(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path, {"ant": 1, "bee": 1})
    write(tmp_path / "archive.tar", pairs(2))
    found = discover(tmp_path, OPTIONS)
    assert list(labels(found)) == ["ant/00.png", "bee/00.png"]
    assert rejected(found) == {"archive.tar": "beside the class folders, so without a label"}


def test_files_beside_shards_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "train" / "a.tar", pairs(2))
    (tmp_path / "_info.json").write_text("{}")
    (tmp_path / "train" / "a.idx").write_text("0")
    (tmp_path / ".hidden").write_text("")
    assert set(rejected(discover(tmp_path, OPTIONS))) == {"_info.json", "train/a.idx"}


def test_a_hole_in_the_numbers_is_reported(tmp_path: Path) -> None:
    for number in (0, 1, 2, 4, 5):
        write(tmp_path / f"x-{number:06}.tar", pairs(2))
    assert any("x-NUMBER.tar lack 1 of the numbers in between: 3" in note for note in discover(tmp_path, OPTIONS).notes)
    write(tmp_path / "x-000003.tar", pairs(2))
    assert not notes(discover(tmp_path, OPTIONS))


def test_dates_are_not_numbers_with_holes(tmp_path: Path) -> None:
    for date in ("20240131", "20240201"):
        write(tmp_path / f"x-{date}.tar", pairs(2))
    assert not notes(discover(tmp_path, OPTIONS))


# labels


def test_whole_numbers_are_classes_in_the_order_of_their_size(tmp_path: Path) -> None:
    members = {f"{n}.{kind}": png(n) if kind == "png" else f"{n}\n" for n in (10, 9, 2) for kind in ("png", "cls")}
    found = discover(write(tmp_path / "x.tar", members), OPTIONS)
    assert found.classes == ("2", "9", "10")
    assert labels(found) == {"x.tar/10.png": "10", "x.tar/9.png": "9", "x.tar/2.png": "2"}


@pytest.mark.parametrize("key", ["label", "cls"])
@pytest.mark.parametrize("label", [1, "1"])
def test_a_label_may_stand_in_json(tmp_path: Path, key: str, label: object) -> None:
    members: dict[str, bytes | str] = {"a.png": png(), "a.json": json.dumps({key: label, "caption": "x"})}
    assert labels(discover(write(tmp_path / "x.tar", members | {"b.png": png(1), "b.cls": "0"}), OPTIONS)) == {
        "x.tar/a.png": "1",
        "x.tar/b.png": "0",
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "wasp\nant\n\n"),
        ("classnames.txt", "\ufeffwasp\r\nant"),
        ("classes.json", '["wasp", "ant"]'),
        ("classes.json", '{"1": "ant", "0": "wasp"}'),
        ("classes.json", '{"ant": 1, "wasp": 0}'),
    ],
)
def test_names_beside_the_shards_turn_numbers_into_classes_and_fix_their_order(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    members = {"a.png": png(), "a.cls": "0", "b.png": png(1), "b.cls": "ant", "c.png": png(2), "c.cls": "2"}
    found = discover(write(tmp_path / "x.tar", members), OPTIONS)
    assert found.classes == ("wasp", "ant")
    assert [sample.target for sample in found.samples] == [0, 1]
    assert rejected(found) == {"x.tar/c.png": "the label 2 is neither a name nor a number of the 2 classes"}


def test_a_label_that_is_a_number_and_another_class_name_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("1\n0\nx")
    members = {"a.png": png(), "a.cls": "0", "b.png": png(1), "b.cls": "2"}
    found = discover(write(tmp_path / "x.tar", members), OPTIONS)
    assert rejected(found) == {"x.tar/a.png": "the label 0 is the number of class 1 and the name of another"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no names"),
        ("ant\nant", "ant twice"),
        ("ant\n\nbee", "an empty or unprintable name"),
        ("ant\nb\x1be", "an empty or unprintable name"),
    ],
)
def test_class_names_that_cannot_be_meant_are_an_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "classes.txt").write_text(content)
    write(tmp_path / "x.tar", pairs(2))
    with pytest.raises(zooft.DataError, match=message):
        discover(tmp_path, OPTIONS)


@pytest.mark.parametrize(
    "content", ["{", "3", '{"a": 0, "b": 2}', '{"a": null}', '["a", 1]', "[" * 100_000, '{"0": "a", "00": "b"}']
)
def test_class_names_in_json_that_are_no_names_are_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "classes.json").write_text(content)
    write(tmp_path / "x.tar", pairs(2))
    with pytest.raises(zooft.DataError, match=r"classes\.json can't be read"):
        discover(tmp_path, OPTIONS)


def test_two_files_of_class_names_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "x.tar", pairs(2))
    (tmp_path / "classes.txt").write_text("ant\nbee")
    (tmp_path / "classnames.txt").write_text("bee\nant")
    with pytest.raises(zooft.DataError, match=r"has classes.txt and classnames.txt; leave only the one"):
        discover(tmp_path, OPTIONS)


def test_a_named_class_without_pictures_is_an_error_as_an_empty_folder_is(tmp_path: Path) -> None:
    write(tmp_path / "x.tar", pairs(2))
    (tmp_path / "classes.txt").write_text("ant\nbee\nwasp")
    with pytest.raises(zooft.DataError, match="no usable samples of class wasp"):
        discover_checked(registry.load().task("classification"), tmp_path, OPTIONS)


def test_groups_come_from_json(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {}
    for index, subject in enumerate(("anna", 7, None, "")):
        messages = {"label": "ab"[index % 2], "subject": subject}
        members |= {f"{index}.png": png(index), f"{index}.json": json.dumps(messages)}
    path = write(tmp_path / "x.tar", members)
    found = discover(path, ClassificationOptions(group_column="subject"))
    assert [sample.group for sample in found.samples] == ["anna", "7", None, None]
    with pytest.raises(zooft.DataError, match=r"has the key 'patient' to group by; they have label, subject"):
        discover(path, ClassificationOptions(group_column="patient"))
    notes = discover(path, OPTIONS).notes
    assert any("keys of KEY.json that aren't used: subject" in note for note in notes)
    assert any("Give --group-column subject, or call it group" in note for note in notes)


def test_the_key_of_the_classes_can_be_named_and_then_no_other_label_counts(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {}
    for index, kind in enumerate(("oak", "elm", None)):
        messages = {"label": "x", "kind": kind}
        members |= {f"{index}.png": png(index), f"{index}.json": json.dumps(messages), f"{index}.cls": "y"}
    path = write(tmp_path / "x.tar", members)
    found = discover(path, ClassificationOptions(label_column="kind"))
    assert labels(found) == {"x.tar/0.png": "oak", "x.tar/1.png": "elm"}
    assert rejected(found) == {"x.tar/2.png": "no label: no .json with kind is beside it (.json, .cls)"}
    assert any("aren't used: 3 .cls" in note for note in found.notes)
    with pytest.raises(
        zooft.DataError, match=r"has the key 'kinds' with the class; they have kind, label; nearest: kind"
    ):
        discover(path, ClassificationOptions(label_column="kinds"))
    with pytest.raises(zooft.ConfigError, match="label-column: the column 'kind' is what a split must not divide"):
        discover(path, ClassificationOptions(label_column="kind", group_column="kind"))


@pytest.mark.parametrize(
    ("more", "name", "message"),
    [
        ({"z_png": ""}, "z.png", "no label: neither a .cls nor a .json with label or cls is beside it (nothing else)"),
        ({"z_png": "", "z_txt": "a cat"}, "z.png", "is beside it (.txt)"),
        ({"z_png": "", "z_json": "{}"}, "z.png", "no label"),
        ({"z_png": "", "z_json": "{"}, "z.png", ".json isn't JSON"),
        ({"z_png": "", "z_json": "[" * 100_000}, "z.png", ".json isn't JSON"),
        ({"z_png": "", "z_json": "1" * 5_000}, "z.png", ".json isn't JSON"),
        ({"z_png": "", "z_json": "[]"}, "z.png", ".json isn't a JSON object"),
        ({"z_png": "", "z_json": '{"label": 1.5}'}, "z.png", ".json has label as float"),
        ({"z_png": "", "z_json": '{"label": true}'}, "z.png", ".json has label as bool"),
        (
            {"z_png": "", "z_json": '{"label": "ant", "cls": "bee"}'},
            "z.png",
            "a label and a cls that differ: ant and bee",
        ),
        ({"z_png": "", "z_json": '{"label": "ant", "group": []}'}, "z.png", ".json has group as list"),
        (
            {"z_png": "", "z_cls": "ant", "z_json": '{"label": "bee"}'},
            "z.png",
            "its .cls and its .json differ: ant and bee",
        ),
        ({"z_png": "", "z_cls": " \n"}, "z.png", ".cls has the label empty"),
        ({"z_png": "", "z_cls": "ant\nbee"}, "z.png", "of several lines"),
        ({"z_png": "", "z_cls": "a" * 201}, "z.png", "above 200 characters"),
        ({"z_png": "", "z_cls": "a" * 5_000}, "z.png", ".cls has 5,000 bytes, too many for a label"),
        ({"z_cls": "ant"}, "z", "a label without a picture (.cls)"),
        ({"z_json": '{"cls": 3}', "z_npy": "x"}, "z", "a label without a picture (.json, .npy)"),
        ({"z_png": "", "z_jpg": "", "z_cls": "ant"}, "z.jpg", "has several pictures: .jpg and .png"),
        ({"z_png": "no picture", "z_cls": "ant"}, "z.png", "not an image that Pillow knows"),
        ({"z_png": "", "z_cls": "ant"}, "z.png", "an empty file"),
        ({"z_dcm": "x", "z_cls": "ant"}, "z", "use --task ct"),
        ({"z_2024_png": "", "z_2024_cls": "ant"}, "z.2024.png", "several dots: WebDataset's key ends at the first"),
    ],
)
def test_what_is_not_a_sample_is_listed_with_its_reason(
    tmp_path: Path, more: dict[str, str], name: str, message: str
) -> None:
    found = one(tmp_path, **more)
    assert list(labels(found)) == ["x.tar/00.png", "x.tar/01.png"]
    assert list(rejected(found)) == [f"x.tar/{name}"]
    assert message in rejected(found)[f"x.tar/{name}"]


@pytest.mark.parametrize("extension", ["png", "cls", "json"])
def test_a_member_that_is_there_twice_is_not_guessed(tmp_path: Path, extension: str) -> None:
    content: dict[str, bytes | str] = {"png": png(), "cls": "ant", "json": '{"label": "ant"}'}
    members = [
        ("z.png", png()),
        ("z.cls", "ant"),
        ("z.json", '{"label": "ant"}'),
        (f"z.{extension}", content[extension]),
    ]
    found = discover(write(tmp_path / "x.tar", [*pairs(2).items(), *members]), OPTIONS)
    assert list(labels(found)) == ["x.tar/00.png", "x.tar/01.png"]
    assert "twice" in rejected(found)["x.tar/z.png"]


def test_members_of_a_key_need_not_lie_side_by_side(tmp_path: Path) -> None:
    members = sorted(pairs(4).items(), key=lambda pair: pair[0].endswith("cls"))
    assert len(discover(write(tmp_path / "x.tar", members), OPTIONS).samples) == 4


def test_pickles_and_other_kinds_are_left_alone_and_counted(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "planted",)

    bad = pickle.dumps(Planted())
    kinds = ("pyd", "pth", "pickle", "npy", "seg.png")
    members = pairs(2) | {f"00.{kind}": bad for kind in kinds} | {"01.PTH": bad, "readme": "x", "meta.json": "{}"}
    found = discover(write(tmp_path / "x.tar", members), OPTIONS)
    assert not (tmp_path / "planted").exists()
    assert len(found.samples) == 2
    assert not found.rejected
    (note,) = notes(found)
    assert note.startswith("members of shards that aren't used: 2 .pth, ")
    assert " and 1 other kinds" in note
    for messages in ("1 .pyd", "1 without extension", "1 .json", "1 .npy"):
        assert messages in note


# names


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("./a/b.png", "a/b.png"),
        ("/etc/b.png", "/etc/b.png"),
        ("../../b.png", "../../b.png"),
        ("a.b/c.png", "a.b/c.png"),
        ("ä/蜂.PNG", "ä/蜂.png"),
        ("x" * 300 + ".png", "x" * 300 + ".png"),
        ("a\nb\x1b[2J.png", "a\\nb\\x1b[2J.png"),
        ("a\udcff.png", "a\\udcff.png"),
    ],
)
def test_names_are_ids_that_can_be_shown_and_nothing_is_unpacked(tmp_path: Path, name: str, shown: str) -> None:
    label = f"{name[:-4]}.cls"
    path = write(tmp_path / "in" / "x.tar", pairs(2) | {name: png(5), label: "ant"}, format=tarfile.GNU_FORMAT)
    before = sorted(tmp_path.rglob("*"))
    found = discover(path, OPTIONS)
    assert labels(found) == {"x.tar/00.png": "ant", "x.tar/01.png": "bee", f"x.tar/{shown}": "ant"}
    assert sorted(tmp_path.rglob("*")) == before


def test_hidden_members_are_left_out_counted_and_listed_where_they_look_like_pictures(tmp_path: Path) -> None:
    hidden = {"._00.png": b"x", ".DS_Store": b"x", "a/.thumbs/00.png": b"x"}
    found = discover(write(tmp_path / "x.tar", pairs(2) | hidden), OPTIONS)
    assert len(found.samples) == 2
    assert rejected(found) == {
        "x.tar/._00.png": "hidden: what macOS writes beside a picture (AppleDouble)",
        "x.tar/a/.thumbs/00.png": "hidden: the name begins with a dot",
    }
    (messages,) = notes(found)
    assert messages.endswith("are left out: 1 .DS_Store, 1 ._…, 1 .thumbs")


# hostile and damaged shards


def with_odd_members(path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in pairs(2).items():
            raw = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
        for name, kind in (
            ("soft.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
            ("device.png", tarfile.CHRTYPE),
            ("folder", tarfile.DIRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    return path


def test_links_pipes_and_devices_in_a_shard_are_listed_and_not_followed(tmp_path: Path) -> None:
    found = discover(with_odd_members(tmp_path / "x.tar"), OPTIONS)
    assert len(found.samples) == 2
    link = "a link, which isn't followed; put the picture itself into the shard"
    assert rejected(found) == {
        "x.tar/soft.png": link,
        "x.tar/hard.png": link,
        "x.tar/pipe.png": "neither a file nor a folder",
        "x.tar/device.png": "neither a file nor a folder",
    }


def test_sparse_members_are_listed(tmp_path: Path) -> None:
    headers = {"GNU.sparse.map": "0,4", "GNU.sparse.size": "4096"}
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("z.png")
        info.size, info.pax_headers = 4, headers
        tar.addfile(info, io.BytesIO(b"abcd"))
    assert list(rejected_of(path).values()) == ["stored with holes (sparse); write the shard without --sparse"]


def rejected_of(path: Path) -> dict[str, str]:
    return dict(scan(path, group_column="group").rejected)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A lone header, which may lie about its size."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def sound() -> bytes:
    """The members of a sound shard, without its end mark."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in pairs(2).items():
            raw = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
        length = tar.offset
    return file.getvalue()[:length]


END = b"\0" * 2 * BLOCK


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (header("z.png", 10**15) + b"x" * BLOCK, "ends inside z.png: it was cut off"),
        (header("z", 10**13, tarfile.GNUTYPE_LONGNAME), "has a header of 10,000,000,000,000 bytes"),
        (header("z", 10**13, tarfile.XHDTYPE), "has a header of 10,000,000,000,000 bytes"),
        (header("z", 17_000, tarfile.XHDTYPE) + b"1" * 17_408 + END, "has a header of 17,408 bytes"),
        (header("z.png", -5 * BLOCK) + END, "leads backwards"),
        (header("z", -BLOCK, tarfile.XHDTYPE) + END, "which none needs"),
        (header("z", 3, tarfile.GNUTYPE_LONGNAME) * 2000 + END, "isn't a whole tar file"),
        (header("z.png", 0)[:200], "has more behind its end"),
        (b"garbage" * 200 + END, "has more behind its end"),
        (END + sound() + END, "has more behind its end"),
        (b"", "has no end mark"),
    ],
)
def test_damage_ends_a_shard_and_is_reported_with_what_is_used(tmp_path: Path, tail: bytes, message: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(sound() + tail)
    tracemalloc.start()
    found = discover(path, OPTIONS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert list(labels(found)) == ["x.tar/00.png", "x.tar/01.png"]
    reason = rejected(found)["x.tar"]
    assert message in reason
    assert reason.endswith("; the 2 pictures before that are used")
    assert peak < 20e6


def test_wherever_a_shard_is_cut_off_its_whole_pictures_are_used_and_the_cut_is_reported(tmp_path: Path) -> None:
    members = pairs(4)
    whole = write(tmp_path / "whole.tar", members).read_bytes()
    content = {name: raw for name, raw in members.items() if name.endswith("png")}
    path, used = tmp_path / "x.tar", set()
    for cut in [*range(0, 8 * 2 * BLOCK, 100), *range(0, 8 * 2 * BLOCK, BLOCK)]:
        path.write_bytes(whole[:cut])
        contents = scan(path, group_column="group")
        assert "" in dict(contents.rejected)
        for entry in contents.entries:
            assert entry.member.open().read() == content[entry.name]
        used.add(len(contents.entries))
    assert used == {0, 1, 2, 3, 4}


@pytest.mark.timeout(120)
def test_no_change_of_a_byte_crashes_or_hangs_and_every_picture_is_a_member_of_the_file(tmp_path: Path) -> None:
    whole = with_odd_members(tmp_path / "whole.tar").read_bytes()
    path, rng = tmp_path / "x.tar", np.random.default_rng(0)
    outcomes: Counter[bool] = Counter()
    for _ in range(400):
        mutated = bytearray(whole)
        for position in rng.integers(0, len(whole), int(rng.integers(1, 8))):
            mutated[position] = rng.integers(256)
        start = int(rng.integers(len(whole) // BLOCK)) * BLOCK  # a header whose sum is right, so that it is believed
        block = mutated[start : start + BLOCK]
        block[124:136] = bytes(rng.integers(0, 256, 12, dtype=np.uint8)) if rng.random() < 0.5 else block[124:136]
        block[156] = rng.choice(np.frombuffer(b"0127LKxgSDV\0", np.uint8))
        block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
        mutated[start : start + BLOCK] = block
        path.write_bytes(mutated)
        contents = scan(path, group_column="group")
        for entry in contents.entries:
            assert len(entry.member.open().read()) == entry.member.size
        outcomes["" in dict(contents.rejected)] += 1
    assert min(outcomes[True], outcomes[False]) >= 5  # a tar file's dates differ from run to run


def test_a_picture_beyond_what_fits_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", pairs(2))
    with path.open("r+b") as file:  # a hole, which takes no space on the disk
        file.seek(len(sound()))
        file.write(header("z.png", 600 * 2**20))
        file.truncate(file.tell() + 600 * 2**20)
        file.seek(0, os.SEEK_END)
        file.write(header("z.cls", 3) + b"ant".ljust(BLOCK, b"\0") + END)
    assert rejected(discover(path, OPTIONS)) == {"x.tar/z.png": "has 629,145,600 bytes, above 536,870,912"}


@pytest.mark.parametrize(("pack", "name"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")])
@pytest.mark.parametrize("file", ["x.tar", "x.tgz", "x.tar.gz"])
def test_compressed_shards_are_refused_with_advice(tmp_path: Path, pack: Any, name: str, file: str) -> None:
    path = write(tmp_path / file, pairs(2))
    path.write_bytes(pack(path.read_bytes()))
    with pytest.raises(zooft.DataError, match=rf"compressed with {name}: .*unpack the shard once \("):
        discover(path, OPTIONS)


@pytest.mark.parametrize("content", [b"", b"no tar", b"\x89PNG" * 500])
def test_what_is_no_tar_is_an_error_that_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(zooft.DataError, match=r"no images in .*the first: x.tar: isn't a whole tar file"):
        discover(tmp_path, OPTIONS)


def test_an_empty_shard_is_listed(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {})
    write(tmp_path / "b.tar", pairs(2))
    assert rejected(discover(tmp_path, OPTIONS)) == {"a.tar": "holds no pictures"}


@pytest.mark.parametrize("change", ["longer", "touched", "shorter", "gone"])
def test_a_shard_that_changed_since_is_not_read(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "x.tar", pairs(2))
    task = registry.load().task("classification")
    sample = discover(path, OPTIONS).samples[0]
    about = path.stat()
    if change == "gone":
        path.unlink()
    elif change == "touched":
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1_000_000_000))
    else:
        os.truncate(path, about.st_size + (1 if change == "longer" else -1))
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    from zooft.data.samples import read

    message = "can't be read: No such file" if change == "gone" else "x.tar has changed since the data was listed"
    with pytest.raises(zooft.DataError, match=rf"x.tar/00.png was readable when the data was listed.*{message}"):
        read(task, OPTIONS, sample)


def test_a_member_that_the_file_ends_within_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"12345")
    about = path.stat()
    member = Member(Shard(str(path), about.st_size, about.st_mtime_ns), 2, 10)
    with pytest.raises(zooft.DataError, match=r"x.tar ends inside it"):
        member.open()


# many samples


def test_members_go_to_loader_processes(tmp_path: Path) -> None:
    found = discover(write(tmp_path / "x.tar", pairs(2)), OPTIONS)
    for sample in pickle.loads(pickle.dumps(found.samples)):  # noqa: S301 -- our own, as multiprocessing does it
        np.testing.assert_array_equal(
            reader.read(sample.source, OPTIONS), example_data.picture(128, size=(8, 9), seed=int(Path(sample.id).stem))
        )


def test_progress_is_reported_for_every_shard_and_picture(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"x-{number}.tar", pairs(30))
    seen: dict[str, list[int]] = {}

    def computing(title: str, total: int) -> zooft.contracts.Advance:  # type: ignore[name-defined]
        seen[title] = [total, 0]

        def advance(done: int) -> None:
            seen[title][1] += done

        return advance

    discover(tmp_path, OPTIONS, computing=computing)
    assert seen == {"listing shards": [3, 3], "looking into pictures": [90, 90]}


def test_a_sample_of_a_shard_takes_next_to_no_memory_where_they_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zooft.storage.sequences.IN_MEMORY", 10)
    members: dict[str, bytes | str] = {}
    for index in range(4000):
        members |= {f"{index:08}.png": png(index % 50), f"{index:08}.cls": ("ant", "bee")[index % 2]}
    few, many = write(tmp_path / "few.tar", dict([*members.items()][:2000])), write(tmp_path / "many.tar", members)
    discover(few, OPTIONS)  # what is loaded on first use
    held = []
    for path in (few, many):
        tracemalloc.start()
        found = discover(path, OPTIONS)
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert len(found.samples) in {1000, 4000}
    assert (held[1] - held[0]) / 3000 < 60


def test_labels_that_are_one_in_two_spellings_are_an_error_that_names_pictures(tmp_path: Path) -> None:
    write(
        tmp_path / "x.tar",
        {"0.png": png(0), "0.cls": "Pos", "1.png": png(1), "1.cls": "pos", "2.png": png(2), "2.cls": "b"},
    )
    with pytest.raises(zooft.DataError, match=r"'Pos' \(such as of x.tar/0.png\) and 'pos' \(such as of x.tar/1.png\)"):
        discover(tmp_path, OPTIONS)
