"""Temperatures and thresholds are what the data they are fitted on say, and nothing else is used."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from zooft.errors import ConfigError
from zooft.evaluation.groups import members_of
from zooft.problems.classification import calibration
from zooft.problems.classification.calibration import Calibration, OperatingPoint
from zooft.problems.classification.metrics import decide

Array = NDArray[Any]
YOUDEN = OperatingPoint()


def drawn(seed: int, classes: int = 2, *, samples: int = 400, temperature: float = 1.0) -> tuple[Array, Array]:
    """Logits that are too large by the factor `temperature`, and targets drawn from what they should say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (samples, classes))
    message = special.softmax(logits, axis=1)
    targets = (message.cumsum(1) < rng.random((samples, 1))).sum(1).clip(max=classes - 1)
    return logits * temperature, targets


def fitted(logits: Array, targets: Array, point: OperatingPoint | None = YOUDEN, **more: Any) -> Calibration:
    members = members_of(more.pop("groups", [None] * len(targets)))
    given = {
        "activation": "softmax",
        "fitted_on": "validation",
        "members": members,
        "rule": more.pop("group_score", "mean"),
        **more,
    }
    return calibration.fit(logits, targets, point, **given)


# Operating points


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("youden", OperatingPoint(rule="youden")),
        ("sensitivity:0.9", OperatingPoint(rule="sensitivity", at_least=0.9)),
        ("specificity:0.95", OperatingPoint(rule="specificity", at_least=0.95)),
        ("sensitivity:1", OperatingPoint(rule="sensitivity", at_least=1.0)),
    ],
)
def test_operating_points_are_read(text: str, expected: OperatingPoint) -> None:
    assert calibration.parse_point(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "Youden", "youden:0.9", "sensitivity", "sensitivity:", "sensitivity:90", "sensitivity:0", "specificity:-1",
     "sensitivity:nan", "specificity:high", "accuracy:0.9", "sensitivity:0.9:1"],
)  # fmt: skip # a table of cases
def test_anything_else_is_refused_with_what_can_be_given(text: str) -> None:
    with pytest.raises(ConfigError, match="give 'youden', 'sensitivity:X' or 'specificity:X'"):
        calibration.parse_point(text)


# Temperature


def brute_force(logits: Array, targets: Array, activation: str) -> float:
    """The best of a fine grid."""
    grid = np.exp(np.linspace(math.log(0.05), math.log(20), 1201))
    truth = np.eye(logits.shape[1])[targets]

    def loss(temperature: float) -> float:
        if activation == "softmax":
            return -float(np.log((special.softmax(logits / temperature, axis=1) * truth).sum(1)).mean())
        message = special.expit(np.where(truth, logits, -logits) / temperature)
        return -float(np.log(message).mean())

    return float(grid[int(np.argmin([loss(temperature) for temperature in grid]))])


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("factor", [0.4, 1.0, 6.0])
def test_the_temperature_is_the_one_of_the_smallest_log_loss(activation: str, classes: int, factor: float) -> None:
    logits, targets = drawn(1, classes, samples=150, temperature=factor)
    found = fitted(logits, targets, None, activation=activation).temperature
    assert found == pytest.approx(brute_force(logits, targets, activation), rel=0.006)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_a_known_temperature_is_found_again(temperature: float, classes: int) -> None:
    found = fitted(*drawn(0, classes, samples=20_000, temperature=temperature), None)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.fitted_on == "validation"


def test_answers_that_are_all_right_leave_the_temperature_at_1_and_say_why() -> None:
    targets = np.arange(12) % 2
    found = fitted(np.eye(2)[targets] * 3, targets, None)
    assert found.temperature == 1.0
    assert "temperature stays 1: all answers are right" in found.fitted_on


def test_sigmoids_that_are_all_on_the_right_side_leave_the_temperature_at_1() -> None:
    targets = np.arange(12) % 2
    right = (np.eye(2)[targets] - 0.5) * 3
    assert fitted(right, targets, None, activation="sigmoid").temperature == 1.0
    assert fitted(right + 2, targets, None, activation="sigmoid").temperature != 1.0


