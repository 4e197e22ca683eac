"""What `check_problem` finds: each mistake is made in a problem that is right otherwise, and must be named."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

import zooft
from zooft import testing
from zooft.errors import ConformanceError

STRANGER = Path(__file__).parents[1] / "problems" / "stranger"
LABELS = (zooft.Label(name="dots"),)
TARGETS = [0, 1, 2, 5, 9, 14, 3]


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> zooft.Task:
    """The stranger's, whose problem counts."""
    monkeypatch.syspath_prepend(STRANGER)
    monkeypatch.delitem(sys.modules, "zooft_tally", raising=False)
    import zooft_tally

    (found,) = zooft_tally.zooft_register_tasks()
    return found  # type: ignore[no-any-return]


class Made(nn.Module):
    """A module out of a function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given: Any) -> Any:
        return self.function(*given)


def loss(function: Any) -> dict[str, Any]:
    return {"loss": lambda labels, targets, options: Made(function)}


def taught(function: Any) -> dict[str, Any]:
    own = Made(lambda outputs, theirs: function(outputs["log_rate"], theirs["log_rate"]))
    return {"distill": lambda labels, theirs, options, temperature: own}


def each(outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
    rates = outputs["log_rate"][:, 0]
    return rates.exp() - targets * rates


def sums(outputs: Mapping[str, Tensor], targets: Tensor, **changes: Any) -> zooft.Loss:
    return zooft.Loss(each(outputs, targets).sum(), len(targets))._replace(**changes)


def squared_sum(outputs: Mapping[str, Tensor], targets: Tensor) -> zooft.Loss:
    return zooft.Loss(each(outputs, targets).sum() ** 2, len(targets))


def counted(outputs: Any, targets: Any, labels: Any) -> dict[str, Any]:
    return {"target": np.array(targets, float), "prediction": np.exp(outputs["log_rate"][:, 0].astype(float))}


def columns(**changes: Any) -> dict[str, Any]:
    def made(outputs: Any, targets: Any, labels: Any) -> dict[str, Any]:
        found = counted(outputs, targets, labels)
        return {**found, **{name: change(found["target"]) for name, change in changes.items()}}

    return {"columns": made}


def mae(predictions: Any) -> float:
    return float(abs(predictions["prediction"] - predictions["target"]).mean())


def graph(function: Any) -> dict[str, Any]:
    return {"graph": lambda labels, fitted: Made(lambda outputs, batch: function(outputs["log_rate"][:, 0].exp()))}


def output(**changes: Any) -> dict[str, Any]:
    rate: dict[str, Any] = {"name": "rate", "dtype": "float32", "axes": ("batch",), "meaning": "counted"}
    return {"outputs": lambda labels, fitted: [zooft.Output(**{**rate, **changes})]}


def own_rows(predictions: Any, members: Any, labels: Any, rule: str) -> dict[str, Any]:
    return {name: predictions[name] for name in ("target", "prediction")}


MISTAKES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "loss-not-additive": ("training", "loss", loss(squared_sum), "whose total doesn't add up: .* for the parts of a batch, .* for the whole"),
    "weight-not-additive": ("training", "loss", loss(lambda z, y: sums(z, y, weight=1.0)), "whose weight doesn't add up: 2 for the parts of a batch, 1 for"),
    "loss-leaves-an-output-out": ("training", "loss", {"outputs": lambda labels, options: {"log_rate": 1, "spare": 2}}, "doesn't use the outputs spare; expected all"),
    "loss-of-each": ("training", "loss", loss(each), r"the shape of the loss is \(7,\) .tuple.; expected one number"),
    "sum-of-each": ("training", "loss", loss(lambda z, y: zooft.Loss(each(z, y), len(y))), r"the shape of the loss is \(7,\)"),
    "loss-is-nan": ("training", "loss", loss(lambda z, y: zooft.Loss(each(z, y).sum() * float("nan"), len(y))), "a loss that is nan for outputs near 0; expected a finite"),
    "loss-fails": ("training", "loss", loss(lambda z, y: sums({"log_rate": z["log_rate"][:2]}, y)), "fails on outputs log_rate .7, 1. and targets .7,.: RuntimeError"),
    "loss-apart-from-outputs": ("training", "loss", loss(lambda z, y: zooft.Loss(y.sum(), len(y))), "a loss that doesn't depend on the outputs"),
    "no-outputs": ("training", "outputs", {"outputs": lambda labels, options: {}}, r"gives in outputs: \{\} .dict.; expected at least one output"),
    "encodes-other-shapes": ("training", "encode", {"encode": lambda target, labels: np.zeros(target + 1, np.float32)}, "can't be stacked to a batch: .*; expected a number, an array"),
    "encodes-text": ("training", "encode", {"encode": lambda target, labels: None}, "can't be stacked to a batch: .* NoneType"),
    "check-refuses-all": ("training", "check", {"check": lambda target, labels: "something else"}, "refuses target 0, 0; it expects something else"),
    "check-says-nothing": ("training", "check", {"check": lambda target, labels: None}, "gives in check: None; expected text"),
    "strata-too-few": ("training", "strata", {"strata": lambda targets, labels: zooft.Strata([0], ("all",))}, "gives 1 strata for 7 targets"),
    "taught-by-itself": ("training", "distill", taught(lambda z, y: zooft.Loss((z - y + 1).square().sum(), len(z))), "a loss that is 7 between the same outputs of 7 samples; expected 0"),
    "taught-nothing": ("training", "distill", taught(lambda z, y: zooft.Loss(0 * (z - y).sum(), len(z))), "the total between two different answers is 0.0 .float.; expected a positive number"),
    "taught-apart-from-outputs": ("training", "distill", taught(lambda z, y: zooft.Loss((z - y).square().sum().detach() + 0 * z.sum(), len(z))), "a loss from which the outputs learn nothing"),
    "taught-not-additive": ("training", "distill", taught(lambda z, y: zooft.Loss((z - y).sum() ** 2, len(z))), "whose total doesn't add up: .* for the parts of a batch, .* for the whole"),
    "taught-mean": ("training", "distill", taught(lambda z, y: zooft.Loss((z - y).square().mean(), 1.0)), "doesn't add up: .* for the parts of a batch"),
    "taught-a-tensor": ("training", "distill", taught(lambda z, y: (z - y).square().mean()), "what its module makes is .*; expected a zooft.Loss, sums over samples"),
    "taught-fails": ("training", "distill", taught(lambda z, y: z @ y), "failed in distill: RuntimeError"),
    "column-too-short": ("evaluation", "columns", columns(prediction=lambda y: y[1:]), r"the length of \['prediction'\] is 6 .int.; expected 7, a row each"),
    "column-of-one-number": ("evaluation", "columns", columns(prediction=lambda y: np.float64(3)), r"\['prediction'\] is .*; expected a numpy array"),
    "pictures-in-rows": ("evaluation", "columns", columns(picture=lambda y: np.zeros((7, 200, 200))), r"the numbers in a row of \['picture'\] is 40000 .int.; expected at most 10,000"),
    "without-primary": ("evaluation", "metrics", {"metrics": lambda p, labels: {"mae": mae(p)}}, "the primary metric, 'deviance', among them"),
    "primary-is-nan": ("evaluation", "metrics", {"metrics": lambda p, labels: {"mae": 1.0, "deviance": float("nan")}}, "the primary metric, deviance, is nan .float.; expected a finite number"),
    "better-when-smaller": ("evaluation", "metrics", {"smaller": frozenset({"mae"})}, "must be larger for better answers.*name it in `smaller`"),
    "smaller-is-misspelt": ("evaluation", "smaller", {"smaller": frozenset({"mea", "deviance"})}, "names a figure that isn't there, mea; mae may be meant"),
    "group-of-samples": ("evaluation", "group", {"group": own_rows}, r"the length of \['target'\] is 7 .int.; expected 3, a row each"),
    "cells-of-other-names": ("presentation", "cells", {"cells": lambda p, labels, fitted: {"number": [1] * len(p)}}, "gives the columns number, and `columns` gives count"),
    "cells-too-few": ("presentation", "cells", {"cells": lambda p, labels, fitted: {"count": [1]}}, r"the length of \['count'\] is 1 .int.; expected 7"),
    "worst-of-one": ("presentation", "worst", {"worst": lambda p, labels: np.zeros(1)}, "the length is 1 .int.; expected 7"),
    "graph-of-two": ("deployment", "graph", graph(lambda rate: (rate, rate)), "gives 2 tensors; expected 1, as `outputs` names rate"),
    "graph-of-a-tensor": ("deployment", "graph", graph(lambda rate: rate), "what its module makes is tensor.*expected a tuple of 1 tensors"),
    "graph-of-another-type": ("deployment", "graph", output(dtype="float64"), r"gives rate as float32 \(7,\) of 7 samples; expected float64"),
    "graph-of-another-shape": ("deployment", "graph", output(axes=("batch", 1)), r"gives rate as float32 \(7,\) of 7 samples; expected float32 \('batch', 1\)"),
    "graph-of-the-mean": ("deployment", "graph", graph(lambda rate: (rate.mean()[None],)), r"gives rate as float32 \(1,\) of 7 samples"),
    "graph-of-company": ("deployment", "graph", graph(lambda rate: (rate / rate.max() * 9,)), "other values of rate for the same samples in a smaller batch"),
    "graph-fails": ("deployment", "graph", graph(lambda rate: rate[0, 0]), "failed in graph: IndexError"),
    "graph-in-other-units": ("deployment", "columns", graph(lambda rate: (rate.log(),)), "by which mae is .*, and .* by those of the head's outputs"),
    "agrees-with-nothing": ("deployment", "agree", {"agree": lambda ours, theirs, labels, fitted, slack: ("they differ",)}, "doesn't agree with itself: they differ"),
}  # fmt: skip # a table of mistakes


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_problem_s_mistake_is_named(mistake: str, task: zooft.Task) -> None:
    part, field, changes, words = MISTAKES[mistake]
    problem = task.problem
    changed = replace(problem, **{part: replace(getattr(problem, part), **changes)})
    with pytest.raises(ConformanceError, match=words) as caught:
        testing.check_problem(replace(task, problem=changed), LABELS, TARGETS)
    assert f"(hook zooft_register_tasks, field {part.capitalize()}Part.{field})" in str(caught.value)


def test_a_loss_that_needs_the_whole_batch_says_so(task: zooft.Task) -> None:
    training = replace(task.problem.training, coupled=True, **loss(lambda z, y: sums(z, y, weight=1.0)))
    testing.check_problem(replace(task, problem=replace(task.problem, training=training)), LABELS, TARGETS)


def test_a_divergence_without_mistakes_passes(task: zooft.Task) -> None:
    own = taught(lambda z, y: zooft.Loss((y.exp() * (y - z) - y.exp() + z.exp()).sum(), len(z)))  # of two Poisson rates
    training = replace(task.problem.training, **own)
    testing.check_problem(replace(task, problem=replace(task.problem, training=training)), LABELS, TARGETS)


@pytest.mark.parametrize(
    ("problem", "labels", "targets"),
    [
        (zooft.classification(), zooft.class_labels(("a", "b", "c")), [0, 1, 2, 0, 1, 2]),
        (zooft.regression(), (zooft.Label(name="age", unit="years"),), [(1.0,), (5.0,), (7.5,), (3.0,), (2.0,)]),
        (zooft.ordinal(), zooft.class_labels(("low", "middle", "high")), [0, 1, 2, 0, 1, 2, 2]),
    ],
)
def test_zooft_s_own_problems_pass(problem: Any, labels: Any, targets: Any, task: zooft.Task) -> None:
    testing.check_problem(replace(task, problem=problem, options=problem.options), labels, targets)


# ------------------------------------------------------------------------------------------------- the same in a run


class Narrow(nn.Module):
    """A small backbone of no zoo."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean((2, 3)))


