"""The conformance kit catches what authors of plugins get wrong, and lets through what is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from example_data import write_classes
from safetensors.torch import save_file
from test_plugin_faults import anatomy, family, linear, spec, task
from torch import Tensor, nn

import zooft
from zooft import testing
from zooft.errors import ConformanceError
from zooft.hooks import registry
from zooft.model.backbone import load_backbone
from zooft.testing.breaches import expect_close
from zooft_images.from_source import of_row


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("pictures"), {"dark": 3, "light": 3})


# Families


class Net(nn.Module):
    """Two layers with dropout between them, a fixed scale, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.drop, self.high = nn.Conv2d(3, 8, 3, 2), nn.Dropout(0.3), nn.Conv2d(8, 8, 3, 2)
        self.fc: nn.Module = nn.Linear(8, 4)
        self.size: Any = None

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.high(self.drop(self.low(x))).mean((2, 3)))
        return logits


def net_family(low: Any = None, high: Any = None, **changes: Any) -> zooft.Family:
    """The net with stage functions of the author's own."""
    stages = {
        "low": zooft.Stage(("low", "drop"), low),
        "high": zooft.Stage(("high",), high or (lambda m, x: m.high(x).mean((2, 3)))),
    }
    return family(build=lambda _name: Net(), anatomy=anatomy(stages=stages, classifier=("fc",), **changes))


def holding_on() -> zooft.Family:
    """A stage that runs the module that `anatomy` was given."""

    def of(name: str, module: Any) -> zooft.Anatomy:
        stages = {
            "low": zooft.Stage(("low", "drop")),
            "high": zooft.Stage(("high",), lambda _m, x: module.high(x).mean((2, 3))),
        }
        return replace(net_family().anatomy(name, module), stages=stages)

    return replace(net_family(), anatomy=of)


def remember(module: Any, x: Tensor) -> Tensor:
    module.size = x.mean()
    return module.drop(module.low(x))  # type: ignore[no-any-return]


def use(module: Any, x: Tensor) -> Tensor:
    return (module.high(x) + 0 * module.size + (module.size - module.size.detach())).mean((2, 3)) * (1 + module.size)  # type: ignore[no-any-return]


class FeatureCache(Net):
    """The zoo's module itself scales by the mean of its image."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.high(self.drop(self.low(x))).mean((2, 3)) * (1 + x.mean()))
        return logits


def net_family_with(**changes: Any) -> zooft.Family:
    return replace(net_family(), **changes)


class Viewing(Net):
    """Flattens by a view, which needs maps whose channels come first in memory."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.high(self.drop(self.low(x))).view(len(x), -1)[:, :8])
        return logits


class Torn(Net):
    """One weight isn't a number."""

    def __init__(self) -> None:
        super().__init__()
        self.low.weight.data[0, 0, 0, 0] = float("nan")


class Twofold(Net):
    """Two convolutions see the image."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Conv2d(3, 8, 3, 2)

    def trunk(self, x: Tensor) -> Tensor:
        features: Tensor = self.high(self.drop(self.low(x) * self.side(x))).mean((2, 3))
        return features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.trunk(x))
        return logits


class Counted(Net):
    """Counts images in a buffer whatever mode it is in."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def trunk(self, x: Tensor) -> Tensor:
        self.count += 1
        features: Tensor = self.high(self.drop(self.low(x))).mean((2, 3))
        return features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.trunk(x))
        return logits


def doubled(module: Any, x: Tensor) -> Tensor:
    """Twice what is positive, image for image, by Python's if."""
    features = module.high(x).mean((2, 3))
    return torch.stack([row * 2 if float(row.sum().detach()) > 0 else row for row in features])


class Doubling(Net):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(doubled(self, self.drop(self.low(x))))
        return logits


