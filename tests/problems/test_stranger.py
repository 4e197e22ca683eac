"""A stranger's problem and a task of it, by public names only: installed, and run from the command line to the report."""

from __future__ import annotations

import ast
import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from sklearn.metrics import mean_absolute_error, mean_poisson_deviance

import zooft
from zooft import testing

PACKAGE = Path(__file__).parent / "stranger"
DOCS = Path(__file__).parents[2] / "docs" / "plugins.md"
SOURCE = PACKAGE / "zooft_tally.py"


@dataclass(frozen=True)
class Machine:
    """Where the package is installed, and its demo's pictures."""

    site: Path
    data: Path
    work: Path

    def zooft(self, *arguments: str | Path) -> str:
        """Run the command there, which must succeed: what it prints."""
        path = os.pathsep.join([str(self.site), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "default", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "zooft", *map(str, arguments)]
        done = subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str | Path) -> Any:
        """The same as JSON."""
        return json.loads(self.zooft(*arguments, "--json"))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("machine")
    made = Machine(site=folder / "site", data=folder / "dots", work=folder / "work")
    made.work.mkdir()
    shutil.copytree(PACKAGE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
        "--target",
        str(made.site),
        str(folder / "source"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made.zooft("demo", "tally", made.data)
    return made


@pytest.fixture(scope="module")
def run(machine: Machine) -> Any:
    return machine.json(
        "finetune",
        "--backbone",
        "timm:tf_efficientnet_lite0",
        "--freeze",
        "backbone",
        "--task",
        "tally",
        "--data",
        machine.data,
        "--epochs",
        "4",
        "--lr",
        "0.01",
        "--bootstrap",
        "20",
        "--out",
        "run",
    )


@pytest.fixture
def tally(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(PACKAGE)
    monkeypatch.delitem(sys.modules, SOURCE.stem, raising=False)
    import zooft_tally

    return zooft_tally


def test_problem_and_task_take_150_lines_at_most() -> None:
    assert len(SOURCE.read_text().splitlines()) <= 150


def test_the_docs_have_the_same_problem_in_100_lines_and_it_works(tally: ModuleType) -> None:
    """Run as it stands there, with nothing else around it."""
    text = DOCS.read_text(encoding="utf-8").partition("\n## A problem of your own\n")[2]
    block = text.partition("```python\n")[2].partition("```")[0]
    assert len(block.splitlines()) <= 100
    assert SOURCE.read_text().startswith(block)
    written: dict[str, Any] = {}
    exec(compile(block, "<docs/plugins.md>", "exec"), written)  # noqa: S102 -- our own documentation
    (task,) = tally.zooft_register_tasks()
    testing.check_problem(replace(task, problem=written["counting"]), (zooft.Label(name="bees"),), [0, 1, 2, 5, 9, 14])


def test_it_uses_nothing_but_public_names_and_imports_nothing_heavy_at_the_top() -> None:
    tree = ast.parse(SOURCE.read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "zooft"
    }
    assert used <= set(zooft.__all__)
    imports = [ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert imports == ["import io", "import zooft"]


def test_it_passes_the_conformance_kit(tally: ModuleType, machine: Machine, tmp_path: Path) -> None:
    (task,) = tally.zooft_register_tasks()
    testing.check_task(task, machine.data)
    testing.check_plugin(tally, folder=tmp_path)
    testing.check_problem(task, (zooft.Label(name="bees"),), [0, 1, 2, 5, 9, 14])


def test_its_figures_are_scikit_learn_s(tally: ModuleType) -> None:
    rng = np.random.default_rng(0)
    true, logs = [0, 0, 3, 7, 1, 12], rng.normal(size=(6, 1)).astype(np.float32)
    part, labels = tally.counting.evaluation, (zooft.Label(name="dots"),)
    columns = part.columns({"log_rate": logs}, true, labels)
    found = part.metrics(zooft.Predictions(samples=(), columns=columns), labels)
    rates = np.exp(logs[:, 0].astype(np.float64))
    assert found["deviance"] == pytest.approx(mean_poisson_deviance(true, rates), rel=1e-5)
    assert found["mae"] == pytest.approx(mean_absolute_error(true, rates), rel=1e-5)


def test_the_whole_chain_ends_with_a_verified_file_and_a_report(machine: Machine, run: Any) -> None:
    assert run["verification"]["passed"]
    assert run["verification"]["data"] == "real"
    record = json.loads((machine.work / run["path"] / "run.json").read_text())
    assert record["task"] == "tally/tally"
    page = (machine.work / run["path"] / "report.html").read_text(encoding="utf-8")
    assert "Rounded predictions" in page
    assert "Counted and predicted" in page


@pytest.mark.slow
def test_run_and_file_have_the_same_figures(machine: Machine, run: Any) -> None:
    found = [machine.json("evaluate", machine.work / run[key], "--bootstrap", "0") for key in ("path", "onnx")]
    values = [one["metrics"]["deviance"]["value"] for one in found]
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    assert "deviance" in found[0]["smaller"]


def test_predict_writes_what_the_file_gives(machine: Machine, run: Any) -> None:
    printed = machine.zooft("predict", machine.work / run["onnx"], machine.data, "--format", "csv")
    rows = list(csv.DictReader(printed.splitlines()))
    names = sorted(path.name for path in machine.data.glob("*.png"))
    assert len(rows) == len(names)
    session = onnxruntime.InferenceSession(machine.work / run["onnx"])
    with Image.open(machine.data / names[5]) as image:
        array = np.array(image.convert("RGB"))[None]
    (rate,) = session.run(["rate"], {session.get_inputs()[0].name: array})[0]
    (row,) = [row for row in rows if any(str(cell).endswith(names[5]) for cell in row.values())]
    assert float(row["count"]) == pytest.approx(float(rate), rel=1e-4)


@pytest.mark.slow
def test_a_finished_run_goes_on_for_another_epoch(machine: Machine, run: Any) -> None:
    longer = machine.json("finetune", "--resume", machine.work / run["path"], "--epochs", "5")
    curve = (machine.work / longer["path"] / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in curve] == [1, 2, 3, 4, 5]