def anatomy(_name: str, _module: nn.Module) -> zooft.Anatomy:
    return zooft.Anatomy(
        stages={"body": zooft.Stage(("body",), lambda m, x: m.body(x).mean((2, 3)))},
        classifier=("fc",),
        input=zooft.InputSpec(height=32, width=32, resize=32, mean=(0.5,) * 3, std=(0.25,) * 3),
    )


def train(
    task: zooft.Task, data: Path, folder: Path, *, cache: bool = False, freeze: str = "none"
) -> zooft.FinetuneResult:
    """A short run of the task, by the plugins that are installed, it and the backbone."""
    from types import ModuleType

    from zooft.hooks import registry
    from zooft.hooks.loading import PluginInfo, Plugins, new_manager

    plugin: Any = ModuleType("mistaken")
    family = zooft.Family(
        name="narrow", summary="two layers", models=lambda: ["one"], build=lambda name: Narrow(), anatomy=anatomy
    )
    plugin.zooft_register_tasks = zooft.hookimpl(lambda: [task], specname="zooft_register_tasks")
    plugin.zooft_register_families = zooft.hookimpl(lambda: [family], specname="zooft_register_families")
    manager = new_manager()
    manager.register(plugin, name="mistaken")
    alone = registry.load(Plugins(manager, (PluginInfo(name="mistaken", distribution="tests", version="1"),)))
    assert alone.problems == {}
    installed = registry.load()
    both = replace(alone, heads=installed.heads, freezers=installed.freezers)
    return zooft.finetune(
        registry=both,
        backbone="narrow:one",
        weights="random",
        freeze="none",
        task="tally",
        data=data,
        epochs=1,
        lr=0.01,
        bootstrap=0,
        out=folder / "run",
        cache=cache,
    )


