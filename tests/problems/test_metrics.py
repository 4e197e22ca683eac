"""Every figure equals scikit-learn's, and the intervals are what a bootstrap should give."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

import zooft
from zooft.contracts import Sample, class_labels
from zooft.evaluation import bootstrap, subgroups
from zooft.evaluation.bootstrap import Interval
from zooft.evaluation.evaluate import evaluate
from zooft.evaluation.groups import members_of
from zooft.evaluation.predictions import Predictions
from zooft.problems.classification import metrics
from zooft.problems.classification.evaluation import details_of, with_threshold
from zooft.problems.classification.groups import group_answers

Array = NDArray[Any]
Metrics = Callable[[NDArray[Any], NDArray[Any]], Any]


def predictions_of(targets: Array, probabilities: Array, groups: Sequence[str | None], facts: Any = ()) -> Predictions:
    facts = facts or [{}] * len(targets)
    samples = [Sample(id=str(i), source=None, group=groups[i], facts=facts[i]) for i in range(len(targets))]
    columns = {"target": np.asarray(targets, np.int64), "probabilities": np.asarray(probabilities)}
    return Predictions(samples=samples, columns=columns)


def evaluation_of(
    figures: Metrics,
    targets: Array,
    probabilities: Array,
    *,
    classes: Sequence[str],
    groups: Sequence[str | None],
    group_score: str = "mean",
    threshold: float | None = None,
    facts: Any = (),
    subgroups: Sequence[str] = (),
    primary: str = "",
    thresholds: Array | None = None,
    **more: Any,
) -> Any:
    """An evaluation and the details of classes, side by side."""
    given = predictions_of(targets, probabilities, groups, facts)
    given = with_threshold(given, threshold) if thresholds is None else given.with_columns(threshold=thresholds)
    problem = zooft.classification(metrics=figures, primary=primary or next(iter(figures(targets, probabilities))))
    found = evaluate(
        problem,
        class_labels(classes),
        given,
        fitted={"threshold": threshold},
        group_rule=group_score,
        facts=subgroups,
        **more,
    )
    return SimpleNamespace(
        **{field.name: getattr(found, field.name) for field in fields(found)},
        **{field.name: getattr(details_of(found.details), field.name) for field in fields(details_of(found.details))},
    )


def intervals(figures: Metrics, targets: Array, probabilities: Array, *, groups: Any, resamples: int, seed: int) -> Any:
    def of(some: Predictions) -> Any:
        return figures(some["target"], some["probabilities"])

    given = predictions_of(targets, probabilities, groups)
    return bootstrap.intervals(of, given, groups=groups, resamples=resamples, seed=seed)


def by_group(groups: Sequence[str | None], targets: Array, probabilities: Array, rule: str) -> Any:
    members = members_of(groups)
    truth, answers = group_answers(targets, probabilities, members, rule)
    names = tuple(groups[rows[0]] for rows in members)
    return SimpleNamespace(names=names, targets=truth, probabilities=answers, members=members)


CASES = [(seed, classes) for classes in (2, 3, 7) for seed in range(6)]


def drawn(seed: int, classes: int, *, samples: int = 60, leave_out: int | None = None) -> tuple[Array, Array]:
    """Targets and probabilities with many ties; of the class `leave_out` there are no samples."""
    rng = np.random.default_rng(seed)
    probabilities = rng.multinomial(5, np.full(classes, 1 / classes), samples) / 5
    there = [k for k in range(classes) if k != leave_out]
    targets = np.concatenate([there, rng.choice(there, samples - len(there))])
    return targets, probabilities


def ours(targets: Array, probabilities: Array, name: str) -> float:
    return metrics.classification_metrics(targets, probabilities)[name]


# A class that is predicted and doesn't occur is what the test is about; scikit-learn warns of it.
absent_class = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")


@absent_class
@pytest.mark.parametrize("leave_out", [None, 0])
@pytest.mark.parametrize(("seed", "classes"), CASES)
def test_accuracy_balanced_accuracy_and_f1_equal_scikit_learns(seed: int, classes: int, leave_out: int | None) -> None:
    targets, probabilities = drawn(seed, classes, leave_out=leave_out)
    predicted = probabilities.argmax(1)
    assert ours(targets, probabilities, "accuracy") == pytest.approx(sklearn_metrics.accuracy_score(targets, predicted))
    assert ours(targets, probabilities, "balanced_accuracy") == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(targets, predicted)
    )
    assert ours(targets, probabilities, "macro_f1") == pytest.approx(
        sklearn_metrics.f1_score(targets, predicted, average="macro", zero_division=0)
    )


@pytest.mark.parametrize(("seed", "classes"), CASES)
def test_auroc_equals_scikit_learns(seed: int, classes: int) -> None:
    targets, probabilities = drawn(seed, classes)
    score = probabilities[:, 1] if classes == 2 else probabilities
    expected = sklearn_metrics.roc_auc_score(targets, score, multi_class="ovr", average="macro")
    assert ours(targets, probabilities, "auroc") == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 3])
def test_auroc_is_undefined_where_a_class_does_not_occur(classes: int) -> None:
    targets, probabilities = drawn(0, classes, leave_out=0)
    assert math.isnan(ours(targets, probabilities, "auroc"))


@pytest.mark.parametrize("classes", [2, 5])
def test_a_model_that_is_always_right_scores_one_everywhere(classes: int) -> None:
    targets = np.arange(40) % classes
    values = metrics.classification_metrics(targets, np.eye(classes)[targets])
    assert values == {"accuracy": 1.0, "balanced_accuracy": 1.0, "macro_f1": 1.0, "auroc": 1.0}


def test_a_model_that_says_the_same_to_everything_has_an_auroc_of_a_half() -> None:
    targets = np.array([0, 0, 0, 1])
    assert ours(targets, np.full((4, 2), 0.5), "auroc") == 0.5


def test_figures_are_plain_floats() -> None:
    values = metrics.classification_metrics(*drawn(0, 3))
    assert {type(value) for value in values.values()} == {float}


@pytest.mark.parametrize("leave_out", [None, 1])
@pytest.mark.parametrize(("seed", "classes"), CASES)
def test_the_confusion_matrix_equals_scikit_learns(seed: int, classes: int, leave_out: int | None) -> None:
    targets, probabilities = drawn(seed, classes, leave_out=leave_out)
    expected = sklearn_metrics.confusion_matrix(targets, probabilities.argmax(1), labels=range(classes))
    assert np.array_equal(metrics.confusion(targets, probabilities), expected)


@pytest.mark.parametrize("leave_out", [None, 1])
@pytest.mark.parametrize(("seed", "classes"), CASES)
def test_the_table_of_classes_equals_scikit_learns(seed: int, classes: int, leave_out: int | None) -> None:
    targets, probabilities = drawn(seed, classes, leave_out=leave_out)
    table = evaluated(targets, probabilities).per_class
    expected = sklearn_metrics.precision_recall_fscore_support(
        targets, probabilities.argmax(1), labels=range(classes), zero_division=np.nan
    )
    got = np.array([(row.precision, row.recall, row.f1, row.support) for row in table]).T
    assert np.allclose(got, np.array(expected, dtype=float), equal_nan=True)
    assert leave_out is None or np.isnan(table[leave_out].recall)
    assert [row.name for row in table] == [f"class {k}" for k in range(classes)]


def test_an_evaluation_holds_the_confusion_matrix_as_plain_numbers() -> None:
    evaluation = evaluated(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]))
    assert evaluation.confusion == ((1, 0), (1, 1))
    assert (evaluation.split, evaluation.samples) == ("val", 3)


def evaluated(targets: Array, probabilities: Array) -> Any:
    return evaluation_of(
        metrics.classification_metrics,
        targets,
        probabilities,
        split="val",
        resamples=0,
        seed=0,
        classes=[f"class {k}" for k in range(probabilities.shape[1])],
        groups=[None] * len(targets),
    )


# Intervals


def accuracy_alone(targets: Array, probabilities: Array) -> dict[str, float]:
    return {"accuracy": float((probabilities.argmax(1) == targets).mean())}


def interval(
    hits: Sequence[bool] | Array, *, groups: Sequence[str | None] | None = None, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Of the accuracy of answers that are right or wrong as `hits` says."""
    targets = np.ones(len(hits), dtype=np.int64)
    probabilities = np.eye(2)[np.asarray(hits, dtype=np.int64)]
    found = intervals(
        accuracy_alone, targets, probabilities, groups=groups or [None] * len(hits), resamples=resamples, seed=seed
    )
    return found["accuracy"]


