"""What a group counts as whose samples are of several classes, against counts by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import zooft
from zooft.contracts import Label
from zooft.evaluation.evaluate import evaluate
from zooft.evaluation.groups import group_predictions, members_of
from zooft.evaluation.predictions import Predictions
from zooft.problems.classification.groups import class_of_group, decisive

CANCER_CYST_HEALTHY = ("cancer", "cyst", "healthy")
PROBLEM = zooft.classification()

TRUTHS = {
    "one slice of cancer": (CANCER_CYST_HEALTHY, "healthy", "healthy healthy cancer healthy", "cancer"),
    "nothing but healthy": (CANCER_CYST_HEALTHY, "healthy", "healthy healthy", "healthy"),
    "more of cyst than of cancer": (CANCER_CYST_HEALTHY, "healthy", "healthy cyst cancer cyst healthy healthy", "cyst"),
    "more of cancer than of cyst": (CANCER_CYST_HEALTHY, "healthy", "cancer cyst cancer healthy", "cancer"),
    "as many of cyst as of cancer": (CANCER_CYST_HEALTHY, "healthy", "cyst cancer healthy healthy healthy", "cyst"),
    "the same, cancer later": (("cyst", "cancer", "healthy"), "healthy", "cyst cancer healthy healthy", "cancer"),
    "nothing found in the middle": (("benign", "normal", "malignant"), "normal", "normal normal benign", "benign"),
    "nothing found first": (("normal", "benign", "malignant"), "normal", "normal malignant normal", "malignant"),
    "no word is known": (("ant", "bee", "wasp"), "", "ant ant wasp", "ant"),
    "no word is known, equally many": (("ant", "bee", "wasp"), "", "bee ant wasp bee ant", "bee"),
    "two classes": (("healthy", "cancer"), "", "healthy healthy cancer", "cancer"),
    "two classes, the other one looked for": (("cancer", "healthy"), "", "cancer cancer healthy", "healthy"),
}


@pytest.mark.parametrize("case", TRUTHS)
def test_the_truth_of_a_group_whose_samples_differ(case: str) -> None:
    classes, nothing, samples, expected = TRUTHS[case]
    labels = zooft.class_labels(classes, nothing=nothing)
    targets = [classes.index(name) for name in samples.split()]
    assert classes[class_of_group(targets, labels)] == expected
    assert classes[class_of_group(targets[::-1], labels)] == expected


def given(targets: Sequence[int], probabilities: Sequence[Sequence[float]]) -> Predictions:
    return Predictions(samples=(), columns={"target": np.array(targets), "probabilities": np.array(probabilities)})


def test_the_slice_that_is_least_likely_nothing_speaks_for_the_group() -> None:
    rows = [[0.10, 0.20, 0.70], [0.55, 0.25, 0.20], [0.05, 0.05, 0.90]]
    found = given([2, 0, 2], rows)
    known, unknown = (zooft.class_labels(CANCER_CYST_HEALTHY, nothing=nothing) for nothing in ("healthy", ""))
    assert (decisive(found, known), decisive(found, unknown)) == (1, 2)
    for labels, row, true in ((known, 1, 0), (unknown, 2, 2)):
        group = group_predictions(PROBLEM, found, [np.arange(3)], labels, "max")
        assert group is not None
        assert group["probabilities"].tolist() == [rows[row]]
        assert group["target"].tolist() == [true]
    mean = group_predictions(PROBLEM, found, [np.arange(3)], known, "mean")
    assert mean is not None
    np.testing.assert_allclose(mean["probabilities"], [[0.7 / 3, 0.5 / 3, 1.8 / 3]])
    assert mean["target"].tolist() == [0]


def test_of_two_classes_the_second_s_likeliest_sample_speaks_and_any_makes_the_group_positive() -> None:
    rows = [[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]]
    labels = zooft.class_labels(("healthy", "cancer"))
    found = given([0, 0, 1], rows)
    group = group_predictions(PROBLEM, found, [np.arange(3)], labels, "max")
    assert group is not None
    assert (group["probabilities"].tolist(), group["target"].tolist(), decisive(found, labels)) == ([rows[1]], [1], 1)


def test_samples_without_a_target_have_no_say() -> None:
    labels = zooft.class_labels(CANCER_CYST_HEALTHY, nothing="healthy")
    assert class_of_group([-1, -1], labels) == -1
    assert class_of_group([-1, -1, 0, 2], labels) == 0


def test_confusion_per_patient_has_the_patient_with_one_slice_of_cancer_among_cancer() -> None:
    samples = [
        zooft.Sample(id=f"s{i}", source=None, target=target, group=f"p{i // 3}")
        for i, target in enumerate([2, 0, 2, 2, 2, 2, 1, 1, 2])
    ]
    rows = np.eye(3)[[2, 0, 2, 2, 2, 2, 2, 1, 2]]
    targets = np.array([sample.target for sample in samples])
    predictions = Predictions(samples=samples, columns={"target": targets, "probabilities": rows})
    found = evaluate(
        PROBLEM,
        zooft.class_labels(CANCER_CYST_HEALTHY, nothing="healthy"),
        predictions,
        split="test",
        resamples=0,
        seed=0,
        fitted={},
        group_rule="max",
    )
    assert found.mixed_groups == 2
    assert found.details["group_confusion"] == ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    assert found.group_metrics["accuracy"].value == 1.0


def test_nothing_must_be_one_of_three_or_more_classes() -> None:
    for names in (("a", "b", "c"), ("a", "normal")):
        with pytest.raises(ValueError, match="nothing is 'normal', expected one of three or more classes"):
            zooft.class_labels(names, nothing="normal")


def test_python_in_the_report_says_the_same_row() -> None:
    usage = PROBLEM.presentation.usage
    labels = zooft.class_labels(CANCER_CYST_HEALTHY, nothing="healthy")
    lines = usage(labels, {}, "max", "patient")
    names: dict[str, object] = {
        "outputs": {"probabilities": np.array([[0.1, 0.2, 0.7], [0.6, 0.2, 0.2], [0.0, 0.1, 0.9]])}
    }
    exec("\n".join(lines), names)  # noqa: S102 -- what users are shown to run
    assert np.asarray(names["answer"]).tolist() == [0.6, 0.2, 0.2]


def test_labels_without_it_are_read_as_before() -> None:
    assert Label(name="class", categories=("a", "b", "c")).nothing == ""
    assert members_of(["p", None, "p"])[0].tolist() == [0, 2]
