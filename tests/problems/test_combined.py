"""Several answers on one trunk: each is learnt and evaluated on the samples of which it is known, and one file gives all."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import example_data
import numpy as np
import onnxruntime
import pytest
import torch
from commands import command
from sklearn import metrics as theirs
from torch.nn import functional as F

import zooft
from zooft.evaluation.predictions import Predictions
from zooft.hooks import registry
from zooft.testing import check_problem
from zooft_images.options import MultitaskOptions

TOML = """
[targets.view]
problem = "classification"

[targets.age]
problem = "regression"
column = "Age at scan"
unit = "years"
weight = 0.5
"""
LABELS = (
    zooft.Label(name="view", categories=("front", "side"), problem="classification"),
    zooft.Label(name="age", unit="years", problem="regression"),
)
TARGETS = [{"view": number % 2, "age": None if number % 4 < 2 else (40.0 + 3 * number,)} for number in range(16)] + [
    {"age": (61.0,)}
]
OPTIONS = MultitaskOptions(targets_toml=TOML)


def task() -> zooft.Task:
    return registry.load().task("multitask")


def write(root: Path) -> Path:
    """48 pictures of two views; half of the ages are unknown."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(48):
        age = 40 + 20 * rng.random()
        example_data.save(root / "img" / f"{index}.png", int(60 + 80 * (index % 2) + 2 * (age - 50)), seed=index)
        rows.append((f"img/{index}.png", ("front", "side")[index % 2], "" if index % 4 < 2 else f"{age:.2f}"))
    example_data.write_manifest(root / "labels.csv", ("path", "view", "Age at scan"), rows)
    (root / "targets.toml").write_text(TOML)
    return root


def test_the_parts_do_together_what_they_promise() -> None:
    check_problem(task(), LABELS, TARGETS, OPTIONS)


def test_the_loss_is_the_weighted_sum_over_what_is_known() -> None:
    training = task().problem.training
    labels = training.prepare(LABELS, TARGETS, OPTIONS)
    rng = torch.Generator().manual_seed(0)
    outputs = {
        "view_logits": torch.randn(len(TARGETS), 2, generator=rng),
        "age_standardised": torch.randn(len(TARGETS), 1, generator=rng),
    }
    encoded = torch.utils.data.default_collate([training.encode(target, labels) for target in TARGETS])
    found = training.loss(labels, TARGETS, OPTIONS)(outputs, encoded)
    views = [row for row, target in enumerate(TARGETS) if target.get("view") is not None]
    aged = [row for row, target in enumerate(TARGETS) if target.get("age") is not None]
    ages = np.array([TARGETS[row]["age"][0] for row in aged])  # type: ignore[index]
    wanted = torch.tensor((ages - ages.mean()) / ages.std(), dtype=torch.float32)
    of_views = F.cross_entropy(
        outputs["view_logits"][views], torch.tensor([TARGETS[row]["view"] for row in views]), reduction="sum"
    )
    of_ages = F.smooth_l1_loss(outputs["age_standardised"][aged, 0], wanted, reduction="sum")
    torch.testing.assert_close(found.total, of_views + 0.5 * of_ages)
    assert float(found.weight) == len(TARGETS)


