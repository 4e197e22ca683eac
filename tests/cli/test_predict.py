"""``zooft predict``: answers as they come, in one layout, that survive a kill and destroy nothing."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import pytest
from commands import command
from PIL import Image
from test_runtime import METADATA, written

from zooft import runtime
from zooft.deploy import predict as answers
from zooft.deploy import saved
from zooft.hooks import registry
from zooft.runtime import OnnxModel

CLASSES = list(METADATA.labels[0].categories)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that answers by the mean of each channel."""
    return written(tmp_path_factory.mktemp("model"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three, and one that is none."""
    for number in range(3):
        levels = np.zeros((20, 30, 3), np.uint8)
        levels[..., number] = 1
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.fromarray(levels).save(tmp_path / "p" / f"{number}.png")
    (tmp_path / "p" / "torn.png").write_bytes(b"no picture")
    return tmp_path / "p"


def truth(path: Path) -> list[float]:
    """What the file must say, by numpy alone: softmax of twice the channels' means, in float32."""
    logits = (2 * np.asarray(Image.open(path), np.float64).mean((0, 1))).astype(np.float32)
    whole = np.exp(logits - logits.max())
    return [float(p) for p in whole / whole.sum()]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# One layout


def test_every_format_holds_the_same_answers_with_all_digits_and_says_what_could_not_be_read(
    model: Path, pictures: Path
) -> None:
    got = {
        form: command("predict", model, pictures, "--format", form, status=3).stdout
        for form in ("csv", "json", "jsonl")
    }
    table = rows_of(got["csv"])
    assert list(table[0]) == ["file", "class", *(f"p({name})" for name in CLASSES), "error"]
    lines = [json.loads(line) for line in got["jsonl"].splitlines()]
    whole = json.loads(got["json"])
    assert (whole["classes"], whole["threshold"]) == (CLASSES, None)
    for row, line, entry in zip(table, lines, whole["predictions"], strict=True):
        path = Path(row["file"])
        assert line["file"] == entry["file"] == str(path)
        if path.name == "torn.png":
            assert row["error"] == line["error"] == entry["error"] == "not an image that Pillow knows"
            assert (row["class"], row[f"p({CLASSES[0]})"]) == ("", "")
            continue
        probabilities = [float(row[f"p({name})"]) for name in CLASSES]
        assert probabilities == entry["probabilities"] == list(line["probabilities"].values())
        np.testing.assert_allclose(probabilities, truth(path), rtol=1e-5)
        assert [np.float32(p) for p in probabilities] == probabilities, "every digit of float32 is there"
        assert row["class"] == line["class"] == entry["class"] == CLASSES[int(path.stem)]
        assert (row["error"], "error" in entry) == ("", False)


def test_the_exit_status_distinguishes_all_some_and_none(model: Path, pictures: Path) -> None:
    command("predict", model, pictures / "0.png", status=0)
    messages = command("predict", model, pictures / "0.png", pictures / "torn.png", status=3)
    assert "1 answered; 1 not, or not wholly:" in messages.stderr
    assert f"{pictures / 'torn.png'}: not an image" in messages.stderr
    command("predict", model, pictures / "torn.png", "nowhere.png", status=1)


def test_what_is_left_out_of_a_folder_is_counted_and_named(
    model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / ".hidden.png").touch()
    (pictures / ".git").mkdir()
    (pictures / ".git" / "0.png").touch()
    (pictures / "__MACOSX").mkdir()
    (pictures / "__MACOSX" / "0.png").touch()
    (pictures / "Thumbs.db").touch()
    os.mkfifo(pictures / "pipe")
    (pictures / "link.png").symlink_to("nowhere")
    (pictures / "loop").symlink_to(pictures)
    with socket.socket(socket.AF_UNIX) as one:
        monkeypatch.chdir(pictures)  # names of sockets are short
        one.bind("sock")
        done = command("predict", model, pictures, "--json", status=3)
    messages = json.loads(done.stdout)
    assert {Path(each["id"]).name: each["reason"] for each in messages["left_out"]} == {
        ".hidden.png": "hidden", ".git": "hidden", "__MACOSX": "made by a system, not data",
        "Thumbs.db": "made by a system, not data", "pipe": "not a regular file", "sock": "not a regular file",
        "link.png": "a link that leads nowhere", "loop": "a link to a folder, which isn't followed",
    }  # fmt: skip # a table of expected values
    assert len(messages["predictions"]) == 4
    assert "left out: 2: hidden" in done.stderr


def test_a_pipe_that_is_named_gets_an_answer_that_says_so_and_nobody_waits(model: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = command("predict", model, tmp_path / "pipe", "--json", status=1)
    assert json.loads(done.stdout)["predictions"] == [{"file": str(tmp_path / "pipe"), "error": "not a regular file"}]


def test_a_file_that_is_named_twice_is_answered_once(model: Path, pictures: Path) -> None:
    done = command("predict", model, pictures / "0.png", pictures / "0.png", f"{pictures}/[0]*", "--json")
    assert len(json.loads(done.stdout)["predictions"]) == 1


def test_names_that_are_not_utf_8_and_that_a_spreadsheet_would_run_come_through(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "n").mkdir()
    for name in (b"\xff.png", b"=1+1.png"):
        with (tmp_path / "n" / os.fsdecode(name)).open("wb") as file:
            Image.new("RGB", (4, 4)).save(file, "PNG")
    monkeypatch.chdir(tmp_path / "n")
    rows = rows_of(command("predict", model, "*.png", "--format", "csv").stdout)
    assert [row["file"] for row in rows] == ["'=1+1.png", "\\udcff.png"]
    command("predict", model, tmp_path / "n", "--out", tmp_path / "a.json")
    assert [row["file"][-5:] for row in json.loads((tmp_path / "a.json").read_text())["predictions"]] == [
        "1.png",
        "\udcff.png",
    ]
    command("predict", model, tmp_path / "n")


# As they come


@pytest.mark.parametrize("where", ["csv", "jsonl", "--out"])
def test_answers_are_written_as_they_come(
    where: str, model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first answer and the second, the first is there to be read."""
    from zooft.deploy import predict as answers

    real, seen = answers.run_one, []

    def run(*given: Any) -> Any:
        if seen:
            seen.append((tmp_path / "a.csv.partial").read_text() if where == "--out" else sys.stdout.getvalue())  # type: ignore[attr-defined]
        else:
            seen.append("")
        return real(*given)

    monkeypatch.setattr(answers, "run_one", run)
    command(
        "predict",
        model,
        pictures / "[012].png",
        *(("--out", tmp_path / "a.csv") if where == "--out" else ("--format", where)),
    )
    assert ["0.png" in seen[1], "1.png" in seen[1], "1.png" in seen[2]] == [True, False, True]


# Killed and resumed


def several(folder: Path, number: int) -> Path:
    """A folder of so many pictures."""
    for index in range(number):
        example_data.save(folder / f"{index:02}.png", 40 + 5 * index, seed=index)
    return folder


def test_after_a_kill_resume_goes_on_and_ends_with_the_same_file(model: Path, tmp_path: Path) -> None:
    many = several(tmp_path / "p", 12)
    command("predict", model, many, "--out", tmp_path / "whole.csv")
    out, partial = tmp_path / "a.csv", tmp_path / "a.csv.partial"
    die_after = """
import os, signal, sys
from zooft.deploy import predict as answers
real = answers._of_arrays
def counted(model, task, read, turn, seen=[]):
    seen.append(1)
    if len(seen) > 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(model, task, read, turn)
answers._of_arrays = counted
from zooft.cli import main
sys.argv = ["zooft", *sys.argv[1:]]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", die_after, "predict", model, many, "--out", out, "--threads", "1"],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    known = partial.read_bytes().splitlines()
    assert len(known) == 1 + 5, "a line about the command, and one an answer"
    refused = command("predict", model, many, "--out", out, status=1)
    assert "is what a predict that was stopped has left; resume it with --resume" in refused.stderr
    partial.write_bytes(partial.read_bytes() + b'{"stamp": "1 2')  # as a kill while writing leaves it
    requested = count_asked(lambda: command("predict", model, many, "--out", out, "--resume"))
    assert requested == 12 - 5
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*a.csv*")) == ["a.csv"]


def count_asked(work: Callable[[], Any]) -> int:
    """How many files the network has predicted."""
    from unittest import mock

    from zooft.deploy import predict as answers

    with mock.patch.object(answers, "run_one", side_effect=answers.run_one) as requested:
        work()
    return requested.call_count


def stopped(model: Path, folder: Path, out: Path, *, known: int = 3) -> None:
    """A command that was interrupted at the network's fourth call."""
    from unittest import mock

    from zooft.deploy import predict as answers

    real, seen = answers.run_one, []

    def run(*given: Any) -> Any:
        seen.append(1)
        if len(seen) > 3:
            raise KeyboardInterrupt
        return real(*given)

    with mock.patch.object(answers, "run_one", side_effect=run):
        done = command("predict", model, folder, "--out", out, status=130)
    assert f"{known} answers are in {out}.partial; the same command with --resume predicts the others" in done.stderr


def test_what_has_changed_meanwhile_or_could_not_be_read_is_predicted_again(model: Path, tmp_path: Path) -> None:
    many = several(tmp_path / "p", 6)
    (many / "00.png").write_bytes(b"torn")
    stopped(model, many, tmp_path / "a.json")
    example_data.save(many / "00.png", 99)
    example_data.save(many / "01.png", 250, seed=77)
    assert count_asked(lambda: command("predict", model, many, "--out", tmp_path / "a.json", "--resume")) == 6 - 2
    entries = json.loads((tmp_path / "a.json").read_text())["predictions"]
    for entry in entries:
        np.testing.assert_allclose(entry["probabilities"], truth(Path(entry["file"])), rtol=1e-3)


def test_another_model_does_not_go_on_with_it(model: Path, tmp_path: Path) -> None:
    many = several(tmp_path / "p", 6)
    stopped(model, many, tmp_path / "a.csv")
    (tmp_path / "other").mkdir()
    other = written(tmp_path / "other", lambda changed: setattr(changed, "doc_string", "another"))
    done = command("predict", other, many, "--out", tmp_path / "a.csv", "--resume", status=1)
    assert "was started with another model" in done.stderr


def test_an_interrupt_before_the_first_answer_leaves_nothing(model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from zooft.deploy import predict as answers

    def interrupt(*_given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(answers, "run_one", interrupt)
    many = several(tmp_path / "p", 2)
    command("predict", model, many, "--out", tmp_path / "a.csv", status=130)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


# What --out may be


def refused(tmp_path: Path, *arguments: str | Path, status: int = 2) -> str:
    """The message; nothing is computed and nothing changes."""
    before = contents(tmp_path)
    message: list[str] = []
    requested = count_asked(lambda: message.append(command("predict", *arguments, status=status).stderr))
    assert requested == 0
    assert contents(tmp_path) == before
    return message[0]


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_nothing_but_an_earlier_result_is_overwritten(model: Path, pictures: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.onnx"
    mine.write_bytes(model.read_bytes())
    (tmp_path / "labels.csv").write_text("file,class\na.png,ant\n")
    (tmp_path / "run.json").write_text('{\n  "schema": 2\n}\n')
    (tmp_path / "notes.jsonl").write_text('{"id": 1}\n')
    (tmp_path / "sizes.csv").write_text("file,width,height,error\na.png,3,4,\n")
    (tmp_path / "words.jsonl").write_text('{"file": "a.png", "caption": "an ant"}\n')
    (tmp_path / "link.csv").symlink_to(tmp_path / "labels.csv")
    os.mkfifo(tmp_path / "pipe")
    for out, words in (
        (mine, "is what is read here"), (pictures / "0.png", "is what is read here"), (tmp_path / "labels.csv", "isn't what predict writes"),
        (tmp_path / "run.json", "isn't what predict writes"), (tmp_path / "notes.jsonl", "isn't what predict writes"),
        (tmp_path / "sizes.csv", "isn't what predict writes"), (tmp_path / "words.jsonl", "isn't what predict writes"),
        (tmp_path / "link.csv", "isn't what predict writes"), (pictures, "is a folder; name a file in it"), (tmp_path / "pipe", "isn't a regular file"),
        (tmp_path / "no" / "a.csv", "there is no folder"),
    ):  # fmt: skip # a table of cases
        assert words in refused(tmp_path, mine, pictures / "0.png", "--out", out), out
    assert "is a folder" in refused(tmp_path, mine, pictures, "--format", "csv", "--out", pictures)


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl"])
def test_an_earlier_result_and_an_empty_file_are_overwritten(
    name: str, model: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / name).touch()
    command("predict", model, pictures, "--out", tmp_path / name, status=3)
    first = (tmp_path / name).read_bytes()
    command("predict", model, pictures / "0.png", "--out", tmp_path / name)
    command("predict", model, pictures, "--out", tmp_path / name, status=3)
    assert (tmp_path / name).read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "p"])


def test_a_result_among_the_pictures_is_no_input(model: Path, pictures: Path) -> None:
    for _ in range(2):
        done = command("predict", model, pictures, "--out", pictures / "a.csv", status=3)
    assert "written by this command" in done.stderr
    assert len(rows_of((pictures / "a.csv").read_text())) == 4


def test_a_disk_that_fills_up_is_reported_and_what_was_answered_stays(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own limit on the size of a file stands for a full disk: the third answer doesn't fit."""
    resource = pytest.importorskip("resource")
    command("predict", model, pictures / "[01].png", "--out", tmp_path / "a.csv")
    out, before = tmp_path / "b.csv", resource.getrlimit(resource.RLIMIT_FSIZE)
    stopped_at = count_bytes(model, pictures / "[01].png", out, monkeypatch)
    resource.setrlimit(resource.RLIMIT_FSIZE, (stopped_at + 20, before[1]))
    try:
        done = command("predict", model, pictures / "[012].png", "--out", out, status=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in done.stderr
    assert "2 answers are in" in done.stderr
    command("predict", model, pictures / "[012].png", "--out", out, "--resume")
    assert len(rows_of(out.read_text())) == 3


def count_bytes(model: Path, typed: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How large the answers to some files are before they get their name."""
    from zooft.deploy.journal import Journal

    sizes = []
    real = Journal.publish
    with monkeypatch.context() as patch:
        patch.setattr(
            Journal, "publish", lambda self, write: (sizes.append(self.path.stat().st_size), real(self, write))
        )
        command("predict", model, typed, "--out", out)
    out.unlink()
    return int(sizes[0])


def test_only_one_command_writes_a_file(model: Path, pictures: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / ".a.csv.lock"):
        done = command("predict", model, pictures, "--out", tmp_path / "a.csv", status=1)
    assert "another predict is writing" in done.stderr


def test_under_json_a_written_file_is_reported_as_json(model: Path, pictures: Path, tmp_path: Path) -> None:
    done = command("predict", model, pictures, "--out", tmp_path / "a.json", "--json", status=3)
    assert json.loads(done.stdout) == {"out": str(tmp_path / "a.json"), "answered": 3, "failed": 1}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--resume",), "name it with --out"),
        (("--format", "cvs"), "there is no format 'cvs'; the task classification has table, csv, json, jsonl"),
        (("--format", "csv", "--json"), "give one of them"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: tuple[str, ...], words: str, model: Path, pictures: Path, tmp_path: Path
) -> None:
    assert words in refused(tmp_path, model, pictures, *arguments)


# Threads


def test_threads_are_those_requested(model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unittest import mock

    from zooft import runtime

    with mock.patch.object(runtime, "load", side_effect=runtime.load) as load:
        command("predict", model, pictures / "0.png", "--threads", "3")
    assert load.call_args.kwargs["threads"] == 3


def test_many_files_are_predicted_side_by_side_each_by_one_thread(
    model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unittest import mock

    from zooft import runtime

    with mock.patch.object(runtime, "load", side_effect=runtime.load) as load:
        command("predict", model, pictures, "--threads", "3", status=3)
    assert load.call_args.kwargs["threads"] == 1


def test_files_are_read_while_the_network_works_but_not_with_one_thread(model: Path, pictures: Path) -> None:
    opened, task, options = of_file(model)
    for threads, expected in ((2, 3), (1, 1)):
        started: list[Path] = []
        slow = spy(task, started)
        first = answers.of_each(opened, slow, options, sorted(pictures.glob("[012].png")), threads=threads)
        next(first)
        end = time.monotonic() + 300
        while len(started) < expected and time.monotonic() < end:
            threading.Event().wait(0.001)
        assert len(started) == expected
        first.close()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_answers_are_in_order_whichever_thread_is_first_and_only_some_are_ahead(
    threads: int, model: Path, pictures: Path
) -> None:
    opened, task, options = of_file(model)
    files, taken = [pictures / f"{n % 3}.png" for n in range(40)], list[Path]()

    def given() -> Iterator[Path]:
        for path in files:
            taken.append(path)
            yield path

    delays = iter(np.random.default_rng(0).permutation(40) / 5000)

    def read(path: Path, options: Any) -> Any:
        time.sleep(next(delays))
        return task.read(path, options)

    most = 0
    found = []
    for answer in answers.of_each(opened, replace(task, read=read), options, given(), threads=threads):
        found.append(answer)
        most = max(most, len(taken) - len(found))
    assert [answer.key for answer in found] == [str(path) for path in files]
    for path, answer in zip(files, found, strict=True):
        np.testing.assert_allclose(list(answer.cells.values())[1:], truth(path), rtol=1e-6)
    assert most <= threads + 3


def test_what_lacks_memory_beside_others_is_predicted_alone(
    model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, task, options = of_file(model)
    busy, lock = [0], threading.Lock()
    real = OnnxModel.run

    def run(self: OnnxModel, *batch: Any) -> Any:
        with lock:
            busy[0] += 1
        try:
            time.sleep(0.02)
            if busy[0] > 1:
                raise MemoryError
            return real(self, *batch)
        finally:
            with lock:
                busy[0] -= 1

    monkeypatch.setattr(OnnxModel, "run", run)
    files = [pictures / f"{n % 3}.png" for n in range(12)]
    found = list(answers.of_each(opened, task, options, files, threads=4))
    assert [answer.error for answer in found] == [""] * 12


def test_a_device_runs_one_image_after_the_other(model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, task, options = of_file(model)
    busy, most = [0], [0]
    real = OnnxModel.run

    def run(self: OnnxModel, *batch: Any) -> Any:
        busy[0] += 1
        most[0] = max(most[0], busy[0])
        time.sleep(0.01)
        busy[0] -= 1
        return real(self, *batch)

    monkeypatch.setattr(OnnxModel, "run", run)
    device = replace(opened, provider="CUDAExecutionProvider")
    found = list(answers.of_each(device, task, options, [pictures / f"{n % 3}.png" for n in range(9)], threads=3))
    assert (most, len(found)) == ([1], 9)


def test_many_files_are_predicted_without_torch(model: Path, pictures: Path) -> None:
    code = (
        "import sys; from zooft.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: pass\n"
        "print([name for name in ('torch', 'scipy', 'sklearn', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", str(model), str(pictures), "--threads", "2", "--format", "csv"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.splitlines()[-1] == "[]"


def of_file(model: Path) -> tuple[OnnxModel, Any, Any]:
    """The model, its task and its options."""
    opened = runtime.load(model, provider="cpu", threads=1)
    return (opened, *saved.task_of_file(opened, registry.load()))


def spy(task: Any, started: list[Path]) -> Any:
    def read(path: Path, options: Any) -> Any:
        started.append(path)
        return task.read(path, options)

    return replace(task, read=read)


# What can go wrong with one file ends nothing


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "there isn't enough memory to run the network on 20x30x3"),
        (RuntimeError("Failed to allocate memory for requested buffer of size 9"), "there isn't enough memory to run"),
        (RuntimeError("shapes don't fit"), "onnxruntime failed: shapes don't fit"),
    ],
)
def test_what_the_network_cannot_take_is_reported_and_the_others_are_answered(
    error: Exception, words: str, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zooft.runtime import OnnxModel

    real = OnnxModel.run

    def run(self: OnnxModel, *batch: Any) -> Any:
        if batch[0][0, 0, 0, 1]:
            raise error
        return real(self, *batch)

    monkeypatch.setattr(OnnxModel, "run", run)
    entries = json.loads(command("predict", model, pictures / "[012].png", "--json", status=3).stdout)["predictions"]
    assert ["class" in entry for entry in entries] == [True, False, True]
    assert entries[1]["error"].startswith(words)


def test_a_network_that_gives_no_numbers_gives_no_class(
    model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zooft.runtime import OnnxModel

    nothing = np.full((1, 3), np.nan, np.float32)
    monkeypatch.setattr(OnnxModel, "run", lambda _self, *_batch: {"probabilities": nothing, "logits": nothing})
    done = command("predict", model, pictures / "0.png", "--json", status=1)
    assert json.loads(done.stdout)["predictions"][0]["error"] == "the network gave no numbers (NaN)"


# Patients


@pytest.fixture
def patients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder a patient, of pictures; the task answers for patients, c lacks one picture and d all of them."""
    from dataclasses import replace

    from zooft import Discovery, Rejection, Sample
    from zooft.hooks import registry

    for patient, count in (("a", 2), ("b", 1), ("c", 1)):
        for number in range(count):
            example_data.save(tmp_path / "p" / patient / f"{number}.png", 40 + 50 * number, seed=ord(patient))

    def gather(paths: Any, _options: Any, _computing: Any) -> Discovery:
        files = [file for path in paths for file in sorted(path.rglob("*.png"))]
        samples = [Sample(id=f"{f.parent.name}/{f.stem}", source=f, group=f"patient {f.parent.name}") for f in files]
        rejected = (
            Rejection("c/1", "torn", group="patient c", missing=1),
            Rejection("d", "its slices aren't parallel", group="patient d", missing=3),
            Rejection("notes.txt", "not a picture"),
            Rejection("x", "no patient is named", missing=2),
        )
        return Discovery(samples=samples, rejected=rejected)

    def identify(result: Any, _options: Any) -> dict[str, str]:
        name = result.group[-1]
        return {"file": "volume.nii"} if name == "b" else {"PatientID": f"=DOE^{name}"}

    found = registry.load()
    tasks = [replace(e, value=replace(e.value, gather=gather, identify=identify)) for e in found.tasks]
    monkeypatch.setattr("zooft.hooks.registry.load", lambda: replace(found, tasks=tuple(tasks)))
    return tmp_path / "p"


def test_an_incomplete_and_a_refused_patient_are_in_every_format_and_in_the_exit_status(
    model: Path, patients: Path
) -> None:
    got = {
        form: command("predict", model, patients, "--format", form, status=3).stdout
        for form in ("csv", "json", "jsonl", "table")
    }
    required = [
        ("patient a", 2, 0, ""),
        ("patient b", 1, 0, ""),
        ("patient c", 1, 1, "1 of 2 samples couldn't be predicted: torn"),
        ("patient d", 0, 3, "its slices aren't parallel"),
        ("x", 0, 2, "no patient is named"),
    ]
    rows = rows_of(got["csv"])
    head = ["patient", "class", *(f"p({name})" for name in CLASSES), "samples", "missing", "decisive", "error"]
    assert list(rows[0]) == head
    assert [(row["patient"], int(row["samples"]), int(row["missing"]), row["error"]) for row in rows] == required
    lines = [json.loads(line) for line in got["jsonl"].splitlines()]
    entries = json.loads(got["json"])["predictions"]
    assert lines == entries
    assert [(e["patient"], e["samples"], e["missing"], e.get("error", "")) for e in entries] == required
    assert [bool(row["class"]) for row in rows] == ["class" in e for e in entries] == [True, True, True, False, False]
    assert all(name in got["table"] and text in got["table"] for name, *_, text in required)
    mean = np.mean([truth(file) for file in sorted((patients / "a").iterdir())], axis=0)
    np.testing.assert_allclose([float(rows[0][f"p({name})"]) for name in CLASSES], mean, rtol=1e-3)


def test_patients_who_are_all_whole_give_status_0(model: Path, tmp_path: Path, patients: Path) -> None:
    from unittest import mock

    from zooft.deploy import predict as answers

    real = answers.discover_groups

    def whole(*given: Any) -> Any:
        from dataclasses import replace

        return replace(real(*given), rejected=())

    with mock.patch.object(answers, "discover_groups", whole):
        command("predict", model, patients / "a", "--out", tmp_path / "a.csv")
    (row,) = rows_of((tmp_path / "a.csv").read_text())
    assert (row["missing"], row["error"]) == ("0", "")


def test_names_of_all_patients_have_a_column_where_they_are_requested(
    model: Path, patients: Path, tmp_path: Path
) -> None:
    hidden = command("predict", model, patients, "--format", "csv", status=3).stdout
    assert "DOE" not in hidden
    shown = command("predict", model, patients, "--format", "csv", "--identify", status=3).stdout
    command("predict", model, patients, "--out", tmp_path / "a.csv", "--identify", status=3)
    assert (tmp_path / "a.csv").read_text() == shown
    rows = rows_of(shown)
    assert [row["PatientID"] for row in rows] == ["'=DOE^a", "", "'=DOE^c", "", ""]
    assert [row["file"] for row in rows] == ["", "volume.nii", "", "", ""]


def test_patients_are_resumed_and_those_whose_files_changed_are_predicted_again(
    model: Path, patients: Path, tmp_path: Path
) -> None:
    command("predict", model, patients, "--out", tmp_path / "whole.csv", status=3)
    out = tmp_path / "a.csv"
    stopped(model, patients, out, known=2)
    assert count_asked(lambda: command("predict", model, patients, "--out", out, "--resume", status=3)) == 1
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    stopped(model, patients, out, known=2)
    example_data.save(patients / "b" / "0.png", 200, seed=9)
    assert count_asked(lambda: command("predict", model, patients, "--out", out, "--resume", status=3)) == 2
