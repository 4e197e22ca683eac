"""A stranger's mistake is named as the stranger's: plugin, hook, field, what came and what was expected."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import command
from example_data import write_classes

import zooft
import zooft_images
import zooft_standard
from zooft.errors import PluginError, UnknownNameError, WeightsError
from zooft.hooks import registry
from zooft.hooks.loading import PluginInfo, Plugins, discover, new_manager, register
from zooft.hooks.registry import Registry


@dataclass(eq=False)
class Stranger:
    """A plugin that registers what it is given."""

    families: list[Any] = field(default_factory=list)
    heads: list[Any] = field(default_factory=list)
    freezers: list[Any] = field(default_factory=list)
    tasks: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)

    @zooft.hookimpl
    def zooft_register_families(self) -> list[Any]:
        return self.families

    @zooft.hookimpl
    def zooft_register_heads(self) -> list[Any]:
        return self.heads

    @zooft.hookimpl
    def zooft_register_freezers(self) -> list[Any]:
        return self.freezers

    @zooft.hookimpl
    def zooft_register_tasks(self) -> list[Any]:
        return self.tasks

    @zooft.hookimpl
    def zooft_register_weights(self) -> list[Any]:
        return self.weights


def load(**plugins: Any) -> Registry:
    """The standard heads, freezers and tasks, and these plugins, each from a distribution of its own."""
    manager = new_manager()
    everything = {"standard": zooft_standard, "images": zooft_images, **plugins}
    for name, plugin in everything.items():
        manager.register(plugin, name=name)
    infos = tuple(PluginInfo(name=name, distribution=f"{name}-package", version="1.0") for name in everything)
    return registry.load(Plugins(manager, infos))


def family(**changes: Any) -> zooft.Family:
    def build(_model: str) -> Any:
        from torch import nn

        return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))

    given = {"name": "toy", "summary": "", "models": lambda: ["one", "two"], "build": build, "anatomy": anatomy()}
    return zooft.Family(**{**given, **changes})


def anatomy(**changes: Any) -> Callable[[str, Any], zooft.Anatomy]:
    def of(_name: str, _module: Any) -> zooft.Anatomy:
        spec = zooft.InputSpec(height=16, width=16, resize=16, mean=(0.5,) * 3, std=(0.5,) * 3)
        given: dict[str, Any] = {"stages": {"all": zooft.Stage(("0", "1", "2"))}, "classifier": ("3",), "input": spec}
        return zooft.Anatomy(**{**given, **changes})

    return of


def spec(**changes: Any) -> zooft.InputSpec:
    return replace(zooft.InputSpec(height=16, width=16, resize=16, mean=(0.5,) * 3, std=(0.5,) * 3), **changes)


def task(**changes: Any) -> zooft.Task:
    (own,) = (one for one in zooft_images.zooft_register_tasks() if one.name == "classification")
    of_problem = {
        key: changes.pop(key)
        for key in ("loss", "metrics", "primary", "activation", "operating_point")
        if key in changes
    }
    problem = zooft.classification(**{"primary": "accuracy", **of_problem})
    return replace(own, **{"name": "mine", "problem": problem, **changes})


def linear(width: int, outputs: int) -> Any:
    from torch import nn

    return nn.Linear(width, outputs)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("pictures"), {"dark": 5, "light": 5})


def run(pictures: Path, stranger: Stranger, **values: Any) -> zooft.FinetuneResult:
    given = {
        "backbone": "toy:one",
        "task": "classification",
        "data": pictures,
        "weights": "random",
        "freeze": "none",
        "epochs": 1,
        "bootstrap": 0,
        "export": False,
        "report": False,
        "audit": False,
        "device": "cpu",
        "workers": 0,
        "cache": False,
    }
    return zooft.finetune(registry=load(stranger=stranger), **{**given, **values})


def cost(**changes: Any) -> Any:
    """A loss module."""
    from torch import nn

    return type("Cost", (nn.Module,), {"forward": lambda _self, logits, _targets: changes["of"](logits)})()


def failing() -> Any:
    """A module whose forward pass raises."""
    from torch import nn

    def forward(*_arrays: Any) -> Any:
        raise ValueError("no such window")

    return type("Failing", (nn.Module,), {"forward": forward})()


# What is registered


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"heads": [zooft.Head(name="deep", summary="", build="Linear")]},  # type: ignore[arg-type]
            ["Head 'deep'", "field build is 'Linear' (str)", "expected a function, Callable[..., nn.Module]"],
        ),
        ({"heads": [zooft.Head(name="deep", summary=None, build=linear)]}, ["field summary is None", "expected text"]),  # type: ignore[arg-type]
        (
            {"heads": [zooft.Head(name="deep", summary="", build=linear, reads="no")]},
            ["field reads is 'no'", "'vector' or 'bag' or 'map' or 'pyramid'"],
        ),  # type: ignore[arg-type]
        ({"heads": [zooft.Head(name="Deep", summary="", build=linear)]}, ["'Deep' can't be a name", "such as 'deep'"]),
        ({"tasks": [task(reader="import os")]}, ["field reader is 'import os'", "Callable[[Any], str]"]),
        ({"tasks": [task(options=dict)]}, ["field options is dict", "a frozen dataclass"]),
        ({"tasks": [task(subgroups="scanner")]}, ["field subgroups is 'scanner'", "a tuple of text"]),
        ({"tasks": [task(writers={"csv": "write"})]}, ["field writers['csv'] is 'write'", "a function"]),
        ({"families": [family(models=["one"])]}, ["field models is ['one']", "a function"]),
        ({"families": [family(aliases={"short": 1})]}, ["field aliases['short'] is 1", "text"]),
        ({"freezers": [zooft.Freezer(name="odd", summary="", plan=None)]}, ["field plan is None", "a function"]),  # type: ignore[arg-type]
        (
            {"weights": [zooft.WeightsSource(name="ours", summary="", models=None, load=linear)]},
            ["field models is None"],
        ),  # type: ignore[arg-type]
    ],
)
def test_a_field_of_a_wrong_type_is_refused_when_it_is_registered(wrong: dict[str, Any], words: list[str]) -> None:
    found = load(stranger=Stranger(**wrong), other=Stranger(heads=[zooft.Head(name="fine", summary="", build=linear)]))
    (problem,) = found.problems.values()
    for text in (f"zooft_register_{next(iter(wrong))} failed", *words):
        assert text in problem
    assert found.head("fine").name == "fine"


def test_a_name_that_only_the_left_out_plugin_has_comes_with_the_reason() -> None:
    found = load(stranger=Stranger(heads=[zooft.Head(name="deep", summary="", build="Linear")]))  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match=r"the plugin stranger may have it.*field build is 'Linear'"):
        found.head("deep")


# What a function gives, in a run

RUNS: dict[str, tuple[dict[str, Any], dict[str, Any], str, list[str]]] = {
    "build-raises": (
        {"families": [family(build=lambda name: 1 // 0)]},
        {},
        "Family.build",
        ["failed to build one: ZeroDivisionError"],
    ),
    "build-gives-text": (
        {"families": [family(build=lambda name: "net")]},
        {},
        "Family.build",
        ["gives in build: 'net' (str)", "a torch.nn.Module"],
    ),
    "anatomy-gives-none": (
        {"families": [family(anatomy=lambda name, module: None)]},
        {},
        "Family.anatomy",
        ["None", "an Anatomy"],
    ),
    "parts-are-text": (
        {"families": [family(anatomy=anatomy(stages={"all": zooft.Stage("012")}))]},
        {},
        "Family.anatomy",  # type: ignore[arg-type]
        ["stages['all'].parts is '012' (str)", "a tuple of text"],
    ),
    "no-such-part": (
        {"families": [family(anatomy=anatomy(stages={"all": zooft.Stage(("0", "1", "flat"))}))]},
        {},
        "Family.anatomy",
        ["stages['all'].parts[2] is 'flat'", "the name of a module of one"],
    ),
    "no-such-classifier": (
        {"families": [family(anatomy=anatomy(classifier=("fc",)))]},
        {},
        "Family.anatomy",
        ["classifier[0] is 'fc'", "the name of a module"],
    ),
    "classifier-is-text": (
        {"families": [family(anatomy=anatomy(classifier="3"))]},
        {},
        "Family.anatomy",
        ["classifier is '3'", "a tuple of text"],
    ),
    "no-such-first-convolution": (
        {"families": [family(anatomy=anatomy(first_convolution="conv1"))], "tasks": [task(channels=lambda options: 1)]},
        {"task": "mine"},
        "Family.anatomy",
        ["first_convolution is 'conv1'", "the name of a module of one"],
    ),
    "first-convolution-is-none": (
        {"families": [family(anatomy=anatomy(first_convolution="1"))], "tasks": [task(channels=lambda options: 1)]},
        {"task": "mine"},
        "Family.anatomy",
        ["first_convolution, 1,", "AdaptiveAvgPool2d", "a torch.nn.Conv2d"],
    ),
    "head-gives-none": (
        {"heads": [zooft.Head(name="deep", summary="", build=lambda w, o: None)]},
        {"head": "deep"},
        "Head.build",
        ["None", "a torch.nn.Module"],
    ),  # type: ignore[arg-type, return-value]
    "head-raises": (
        {"heads": [zooft.Head(name="deep", summary="", build=lambda w: None)]},
        {"head": "deep"},
        "Head.build",
        ["TypeError"],
    ),  # type: ignore[arg-type, misc]
    "freezer-raises": (
        {"freezers": [zooft.Freezer(name="odd", summary="", plan=lambda s, a, e: s[99])]},
        {"freeze": "odd"},
        "Freezer.plan",
        ["IndexError"],
    ),  # type: ignore[arg-type, return-value]
    "freezer-gives-none": (
        {"freezers": [zooft.Freezer(name="odd", summary="", plan=lambda s, a, e: None)]},
        {"freeze": "odd"},
        "Freezer.plan",
        ["None", "a FreezePlan"],
    ),  # type: ignore[arg-type, return-value]
    "freezer-gives-a-set": (
        {"freezers": [zooft.Freezer(name="odd", summary="", plan=lambda s, a, e: set(s))]},
        {"freeze": "odd"},
        "Freezer.plan",
        ["{'all'} (set)", "a FreezePlan"],
    ),  # type: ignore[arg-type, return-value]
    "discover-raises": (
        {"tasks": [task(discover=lambda data, options: 1 // 0)]},
        {"task": "mine"},
        "Task.discover",
        ["failed to read the data: ZeroDivisionError"],
    ),
    "discover-gives-none": (
        {"tasks": [task(discover=lambda data, options: None)]},
        {"task": "mine"},
        "Task.discover",
        ["None", "a Discovery"],
    ),
    "discover-exits": (
        {"tasks": [task(discover=lambda data, options: exit(0))]},
        {"task": "mine"},
        "Task.discover",
        ["SystemExit"],
    ),
    "split-is-unknown": (
        {"tasks": [task(discover=lambda data, options: listed(split="holdout"))]},
        {"task": "mine"},
        "Task.discover",
        ["split of the sample a is 'holdout' (str)", "'train' or 'val' or 'test' or None"],
    ),
    "group-is-a-number": (
        {"tasks": [task(discover=lambda data, options: listed(group=3))]},
        {"task": "mine"},
        "Task.discover",
        ["group of the sample a is 3 (int)", "text or None"],
    ),
    "id-is-a-path": (
        {"tasks": [task(discover=lambda data, options: listed(id=data))]},
        {"task": "mine"},
        "Task.discover",
        ["id of the sample", "PosixPath", "text"],
    ),
    "facts-are-lists": (
        {"tasks": [task(discover=lambda data, options: listed(facts={"kvp": [1]}))]},
        {"task": "mine"},
        "Task.discover",
        ["facts['kvp'] of the sample a is [1] (list)", "text or a number"],
    ),
    "ids-are-alike": (
        {"tasks": [task(discover=lambda data, options: listed(id="same"))]},
        {"task": "mine"},
        "Task.discover",
        ["Sample.id of several samples", "'same'", "an id for each sample alone"],
    ),
    "classes-are-alike": (
        {"tasks": [task(discover=lambda data, options: replace(listed(), labels=zooft.class_labels(("x", "x"))))]},
        {"task": "mine"},
        "Task.discover",
        ["classes is ('x', 'x')", "each class once"],
    ),
    "read-gives-other-numbers": (
        {"tasks": [task(read=lambda source, options: np.zeros((9, 9, 3), np.float32))]},
        {"task": "mine"},
        "Task.read",
        ["is float32 of shape (9, 9, 3)", "uint8 of shape (height, width, 3), as Task.port gives for images"],
    ),
    "read-gives-another-shape": (
        {"tasks": [task(read=lambda source, options: np.zeros((9, 9), np.uint8))]},
        {"task": "mine"},
        "Task.read",
        ["is uint8 of shape (9, 9)", "(height, width, 3)"],
    ),
    "read-gives-an-array-too-many": (
        {"tasks": [task(read=lambda source, options: (np.zeros((9, 9, 3), np.uint8),) * 2)]},
        {"task": "mine"},
        "Task.read",
        ["the number of arrays of", "is 2", "expected 1"],
    ),
    "port-of-no-type": (
        {"tasks": [task(port=lambda options: replace(zooft.image_port(options), dtype="uint9"))]},
        {"task": "mine"},
        "Task.port",
        ["Port.dtype of images is 'uint9'", "such as uint8"],
    ),
    "first-convolution-is-none-of-it-with-three-channels": (
        {"families": [family(anatomy=anatomy(first_convolution="conv1"))]},
        {},
        "Family.anatomy",
        ["first_convolution is 'conv1'", "the name of a module of one"],
    ),
    "no-spread-of-levels": (
        {"families": [family(anatomy=anatomy(input=spec(std=(0.5, 0.0, 0.5))))]},
        {},
        "Family.anatomy",
        ["input.std[1] is 0.0", "a finite number above 0"],
    ),
    "means-of-other-channels": (
        {"families": [family(anatomy=anatomy(input=spec(mean=(0.5,))))]},
        {},
        "Family.anatomy",
        ["input.std is (0.5, 0.5, 0.5)", "as many numbers as mean has, 1"],
    ),
    "target-out-of-range": (
        {"tasks": [task(discover=lambda data, options: found(targets=(0, 1, 2)))]},
        {"task": "mine"},
        "Task.discover",
        ["the target of the sample c is 2", "from 0 to 1"],
    ),
    "target-below-range": (
        {"tasks": [task(discover=lambda data, options: found(targets=(0, 1, -1)))]},
        {"task": "mine"},
        "Task.discover",
        ["the target of the sample c is -1"],
    ),
    "float-targets": (
        {"tasks": [task(discover=lambda data, options: found(targets=(0.0, 1.0, 0.5)))]},
        {"task": "mine"},
        "Task.discover",
        ["the target of the sample a is 0.0 (float)"],
    ),
    "samples-are-paths": (
        {
            "tasks": [
                task(
                    discover=lambda data, options: zooft.Discovery(
                        samples=("a", "b"), labels=zooft.class_labels(("x", "y"))
                    )
                )
            ]
        },
        {"task": "mine"},
        "Task.discover",
        ["samples[0] is 'a'", "a Sample"],
    ),  # type: ignore[arg-type]
    "classes-are-numbers": (
        {
            "tasks": [
                task(discover=lambda data, options: zooft.Discovery(samples=(), labels=zooft.class_labels((0, 1))))
            ]
        },
        {"task": "mine"},
        "Task.discover",
        ["labels[0].categories[0] is 0", "text"],
    ),  # type: ignore[arg-type]
    "nothing-is-no-class": (
        {
            "tasks": [
                task(
                    discover=lambda data, options: replace(
                        found(targets=(0, 1, 1)), labels=(zooft.Label(categories=("x", "y"), nothing="z"),)
                    )
                )
            ]
        },
        {"task": "mine"},
        "Task.discover",
        ["nothing of the label is 'z'", "one of the classes"],
    ),
    "read-gives-text": (
        {"tasks": [task(read=lambda source, options: str(source))]},
        {"task": "mine"},
        "Task.read",
        ["(str)", "a numpy array"],
    ),
    "loss-is-a-function": (
        {"tasks": [task(loss=lambda targets, options: abs)]},
        {"task": "mine"},
        "TrainingPart.loss",
        ["<built-in function abs>", "a torch.nn.Module"],
    ),
    "loss-of-each-sample": (
        {"tasks": [task(loss=lambda targets, options: cost(of=lambda z: z.sum(1)))]},
        {"task": "mine"},
        "TrainingPart.loss",
        ["the shape of the loss is (", "one number"],
    ),
    "loss-is-a-float": (
        {"tasks": [task(loss=lambda targets, options: cost(of=lambda z: 1.5))]},
        {"task": "mine"},
        "TrainingPart.loss",
        ["1.5 (float)", "one number"],
    ),
    "loss-without-gradient": (
        {"tasks": [task(loss=lambda targets, options: cost(of=lambda z: z.detach().sum()))]},
        {"task": "mine"},
        "TrainingPart.loss",
        ["doesn't depend on the outputs"],
    ),
    "loss-raises": (
        {"tasks": [task(loss=lambda targets, options: cost(of=lambda z: z[:, 9]))]},
        {"task": "mine"},
        "TrainingPart.loss",
        ["IndexError", "logits ("],
    ),
    "metrics-give-a-number": (
        {"tasks": [task(metrics=lambda targets, p: 0.5)]},
        {"task": "mine"},
        "EvaluationPart.metrics",
        ["0.5 (float)", "a mapping of text to a number"],
    ),
    "metrics-without-the-primary": (
        {"tasks": [task(metrics=lambda targets, p: {"f1": 0.5})]},
        {"task": "mine"},
        "EvaluationPart.metrics",
        ["['f1']", "the primary metric, 'accuracy'"],
    ),
    "metrics-are-text": (
        {"tasks": [task(metrics=lambda targets, p: {"accuracy": "high"})]},
        {"task": "mine"},
        "EvaluationPart.metrics",
        ["['accuracy'] is 'high'", "a number"],
    ),
    "preprocess-raises": (
        {"tasks": [task(preprocess=lambda spec, options: failing())]},
        {"task": "mine"},
        "Task.preprocess",
        ["failed in preprocess: ValueError: no such window"],
    ),
    "a-view-raises": (
        {"tasks": [task(augment=lambda spec, options: failing().forward)]},
        {"task": "mine"},
        "Task.augment",
        ["failed in augment: ValueError: no such window"],
    ),
    "reader-gives-a-list": (
        {"tasks": [task(reader=lambda path: [path])]},
        {"task": "mine"},
        "Task.reader",
        ["(list)", "text"],
    ),
    "head-of-the-task-is-unknown": (
        {"tasks": [task(head=lambda options: "linaer")]},
        {"task": "mine"},
        "Task.head",
        ["isn't registered", "nearest: linear"],
    ),
    "weights-source-raises": (
        {
            "weights": [
                zooft.WeightsSource(name="ours", summary="", models=lambda: ["toy:one"], load=lambda m, e: 1 // 0)
            ]
        },
        {"weights": "pretrained"},
        "WeightsSource.load",
        ["failed to load toy:one: ZeroDivisionError"],
    ),  # type: ignore[arg-type, return-value]
    "weights-source-gives-a-dict": (
        {"weights": [zooft.WeightsSource(name="ours", summary="", models=lambda: ["toy:one"], load=lambda m, e: {})]},
        {"weights": "pretrained"},
        "WeightsSource.load",
        ["{} (dict)", "a LoadedWeights"],
    ),  # type: ignore[arg-type, return-value]
}


def listed(**changes: Any) -> zooft.Discovery:
    """Three samples, each with the changes."""
    right = found(targets=(0, 1, 1))
    return replace(right, samples=tuple(replace(sample, **changes) for sample in right.samples))


def found(*, targets: tuple[Any, ...]) -> zooft.Discovery:
    samples = tuple(
        zooft.Sample(id=name, source=name, target=target) for name, target in zip("abc", targets, strict=True)
    )
    return zooft.Discovery(samples=samples, labels=zooft.class_labels(("x", "y")))


@pytest.mark.parametrize("case", RUNS)
def test_what_a_function_gives_amiss_ends_the_run_in_the_plugin_s_name(case: str, pictures: Path) -> None:
    wrong, values, where, words = RUNS[case]
    with pytest.raises(PluginError) as caught:
        run(pictures, Stranger(**{"families": [family()], **wrong}), **values)
    kind, _, name = where.partition(".")
    hooks = {"Family": "families", "WeightsSource": "weights", "TrainingPart": "tasks", "EvaluationPart": "tasks"}
    place = (
        f"(plugin stranger of stranger-package 1.0, hook zooft_register_{hooks.get(kind, kind.lower() + 's')}, field "
        f"{where})"
    )
    for text in (place, *words):
        assert text in str(caught.value)
    assert caught.value.code.startswith(f"{__file__}, line ")
    assert (caught.value.plugin, caught.value.field) == ("stranger of stranger-package 1.0", name)


def test_the_audit_says_what_a_plugin_gave_amiss(pictures: Path) -> None:
    wrong = task(show=lambda arrays, options: None)
    done = run(pictures, Stranger(families=[family()], tasks=[wrong]), task="mine", audit=True)
    assert "gives in show: None; expected a numpy array" in (done.path / "audit.json").read_text(encoding="utf-8")


def test_an_unknown_hook_is_reported_with_the_nearest() -> None:
    class Misspelt:
        @zooft.hookimpl
        def zooft_register_haeds(self) -> list[Any]:
            return []

    refusal = register(new_manager(), Misspelt(), "mine")
    assert refusal is not None
    assert refusal.startswith("there is no hook zooft_register_haeds; nearest: zooft_register_heads")


def test_a_private_task_s_values_are_not_shown(pictures: Path) -> None:
    wrong = task(private=True, read=lambda source, options: "DOE^JOHN")
    with pytest.raises(PluginError, match="a value of type str; expected a numpy array") as caught:
        run(pictures, Stranger(families=[family()], tasks=[wrong]), task="mine")
    assert "DOE" not in str(caught.value)


def test_what_fits_its_type_is_let_through() -> None:
    """Everything that comes with zooft, and lists for tuples, sets for frozen ones, numpy's numbers."""
    assert registry.load().problems == {}
    fine = task(metrics=lambda targets, p: {"accuracy": np.float32(0.5)}, subgroups=["scanner"])
    empty = zooft.Predictions(samples=(), columns={"target": np.zeros(1), "probabilities": np.zeros((1, 2))})
    assert load(stranger=Stranger(tasks=[fine])).task("mine").problem.evaluation.metrics(empty, ()) == {"accuracy": 0.5}


