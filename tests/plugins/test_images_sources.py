"""Data sources of other plugins: what the task for images makes of their rows, and that all of its options go on working."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import plugged
import pytest
from PIL import Image

import zooft
from zooft.errors import PluginError
from zooft.hooks import registry
from zooft.hooks.guard import guard_functions
from zooft.hooks.loading import PluginInfo
from zooft_images import read as reader
from zooft_images.discover import discover, discover_columns
from zooft_images.options import ClassificationOptions, RegressionOptions

OPTIONS = ClassificationOptions()

ZIPPED = '''
"""Pictures in a zip file, CLASS/NAME.png each, below train and val."""

import zipfile
from pathlib import PurePosixPath

import zooft


def recognises(path):
    return path.suffix == ".zip"


def columns(path):
    return [zooft.Column(name="label"), zooft.Column(name="size")]


def rows(path, wanted):
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            split, label, _ = PurePosixPath(info.filename).parts
            values = {"label": label, "size": info.file_size}
            yield zooft.Row(id=info.filename, content=(path, info.filename), split=split,
                            values={name: values[name] for name in wanted})


def content(place):
    path, name = place
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


@zooft.hookimpl
def zooft_register_sources():
    return [zooft.Source(name="zip", summary="pictures in a zip file", recognises=recognises, columns=columns,
                         rows=rows, content=content)]
'''


def png(level: int = 100) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


def identity(content: Any) -> Any:
    """Of a source whose rows hold their own content."""
    return content


def given(
    items: Sequence[zooft.Row | zooft.Rejection], *columns: zooft.Column, name: str = "given", **more: Any
) -> zooft.Source:
    """A source of these rows, under guard as after registering."""

    def some(_path: Path, required: Sequence[str]) -> Iterator[zooft.Row | zooft.Rejection]:
        for item in items:
            if isinstance(item, zooft.Row):
                item = dataclasses.replace(item, values={key: item.values.get(key) for key in required})
            yield item

    source = zooft.Source(
        name=name,
        summary="",
        recognises=lambda path: path.suffix == ".given",
        columns=lambda _: columns or (zooft.Column(name="label"),),
        rows=some,
        content=identity,
    )
    source = dataclasses.replace(source, **more)
    return guard_functions(source, PluginInfo(name="mine", distribution="my-package", version="1"))


def found(tmp_path: Path, source: zooft.Source, options: ClassificationOptions = OPTIONS) -> zooft.Discovery:
    path = tmp_path / "data.given"
    path.touch()
    return discover(path, options, sources=[source])


def row(number: int, label: Any, *, content: Any = None, split: Any = None, **values: Any) -> zooft.Row:
    content = png(number) if content is None else content
    return zooft.Row(id=f"r/{number}", content=content, values={"label": label, **values}, split=split)


def labels(discovery: zooft.Discovery) -> dict[str, str]:
    return {sample.id: discovery.classes[sample.target] for sample in discovery.samples}


# the same as folders


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Some pictures in split and class folders, and in a zip file that a stranger's plugin reads."""
    folder = tmp_path / "folder"
    for split, each in (("train", 9), ("val", 4)):
        example_data.write_classes(folder / split, {"dark": each, "light": each + 2})
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder).as_posix())
    plugged.install(monkeypatch, tmp_path / "site", "zip", "zooft_zipped", code=ZIPPED)
    return folder, tmp_path / "all.zip"


