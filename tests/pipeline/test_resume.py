"""A resumed run ends as an unbroken one: killed while it writes, and at random moments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from example_data import REPOSITORY, save, write_classes
from safetensors.torch import load_file

import zooft
from zooft.errors import ConfigError, DataError, RunError, WeightsError
from zooft.run.record import read_record

needs_kill = pytest.mark.skipif(os.name == "nt", reason="Windows has neither fork nor SIGKILL")

USUAL: dict[str, Any] = {
    "backbone": "timm:test_resnet", "weights": "random", "task": "classification", "epochs": 4, "batch_size": 8,
    "audit": False, "export": False, "bootstrap": 0, "workers": 0, "lr": 0.01,
}  # fmt: skip # a table of options
WAYS: dict[str, dict[str, Any]] = {
    "head, chosen by validation": {"sweep": True, "batch_size": 16},
    "all, augmented": {"freeze": "none", "augment": "light"},
    "gradual": {"freeze": "gradual:1", "optimizer": "sgd"},
    "folds": {"folds": 2, "epochs": 2},
}
DRIVER = """
import json, os, pathlib, signal, sys, threading
import torch
import zooft, zooft.errors, zooft.pipeline.finetune, zooft.run.checkpoint

torch.set_num_threads(1)
zooft.pipeline.finetune._report = lambda *_: None  # takes longer than all else, and is written once
SHARE = zooft.run.checkpoint.SHARE
calls = 0

def counted(function, last):
    def call(*given, **named):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given, **named)
    return call