# Unknown models, before any data is read


def never(*_arguments: Any, **_values: Any) -> Any:
    raise AssertionError("the data was read")


@pytest.mark.parametrize(
    "changes", [{}, {"canonical": lambda name: {"one": "one"}[name]}], ids=["without-canonical", "with-it"]
)
def test_an_unknown_model_gets_the_nearest_names_before_any_data_is_read(
    changes: dict[str, Any], pictures: Path
) -> None:
    stranger = Stranger(families=[family(**changes)], tasks=[task(discover=never)])
    with pytest.raises(UnknownNameError, match="toy has no model 'onee'; nearest: one"):
        run(pictures, stranger, backbone="toy:onee", task="mine")


def test_a_family_without_weights_gives_no_advice_to_fetch_some(pictures: Path) -> None:
    stranger = Stranger(families=[family()], tasks=[task(discover=never)])
    with pytest.raises(
        WeightsError, match=r"toy has no weights of its own.\nGive --weights FILE or --weights random"
    ) as caught:
        run(pictures, stranger, weights="pretrained", task="mine")
    assert "fetch" not in str(caught.value)


def test_a_weights_source_that_cannot_say_what_it_serves_does_not_stand_in_the_way_of_others(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def weights(_model: str, _expected: Any) -> zooft.LoadedWeights:
        return zooft.LoadedWeights(tensors=family().build("one").state_dict(), source="ours")

    broken = zooft.WeightsSource(name="broken", summary="", models=lambda: 1 // 0, load=weights)  # type: ignore[arg-type, return-value]
    fine = zooft.WeightsSource(name="fine", summary="", models=lambda: ["toy:one"], load=weights)
    result = run(pictures, Stranger(families=[family()], weights=[broken, fine]), weights="pretrained")
    assert json.loads((result.path / "run.json").read_text())["weights"]["source"] == "ours"
    assert any(
        "the weights source broken failed in models: ZeroDivisionError" in r.getMessage() for r in caplog.records
    )


def test_the_list_of_models_says_where_there_are_no_weights_to_download(capsys: pytest.CaptureFixture[str]) -> None:
    from zooft.cli import backbones
    from zooft.model.zoo import describe

    rows = [describe(load(), given, "one") for given in (family(), family(pretrained=lambda _name: None))]
    backbones._print(rows)
    shown = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("one ")]
    assert ["none of its own" in line for line in shown] == [True, False]
    assert ["needs a network" in line for line in shown] == [False, True]


def test_weights_of_other_names_are_reported_as_the_plugin_s(pictures: Path) -> None:
    other = zooft.LoadedWeights(
        tensors={"stem.weight": family().build("one").state_dict()["0.weight"]}, source="our server"
    )
    stranger = Stranger(
        families=[family()],
        weights=[zooft.WeightsSource(name="ours", summary="", models=lambda: ["toy:one"], load=lambda _m, _e: other)],
    )
    with pytest.raises(WeightsError, match=r"don't fit the model.*missing: 0.weight") as caught:
        run(pictures, stranger, weights="pretrained")
    place = "(plugin stranger of stranger-package 1.0, hook zooft_register_weights, field WeightsSource.load)"
    assert f"the weights from our server {place}" in str(caught.value)


# On the command line

SOURCE = '''
"""A stranger's plugin."""
import zooft

print("hello from the import")

def models():
    raise RuntimeError("the table is gone")

def read(source, options):
    return None

@zooft.hookimpl
def zooft_register_families():
    print("hello from the hook")
    return [zooft.Family(name="gone", summary="", models=models, build=models, anatomy=models)]

@zooft.hookimpl
def zooft_on_start(run):
    print("hello from the listener")
    raise SystemExit(3)
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stranger's module, found beside the plugins that are installed."""
    import sys

    from zooft.hooks import loading as plugins

    (tmp_path / "stranger_s_module.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger_s_module", raising=False)
    own, known = EntryPoint("stranger", "stranger_s_module", "zooft"), plugins.metadata.entry_points

    def found(**expected: Any) -> Any:  # others request other groups
        return [*known(**expected), own] if expected == {"group": "zooft"} else known(**expected)

    monkeypatch.setattr(plugins.metadata, "entry_points", found)
    return tmp_path / "stranger_s_module.py"


def test_one_family_that_cannot_list_its_models_does_not_end_the_list(installed: Path) -> None:
    shown = command("backbones", "--json")
    rows = {row["family"]: row for row in json.loads(shown.stdout)}
    assert rows["timm"]["problem"] is None
    assert rows["timm"]["models"] > 1000
    assert rows["gone"]["models"] is None
    assert "failed in models: RuntimeError: the table is gone (plugin stranger of unknown" in rows["gone"]["problem"]
    assert "the table is gone" in command("backbones").stdout


def test_what_a_plugin_prints_does_not_get_into_json(installed: Path) -> None:
    shown = command("plugins", "--json")
    assert "stranger" in {row["plugin"] for row in json.loads(shown.stdout)}
    assert "hello from the import" in shown.stderr
    assert "hello from the hook" in shown.stderr


def test_a_fault_of_a_plugin_is_not_called_a_defect_of_zooft(installed: Path) -> None:
    shown = command("backbones", "gone:*", status=1)
    assert "this is a fault of the plugin; ZOOFT_TRACEBACK=1 shows file and line" in shown.stderr
    assert "defect" not in shown.stderr


def test_file_and_line_of_the_plugin_are_shown_on_demand(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zooft import cli

    monkeypatch.setenv("ZOOFT_TRACEBACK", "1")
    monkeypatch.setattr("sys.argv", ["zooft", "backbones", "gone:*"])
    with pytest.raises(PluginError) as caught:
        cli.main()
    line = 1 + SOURCE.splitlines().index('    raise RuntimeError("the table is gone")')
    assert caught.value.__notes__ == [f"the plugin's code: {installed}, line {line}"]


def test_a_listener_that_exits_does_not_end_the_run(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Exits(Stranger):
        @zooft.hookimpl
        def zooft_on_start(self) -> None:
            raise SystemExit(0)

    result = run(pictures, Exits(families=[family()]))
    assert result.path.is_dir()
    assert "the plugin stranger failed in zooft_on_start: SystemExit: 0" in [r.getMessage() for r in caplog.records]


# Modules


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "import zooft\ndef zooft_register_heads():\n    return []",
            "zooft_register_heads isn't marked as a hook; write @zooft.hookimpl above it",
        ),
        (
            "x = 1",
            "it has no hook; a hook is a function of one of these names with @zooft.hookimpl above it: "
            "zooft_register_families",
        ),
    ],
    ids=["forgotten-mark", "no-hook"],
)
def test_a_module_without_hooks_gets_a_message_about_what_is_missing(
    source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    (tmp_path / "hookless.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hookless", raising=False)
    (info,) = discover([EntryPoint("hookless", "hookless", "zooft")]).infos
    assert reason in str(info.problem)


def test_two_entry_points_to_one_module_are_reported_in_a_short_sentence(installed: Path) -> None:
    one, twin = (EntryPoint(name, "stranger_s_module", "zooft") for name in ("stranger", "twin"))
    (info,) = discover([one, twin]).broken
    assert info.problem == "stranger_s_module is the plugin 'stranger' already; name it by one entry point"


# On the screen


def test_metric_names_with_brackets_are_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    from zooft.cli.live import Live
    from zooft.cli.output import print_table

    record = zooft.EpochRecord(
        epoch=1,
        train_loss=1.0,
        val_loss=1.0,
        metrics={"accuracy [red]": 0.5},
        learning_rate=0.1,
        seconds=1.0,
        learning=(),
        best=True,
    )
    with Live() as live:
        live.epoch(record, 2)
    print_table("", ("accuracy [red]",), [("0.5",)])
    shown = capsys.readouterr()
    assert "accuracy [red] 0.5000" in shown.err
    assert "accuracy [red]" in shown.out


def test_without_one_kind_of_answer_the_images_plugin_has_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import sys

    import zooft_images

    monkeypatch.setitem(sys.modules, "zooft.problems.classification", None)  # importing it fails
    assert [task.name for task in zooft_images.zooft_register_tasks()] == ["regression", "ordinal", "multilabel"]
    refusal = [one.getMessage().partition(" is left out: ")[0] for one in caplog.records if one.name == "zooft"]
    assert refusal == ["the task images/classification", "the task images/multitask"]
