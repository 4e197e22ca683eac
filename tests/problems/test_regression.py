"""Numbers with units, behind the contract of a problem."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn import metrics as theirs
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

import zooft
from zooft.deploy import conversion
from zooft.errors import ConfigError, DataError
from zooft.evaluation.evaluate import Evaluated, evaluate
from zooft.evaluation.predictions import Predictions
from zooft.problems.regression.scaling import HEAD
from zooft.report.blocks import Drawing, Row

LABELS = (zooft.Label(name="diameter", unit="mm"), zooft.Label(name="age", unit="years"))
PROBLEM = zooft.regression()
OPTIONS = zooft.RegressionOptions()


def targets(count: int, *, seed: int = 0, missing: bool = True) -> list[tuple[float | None, ...]]:
    """Two numbers of different sizes; every fifth diameter is unknown."""
    rng = np.random.default_rng(seed)
    rows = zip(rng.normal(12, 3, count).tolist(), rng.normal(54_000, 900, count).tolist(), strict=True)
    return [(None if missing and index % 5 == 0 else a, b) for index, (a, b) in enumerate(rows)]


def prepared(
    values: list[tuple[float | None, ...]], labels: tuple[zooft.Label, ...] = LABELS
) -> tuple[zooft.Label, ...]:
    return PROBLEM.training.prepare(labels, values, OPTIONS)


def predictions(count: int = 60) -> tuple[Predictions, tuple[zooft.Label, ...]]:
    values = targets(count)
    labels = prepared(values)
    outputs = {HEAD: np.random.default_rng(1).normal(size=(count, 2)).astype(np.float32)}
    return Predictions(samples=(), columns=PROBLEM.evaluation.columns(outputs, values, labels)), labels


# ------------------------------------------------------------------------------------------------- what is learnt


def test_targets_are_standardised_as_scikit_learn_does_and_unknown_ones_stay_unknown() -> None:
    values = targets(40)
    labels = prepared(values)
    table = np.array([[math.nan if number is None else number for number in row] for row in values])
    expected = StandardScaler().fit_transform(table)
    found = np.stack([PROBLEM.training.encode(row, labels) for row in values])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["smooth-l1", "mse"])
def test_halves_of_a_batch_add_up_to_torch_s_mean_over_the_known_numbers(kind: Any) -> None:
    rng = torch.Generator().manual_seed(0)
    found = torch.randn(9, 2, generator=rng, requires_grad=True)
    required = torch.randn(9, 2, generator=rng) * 2
    required[::3, 0] = math.nan
    loss = PROBLEM.training.loss(LABELS, [], zooft.RegressionOptions(loss=kind))
    halves = [loss({HEAD: found[rows]}, required[rows]) for rows in (slice(0, 4), slice(4, 9))]
    (sum(half.total for half in halves) / sum(half.weight for half in halves)).backward()
    known = ~required.isnan()
    other = found.detach().clone().requires_grad_()
    whole = (F.mse_loss if kind == "mse" else F.smooth_l1_loss)(other[known], required[known])
    whole.backward()
    torch.testing.assert_close(sum(half.total for half in halves) / sum(half.weight for half in halves), whole)
    torch.testing.assert_close(found.grad, other.grad)


@pytest.mark.parametrize(
    ("target", "right"),
    [
        ((1.0, 2.0), True), ((None, 2), True), ((None, None), False), ((1.0,), False), ([1.0, 2.0], False),
        ((math.nan, 1.0), False), ((math.inf, 1.0), False), (("1", 1.0), False), ((True, 1.0), False), (1.0, False),
    ],
)  # fmt: skip # a table of cases
def test_a_target_is_a_tuple_of_a_number_for_each_label(target: object, right: bool) -> None:
    found = PROBLEM.training.check(target, LABELS)
    assert bool(found) is not right
    assert right or "a tuple of 2 finite floats (diameter [mm], age [years])" in found


def test_a_split_spreads_quarters_evenly_and_a_record_counts_by_those_of_the_training_targets() -> None:
    values = [(float(number),) for number in range(100)]
    strata = PROBLEM.training.strata(values, LABELS[:1])
    assert np.bincount(strata.numbers).tolist() == [25, 25, 25, 25]
    assert strata.names[0] == "diameter up to 24.75"
    assert not strata.needed
    labels = prepared(values, LABELS[:1])
    of_few = PROBLEM.training.strata(values[:10], labels)
    assert of_few.names == strata.names
    assert set(of_few.numbers) == {0}


def test_what_cannot_be_learnt_is_reported() -> None:
    assert "diameter is 3 in all samples" in PROBLEM.training.unlearnable([(3.0,), (3.0,)], LABELS[:1])
    assert "no sample has a value of diameter" in PROBLEM.training.unlearnable([(None, 1.0), (None, 2.0)], LABELS)
    assert PROBLEM.training.unlearnable(targets(5), LABELS) == ""
    with pytest.raises(DataError, match="no training sample has a value of diameter"):
        prepared([(None, 1.0)])


def test_other_data_is_taken_in_the_model_s_order_and_unit_or_refused() -> None:
    age, diameter = LABELS[1], LABELS[0]
    training = PROBLEM.training
    assert training.unknown((age,), LABELS) == ""
    assert training.relabel((50.0,), (age,), LABELS) == (None, 50.0)
    assert training.relabel((50.0, 3.0), (age, diameter), LABELS) == (3.0, 50.0)
    assert "numbers that the model doesn't know: weight; it knows diameter, age" in training.unknown(
        (zooft.Label(name="weight"),), LABELS
    )
    assert "the data gives diameter in cm, and the model in mm" in training.unknown(
        (zooft.Label(name="diameter", unit="cm"),), LABELS
    )
    assert "without a unit" in training.unknown((zooft.Label(name="diameter"),), LABELS)


# ------------------------------------------------------------------------------------------------- cells of a table


def read(cells: list[str], column: str = "diameter [mm]", **options: Any) -> zooft.Targets:
    assert PROBLEM.training.read is not None
    rows = [{column: cell, "id": str(index)} for index, cell in enumerate(cells)]
    return PROBLEM.training.read(rows, [column], zooft.RegressionOptions(**options))


def test_the_header_names_the_unit_and_cells_may_repeat_it() -> None:
    found = read(["12.5", " 7 mm", "1e3", "-.5", "8."])
    assert found.labels == (zooft.Label(name="diameter", unit="mm"),)
    assert found.values == [(12.5,), (7.0,), (1000.0,), (-0.5,), (8.0,)]
    assert not found.faults


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("1,5", "a comma or a separator of thousands"),
        ("1,234.5", "a comma or a separator of thousands"),
        ("1'234", "a comma or a separator of thousands"),
        ("1 234", "more than one number"),
        ("3-4", "more than one number"),
        (">5", "a bound and no number"),
        ("nan", "no finite number"),
        ("inf", "no finite number"),
        ("1e999", "too large a number"),
        ("1_000", "in '_000', which isn't the column's unit"),
        ("12 cm", "in 'cm', which isn't the column's unit"),
        ("12 MM", "in 'MM', which isn't the column's unit"),
        ("12%", "in '%', which isn't the column's unit"),
        ("large", "no number"),
        (",5", "a number with a comma"),
        ("١٢", "no number"),
    ],
)
def test_a_cell_that_is_no_number_or_two_is_a_fault_of_its_row(cell: str, why: str) -> None:
    found = read(["3", cell])
    assert found.values == [(3.0,), None]
    assert list(found.faults) == [1]
    assert found.faults[1].startswith(f"diameter [mm] is {cell!r}, ")
    assert why in found.faults[1]
    assert found.faults[1].endswith("expected one number in mm, such as 12.5")


def test_an_empty_cell_is_a_fault_of_one_number_and_unknown_among_several() -> None:
    assert read(["3", ""]).faults == {1: "diameter [mm] is empty; expected one number in mm, such as 12.5"}
    assert PROBLEM.training.read is not None
    rows = [{"a": "1", "b": ""}, {"a": " ", "b": "2"}, {"a": "", "b": ""}, {"a": "3", "b": "4"}]
    found = PROBLEM.training.read(rows, ["a", "b"], OPTIONS)
    assert found.values == [(1.0, None), (None, 2.0), None, (3.0, 4.0)]
    assert list(found.faults) == [2]
    assert "a and b are empty" in found.faults[2]
    assert found.notes == tuple(
        f"1 of 3 rows have no {name}, which is left out of its loss and figures" for name in "ab"
    )


def test_a_column_that_is_empty_is_refused() -> None:
    with pytest.raises(DataError, match=r"the column 'diameter \[mm\]' is empty in all 2 rows; expected numbers"):
        read(["", "  "])


def test_units_can_be_given_and_must_not_contradict_the_header() -> None:
    assert read(["3 mm"], column="diameter", units=("mm",)).labels[0].unit == "mm"
    assert read(["3"], column="diameter", units=("diameter=cm",)).labels[0].unit == "cm"
    with pytest.raises(ConfigError, match="gives diameter in cm, and the header gives mm"):
        read(["3"], units=("diameter=cm",))
    with pytest.raises(ConfigError, match="a unit for width, and the columns of numbers are diameter"):
        read(["3"], units=("width=cm",))
    assert PROBLEM.training.read is not None
    with pytest.raises(DataError, match="several columns are called d"):
        PROBLEM.training.read([{"d [mm]": "1", "d": "2"}], ["d [mm]", "d"], OPTIONS)


# ------------------------------------------------------------------------------------------------- figures


def test_every_figure_is_scikit_learn_s() -> None:
    found, labels = predictions()
    mine = PROBLEM.evaluation.metrics(found, labels)
    scores: dict[str, list[float]] = {"r2": [], "mae": [], "rmse": []}
    for index, label in enumerate(labels):
        known = ~np.isnan(found["target"][:, index])
        pair = found["target"][known, index], found["prediction"][known, index]
        expected = {
            "r2": theirs.r2_score(*pair),
            "mae": theirs.mean_absolute_error(*pair),
            "rmse": theirs.root_mean_squared_error(*pair),
        }
        for name, value in expected.items():
            scores[name].append(value)
            assert mine[f"{name}/{label.name}"] == pytest.approx(value, rel=1e-12, abs=1e-12)
    for name, values in scores.items():
        assert mine[name] == pytest.approx(np.mean(values), rel=1e-12, abs=1e-12)
    assert set(mine) == {*scores, *(f"{name}/{label.name}" for name in scores for label in labels)}


def test_figures_of_one_number_are_in_its_unit_and_have_plain_names() -> None:
    values = [(1.0,), (2.0,), (6.0,)]
    labels = prepared(values, LABELS[:1])
    columns = PROBLEM.evaluation.columns({HEAD: np.zeros((3, 1), np.float32)}, values, labels)
    np.testing.assert_allclose(columns["prediction"], [3.0, 3.0, 3.0])  # 0 is the mean
    assert columns["target"].shape == (3,)
    mine = PROBLEM.evaluation.metrics(Predictions(samples=(), columns=columns), labels)
    assert mine == pytest.approx({"r2": 0.0, "mae": 2.0, "rmse": math.sqrt(14 / 3)})


def test_figures_of_nothing_and_of_targets_that_do_not_vary_are_undefined() -> None:
    columns = {"target": np.array([2.0, 2.0]), "prediction": np.array([2.0, 3.0])}
    mine = PROBLEM.evaluation.metrics(Predictions(samples=(), columns=columns), LABELS[:1])
    assert math.isnan(mine["r2"])
    assert mine["mae"] == 0.5
    nothing = {"target": np.array([math.nan]), "prediction": np.array([1.0])}
    assert all(
        map(math.isnan, PROBLEM.evaluation.metrics(Predictions(samples=(), columns=nothing), LABELS[:1]).values())
    )


def test_groups_are_means_or_maxima_and_unknown_numbers_do_not_count() -> None:
    columns = {
        "target": np.array([[1.0, math.nan], [3.0, math.nan], [5.0, 7.0]]),
        "prediction": np.array([[2.0, 1.0], [4.0, 3.0], [6.0, 5.0]]),
    }
    group = PROBLEM.evaluation.group
    assert group is not None
    given = Predictions(samples=(), columns=columns), [np.array([0, 1]), np.array([2])], LABELS
    mean, largest = group(*given, "mean"), group(*given, "max")
    np.testing.assert_array_equal(mean["target"], [[2.0, math.nan], [5.0, 7.0]])
    np.testing.assert_array_equal(mean["prediction"], [[3.0, 2.0], [6.0, 5.0]])
    np.testing.assert_array_equal(largest["target"], [[3.0, math.nan], [5.0, 7.0]])
    np.testing.assert_array_equal(largest["prediction"], [[4.0, 3.0], [6.0, 5.0]])


def test_an_evaluation_has_intervals_errors_by_number_and_plots() -> None:
    values = targets(60)
    labels = prepared(values)
    samples = [zooft.Sample(id=str(index), source=None, target=value) for index, value in enumerate(values)]
    outputs = {HEAD: np.random.default_rng(1).normal(size=(60, 2)).astype(np.float32)}
    found = Predictions(samples=samples, columns=PROBLEM.evaluation.columns(outputs, values, labels))
    evaluation = evaluate(PROBLEM, labels, found, split="val", resamples=50, seed=0, fitted={})
    low, high = evaluation.metrics["mae/age"].low, evaluation.metrics["mae/age"].high
    assert low is not None
    assert high is not None
    assert low < evaluation.metrics["mae/age"].value < high
    assert {"mae", "rmse", "mae/age", "rmse/diameter"} <= evaluation.smaller
    assert "r2/age" not in evaluation.smaller
    row = evaluation.details["numbers"][0]
    errors = (found["prediction"] - found["target"])[:, 0]
    errors = errors[~np.isnan(errors)]
    assert (row["name"], row["unit"], row["samples"]) == ("diameter", "mm", 48)
    assert row["bias"] == pytest.approx(errors.mean())
    assert row["high"] == pytest.approx(errors.mean() + 1.96 * np.std(errors, ddof=1))
    sections = PROBLEM.presentation.sections
    assert sections is not None
    blocks = sections(Evaluated(predictions=found, evaluation=evaluation), labels, {}, "")
    drawings = [one for block in blocks if isinstance(block, Row) for one in block.blocks]
    assert [one.title for one in drawings if isinstance(one, Drawing)] == [
        "diameter: predicted and true",
        "diameter: errors",
        "age: predicted and true",
        "age: errors",
    ]
    assert all(isinstance(one, Drawing) and "<svg" in one.svg for one in drawings)


# ------------------------------------------------------------------------------------------------- the file and how answers are shown


class _OfHead(torch.nn.Module):
    """A graph whose input is the head's output."""

    def __init__(self, last: torch.nn.Module) -> None:
        super().__init__()
        self.last = last

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = self.last({HEAD: x}, (x,))
        return found


