"""``zooft predict`` and ``zooft evaluate`` on what data sources read: rows by their ids, the same answers as of files."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import plugged
import pytest
from commands import Done, command
from PIL import Image
from test_runtime import METADATA, changed_metadata, written

from zooft.hooks import registry

pa = pytest.importorskip("pyarrow", reason="pyarrow isn't installed: pip install 'zooft[parquet]'")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow isn't installed: pip install 'zooft[parquet]'")

CLASSES = list(METADATA.labels[0].categories)


@pytest.fixture(autouse=True)
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("parquet", "hf_datasets"):
        plugged.install(monkeypatch, tmp_path / "site", name, f"zooft_{name}")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that answers by the mean of each channel."""
    data = {"train": 3, "val": 3, "group_name": "group"}
    return written(tmp_path_factory.mktemp("model"), changed_metadata(data=data))


def png(channel: int, seed: int = 0) -> bytes:
    """Dark, but for a channel; no two seeds give the same."""
    levels = np.zeros((20, 30, 3), np.uint8)
    levels[..., channel] = 1
    levels[0, : seed + 1, 2] = 1
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    return file.getvalue()


def truth(content: bytes) -> list[float]:
    """What the file must say, by numpy alone: softmax of twice the channels' means, in float32."""
    logits = (2 * np.asarray(Image.open(io.BytesIO(content)), np.float64).mean((0, 1))).astype(np.float32)
    whole = np.exp(logits - logits.max())
    return [float(p) for p in whole / whole.sum()]


def write(path: Path, images: Sequence[bytes | None], **more: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": images, **more}), path)
    return path


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def entries(done: Done) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in json.loads(done.stdout)["predictions"]}


# Rows by their ids


def test_every_format_answers_rows_by_id_and_lists_those_that_hold_no_picture(model: Path, tmp_path: Path) -> None:
    images = [png(0), b"no picture", png(1), None, png(2)]
    path = write(tmp_path / "a.parquet", images)
    got = {
        form: command("predict", model, path, "--format", form, status=3) for form in ("csv", "json", "jsonl", "table")
    }
    table = rows_of(got["csv"].stdout)
    assert list(table[0]) == ["id", "class", *(f"p({name})" for name in CLASSES), "error"]
    lines = [json.loads(line) for line in got["jsonl"].stdout.splitlines()]
    whole = json.loads(got["json"].stdout)["predictions"]
    assert [row["id"] for row in table] == [line["id"] for line in lines] == [f"a.parquet/{n}" for n in range(5)]
    for content, row, line, entry in zip(images, table, lines, whole, strict=True):
        assert line["id"] == entry["id"] == row["id"]
        if row["id"] in {"a.parquet/1", "a.parquet/3"}:
            reason = "not an image that Pillow knows" if content else "no image: the cell is empty"
            assert row["error"] == line["error"] == entry["error"] == reason
            assert (row["class"], "class" in line, "class" in entry) == ("", False, False)
            continue
        assert content is not None
        probabilities = [float(row[f"p({name})"]) for name in CLASSES]
        assert probabilities == entry["probabilities"] == list(line["probabilities"].values())
        np.testing.assert_allclose(probabilities, truth(content), rtol=1e-5)
        assert row["class"] == line["class"] == entry["class"] == CLASSES[int(np.argmax(truth(content)))]
    for done in got.values():
        assert "3 answered; 2 not, or not wholly:" in done.stderr
        assert "a.parquet/1: not an image that Pillow knows" in done.stderr
    assert "a.parquet/4" in got["table"].stdout


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl"])
def test_a_file_of_answers_holds_what_is_written_to_standard_output(name: str, model: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "d.parquet", [png(n) for n in range(3)])
    command("predict", model, path, "--out", tmp_path / name)
    message = command("predict", model, path, "--format", name.partition(".")[2]).stdout
    assert (tmp_path / name).read_text() == message
    command("predict", model, path, "--out", tmp_path / name)  # an earlier result, which may be replaced


