"""``predictions.csv``: a row a sample, read back by Python's own csv module."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from zooft.contracts import Problem, Sample, class_labels
from zooft.evaluation import predictions_file
from zooft.evaluation.evaluate import Evaluated, evaluate
from zooft.evaluation.predictions import Predictions
from zooft.problems.classification import classification


def evaluated(problem: Problem, positive: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Evaluated:
    labels = class_labels(("dark", "light"))
    samples = tuple(
        Sample(id=f"s{row}", source=row, target=row % 2, group="g" if row else None) for row in range(len(positive))
    )
    predictions = Predictions(
        samples=samples,
        columns={
            "target": np.arange(len(positive)) % 2,
            "logits": np.zeros((len(positive), 2)),
            "probabilities": np.stack([1 - positive, positive], 1),
            "threshold": np.full(len(positive), 0.3),
        },
    )
    found = evaluate(problem, labels, predictions, split="val", resamples=0, seed=0, fitted={})
    return Evaluated(predictions=predictions, evaluation=found)


def test_each_row_has_its_sample_its_fold_and_the_problem_s_columns_with_six_digits(tmp_path: Path) -> None:
    problem, positive = classification(), np.array([0.25, 1 / 3, 2 / 3], np.float32)
    path = tmp_path / "predictions.csv"
    parts = {"cross-validation": evaluated(problem, positive), "test": evaluated(problem, positive[:1])}
    predictions_file.write(path, parts, problem, class_labels(("dark", "light")), {}, {"s0": 1, "s1": 2})
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    assert rows == [
        ["id", "group", "split", "fold", "target", "prediction", "p(dark)", "p(light)"],
        ["s0", "", "cross-validation", "1", "dark", "dark", "0.750000", "0.250000"],
        ["s1", "g", "cross-validation", "2", "light", "light", "0.666667", "0.333333"],
        ["s2", "g", "cross-validation", "", "dark", "light", "0.333333", "0.666667"],
        ["s0", "", "test", "", "dark", "dark", "0.750000", "0.250000"],
    ]


def test_many_rows_are_written_in_blocks_without_loss(tmp_path: Path) -> None:
    problem, number = classification(), 9000
    path = tmp_path / "predictions.csv"
    part = evaluated(problem, np.linspace(0, 1, number, dtype=np.float32))
    predictions_file.write(path, {"test": part}, problem, class_labels(("dark", "light")), {}, {})
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert [row["id"] for row in rows] == [f"s{index}" for index in range(number)]
    assert [row["p(light)"] for row in rows[:: number - 1]] == ["0.000000", "1.000000"]
