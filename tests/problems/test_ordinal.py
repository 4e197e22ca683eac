"""Ordered grades, behind the contract of a problem."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn import metrics as theirs

import zooft
from zooft.data.split import split
from zooft.deploy import conversion
from zooft.errors import ConfigError, DataError
from zooft.evaluation.evaluate import Evaluated, evaluate
from zooft.evaluation.predictions import Predictions
from zooft.problems.ordinal.links import HEAD, cumulative_logits, median_grade, probabilities
from zooft.problems.ordinal.losses import cumulative
from zooft.report.blocks import Row, Shaded

PROBLEM = zooft.ordinal()
LABELS = zooft.class_labels(["none", "mild", "moderate", "severe"], name="stage")


def steps(count: int, *, seed: int = 0, grades: int = 4) -> torch.Tensor:
    return torch.randn(count, grades - 1, generator=torch.Generator().manual_seed(seed)) * 2


def predictions(count: int = 80) -> Predictions:
    targets = np.random.default_rng(3).integers(0, 4, count).tolist()
    samples = [zooft.Sample(id=str(index), source=None, target=target) for index, target in enumerate(targets)]
    columns = PROBLEM.evaluation.columns({HEAD: steps(count).numpy()}, targets, LABELS)
    return Predictions(samples=samples, columns=columns)


def test_the_loss_is_the_likelihood_of_the_grades_and_halves_of_a_batch_add_up() -> None:
    raw, targets = steps(9).requires_grad_(), torch.tensor([0, 1, 2, 3, 3, 0, 1, 2, 0])
    loss = PROBLEM.training.loss(LABELS, [], zooft.OrdinalOptions())
    halves = [loss({HEAD: raw[rows]}, targets[rows]) for rows in (slice(0, 4), slice(4, 9))]
    found = sum(half.total for half in halves) / sum(half.weight for half in halves)
    # by the definition: differences of sigmoids at ordered thresholds, in float64
    given = probabilities(cumulative_logits(raw.detach().numpy()))
    expected = -np.log(given[np.arange(9), targets.numpy()]).mean()
    assert found.item() == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert raw.grad is not None
    assert bool(raw.grad.isfinite().all())


def test_gradients_are_those_of_finite_differences() -> None:
    loss = PROBLEM.training.loss(LABELS, [], zooft.OrdinalOptions())
    targets = torch.tensor([0, 1, 2, 3])
    assert torch.autograd.gradcheck(lambda raw: loss({HEAD: raw}, targets).total, steps(4).double().requires_grad_())


@pytest.mark.parametrize("size", [40.0, -40.0, 300.0, -300.0])
def test_the_loss_of_sure_answers_stays_finite(size: float) -> None:
    raw = torch.full((4, 3), size, requires_grad=True)
    loss = PROBLEM.training.loss(LABELS, [], zooft.OrdinalOptions())
    total = loss({HEAD: raw}, torch.arange(4)).total
    total.backward()
    assert math.isfinite(total.item())
    assert raw.grad is not None
    assert bool(raw.grad.isfinite().all())


def test_probabilities_are_of_ordered_thresholds_whatever_the_head_gives() -> None:
    raw = steps(200, grades=6)
    logits = cumulative_logits(raw.numpy())
    assert (np.diff(logits, axis=1) < 0).all()
    np.testing.assert_allclose(logits, cumulative(raw.double()).numpy(), rtol=1e-12)
    given = probabilities(logits)
    assert (given >= 0).all()
    np.testing.assert_allclose(given.sum(1), 1)
    np.testing.assert_array_equal(median_grade(given), (logits > 0).sum(1))
    np.testing.assert_array_equal(median_grade(given), (given.cumsum(1) < 0.5).sum(1))  # the median's definition


def test_every_figure_is_scikit_learn_s() -> None:
    found = predictions()
    true, said = found["target"], found["prediction"]
    mine = PROBLEM.evaluation.metrics(found, LABELS)
    kappa = theirs.cohen_kappa_score(true, said, labels=range(4), weights="quadratic")
    assert mine["quadratic_kappa"] == pytest.approx(kappa, abs=1e-12)
    assert mine["mae"] == pytest.approx(theirs.mean_absolute_error(true, said), abs=1e-12)
    assert mine["accuracy"] == pytest.approx(theirs.accuracy_score(true, said), abs=1e-12)
    assert mine["within_one_grade"] == pytest.approx(np.mean(abs(true - said) <= 1), abs=1e-12)


def test_kappa_of_one_grade_alone_and_figures_of_nothing_are_undefined() -> None:
    alike = {"target": np.ones(3, np.int64), "prediction": np.ones(3, np.int64)}
    mine = PROBLEM.evaluation.metrics(Predictions(samples=(), columns=alike), LABELS)
    assert math.isnan(mine["quadratic_kappa"])
    assert mine["accuracy"] == 1
    nothing = {name: column[:0] for name, column in alike.items()}
    assert all(map(math.isnan, PROBLEM.evaluation.metrics(Predictions(samples=(), columns=nothing), LABELS).values()))


def test_a_group_is_its_median_grade_or_its_highest() -> None:
    given = np.array([[0.9, 0.1, 0, 0], [0.2, 0.8, 0, 0], [0.0, 0.2, 0.1, 0.7], [0.0, 1, 0, 0]])
    columns = {"target": np.array([0, 1, 3, 2]), "probabilities": given, "prediction": np.array([0, 1, 3, 1])}
    group = PROBLEM.evaluation.group
    assert group is not None
    parts = Predictions(samples=(), columns=columns), [np.array([0, 1, 2]), np.array([3])], LABELS
    mean, highest = group(*parts, "mean"), group(*parts, "max")
    np.testing.assert_allclose(mean["probabilities"][0], given[:3].mean(0))
    assert mean["target"].tolist() == [1, 2]
    assert mean["prediction"].tolist() == [1, 1]
    assert highest["target"].tolist() == [3, 2]
    assert highest["prediction"].tolist() == [3, 1]


def test_an_evaluation_has_intervals_and_a_matrix_of_grades() -> None:
    found = predictions()
    evaluation = evaluate(PROBLEM, LABELS, found, split="val", resamples=50, seed=0, fitted={})
    kappa = evaluation.metrics["quadratic_kappa"]
    assert kappa.low is not None
    assert kappa.high is not None
    assert kappa.low < kappa.value < kappa.high
    matrix = theirs.confusion_matrix(found["target"], found["prediction"], labels=range(4))
    np.testing.assert_array_equal(evaluation.details["confusion"], matrix)
    sections = PROBLEM.presentation.sections
    assert sections is not None
    blocks = sections(Evaluated(predictions=found, evaluation=evaluation), LABELS, {}, "")
    assert isinstance(blocks[0], Row)
    assert isinstance(blocks[0].blocks[0], Shaded)
    np.testing.assert_array_equal(blocks[0].blocks[0].counts, matrix)


# ------------------------------------------------------------------------------------------------- cells of a table


def read(cells: list[str], *grades: str) -> zooft.Targets:
    assert PROBLEM.training.read is not None
    return PROBLEM.training.read([{"stage": cell} for cell in cells], ["stage"], zooft.OrdinalOptions(grades=grades))


def test_whole_numbers_are_a_scale_with_those_that_nobody_has() -> None:
    found = read(["3", "1", " 1.0 ", "0"])
    assert found.labels == zooft.class_labels(["0", "1", "2", "3"], name="stage")
    assert found.values == [3, 1, 1, 0]
    assert not found.faults
    assert found.notes == ("no row has the stage 2, so nothing is trained for it but its place in the scale",)


def test_a_grade_outside_its_scale_is_a_fault_of_its_row() -> None:
    found = read(["mild", "none", "severe", "", "Mild"], "none", "mild", "severe")
    assert found.values == [1, 0, 2, None, None]
    assert found.faults == {
        3: "stage is empty; expected one of the grades none, mild, severe",
        4: "stage is 'Mild'; expected one of the grades none, mild, severe",
    }
    assert read(["5", "2"], "0", "1", "2").faults == {0: "stage is '5'; expected one of the grades 0, 1, 2"}
    assert read(["1", "2", "2.5"]).faults == {2: "stage is '2.5'; expected one of the grades 1, 2"}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["", " "], "the column 'stage' is empty in all 2 rows; expected a grade in each"),
        (
            ["mild", "severe"],
            "aren't whole numbers .such as 'mild', 'severe'., so their order isn't known; give it with --grades",
        ),
        (["1", "1000"], "numbers from 1 to 1000, too many to be grades; learn them as a regression"),
    ],
)
def test_a_column_without_a_scale_is_refused(cells: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(cells)


@pytest.mark.parametrize(
    ("grades", "message"),
    [(("a", "a"), "has 'a' twice"), (("a", ""), "has an empty name"), (("a",), "has a single grade")],
)
def test_a_scale_that_is_none_is_refused(grades: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(["a"], *grades)


@pytest.mark.parametrize(("target", "right"), [(0, True), (np.int64(3), True), (4, False), (-1, False), (1.0, False)])
def test_a_target_is_the_index_of_a_grade(target: object, right: bool) -> None:
    assert bool(PROBLEM.training.check(target, LABELS)) is not right


def test_other_data_is_taken_by_the_names_of_its_grades_or_refused() -> None:
    training, some = PROBLEM.training, zooft.class_labels(["mild", "severe"], name="stage")
    assert training.unknown(some, LABELS) == ""
    assert training.relabel(1, some, LABELS) == 3
    assert "grades that the model doesn't know: worst" in training.unknown(zooft.class_labels(["worst"]), LABELS)
    turned = zooft.class_labels(["severe", "mild"])
    assert "in this order, and the model none, mild" in training.unknown(turned, LABELS)


def test_a_grade_of_a_single_sample_and_one_of_none_can_be_split() -> None:
    targets = [0] * 20 + [1] * 20 + [3]
    samples = [zooft.Sample(id=str(index), source=None, target=target) for index, target in enumerate(targets)]
    found = split(samples, PROBLEM.training.strata(targets, LABELS), fraction=0.25, seed=0)
    held = [sample.target for sample in found.val]
    assert len(found.train) + len(found.val) == 41
    assert held.count(0) == 5
    assert len(held) in (10, 11)
    assert not any("class" in note for note in found.notes)


# ------------------------------------------------------------------------------------------------- the file and how answers are shown


class _OfHead(torch.nn.Module):
    """A graph whose input is the head's output."""

    def __init__(self, last: torch.nn.Module) -> None:
        super().__init__()
        self.last = last

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = self.last({HEAD: x}, (x,))
        return found