def width(found: Interval) -> float:
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


def test_without_resamples_there_is_no_interval() -> None:
    assert interval([True, False], resamples=0) == Interval(0.5, None, None)


def test_the_interval_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    hits = np.random.default_rng(0).random(80) < 0.7
    assert interval(hits, seed=3) == interval(hits, seed=3)
    assert interval(hits, seed=3) != interval(hits, seed=4)


def test_the_interval_of_a_share_is_the_binomial_s() -> None:
    hits = np.arange(400) < 320
    found = interval(hits, resamples=4000)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 400)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.8 - half, abs=0.006)
    assert found.high == pytest.approx(0.8 + half, abs=0.006)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """95 % at 100 samples and 70 % accuracy; the percentile bootstrap itself falls a little short (Efron 1987)."""
    rng = np.random.default_rng(0)
    found = [interval(rng.random(100) < 0.7, resamples=200, seed=trial) for trial in range(200)]
    covered = np.mean([i.low is not None and i.high is not None and i.low <= 0.7 <= i.high for i in found])
    assert 0.89 <= covered <= 0.99


def test_whole_groups_are_drawn_where_they_are_known() -> None:
    """Ten patients with twenty equal slices each count as ten samples, not as two hundred."""
    hits = np.repeat([True] * 7 + [False] * 3, 20)
    groups = [f"patient {index // 20}" for index in range(200)]
    by_sample, by_group = interval(hits), interval(hits, groups=groups)
    assert by_sample.value == by_group.value
    assert width(by_group) > 3 * width(by_sample)
    assert width(by_group) == pytest.approx(width(interval([True] * 7 + [False] * 3)), abs=0.05)


