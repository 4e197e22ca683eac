"""Folders by datasets' own save_to_disk: what is read of them, and that nothing is dropped in silence."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import plugged
import pytest
import same_images
from PIL import Image

import zooft
import zooft_hf_datasets
from zooft.hooks.guard import guard_functions
from zooft_hf_datasets import folder
from zooft_images import read as reader
from zooft_images.discover import discover
from zooft_images.options import ClassificationOptions

datasets = pytest.importorskip("datasets", reason="datasets isn't installed: pip install 'zooft[dev]'")

OPTIONS = ClassificationOptions()
NAMES = ("wasp", "ant")
(SOURCE,) = [guard_functions(source) for source in zooft_hf_datasets.zooft_register_sources()]


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(example_data.picture(128, size=(8, 9), seed=seed)).save(file, "PNG")
    return file.getvalue()


def pictures(count: int, names: Sequence[str] = NAMES, **more: Sequence[Any]) -> Any:
    """A data set of pictures that are of the classes in turns."""
    columns: dict[str, Any] = {"image": [{"bytes": png(n), "path": None} for n in range(count)]}
    columns |= {"label": [n % len(names) for n in range(count)], **more}
    made = datasets.Dataset.from_dict(columns)
    return made.cast_column("image", datasets.Image()).cast_column("label", datasets.ClassLabel(names=list(names)))


def save(data: Any, path: Path, **more: Any) -> Path:
    data.save_to_disk(str(path), **more)
    return path


def found(path: Path, options: ClassificationOptions = OPTIONS) -> zooft.Discovery:
    return discover(path, options, sources=[SOURCE])


def rejected(discovery: zooft.Discovery) -> dict[str, str]:
    return {each.id: each.reason for each in discovery.rejected}


def described(path: Path, **changes: Any) -> None:
    """Change a JSON file's entries."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# the same as folders


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """Photographs in a saved data set with two splits, one of them in shards, and as files."""
    parts, named, splits = {}, {}, {}
    for split, paths in same_images.photographs().items():
        called = "validation" if split == "val" else split
        rows = {
            "image": [{"bytes": path.read_bytes(), "path": path.name} for path in paths],
            "label": [int(path.parent.name == "bees") for path in paths],
        }
        features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ants", "bees"])}
        parts[called] = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        for number, path in enumerate(paths):
            named[f"{called}/{number}"], splits[f"{called}/{number}"] = path, split
    saved = datasets.DatasetDict(parts)
    saved.save_to_disk(str(tmp_path / "saved"), num_shards={"train": 3, "validation": 1})
    return tmp_path / "saved", same_images.write_files(tmp_path / "files", named, splits)


def test_a_saved_data_set_gives_what_files_give(both: tuple[Path, Path]) -> None:
    same_images.assert_found_alike(*map(found, both))


