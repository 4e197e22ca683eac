"""Several processes over gloo fine-tune as one does, and what happens where one of them dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_data import REPOSITORY, write_classes
from processes import free_port
from safetensors.numpy import load_file

from zooft.run.record import read_record

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")

USUAL: dict[str, Any] = {
    "backbone": "timm:test_vit", "weights": "random", "task": "classification", "epochs": 3, "batch_size": 8, "lr": 0.01,
    "audit": False, "export": False, "bootstrap": 0, "workers": 0, "val_fraction": 0.4, "precision": "fp32",
}  # fmt: skip # a table of options
WAYS: dict[str, dict[str, Any]] = {
    "head": {"backbone": "timm:test_resnet"},
    "head, chosen by validation": {"backbone": "timm:test_resnet", "sweep": True, "batch_size": 16},
    "last stage, weighted classes": {"freeze": "last:1", "class_weights": "balanced"},
    "gradual, sgd": {"freeze": "gradual:1", "optimizer": "sgd"},
    "norms, BatchNorm": {"freeze": "norm", "backbone": "timm:test_resnet"},
    "augmented, nothing kept": {"freeze": "last:1", "augment": "light", "cache": False},
    "folds": {"folds": 2, "epochs": 2},
}
# 29 samples: 18 to learn from, in batches of 8, 8 and 2, of which a third process gets nothing, and 11 to validate on
PROCESSES = {way: 3 if "weighted" in way or "folds" in way else 2 for way in WAYS}
DRIVER = """
import json, os, pathlib, signal, sys
import torch
from accelerate.state import AcceleratorState
import zooft, zooft.compute.launcher, zooft.pipeline.finetune, zooft.train.step

torch.set_num_threads(1)
zooft.pipeline.finetune._report = lambda *_: None

def dies_in(epoch):
    run = zooft.train.step.run
    def until(*given, **named):
        if named["epoch"] == epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        return run(*given, **named)
    zooft.train.step.run = until

def work(arguments, rank, number, port, death):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number), LOCAL_WORLD_SIZE=str(number),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )
    if death and death["rank"] == rank:
        dies_in(death["epoch"])
    try:
        result = zooft.finetune(**arguments)
        return {"path": str(result.path), "best": result.best_epoch, "metrics": {
            split: {name: value.value for name, value in part.metrics.items()} for split, part in result.evaluations.items()
        }}
    except zooft.ZooftError as error:
        return {"error": type(error).__name__, "said": str(error), "notes": getattr(error, "__notes__", []),
                "told by main": zooft.compute.launcher.is_reported_by_main(error)}

def group(job):
    children = []
    for rank in range(job["processes"]):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            said = {"defect": None}
            AcceleratorState._reset_state(reset_partial_state=True)  # as the warm-up has left it
            try:
                said = work(job["arguments"], rank, job["processes"], job["port"], job.get("death"))
            except BaseException as error:
                said = {"defect": repr(error)}
            os.write(writing, json.dumps(said).encode())
            os._exit(0)
        os.close(writing)
        children.append((child, reading))
    for child, reading in children:
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        os.waitpid(child, 0)
        yield json.loads(text) if text else None