def test_figures_are_those_of_scikit_learn_on_the_samples_that_are_known() -> None:
    problem = task().problem
    labels = problem.training.prepare(LABELS, TARGETS, OPTIONS)
    rng = np.random.default_rng(1)
    outputs = {
        "view_logits": rng.normal(size=(len(TARGETS), 2)).astype(np.float32),
        "age_standardised": rng.normal(size=(len(TARGETS), 1)).astype(np.float32),
    }
    given = Predictions(samples=(), columns=problem.evaluation.columns(outputs, TARGETS, labels))
    found = problem.evaluation.metrics(given, labels)
    views = [row for row, target in enumerate(TARGETS) if target.get("view") is not None]
    aged = [row for row, target in enumerate(TARGETS) if target.get("age") is not None]
    ages = np.array([TARGETS[row]["age"][0] for row in aged])  # type: ignore[index]
    predicted = outputs["age_standardised"][aged, 0] * ages.std() + ages.mean()
    balanced = theirs.balanced_accuracy_score(
        [TARGETS[row]["view"] for row in views], outputs["view_logits"][views].argmax(1)
    )
    assert found["balanced_accuracy/view"] == pytest.approx(balanced)
    assert found["mae/age"] == pytest.approx(theirs.mean_absolute_error(ages, predicted), rel=1e-5)
    assert found["r2/age"] == pytest.approx(theirs.r2_score(ages, predicted), rel=1e-5)
    assert found["score"] == pytest.approx((balanced + theirs.r2_score(ages, predicted)) / 2, rel=1e-5)
    assert "mae" in problem.evaluation.smaller


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--targets-file"),
        ("[targets.view]\nproblem = 'shape'", r"\[targets\.view\]: problem is 'shape'; there are classification"),
        ("[targets.view]\nproblem = 'classification'\ngrades = ['a', 'b']", "grades is for problem = 'ordinal'"),
        ("[targets.view]\nproblem = 'classification'\nweight = -1", "weight is -1, expected a number above 0"),
        ("[targets.view]\nproblem = 'classification'\nsize = 3", "size isn't known"),
        ("targets = 3", "has to hold tables"),
        ("[targets.view", "can't be read as TOML"),
    ],
)
def test_a_file_of_targets_that_cannot_be_used_is_refused(text: str, message: str) -> None:
    with pytest.raises(zooft.ConfigError, match=message):
        task().problem.training.check_options(MultitaskOptions(targets_toml=text))


def test_what_an_answer_s_problem_says_names_the_answer(tmp_path: Path) -> None:
    data = write(tmp_path)
    text = "[targets.stage]\nproblem = 'ordinal'\ncolumn = 'view'\ngrades = ['front', 'front']"
    (data / "targets.toml").write_text(text)
    options = MultitaskOptions(targets_file=data / "targets.toml", targets_toml=text)
    with pytest.raises(zooft.ConfigError, match=r"\[targets\.stage\]: --grades has 'front' twice"):
        task().discover(data, options)


def test_two_heads_are_learnt_from_a_manifest_to_one_verified_file_with_named_outputs(tmp_path: Path) -> None:
    data, run = write(tmp_path / "data"), tmp_path / "run"
    command(
        "finetune", "--task", "multitask", "--targets-file", data / "targets.toml", "--data", data, "--out", run,
        "--backbone", "timm:test_resnet", "--weights", "random", "--epochs", "3", "--bootstrap", "0",
    )  # fmt: skip
    assert json.loads((run / "verification.json").read_text())["passed"] is True
    session = onnxruntime.InferenceSession(run / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert {"view_probabilities", "age_value"} <= set(names)
    (data / "targets.toml").unlink()  # run and file know what stood in it
    figures = json.loads(command("evaluate", run, "--json", "--bootstrap", "0").stdout)["metrics"]
    of_file = json.loads(
        command("evaluate", run / "model.onnx", "--data", data, "--split", "all", "--json", "--bootstrap", "0").stdout
    )["metrics"]
    with (data / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pictures = np.stack([np.asarray(example_data.Image.open(data / row["path"])) for row in rows])
    answers = dict(zip(names, session.run(None, {session.get_inputs()[0].name: pictures}), strict=True))
    views = [("front", "side").index(row["view"]) for row in rows]
    known = [number for number, row in enumerate(rows) if row["Age at scan"]]
    assert len(known) == len(rows) / 2
    ages = [float(rows[number]["Age at scan"]) for number in known]
    accuracy = theirs.balanced_accuracy_score(views, answers["view_probabilities"].argmax(1))
    assert of_file["balanced_accuracy/view"]["value"] == pytest.approx(accuracy)
    error = theirs.mean_absolute_error(ages, answers["age_value"].reshape(-1)[known])
    assert of_file["mae/age"]["value"] == pytest.approx(error, rel=1e-4)
    assert all(math.isfinite(figure["value"]) for figure in figures.values())
    with (run / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[5:] == ["view class", "view p(front)", "view p(side)", "age [years]"]
    page, shown = (run / "report.html").read_text(), 0
    for row in table:
        view, _, age = row["target"].removeprefix("view ").partition("; age ")
        truth = f"true {age}" if age else "true answer unknown"
        lines = (
            f"view: predicted {row['view class']}, true {view}",
            f"age: predicted {float(row['age [years]']):.4g} years, {truth}",
        )
        shown += all(line in page for line in lines)
    assert shown >= min(8, len(table)) > 1
    assert "answers of this kind have no single one" in page
