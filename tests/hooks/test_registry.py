"""Names to things: strict, with the nearest names, the owners, and a way to choose one."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import zooft
from zooft.contracts import parse_reference
from zooft.errors import AmbiguousNameError, ConfigError, UnknownNameError
from zooft.hooks import registry
from zooft.hooks.loading import PluginInfo, Plugins, new_manager
from zooft.hooks.registry import Registry


def load(*, broken: dict[str, str] | None = None, **plugins: Any) -> Registry:
    """A registry of these plugins alone, each from a distribution of its own."""
    manager = new_manager()
    for name, plugin in plugins.items():
        manager.register(plugin, name=name)
    infos = [PluginInfo(name=name, distribution=f"{name}-package", version="1.0") for name in plugins]
    infos += [
        PluginInfo(name=name, distribution=f"{name}-package", version="1.0", problem=problem)
        for name, problem in (broken or {}).items()
    ]
    return registry.load(Plugins(manager, tuple(infos)))


@dataclass(eq=False)
class Heads:
    """A plugin of heads."""

    names: tuple[str, ...]

    @zooft.hookimpl
    def zooft_register_heads(self) -> list[zooft.Head]:
        return [zooft.Head(name=name, summary=f"called {name}", build=lambda *_: None) for name in self.names]  # type: ignore[arg-type, return-value]


@dataclass(eq=False)
class Families:
    """A plugin of model zoos."""

    name: str

    @zooft.hookimpl
    def zooft_register_families(self) -> list[zooft.Family]:
        return [tiny_family(self.name)]


@dataclass(eq=False)
class Tasks:
    """A plugin with one task."""

    options: type[Any]

    @zooft.hookimpl
    def zooft_register_tasks(self) -> list[zooft.Task]:
        return [task("look", self.options)]


@dataclass(eq=False)
class Returning:
    """A plugin whose hook for heads gives or raises something."""

    value: Any

    @zooft.hookimpl
    def zooft_register_heads(self) -> Any:
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


def tiny_family(name: str) -> zooft.Family:
    def build(_model: str) -> Any:
        from torch import nn

        return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))

    return zooft.Family(
        name=name,
        summary="one tiny model",
        models=lambda: ["one"],
        build=build,
        anatomy=lambda _name, _module: zooft.Anatomy(
            stages={"all": zooft.Stage(("0", "1", "2"))},
            classifier=("3",),
            input=zooft.InputSpec(height=16, width=16, resize=16, mean=(0.5,) * 3, std=(0.5,) * 3),
        ),
    )


def task(name: str, options: type[Any]) -> zooft.Task:
    return zooft.Task(
        name=name,
        summary="",
        discover=_never,
        read=_never,
        port=_never,
        preprocess=_never,
        problem=zooft.classification(primary="accuracy"),
        options=options,
    )


def _never(*_arguments: Any) -> Any:
    raise AssertionError("a registering hook does no work")


# Looking up


def problem_of(found: registry.Registry, plugin: str) -> str:
    """Why a plugin was left out."""
    return next(problem for info, problem in found.problems.items() if info.name == plugin)


def test_a_name_resolves_to_what_was_registered() -> None:
    found = load(mine=Heads(("deep", "wide")))
    assert found.head("wide").summary == "called wide"


def test_an_unknown_name_gets_the_nearest_ones_and_who_provides_them() -> None:
    found = load(mine=Heads(("linear", "wide")))
    with pytest.raises(UnknownNameError, match=r"no head 'linaer'; nearest: linear \(from mine-package\)") as caught:
        found.head("linaer")
    assert (caught.value.kind, caught.value.name, caught.value.near) == ("head", "linaer", ("linear",))


def test_a_name_near_to_nothing_gets_them_all() -> None:
    with pytest.raises(UnknownNameError, match=r"there are: deep .*, wide"):
        load(mine=Heads(("wide", "deep"))).head("qqqq")


def test_an_unknown_name_says_so_where_nothing_is_registered() -> None:
    with pytest.raises(UnknownNameError, match="there are: none"):
        load().task("classification")


def test_an_unknown_name_mentions_broken_plugins_that_may_own_it() -> None:
    found = load(mine=Heads(("deep",)), broken={"theirs": "importing theirs failed"})
    with pytest.raises(
        UnknownNameError, match="the plugin theirs may have it, but was left out: importing theirs failed"
    ):
        found.head("wide")


def test_a_broken_plugin_does_not_disturb_names_that_others_own() -> None:
    found = load(mine=Heads(("deep",)), broken={"theirs": "importing theirs failed"})
    assert found.head("deep").name == "deep"


@pytest.mark.parametrize(
    ("text", "argument"), [("first:3", "3"), ("first", None), ("first:", ""), ("first:a:b", "a:b")]
)
def test_a_freezer_is_named_with_or_without_its_argument(text: str, argument: str | None) -> None:
    class Mine:
        @zooft.hookimpl
        def zooft_register_freezers(self) -> list[zooft.Freezer]:
            return [zooft.Freezer(name="first", summary="", plan=_never, argument="K")]

    freezer, found = load(mine=Mine()).freezer(text)
    assert (freezer.name, found) == ("first", argument)


@pytest.mark.parametrize(("text", "given"), [("all:3", "'3'"), ("all:", "''")])
def test_an_argument_for_a_freezer_that_takes_none_is_refused(text: str, given: str) -> None:
    class Mine:
        @zooft.hookimpl
        def zooft_register_freezers(self) -> list[zooft.Freezer]:
            return [zooft.Freezer(name="all", summary="", plan=_never)]

    with pytest.raises(zooft.ConfigError, match=f"--freeze all takes no argument, but {given} was given"):
        load(mine=Mine()).freezer(text)


# Two owners of one name


def test_a_name_with_two_owners_is_an_error_that_names_both() -> None:
    found = load(mine=Heads(("deep",)), yours=Heads(("deep",)))
    with pytest.raises(AmbiguousNameError) as caught:
        found.head("deep")
    assert "mine (of mine-package 1.0) and yours (of yours-package 1.0)" in str(caught.value)
    assert "write mine/deep or yours/deep" in str(caught.value)


@pytest.mark.parametrize("owner", ["mine", "yours"])
def test_plugin_slash_name_says_which(owner: str) -> None:
    plugins = {"mine": Heads(("deep",)), "yours": Heads(("deep",))}
    found = load(**plugins)
    assert found.head(f"{owner}/deep") is next(e.value for e in found.heads if e.owner.name == owner)


def test_plugin_slash_name_works_where_there_is_no_doubt_too() -> None:
    assert load(mine=Heads(("deep",))).head("mine/deep").name == "deep"


def test_the_wrong_plugin_before_the_slash_is_an_unknown_name() -> None:
    with pytest.raises(UnknownNameError, match=r"deep \(from mine-package\)"):
        load(mine=Heads(("deep",))).head("yours/deep")


def test_plugin_slash_family_says_which_in_a_backbone_too() -> None:
    found = load(mine=Families("tiny"), yours=Families("tiny"))
    family, model = parse_reference("yours/tiny:one")
    assert model == "one"
    assert found.family(family) is next(e.value for e in found.families if e.owner.name == "yours")


def test_a_run_whose_family_has_two_owners_goes_to_its_end(tmp_path: Path) -> None:
    found = with_installed(mine=Families("tiny"), yours=Families("tiny"))
    result = finetune(tmp_path, found, backbone="yours/tiny:one")
    assert result.path.is_dir()


@pytest.mark.parametrize("text", ["timm", "timm:", ":vit", "", ":"])
def test_a_backbone_without_family_or_model_says_how_it_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="FAMILY:MODEL"):
        parse_reference(text)


# Hooks that fail


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (RuntimeError("no table"), "RuntimeError: no table"),
        (None, "TypeError"),
        ([tiny_family("tiny")], "expected Head, got Family"),
        (["linear"], "expected Head, got str"),
    ],
    ids=["raises", "returns-nothing", "returns-another-kind", "returns-names"],
)
def test_a_plugin_whose_hook_fails_is_dropped_and_the_others_work(value: Any, reason: str) -> None:
    found = load(bad=Returning(value), mine=Heads(("deep",)))
    assert reason in problem_of(found, "bad")
    assert [entry.value.name for entry in found.heads] == ["deep"]


def test_a_plugin_whose_hook_exits_is_dropped_and_the_others_work() -> None:
    found = load(bad=Returning(SystemExit(1)), mine=Heads(("deep",)))
    assert "SystemExit" in problem_of(found, "bad")
    assert [entry.value.name for entry in found.heads] == ["deep"]


def test_a_hook_may_yield() -> None:
    class Mine:
        @zooft.hookimpl
        def zooft_register_heads(self) -> Any:
            yield zooft.Head(name="deep", summary="", build=_never)

    assert load(mine=Mine()).head("deep").name == "deep"


def test_a_failing_hook_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    load(bad=Returning(RuntimeError("no table")))
    assert [record.getMessage() for record in caplog.records] == [
        "the plugin bad is left out: zooft_register_heads failed: RuntimeError: no table"
    ]


def test_a_plugin_with_one_failing_hook_is_dropped_whole() -> None:
    class Half(Families):
        @zooft.hookimpl
        def zooft_register_heads(self) -> Any:
            raise RuntimeError("no table")

    found = load(half=Half("tiny"))
    assert found.families == ()
    assert found.names_of(found.plugins.info("half")) == {}


# What may be registered


def test_a_task_whose_options_collide_with_the_core_s_is_refused() -> None:
    @dataclass(frozen=True)
    class Options:
        epochs: int = zooft.option(3, "taken")

    found = load(bad=Tasks(Options))
    assert "epochs, as the core does" in problem_of(found, "bad")
    assert found.tasks == ()


def test_a_task_s_own_options_are_welcome() -> None:
    @dataclass(frozen=True)
    class Options:
        window: int = zooft.option(3, "free")

    assert load(mine=Tasks(Options)).task("look").options is Options


def test_options_that_are_no_dataclass_are_refused() -> None:
    class Options:
        pass

    assert problem_of(load(bad=Tasks(Options)), "bad")


def test_what_a_plugin_owns_is_reported_by_kind() -> None:
    class Both(Heads):
        @zooft.hookimpl
        def zooft_register_families(self) -> list[zooft.Family]:
            return [tiny_family("tiny")]

    found = load(mine=Both(("deep",)))
    assert found.names_of(found.plugins.info("mine")) == {"families": ["tiny"], "heads": ["deep"]}


# Events


@dataclass(eq=False)
class Ears:
    """A plugin that listens, each time asking for something else."""

    heard: list[Any] = field(default_factory=list)

    @zooft.hookimpl
    def zooft_on_start(self, samples: int) -> None:
        self.heard.append(samples)

    @zooft.hookimpl
    def zooft_on_epoch_end(self) -> None:
        self.heard.append("epoch")

    @zooft.hookimpl
    def zooft_on_exported(self, model: Path, run: Path) -> None:
        self.heard.append((run, model))


class Deaf:
    """A plugin that fails at every event."""

    @zooft.hookimpl
    def zooft_on_start(self, run: Path) -> None:
        raise RuntimeError(f"can't write to {run}")


def test_listeners_get_the_arguments_that_they_ask_for_and_no_others() -> None:
    ears = Ears()
    found = load(ears=ears)
    registry.announce(found, "zooft_on_start", run=Path("r"), samples=7)
    registry.announce(found, "zooft_on_epoch_end", run=Path("r"), record=None)
    registry.announce(found, "zooft_on_exported", run=Path("r"), model=Path("m"))
    assert ears.heard == [7, "epoch", (Path("r"), Path("m"))]


def test_a_failing_listener_is_logged_and_the_others_are_still_called(caplog: pytest.LogCaptureFixture) -> None:
    ears = Ears()
    registry.announce(load(deaf=Deaf(), ears=ears), "zooft_on_start", run=Path("r"), samples=7)
    assert ears.heard == [7]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "the plugin deaf failed in zooft_on_start: RuntimeError: can't write to r"


def test_a_run_goes_on_with_a_failing_listener(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ears = Ears()
    result = finetune(tmp_path, with_installed(mine=Families("tiny"), deaf=Deaf(), ears=ears), backbone="tiny:one")
    assert result.path.is_dir()
    assert ears.heard == [12, "epoch"]
    assert any("the plugin deaf failed" in record.getMessage() for record in caplog.records)


# A short run


def with_installed(**plugins: Any) -> Registry:
    """The installed heads, freezers and tasks, and these plugins."""
    import zooft_images
    import zooft_standard

    return load(standard=zooft_standard, images=zooft_images, **plugins)


def finetune(folder: Path, found: Registry, *, backbone: str) -> zooft.FinetuneResult:
    import numpy as np
    from PIL import Image

    for name, level in (("dark", 20), ("light", 200)):
        (folder / "data" / name).mkdir(parents=True)
        for index in range(6):
            pixels = np.full((20, 20, 3), level + index, np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{index}.png")
    return zooft.finetune(
        registry=found,
        backbone=backbone,
        task="classification",
        data=folder / "data",
        out=folder / "run",
        weights="random",
        freeze="none",
        epochs=1,
        bootstrap=0,
        export=False,
        device="cpu",
        workers=0,
    )
