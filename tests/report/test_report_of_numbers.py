"""The report, the screen and the audit of a problem without categories, as a stranger would write it: ages in years."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from run_records import data_record, run_record

from zooft.audit import audit
from zooft.cli.output import print_evaluation, print_json
from zooft.contracts import (
    DeploymentPart,
    EvaluationPart,
    Fitted,
    Label,
    Labels,
    Picture,
    PresentationPart,
    Problem,
    Sample,
    Table,
    TrainingPart,
)
from zooft.evaluation.evaluate import Evaluated, Evaluation, evaluate
from zooft.evaluation.predictions import Predictions
from zooft.report import page, pictures
from zooft.report.page import ReportInputs

LABELS = (Label(name="age", unit="years"),)
PNG = b"\x89PNG\r\n\x1a\n"
TRUE = np.array([30.0, 40.0, 50.0, 60.0] * 5)
WRONG_BY = np.linspace(-4, 6, len(TRUE))


def never(*_: Any) -> Any:
    raise AssertionError


def errors(predictions: Predictions) -> NDArray[np.float64]:
    return np.abs(predictions["age"] - predictions["target"])


def cells(predictions: Predictions, _labels: Labels, _fitted: Fitted) -> Mapping[str, Sequence[Any]]:
    return {"age": [f"{value:.1f}" for value in predictions["age"]]}


def tables(evaluation: Evaluation, _labels: Labels) -> Sequence[Table]:
    return (Table(title="bias", columns=("of", "years"), rows=(("all", f"{evaluation.details['bias']:.2f}"),)),)


PROBLEM = Problem(
    name="ages",
    training=TrainingPart(outputs=never, loss=never),
    evaluation=EvaluationPart(
        columns=never,
        metrics=lambda predictions, _labels: {"mae": float(errors(predictions).mean())},
        primary="mae",
        smaller=frozenset({"mae"}),
        details=lambda predictions, *_: {"bias": float((predictions["age"] - predictions["target"]).mean())},
    ),
    deployment=DeploymentPart(outputs=never, graph=never, columns=never),
    presentation=PresentationPart(
        cells=cells,
        columns=lambda _labels: ("age",),
        target=lambda target, _labels: f"{target:g} years",
        worst=lambda predictions, _labels: errors(predictions),
        tables=tables,
        remarks=lambda *_: ("Ages are predicted in whole years.",),
    ),
)


def evaluated() -> Evaluated:
    samples = [
        Sample(id=f"s{row}", source=row, target=float(TRUE[row]), facts={"sex": "FM"[row % 2]})
        for row in range(len(TRUE))
    ]
    predictions = Predictions(samples=samples, columns={"target": TRUE, "age": TRUE + WRONG_BY})
    found = evaluate(PROBLEM, LABELS, predictions, split="test", resamples=20, seed=0, fitted={}, facts=("sex",))
    return Evaluated(predictions=predictions, evaluation=found)


def inputs(problem: Problem = PROBLEM) -> ReportInputs:
    part = evaluated()
    return ReportInputs(
        record=run_record(
            task="toy/ages",
            problem="ages",
            labels=LABELS,
            data=data_record(counts={}, group_rule=""),
            config={
                "backbone": "timm:resnet18",
                "freeze": "backbone",
                "epochs": 2,
                "seed": 0,
                "optimizer": "adamw",
                "lr": 0.005,
                "backbone_lr": 1e-4,
                "batch_size": 32,
                "folds": None,
            },
        ),
        problem=problem,
        epochs=[],
        rejected=[],
        audit=None,
        evaluated={"test": part},
        verification=None,
        stages=[],
        show=lambda _sample: np.zeros((8, 8), np.uint8),
        gradcam=None,
        extra=[],
        private=False,
        samples={"test": part.predictions.samples},
    )


def test_its_report_shows_its_tables_and_the_largest_errors_and_speaks_of_no_class() -> None:
    shown = page.render(inputs())
    for words in (
        "fine-tuned to predict age",
        "The largest errors",
        "bias",
        "Ages are predicted in whole years.",
        "MAE (smaller is better)",
        "60 years, predicted 66.0",
        "Subgroups, per sample",
    ):
        assert words in shown, words
    body = shown[shown.index("<body") :].replace('class="', "")
    for words in ("class", "Wrong predictions", "Confusion", "probability"):
        assert words not in body, words


def test_the_largest_errors_come_first_and_the_smallest_are_the_best() -> None:
    found = inputs()
    part = found.evaluated["test"]
    by_size = np.argsort(-np.abs(WRONG_BY), kind="stable")
    assert pictures.worst(found, part, 5) == by_size[:5].tolist()
    assert set(pictures.best(found, part)) == set(by_size[-4:].tolist())


def test_what_it_draws_for_the_report_stands_there_in_place_of_its_tables() -> None:
    import dataclasses

    drawn = dataclasses.replace(
        PROBLEM.presentation,
        sections=lambda *_: (Picture(title="Residuals", png=PNG, caption="Predicted against true ages."),),
    )
    shown = page.render(inputs(dataclasses.replace(PROBLEM, presentation=drawn)))
    assert "Predicted against true ages." in shown
    assert "Ages are predicted in whole years." not in shown


def test_the_screen_shows_its_remarks_and_tables_and_json_its_details(capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated().evaluation
    print_evaluation(found, PROBLEM, LABELS)
    shown = capsys.readouterr().out
    assert "test: 20 samples\n" in shown
    assert "mae (smaller is better)" in shown
    assert "Ages are predicted in whole years." in shown
    assert "of them" not in shown
    print_json({"evaluations": {"test": found}})
    value = json.loads(capsys.readouterr().out)["evaluations"]["test"]
    assert value["bias"] == pytest.approx(WRONG_BY.mean())
    assert value["metrics"]["mae"]["value"] == pytest.approx(np.abs(WRONG_BY).mean())
    assert "details" not in value


def test_its_audit_finds_equal_images_of_different_targets_and_searches_no_shortcuts() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    others = [np.full((4, 4), level, np.uint8) for level in (1, 2)]
    samples = [
        Sample(id=name, source=array, target=age, facts={"maker": name})
        for name, array, age in zip("abcd", [image, image, *others], [30.0, 31.0, 30.0, None], strict=True)
    ]
    found = audit(samples, PROBLEM, LABELS, lambda one: (one.source,), show=lambda arrays: arrays[0])
    (finding,) = [finding for finding in found.findings if finding.kind == "contradictory_labels"]
    assert finding.pairs == (("a", "b"),)
    assert found.facts == ()
    assert (
        "shortcuts are searched where each sample has one of several categories, which isn't so of age" in found.notes
    )
    assert not [finding for finding in found.findings if finding.kind in {"tiny_classes", "imbalance"}]