IN_A_RUN = (
    "loss-not-additive", "weight-not-additive", "loss-leaves-an-output-out", "loss-of-each", "loss-is-nan", "loss-fails", "encodes-other-shapes",
    "column-too-short", "pictures-in-rows", "without-primary", "cells-too-few", "graph-of-two", "graph-of-another-type",
    "graph-of-another-shape", "graph-fails",
)  # fmt: skip # a table of mistakes


@pytest.mark.parametrize("mistake", IN_A_RUN)
def test_a_run_names_the_same_mistake(mistake: str, task: zooft.Task, tmp_path: Path) -> None:
    part, field, changes, _ = MISTAKES[mistake]
    assert task.demo is not None
    task.demo(tmp_path / "data", 0)
    changed = replace(task.problem, **{part: replace(getattr(task.problem, part), **changes)})
    with pytest.raises(zooft.ZooftError) as caught:
        train(replace(task, problem=changed), tmp_path / "data", tmp_path)
    assert f"field {part.capitalize()}Part.{field})" in str(caught.value)


def test_a_run_names_a_graph_that_gives_other_figures(task: zooft.Task, tmp_path: Path) -> None:
    assert task.demo is not None
    task.demo(tmp_path / "data", 0)
    changed = replace(
        task.problem, deployment=replace(task.problem.deployment, **graph(lambda rate: (rate.log() + 9,)))
    )
    with pytest.raises(
        zooft.ZooftError, match="the graph of the problem counting gives other prediction than the head's outputs"
    ):
        train(replace(task, problem=changed), tmp_path / "data", tmp_path)


def test_targets_that_are_no_numbers_are_evaluated_row_by_row(task: zooft.Task, tmp_path: Path) -> None:
    """A tuple a sample, which must not be mistaken for a batch of tuples where features are cached."""
    assert task.demo is not None
    task.demo(tmp_path / "data", 0)

    def discover(root: Path, options: Any) -> zooft.Discovery:
        found = task.discover(root, options)
        return replace(found, samples=tuple(replace(one, target=(float(one.target),)) for one in found.samples))

    numbers = replace(task, problem=zooft.regression(), options=zooft.RegressionOptions, discover=discover)
    done = train(numbers, tmp_path / "data", tmp_path, cache=True)
    assert done.verification is not None
    assert done.verification.metrics["mae"][0] == pytest.approx(done.verification.metrics["mae"][1], rel=1e-3)
    assert done.evaluations["val"].metrics["mae"].value == pytest.approx(done.verification.metrics["mae"][0], rel=1e-3)


def test_without_a_mistake_the_run_ends_with_a_file(task: zooft.Task, tmp_path: Path) -> None:
    assert task.demo is not None
    task.demo(tmp_path / "data", 0)
    assert train(task, tmp_path / "data", tmp_path).verification.passed  # type: ignore[union-attr]
