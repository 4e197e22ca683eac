"""Flags, a TOML file and Python arguments are three doors to one configuration."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge

import zooft
from zooft import config
from zooft.config import FinetuneConfig, ModelOptions, group
from zooft.errors import ConfigError

NEEDED = {"backbone": "timm:vit_base", "task": "classification", "data": "pictures"}


@dataclass(frozen=True)
class Own:
    """Options of some task."""

    augment: Literal["none", "light"] = zooft.option("none", "random views")
    window: Annotated[int, Ge(1)] = zooft.option(3, "how wide")
    formats: tuple[str, ...] = zooft.option(("PNG", "JPEG"), "what to accept")


def built(**values: Any) -> FinetuneConfig:
    return config.build(FinetuneConfig, {**NEEDED, **values})


def faults(**values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        built(**values)
    return str(caught.value)


def from_flags(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """What `zooft finetune ARGUMENTS` passes on to `zooft.finetune`."""
    from zooft.cli import main

    received: dict[str, Any] = {}

    def finetune(*, reporter: object, **values: Any) -> zooft.FinetuneResult:
        received.update(values)
        return zooft.FinetuneResult(
            path=Path("run"), best_epoch=1, evaluations={}, verification=None, problem=zooft.classification(), labels=()
        )

    monkeypatch.setattr("zooft.pipeline.finetune.finetune", finetune)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # what the user has set, the command leaves alone: so this process
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")  # stays as it was
    monkeypatch.setattr(sys, "argv", ["zooft", "finetune", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    return received


# Three doors

SAME = {
    "required-alone": {},
    "text": {"freeze": "last:2", "head": "linear"},
    "path": {"out": "runs/mine"},
    "whole-number": {"epochs": 3, "seed": 7},
    "fraction": {"lr": 0.02, "val_fraction": 0.3},
    "optional-number": {"backbone_lr": 1e-5, "workers": 2},
    "choice": {"optimizer": "sgd", "schedule": "step", "device": "cpu"},
    "off": {"export": False},
    "on": {"export": True},
}


@pytest.mark.parametrize("values", SAME.values(), ids=SAME)
def test_flags_toml_and_python_give_the_same_configuration(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = built(**values)
    file = tmp_path / "config.toml"
    file.write_text("".join(map(toml_line, {**NEEDED, **values}.items())))
    typed = from_flags(monkeypatch, *(flag for item in {**NEEDED, **values}.items() for flag in as_flags(item)))
    filed = from_flags(monkeypatch, "--config", str(file))
    assert config.build(FinetuneConfig, config.read_toml(file)) == expected
    assert config.build(FinetuneConfig, typed) == expected
    assert config.build(FinetuneConfig, filed) == expected


def toml_line(item: tuple[str, Any]) -> str:
    name, value = item
    shown = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return f"{name.replace('_', '-')} = {shown}\n"


def as_flags(item: tuple[str, Any]) -> tuple[str, ...]:
    name, value = item
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return (f"--{flag}" if value else f"--no-{flag}",)
    return (f"--{flag}", str(value))


def test_flags_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.toml"
    file.write_text('backbone = "timm:vit_tiny"\ntask = "classification"\nepochs = 3\nseed = 4\n')
    values = from_flags(monkeypatch, "--config", str(file), "--epochs", "9", "--data", "d")
    assert (values["epochs"], values["seed"], values["backbone"]) == (9, 4, "timm:vit_tiny")


def test_a_flag_equal_to_its_default_wins_over_the_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.toml"
    file.write_text("export = false\nepochs = 3\n")
    default = str(built().training.epochs)
    values = from_flags(monkeypatch, "--config", str(file), "--export", "--epochs", default)
    assert (values["export"], values["epochs"]) == (True, built().training.epochs)


def test_a_task_s_own_options_come_through_flags_and_file_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.toml"
    file.write_text('task = "classification"\naugment = "light"\nformats = ["PNG", "BMP"]\n')
    typed = from_flags(monkeypatch, "--task", "classification", "--augment", "light", "--formats", "PNG,BMP")
    filed = from_flags(monkeypatch, "--config", str(file))
    assert typed["augment"] == filed["augment"] == "light"
    assert tuple(typed["formats"]) == tuple(filed["formats"]) == ("PNG", "BMP")


def test_dashes_and_underscores_are_one_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("batch-size = 4\nval_fraction = 0.5\n")
    assert config.read_toml(file) == {"batch_size": 4, "val_fraction": 0.5}


@pytest.mark.parametrize("content", [b"epochs = = 3", b"\xff\xfe"], ids=["torn", "not-utf-8"])
def test_a_file_that_is_not_toml_is_a_config_error(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="isn't TOML"):
        config.read_toml(file)


def test_a_missing_config_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read: No such file"):
        config.read_toml(tmp_path / "nowhere.toml")


def test_values_are_parted_between_the_core_and_the_task() -> None:
    core, own = config.read({**NEEDED, "window": 5}, FinetuneConfig, Own)
    assert core == config.build(FinetuneConfig, NEEDED)
    assert own == Own(window=5)


# Groups


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A group with an option that must be given."""

    size: Annotated[int, Ge(1)] = zooft.option(3, "how large")
    source: Path = config.required("from where", local=True)