def test_the_file_gives_probabilities_and_grades_at_every_batch_size(tmp_path: Path) -> None:
    outputs = PROBLEM.deployment.outputs(LABELS, {})
    names = [one.name for one in outputs]
    assert names == ["probabilities", "cumulative_logits", "grade"]
    graph = _OfHead(PROBLEM.deployment.graph(LABELS, {})).eval()
    proto = conversion.convert(graph, [steps(2)], inputs=["x"], outputs=names, axes=({0: "batch"},))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for size in (1, 50):
        x = steps(size, seed=size)
        given: dict[str, Any] = dict(zip(names, session.run(None, {"x": x.numpy()}), strict=True))
        ours = {name: tensor.numpy() for name, tensor in zip(names, graph(x), strict=True)}
        np.testing.assert_allclose(given["probabilities"], ours["probabilities"], atol=1e-6)
        np.testing.assert_array_equal(given["grade"], ours["grade"])
        assert given["grade"].dtype == np.int64
        assert PROBLEM.deployment.agree(ours, given, LABELS, {}, {"cumulative_logits": 1e-4}) == ()
        known = PROBLEM.evaluation.columns({HEAD: x.numpy()}, [None] * size, LABELS)
        of_file = PROBLEM.deployment.columns(given, [None] * size, LABELS, {})
        np.testing.assert_array_equal(of_file["prediction"], known["prediction"])
        np.testing.assert_allclose(of_file["probabilities"], known["probabilities"], atol=1e-6)