jobs = json.loads(sys.argv[1])
warm = dict(jobs[0]["arguments"])
warm.pop("resume", None)
zooft.finetune(**{**warm, "out": warm["out"] + "-warm-up"})
print(json.dumps([list(group(job)) for job in jobs]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("data"), {"dark": 17, "light": 12})


def drive(jobs: list[dict[str, Any]]) -> list[list[Any]]:
    """Groups of processes one after the other, from one Python; each process's result, None where it was killed."""
    for job in jobs:
        job["port"] = free_port()
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(jobs, default=str)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said: list[list[Any]] = json.loads(done.stdout.splitlines()[-1])
    defects = [one for group in said for one in group if one is not None and "defect" in one]
    assert not defects, (defects, done.stderr)
    return said


@dataclass(frozen=True)
class Trial:
    """A way to fine-tune, by one process and by several."""

    alone: Path
    together: Path
    said: list[Any]


@pytest.fixture(scope="module")
def trials(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trial]:
    folder = tmp_path_factory.mktemp("trials")
    jobs = []
    for index, (way, own) in enumerate(WAYS.items()):
        for name, processes in (("alone", 1), ("together", PROCESSES[way])):
            arguments = {**USUAL, **own, "data": data, "out": folder / f"{index}-{name}"}
            jobs.append({"arguments": arguments, "processes": processes})
    said = drive(jobs)
    return {
        way: Trial(folder / f"{index}-alone", folder / f"{index}-together", said[2 * index + 1])
        for index, way in enumerate(WAYS)
    }


def curve(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_curves(one: Path, other: Path) -> None:
    for mine, theirs in zip(curve(one), curve(other), strict=True):
        for key in ("train_loss", "val_loss", "learning_rate"):
            assert mine[key] == (pytest.approx(theirs[key], rel=1e-3) if theirs[key] is not None else None), key
        assert mine["metrics"] == pytest.approx(theirs["metrics"], rel=1e-3)
        assert (mine["learning"], mine["best"]) == (theirs["learning"], theirs["best"])


@pytest.mark.parametrize("way", WAYS)
def test_several_processes_learn_what_one_learns(way: str, trials: dict[str, Trial]) -> None:
    trial = trials[way]
    assert_same_curves(trial.together, trial.alone)
    one, other = (load_file(run / "model.safetensors") for run in (trial.alone, trial.together))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("way", WAYS)
def test_every_sample_is_evaluated_once_in_the_same_order(way: str, trials: dict[str, Trial]) -> None:
    rows = [
        [line.split(",") for line in (run / "predictions.csv").read_text().splitlines()]
        for run in (trials[way].alone, trials[way].together)
    ]
    assert [row[:5] for row in rows[0]] == [row[:5] for row in rows[1]]
    assert len({row[0] for row in rows[0]}) == len(rows[0])


@pytest.mark.parametrize("way", WAYS)
def test_every_process_is_given_the_result(way: str, trials: dict[str, Trial]) -> None:
    said = trials[way].said
    assert len(said) == PROCESSES[way]
    assert all(one == said[0] for one in said)
    assert said[0]["path"] == str(trials[way].together)


def test_only_one_process_writes(trials: dict[str, Trial]) -> None:
    for trial in trials.values():
        assert {p.relative_to(trial.alone) for p in trial.alone.rglob("*")} == {
            p.relative_to(trial.together) for p in trial.together.rglob("*")
        }
        assert len(curve(trial.together)) == len(curve(trial.alone))


@pytest.fixture(scope="module")
def deaths(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[Any]]]:
    """Runs of which a process is killed in its third epoch, resumed by other numbers of processes."""
    folder = tmp_path_factory.mktemp("deaths")
    own = {**USUAL, "freeze": "last:1", "epochs": 4, "data": data}
    jobs = [{"arguments": {**own, "out": folder / "unbroken"}, "processes": 1}]
    for name, rank, after in (("second", 1, 1), ("first", 0, 3)):
        run = folder / name
        jobs.append({"arguments": {**own, "out": run}, "processes": 2, "death": {"rank": rank, "epoch": 2}})
        jobs.append({"arguments": {"resume": run}, "processes": after})
    refused = {**own, "out": folder / "refused", "freeze": "nonsense"}
    jobs.append({"arguments": refused, "processes": 2})
    return folder, drive(jobs)


def test_a_process_that_dies_ends_the_other_which_says_who_it_is_and_what_to_do_next(
    deaths: tuple[Path, list[list[Any]]],
) -> None:
    folder, said = deaths
    (second_died, first_died) = said[1], said[3]
    assert second_died[1] is None
    assert second_died[0]["error"] == "TrainingError"
    assert second_died[0]["said"].startswith("process 0 of 2 has lost another process of the run: ")
    assert any(f"--resume {folder / 'second.incomplete'}" in note for note in second_died[0]["notes"])
    assert first_died[0] is None
    assert first_died[1]["said"].startswith("process 1 of 2 has lost another process of the run: ")
    assert "--resume" in first_died[1]["said"]


@pytest.mark.parametrize("name", ["second", "first"])
def test_another_number_of_processes_goes_on_to_the_end_of_an_unbroken_run(
    name: str, deaths: tuple[Path, list[list[Any]]]
) -> None:
    folder, _ = deaths
    assert_same_curves(folder / name, folder / "unbroken")
    assert read_record(folder / name).resumed == 1


@pytest.fixture(scope="module")
def taught(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Runs with a teacher, by one process and by two, each with a store of its own."""
    folder = tmp_path_factory.mktemp("taught")
    jobs = [{"arguments": {**USUAL, "lr": 0.05, "data": data, "out": folder / "teacher"}, "processes": 1}]
    own = {"data": data, "distill": folder / "teacher", "freeze": "last:1", "augment": "light", "views": 2}
    ways = {
        "cached": {"distill_features": 0.5, "class_weights": "balanced"},
        "in memory": {"cache": False, "distill_weight": 0.9},
    }
    for way, more in ways.items():
        for processes in (1, 2):
            arguments = {**USUAL, **own, **more, "out": folder / f"{way}-{processes}"}
            jobs.append({"arguments": arguments, "processes": processes})
    drive(jobs)
    return {way: (folder / f"{way}-1", folder / f"{way}-2") for way in ways}


@pytest.mark.parametrize("way", ["cached", "in memory"])
def test_several_processes_learn_from_a_teacher_what_one_learns(way: str, taught: dict[str, tuple[Path, Path]]) -> None:
    alone, together = taught[way]
    assert_same_curves(together, alone)
    one, other = (load_file(run / "model.safetensors") for run in (alone, together))
    for name in one:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_what_all_could_say_one_says(deaths: tuple[Path, list[list[Any]]]) -> None:
    refused = deaths[1][-1]
    assert [one["error"] for one in refused] == ["UnknownNameError"] * 2
    assert [one["told by main"] for one in refused] == [False, True]


COMMAND = ["finetune", *(f"--{n.replace('_', '-')}={v}" for n, v in USUAL.items() if not isinstance(v, bool))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["torch.distributed.run", "--standalone", "--nproc-per-node=2"],
        ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no"],
    ],
    ids=["torchrun", "accelerate"],
)
def test_launchers_run_the_command_as_it_is(launcher: list[str], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            *launcher,
            "-m",
            "zooft",
            *COMMAND,
            "--no-audit",
            "--no-export",
            "--data",
            data,
            "--out",
            out,
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report:") == 1
    assert done.stderr.count("training on 2 processes, cpu") == 1
    assert done.stderr.count("epoch 3/3") == 1
    assert (out / "run.json").is_file()