@dataclass(frozen=True, kw_only=True)
class Outer:
    """Options, and a group of them."""

    name: str = zooft.option("mine", "what it is called")
    inner: Inner = group(Inner)
    shape: tuple[int, ...] = zooft.option((2,), "of it")


GROUPED = {"source": "here", "size": 5, "shape": [1, 2]}


def test_options_of_a_group_are_given_flat_and_held_together() -> None:
    assert config.build(Outer, GROUPED) == Outer(inner=Inner(source=Path("here"), size=5), shape=(1, 2))
    assert config.build(Outer, {"source": "here"}).inner == Inner(source=Path("here"))


def test_options_of_a_group_are_flat_among_the_others_the_required_ones_first() -> None:
    assert config.names(Outer) == ("source", "name", "size", "shape")
    assert config.local_names(Outer) == ("source",)
    made = config.build(Outer, GROUPED)
    assert config.plain(made) == {"name": "mine", "size": 5, "shape": [1, 2]}
    assert config.local(made) == {"source": Path("here")}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "source is required: from where"),
        ({"source": "a", "size": 0}, "size: input should be greater than or equal to 1, but 0 was given"),
        (
            {"source": "a", "shape": [1, "x"]},
            "shape.1: input should be a valid integer, unable to parse string as an integer, but 'x' was given",
        ),
        ({"source": "a", "inner": {"size": 3}}, "there is no option 'inner'; there are source, name, size, shape"),
    ],
    ids=["missing", "out-of-bounds", "inside-a-list", "the-group-itself"],
)
def test_faults_name_the_option_and_never_its_group(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.build(Outer, values)
    assert message in str(caught.value)


def test_no_two_groups_have_an_option_of_one_name() -> None:
    assert len(set(config.names(FinetuneConfig))) == len(config.names(FinetuneConfig)) == 43


def test_only_the_pipeline_and_the_doors_name_the_whole_configuration() -> None:
    """Rooms below take plain values, or their own group."""
    root = Path(zooft.__file__).parent
    naming = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if "FinetuneConfig" in path.read_text()}
    others = {name for name in naming if not name.startswith("pipeline/")}
    # the command's flags, and the names that a task's own options may not have
    assert others == {"config.py", "cli/finetune.py", "hooks/registry.py"}


def test_every_option_is_a_flag_with_its_help_text() -> None:
    from zooft.cli import flags

    made = {flag.name: flag.help for flag in flags.of(FinetuneConfig)}
    for option in config.options_of(FinetuneConfig):
        shown = made[option.field.name]
        assert shown is not None
        assert shown.startswith(option.field.metadata["help"])


# Faults

OUT_OF_BOUNDS = {
    "epochs": (0, -1, 2.5, "many", None),
    "batch_size": (0, -3),
    "optimizer": ("lamb", "", 3),
    "lr": (0, -1e-3, float("nan"), "fast"),
    "backbone_lr": (0, -1.0),
    "momentum": (-0.1, 1.0, 1.5),
    "weight_decay": (-1e-9, float("nan")),
    "schedule": ("linear",),
    "warmup": (-0.1, 1.0),
    "step_epochs": (0,),
    "step_factor": (0.0, 1.0),
    "power": (0,),
    "val_fraction": (0, 1, 1.2),
    "device": ("gpu", "cuda:0"),
    "workers": (-1,),
    "seed": (-1, 2**32),
    "bootstrap": (-1,),
    "provider": ("openvino",),
    "verify_samples": (0,),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, bad in OUT_OF_BOUNDS.items() for value in bad])
def test_a_value_out_of_bounds_is_refused_by_the_name_that_is_typed(name: str, value: Any) -> None:
    message = faults(**{name: value})
    assert message.startswith(f"{name.replace('_', '-')}: ")
    assert f"{value!r} was given" in message


@pytest.mark.parametrize(
    "edge",
    [
        {"epochs": 1},
        {"momentum": 0},
        {"weight_decay": 0},
        {"warmup": 0},
        {"workers": 0},
        {"seed": 2**32 - 1},
        {"bootstrap": 0},
    ],
    ids=str,
)
def test_a_value_on_the_edge_of_its_bounds_is_taken(edge: dict[str, Any]) -> None:
    (name,) = edge
    assert config.plain(built(**edge))[name] == edge[name]