@pytest.mark.parametrize("point", [YOUDEN, None])
def test_samples_of_one_class_fit_neither_temperature_nor_threshold(point: OperatingPoint | None) -> None:
    logits, _ = drawn(0)
    found = fitted(logits, np.zeros(len(logits), np.int64), point)
    assert (found.temperature, found.threshold) == (1.0, None)
    assert "the samples are of one class only" in found.fitted_on
    assert ("no threshold" in found.fitted_on) == (point is not None)


def test_a_model_that_is_sure_and_wrong_keeps_its_probabilities_and_that_is_reported() -> None:
    targets = np.arange(40) % 2
    found = fitted(np.eye(2)[1 - targets] * 10, targets, None)
    assert found.temperature == 1.0
    assert "the answers tell the classes hardly apart" in found.fitted_on


def test_fitting_changes_nothing_that_it_is_given() -> None:
    logits, targets = drawn(0)
    before = logits.copy(), targets.copy()
    assert fitted(logits, targets) == fitted(logits, targets)
    assert np.array_equal(logits, before[0])
    assert np.array_equal(targets, before[1])


# Probabilities


def test_probabilities_are_those_of_the_divided_logits() -> None:
    logits, _ = drawn(0, 3)
    softmax = calibration.apply(Calibration(temperature=2.5), logits, "softmax")
    sigmoid = calibration.apply(Calibration(temperature=2.5), logits, "sigmoid")
    assert np.allclose(softmax, special.softmax(logits / 2.5, axis=1), atol=1e-7)
    assert np.allclose(sigmoid, special.expit(logits / 2.5), atol=1e-7)
    assert (softmax.dtype, sigmoid.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_enormous_logits_give_certainty_and_no_warning(activation: Literal["softmax", "sigmoid"]) -> None:
    found = calibration.apply(Calibration(temperature=0.05), np.array([[-5e4, 5e4]], np.float32), activation)
    assert found.tolist() == [[0.0, 1.0]]


# Thresholds


def threshold_of(positive: list[float], targets: list[int], text: str) -> float:
    """Of probabilities that are taken as they are, without a temperature."""
    message = np.array(positive)
    found, _ = calibration.choose_threshold(
        np.array(targets), np.stack([1 - message, message], 1), calibration.parse_point(text)
    )
    assert found is not None
    return found


SCORES = [0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1]
TRUTH = [1, 1, 0, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("youden", 0.35),  # 4/4 + 3/4 - 1 is the largest
        ("sensitivity:0.9", 0.35),  # all four are needed
        ("sensitivity:0.75", 0.35),  # three of four from 0.6 on; the fourth costs no specificity, so it is taken
        ("sensitivity:0.5", 0.75),
        ("specificity:0.9", 0.75),
        ("specificity:0.75", 0.35),
        ("specificity:0.5", 0.35),
    ],
)
def test_thresholds_of_a_hand_made_case(text: str, expected: float) -> None:
    assert threshold_of(SCORES, TRUTH, text) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ties", [False, True])
def test_the_threshold_is_the_best_point_of_scikit_learns_curve(seed: int, ties: bool) -> None:
    logits, targets = drawn(seed, samples=60)
    found = {
        text: fitted(logits.round() if ties else logits, targets, calibration.parse_point(text))
        for text in ("youden", "sensitivity:0.9", "specificity:0.9", "sensitivity:0.35", "specificity:1")
    }
    used = calibration.apply(found["youden"], logits.round() if ties else logits, "softmax")
    fpr, tpr, _ = sklearn_metrics.roc_curve(targets, used[:, 1], drop_intermediate=False)
    expected = {
        "youden": (tpr - fpr).max(),
        "sensitivity:0.9": (1 - fpr)[tpr >= 0.9 - 1e-12].max(),
        "specificity:0.9": tpr[1 - fpr >= 0.9 - 1e-12].max(),
        "sensitivity:0.35": (1 - fpr)[tpr >= 0.35 - 1e-12].max(),
        "specificity:1": tpr[fpr == 0].max(),
    }
    for text, fit in found.items():
        message = decide(used, fit.threshold)
        sensitivity = sklearn_metrics.recall_score(targets, message)
        specificity = sklearn_metrics.recall_score(targets, message, pos_label=0)
        rule, _, share = text.partition(":")
        got = {"youden": sensitivity + specificity - 1, "sensitivity": specificity, "specificity": sensitivity}[rule]
        assert got == pytest.approx(expected[text])
        if share:
            assert {"sensitivity": sensitivity, "specificity": specificity}[rule] >= float(share) - 1e-9


