"""Parquet files by pyarrow, pandas and datasets themselves: what is read of them, and that nothing is dropped in silence."""

from __future__ import annotations

import io
import json
import os
import pickle
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import plugged
import pytest
import same_images
from PIL import Image

import zooft
import zooft_parquet
from zooft.hooks.guard import guard_functions
from zooft_images import read as reader
from zooft_images.discover import discover
from zooft_images.options import ClassificationOptions
from zooft_parquet import files, unpacking

pa = pytest.importorskip("pyarrow", reason="pyarrow isn't installed: pip install 'zooft[parquet]'")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow isn't installed: pip install 'zooft[parquet]'")

OPTIONS = ClassificationOptions()
(SOURCE,) = [guard_functions(source) for source in zooft_parquet.zooft_register_sources()]


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(example_data.picture(128, size=(8, 9), seed=seed)).save(file, "PNG")
    return file.getvalue()


def found(path: Path, options: ClassificationOptions = OPTIONS) -> zooft.Discovery:
    return discover(path, options, sources=[SOURCE])


def rejected(discovery: zooft.Discovery) -> dict[str, str]:
    return {each.id: each.reason for each in discovery.rejected}


def labels(discovery: zooft.Discovery) -> dict[str, str]:
    return {sample.id: discovery.classes[sample.target] for sample in discovery.samples}


def write(
    path: Path, images: Sequence[Any], kinds: Sequence[Any], *, image: str = "image", **more: Sequence[Any]
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({image: images, "label": kinds, **more}), path)
    return path


# the same as folders


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """Photographs by datasets, as data hubs hold them (data/train-00000-of-00002.parquet and so on), and as files."""
    datasets = pytest.importorskip("datasets", reason="datasets isn't installed: pip install 'zooft[dev]'")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ants", "bees"])})
    (tmp_path / "hub" / "data").mkdir(parents=True)
    named, splits = {}, {}
    for split, paths in same_images.photographs().items():
        for shard in range(2):
            some = paths[shard::2]
            rows = {
                "image": [{"bytes": path.read_bytes(), "path": path.name} for path in some],
                "label": [int(path.parent.name == "bees") for path in some],
            }
            place = f"data/{'validation' if split == 'val' else split}-0000{shard}-of-00002.parquet"
            datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "hub" / place), batch_size=5)
            for number, path in enumerate(some):
                named[f"{place}/{number}"], splits[f"{place}/{number}"] = path, split
    return tmp_path / "hub", same_images.write_files(tmp_path / "files", named, splits)


def test_what_datasets_writes_gives_what_files_give(both: tuple[Path, Path]) -> None:
    same_images.assert_found_alike(*map(found, both))


def test_training_is_the_same_as_on_files_with_options_of_the_task(
    both: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged.install(monkeypatch, tmp_path / "site", "parquet", "zooft_parquet")
    same_images.assert_trained_alike(both, tmp_path)


# what columns hold


def test_plain_columns_of_bytes_and_texts_by_pandas(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas isn't installed: pip install 'zooft[dev]'")
    table = pandas.DataFrame({"image": [png(n) for n in range(4)], "label": ["good", "scratch", "good", "scratch"]})
    table["group"] = [7, 7, 8, 9]
    table.to_parquet(tmp_path / "a.parquet")
    discovery = found(tmp_path / "a.parquet")
    assert discovery.classes == ("good", "scratch")
    assert labels(discovery) == {
        "a.parquet/0": "good",
        "a.parquet/1": "scratch",
        "a.parquet/2": "good",
        "a.parquet/3": "scratch",
    }
    assert [sample.group for sample in discovery.samples] == ["7", "7", "8", "9"]
    for number, sample in enumerate(discovery.samples):
        expected = np.asarray(Image.open(io.BytesIO(png(number))))
        np.testing.assert_array_equal(reader.read(sample.source, OPTIONS), expected)


def test_a_categorical_column_of_pandas_holds_its_texts(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas isn't installed: pip install 'zooft[dev]'")
    kinds = pandas.Categorical(["b", "a", "b"], categories=["b", "a"])
    pandas.DataFrame({"image": [png(n) for n in range(3)], "label": kinds}).to_parquet(tmp_path / "a.parquet")
    assert list(labels(found(tmp_path / "a.parquet")).values()) == ["b", "a", "b"]


def test_the_column_of_the_classes_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [png(n) for n in range(4)], ["x"] * 4, kind=["oak", "elm", "oak", None])
    discovery = found(path, ClassificationOptions(label_column="kind"))
    assert labels(discovery) == {"a.parquet/0": "oak", "a.parquet/1": "elm", "a.parquet/2": "oak"}
    assert rejected(discovery) == {"a.parquet/3": "no label: the column kind is empty"}
    with pytest.raises(
        zooft.DataError, match="has no column 'kinds'; its columns are label, kind; nearest: kind; name"
    ):
        found(path, ClassificationOptions(label_column="kinds"))


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / "d" / "p").mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / "p" / f"{number}.png").write_bytes(png(number))
    write(tmp_path / "d" / "a.parquet", ["p/0.png", "p/1.png", "p/2.png", "p"], ["x", "y", "x", "y"])
    discovery = found(tmp_path / "d" / "a.parquet")
    assert len(discovery.samples) == 2
    np.testing.assert_array_equal(
        reader.read(discovery.samples[1].source, OPTIONS), np.asarray(Image.open(tmp_path / "d" / "p" / "1.png"))
    )
    assert rejected(discovery) == {
        "a.parquet/2": "no such file: p/2.png; paths are relative to the Parquet file's folder",
        "a.parquet/3": "no such file: p; paths are relative to the Parquet file's folder",
    }