def test_groups_of_one_are_samples() -> None:
    hits = np.random.default_rng(1).random(50) < 0.6
    assert interval(hits, groups=[f"patient {index}" for index in range(50)]) == interval(hits)


def test_a_sample_without_a_group_is_a_group_of_its_own() -> None:
    hits = [True, False] * 30
    groups = ["patient", "patient", *[None] * 58]
    assert interval(hits, groups=groups) != interval(hits)
    assert width(interval(hits, groups=groups)) == pytest.approx(width(interval(hits)), abs=0.05)


def test_a_group_called_as_a_sample_would_be_is_not_mixed_up_with_it() -> None:
    hits = [True, False]
    assert width(interval(hits, groups=["sample 1", None])) == width(interval(hits))


def test_draws_in_which_a_figure_is_undefined_do_not_count() -> None:
    targets = np.array([0] * 10 + [1])
    probabilities = np.stack([np.linspace(1, 0, 11), np.linspace(0, 1, 11)], 1)
    found = intervals(metrics.classification_metrics, targets, probabilities, groups=[None] * 11, resamples=200, seed=0)
    assert found["auroc"] == Interval(1.0, 1.0, 1.0)


def test_a_figure_that_is_never_defined_has_no_interval() -> None:
    targets, probabilities = drawn(0, 3, leave_out=0)
    found = intervals(
        metrics.classification_metrics, targets, probabilities, groups=[None] * len(targets), resamples=50, seed=0
    )
    assert math.isnan(found["auroc"].value)
    assert (found["auroc"].low, found["auroc"].high) == (None, None)


def test_the_figure_lies_within_its_interval() -> None:
    targets, probabilities = drawn(5, 4, samples=200)
    found = intervals(
        metrics.classification_metrics, targets, probabilities, groups=[None] * 200, resamples=300, seed=0
    )
    for value in found.values():
        assert value.low is not None
        assert value.high is not None
        assert value.low <= value.value <= value.high