def test_training_is_the_same_as_on_files_with_options_of_the_task(
    both: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged.install(monkeypatch, tmp_path / "site", "hf_datasets", "zooft_hf_datasets")
    same_images.assert_trained_alike(both, tmp_path)


# what datasets itself reads


@pytest.mark.parametrize("choice", ["whole", "selected", "shuffled", "in shards"])
def test_rows_are_those_that_datasets_reads(choice: str, tmp_path: Path) -> None:
    data = pictures(250, note=["n"] * 250)
    data = {"selected": data.select([7, 3, 200]), "shuffled": data.shuffle(seed=1)}.get(choice, data)
    discovery = found(save(data, tmp_path / "d", num_shards=4 if choice == "in shards" else None))
    loaded = datasets.load_from_disk(str(tmp_path / "d"))
    assert discovery.classes == NAMES
    assert [sample.target for sample in discovery.samples] == list(loaded["label"])
    assert [sample.id for sample in discovery.samples] == [f"row/{n}" for n in range(len(loaded))]
    for number in (0, 1, 2, len(loaded) - 1):
        read = reader.read(discovery.samples[number].source, OPTIONS)
        np.testing.assert_array_equal(read, np.asarray(loaded[number]["image"].convert("RGB")))
    assert any("aren't used: note" in note for note in discovery.notes)


def test_a_column_that_is_called_like_groups_is_pointed_out(tmp_path: Path) -> None:
    path = save(pictures(4, subject=["a", "a", "b", "b"]), tmp_path / "d")
    assert any("Give --group-column subject, or call it group" in note for note in found(path).notes)
    grouped = found(path, ClassificationOptions(group_column="subject"))
    assert [sample.group for sample in grouped.samples] == ["a", "a", "b", "b"]
    assert not any("must not divide" in note for note in grouped.notes)


def test_texts_are_classes_by_name_and_the_finding_is_positive(tmp_path: Path) -> None:
    columns = {
        "image": [Image.new("RGB", (5, 4), (n, n, n)) for n in range(4)],
        "label": ["good", "dent", "good", "dent"],
    }
    discovery = found(save(datasets.Dataset.from_dict(columns), tmp_path / "d"))
    assert discovery.classes == ("good", "dent")
    assert [sample.target for sample in discovery.samples] == [0, 1, 0, 1]


def test_groups_and_splits_may_be_columns(tmp_path: Path) -> None:
    data = pictures(4, patient=["p", "p", "q", "q"], split=["train", "train", "val", "val"])
    discovery = found(save(data, tmp_path / "d"), ClassificationOptions(group_column="patient"))
    assert [(sample.group, sample.split) for sample in discovery.samples] == [("p", "train")] * 2 + [("q", "val")] * 2


def test_of_two_columns_whose_numbers_have_names_one_is_chosen(tmp_path: Path) -> None:
    data = pictures(4).rename_column("label", "fine_label").add_column("coarse_label", [0, 0, 1, 1])
    data = data.cast_column("coarse_label", datasets.ClassLabel(names=["plant", "animal"]))
    saved = save(data, tmp_path / "d")
    loaded = datasets.load_from_disk(str(saved))
    for name in ("fine_label", "coarse_label"):
        discovery = found(saved, ClassificationOptions(label_column=name))
        assert discovery.classes == tuple(loaded.features[name].names)
        assert [sample.target for sample in discovery.samples] == list(loaded[name])
    with pytest.raises(
        zooft.DataError, match="no column 'label'; its columns are fine_label, coarse_label; nearest: fine_label; name"
    ):
        found(saved)


def test_one_splits_folder_is_data_without_splits(tmp_path: Path) -> None:
    save(datasets.DatasetDict({"train": pictures(4), "unsupervised": pictures(2)}), tmp_path / "d")
    assert [sample.split for sample in found(tmp_path / "d" / "train").samples] == [None] * 4
    with pytest.raises(
        zooft.DataError, match=r"has the split 'unsupervised'; there are train, val and test.*--data .*/d/train"
    ):
        found(tmp_path / "d")


def test_images_that_only_their_paths_stand_for_are_read_from_there(tmp_path: Path) -> None:
    """As versions of datasets before 2.8 saved them; later ones put the bytes in."""
    import pyarrow as pa

    saved = save(pictures(4), tmp_path / "d")
    path = saved / "data-00000-of-00001.arrow"
    table = pa.ipc.open_stream(path.read_bytes()).read_all()
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(png(n))
    images = [{"bytes": None, "path": str(tmp_path / f"{n}.png")} for n in range(4)]
    table = table.set_column(0, table.field("image"), pa.array(images, table.field("image").type))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    discovery = found(saved)
    assert [sample.id for sample in discovery.samples] == ["row/0", "row/1", "row/2"]
    expected = np.asarray(Image.open(tmp_path / "1.png"))
    np.testing.assert_array_equal(reader.read(discovery.samples[1].source, OPTIONS), expected)
    assert rejected(discovery)["row/3"].startswith(f"no such file: {tmp_path / '3.png'}")


# bad input


def test_empty_cells_are_listed_by_their_row(tmp_path: Path) -> None:
    images = [{"bytes": png(0), "path": None}, None, {"bytes": png(2), "path": None}, {"bytes": b"", "path": None}]
    data = datasets.Dataset.from_dict(
        {"image": images * 2, "label": [0, 0, None, 1, 1, 0, -1, 1]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))}),
    )
    discovery = found(save(data, tmp_path / "d"))
    empty, unlabelled = "no image: the cell is empty", "no label: the column label "
    assert rejected(discovery) == {
        "row/1": empty,
        "row/2": f"{unlabelled}is empty",
        "row/3": empty,
        "row/5": empty,
        "row/6": f"{unlabelled}is -1",
        "row/7": empty,
    }
    assert [sample.id for sample in discovery.samples] == ["row/0", "row/4"]


def test_a_number_that_no_name_stands_for_is_listed(tmp_path: Path) -> None:
    saved = save(pictures(6, ("a", "b", "c")), tmp_path / "d")
    info = json.loads((saved / "dataset_info.json").read_text())
    info["features"]["label"]["names"] = ["a", "b"]
    (saved / "dataset_info.json").write_text(json.dumps(info))
    discovery = found(saved)
    assert list(rejected(discovery)) == ["row/2", "row/5"]
    assert all("the label 2 isn't one of the 2 classes" in reason for reason in rejected(discovery).values())