@pytest.mark.parametrize("name", ["lr", "backbone_lr", "weight_decay", "power"])
def test_infinity_is_no_number_to_train_with(name: str) -> None:
    assert name.replace("_", "-") in faults(**{name: float("inf")})


def test_all_faults_are_reported_together() -> None:
    message = faults(epochs=0, lr=-1, optimizer="lamb", device="gpu")
    assert [fault.partition(":")[0] for fault in message.split("; ")] == ["epochs", "optimizer", "lr", "device"]


def test_all_missing_values_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        config.build(FinetuneConfig, {})
    for name in ("backbone", "task", "data"):
        assert f"{name} is required: " in str(caught.value)


def test_a_missing_value_and_a_wrong_one_are_reported_together() -> None:
    with pytest.raises(ConfigError, match=r"data is required: .*; epochs: .*0 was given"):
        config.build(FinetuneConfig, {"backbone": "a:b", "task": "t", "epochs": 0})


def test_an_unknown_option_and_a_wrong_value_are_reported_together() -> None:
    message = faults(epoch=3, lr=-1)
    assert "no option 'epoch'" in message
    assert "lr: " in message


def test_the_core_s_faults_and_the_task_s_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        zooft.finetune(**NEEDED, lr=-1, augment="wild")
    assert "lr: " in str(caught.value)
    assert "augment: " in str(caught.value)


def test_python_without_any_argument_says_everything_that_is_required() -> None:
    with pytest.raises(ConfigError, match="backbone is required"):
        zooft.finetune()


@pytest.mark.parametrize(("typed", "meant"), [("epoch", "epochs"), ("batchsize", "batch_size"), ("windw", "window")])
def test_an_unknown_option_gets_the_near_ones(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"no option '{typed}'; did you mean .*{meant}"):
        config.read({typed: 1}, FinetuneConfig, Own)


def test_an_unknown_option_near_to_nothing_gets_them_all() -> None:
    with pytest.raises(ConfigError, match=r"no option 'xyzzy'; there are backbone, .*, window, formats"):
        config.read({"xyzzy": 1}, FinetuneConfig, Own)


def test_several_unknown_options_get_the_list_of_all_once() -> None:
    with pytest.raises(ConfigError, match="no option 'xyzzy', 'plugh'; there are") as caught:
        config.read({"xyzzy": 1, "plugh": 2}, FinetuneConfig, Own)
    assert str(caught.value).count("there are") == 1


def test_all_unknown_options_are_reported_together() -> None:
    with pytest.raises(ConfigError, match=r"'epoch'.*; .*'windw'"):
        config.read({"epoch": 1, "windw": 1}, FinetuneConfig, Own)


def test_a_task_s_options_are_checked_as_the_core_s_are() -> None:
    with pytest.raises(ConfigError, match=r"augment: .*'wild' was given; window: .*0 was given"):
        config.build(Own, {"augment": "wild", "window": 0})


# What a configuration is


@pytest.mark.parametrize("cls", [FinetuneConfig, Own])
def test_every_option_has_a_help_text(cls: type[Any]) -> None:
    assert all(option.field.metadata["help"].strip() for option in config.options_of(cls))


def test_every_option_of_every_installed_task_has_a_help_text() -> None:
    from zooft.hooks import registry

    silent = [
        (entry.value.name, field.name)
        for entry in registry.load().tasks
        for field in dataclasses.fields(entry.value.options)
        if not field.metadata.get("help")
    ]
    assert silent == []


def test_every_default_keeps_its_own_bounds() -> None:
    model = ModelOptions(backbone="timm:vit_base")
    assert built() == FinetuneConfig(model=model, task="classification", data=Path("pictures"))


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        built().seed = 3  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        built().training.epochs = 3  # type: ignore[misc]


def test_a_configuration_as_plain_values_builds_itself_again() -> None:
    values = config.plain(built(lr=0.5))
    assert (values["lr"], values["workers"]) == (0.5, None)
    assert config.build(FinetuneConfig, {**values, "data": "pictures"}) == built(lr=0.5)


def test_where_things_lie_on_this_machine_is_not_among_the_plain_values() -> None:
    assert not {"out", "data"} & set(config.plain(built(out="runs/mine")))


def test_options_with_tuples_build_themselves_again_from_plain_values() -> None:
    values = config.plain(Own(formats=("BMP",)))
    assert values["formats"] == ["BMP"]
    assert config.build(Own, values) == Own(formats=("BMP",))
