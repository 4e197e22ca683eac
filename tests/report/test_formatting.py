"""Numbers and names as a reader wants them, against what a person would write."""

from __future__ import annotations

import math
import re

import pytest

from zooft.contracts import OutputDifference
from zooft.evaluation.bootstrap import Interval
from zooft.report import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.98765, "0.988"), (1.0, "1.000"), (None, "undefined"), (math.nan, "undefined"), (math.inf, "undefined")],
)
def test_a_figure_has_three_digits_or_is_undefined(value: float | None, text: str) -> None:
    assert formatting.figure(value) == text


def test_an_interval_stands_behind_its_figure_where_there_is_one() -> None:
    assert formatting.with_interval(Interval(0.9, 0.85, 0.9449)) == "0.900 (0.850 to 0.945)"
    assert formatting.with_interval(Interval(0.9, None, None)) == "0.900"
    assert formatting.interval(Interval(0.9, None, 0.95)) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("balanced_accuracy", "Balanced accuracy"), ("auroc", "AUROC"), ("r2", "R2"), ("map", "mAP"),
        ("ap_small", "AP small"), ("ap50/cell", "AP50 of cell"), ("macro_f1", "Macro F1"),
        ("sensitivity_at_specificity_95", "Sensitivity at specificity 95 %"),
    ],
)  # fmt: skip # a table of cases
def test_metrics_are_called_as_the_field_calls_them(name: str, text: str) -> None:
    assert formatting.metric(name) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.02, "0.02 s"), (0.94, "0.94 s"), (1.26, "1.3 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"),
        (200, "3 min 20 s"), (3599.7, "1 h 0 min"), (7500, "2 h 5 min"), (90_000, "25 h 0 min"),
    ],
)  # fmt: skip # a table of cases
def test_durations_are_in_the_units_of_a_clock(value: float, text: str) -> None:
    assert formatting.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(999, "999 B"), (1000, "1.0 kB"), (4_240_000, "4.2 MB"), (999_960, "1.0 MB"), (999_960_000, "1.0 GB"), (5e12, "5000.0 GB")],
)  # fmt: skip # a table of cases
def test_sizes_are_in_powers_of_ten(value: float, text: str) -> None:
    assert formatting.size(value) == text


@pytest.mark.parametrize("number", [0, 999, 1000, 9_949, 9_999, 10_000, 999_499, 999_500, 3_400_000])
def test_parameters_are_within_their_last_digit(number: int) -> None:
    found = re.fullmatch(r"(\d+)(\.\d)?(?: ([kM]))?", formatting.parameters(number))
    assert found is not None
    unit = {None: 1, "k": 1000, "M": 1_000_000}[found[3]]
    value = float(f"{found[1]}{found[2] or ''}") * unit
    assert abs(value - number) <= (unit / 10 if found[2] else unit) / 2
    assert number < 1000 or float(found[1]) < 1000


def test_parameters_are_short() -> None:
    assert [formatting.parameters(n) for n in (512, 3_420, 12_345, 3_400_000)] == ["512", "3.4 k", "12 k", "3.4 M"]


def test_plurals_of_group_names() -> None:
    assert [formatting.plural(one) for one in ("group", "patient", "study", "series")] == [
        "groups",
        "patients",
        "studies",
        "series",
    ]
    assert [formatting.split(name) for name in ("val", "all", "other")] == ["validation", "all data", "other"]


@pytest.mark.parametrize(
    ("measure", "text"),
    [
        ("spread", "differs by 2.0e-03 of its spread among samples"),
        ("absolute", "differs by at most 2.0e-03"),
        ("exact", "differs in 0.20% of the samples"),
    ],
)
def test_a_difference_says_what_it_is_measured_by(measure: str, text: str) -> None:
    found = OutputDifference(measure=measure, whole=0.002, network=None, limit=0.01)  # type: ignore[arg-type]
    assert formatting.difference(found, 0.002) == text