def test_a_strangers_source_trains_as_folders_do_with_all_options_of_the_task(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    runs = [
        zooft.finetune(
            backbone="timm:test_resnet",
            task="classification",
            data=place,
            out=tmp_path / "runs" / place.stem,
            weights="random",
            freeze="none",
            epochs=2,
            bootstrap=0,
            export=False,
            device="cpu",
            seed=3,
            augment="light",
            class_weights="balanced",
            colour="grey",
        ).path
        for place in both
    ]
    ours, theirs = ([json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs)
    keys = ("train_loss", "val_loss", "metrics")
    assert [[line[key] for key in keys] for line in ours] == [[line[key] for key in keys] for line in theirs]
    tables = [list(csv.DictReader((run / "predictions.csv").read_text().splitlines())) for run in runs]
    assert len(tables[0]) == 10
    assert tables[0] == tables[1]


def test_images_of_a_source_have_the_digest_and_the_facts_of_their_files(both: tuple[Path, Path]) -> None:
    task = registry.load().task("classification")
    folder, zipped = (task.discover(path, OPTIONS) for path in both)
    assert [(s.id, s.target, s.split, s.facts) for s in zipped.samples] == [
        (s.id, s.target, s.split, s.facts) for s in folder.samples
    ]
    for sample in zipped.samples[::5]:
        file = both[0] / sample.id
        assert reader.digest(sample.source, OPTIONS) == hashlib.sha256(file.read_bytes()).hexdigest()
        np.testing.assert_array_equal(reader.read(sample.source, OPTIONS), np.asarray(Image.open(file)))


def test_images_of_a_registered_source_are_read_in_another_process_too(both: tuple[Path, Path]) -> None:
    sample = registry.load().task("classification").discover(both[1], OPTIONS).samples[0]
    again = pickle.loads(pickle.dumps(sample.source))  # noqa: S301 -- written in this line
    np.testing.assert_array_equal(reader.read(again, OPTIONS), reader.read(sample.source, OPTIONS))


def test_a_source_is_listed_with_what_plugins_register(both: tuple[Path, Path]) -> None:
    loaded = registry.load()
    assert loaded.names_of(loaded.plugins.info("zip")) == {"sources": ["zip"]}


# what columns mean


def test_texts_are_classes_in_their_order_and_the_finding_is_positive(tmp_path: Path) -> None:
    rows = [row(0, "good"), row(1, "defect"), row(2, "good")]
    discovery = found(tmp_path, given(rows))
    assert discovery.classes == ("good", "defect")
    assert labels(discovery) == {"r/0": "good", "r/1": "defect", "r/2": "good"}


def test_names_of_numbers_are_the_classes_in_their_own_order(tmp_path: Path) -> None:
    column = zooft.Column(name="label", categories=("wasp", "ant", "bee"))
    discovery = found(tmp_path, given([row(0, 2), row(1, 0), row(2, 1)], column))
    assert discovery.classes == ("wasp", "ant", "bee")
    assert [sample.target for sample in discovery.samples] == [2, 0, 1]


def test_the_only_column_whose_numbers_have_names_is_the_label_where_none_is_called_so(tmp_path: Path) -> None:
    columns = (zooft.Column(name="age"), zooft.Column(name="kind", categories=("ant", "bee")))
    rows = [row(number, None, kind=number % 2, age=number) for number in range(4)]
    assert list(labels(found(tmp_path, given(rows, *columns))).values()) == ["ant", "bee", "ant", "bee"]


def test_numbers_without_names_are_in_the_order_of_their_size(tmp_path: Path) -> None:
    discovery = found(tmp_path, given([row(number, label) for number, label in enumerate((10, 9.0, 2, 10))]))
    assert discovery.classes == ("2", "9", "10")


def test_many_numbers_are_a_measurement(tmp_path: Path) -> None:
    with pytest.raises(zooft.DataError, match="looks like a measurement"):
        found(tmp_path, given([row(number, number + 0.5) for number in range(30)]))


def test_groups_and_splits_are_read_from_their_columns(tmp_path: Path) -> None:
    columns = [zooft.Column(name=name) for name in ("label", "split", "patient", "note")]
    rows = [row(n, "ab"[n % 2], patient=n // 2) for n in range(4)]
    rows = [
        dataclasses.replace(r, values={**r.values, "split": ("Training", "dev")[n // 2]}) for n, r in enumerate(rows)
    ]
    options = ClassificationOptions(group_column="patient")
    discovery = found(tmp_path, given(rows, *columns), options)
    assert [(s.group, s.split) for s in discovery.samples] == [
        ("0", "train"),
        ("0", "train"),
        ("1", "val"),
        ("1", "val"),
    ]
    assert any("aren't used: note" in note for note in discovery.notes)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no label: the column label is empty"),
        (-1, "no label: the column label is -1"),
        (2, "the label 2 isn't one of the 2 classes that the column label names, 0 to 1"),
        ("ant", "the label 'ant' isn't one of the 2 classes that the column label names, 0 to 1"),
    ],
)
def test_a_label_that_is_none_is_listed(value: Any, reason: str, tmp_path: Path) -> None:
    column = zooft.Column(name="label", categories=("ant", "bee"))
    discovery = found(tmp_path, given([row(0, 0), row(1, 1), row(2, value)], column))
    assert [(each.id, each.reason) for each in discovery.rejected] == [("r/2", reason)]
    assert len(discovery.samples) == 2


def test_an_empty_text_and_a_list_are_listed(tmp_path: Path) -> None:
    discovery = found(tmp_path, given([row(0, "a"), row(1, "b"), row(2, " "), row(3, ["a", "b"])]))
    assert {each.id: each.reason for each in discovery.rejected} == {
        "r/2": "no label: the column label is empty",
        "r/3": "the column label holds a value of type list, not a text or a number",
    }


def test_what_a_source_rejects_and_what_cannot_be_decoded_are_listed(tmp_path: Path) -> None:
    rows = [row(0, "a"), row(1, "b"), zooft.Rejection("r/2", "no image"), row(3, "a", content=b"no picture")]
    discovery = found(tmp_path, given(rows))
    assert {each.id: each.reason for each in discovery.rejected} == {
        "r/2": "no image",
        "r/3": "not an image that Pillow knows",
    }


def test_columns_that_are_missing_are_named_beside_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(
        zooft.DataError,
        match="no column 'label'; its columns are text, id; name the one with the classes with --label-column",
    ):
        found(tmp_path, given([], zooft.Column(name="text"), zooft.Column(name="id")))
    columns = [zooft.Column(name="label"), zooft.Column(name="split")]
    with pytest.raises(zooft.DataError, match="has no column 'who' to group by; its columns are label, split"):
        found(tmp_path, given([row(0, "a")], *columns), ClassificationOptions(group_column="who"))


def test_the_column_of_the_classes_can_be_named_beside_a_label_that_is_not_meant(tmp_path: Path) -> None:
    """As CIFAR-100 has it: two columns whose numbers have names."""
    columns = (
        zooft.Column(name="fine", categories=("ant", "bee", "oak")),
        zooft.Column(name="coarse", categories=("insect", "tree")),
        zooft.Column(name="label"),
    )
    rows = [row(n, "noise", fine=n, coarse=n // 2) for n in range(3)]
    for name, expected in (("fine", ["ant", "bee", "oak"]), ("coarse", ["insect", "insect", "tree"])):
        discovery = found(tmp_path, given(rows, *columns), ClassificationOptions(label_column=name))
        assert list(labels(discovery).values()) == expected
        assert any(f"classes from the column {name}" in note for note in discovery.notes)
        assert any("aren't used: " in note and "label (" in note for note in discovery.notes)


def test_a_column_that_is_not_there_gets_the_nearest_in_any_case(tmp_path: Path) -> None:
    columns = [zooft.Column(name=name) for name in ("Species", "Patient_ID", "label")]
    for options, message in (
        (
            ClassificationOptions(label_column="specie"),
            "has no column 'specie'; .*; nearest: Species; name the one with the classes",
        ),
        (
            ClassificationOptions(label_column="xyz"),
            "has no column 'xyz'; its columns are Species, Patient_ID, label; name",
        ),
        (
            ClassificationOptions(group_column="patient"),
            "no column 'patient' to group by; .*; nearest: Patient_ID; name one of these",
        ),
    ):
        with pytest.raises(zooft.DataError, match=message):
            found(tmp_path, given([row(0, "a")], *columns), options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"label_column": "who", "group_column": "who"}, "what a split must not divide"),
        ({"label_column": "split"}, "the split"),
        ({"label_column": "group"}, "what a split must not divide"),
    ],
)
def test_one_column_does_not_mean_two_things(options: dict[str, str], says: str, tmp_path: Path) -> None:
    columns = [zooft.Column(name=name) for name in ("label", "who", "group", "split")]
    with pytest.raises(zooft.ConfigError, match=f"the column '{options['label_column']}' is {says}"):
        found(tmp_path, given([row(0, "a")], *columns), ClassificationOptions(**options))


def test_targets_are_columns_of_a_source_and_one_that_is_not_there_gets_the_nearest(tmp_path: Path) -> None:
    columns = [zooft.Column(name=name) for name in ("Age", "Weight", "note")]
    rows = [row(n, None, Age=30 + n, Weight=2.5 * n, note="x") for n in range(3)]
    (tmp_path / "data.given").touch()
    task = registry.load().task("regression")

    def targets(*names: str) -> list[Any]:
        read = discover_columns(
            task.problem, tmp_path / "data.given", RegressionOptions(targets=names), sources=[given(rows, *columns)]
        )
        return [sample.target for sample in read.samples]

    assert targets("Weight", "Age") == [(0.0, 30.0), (2.5, 31.0), (5.0, 32.0)]
    with pytest.raises(zooft.DataError, match="has no column 'wieght'; it has Age, Weight, note; nearest: Weight"):
        targets("wieght")


def test_an_unknown_split_and_two_splits_of_one_row_are_refused(tmp_path: Path) -> None:
    columns = [zooft.Column(name="label"), zooft.Column(name="split")]

    def one(inside: str | None, says: str) -> zooft.Source:
        base = row(7, "a", split=inside)
        return given([dataclasses.replace(base, values={**base.values, "split": says})], *columns)

    with pytest.raises(zooft.DataError, match="r/7 is in the split 'extra'"):
        found(tmp_path, one(None, "extra"))
    with pytest.raises(zooft.DataError, match="r/7 lies in the split train, and its column split has 'test'"):
        found(tmp_path, one("train", "test"))


def test_two_sources_that_recognise_one_path_are_named(tmp_path: Path) -> None:
    (tmp_path / "data.given").touch()
    sources = [given([row(0, "a")], name="one"), given([row(0, "a")], name="two")]
    with pytest.raises(zooft.DataError, match="recognised by several data sources: one and two"):
        discover(tmp_path / "data.given", OPTIONS, sources=sources)


# decoded levels


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_decoded_levels_are_read_as_the_file_would_be(shape: tuple[int, ...], tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    discovery = found(tmp_path, given([row(0, "a", content=levels), row(1, "b")]))
    file = io.BytesIO()
    Image.fromarray(levels.squeeze()).save(file, "PNG")
    for colour in ("rgb", "grey"):
        options = ClassificationOptions(colour=colour)  # type: ignore[arg-type]
        expected = np.asarray(Image.open(file).convert("RGB" if colour == "rgb" else "L")).reshape(5, 7, -1)
        np.testing.assert_array_equal(reader.read(discovery.samples[0].source, options), expected)
    facts = discovery.samples[0].facts
    assert (facts["format"], facts["width"], facts["height"]) == ("levels", 7.0, 5.0)


def test_sixteen_bits_of_decoded_levels_need_their_option(tmp_path: Path) -> None:
    levels = np.array([[0, 2048, 4095]], np.uint16)
    source = given([row(0, "a", content=levels), row(1, "b")])
    assert "16 bits a level" in found(tmp_path, source).rejected[0].reason
    options = ClassificationOptions(sixteen_bit="scale", sixteen_bit_range=(0, 4095), colour="grey")
    (scaled, _) = found(tmp_path, source, options).samples
    assert reader.read(scaled.source, options)[0, :, 0].tolist() == [0, 128, 255]


def test_the_digest_of_levels_distinguishes_shape_and_values(tmp_path: Path) -> None:
    arrays = [np.zeros((4, 6), np.uint8), np.zeros((6, 4), np.uint8), np.ones((4, 6), np.uint8)]
    discovery = found(tmp_path, given([row(n, "ab"[n % 2], content=array) for n, array in enumerate(arrays)]))
    assert len({reader.digest(sample.source, OPTIONS) for sample in discovery.samples}) == 3


def test_an_array_that_is_no_image_is_listed(tmp_path: Path) -> None:
    rows = [row(0, "a"), row(1, "b"), row(2, "a", content=np.zeros((3, 4, 4), np.float32))]
    (rejected,) = found(tmp_path, given(rows)).rejected
    assert rejected.reason.startswith("its source gives float32 of shape (3, 4, 4)")


# a source's own faults


def test_what_a_source_raises_while_its_rows_are_read_is_its_plugins(tmp_path: Path) -> None:
    def broken(_path: Path, _columns: Sequence[str]) -> Iterator[zooft.Row]:
        yield row(0, "a")
        raise KeyError("lost")

    with pytest.raises(PluginError, match=r"data source given failed in rows: KeyError: 'lost'.*plugin mine"):
        found(tmp_path, given([], rows=broken))


def test_an_item_that_is_no_row_is_named(tmp_path: Path) -> None:
    def odd(_path: Path, _columns: Sequence[str]) -> Iterator[Any]:
        yield ("r/0", b"")

    with pytest.raises(PluginError, match=r"gives in rows: .*expected a Row or a Rejection"):
        found(tmp_path, given([], rows=odd))


def test_content_that_fails_is_its_plugins_fault_and_a_data_error_a_reason(tmp_path: Path) -> None:
    def gone(_: Any) -> bytes:
        raise zooft.DataError("the server says no")

    def faulty(_: Any) -> bytes:
        raise RuntimeError("a bug")

    discovery = found(tmp_path, given([row(0, "a")], content=gone))
    assert [each.reason for each in discovery.rejected] == ["the server says no"]
    with pytest.raises(PluginError, match="failed in content: RuntimeError: a bug"):
        found(tmp_path, given([row(0, "a")], content=faulty))