def tamper(call=None, after=None, every=True):
    zooft.run.checkpoint.SHARE = 1e9 if every else SHARE  # whether every epoch is saved
    for name in ("fsync", "rename", "replace", "link", "unlink", "mkdir", "rmdir"):
        setattr(os, name, counted(getattr(os, name), call))
    if after is not None:
        timer = threading.Timer(after, lambda: os.kill(os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()

def attempt(arguments, **death):
    # in a process of its own: begun or taken up; the calls that it made, or None where it was killed
    run = pathlib.Path(arguments["out"])
    begun = run.with_name(run.name + ".incomplete").exists() or run.exists()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            tamper(**death)
            zooft.finetune(**({"resume": run} if begun else arguments))
            status = 0
        except zooft.errors.RunError as error:
            status = 0 if "is finished" in str(error) else 1
            print(error, file=sys.stderr)
        except BaseException:
            import traceback
            traceback.print_exc()
        os.write(writing, str(calls).encode())
        os._exit(status)
    os.close(writing)
    status = os.waitpid(child, 0)[1]
    said = os.read(reading, 100)
    os.close(reading)
    if os.WIFSIGNALED(status):
        return None
    assert os.WEXITSTATUS(status) == 0, (arguments, death)
    return int(said)

jobs = json.loads(sys.argv[1])
zooft.finetune(**jobs[0]["arguments"], out=jobs[0]["folder"] + "/warm-up")  # loads what children would load each
for job in jobs:
    arguments, folder = job["arguments"], job["folder"]
    total = attempt({**arguments, "out": folder + "/unbroken"})
    if job["each call"]:
        for call in range(1, total + 1):
            one = {**arguments, "out": f"{folder}/killed-{call}"}
            assert attempt(one, call=call) is None
            attempt(one)
    else:
        one = {**arguments, "out": folder + "/killed-0"}
        for death in job["deaths"]:
            if "part" in death:
                death = {"call": int(total * death["part"])}
            if attempt(one, **death) is not None:
                break
        attempt(one)
"""


@dataclass(frozen=True)
class Outcome:
    """What a run leaves that doesn't depend on time or place."""

    files: list[str]
    epochs: list[dict[str, Any]]
    predictions: list[str]
    tensors: Mapping[str, torch.Tensor]
    last: Mapping[str, torch.Tensor]
    trials: Any


def outcome(run: Path) -> Outcome:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return Outcome(
        files=sorted(path.relative_to(run).as_posix() for path in run.rglob("*")),
        epochs=[{**line, "seconds": 0} for line in lines],
        predictions=(run / "predictions.csv").read_text().splitlines(),
        tensors=load_file(run / "model.safetensors"),
        last=load_file(run / "last" / "model.safetensors"),
        trials=read_record(run).trials,
    )


def assert_same(given: Outcome, expected: Outcome) -> None:
    assert replace(given, tensors={}, last={}) == replace(expected, tensors={}, last={})
    for one, other in ((given.tensors, expected.tensors), (given.last, expected.last)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in other)


def assert_all_as_unbroken(folder: Path) -> None:
    expected = outcome(folder / "unbroken")
    killed = sorted(path for path in folder.glob("killed-*"))
    assert killed
    for run in killed:
        assert_same(outcome(run), expected)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("data"), {"dark": 14, "light": 13})


def drive(jobs: list[dict[str, Any]]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(jobs)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def job(way: str, data: Path, folder: Path, *, each: bool = False, deaths: list[dict[str, Any]]) -> dict[str, Any]:
    """A run that nobody kills, and one that dies `deaths` times or once at each call that writes."""
    arguments = {**USUAL, **WAYS[way], "data": str(data)}
    return {"arguments": arguments, "folder": str(folder), "each call": each, "deaths": deaths}


@pytest.fixture(scope="module")
def killed_while_writing(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each way with some of the calls that write the last of a process; all in one Python, whose start is the cost."""
    folders = {way: tmp_path_factory.mktemp("killed") for way in WAYS}
    deaths = [{"part": part} for part in (0.15, 0.4, 0.5, 0.6, 0.9)]
    drive([job(way, data, folder, deaths=deaths) for way, folder in folders.items()])
    return folders


@needs_kill
@pytest.mark.parametrize("way", WAYS)
def test_killed_while_writing_a_run_goes_on_to_the_same_end(way: str, killed_while_writing: dict[str, Path]) -> None:
    assert_all_as_unbroken(killed_while_writing[way])


@pytest.mark.slow
@pytest.mark.timeout(3000)
@needs_kill
@pytest.mark.parametrize("way", WAYS)
def test_killed_at_any_call_that_writes_a_run_goes_on_to_the_same_end(way: str, data: Path, tmp_path: Path) -> None:
    drive([job(way, data, tmp_path, each=True, deaths=[])])
    assert_all_as_unbroken(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@needs_kill
@pytest.mark.parametrize("way", WAYS)
def test_killed_at_twenty_random_moments_a_run_goes_on_to_the_same_end(way: str, data: Path, tmp_path: Path) -> None:
    import numpy as np

    moments = np.random.default_rng(0).uniform(0.02, 1.0, 20)
    deaths = [{"after": float(after), "every": index % 2 == 0} for index, after in enumerate(moments)]
    drive([job(way, data, tmp_path, deaths=deaths)])
    assert_all_as_unbroken(tmp_path)


# What is resumed, and what is refused


class Impatient:
    """A listener that interrupts after some epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.notes, self.seen = epochs, list[str](), list[int]()

    def step(self, title: str) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)

    def list_rejected(self, rejected: Any) -> None:
        pass

    def computing(self, title: str, total: int) -> Any:
        return lambda _done: None

    def epoch(self, record: zooft.EpochRecord, epochs: int) -> None:
        self.seen.append(record.epoch)
        if record.epoch == self.epochs:
            raise KeyboardInterrupt


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """A run that was interrupted after its second epoch; its data lies beside it."""
    write_classes(tmp_path / "data", {"dark": 9, "light": 8})
    with pytest.raises(KeyboardInterrupt) as caught:
        zooft.finetune(**USUAL, data=tmp_path / "data", out=tmp_path / "run", reporter=Impatient(2))
    assert f"zooft finetune --resume {tmp_path / 'run.incomplete'}" in "".join(caught.value.__notes__)
    return tmp_path / "run"


def left(run: Path) -> dict[str, bytes]:
    working = run.with_name("run.incomplete")
    return {str(path.relative_to(working)): path.read_bytes() for path in working.rglob("*") if path.is_file()}


def test_an_interrupted_run_goes_on_from_its_own_options(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = Impatient(0)
    monkeypatch.chdir(interrupted.parent.parent)  # its paths hold from anywhere
    result = zooft.finetune(resume=interrupted, reporter=patient)
    assert result.path == interrupted
    assert patient.seen == [1, 2, 3, 4], "those of before are told again"
    assert "of 4 epochs were finished before" in " ".join(patient.notes)
    assert read_record(interrupted).resumed == 1
    assert not any(str(interrupted.parent) in text for text in (interrupted / "settings.toml").read_text().splitlines())
    assert sorted(path.name for path in interrupted.parent.iterdir()) == [".latest", "data", "run"]


def test_options_of_its_own_are_refused_by_name_and_those_of_the_machine_taken(interrupted: Path) -> None:
    before = left(interrupted)
    with pytest.raises(ConfigError, match=r"and --epochs, --backbone-lr can't be given with it") as caught:
        zooft.finetune(resume=interrupted, epochs=9, backbone_lr=1.0, workers=0)
    assert "--data, --device, --provider, --workers may be given" in str(caught.value)
    assert left(interrupted) == before
    zooft.finetune(resume=interrupted, workers=0, device="cpu", data=interrupted.parent / "data", provider="cpu")


def test_where_private_data_lies_is_not_recorded_and_must_be_given(interrupted: Path) -> None:
    path = interrupted.with_name("run.incomplete") / "resume.toml"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith("data =")))
    with pytest.raises(ConfigError, match=r"doesn't record where things lie.*--data"):
        zooft.finetune(resume=interrupted)
    assert zooft.finetune(resume=interrupted, data=interrupted.parent / "data").path == interrupted


def test_a_private_task_leaves_no_path_in_the_folder(interrupted: Path) -> None:
    from zooft.hooks import registry
    from zooft.pipeline import plan, resume

    requested = plan.resolve(registry.load(), {**USUAL, "data": interrupted.parent / "data"})
    messages = resume.local_settings(replace(requested, task=replace(requested.task, private=True)))
    assert "data" not in messages
    assert resume.local_settings(requested)["data"] == str((interrupted.parent / "data").resolve())


@pytest.mark.parametrize("change", ["missing", "added", "other label"])
def test_other_samples_are_refused_and_the_run_left_alone(change: str, interrupted: Path) -> None:
    before = left(interrupted)
    data = interrupted.parent / "data"
    if change == "missing":
        (data / "dark" / "03.png").unlink()
    elif change == "added":
        save(data / "dark" / "new.png", 40, seed=99)
    else:
        (data / "dark" / "03.png").rename(data / "light" / "03b.png")
    with pytest.raises(DataError, match=r"the data has changed since the run was started: it had 17 samples"):
        zooft.finetune(resume=interrupted)
    assert left(interrupted) == before


def test_other_content_under_the_same_names_is_refused(interrupted: Path) -> None:
    save(interrupted.parent / "data" / "dark" / "03.png", 200, seed=99)
    with pytest.raises(DataError, match="files of the data have changed since the run finished epoch"):
        zooft.finetune(resume=interrupted)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    data, weights = write_classes(tmp_path / "data", {"dark": 9, "light": 8}), tmp_path / "weights.safetensors"
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(timm.create_model("test_resnet").state_dict(), weights)
        if seed == 0:
            messages = {**USUAL, "weights": str(weights)}
            with pytest.raises(KeyboardInterrupt):
                zooft.finetune(**messages, data=data, out=tmp_path / "run", reporter=Impatient(2))
    with pytest.raises(
        WeightsError, match=r"weights have changed since the run was started: they were weights\.safetensors"
    ):
        zooft.finetune(resume=tmp_path / "run")


def test_a_run_of_a_version_with_other_stages_is_refused_by_their_names(interrupted: Path) -> None:
    path = interrupted.with_name("run.incomplete") / "run.json"
    record = json.loads(path.read_text())
    record["backbone"]["stages"] = ["features", "pool"]
    path.write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"had the stages features, pool; here they are stem, layer1, .*another --out"):
        zooft.finetune(resume=interrupted)