FAMILIES: dict[str, tuple[Callable[[], zooft.Family], str]] = {
    "noise": (lambda: net_family(lambda m, x: nn.functional.dropout(m.low(x), 0.0) + torch.rand(()), None), "don't compose|two ways"),
    "dropout-left-out": (lambda: net_family(lambda m, x: m.low(x)), "in training mode, such as by a dropout that one of them leaves out"),
    "holds-on-to-its-module": (holding_on, "run another module than the one that they are given"),
    "keeps-state": (lambda: replace(net_family(remember, use), build=lambda _name: FeatureCache()), "by the others in its batch|store on the module"),
    "no-such-first-convolution": (lambda: net_family(first_convolution="conv1"), "first_convolution is 'conv1'.*the name of a module of one"),
    "no-such-classifier": (lambda: family(anatomy=anatomy(classifier=("fc",))), r"classifier\[0\] is 'fc'"),
    "unknown-names-known": (lambda: family(canonical=lambda name: name), "'a-model-that-nobody-has' for a model that nobody has; expected a KeyError"),
    "models-raise": (lambda: family(models=lambda: 1 // 0), "failed in models: ZeroDivisionError"),
    "view-of-contiguous-maps": (lambda: replace(net_family(None, lambda m, x: m.high(x).view(len(x), -1)[:, :8]), build=lambda _name: Viewing()), "stages fail in the layout torch.channels_last, as training runs them: RuntimeError: view size"),
    "gradients-cut-off": (lambda: net_family(lambda m, x: m.drop(m.low(x)).detach()), "stages cut off the gradients of 2 parameters, such as low.bias"),
    "another-first-convolution": (lambda: net_family(first_convolution="high"), "the in_channels of first_convolution, high, is 8 .int.; expected the convolution that sees the image, which has 3"),
    "two-convolutions-see-the-image": (lambda: family(build=lambda _n: Twofold(), anatomy=anatomy(stages={"all": zooft.Stage(("low", "side", "drop", "high"), Twofold.trunk)}, classifier=("fc",), first_convolution="low")), "names the first_convolution low, but something else sees the image too: adapted to grey images, one doesn't run"),
    "counts-in-evaluation": (lambda: family(build=lambda _n: Counted(), anatomy=anatomy(stages={"all": zooft.Stage(("low", "drop", "high", "count"), Counted.trunk)}, classifier=("fc",))), "stages change count in evaluation mode"),
    "alias-of-nothing": (lambda: net_family_with(aliases={"small": "nope"}), "has the alias 'small' for 'nope': toy has no model"),
    "alias-of-a-model": (lambda: net_family_with(aliases={"two": "one"}), "has the alias 'two', which is also the name of a model"),
    "full-name-of-a-full-name": (lambda: net_family_with(canonical=lambda name: {"one": "two", "two": "three"}[name]), "gives 'two' for 'one', and 'three' for that"),
    "weights-not-initialised": (lambda: replace(net_family(), build=lambda _name: Torn()), "one gives numbers that aren't finite for noise; are all of its weights initialised"),
    "levels-for-0-to-255": (lambda: net_family(input=spec(mean=(123.7, 116.3, 103.5))), r"input.mean\[0\] is 123.7 .float.; expected a number on the scale 0..1"),
    "if-on-what-it-computes": (lambda: replace(net_family(None, doubled), build=lambda _name: Doubling()), "can't be written as ONNX, such as by Python's if on what was computed"),
    "build-gives-none": (lambda: family(build=lambda _name: None), "gives in build: None; expected a torch.nn.Module"),
}  # fmt: skip # a table of mistakes


@pytest.mark.parametrize("mistake", FAMILIES)
def test_a_family_s_mistake_is_named(mistake: str, tmp_path: Path) -> None:
    make, words = FAMILIES[mistake]
    with pytest.raises(ConformanceError, match=words) as caught:
        testing.check_family(make(), "one", folder=tmp_path)
    assert "hook zooft_register_families, field Family." in str(caught.value)


def test_stages_that_answer_by_the_batch_or_keep_what_they_saw_are_distinguished() -> None:
    """Each by itself, since a mean over the batch shows itself first in the whole check."""
    stored: dict[str, Tensor] = {}

    def low(module: Any, x: Tensor) -> Tensor:
        stored["mean"] = x.mean((1, 2, 3))
        return module.drop(module.low(x))  # type: ignore[no-any-return]

    def high(module: Any, x: Tensor) -> Tensor:
        return module.high(x).mean((2, 3)) * (1 + stored["mean"][:, None])  # type: ignore[no-any-return]

    class Each(Net):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(self.high(self.drop(self.low(x))).mean((2, 3)) * (1 + x.mean((1, 2, 3))[:, None]))
            return logits

    zoo = replace(net_family(low, high), build=lambda _name: Each())
    with pytest.raises(ConformanceError, match="store on the module what they find out about an image"):
        testing.check_stages(zoo, load_backbone(zoo, "one", weights="random", sources=()))


def test_a_right_family_passes(tmp_path: Path) -> None:
    testing.check_family(net_family(first_convolution="low"), "one", folder=tmp_path)


def test_a_few_logits_that_are_alike_by_chance_raise_no_false_alarm() -> None:
    """Float32 rounds by the size of the numbers, not by how far three of them happen to lie apart."""
    alike = torch.tensor([[0.70001, 0.70002, 0.70003]])
    expect_close(alike * (1 + 1e-7), alike, "rounding")
    with pytest.raises(ConformanceError, match="another model differs by"):
        expect_close(alike * 1.01, alike, "another model")


# Heads


def head(make: Callable[[int, int], Any], **changes: Any) -> zooft.Head:
    return zooft.Head(**{"name": "mine", "summary": "", "build": make, **changes})


class Batchy(nn.Module):
    """A linear layer on features from which the batch's mean is taken, in evaluation too."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x - x.mean(0))
        return logits


class Dropping(nn.Module):
    """Dropout as the function has it by default: in evaluation mode too."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(nn.functional.dropout(x, 0.5))
        return logits


def fixed(width: int, outputs: int, *, marked: bool) -> nn.Module:
    module = nn.Sequential(nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, outputs))
    module[0].requires_grad_(not marked)
    return module if marked else nn.Sequential(nn.Identity(), _Detached(module[0]), module[2])


class _Detached(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features: Tensor = self.layer(x)
        return features


class Deaf(nn.Linear):
    """Learns a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class Counting(nn.Linear):
    """Keeps count of its calls, in evaluation too."""

    count: Tensor

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__(width, outputs)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return super().forward(x)


class Spread(nn.Linear):
    """The standard deviation over a bag, which one instance doesn't have."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.std(1))


class Branching(nn.Linear):
    """Python's if on a number that it has computed."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack(
            [super(Branching, self).forward(row) * (2 if float(row.sum().detach()) > 0 else 1) for row in x]
        )


class Looping(nn.Linear):
    """A loop over as many instances as the example has."""

    def forward(self, x: Tensor) -> Tensor:
        most = x[:, 0]
        for place in range(1, x.shape[1]):
            most = torch.maximum(most, x[:, place])
        return super().forward(most)


def replaced(module: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """The same with `change` behind it."""
    return nn.Sequential(module, type("Change", (nn.Module,), {"forward": lambda _self, x: change(x)})())


HEADS = {
    "gives-none": (head(lambda w, o: None), "gives in build: None; expected a torch.nn.Module"),
    "build-is-text": (head("Linear"), "field build is 'Linear'"),  # type: ignore[arg-type]
    "capitals": (head(linear, name="Mine"), "'Mine' can't be a name"),
    "module-gives-none": (head(lambda w, o: type("Nothing", (nn.Module,), {"forward": lambda self, x: None})()), "what its module makes is None; expected a finite tensor"),
    "fails": (head(lambda w, o: nn.Linear(w + 1, o)), r"fails on \(5, 16\): RuntimeError"),
    "by-the-batch": (head(Batchy), "answers a sample by the others in its batch in evaluation mode"),
    "dropout-in-evaluation": (head(Dropping), "answers one sample in two ways in evaluation mode"),
    "one-width-only": (head(lambda w, o: nn.Linear(16, o)), r"fails on zeros \(2, 9\)"),
    "numbers-not-finite": (head(lambda w, o: replaced(nn.Linear(w, o), lambda y: y * float("nan"))), "makes numbers that aren't finite of .5, 16."),
    "one-more-output": (head(lambda w, o: nn.Linear(w, o + 1)), r"what its module makes of \(5, 16\) is \(5, 4\)"),
    "nothing-to-learn": (head(lambda w, o: replaced(nn.Identity(), lambda y: y[:, :3])), "no parameter that learns; expected at least one"),
    "deaf-to-the-features": (head(lambda w, o: Deaf(w, o)), "doesn't depend on the features, or that detaches them"),
    "counts-in-evaluation": (head(Counting), "changes count in evaluation mode; change it in training mode only"),
    "spread-of-one-instance": (head(Spread, reads="bag"), r"aren't finite of \(2, 1, 16\)|fails on \(2, 1, 16\): UserWarning: std"),
    "if-on-what-it-computes": (head(Branching), "can't be written as ONNX: GuardOnDataDependentSymNode"),
    "loop-over-instances": (head(Looping, reads="bag"), "can't be written as ONNX|answers .* otherwise than torch does"),
    "unused": (head(lambda w, o: fixed(w, o, marked=False)), "doesn't use 1.layer.weight, 1.layer.bias; use it, or mark what is to stay fixed with requires_grad_"),
}  # fmt: skip # a table of mistakes


@pytest.mark.parametrize("mistake", HEADS)
def test_a_head_s_mistake_is_named(mistake: str) -> None:
    given, words = HEADS[mistake]
    with pytest.raises(ConformanceError, match=words):
        testing.check_head(given)


def test_a_head_with_a_layer_that_is_marked_as_fixed_passes() -> None:
    testing.check_head(head(lambda w, o: fixed(w, o, marked=True)))


@pytest.mark.parametrize("name", ["linear", "mean", "max", "attention"])
def test_the_heads_that_come_with_zooft_pass(name: str) -> None:
    testing.check_head(registry.load().head(f"standard/{name}"))


# Freezers


def freezer(plan: Callable[..., Any]) -> zooft.Freezer:
    return zooft.Freezer(name="odd", summary="", plan=plan)


def drawn(stages: Any, _argument: Any, _epoch: Any) -> zooft.FreezePlan:
    return zooft.FreezePlan(frozen=frozenset(np.random.choice(stages, 2, replace=False).tolist()))


FREEZERS = {
    "no-stage": (freezer(lambda s, a, e: zooft.FreezePlan(frozen=frozenset({"nope"}))), "frozen in epoch 0 is 'nope'"),
    "later-no-stage": (freezer(lambda s, a, e: zooft.FreezePlan(frozen=frozenset({"nope"} if e > 8 else ()))), "frozen in epoch 9 is 'nope'"),
    "scale-of-no-stage": (freezer(lambda s, a, e: zooft.FreezePlan(frozen=frozenset(), scales={"nope": 1.0})), "scales in epoch 0 is 'nope'"),
    "negative": (freezer(lambda s, a, e: zooft.FreezePlan(frozen=frozenset(), scales={s[0]: -1.0})), "is -1.0 .float.; expected a factor"),
    "nan": (freezer(lambda s, a, e: zooft.FreezePlan(frozen=frozenset(), scales={s[0]: float("nan")})), "is nan"),
    "none": (freezer(lambda s, a, e: None), "gives in plan: None; expected a FreezePlan"),
    "set": (freezer(lambda s, a, e: {s[0]}), "gives in plan: {'stem'} .set.; expected a FreezePlan"),
    "raises": (freezer(lambda s, a, e: s[99]), "failed in plan: IndexError"),
    "exempt-kind": (freezer(lambda s, a, e: zooft.FreezePlan(frozen=frozenset(s), exempt=frozenset({"norm"}))), "exempt in epoch 0 is 'norm' .str.; expected a parameter that may learn"),
    "exempt-module": (freezer(lambda s, a, e: zooft.FreezePlan(frozen=frozenset(s), exempt=frozenset({"stem.linear"}))), "such as stem.linear.weight, stem.linear.bias"),
    "draws": (freezer(drawn), "gives two different plans for epoch 0"),
}  # fmt: skip # a table of mistakes


@pytest.mark.parametrize("mistake", FREEZERS)
def test_a_freezer_s_mistake_is_named(mistake: str) -> None:
    given, words = FREEZERS[mistake]
    with pytest.raises(ConformanceError, match=words) as caught:
        testing.check_freezer(given, None)
    assert "(hook zooft_register_freezers, field Freezer.plan)" in str(caught.value)


@pytest.mark.parametrize(
    ("plan", "odd"), [(lambda s, a, e: s[: int(a)], "None"), (lambda s, a, e: s[: int(a or 0)], "'1.5'")]
)
def test_a_freezer_that_trips_over_an_odd_argument_is_named(plan: Any, odd: str) -> None:
    given = zooft.Freezer(
        name="odd", summary="", argument="K", plan=lambda s, a, e: zooft.FreezePlan(frozen=frozenset(plan(s, a, e)))
    )
    with pytest.raises(
        ConformanceError,
        match=f"for the argument {odd}, the freezer odd failed in plan: .*; expected a zooft.ConfigError",
    ):
        testing.check_freezer(given, "2")


# Tasks


def plain(targets: Any, probabilities: Any) -> dict[str, float]:
    return {"accuracy": float((probabilities.argmax(1) == targets).mean())}


def lacking(targets: Any, probabilities: Any) -> dict[str, float]:
    counts = np.bincount(targets, minlength=probabilities.shape[1])
    if not counts.all():
        raise ValueError("a class is missing")
    return plain(targets, probabilities)


def unreadable(source: Any, _options: Any) -> Any:
    if str(source).endswith("02.png"):
        raise zooft.DataError("it is torn")
    return np.zeros((8, 8, 3), np.uint8)


class SharedBuffer:
    """Reads into one array for all threads."""

    def __init__(self) -> None:
        self.buffer = np.zeros((8, 8, 3), np.uint8)

    def __call__(self, source: Any, _options: Any) -> Any:
        import time

        self.buffer[:] = int(Path(source).stem) + 1
        time.sleep(0.002)
        return self.buffer.copy()


class SharedPlace:
    """Seeks and reads one open file for all threads, and notices that it isn't where it was."""

    place: Any = None

    def __call__(self, source: Any, _options: Any) -> Any:
        import time

        self.place = source
        time.sleep(0.002)
        if self.place != source:
            raise zooft.DataError("the file ends early")
        return np.zeros((8, 8, 3), np.uint8)


TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "always-nan": ({"metrics": lambda t, p: {"accuracy": float("nan")}}, "the primary metric, accuracy,? is nan"),
    "fails-without-a-class": ({"metrics": lacking}, "failed in metrics: ValueError: a class is missing"),
    "values-are-text": ({"metrics": lambda t, p: {"accuracy": "0.5"}}, r"\['accuracy'\] is '0.5' \(str\); expected a number"),
    "without-primary": ({"metrics": lambda t, p: {"f1": 1.0}}, "the primary metric, 'accuracy', among them"),
    "smaller-is-better": ({"metrics": lambda t, p: {"accuracy": 1 - plain(t, p)["accuracy"]}}, "the primary metric must be larger for better answers"),
    "unreadable-sample": ({"read": unreadable}, "02.png was readable when the data was listed, and isn't any more: it is torn"),
    "unknown-head": ({"head": lambda o: "linaer"}, "names a head that isn't registered.*nearest: linear.*field Task.head"),
    "head-of-bags": ({"head": lambda o: "attention"}, "which reads a bag; its own bag is False"),
    "reader-gives-no-text": ({"reader": lambda path: [path]}, r"gives in reader: \[ImageOptions|gives in reader: \["),
    "point-is-text": ({"operating_point": lambda o: "youden"}, r"the operating point is 'youden' \(str\), expected an OperatingPoint or None"),
    "report-is-of-text": ({"report": lambda samples, o: ["a table"]}, r"gives in report: \[0\] is 'a table' \(str\); expected a Picture or a Table"),
    "reader-is-text": ({"reader": "import numpy"}, "field reader is 'import numpy'"),
    "reader-without-read": ({"reader": lambda o: "import numpy"}, r"without a function read\(path\)"),
    "discover-raises": ({"discover": lambda d, o: 1 // 0}, "failed to read the data: ZeroDivisionError"),
    "discover-gives-none": ({"discover": lambda d, o: None}, "gives in discover: None; expected a Discovery"),
    "float-targets": ({"discover": lambda d, o: discovered(0.0, 1.0)}, "the target of the sample 0 is 0.0 .float.; expected a whole number from 0 to 1"),
    "target-out-of-range": ({"discover": lambda d, o: discovered(0, 2)}, "the target of the sample 1 is 2"),
    "loss-of-each": ({"loss": lambda t, o: nn.CrossEntropyLoss(reduction="none")}, "the shape of the loss is"),
    "loss-raises": ({"loss": lambda t, o: nn.CrossEntropyLoss(weight=torch.ones(7))}, "makes a loss that fails on outputs logits"),
    "loss-is-a-function": ({"loss": lambda t, o: nn.functional.cross_entropy}, "gives in loss: .* expected a torch.nn.Module"),
    "of-row-renames": ({"of_row": lambda s, row, o: zooft.Sample(id="1", source=row)}, "makes '1' with the target None of the row 'rows/7'.*Task.of_row"),
    "of-row-labels": ({"of_row": lambda s, row, o: zooft.Sample(id=row.id, source=row, target=0)}, "'rows/7' with the target 0 .*and no target"),
    "of-row-stays": ({"of_row": lambda s, row, o: zooft.Sample(id=row.id, source=lambda: row)}, "can't be sent to another process"),
    "of-row-is-none": ({"of_row": lambda s, row, o: None}, "gives in of_row: None; expected a Sample"),
    "of-row-unread": ({"of_row": lambda s, row, o: zooft.Sample(id=row.id, source=row)}, "gives a sample that can't be read: rows/7 .*Task.of_row"),
    "read-shares-an-array": ({"read": SharedBuffer()}, "gives other arrays of .* where threads read at once; expected the same.*Task.read"),
    "read-shares-a-file": ({"read": SharedPlace()}, "fails on .* where threads read at once: .*the file ends early.*Task.read"),
    "another-dtype": ({"read": lambda s, o: np.zeros((8, 8, 3), np.float32)}, "dark/00.png is float32 of shape .8, 8, 3.; expected uint8 of shape .height, width, 3."),
}  # fmt: skip # a table of mistakes


def discovered(*targets: Any) -> zooft.Discovery:
    samples = tuple(zooft.Sample(id=str(i), source=i, target=target) for i, target in enumerate(targets))
    return zooft.Discovery(samples=samples, labels=zooft.class_labels(("x", "y")))


@pytest.mark.parametrize("mistake", TASKS)
def test_a_task_s_mistake_is_named(mistake: str, pictures: Path) -> None:
    changes, words = TASKS[mistake]
    with pytest.raises(ConformanceError, match=words):
        testing.check_task(task(**{"metrics": plain, **changes}), pictures)


def test_a_task_with_a_head_of_its_own_passes_where_that_is_given(pictures: Path) -> None:
    own = task(metrics=plain, head=lambda _options: "mine", of_row=of_row)
    testing.check_task(own, pictures, heads=[head(linear)])


# Weights and whole plugins


def source(tensors: Callable[[], Any], *, models: Any = ("toy:one",)) -> zooft.WeightsSource:
    return zooft.WeightsSource(
        name="ours",
        summary="",
        models=lambda: models,
        load=lambda _m, _e: zooft.LoadedWeights(tensors=tensors(), source="ours"),
    )


def right() -> dict[str, Tensor]:
    return family().build("one").state_dict()  # type: ignore[no-any-return]


def saying(**words: Any) -> zooft.WeightsSource:
    loaded = zooft.LoadedWeights(**{"tensors": right(), "source": "ours", **words})
    return replace(source(right), load=lambda _m, _e: loaded)


WEIGHTS = {
    "other-names": (source(lambda: {f"net.{name}": t for name, t in right().items() if not name.startswith("3")} | {"own": torch.ones(1)}), "don't fit the model"),
    "other-shapes": (source(lambda: {**right(), "0.weight": torch.zeros(4, 3, 5, 5)}), r"0.weight is \(4, 3, 5, 5\) instead of \(4, 3, 3, 3\)"),
    "a-dict": (replace(source(right), load=lambda _m, _e: {}), "gives in load: {} .dict.; expected a LoadedWeights"),
    "none-of-the-family": (source(right, models=("other:one",)), "names no model of toy"),
    "models-raise": (replace(source(right), models=lambda: 1 // 0), "failed in models: ZeroDivisionError"),  # type: ignore[arg-type, return-value]
    "load-raises": (replace(source(right), load=lambda _m, _e: 1 // 0), "failed to load toy:one: ZeroDivisionError"),  # type: ignore[arg-type, return-value]
    "numbers-not-finite": (source(lambda: {**right(), "0.bias": torch.full((4,), torch.inf)}), "1 not finite: 0.bias"),
    "whole-numbers": (source(lambda: {**right(), "0.bias": torch.zeros(4, dtype=torch.int32)}), "0.bias is int32"),
    "from-nowhere": (saying(source=" "), "the source of toy:one is ' ' .str.; expected a few words on where"),
    "a-path": (saying(source="/srv/weights/one.pt"), "expected words without a path of this machine"),
    "a-windows-path": (saying(source="C:\\weights\\one.pt"), "expected words without a path of this machine"),
    "no-digest": (saying(file_sha256="one"), "the file_sha256 of toy:one is 'one' .str.; expected 64 hexadecimal digits"),
    "an-alias": (source(right, models=("toy:small",)), "names toy:small; expected the full name, toy:one"),
    "no-such-model": (source(right, models=("toy:three",)), "toy has no model 'three'"),
}  # fmt: skip # a table of mistakes


@pytest.mark.parametrize("mistake", WEIGHTS)
def test_a_weights_source_s_mistake_is_named(mistake: str) -> None:
    given, words = WEIGHTS[mistake]
    with pytest.raises(ConformanceError, match=words):
        testing.check_weights(given, family(aliases={"small": "one"}))


def test_weights_of_a_folder_aren_t_mistaken_for_the_source_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy").mkdir()
    save_file(right(), tmp_path / "toy" / "one.safetensors")
    monkeypatch.setenv("ZOOFT_WEIGHTS", str(tmp_path))
    with pytest.raises(ConformanceError, match=r"come from the folder .*, not from ours; take ZOOFT_WEIGHTS out of"):
        testing.check_weights(source(right), family())


def test_right_weights_pass() -> None:
    testing.check_weights(source(right), family())


PLUGINS = {
    "no-hook": ("", "it has no hook"),
    "no-mark": ("def zooft_register_heads(): return []", "zooft_register_heads isn't marked as a hook"),
    "misspelt": ("@zooft.hookimpl\ndef zooft_register_haeds(): return []", "zooft_register_haeds"),
    "head-is-text": ("@zooft.hookimpl\ndef zooft_register_heads(): return ['linear']", "expected Head, got str"),
    "listener-raises": ("@zooft.hookimpl\ndef zooft_on_epoch_end(record): record.loss", "zooft_on_epoch_end failed in a run that finishes: AttributeError"),
    "listener-exits": ("@zooft.hookimpl\ndef zooft_on_start(run, samples): raise SystemExit(0)", "zooft_on_start failed in a run that finishes: SystemExit: 0"),
}  # fmt: skip # a table of mistakes


LISTENERS = {
    "no-metrics": ("def zooft_on_epoch_end(record): record.metrics['accuracy']", "in a run that resumes, without validation samples, and fails: KeyError: 'accuracy'"),
    "no-folder": ("def zooft_on_end(ended): (ended.folder / 'done').touch()", "zooft_on_end failed in a run that is interrupted at once: TypeError"),
    "loss-not-a-number": ("def zooft_on_epoch_end(record): int(record.val_loss)", "ValueError: cannot convert float NaN to integer"),
    "cancelled": ("def zooft_on_epoch_end(record): raise __import__('asyncio').CancelledError", "CancelledError"),
    "changes-the-metrics": ("def zooft_on_epoch_end(record): record.metrics['mine'] = 1.0", "zooft_on_epoch_end changes record, which the run and other listeners use; take a copy"),
    "moves-the-model": ("def zooft_on_exported(run, model): model.rename(run / 'mine.onnx')", "zooft_on_exported changes or removes the ONNX file"),
    "unknown-argument": ("def zooft_on_end(run, result): pass", "result"),
}  # fmt: skip # a table of mistakes


@pytest.mark.parametrize("mistake", LISTENERS)
def test_a_listener_s_mistake_is_named(mistake: str, tmp_path: Path) -> None:
    code, words = LISTENERS[mistake]
    with pytest.raises(ConformanceError, match=words):
        testing.check_listener(module_of(f"@zooft.hookimpl\n{code}"), folder=tmp_path)


def module_of(code: str) -> ModuleType:
    made = ModuleType("made")
    exec("import zooft\n" + code, vars(made))  # noqa: S102 -- our own
    return made


@pytest.mark.parametrize("mistake", PLUGINS)
def test_a_module_s_mistake_is_named(mistake: str, tmp_path: Path) -> None:
    code, words = PLUGINS[mistake]
    with pytest.raises(ConformanceError, match=words):
        testing.check_plugin(module_of(code), folder=tmp_path)


@pytest.mark.parametrize(
    "name", ["zooft_standard", "zooft_timm", "zooft_torchvision", "zooft_images", "zooft_ct", "zooft_efficientnet_lite"]
)
def test_the_plugins_that_come_with_zooft_pass(name: str, tmp_path: Path) -> None:
    import importlib

    testing.check_plugin(importlib.import_module(name), folder=tmp_path)


def test_a_listener_that_uses_all_that_it_gets_passes(tmp_path: Path) -> None:
    code = """
@zooft.hookimpl
def zooft_on_epoch_end(run, record): (run / "log").write_text(f"{record.epoch} {record.val_loss:.3f} {record.metrics.get('accuracy')}")

@zooft.hookimpl
def zooft_on_exported(run, model): model.stat()

@zooft.hookimpl
def zooft_on_verified(run, verification): assert verification.passed and verification.relative_rms >= 0
"""
    testing.check_plugin(module_of(code), folder=tmp_path)
    assert (tmp_path / "log").read_text() == "1 1.000 0.5"
    assert (tmp_path / "resumed" / "log").read_text() == "1 nan None"
    assert not (tmp_path / "interrupted" / "log").exists()