def test_the_only_column_of_bytes_is_the_images(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [png(0), png(1)], ["x", "y"], image="jpeg", caption=["an x", "a y"])
    discovery = found(path)
    assert len(discovery.samples) == 2
    assert any("aren't used: caption" in note for note in discovery.notes)


def test_a_column_that_is_called_like_groups_is_pointed_out(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet", [png(n) for n in range(4)], list("xyxy"), caption=list("abcd"), PatientID=[1, 1, 2, 2]
    )
    notes = found(path).notes
    assert any("aren't used: caption, PatientID (" in note for note in notes)
    assert any("Give --group-column PatientID, or call it group" in note for note in notes)
    grouped = found(path, ClassificationOptions(group_column="PatientID"))
    assert [sample.group for sample in grouped.samples] == ["1", "1", "2", "2"]
    assert not any("must not divide" in note for note in grouped.notes)


def test_names_of_numbers_keep_their_order(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"names": ["wasp", "ant"], "_type": "ClassLabel"}}
    table = pa.table({"image": [{"bytes": png(n), "path": None} for n in range(3)], "label": [1, 0, 1]})
    messages = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(messages), tmp_path / "a.parquet")
    discovery = found(tmp_path / "a.parquet")
    assert discovery.classes == ("wasp", "ant")
    assert [sample.target for sample in discovery.samples] == [1, 0, 1]


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "exploded"),)

    write(tmp_path / "a.parquet", [png(0), png(1), pickle.dumps(Bomb())], ["x", "y", "x"])
    assert list(rejected(found(tmp_path / "a.parquet"))) == ["a.parquet/2"]
    assert not (tmp_path / "exploded").exists()


# where files lie


def test_splits_are_folders_or_words_of_names_or_a_column(tmp_path: Path) -> None:
    for place in ("folders/train/0", "folders/validation/0", "names/data/x-train-0", "names/data/x-test-0"):
        write(tmp_path / f"{place}.parquet", [png(0), png(1)], ["x", "y"])
    write(tmp_path / "column.parquet", [png(0), png(1)], ["x", "y"], split=["train", "dev"])
    splits = {
        name: [sample.split for sample in found(tmp_path / name).samples]
        for name in ("folders", "names", "column.parquet")
    }
    assert splits == {
        "folders": ["train", "train", "val", "val"],
        "names": ["test", "test", "train", "train"],
        "column.parquet": ["train", "val"],
    }


def test_names_of_which_some_say_a_split_are_refused(tmp_path: Path) -> None:
    for name in ("train-0", "unsupervised-0"):
        write(tmp_path / f"{name}.parquet", [png(0), png(1)], ["x", "y"])
    with pytest.raises(zooft.DataError, match=r"train-0.parquet names its split and unsupervised-0.parquet doesn't"):
        found(tmp_path)


def test_parquet_beside_class_folders_is_not_the_data(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path, {"dark": 2, "light": 2})
    write(tmp_path / "features.parquet", [png(0)], ["x"])
    assert not files.recognises(tmp_path)
    assert found(tmp_path).classes == ("dark", "light")


def test_a_folder_without_parquet_is_not_recognised(tmp_path: Path) -> None:
    assert not files.recognises(tmp_path)
    assert not files.recognises(tmp_path / "nowhere")
    (tmp_path / ".hidden.parquet").touch()
    assert not files.recognises(tmp_path)


# bad input


def test_empty_cells_are_listed_by_their_row(tmp_path: Path) -> None:
    images = [png(0), None, png(2), b"", png(4)]
    discovery = found(write(tmp_path / "a.parquet", images, ["x", "x", None, "y", "y"]))
    assert rejected(discovery) == {
        "a.parquet/1": "no image: the cell is empty",
        "a.parquet/2": "no label: the column label is empty",
        "a.parquet/3": "no image: the cell is empty",
    }
    assert list(labels(discovery)) == ["a.parquet/0", "a.parquet/4"]


