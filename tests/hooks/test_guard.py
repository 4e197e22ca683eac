"""What crosses the line between zooft and plugins: values against their types, and functions that fail or answer amiss."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import zooft
from zooft.errors import PluginError
from zooft.hooks.guard import (
    LARGEST_ROW,
    call_plugin,
    first_misfit,
    guard_functions,
    misfit_of,
    place_of,
    redirect_prints,
)
from zooft.hooks.loading import PluginInfo

PLUGIN = PluginInfo(name="mine", distribution="my-package", version="1")


# Values against types


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, 3), (int, np.int64(3)), (float, 3), (float, np.float32(0.5)), (float, np.array(0.5)), (bool, np.True_), (str, ""),
        (tuple[int, ...], [1, 2]), (frozenset[str], {"a"}), (Sequence[str], ["a"]), (Mapping[str, int], {"a": 1}),
        (int | None, None), (Literal["a", "b"], "b"), (Callable[[int], int], len), (Any, object()), (Path, Path("x")),
        (Sequence[int], range(3)),
    ],
)  # fmt: skip # a table of cases
def test_what_is_of_a_type_fits_it(hint: Any, value: Any) -> None:
    assert first_misfit(hint, value) is None


@pytest.mark.parametrize(
    ("hint", "value", "where", "expected"),
    [
        (int, 0.5, "", "a whole number"), (int, "3", "", "a whole number"), (float, "0.5", "", "a number"),
        (float, np.zeros(2), "", "a number"), (bool, 1, "", "True or False"), (str, b"a", "", "text"),
        (Sequence[str], "abc", "", "a sequence of text"), (tuple[int, int], (1, 2, 3), "", "a tuple of a whole number and a whole number"),
        (tuple[int, str], (1, 2), "[1]", "text"), (tuple[int, ...], (1, "b"), "[1]", "a whole number"), (Mapping[str, int], {"a": 1, "b": None}, "['b']", "a whole number"),
        (Mapping[str, tuple[str, ...]], {"a": ("x", 7)}, "['a'][1]", "text"), (int | None, "x", "", "a whole number or None"),
        (Literal["a", "b"], "c", "", "'a' or 'b'"), (Callable[[int], int], 3, "", "a function"),
    ],
)  # fmt: skip # a table of cases
def test_what_is_not_is_named_with_its_place(hint: Any, value: Any, where: str, expected: str) -> None:
    found = first_misfit(hint, value)
    assert found is not None
    assert (found.where, found.expected) == (where, expected)


def test_the_field_of_one_of_our_types_that_does_not_fit_is_named() -> None:
    discovery = zooft.Discovery(samples=(), labels=(zooft.Label(name="a"), zooft.Label(name="b", categories=("x", 3))))  # type: ignore[arg-type]
    found = misfit_of(discovery)
    assert found is not None
    assert (found.where, found.came) == ("labels[1].categories[1]", 3)


# Functions


def source(**functions: Any) -> zooft.Source:
    """Registered, as far as its functions know."""
    given = {
        "recognises": lambda _: True,
        "columns": lambda _: [],
        "rows": lambda _path, _wanted: iter(()),
        "content": bytes,
    }
    return guard_functions(zooft.Source(name="form", summary="", **{**given, **functions}), PLUGIN)


def test_what_a_function_raises_names_plugin_hook_and_field() -> None:
    def broken(_path: Path) -> bool:
        raise KeyError("lost")

    with pytest.raises(PluginError) as caught:
        source(recognises=broken).recognises(Path("x"))
    assert str(caught.value) == (
        "the data source form failed in recognises: KeyError: 'lost' (plugin mine of my-package 1, hook zooft_register_sources, "
        "field Source.recognises)"
    )
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.code.rpartition(", line ")[0] == __file__


def test_exits_are_caught_and_what_is_meant_for_the_user_passes() -> None:
    def leaves(_path: Path) -> bool:
        raise SystemExit(3)

    def says(_path: Path) -> bool:
        raise zooft.DataError("the disk is elsewhere")

    with pytest.raises(PluginError, match="SystemExit: 3"):
        source(recognises=leaves).recognises(Path())
    with pytest.raises(zooft.DataError, match=r"^the disk is elsewhere$"):
        source(recognises=says).recognises(Path())


def test_an_answer_of_another_type_is_shown_and_long_ones_are_cut() -> None:
    with pytest.raises(PluginError, match=r"gives in recognises: 'yes' \(str\); expected True or False"):
        source(recognises=lambda _: "yes").recognises(Path())
    with pytest.raises(PluginError) as caught:
        source(recognises=lambda _: "y" * 500).recognises(Path())
    assert f": '{'y' * 59}… (str); expected True or False" in str(caught.value)


def test_an_iterator_is_read_one_by_one_and_its_later_fault_is_the_plugin_s() -> None:
    seen: list[int] = []

    def rows(_path: Path, _wanted: Sequence[str]) -> Iterator[Any]:
        for number in range(2):
            seen.append(number)
            yield zooft.Row(id=str(number), content=number)
        yield "no row"

    given = source(rows=rows).rows(Path(), [])
    assert seen == []
    assert next(given) == zooft.Row(id="0", content=0)
    assert seen == [0]
    assert next(given).id == "1"
    with pytest.raises(PluginError, match=r"gives in rows: an item is 'no row' \(str\); expected a Row or a Rejection"):
        next(given)


def test_an_iterable_is_a_tuple_afterwards_so_that_a_generator_fails_under_guard() -> None:
    def models() -> Iterable[str]:
        yield "toy:one"
        raise RuntimeError("half way")

    weights = zooft.WeightsSource(name="w", summary="", models=models, load=lambda _model, _expected: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(PluginError, match="the weights source w failed in models: RuntimeError: half way"):
        guard_functions(weights, PLUGIN).models()


def test_what_was_not_registered_is_guarded_when_it_is_called() -> None:
    plain = zooft.Source(name="form", summary="", recognises=lambda _: 1, columns=list, rows=iter, content=bytes)  # type: ignore[arg-type,return-value]
    with pytest.raises(
        PluginError, match=r"expected True or False \(hook zooft_register_sources, field Source.recognises\)"
    ):
        call_plugin(plain, "recognises", Path())


def module_level(content: Any) -> bytes:
    return bytes(content)


def test_a_guarded_function_can_be_sent_to_another_process() -> None:
    sent = pickle.loads(pickle.dumps(source(content=module_level).content))  # noqa: S301 -- made in this line
    assert sent([65, 66]) == b"AB"


def test_of_a_private_task_neither_values_nor_causes_are_shown() -> None:
    import dataclasses

    from zooft.hooks import registry

    def find(_root: Path, _options: Any) -> Any:
        raise ValueError("Jane Doe")

    task = registry.load().task("classification")
    private = guard_functions(dataclasses.replace(task, private=True, discover=find), PLUGIN)
    with pytest.raises(PluginError) as caught:
        private.discover(Path(), None)
    assert "ValueError" in str(caught.value)
    assert "Jane" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert place_of(private, "discover").show("Jane") == "a value of type str"


# Columns of a problem


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": np.zeros(3), "b": np.zeros(2)}, r"the length of \['b'\] is 2 .*; expected 3, a row each"),
        ({"a": np.zeros((3, LARGEST_ROW + 1))}, r"the numbers in a row of \['a'\] is 10001 .*at most 10,000"),
        ({"a": np.array(1.0)}, r"the length of \['a'\] is 0"),
    ],
)
def test_columns_have_a_small_row_for_each_target(columns: Mapping[str, Any], message: str) -> None:
    import dataclasses

    from zooft.hooks import registry

    task = registry.load().task("classification")
    evaluation = dataclasses.replace(task.problem.evaluation, columns=lambda _outputs, _targets, _labels: columns)
    own = guard_functions(
        dataclasses.replace(task, problem=dataclasses.replace(task.problem, evaluation=evaluation)), PLUGIN
    )
    with pytest.raises(PluginError, match=message):
        own.problem.evaluation.columns({}, [0, 1, 0], ())


def test_what_a_plugin_prints_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with redirect_prints():
        sys.stdout.write("aside\n")
    sys.stdout.write("a result")
    text = capsys.readouterr()
    assert (text.out, text.err) == ("a result", "aside\n")
