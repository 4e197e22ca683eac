"""A dataclass's fields as options of a command: what is typed comes back in the field's type, and help shows the defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from annotated_types import Ge
from click.testing import CliRunner

import zooft
from zooft import config
from zooft.cli import flags


@dataclass(frozen=True)
class Inner:
    deep_rate: float = zooft.option(0.5, "how deep")


@dataclass(frozen=True)
class Options:
    folder: Path = config.required("where it lies")
    kind: Literal["a", "b"] = zooft.option("a", "which")
    epochs: Annotated[int, Ge(1)] | None = zooft.option(None, "passes")
    batch: Annotated[int, Ge(1)] | Literal["auto"] | None = zooft.option(None, "samples a step")
    names: tuple[str, ...] = zooft.option(("x", "y"), "what it is called")
    fast: bool = zooft.option(True, "whether to hurry")
    safe: bool = zooft.option(False, "whether not to")
    inner: Inner = config.group(Inner)


def parsed(*arguments: str) -> dict[str, Any]:
    """What a command with these options is given."""
    given: dict[str, Any] = {}
    command = click.Command("try", params=list(flags.of(Options)), callback=lambda **values: given.update(values))
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return given


def test_what_is_not_typed_is_none_so_that_a_config_file_can_say_it() -> None:
    assert set(parsed().values()) == {None}
    assert set(parsed()) == {"folder", "kind", "epochs", "batch", "names", "fast", "safe", "deep_rate"}


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (("--folder", "x/y"), "folder", Path("x/y")), (("--kind", "b"), "kind", "b"), (("--epochs", "3"), "epochs", 3),
        (("--batch", "auto"), "batch", "auto"), (("--batch", "32"), "batch", "32"), (("--names", "a, b,,c "), "names", ("a", "b", "c")),
        (("--names", ""), "names", ()), (("--no-fast",), "fast", False), (("--safe",), "safe", True), (("--deep-rate", "1e-3"), "deep_rate", 1e-3),
    ],
)  # fmt: skip # a table of cases
def test_what_is_typed_has_the_field_s_type(arguments: tuple[str, ...], name: str, value: Any) -> None:
    found = parsed(*arguments)[name]
    assert (found, type(found)) == (value, type(value)) or isinstance(found, Path)
    assert found == value


@pytest.mark.parametrize("arguments", [("--kind", "c"), ("--epochs", "3.5"), ("--deep-rate", "much"), ("--unknown",)])
def test_what_is_of_another_type_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        parsed(*arguments)


def test_what_was_typed_makes_the_dataclass() -> None:
    given = parsed("--folder", "x", "--batch", "32", "--names", "a,b", "--deep-rate", "2")
    made = config.build(Options, {name: value for name, value in given.items() if value is not None})
    assert made == Options(folder=Path("x"), batch=32, names=("a", "b"), inner=Inner(2.0))


def test_help_shows_defaults_and_whose_option_it_is() -> None:
    messages = {option.name: option.help for option in flags.of(Options, group="mine")}
    assert messages == {
        "folder": "mine: where it lies  [required]", "kind": "mine: which  [default: a]", "epochs": "mine: passes",
        "batch": "mine: samples a step", "names": "mine: what it is called  [default: x,y]", "fast": "mine: whether to hurry  [default: fast]",
        "safe": "mine: whether not to  [default: no-safe]", "deep_rate": "mine: how deep  [default: 0.5]",
    }  # fmt: skip # a table of expected values
