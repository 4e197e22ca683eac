"""The core knows no problem: in a copy without classification, several labels train as before."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import zooft

ROOT = Path(zooft.__file__).resolve().parents[1]


def copy_without_classification(folder: Path) -> None:
    for name in ("zooft", "plugins"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(folder / "zooft" / "problems" / "classification")


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Python with the copy in place of zooft."""
    path = os.pathsep.join([str(folder / "copy"), str(folder / "copy" / "plugins")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


def write_pictures(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "red", "green"])
        for number in range(16):
            red, green = number % 2, number // 2 % 2
            levels = rng.integers(0, 80, (32, 32, 3)) + 150 * np.array([red, green, 0])
            PIL.Image.fromarray(levels.astype(np.uint8)).save(folder / f"{number}.png")
            table.writerow([f"{number}.png", red, green])
    return folder / "labels.csv"


@pytest.mark.slow
def test_several_labels_train_where_classification_is_deleted(tmp_path: Path) -> None:
    copy_without_classification(tmp_path / "copy")
    data = write_pictures(tmp_path / "data")
    missing = run(tmp_path, "-c", "import zooft.problems.classification")
    assert "No module named 'zooft.problems.classification'" in missing.stderr
    done = run(
        tmp_path,
        *("-m", "zooft", "finetune", "--task", "multilabel", "--backbone", "timm:test_resnet", "--weights", "random"),
        *("--data", data, "--epochs", "1", "--bootstrap", "0", "--no-cache", "--no-report", "--out", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "verification.json").read_text())["passed"] is True