@pytest.mark.parametrize("text", ["youden", "sensitivity:0.9", "specificity:0.9"])
def test_the_threshold_lies_in_the_middle_of_a_gap_between_scores(text: str) -> None:
    logits, targets = drawn(3, samples=50)
    found = fitted(logits, targets, calibration.parse_point(text))
    assert found.threshold is not None
    scores = np.sort(calibration.apply(found, logits, "softmax")[:, 1].astype(np.float64))
    place = int(scores.searchsorted(found.threshold))
    assert found.threshold == pytest.approx((scores[place - 1] + scores[place]) / 2)


def test_of_equally_good_youden_points_the_more_sensitive_one_is_taken() -> None:
    assert threshold_of([0.8, 0.6, 0.4, 0.2], [1, 0, 1, 0], "youden") == pytest.approx(0.3)


def chance_of_such_a_best_point(truth: Sequence[int]) -> float:
    """In how many of all orders of the same positives and negatives the largest Youden index is at least this one's."""

    def best(order: Sequence[int]) -> float:
        fpr, tpr, _ = sklearn_metrics.roc_curve(order, -np.arange(len(order)), drop_intermediate=False)
        return float((tpr - fpr).max())

    orders = [
        [int(place in chosen) for place in range(len(truth))]
        for chosen in itertools.combinations(range(len(truth)), sum(truth))
    ]
    return float(np.mean([best(order) >= best(truth) - 1e-12 for order in orders]))


@pytest.mark.parametrize("truth", [truth for truth in itertools.product([0, 1], repeat=6) if len(set(truth)) == 2])
def test_a_ranking_that_is_luck_calls_everyone_positive_and_says_so(truth: tuple[int, ...]) -> None:
    """Of two patients each, positive, negative, negative, positive would call three of four healthy by luck."""
    scores = np.linspace(0.9, 0.4, len(truth))
    found, reason = calibration.choose_threshold(np.array(truth), np.stack([1 - scores, scores], 1), YOUDEN)
    fpr, tpr, _ = sklearn_metrics.roc_curve(truth, scores, drop_intermediate=False)
    luck = sklearn_metrics.roc_auc_score(truth, scores) <= 0.5 and chance_of_such_a_best_point(truth) > 0.5
    assert ("rank no better than guessing" in reason) == luck
    assert found is not None
    message = decide(np.stack([1 - scores, scores], 1), found)
    if luck:
        assert message.all()
    else:
        assert 2 * sklearn_metrics.balanced_accuracy_score(truth, message) - 1 == pytest.approx((tpr - fpr).max())


def test_a_ranking_that_separates_some_surely_and_others_last_keeps_its_best_point() -> None:
    """Its area is half, and its best point is none that chance reaches."""
    truth = [1] * 50 + [0] * 100 + [1] * 50
    assert sklearn_metrics.roc_auc_score(truth, -np.arange(200)) == 0.5
    assert threshold_of(list(np.linspace(0.9, 0.1, 200)), truth, "youden") == pytest.approx(0.9 - 49.5 * 0.8 / 199)


@pytest.mark.parametrize("text", ["sensitivity:0.5", "specificity:0.9"])
def test_a_figure_that_is_requested_is_reached_by_luck_too(text: str) -> None:
    assert threshold_of([0.8, 0.6, 0.4, 0.2], [1, 0, 0, 1], text) == pytest.approx(0.7)


def test_a_specificity_that_no_score_reaches_makes_nothing_positive() -> None:
    found = threshold_of([1.0, 0.5], [0, 1], "specificity:0.9")
    assert found > 1
    assert decide(np.array([[0.0, 1.0]]), found).tolist() == [0]