# Diagnostic figures

RANKED = ["auroc", "auprc", "sensitivity_at_specificity_90", "specificity_at_sensitivity_90"]


def diagnostic(targets: Array, probabilities: Array, name: str) -> float:
    return metrics.diagnostic_metrics(targets, probabilities)[name]


@pytest.mark.parametrize(("seed", "classes"), CASES)
def test_diagnostic_figures_equal_scikit_learns(seed: int, classes: int) -> None:
    targets, probabilities = drawn(seed, classes)
    score, truth = (probabilities[:, 1], targets) if classes == 2 else (probabilities, np.eye(classes)[targets])
    predicted = probabilities.argmax(1)
    expected = {
        "auroc": sklearn_metrics.roc_auc_score(targets, score, multi_class="ovr"),
        "auprc": sklearn_metrics.average_precision_score(truth, score, average="macro"),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(targets, predicted),
        "accuracy": sklearn_metrics.accuracy_score(targets, predicted),
        "brier": sklearn_metrics.brier_score_loss(targets, score),
    }
    got = metrics.diagnostic_metrics(targets, probabilities)
    assert {name: got[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("samples", [10, 60, 300])
@pytest.mark.parametrize("seed", range(6))
def test_figures_at_a_given_specificity_or_sensitivity_are_read_off_scikit_learns_curve(
    seed: int, samples: int
) -> None:
    targets, probabilities = drawn(seed, 2, samples=samples)
    fpr, tpr, _ = sklearn_metrics.roc_curve(targets, probabilities[:, 1], drop_intermediate=False)
    got = metrics.diagnostic_metrics(targets, probabilities)
    assert got["sensitivity_at_specificity_90"] == pytest.approx(tpr[1 - fpr >= 0.9 - 1e-12].max())
    assert got["specificity_at_sensitivity_90"] == pytest.approx(1 - fpr[tpr >= 0.9 - 1e-12].min())


def test_the_share_that_is_to_be_reached_may_be_met_exactly() -> None:
    """One false positive in ten negatives is a specificity of 0.9, however 0.9 is rounded."""
    targets = np.array([0] * 9 + [1] * 9 + [0, 1])
    rising = np.linspace(0.05, 0.95, 20)
    got = metrics.diagnostic_metrics(targets, np.stack([1 - rising, rising], 1))
    assert got["sensitivity_at_specificity_90"] == 1.0
    assert got["specificity_at_sensitivity_90"] == 0.9


@pytest.mark.parametrize(("seed", "classes"), CASES)
def test_the_calibration_error_is_the_weighed_gap_of_fifteen_bins(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), 200)
    targets = rng.integers(0, classes, 200)
    if classes == 2:
        said, true = probabilities[:, 1], targets == 1
    else:
        said, true = probabilities.max(1), probabilities.argmax(1) == targets
    expected = 0.0
    for k in range(15):
        inside = (said > k / 15) & (said <= (k + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(said[inside].mean() - true[inside].mean())
    assert diagnostic(targets, probabilities, "ece") == pytest.approx(expected)


def test_the_calibration_error_of_a_hand_made_case() -> None:
    """Four times 0.75 predicted and two of them true, four times 0.25 predicted and one of them true."""
    positive = np.array([0.75] * 4 + [0.25] * 4)
    targets = np.array([1, 1, 0, 0, 1, 0, 0, 0])
    assert diagnostic(targets, np.stack([1 - positive, positive], 1), "ece") == pytest.approx(0.125)


def test_certain_answers_fall_into_the_outer_bins() -> None:
    targets = np.array([0, 1, 0, 1])
    assert diagnostic(targets, np.eye(2)[targets], "ece") == 0.0
    assert diagnostic(targets, np.eye(2)[1 - targets], "ece") == 1.0


@pytest.mark.parametrize("classes", [2, 3])
def test_ranked_figures_are_undefined_where_a_class_does_not_occur(classes: int) -> None:
    got = metrics.diagnostic_metrics(*drawn(0, classes, leave_out=0))
    assert {name for name, value in got.items() if math.isnan(value)} == {name for name in RANKED if name in got}


def test_a_model_that_is_always_right_has_perfect_diagnostic_figures() -> None:
    targets = np.arange(40) % 2
    got = metrics.diagnostic_metrics(targets, np.eye(2)[targets])
    assert got == {name: 0.0 if name in metrics.SMALLER_IS_BETTER else 1.0 for name in got}
    assert set(got) > metrics.SMALLER_IS_BETTER
    assert {type(value) for value in got.values()} == {float}


def test_figures_at_a_given_share_are_left_out_for_three_classes() -> None:
    assert set(metrics.diagnostic_metrics(*drawn(0, 3))) == {
        "auroc",
        "auprc",
        "balanced_accuracy",
        "accuracy",
        "brier",
        "ece",
    }


def calls(work: Callable[[], object]) -> int:
    """How many functions of Python run: what slows loops down on any machine, and doesn't depend on how busy one is."""
    count = 0

    def called(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_no_python_runs_for_each_sample_of_diagnostic_figures() -> None:
    few, many = (partial(metrics.diagnostic_metrics, *drawn(0, 2, samples=n)) for n in (500, 5000))
    few()  # what is imported at first
    assert calls(many) == calls(few)
    assert calls(few) < 500


# Decisions


def test_without_a_threshold_the_likeliest_class_is_predicted() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]])
    assert metrics.decide(probabilities, None).tolist() == [0, 2, 0]


def test_at_the_threshold_the_second_class_is_predicted() -> None:
    positive = np.array([0.0, 0.29, 0.3, 0.31, 1.0])
    assert metrics.decide(np.stack([1 - positive, positive], 1), 0.3).tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_the_confusion_matrix_at_a_threshold_equals_scikit_learns(threshold: float) -> None:
    targets, probabilities = drawn(3, 2)
    expected = sklearn_metrics.confusion_matrix(targets, probabilities[:, 1] >= threshold)
    assert np.array_equal(metrics.confusion(targets, probabilities, threshold=threshold), expected)


# Groups


def test_a_group_s_answer_is_its_mean_or_its_most_suspicious_sample() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    targets, groups = np.array([0, 1, 0, 0]), ["b", "a", "b", "a"]
    mean = by_group(groups, targets, probabilities, "mean")
    most = by_group(groups, targets, probabilities, "max")
    assert mean.names == most.names == ("b", "a")
    assert mean.targets.tolist() == most.targets.tolist() == [0, 1]
    assert [rows.tolist() for rows in mean.members] == [[0, 2], [1, 3]]
    assert np.allclose(mean.probabilities, [[0.75, 0.25], [0.25, 0.75]])
    assert np.allclose(most.probabilities, [[0.6, 0.4], [0.2, 0.8]])


def test_the_most_suspicious_sample_is_chosen_by_the_last_class() -> None:
    probabilities = np.array([[0.1, 0.9, 0.0], [0.5, 0.2, 0.3]])
    assert by_group(["a", "a"], np.array([0, 0]), probabilities, "max").probabilities.tolist() == [[0.5, 0.2, 0.3]]


def test_a_sample_of_unknown_group_answers_for_itself() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    grouped = by_group([None, "a", None], np.array([-1, -1, -1]), probabilities, "mean")
    assert grouped.names == (None, "a", None)
    assert np.allclose(grouped.probabilities, probabilities)


def test_no_samples_make_no_groups() -> None:
    for score in ("mean", "max"):
        grouped = by_group([], np.zeros(0, np.int64), np.zeros((0, 2)), score)
        assert (grouped.names, grouped.probabilities.shape) == ((), (0, 2))


# Anys with groups, a threshold and subgroups

PATIENTS, SLICES = 60, 4


def scans(seed: int = 0) -> tuple[Array, Array, list[str]]:
    """Four slices of each of sixty patients, with noise."""
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(PATIENTS) % 2, SLICES)
    positive = 1 / (1 + np.exp(-(2 * targets - 1 + rng.normal(0, 1.5, len(targets)))))
    return targets, np.stack([1 - positive, positive], 1), [f"p{i // SLICES}" for i in range(len(targets))]