def test_moved_grades_and_grades_that_contradict_their_logits_do_not_agree() -> None:
    ours = {"cumulative_logits": np.array([[1.0, -1.0, -2.0]]), "grade": np.array([1])}
    near = {"cumulative_logits": np.array([[1.0, 1e-3, -2.0]]), "grade": np.array([2])}
    agree = PROBLEM.deployment.agree
    assert "1 sample gets another grade" in agree(ours, near, LABELS, {}, {"cumulative_logits": 0.1})[0]
    close = {"cumulative_logits": np.array([[1.0, -1e-3, -2.0]]), "grade": np.array([1])}
    assert agree(close, near, LABELS, {}, {"cumulative_logits": 0.1}) == ()
    assert "isn't the one that" in agree(ours, {**ours, "grade": np.array([3])}, LABELS, {}, {})[0]


def test_answers_are_shown_by_name_and_the_farthest_first() -> None:
    found, shown = predictions(), PROBLEM.presentation
    cells = shown.cells(found, LABELS, {})
    assert list(cells) == list(shown.columns(LABELS)) == ["stage", "p(none)", "p(mild)", "p(moderate)", "p(severe)"]
    row = {name: column[0] for name, column in cells.items()}
    assert shown.record(row, LABELS)["grade"] == row["stage"] == LABELS[0].categories[found["prediction"][0]]
    sure = {
        "target": np.array([0, 0, 0]),
        "prediction": np.array([0, 1, 3]),
        "probabilities": np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]),
    }
    given = Predictions(samples=(), columns=sure)
    assert shown.worst(given, LABELS).tolist() == [0, 1, 3]
    assert shown.wrong is not None
    assert shown.wrong(given, LABELS).tolist() == [False, True, True]