def test_rows_are_answered_as_files_with_the_same_pictures_are(model: Path, tmp_path: Path) -> None:
    contents = {f"{n}.png": png(n % 3, seed=n) for n in range(6)}
    (tmp_path / "p").mkdir()
    for name, content in contents.items():
        (tmp_path / "p" / name).write_bytes(content)
    path = write(tmp_path / "a.parquet", list(contents.values()))
    of_files, of_rows = (
        json.loads(command("predict", model, place, "--json").stdout)["predictions"] for place in (tmp_path / "p", path)
    )
    assert [Path(entry.pop("file")).name for entry in of_files] == list(contents)
    assert [entry.pop("id") for entry in of_rows] == [f"a.parquet/{n}" for n in range(6)]
    assert of_rows == of_files


def test_a_folder_of_splits_by_datasets_is_answered_without_its_labels(model: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets isn't installed: pip install 'zooft[dev]'")
    datasets.disable_progress_bars()
    parts = {"train": [png(0), png(1, seed=4)], "test": [png(2)]}
    made = {
        split: datasets.Dataset.from_dict({"image": [{"bytes": one, "path": None} for one in images]}).cast_column(
            "image", datasets.Image()
        )
        for split, images in parts.items()
    }
    datasets.DatasetDict(made).save_to_disk(str(tmp_path / "saved"))
    answered = entries(command("predict", model, tmp_path / "saved", "--json"))
    expected = {f"{split}/{n}": one for split, images in parts.items() for n, one in enumerate(images)}
    assert list(answered) == list(expected)
    for name, content in expected.items():
        np.testing.assert_allclose(answered[name]["probabilities"], truth(content), rtol=1e-5)


def test_files_and_rows_together_stand_in_the_order_in_which_they_were_typed(model: Path, tmp_path: Path) -> None:
    a, b = (write(tmp_path / f"{name}.parquet", [png(0)]) for name in "ab")
    (tmp_path / "c.png").write_bytes(png(1))
    done = command("predict", model, b, tmp_path / "c.png", a, "--json")
    assert list(entries(done)) == ["b.parquet/0", str(tmp_path / "c.png"), "a.parquet/0"]
    assert f"{a} is read as parquet" in " ".join(done.stderr.split())
    patterned = command("predict", model, tmp_path / "*.parquet", "--json")
    assert list(entries(patterned)) == ["a.parquet/0", "b.parquet/0"]


def test_rows_of_one_id_are_refused_before_anything_is_answered(model: Path, tmp_path: Path) -> None:
    places = [write(tmp_path / folder / "a.parquet", [png(0)]) for folder in "xy"]
    done = command("predict", model, *places, "--out", tmp_path / "o.csv", status=1)
    assert f"two rows are called 'a.parquet/0', one of them in {places[1]}" in " ".join(done.stderr.split())
    assert not list(tmp_path.glob("o.csv*"))


# What can't be used


def test_a_table_within_a_folder_of_pictures_is_listed_with_what_to_do(model: Path, tmp_path: Path) -> None:
    (tmp_path / "p" / "ants").mkdir(parents=True)
    (tmp_path / "p" / "ants" / "0.png").write_bytes(png(0))
    write(tmp_path / "p" / "about.parquet", [png(1)])
    messages = json.loads(command("predict", model, tmp_path / "p", "--json", status=3).stdout)["predictions"]
    assert [(Path(entry["file"]).name, "error" in entry) for entry in messages] == [
        ("about.parquet", True),
        ("0.png", False),
    ]
    assert "predict takes it by its own name" in messages[0]["error"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "isn't a whole Parquet file: it may have been cut off"),
        (b"something else", "isn't a Parquet file: it begins with b'some'"),
        (b"", "an empty file"),
    ],
)
def test_a_file_that_cannot_be_listed_ends_nothing(
    content: bytes | None, reason: str, model: Path, tmp_path: Path
) -> None:
    sound = write(tmp_path / "a.parquet", [png(0)])
    torn = tmp_path / "b.parquet"
    torn.write_bytes(sound.read_bytes()[:-20] if content is None else content)
    answered = entries(command("predict", model, torn, sound, "--json", status=3))
    assert answered["b.parquet"]["error"].startswith(reason)
    assert "class" in answered["a.parquet/0"]
    command("predict", model, torn, status=1)