def scored(
    targets: Array, probabilities: Array, groups: Sequence[str | None], *, resamples: int = 0, **more: Any
) -> Any:
    return evaluation_of(
        metrics.diagnostic_metrics,
        targets,
        probabilities,
        split="val",
        resamples=resamples,
        seed=0,
        classes=[f"class {k}" for k in range(probabilities.shape[1])],
        groups=groups,
        **more,
    )


@pytest.mark.parametrize("score", ["mean", "max"])
def test_figures_per_group_are_those_of_one_answer_a_group(score: Any) -> None:
    targets, probabilities, groups = scans()
    found = scored(targets, probabilities, groups, group_score=score)
    by_patient = probabilities[:, 1].reshape(PATIENTS, SLICES)
    answers = by_patient.mean(1) if score == "mean" else by_patient.max(1)
    truth = np.arange(PATIENTS) % 2
    assert (found.groups, found.mixed_groups, found.samples) == (PATIENTS, 0, PATIENTS * SLICES)
    assert found.group_metrics["auroc"].value == pytest.approx(sklearn_metrics.roc_auc_score(truth, answers))
    assert np.array_equal(found.group_confusion, sklearn_metrics.confusion_matrix(truth, answers > 0.5))
    assert found.metrics["auroc"].value == pytest.approx(sklearn_metrics.roc_auc_score(targets, probabilities[:, 1]))


