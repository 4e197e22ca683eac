"""A run is one folder, made complete or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from zooft.errors import RunError
from zooft.run import folder as runs
from zooft.run.folder import WorkingFolder
from zooft.run.record import read_record


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default run folders are made below the current folder."""
    monkeypatch.chdir(tmp_path)


def claim(out: Path | None = None) -> WorkingFolder:
    return runs.claim(out, task="classification", model="tiny")


def fill(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


# Its life


def test_a_run_is_worked_on_under_an_incomplete_name(tmp_path: Path) -> None:
    folder = claim(tmp_path / "mine")
    assert folder.path == tmp_path / "mine.incomplete"
    assert folder.path.is_dir()
    assert not (tmp_path / "mine").exists()


def test_publishing_gives_the_run_its_name_and_remembers_it(tmp_path: Path) -> None:
    folder = claim(tmp_path / "mine")
    (folder.path / "run.json").write_text("{}")
    assert folder.publish() == tmp_path / "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".latest", "mine"]
    assert runs.latest(tmp_path) == tmp_path / "mine"


def test_abandoning_leaves_nothing_where_nothing_was_learnt(tmp_path: Path) -> None:
    folder = claim(tmp_path / "mine")
    (folder.path / "samples.csv").write_text("id\n")
    assert folder.abandon() == ""
    assert list(tmp_path.iterdir()) == []


def test_abandoning_keeps_what_was_learnt_and_says_where(tmp_path: Path) -> None:
    folder = claim(tmp_path / "mine")
    (folder.path / runs.WEIGHTS_FILE).write_bytes(b"weights")
    assert str(folder.path) in folder.abandon()
    assert (folder.path / runs.WEIGHTS_FILE).is_file()
    assert not (tmp_path / "mine").exists()


def test_parent_folders_are_made(tmp_path: Path) -> None:
    assert claim(tmp_path / "a" / "b" / "mine").publish().is_dir()


def test_an_empty_folder_may_become_the_run(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert claim(tmp_path / "mine").publish() == tmp_path / "mine"


def test_default_names_count_up() -> None:
    names = [claim().publish().as_posix() for _ in range(3)]
    assert names == [f"runs/classification-tiny-{n}" for n in (1, 2, 3)]


def test_a_number_that_another_run_works_under_is_not_taken_again() -> None:
    assert [claim().final.name for _ in range(2)] == ["classification-tiny-1", "classification-tiny-2"]


def test_a_number_that_became_free_is_taken_again() -> None:
    first = claim()
    claim()
    first.abandon()
    assert claim().final == first.final


def test_a_model_s_name_makes_no_folders_below() -> None:
    folder = runs.claim(None, task="classification", model="hf-hub:org/model v2")
    assert folder.final.as_posix() == "runs/classification-hf-hub-org-model-v2-1"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_place_in_use_is_refused(kind: str, tmp_path: Path) -> None:
    if kind == "folder":
        fill(tmp_path / "mine", notes_txt="keep me")
    else:
        (tmp_path / "mine").write_text("keep me")
    with pytest.raises(RunError, match="exists already; choose another --out"):
        claim(tmp_path / "mine")
    assert not (tmp_path / "mine.incomplete").exists()


def test_a_run_under_work_is_refused_and_left_alone(tmp_path: Path) -> None:
    first = claim(tmp_path / "mine")
    with pytest.raises(RunError, match=r"another run is at work in .*mine\.incomplete"):
        claim(tmp_path / "mine")
    assert first.path.is_dir()


def test_a_file_where_a_parent_folder_should_be_is_distinguished_from_a_run_under_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can't be made"):
        claim(tmp_path / "file" / "mine")


@pytest.mark.parametrize("out", [".", "/"])
def test_a_place_without_a_name_of_its_own_is_refused(out: str) -> None:
    with pytest.raises(RunError):
        claim(Path(out))


# Taken up again


SETTINGS: dict[str, Any] = {"task": "classification", "epochs": 7, "lr": 1e-3, "export": False, "planes": ["a", "b"]}
HOLDS_A_RUN = """
import pathlib, sys, time
from zooft.run import folder as runs
folder = runs.claim(pathlib.Path(sys.argv[1]), task="t", model="m", settings={"epochs": 7}, local={"data": "/d"})
print("working", flush=True)
time.sleep(900)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A run whose process was killed by -9 while it held it."""
    process = holding(tmp_path / "mine")
    process.send_signal(signal.SIGKILL)
    process.wait(300)
    return tmp_path / "mine"


def holding(run: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS_A_RUN, run], stdout=subprocess.PIPE, text=True, cwd=Path(runs.__file__).parents[2]
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.stdout.close()
    return process


def test_a_run_records_its_settings_from_its_first_moment(tmp_path: Path) -> None:
    folder = runs.claim(tmp_path / "mine", task="t", model="m", settings=SETTINGS, local={"data": "/somewhere"})
    assert runs.read_settings(folder.path) == {**SETTINGS, "data": "/somewhere"}
    assert tomllib.loads((folder.path / runs.SETTINGS_FILE).read_text()) == SETTINGS


def test_a_finished_run_does_not_say_where_things_lay(tmp_path: Path) -> None:
    folder = runs.claim(tmp_path / "mine", task="t", model="m", settings=SETTINGS, local={"data": "/somewhere"})
    assert [path.name for path in folder.publish().iterdir()] == [runs.SETTINGS_FILE]


def test_no_moment_has_a_run_s_folder_without_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    write = runs.write_text

    def looking(path: Path, text: str, **more: str) -> None:
        seen.append((tmp_path / "mine.incomplete").exists())
        write(path, text, **more)

    monkeypatch.setattr(runs, "write_text", looking)
    claim(tmp_path / "mine")
    assert seen == [False, False]


def test_what_a_kill_left_of_making_the_folder_does_no_harm(tmp_path: Path) -> None:
    fill(tmp_path / ".mine.incomplete.new", settings_toml="half")
    assert runs.read_settings(claim(tmp_path / "mine").path) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.lock", "mine.incomplete"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("name", ["mine", "mine.incomplete"])
def test_a_killed_run_is_resumed_by_either_of_its_names(name: str, killed: Path) -> None:
    folder = runs.reopen(killed.with_name(name))
    assert (folder.path, folder.final, folder.resumed) == (killed.with_name("mine.incomplete"), killed, True)
    assert folder.publish() == killed
    assert sorted(path.name for path in killed.parent.iterdir()) == [".latest", "mine"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_run_is_distinguished_from_a_live_one(tmp_path: Path) -> None:
    process = holding(tmp_path / "mine")
    try:
        with pytest.raises(RunError, match="another run is at work in"):
            runs.reopen(tmp_path / "mine")
        with pytest.raises(RunError, match="another run is at work in"):
            claim(tmp_path / "mine")
    finally:
        process.kill()
        process.wait()
    with pytest.raises(
        RunError, match=r"is an interrupted run; resume it with 'zooft finetune --resume .*mine\.incomplete'"
    ):
        claim(tmp_path / "mine")
    runs.reopen(tmp_path / "mine").publish()


def test_a_run_is_resumed_by_one_process_only(tmp_path: Path) -> None:
    claim(tmp_path / "mine").lock.release()  # type: ignore[union-attr]
    first = runs.reopen(tmp_path / "mine")
    with pytest.raises(RunError, match="another run is at work in"):
        runs.reopen(tmp_path / "mine")
    first.abandon()
    runs.reopen(tmp_path / "mine")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("missing", r"there is no run .*mine\.incomplete to resume"),
        ("finished", "is finished; there is nothing to resume"),
        ("no file", r"can't be resumed: it has no resume\.toml"),
        ("torn", r"can't be resumed: .*isn't TOML"),
        ("unknown", "isn't of schema 2, which this zooft .* reads; resume it with the zooft that wrote it"),
        ("other", r"isn't of schema 2, .*; resume it with zooft 7\.5, which wrote it"),
    ],
)
def test_what_can_not_be_resumed_is_refused(state: str, reason: str, tmp_path: Path) -> None:
    if state == "finished":
        fill(tmp_path / "mine", run_json="{}")
    elif state != "missing":
        fill(tmp_path / "mine.incomplete", **STATES[state])
    with pytest.raises(RunError, match=reason):
        runs.reopen(tmp_path / "mine")
    assert not (tmp_path / ".mine.lock").exists()


STATES = {
    "no file": {"model_safetensors": "weights"},
    "torn": {"resume_toml": "epochs = "},
    "unknown": {"resume_toml": "schema = 99\n"},
    "other": {"resume_toml": 'schema = 99\nzooft = "7.5"\n'},
}


def test_a_resumed_run_that_fails_stays(tmp_path: Path) -> None:
    claim(tmp_path / "mine").lock.release()  # type: ignore[union-attr]
    folder = runs.reopen(tmp_path / "mine")
    assert f"zooft finetune --resume {folder.path}" in folder.abandon()
    assert folder.path.is_dir()


def test_without_locks_on_the_file_system_a_run_is_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_to_lock(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr("filelock.BaseFileLock.acquire", refuse_to_lock)
    assert claim(tmp_path / "mine").publish().is_dir()


# The latest


def test_the_latest_is_the_one_finished_last_not_the_one_begun_last() -> None:
    first, second = claim(), claim()
    second.publish()
    first.publish()
    assert runs.latest() == first.final


def test_an_abandoned_run_does_not_become_the_latest() -> None:
    first, second = claim(), claim()
    first.publish()
    second.abandon()
    assert runs.latest() == first.final


def test_without_any_run_there_is_no_latest() -> None:
    with pytest.raises(RunError, match="no run was named"):
        runs.latest()


def test_a_latest_run_that_was_removed_is_not_a_run_folder() -> None:
    gone = claim().publish()
    shutil.rmtree(gone)
    with pytest.raises(RunError, match="isn't a run folder"):
        read_record(runs.latest())


# Writing


@dataclass(frozen=True)
class Record:
    """Something with fields."""

    path: Path
    values: tuple[float, ...]


def test_what_json_has_no_word_for_becomes_what_it_has(tmp_path: Path) -> None:
    record = Record(Path("a/b"), (1.5, math.nan, math.inf, -math.inf))
    runs.write_json(tmp_path / "file.json", {"record": record, 1: None, "on": True})
    text = (tmp_path / "file.json").read_text()
    assert json.loads(text, parse_constant=refuse) == {
        "record": {"path": "a/b", "values": [1.5, None, None, None]},
        "1": None,
        "on": True,
    }


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} isn't JSON")


def test_json_lines_are_a_line_for_each_value(tmp_path: Path) -> None:
    runs.write_json_lines(tmp_path / "metrics.jsonl", ({"loss": loss} for loss in (0.5, math.nan)))
    assert (tmp_path / "metrics.jsonl").read_text() == '{"loss": 0.5}\n{"loss": null}\n'


def test_numpy_s_numbers_are_numbers(tmp_path: Path) -> None:
    import numpy as np

    runs.write_json(tmp_path / "file.json", {"accuracy": np.float32(0.5), "count": np.int64(3)})
    assert json.loads((tmp_path / "file.json").read_text()) == {"accuracy": 0.5, "count": 3}


@pytest.mark.parametrize("fail", ["serialising", "replacing"])
def test_a_failed_write_leaves_the_file_as_it_was(fail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    runs.write_json(path, {"old": 1})
    with pytest.raises((TypeError, OSError)):
        FAILURES[fail](path, monkeypatch)
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def write_what_is_not_json(path: Path, _patch: pytest.MonkeyPatch) -> None:
    runs.write_json(path, {"new": object()})


def write_to_a_full_disk(path: Path, patch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    patch.setattr("os.fsync", full)
    runs.write_json(path, {"new": 1})


FAILURES: dict[str, Callable[[Path, Any], None]] = {
    "serialising": write_what_is_not_json,
    "replacing": write_to_a_full_disk,
}