def test_columns_that_are_missing_are_named_with_those_that_are_there(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "label": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(
        zooft.DataError, match=r"a.parquet: no column holds images; its columns are id \(int64\), label \(string\)"
    ):
        found(tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": [png(0)], "kind": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(zooft.DataError, match="no column 'label'; its columns are kind"):
        found(tmp_path / "b.parquet")
    pq.write_table(pa.table({"left": [png(0)], "right": [png(1)], "label": ["x"]}), tmp_path / "c.parquet")
    with pytest.raises(zooft.DataError, match="several columns may hold the images: left, right"):
        found(tmp_path / "c.parquet")


def test_an_unknown_split_is_refused_by_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [png(0), png(1)], ["x", "y"], split=["train", "extra"])
    with pytest.raises(zooft.DataError, match=r"a.parquet/1 is in the split 'extra'"):
        found(path)


def test_a_file_that_was_cut_off_is_listed_and_the_others_are_used(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [png(0), png(1)], ["x", "y"])
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-40])
    (tmp_path / "c.parquet").write_bytes(b"")
    (tmp_path / "d.parquet").write_bytes(b"path,label\n")
    discovery = found(tmp_path)
    assert len(discovery.samples) == 2
    reasons = rejected(discovery)
    assert reasons["b.parquet"].startswith("isn't a whole Parquet file: it may have been cut off")
    assert reasons["c.parquet"] == "an empty file"
    assert reasons["d.parquet"] == "isn't a Parquet file: it begins with b'path'"


def test_only_a_file_that_was_cut_off_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [png(0), png(1)], ["x", "y"])
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:60])
    with pytest.raises(
        zooft.DataError, match=r"no Parquet file that can be read; a.parquet: isn't a whole Parquet file"
    ):
        found(tmp_path / "a.parquet")


def test_damage_in_the_images_is_listed_for_each_row_that_it_takes(tmp_path: Path) -> None:
    # behind its end, a PNG may hold anything
    images = [png(n) + np.random.default_rng(n).bytes(4000) for n in range(60)]
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"image": images, "label": ["x", "y"] * 30}),
        path,
        row_group_size=20,
        compression="gzip",
        use_dictionary=False,
    )
    whole = bytearray(path.read_bytes())
    begin = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    whole[begin + 200 : begin + 3000] = bytes(2800)
    path.write_bytes(whole)
    discovery = found(path)
    assert list(labels(discovery)) == [f"a.parquet/{n}" for n in (*range(20), *range(40, 60))]
    reasons = rejected(discovery)
    assert list(reasons) == [f"a.parquet/{n}" for n in range(20, 40)]
    assert all(reason.startswith("the Parquet file is damaged: ") for reason in reasons.values())


def test_damage_in_the_labels_takes_the_rest_of_its_row_group(tmp_path: Path) -> None:
    path, kinds = tmp_path / "a.parquet", [f"{'xy'[n % 2]}{'z' * 90}" for n in range(60)]
    table = pa.table({"image": [png(n) for n in range(60)], "label": kinds})
    pq.write_table(table, path, row_group_size=20, compression="gzip", use_dictionary=False)
    whole = bytearray(path.read_bytes())
    about = pq.ParquetFile(path).metadata.row_group(1).column(1)
    begin = about.data_page_offset + about.total_compressed_size - 30
    whole[begin : begin + 30] = bytes(30)
    path.write_bytes(whole)
    discovery = found(path)
    assert list(labels(discovery)) == [f"a.parquet/{n}" for n in (*range(20), *range(40, 60))]
    (reason,) = rejected(discovery).values()
    assert reason.startswith("the Parquet file is damaged: rows 20 to 39 can't be read")


def test_a_file_that_changes_after_it_was_listed_is_not_read_any_further(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [png(0), png(1)], ["x", "y"])
    (sample, _) = found(path).samples
    unpacking.unpack.cache_clear()
    write(path, [png(2), png(3), png(4)], ["x", "y", "x"])
    with pytest.raises(zooft.DataError, match=r"a.parquet has changed since the data was listed"):
        reader.read(sample.source, OPTIONS)


def test_files_that_name_numbers_in_different_ways_are_refused(tmp_path: Path) -> None:
    for name, names in (("a", ["x", "y"]), ("b", ["y", "x"])):
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = pa.table({"image": [png(0), png(1)], "label": [0, 1]})
        messages = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(messages), tmp_path / f"{name}.parquet")
    with pytest.raises(zooft.DataError, match=r"b.parquet names the numbers of the column label otherwise"):
        found(tmp_path)


def test_without_pyarrow_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [png(0), png(1)], ["x", "y"])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(zooft.DataError, match=r"Parquet needs pyarrow: pip install 'zooft\[parquet\]'"):
        found(path)


# memory


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """One row group of 64 MB, as pandas writes it: Arrow's own memory and Python's stay far below."""
    images = [np.random.default_rng(n).bytes(2**20) for n in range(64)]
    path = write(tmp_path / "a.parquet", images, ["x", "y"] * 32)
    del images
    (row, *_) = list(SOURCE.rows(path, ["label"]))
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    tracemalloc.start()
    made = unpacking.unpack(row.content.file)
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(made.ends) == 64
    assert made.get(63)[1] == np.random.default_rng(63).bytes(2**20)
    assert python < 40 * 2**20
    assert pa.total_allocated_bytes() - before < 2**20
    assert pool.bytes_allocated() < 40 * 2**20