def test_intervals_per_group_are_a_bootstrap_over_groups() -> None:
    targets, probabilities, groups = scans()
    found = scored(targets, probabilities, groups, resamples=300)
    means = probabilities.reshape(PATIENTS, SLICES, 2).mean(1)
    alone = intervals(
        metrics.diagnostic_metrics, targets[::SLICES], means, groups=[None] * PATIENTS, resamples=300, seed=0
    )
    assert found.group_metrics == alone
    assert found.group_metrics["auroc"].value > found.metrics["auroc"].value


def test_without_groups_nothing_is_reported_per_group() -> None:
    targets, probabilities, _ = scans()
    found = scored(targets, probabilities, [None] * len(targets))
    assert (found.groups, found.mixed_groups, found.group_metrics, found.group_confusion) == (0, 0, {}, ())


def test_groups_of_one_sample_each_are_counted_but_have_no_figures_of_their_own() -> None:
    targets, probabilities, _ = scans()
    found = scored(targets, probabilities, [f"p{i}" for i in range(len(targets))])
    assert (found.groups, found.group_metrics, found.group_confusion) == (len(targets), {}, ())


def test_groups_with_samples_of_several_classes_are_counted_and_positive() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
    found = scored(np.array([0, 1, 0, 0]), probabilities, ["a", "a", "b", "b"])
    assert found.mixed_groups == 1
    assert found.group_confusion == ((1, 0), (1, 0))


def test_where_all_groups_count_as_one_class_there_are_no_figures_per_group() -> None:
    """Saying it of everybody would have an accuracy of 1."""
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
    found = scored(np.array([0, 1, 0, 1]), probabilities, ["a", "a", "b", "b"], threshold=0.5)
    assert (found.group_metrics, found.group_confusion, found.at_threshold) == ({}, (), {})
    assert found.one_class == "class 1"
    whole = scored(np.array([1, 1, 1, 1]), probabilities, ["a", "a", "b", "b"], threshold=0.5)
    assert whole.one_class == ""
    assert whole.at_threshold["sensitivity"].value == 0.0


