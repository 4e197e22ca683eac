"""What ``zooft evaluate`` prints: samples and groups side by side, the threshold, subgroups."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from zooft.cli.output import print_evaluation, print_json
from zooft.contracts import Labels, Sample, class_labels
from zooft.evaluation.bootstrap import Interval
from zooft.evaluation.evaluate import Evaluation, evaluate
from zooft.evaluation.predictions import Predictions
from zooft.evaluation.subgroups import Subgroup
from zooft.problems.classification import classification, diagnostic_metrics

Shown = Callable[..., str]
PROBLEM = classification(metrics=diagnostic_metrics, primary="auroc")
LABELS = class_labels(("healthy", "ill"))


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shown:
    monkeypatch.delenv("COLUMNS", raising=False)

    def show(evaluation: Evaluation, labels: Labels = LABELS) -> str:
        print_evaluation(evaluation, PROBLEM, labels)
        return capsys.readouterr().out

    return show


def evaluation(*, per_group: int = 2, **more: Any) -> Evaluation:
    targets = np.repeat([0, 1, 0, 1, 1, 1], per_group)
    positive = np.linspace(0.05, 0.95, len(targets))
    groups = [f"p{i // per_group}" if per_group > 1 else None for i in range(len(targets))]
    predictions = predicted(targets, positive, groups, **more)
    facts = [] if "facts" not in more else ["sex"]
    fitted = {"threshold": more["threshold"]} if "threshold" in more else {}
    return evaluate(PROBLEM, LABELS, predictions, split="test", resamples=20, seed=0, fitted=fitted, facts=facts)


def predicted(
    targets: NDArray[np.int64],
    positive: NDArray[np.float64],
    groups: Sequence[str | None],
    *,
    threshold: float | None = None,
    facts: Sequence[Mapping[str, str]] = (),
) -> Predictions:
    known = facts or [{}] * len(targets)
    samples = [
        Sample(id=str(row), source=row, target=int(targets[row]), group=groups[row], facts=known[row])
        for row in range(len(targets))
    ]
    columns: dict[str, NDArray[Any]] = {"target": targets, "probabilities": np.stack([1 - positive, positive], 1)}
    if threshold is not None:
        columns["threshold"] = np.full(len(targets), threshold)
    return Predictions(samples=samples, columns=columns)


def subgroup(value: str, *, small: bool = False) -> Subgroup:
    figure = Interval(float("nan"), None, None) if small else Interval(0.7512, 0.5, 0.9)
    return Subgroup(fact="slice_thickness", value=value, samples=40, groups=8, positives=13, metric=figure, small=small)


def line(text: str, start: str) -> str:
    return next(row for row in text.splitlines() if row.strip().startswith(start))


def test_figures_per_sample_and_per_group_stand_side_by_side(shown: Shown) -> None:
    found = evaluation()
    text = shown(found)
    assert "test: 12 samples of 6 groups; the positive class is ill" in text
    assert line(text, "metric").split() == [
        "metric",
        "per",
        "sample",
        "95",
        "%",
        "interval",
        "per",
        "group",
        "95",
        "%",
        "interval",
    ]
    each, grouped = found.metrics["brier"], found.group_metrics["brier"]
    assert line(text, "brier (smaller is better)").split()[4:] == [
        f"{each.value:.4f}", f"{each.low:.4f}", "…", f"{each.high:.4f}",
        f"{grouped.value:.4f}", f"{grouped.low:.4f}", "…", f"{grouped.high:.4f}",
    ]  # fmt: skip # a table of expected values


def test_where_everybody_counts_as_one_class_a_warning_stands_in_place_of_figures_per_group(shown: Shown) -> None:
    labels = class_labels(("ill", "healthy"))
    found = evaluate(
        PROBLEM,
        labels,
        predicted(np.array([0, 1, 0, 1]), np.full(4, 0.5), ["a", "a", "b", "b"], threshold=0.5),
        split="test",
        resamples=0,
        seed=0,
        fitted={"threshold": 0.5},
        group_name="patient",
    )
    text = shown(found, labels)
    assert (
        "warning: no figures per patient: by the rule that one sample decides, all 2 patients count as healthy" in text
    )
    assert "positive class (--positive), and whether the data has enough of both" in " ".join(text.split())
    assert "per patient: " not in text.replace("no figures per patient: ", "")
    assert len(line(text, "accuracy").split()) == 2


def test_without_groups_there_is_one_column(shown: Shown) -> None:
    text = shown(evaluation(per_group=1))
    assert line(text, "metric").split() == ["metric", "value", "95", "%", "interval"]
    assert "group" not in text
    assert "predicts" not in text


def test_the_threshold_is_reported_with_its_figures(shown: Shown) -> None:
    found = evaluation(threshold=0.4)
    text = " ".join(shown(found).split())
    assert "predicts ill at p ≥ 0.4000; per group: sensitivity 0.7500 (0.3006 … 0.9544)" in text
    assert "PPV 0.7500" in text
    assert "per sample: sensitivity" in shown(evaluation(per_group=1, threshold=0.4))


@pytest.mark.parametrize(("threshold", "one"), [(0.01, "ill"), (0.99, "healthy")])
def test_a_threshold_that_calls_everyone_the_same_is_warned_of(shown: Shown, threshold: float, one: str) -> None:
    text = " ".join(shown(evaluation(threshold=threshold)).split())
    assert f"warning: at the threshold, every group of these 6 is called {one}" in text
    assert "train longer, or on more groups" in text
    assert "every sample of these 6" in " ".join(shown(evaluation(per_group=1, threshold=threshold)).split())
    assert "warning: at the threshold" not in shown(evaluation(threshold=0.5))


def test_groups_with_samples_of_several_classes_are_reported(shown: Shown) -> None:
    text = shown(replace(evaluation(), mixed_groups=2))
    assert "groups with samples of several classes: 2; each counts as ill, as any such sample makes it" in text


def test_the_rule_for_groups_of_several_classes_is_reported_as_it_is_of_three(shown: Shown) -> None:
    found, names = replace(evaluation(), mixed_groups=2), ("x", "healthy", "z")
    unknown, known = (
        " ".join(shown(found, class_labels(names, nothing=nothing)).split()) for nothing in ("", "healthy")
    )
    assert (
        "counts as the class that most of its samples have, of equally many as the later one of x, healthy, z"
        in unknown
    )
    assert "each counts as something other than healthy: as what most of its other samples are" in known


def test_subgroups_are_rows_and_small_ones_are_marked(shown: Shown) -> None:
    text = shown(replace(evaluation(), primary="auroc", subgroups=(subgroup("1.25"), subgroup("5", small=True))))
    assert line(text, "slice thickness   1.25").split()[2:] == [
        "1.25",
        "40",
        "8",
        "13",
        "0.7512",
        "0.5000",
        "…",
        "0.9000",
    ]
    assert line(text, "slice thickness   5").split()[2:] == ["5", "40", "8", "13", "too", "few"]
    assert "too few: fewer than ten samples, or all with the same target" in text


def test_no_more_than_thirty_subgroups_are_shown(shown: Shown) -> None:
    text = shown(replace(evaluation(), primary="auroc", subgroups=tuple(subgroup(f"v{k:02}") for k in range(33))))
    assert text.count("slice thickness") == 30
    assert "3 more rows are shown by --json" in text


def test_names_are_shown_as_they_are(shown: Shown) -> None:
    """Rich would take square brackets for its markup."""
    found = replace(evaluation(), primary="auroc", subgroups=(subgroup("[red]A[/wrong]"),))
    assert "[red]A[/wrong]" in shown(found)


def test_json_holds_everything(capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluation(threshold=0.4, facts=[{"sex": "F"}] * 12)
    print_json(found)
    value = json.loads(capsys.readouterr().out)
    own = {"per_class", "confusion", "group_confusion", "threshold", "at_threshold"}
    assert set(value) == set(Evaluation.__dataclass_fields__) - {"details"} | own
    assert value["smaller"] == ["brier", "ece"]
    assert value["groups"] == 6
    assert value["at_threshold"]["ppv"]["value"] == 0.75
    assert value["subgroups"][0]["value"] == "F"
    assert value["group_confusion"] == [[1, 1], [1, 3]]