def test_a_finished_run_and_one_that_is_not_there_are_refused(interrupted: Path) -> None:
    zooft.finetune(resume=interrupted)
    with pytest.raises(RunError, match="is finished; there is nothing to resume"):
        zooft.finetune(resume=interrupted)
    with pytest.raises(RunError, match="there is no run"):
        zooft.finetune(resume=interrupted.with_name("other"))


def test_a_state_that_was_damaged_is_reported_and_the_run_begins_again(interrupted: Path) -> None:
    last = interrupted.with_name("run.incomplete") / "last"
    (last / "optimizer.safetensors").write_bytes(b"torn")
    patient = Impatient(0)
    zooft.finetune(resume=interrupted, reporter=patient)
    assert any("last can't be used: optimizer.safetensors isn't what was written" in note for note in patient.notes)
    assert patient.seen == [1, 2, 3, 4]
    assert [line["epoch"] for line in outcome(interrupted).epochs] == [1, 2, 3, 4]


# More epochs for a finished run


def long(data: Path, out: Path, **changes: Any) -> Path:
    return zooft.finetune(**{**USUAL, "schedule": "constant", "warmup": 0.0, **changes}, data=data, out=out).path


@pytest.mark.parametrize("changes", [
    {}, {"freeze": "none", "augment": "light"}, {"optimizer": "sgd"}, {"schedule": "step", "step_epochs": 1}, {"folds": 2},
], ids=str)  # fmt: skip # a table of cases
def test_a_finished_run_goes_on_to_the_end_of_one_that_was_as_long_from_the_start(
    changes: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    short = long(data, tmp_path / "short", **changes, epochs=2)
    before = {path: path.read_bytes() for path in short.rglob("*") if path.is_file()}
    longer = zooft.finetune(resume=short, epochs=4, out=tmp_path / "longer").path
    assert {path: path.read_bytes() for path in short.rglob("*") if path.is_file()} == before
    expected = outcome(long(data, tmp_path / "whole", **changes, epochs=4))
    given = outcome(longer)
    if "folds" in changes:  # without validation the last epoch of either run is saved
        given.epochs[1]["best"] = False
    assert_same(given, expected)
    assert read_record(longer).ended_at == (2,)
    assert read_record(longer).config["epochs"] == 4


def test_a_longer_run_says_what_the_schedule_makes_of_it(data: Path, tmp_path: Path) -> None:
    patient = Impatient(0)
    long(data, tmp_path / "short", schedule="cosine", epochs=2)
    zooft.finetune(resume=tmp_path / "short", epochs=4, out=tmp_path / "longer", reporter=patient)
    messages = " ".join(patient.notes)
    assert "2 of 4 epochs were finished before" in messages
    # half of the way down a cosine: torch's own schedule would give the same rate
    assert "come to 0 by epoch 2, continues at 0.005 and comes to" in messages
    first = outcome(tmp_path / "longer").epochs[2]["learning_rate"]
    assert 0 < first < 0.005


def test_stages_that_learn_only_in_the_longer_run_begin_without_a_memory(data: Path, tmp_path: Path) -> None:
    patient = Impatient(0)
    long(data, tmp_path / "short", freeze="gradual:1", epochs=1)
    zooft.finetune(resume=tmp_path / "short", epochs=3, out=tmp_path / "longer", reporter=patient)
    assert any("begins without a memory" in note for note in patient.notes)
    assert [line["epoch"] for line in outcome(tmp_path / "longer").epochs] == [1, 2, 3]


def test_a_longer_run_that_is_killed_goes_on_too(data: Path, tmp_path: Path) -> None:
    short = long(data, tmp_path / "short", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        zooft.finetune(resume=short, epochs=4, out=tmp_path / "longer", reporter=Impatient(3))
    zooft.finetune(resume=tmp_path / "longer")
    assert_same(outcome(tmp_path / "longer"), outcome(long(data, tmp_path / "whole", epochs=4)))
    assert read_record(tmp_path / "longer").ended_at == (2,)


def test_what_makes_a_finished_run_no_longer_is_refused_by_its_reason(data: Path, tmp_path: Path) -> None:
    short = long(data, tmp_path / "short", epochs=2)
    with pytest.raises(ConfigError, match="has 2 epochs already; give --epochs the number of all, more than 2"):
        zooft.finetune(resume=short, epochs=2)
    with pytest.raises(ConfigError, match=r"and --lr can't be given with it"):
        zooft.finetune(resume=short, epochs=4, lr=0.1)
    with pytest.raises(RunError, match="with --epochs MORE a new run continues"):
        zooft.finetune(resume=short)
    for path in (short / "last").iterdir():
        path.unlink()
    (short / "last").rmdir()
    with pytest.raises(RunError, match="train anew with the larger --epochs"):
        zooft.finetune(resume=short, epochs=4)