def test_a_sensitivity_that_needs_the_lowest_score_makes_everything_positive() -> None:
    assert decide(np.array([[1.0, 0.0]]), threshold_of([0.0, 0.5], [1, 0], "sensitivity:1")).tolist() == [1]


@pytest.mark.parametrize("score", ["mean", "max"])
def test_the_threshold_is_chosen_among_groups_where_they_are_known(score: Literal["mean", "max"]) -> None:
    logits, targets = drawn(5, samples=160)
    targets = np.repeat(targets[:40], 4)
    logits[:, 1] += 2 * targets
    groups = [f"p{i // 4}" for i in range(160)]
    found = fitted(logits, targets, groups=groups, group_score=score)
    slices = calibration.apply(found, logits, "softmax")[:, 1].astype(np.float64).reshape(40, 4)
    answers = slices.mean(1) if score == "mean" else slices.max(1)
    fpr, tpr, _ = sklearn_metrics.roc_curve(targets[::4], answers, drop_intermediate=False)
    message = answers >= found.threshold
    balanced = sklearn_metrics.balanced_accuracy_score(targets[::4], message)
    assert 2 * balanced - 1 == pytest.approx((tpr - fpr).max())
    assert found.fitted_on == "validation; the threshold on 40 groups"
    assert found.temperature == fitted(logits, targets).temperature


def test_there_is_no_threshold_without_a_rule_or_for_three_classes() -> None:
    assert fitted(*drawn(0), None).threshold is None
    assert fitted(*drawn(0, 3)).threshold is None


def test_scores_that_float32_cannot_distinguish_are_one() -> None:
    """The deployed graph gives 1.0 for both, so no threshold may lie between them."""
    logits = np.array([[0.0, 30.0], [0.0, 34.0], [0.0, -1.0]])
    positive = calibration.apply(Calibration(), logits, "softmax")[:, 1]
    assert decide(
        np.stack([1 - positive, positive], 1), threshold_of(list(positive), [0, 1, 0], "specificity:1")
    ).tolist() == [0, 0, 0]


# Curves


@pytest.mark.parametrize("ties", [False, True])
def test_curves_equal_scikit_learns(ties: bool) -> None:
    logits, targets = drawn(2, 3)
    probabilities = special.softmax(logits.round() if ties else logits, axis=1)
    for which in (0, 2):
        fpr, tpr, cuts = sklearn_metrics.roc_curve(targets == which, probabilities[:, which], drop_intermediate=False)
        roc = calibration.roc_points(targets, probabilities, which=which)
        assert np.allclose(roc.x, fpr)
        assert np.allclose(roc.y, tpr)
        assert np.array_equal(roc.thresholds, cuts)
        precision, recall, cuts = sklearn_metrics.precision_recall_curve(targets == which, probabilities[:, which])
        pr = calibration.pr_points(targets, probabilities, which=which)
        assert np.allclose(pr.x, recall[::-1])
        assert np.allclose(pr.y, precision[::-1])
        assert np.array_equal(pr.thresholds[1:], cuts[::-1])


def test_curves_are_of_the_last_class_where_none_is_named() -> None:
    logits, targets = drawn(2, 3)
    probabilities = special.softmax(logits, axis=1)
    named = calibration.roc_points(targets, probabilities, which=2)
    assert np.array_equal(calibration.roc_points(targets, probabilities).y, named.y)


@pytest.mark.parametrize("bins", [5, 10])
@pytest.mark.parametrize("seed", range(4))
def test_reliability_bins_equal_scikit_learns(seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.integers(0, 11, 300) / 10 if seed % 2 else rng.random(300)
    targets = (rng.random(300) < positive).astype(np.int64)
    observed, predicted = calibration_curve(targets, positive, n_bins=bins)
    found = calibration.reliability_bins(targets, np.stack([1 - positive, positive], 1), bins=bins)
    assert np.allclose(found.predicted, predicted)
    assert np.allclose(found.observed, observed)
    assert found.samples.sum() == 300