def test_figures_at_the_threshold_are_those_of_the_confusion_matrix_per_group() -> None:
    targets, probabilities, groups = scans()
    found = scored(targets, probabilities, groups, threshold=0.6, resamples=50)
    truth, said = np.arange(PATIENTS) % 2, probabilities[:, 1].reshape(PATIENTS, SLICES).mean(1) >= 0.6
    assert found.threshold == 0.6
    assert {name: share.value for name, share in found.at_threshold.items()} == pytest.approx(
        {
            "sensitivity": sklearn_metrics.recall_score(truth, said),
            "specificity": sklearn_metrics.recall_score(truth, said, pos_label=0),
            "ppv": sklearn_metrics.precision_score(truth, said),
            "npv": sklearn_metrics.precision_score(truth, said, pos_label=0),
        }
    )
    assert np.array_equal(found.group_confusion, sklearn_metrics.confusion_matrix(truth, said))
    assert np.array_equal(found.confusion, sklearn_metrics.confusion_matrix(targets, probabilities[:, 1] >= 0.6))


def test_without_groups_figures_at_the_threshold_are_per_sample() -> None:
    targets, probabilities, _ = scans()
    found = scored(targets, probabilities, [None] * len(targets), threshold=0.6)
    expected = sklearn_metrics.recall_score(targets, probabilities[:, 1] >= 0.6)
    assert found.at_threshold["sensitivity"] == Interval(pytest.approx(expected), None, None)


def test_without_a_threshold_there_are_no_figures_at_it() -> None:
    found = scored(*scans())
    assert (found.threshold, found.at_threshold) == (None, {})


