"""Every figure equals scikit-learn's, and the intervals are what a bootstrap should give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from zooft import metrics
from zooft.metrics import Evaluation, Interval

Array = NDArray[Any]
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
    wanted = sklearn_metrics.roc_auc_score(targets, score, multi_class="ovr", average="macro")
    assert ours(targets, probabilities, "auroc") == pytest.approx(wanted)


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
    wanted = sklearn_metrics.confusion_matrix(targets, probabilities.argmax(1), labels=range(classes))
    assert np.array_equal(metrics.confusion(targets, probabilities), wanted)


@pytest.mark.parametrize("leave_out", [None, 1])
@pytest.mark.parametrize(("seed", "classes"), CASES)
def test_the_table_of_classes_equals_scikit_learns(seed: int, classes: int, leave_out: int | None) -> None:
    targets, probabilities = drawn(seed, classes, leave_out=leave_out)
    table = evaluated(targets, probabilities).per_class
    wanted = sklearn_metrics.precision_recall_fscore_support(
        targets, probabilities.argmax(1), labels=range(classes), zero_division=0
    )
    got = np.array([(row.precision, row.recall, row.f1, row.support) for row in table]).T
    assert np.allclose(got, np.array(wanted, dtype=float))
    assert [row.name for row in table] == [f"class {k}" for k in range(classes)]


def test_an_evaluation_holds_the_confusion_matrix_as_plain_numbers() -> None:
    evaluation = evaluated(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]))
    assert evaluation.confusion == ((1, 0), (1, 1))
    assert (evaluation.split, evaluation.samples) == ("val", 3)


def evaluated(targets: Array, probabilities: Array) -> Evaluation:
    return metrics.evaluate(
        metrics.classification_metrics, targets, probabilities, split="val", resamples=0, seed=0,
        classes=[f"class {k}" for k in range(probabilities.shape[1])], groups=[None] * len(targets),
    )  # fmt: skip


# Intervals


def accuracy_alone(targets: Array, probabilities: Array) -> dict[str, float]:
    return {"accuracy": float((probabilities.argmax(1) == targets).mean())}


def interval(
    hits: Sequence[bool] | Array, *, groups: Sequence[str | None] | None = None, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Of the accuracy of answers that are right or wrong as `hits` says."""
    targets = np.ones(len(hits), dtype=np.int64)
    probabilities = np.eye(2)[np.asarray(hits, dtype=np.int64)]
    found = metrics.intervals(
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
    """Ten patients with twenty equal slices each tell as much as ten samples, not as two hundred."""
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
    found = metrics.intervals(
        metrics.classification_metrics, targets, probabilities, groups=[None] * 11, resamples=200, seed=0
    )
    assert found["auroc"] == Interval(1.0, 1.0, 1.0)


def test_a_figure_that_is_never_defined_has_no_interval() -> None:
    targets, probabilities = drawn(0, 3, leave_out=0)
    found = metrics.intervals(
        metrics.classification_metrics, targets, probabilities, groups=[None] * len(targets), resamples=50, seed=0
    )
    assert math.isnan(found["auroc"].value)
    assert (found["auroc"].low, found["auroc"].high) == (None, None)


def test_the_figure_lies_within_its_interval() -> None:
    targets, probabilities = drawn(5, 4, samples=200)
    found = metrics.intervals(
        metrics.classification_metrics, targets, probabilities, groups=[None] * 200, resamples=300, seed=0
    )
    for value in found.values():
        assert value.low is not None
        assert value.high is not None
        assert value.low <= value.value <= value.high
