"""Masks, boxes and identities are learnt by two processes as by one, and what was interrupted ends as if it hadn't been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_data import REPOSITORY
from processes import free_port

import zooft
from zooft.pipeline import reporter
from zooft_ct import demo as ct_demo
from zooft_ct import phantom
from zooft_detection import demo as detection_demo
from zooft_retrieval import demo as retrieval_demo
from zooft_segmentation import demo as segmentation_demo

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")]

TASKS = ("segmentation", "detection", "retrieval", "ct-segmentation")
USUAL: dict[str, Any] = {
    "backbone": "timm:test_vit", "weights": "random", "freeze": "last:1", "epochs": 2, "batch_size": 8, "lr": 0.003, "bootstrap": 0, "workers": 0,
    "precision": "fp32", "audit": False, "export": False, "report": False, "device": "cpu",
}  # fmt: skip # a table of options
OWN: dict[str, dict[str, Any]] = {
    "segmentation": {"size": (64, 64), "head": "linear"},  # no dropout, which is random in each process
    "detection": {"size": (64, 64)},
    "retrieval": {},
    "ct-segmentation": {"size": (64, 64), "head": "linear", "mode": "slice", "hu_cache": "off"},
}
DRIVER = """
import json, os, sys, traceback
import torch
import zooft, zooft.pipeline.finetune, zooft.train.step

def work(arguments, rank, number, port):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number), LOCAL_WORLD_SIZE=str(number),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )
    try:
        result = zooft.finetune(**arguments)
        assert "val" in result.evaluations
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)

torch.set_num_threads(1)
jobs, number = json.loads(sys.argv[1]), int(sys.argv[2])
for arguments, port in jobs:
    children = []
    for rank in range(number):
        child = os.fork()
        if not child:
            work(arguments, rank, number, port)
        children.append(child)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    if failed:
        sys.exit(f"{len(failed)} processes failed on {arguments['task']}")
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    made = {task: folder / task for task in TASKS}
    for path in made.values():
        path.mkdir()
    segmentation_demo.shapes(made["segmentation"], 0)
    detection_demo.shapes(made["detection"], 0)
    retrieval_demo.patterns(made["retrieval"], 0)
    size = phantom.Size(pixels=64, slices=6)
    ct_demo.generate(made["ct-segmentation"], patients=4, test_patients=2, seed=0, size=size, masks=True)
    return made


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("key") / "key"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch, key: Path) -> None:
    monkeypatch.setenv("ZOOFT_KEY_FILE", str(key))


def arguments(task: str, data: dict[str, Path], out: Path) -> dict[str, Any]:
    return {**USUAL, **OWN[task], "task": task, "data": str(data[task]), "out": str(out)}


def learn(jobs: list[dict[str, Any]], key: Path, *, processes: int) -> None:
    given = json.dumps([(job, free_port()) for job in jobs])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, given, str(processes)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ZOOFT_KEY_FILE": str(key)},
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.fixture(scope="module")
def runs(data: dict[str, Path], key: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = {processes: folder / str(processes) for processes in (1, 2)}
    for processes, out in made.items():
        learn([arguments(task, data, out / task) for task in TASKS], key, processes=processes)
    return made


def epochs(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def figures(epoch: dict[str, Any]) -> list[float]:
    """All metrics; NaN where one isn't defined."""
    return [np.nan if value is None else value for _, value in sorted(epoch["metrics"].items())]


@pytest.mark.parametrize("task", TASKS)
def test_two_processes_learn_what_one_learns(task: str, runs: dict[int, Path]) -> None:
    alone, together = (epochs(folder / task) for folder in runs.values())
    # the head of retrieval follows the mean of its own process's features, as BatchNorm does
    limit = 0.02 if task == "retrieval" else 1e-4
    for one, other in zip(alone, together, strict=True):
        for name in ("train_loss", "val_loss"):
            assert other[name] == pytest.approx(one[name], rel=limit), name
        np.testing.assert_allclose(figures(other), figures(one), atol=0.02)


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_an_interrupted_run_ends_as_an_unbroken_one(
    task: str, runs: dict[int, Path], data: dict[str, Path], tmp_path: Path
) -> None:
    class Stops(reporter.SilentReporter):
        def epoch(self, record: Any, epochs: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zooft.finetune(reporter=Stops(), **arguments(task, data, tmp_path / "run"))
    (left,) = tmp_path.iterdir()
    resumed = epochs(zooft.finetune(resume=left).path)
    for one, other in zip(epochs(runs[1] / task), resumed, strict=True):
        assert (other["train_loss"], other["val_loss"]) == pytest.approx((one["train_loss"], one["val_loss"]), rel=1e-5)
        np.testing.assert_allclose(figures(other), figures(one), atol=1e-6)
