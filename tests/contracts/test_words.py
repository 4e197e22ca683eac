"""Lists are cut with a count, figures say when they are undefined."""

from __future__ import annotations

import math

import pytest

import zooft
from zooft.evaluation.bootstrap import Interval


@pytest.mark.parametrize(
    ("names", "text"),
    [("", ""), ("a", "a"), ("abc", "a, b, c"), ("abcd", "a, b, c and 1 more"), ("abcde", "a, b, c and 2 more")],
)
def test_a_list_is_cut_with_a_count(names: str, text: str) -> None:
    assert zooft.list_some(list(names), 3) == text


def test_large_counts_are_grouped() -> None:
    assert zooft.list_some(["a"] * 12_346, 1) == "a and 12,345 more"


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.91249, 0.8, 0.95, "0.912 (0.800 to 0.950)"),
        (0.91249, None, None, "0.912"),
        (0.91249, math.nan, math.nan, "0.912"),
        (math.nan, 0.8, 0.95, "undefined"),
        (math.inf, 0.8, 0.95, "undefined"),
    ],
)
def test_a_figure_has_its_interval_or_none(value: float, low: float | None, high: float | None, text: str) -> None:
    assert zooft.format_figure(value, Interval(value, low, high)) == text


def test_numbers_are_written_as_wanted() -> None:
    assert zooft.format_figure(-1234.5, Interval(-1234.5, -2000, 10), form="+,.0f") == "-1,234 (-2,000 to +10)"
    assert [zooft.format_figure(each, form=".0%") for each in (0.25, None)] == ["25%", "undefined"]