def test_columns_that_are_missing_are_named_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(
        zooft.DataError, match=r"no column is a datasets.Image; the columns are text \(string\), label \(int64\)"
    ):
        found(save(datasets.Dataset.from_dict({"text": ["t"], "label": [0]}), tmp_path / "a"))
    with pytest.raises(zooft.DataError, match="no column 'label'; its columns are kind"):
        found(
            save(
                pictures(2).rename_column("label", "kind").cast_column("kind", datasets.Value("int64")), tmp_path / "b"
            )
        )
    one = [Image.new("RGB", (4, 4))]
    two = datasets.Dataset.from_dict({"left": one, "right": one, "label": [0]})
    with pytest.raises(zooft.DataError, match="several columns hold images: left, right"):
        found(save(two, tmp_path / "c"))


def test_splits_that_name_numbers_in_different_ways_are_refused(tmp_path: Path) -> None:
    parts = {"train": pictures(4), "test": pictures(4)}
    saved = save(datasets.DatasetDict(parts), tmp_path / "d")
    info = json.loads((saved / "test" / "dataset_info.json").read_text())
    info["features"]["label"]["names"] = ["ant", "wasp"]
    (saved / "test" / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(
        zooft.DataError, match="the split test names the numbers of the column label otherwise than train"
    ):
        found(saved)


@pytest.mark.parametrize("left", [0.5, 0.9, -8])
def test_a_file_that_was_cut_off_is_listed_and_what_is_whole_is_used(left: float, tmp_path: Path) -> None:
    saved = save(pictures(450), tmp_path / "d", num_shards=2)
    first = saved / "data-00000-of-00002.arrow"
    whole = first.read_bytes()
    first.write_bytes(whole[: int(len(whole) * left) if left > 0 else int(left)])
    discovery = found(saved)
    ((file, reason),) = rejected(discovery).items()
    assert file == "data-00000-of-00002.arrow"
    assert ("has no end mark" if left < 0 else "is damaged, or was cut off: no row from") in reason
    read = {sample.id for sample in discovery.samples}
    assert len(read) == {0.5: 100, 0.9: 200, -8: 225}[left] + 225


def test_offsets_that_lead_out_of_the_file_are_not_followed(tmp_path: Path) -> None:
    import pyarrow as pa

    saved = save(pictures(20), tmp_path / "d")
    path = saved / "data-00000-of-00001.arrow"
    mapped = pa.memory_map(str(path)).read_buffer()
    (batch,) = pa.ipc.open_stream(pa.BufferReader(mapped))
    offsets = batch.column("image").field("bytes").buffers()[1]
    place = offsets.address - mapped.address
    del batch, offsets, mapped
    content = bytearray(path.read_bytes())
    content[place + 40 : place + 44] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(
        zooft.DataError,
        match=r"no row of .* can be used, which is read as hf-datasets; the first: .*the Arrow file is damaged",
    ):
        found(saved)


def test_a_file_that_is_missing_or_has_changed_is_reported(tmp_path: Path) -> None:
    saved = save(pictures(6), tmp_path / "d", num_shards=2)
    (sample, *_) = found(saved).samples
    save(pictures(8), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "data-00000-of-00001.arrow", saved / "data-00000-of-00002.arrow")
    with pytest.raises(zooft.DataError, match=r"data-00000-of-00002.arrow has changed since the data was listed"):
        reader.read(sample.source, OPTIONS)
    (saved / "data-00001-of-00002.arrow").unlink()
    assert rejected(found(saved)) == {"data-00001-of-00002.arrow": "can't be read: No such file or directory"}


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("state.json", {"_data_files": []}, "names no files of data"),
        ("state.json", {"_data_files": [{"filename": "../x.arrow"}]}, "names no files of data"),
        (
            "state.json",
            {"_indices_data_files": [{"filename": "indices.arrow"}]},
            "holds a choice of rows apart from the data",
        ),
        ("dataset_info.json", {"features": None}, "doesn't describe the columns"),
    ],
)
def test_descriptions_that_say_too_little_or_lead_away_are_refused(
    file: str, changes: Mapping[str, Any], message: str, tmp_path: Path
) -> None:
    saved = save(pictures(2), tmp_path / "d")
    described(saved / file, **changes)
    with pytest.raises(zooft.DataError, match=message):
        found(saved)


def test_a_description_that_is_no_json_is_named(tmp_path: Path) -> None:
    saved = save(pictures(2), tmp_path / "d")
    (saved / "state.json").write_text("{")
    with pytest.raises(zooft.DataError, match=r"state.json can't be read"):
        found(saved)


def test_other_folders_are_not_recognised(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    assert not folder.recognises(tmp_path)
    assert not folder.recognises(tmp_path / "state.json")
    assert not folder.recognises(tmp_path / "nowhere")


def test_without_pyarrow_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = save(pictures(2), tmp_path / "d")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(zooft.DataError, match=r"need pyarrow: pip install 'zooft\[hf-datasets\]'"):
        found(saved)
