"""A stranger's package, installed from its own pyproject and run from the command line to a verified file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zooft
from zooft import testing
from zooft.hooks import registry
from zooft.hooks.loading import discover

PACKAGE = Path(__file__).parent / "third_party"
SOURCE = PACKAGE / "zooft_lantern.py"


@dataclass(frozen=True)
class Machine:
    """Where the package is installed, and some pictures."""

    site: Path
    data: Path
    work: Path

    def zooft(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the command there."""
        path = os.pathsep.join([str(self.site), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "default", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "zooft", *map(str, arguments)]
        return subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True, check=False)

    def json(self, *arguments: str | Path) -> Any:
        """Run the command, which must succeed, and read what it prints."""
        done = self.zooft(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("machine")
    made = Machine(site=folder / "site", data=folder / "pictures", work=folder / "work")
    made.work.mkdir()
    draw_pictures(made.data)
    install(folder / "source", made.site)
    return made


@pytest.fixture(scope="module")
def run(machine: Machine) -> Any:
    return machine.json(
        "finetune",
        "--backbone",
        "lantern:small",
        "--weights",
        "random",
        "--freeze",
        "none",
        "--task",
        "lamps",
        "--word",
        "bright",
        "--data",
        machine.data,
        "--epochs",
        "2",
        "--bootstrap",
        "0",
        "--out",
        "run",
    )


@pytest.fixture
def lantern(monkeypatch: pytest.MonkeyPatch) -> registry.Registry:
    """The package's own registrations, without the installed plugins."""
    from importlib.metadata import EntryPoint

    monkeypatch.syspath_prepend(PACKAGE)
    monkeypatch.delitem(sys.modules, SOURCE.stem, raising=False)
    return registry.load(discover([EntryPoint("lantern", SOURCE.stem, "zooft")]))


def draw_pictures(folder: Path, count: int = 24) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        word, base = ("bright", 150) if index % 2 else ("dark", 20)
        levels = base + rng.integers(0, 80, (40, 48, 3))
        Image.fromarray(levels.astype(np.uint8)).save(folder / f"{word}_{index:02}.png")


def install(source: Path, site: Path) -> None:
    """Build and install a copy, since setuptools writes beside its sources; nothing is downloaded."""
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__"))
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
        str(site),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_takes_less_than_sixty_lines() -> None:
    assert len(SOURCE.read_text().splitlines()) < 60


def test_it_uses_nothing_but_public_names() -> None:
    import ast

    tree = ast.parse(SOURCE.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "zooft"
    }
    assert not [name for name in imported if name.startswith("zooft.")]
    assert used <= set(zooft.__all__)


def test_it_imports_nothing_heavy_before_it_is_needed() -> None:
    import ast

    tree = ast.parse(SOURCE.read_text())
    at_the_top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [ast.unparse(node) for node in at_the_top] == ["from dataclasses import dataclass", "import zooft"]


def test_the_plugins_command_shows_it_with_its_distribution(machine: Machine) -> None:
    rows = {row["plugin"]: row for row in machine.json("plugins")}
    assert rows["lantern"].pop("import_seconds") > 0
    assert rows["lantern"] == {
        "plugin": "lantern",
        "distribution": "zooft-lantern",
        "version": "0.1.0",
        "registers": {"families": ["lantern"], "tasks": ["lamps"]},
        "listens_to": [],
        "problem": None,
    }


def test_its_own_option_is_a_flag_of_finetune(machine: Machine) -> None:
    shown = machine.zooft("finetune", "--task", "lamps", "--help")
    assert shown.returncode == 0
    assert "--word" in shown.stdout


def test_the_whole_chain_ends_with_a_verified_file(machine: Machine, run: Any) -> None:
    assert run["verification"]["passed"]
    assert run["verification"]["data"] == "real"
    assert (machine.work / run["onnx"]).is_file()


def test_the_run_records_its_names_and_options(machine: Machine, run: Any) -> None:
    record = json.loads((machine.work / run["path"] / "run.json").read_text())
    assert record["task"] == "lantern/lamps"
    assert record["options"] == {"word": "bright"}
    assert [label["categories"] for label in record["labels"]] == [["other", "bright"]]
    assert (record["backbone"]["family"], record["backbone"]["name"]) == ("lantern/lantern", "small")


def test_the_file_predicts_through_the_package_reader(machine: Machine, run: Any) -> None:
    answer = machine.json("predict", machine.work / run["onnx"], machine.data)
    assert answer["classes"] == ["other", "bright"]
    assert len(answer["predictions"]) == 24
    assert all(sum(row["probabilities"]) == pytest.approx(1, abs=1e-5) for row in answer["predictions"])


@pytest.mark.slow
def test_run_and_file_are_evaluated_alike(machine: Machine, run: Any) -> None:
    evaluated = [machine.json("evaluate", machine.work / run[key], "--bootstrap", "0") for key in ("path", "onnx")]
    assert evaluated[0] == evaluated[1]


def test_without_the_package_the_file_names_the_missing_task(machine: Machine, run: Any, tmp_path: Path) -> None:
    bare = Machine(site=tmp_path, data=machine.data, work=machine.work)
    done = bare.zooft("predict", machine.work / run["onnx"], machine.data)
    assert done.returncode == 2
    assert "there is no task 'lantern/lamps'" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_family_passes_the_conformance_kit(lantern: registry.Registry, tmp_path: Path) -> None:
    testing.check_family(lantern.family("lantern"), "large", folder=tmp_path)


def test_its_task_passes_the_conformance_kit(lantern: registry.Registry, machine: Machine) -> None:
    task = lantern.task("lamps")
    testing.check_task(task, machine.data, task.options(word="bright"))