def test_shares_at_the_threshold_have_wilson_s_interval() -> None:
    """Newcombe (Stat Med 1998, 17:857), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for hits, whole, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
                                   (1, 29, 0.0061, 0.1718)]:  # fmt: skip # a table of cases
        targets = np.append(np.ones(whole, np.int64), 0)
        positive = np.append((np.arange(whole) < hits) * 1.0, 0.0)
        found = scored(targets, np.stack([1 - positive, positive], 1), [None] * (whole + 1), threshold=0.5, resamples=2)
        share = found.at_threshold["sensitivity"]
        assert (share.low, share.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


@pytest.mark.parametrize("whole", [1, 7, 1000])
def test_the_interval_of_a_share_is_scipy_s(whole: int) -> None:
    from scipy.stats import binomtest

    for part in range(0, whole + 1, max(1, whole // 20)):
        expected = binomtest(part, whole).proportion_ci(0.95, method="wilson")
        found = bootstrap.share(part, whole, interval=True)
        assert (found.low, found.high) == (
            pytest.approx(expected.low, abs=1e-12),
            pytest.approx(expected.high, abs=1e-12),
        )


def test_a_share_of_nothing_is_undefined() -> None:
    found = scored(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), [None, None], threshold=0.9, resamples=10)
    assert math.isnan(found.at_threshold["ppv"].value)
    assert (found.at_threshold["ppv"].low, found.at_threshold["sensitivity"].value) == (None, 0.0)


def test_subgroups_have_the_primary_figure_of_their_samples() -> None:
    targets, probabilities, groups = scans()
    facts = [{"sex": "F" if i // SLICES % 3 else "M"} for i in range(len(targets))]
    found = scored(targets, probabilities, groups, facts=facts, subgroups=["sex"], primary="auprc", resamples=40)
    women, men = found.subgroups
    assert found.primary == "auprc"
    assert [(row.fact, row.value, row.samples, row.groups, row.positives, row.small) for row in found.subgroups] == [
        ("sex", "F", 160, 40, 80, False),
        ("sex", "M", 80, 20, 40, False),
    ]
    inside = np.array([fact["sex"] == "M" for fact in facts])
    expected = sklearn_metrics.average_precision_score(targets[inside], probabilities[inside, 1])
    assert men.metric.value == pytest.approx(expected)
    assert men.metric.low is not None
    assert women.metric.high is not None


def test_small_subgroups_and_those_of_one_class_have_no_figure() -> None:
    targets, probabilities, groups = scans()
    names = ["few"] * 9 + ["enough"] * 10 + ["many"] * (len(targets) - 19)
    kernels = ["hard" if target else "soft" for target in targets]
    facts = [{"model": name, "kernel": kernel} for name, kernel in zip(names, kernels, strict=True)]
    found = scored(targets, probabilities, groups, facts=facts, subgroups=["model", "kernel"], resamples=20)
    small = {row.value: row.small for row in found.subgroups}
    assert small == {"few": True, "enough": False, "many": False, "hard": True, "soft": True}
    for row in found.subgroups:
        assert math.isnan(row.metric.value) == row.small
        assert (row.metric.low is None) == row.small


def test_there_are_no_subgroups_without_facts() -> None:
    assert scored(*scans(), subgroups=[]).subgroups == ()


def rows_of(fact: str, values: Sequence[Any]) -> dict[str, list[int]]:
    return {name: rows.tolist() for name, rows in subgroups.by_value(fact, values).items()}


def test_ages_are_banded_in_years() -> None:
    ages = [80.0, 0.0, 17.9, 18.0, 39.0, 40.0, 59.5, 60.0, 79.0, 101.0]
    assert rows_of("age", ages) == {"0-17": [1, 2], "18-39": [3, 4], "40-59": [5, 6], "60-79": [7, 8], "80+": [0, 9]}
    assert list(rows_of("age", ages)) == ["0-17", "18-39", "40-59", "60-79", "80+"]


def test_up_to_six_numbers_stand_for_themselves_in_their_order() -> None:
    assert rows_of("slice_thickness", [10.0, 1.25, 5.0, 1.2500001, 5]) == {"1.25": [1, 3], "5": [2, 4], "10": [0]}
    assert list(rows_of("slice_thickness", [10.0, 1.25, 5.0])) == ["1.25", "5", "10"]


def test_more_numbers_than_six_are_cut_into_quarters() -> None:
    found = rows_of("kvp", list(range(1, 9)))
    assert found == {"up to 2.75": [0, 1], "over 2.75 to 4.5": [2, 3], "over 4.5 to 6.25": [4, 5], "over 6.25": [6, 7]}


def test_quarters_that_fall_together_are_one() -> None:
    found = rows_of("kvp", [1.0] * 20 + [2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    assert found == {"up to 1": list(range(20)), "over 1": list(range(20, 26))}


def test_what_is_missing_or_no_number_is_not_stated_and_stands_last() -> None:
    found = rows_of("kernel", ["B70", None, "  ", "AS", math.nan, math.inf, 3.0])
    assert found == {"3": [6], "AS": [3], "B70": [0], "not stated": [1, 2, 4, 5]}
    assert list(found) == ["3", "AS", "B70", "not stated"]


def test_a_resample_of_a_whole_evaluation_costs_few_calls() -> None:
    """Of 500 samples with three tables of subgroups; a thousand resamples take seconds then."""
    targets, probabilities = drawn(0, 2, samples=500)
    facts = [{"age": float(i // 5), "kernel": f"k{i // 5 % 12}", "sex": "FM"[i // 5 % 2]} for i in range(500)]

    def whole(resamples: int) -> None:
        scored(
            targets,
            probabilities,
            [f"p{i // 5}" for i in range(500)],
            resamples=resamples,
            threshold=0.5,
            facts=facts,
            subgroups=["age", "kernel", "sex"],
            primary="auroc",
        )

    whole(10)
    each = (calls(lambda: whole(30)) - calls(lambda: whole(10))) / 20
    assert each < 3000


def test_each_fold_is_decided_by_its_own_threshold_per_sample_and_per_group() -> None:
    scores = np.array([0.2, 0.4, 0.6, 0.8])
    probabilities = np.stack([1 - scores, scores], 1)
    targets, groups = np.array([0, 1, 0, 0]), ["a", "a", "b", "b"]
    scored = evaluation_of(
        metrics.classification_metrics,
        targets,
        probabilities,
        split="cross-validation",
        classes=("no", "yes"),
        groups=groups,
        resamples=0,
        seed=0,
        group_score="max",
        threshold=0.5,
        thresholds=np.array([0.3, 0.3, 0.9, 0.9]),
    )
    assert scored.confusion == ((3, 0), (0, 1))  # by hand: 0.4 is predicted at 0.3, 0.6 and 0.8 aren't at 0.9
    assert scored.group_confusion == ((1, 0), (0, 1))
    assert scored.at_threshold["sensitivity"].value == 1.0
    assert scored.threshold == 0.5