def test_the_file_gives_numbers_in_their_units_at_every_batch_size(tmp_path: Path) -> None:
    values = targets(40)
    labels = prepared(values)
    outputs = PROBLEM.deployment.outputs(labels, {})
    assert [(one.name, one.axes, one.unit) for one in outputs] == [("value", ("batch", 2), "mm, years")]
    graph = _OfHead(PROBLEM.deployment.graph(labels, {})).eval()
    proto = conversion.convert(
        graph, [torch.randn(2, 2)], inputs=["x"], outputs=[one.name for one in outputs], axes=({0: "batch"},)
    )
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for size in (1, 5):
        x = torch.randn(size, 2, generator=torch.Generator().manual_seed(size))
        (given,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(given, graph(x)[0].numpy(), rtol=1e-6)
        known = PROBLEM.evaluation.columns({HEAD: x.numpy()}, [None] * size, labels)
        of_file = PROBLEM.deployment.columns({"value": given}, [None] * size, labels, {})
        np.testing.assert_allclose(of_file["prediction"], known["prediction"], rtol=1e-6)


def test_a_number_in_small_units_is_not_hidden_by_one_in_large_ones() -> None:
    labels = prepared(targets(40))
    torch_s = {"value": np.array([[12.0, 54_000.0], [15.0, 53_000.0]])}
    moved = {"value": torch_s["value"] + [1.0, 0.0]}
    assert PROBLEM.deployment.agree(torch_s, torch_s, labels, {}, {}) == ()
    (fault,) = PROBLEM.deployment.agree(torch_s, moved, labels, {}, {})
    assert fault.startswith("diameter differs by")


def test_answers_are_shown_with_units() -> None:
    found, labels = predictions(6)
    shown = PROBLEM.presentation
    cells = shown.cells(found, labels, {})
    assert list(cells) == list(shown.columns(labels)) == ["diameter [mm]", "age [years]"]
    row = {"diameter [mm]": 12.345678, "age [years]": 54321.9}
    assert shown.brief(row, labels) == {"diameter": "12.35 mm", "age": "54,322 years"}
    assert shown.brief({"diameter [mm]": "", "age [years]": ""}, labels) == {"diameter": "", "age": ""}
    assert shown.record(row, labels) == {"values": {"diameter": 12.345678, "age": 54321.9}}
    assert shown.target((None, 0.1), labels) == "diameter unknown; age 0.1 years"
    assert shown.target((0.1,), LABELS[:1]) == "0.1 mm"


def test_the_worst_answer_is_the_one_with_the_largest_error_of_any_number() -> None:
    labels = prepared(targets(40))
    columns = {
        "target": np.array([[12.0, 54_000.0], [12.0, 54_000.0], [math.nan, 54_000.0]]),
        "prediction": np.array([[12.0, 54_100.0], [20.0, 54_000.0], [99.0, 54_000.0]]),
    }
    worst = PROBLEM.presentation.worst(Predictions(samples=(), columns=columns), labels)
    assert worst.argmax() == 1
    assert worst[2] == 0