def test_a_table_without_rows_is_reported_as_empty(model: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "a.parquet")
    done = command("predict", model, tmp_path / "a.parquet", "--json", status=1)
    assert json.loads(done.stdout)["predictions"] == [
        {"id": str(tmp_path / "a.parquet"), "error": "holds no rows, read as parquet"}
    ]


# Sources of plugins

ZIPPED = """
import zipfile
import zooft

def recognises(path):
    return path.suffix == ".zip"

def columns(path):
    return []

def rows(path, wanted):
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name == "bug.png":
                raise KeyError("lost")
            yield zooft.Row(id=name, content=(str(path), name))

def content(place):
    with zipfile.ZipFile(place[0]) as archive:
        return archive.read(place[1])

@zooft.hookimpl
def zooft_register_sources():
    return [zooft.Source(name="zip", summary="", recognises=recognises, columns=columns, rows=rows, content=content)]
"""


def zipped(path: Path, contents: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def test_a_strangers_source_is_predicted_on_and_its_fault_is_listed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged.install(monkeypatch, tmp_path / "site", "zip", "zooft_zipped", code=ZIPPED)
    path = zipped(tmp_path / "a.zip", {"one.png": png(0), "=two.png": png(1), "bug.png": png(2)})
    answered = entries(command("predict", model, path, "--json", status=3))
    assert list(answered) == ["one.png", "=two.png", str(path)]
    np.testing.assert_allclose(answered["=two.png"]["probabilities"], truth(png(1)), rtol=1e-5)
    assert "KeyError: 'lost' (plugin zip of zooft_zipped 1.0" in answered[str(path)]["error"]
    rows = rows_of(command("predict", model, path, "--format", "csv", status=3).stdout)
    assert [row["id"] for row in rows][:2] == ["one.png", "'=two.png"], "a spreadsheet doesn't run it"


def test_every_task_with_images_says_what_a_row_is_and_ct_does_not() -> None:
    message = {entry.value.name for entry in registry.load().tasks if entry.value.of_row is not None}
    assert message >= {"classification", "regression", "ordinal", "multilabel", "multitask"}
    assert "ct" not in message


# Killed and resumed


def test_resume_predicts_rows_whose_pictures_have_changed_and_those_without_an_answer(
    model: Path, tmp_path: Path
) -> None:
    from zooft.deploy import predict as answers

    images = [png(n % 3, seed=n) for n in range(6)]
    path, out = write(tmp_path / "a.parquet", images), tmp_path / "a.json"
    real, seen = answers.run_one, []

    def run(*given: Any) -> Any:
        seen.append(1)
        if len(seen) > 3:
            raise KeyboardInterrupt
        return real(*given)

    with mock.patch.object(answers, "run_one", side_effect=run):
        command("predict", model, path, "--out", out, status=130)
    images[1] = png(0, seed=11)
    write(path, images)  # another file with the same rows but one
    with mock.patch.object(answers, "run_one", side_effect=real) as requested:
        command("predict", model, path, "--out", out, "--resume")
    assert requested.call_count == 6 - 2
    given = json.loads(out.read_text())["predictions"]
    for content, entry in zip(images, given, strict=True):
        np.testing.assert_allclose(entry["probabilities"], truth(content), rtol=1e-5)


# Evaluated


def test_a_file_is_evaluated_on_a_table_as_on_folders_of_the_same_pictures(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    kinds = [CLASSES[n % 3] if n else CLASSES[1] for n in range(9)]  # the first is none that the file gets right
    for number, kind in enumerate(kinds):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / f"{number}.png").write_bytes(png(number % 3))
    path = write(tmp_path / "a.parquet", [*(png(n % 3) for n in range(9)), b"no picture"], label=[*kinds, CLASSES[0]])
    done = command("evaluate", model, "--data", path, "--bootstrap", "0", "--json")
    of_rows = json.loads(done.stdout)
    of_files = json.loads(command("evaluate", model, "--data", folder, "--bootstrap", "0", "--json").stdout)
    assert of_rows["metrics"] == of_files["metrics"]
    assert of_rows["metrics"]["accuracy"]["value"] == pytest.approx(8 / 9)
    assert "1 file was rejected, the first: a.parquet/9: not an image that Pillow knows" in " ".join(
        done.stderr.split()
    )
