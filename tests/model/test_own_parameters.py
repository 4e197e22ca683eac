"""Parameters of a task's own loss learn, are saved and taken up again, and stay out of the model; fixed ones of a zoo stay."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from example_data import write_classes
from safetensors.torch import load_file
from test_plugin_faults import Stranger, family, load, task
from test_search import job, watch
from test_train import RECIPE, fresh_model, run, together, views
from torch import Tensor, nn

import zooft
from zooft import FreezePlan
from zooft.train import loop, search
from zooft.train.optimizer import make_optimizer


class Anchored(nn.Module):
    """Cross entropy of scaled cosines to class anchors that learn (ArcFace's weights), and how often it was called."""

    asked: Tensor

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.anchors = nn.Parameter(torch.randn(classes, 2))
        self.register_buffer("asked", torch.zeros((), dtype=torch.int64))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.training:
            self.asked += 1
        cosines = nn.functional.normalize(logits) @ nn.functional.normalize(self.anchors).T
        return nn.functional.cross_entropy(4 * cosines, targets)


def anchored(seed: int = 0) -> Anchored:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Anchored()


ALL = FreezePlan(frozen=frozenset({"low", "high"}))


def test_one_step_moves_them_as_plain_torch_does() -> None:
    """One batch of all samples, SGD at the head's rate, by hand."""
    loss, by_hand, model = anchored(), anchored(), fresh_model()
    x, y = together(views(range(18)))
    with torch.no_grad():
        features = model.eval().prefix(x, 3)
    by_hand(model.head(features), y).backward()
    hyperparameters = replace(
        RECIPE, optimizer="sgd", momentum=0.0, weight_decay=0.0, schedule="constant", epochs=1, batch_size=18
    )
    expected = by_hand.anchors.detach() - hyperparameters.lr * by_hand.anchors.grad  # type: ignore[operator]
    run(fresh_model(), hyperparameters, loss=loss, plan=lambda _epoch: ALL)
    torch.testing.assert_close(loss.anchors.detach(), expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(loss.anchors, anchored().anchors)


def test_the_optimizer_has_them_at_the_head_s_rate_and_not_those_that_are_fixed() -> None:
    loss = Anchored()
    loss.register_parameter("fixed", nn.Parameter(torch.ones(2), requires_grad=False))
    last = make_optimizer(fresh_model(), RECIPE, [FreezePlan(frozen=frozenset())], loss).param_groups[-1]
    assert (last["params"], last["lr"]) == ([loss.anchors], RECIPE.lr)


def test_validation_and_probes_teach_it_nothing() -> None:
    loss = anchored()
    run(fresh_model(), replace(RECIPE, batch_size=6, precision="auto", epochs=2), loss=loss)
    assert int(loss.asked) == 2 * 3


def test_every_trial_of_a_sweep_begins_with_the_loss_as_it_was(tmp_path: Path) -> None:
    given = job(fresh_model(), tmp_path, loss=anchored())
    choice = search.choose(given, RECIPE, Accelerator(cpu=True), watch(), views="auto", sweep=True)
    assert torch.equal(given.loss.own.own.anchors, anchored().anchors)  # type: ignore[arg-type]
    assert int(given.loss.own.own.asked) == 0  # type: ignore[arg-type]
    trial = choice.trials[-1]
    own = replace(RECIPE, lr=trial.lr, weight_decay=trial.weight_decay)
    records: list[zooft.EpochRecord] = []
    loop.fit(job(fresh_model(), tmp_path, loss=anchored()), own, Accelerator(cpu=True), watch(records=records))
    best = max(records, key=lambda record: loop.score(record.metrics["accuracy"], record.val_loss))
    assert (best.metrics["accuracy"], best.val_loss) == (trial.primary, trial.val_loss)


def test_folds_do_not_hand_on_what_a_loss_has_learnt() -> None:
    """A task that gives one module again and again gets a fresh one for each fold all the same."""
    from zooft.train.loss import make_loss

    only = anchored()
    given = task(loss=lambda _targets, _options: only)
    first, second = (make_loss(given, zooft.class_labels(["a", "b"]), [0, 1], None, seed=0) for _ in range(2))
    with torch.no_grad():
        first.own.get_parameter("own.anchors").add_(1.0)
    assert torch.equal(second.own.get_parameter("own.anchors"), anchored().anchors)


class Late(nn.Module):
    """Makes its weights when it sees the first logits."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        if not hasattr(self, "weight"):
            self.weight = nn.Parameter(torch.eye(logits.shape[1]))
        return nn.functional.cross_entropy(logits @ self.weight, targets)


class Lazy(nn.Module):
    """The same by torch's own lazy layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(2)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.layer(logits), targets)


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Late, "makes parameters when it is called, which no optimizer knows"), (Lazy, "shapes aren't known yet")],
)
def test_parameters_that_no_optimizer_can_know_are_refused(kind: type[nn.Module], words: str, folder: Path) -> None:
    late = Stranger(families=[family()], tasks=[task(loss=lambda _targets, _options: kind())])
    with pytest.raises(zooft.ZooftError, match=words):
        finetuned(folder / "run", late)


# Whole runs


class Cut(Stranger):
    """Stops the run after its second epoch, once."""

    cut: bool = True

    @zooft.hookimpl
    def zooft_on_epoch_end(self, record: zooft.EpochRecord) -> None:
        if record.epoch == 2 and self.cut:
            self.cut = False
            raise KeyboardInterrupt


def fixed_family() -> zooft.Family:
    """A toy whose convolution's bias the zoo has fixed."""
    plain = family()

    def build(name: str) -> Any:
        module = plain.build(name)
        module.get_submodule("0").get_parameter("bias").requires_grad_(False)
        return module

    return replace(plain, build=build)


def finetuned(folder: Path, stranger: Stranger, **values: Any) -> Path:
    given = {
        "backbone": "toy:one", "task": "mine", "data": folder.parent / "pictures", "weights": "random", "freeze": "none", "epochs": 4,
        "batch_size": 4, "bootstrap": 0, "export": False, "report": False, "audit": False, "device": "cpu", "workers": 0, "out": folder,
    }  # fmt: skip # a table of options
    registry = load(stranger=stranger)
    if "resume" in values:
        return zooft.finetune(registry=registry, resume=values["resume"]).path
    return zooft.finetune(registry=registry, **{**given, **values}).path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_classes(tmp_path / "pictures", {"dark": 7, "light": 7})
    return tmp_path


def mine(kind: type[Stranger] = Stranger) -> Stranger:
    return kind(families=[fixed_family()], tasks=[task(loss=lambda _targets, _options: Anchored())])


def test_an_interrupted_run_ends_with_the_same_bits_as_an_unbroken_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zooft.run.checkpoint.SHARE", 1e9)  # every epoch is saved
    whole = finetuned(folder / "whole", mine())
    stranger = mine(Cut)
    with pytest.raises(KeyboardInterrupt):
        finetuned(folder / "cut", stranger)
    held = load_file(folder / "cut.incomplete" / "last" / "loss.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in held.items()} == {
        "own.own.anchors": (2, 2),
        "own.own.asked": (),
    }
    cut = finetuned(folder / "cut", stranger, resume=folder / "cut.incomplete")
    for name in ("model.safetensors", "last/model.safetensors", "last/loss.safetensors"):
        one, other = load_file(whole / name), load_file(cut / name)
        assert list(one) == list(other)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_another_loss_s_state_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zooft.run.checkpoint.SHARE", 1e9)
    stranger = mine(Cut)
    with pytest.raises(KeyboardInterrupt):
        finetuned(folder / "cut", stranger)
    stranger.tasks = [task(loss=lambda _targets, _options: Anchored(3))]
    with pytest.raises(zooft.ZooftError, match="is of another loss: names or shapes of its tensors differ"):
        finetuned(folder / "cut", stranger, resume=folder / "cut.incomplete")


def test_neither_the_weights_nor_the_exported_file_hold_them(folder: Path) -> None:
    import onnx

    made = finetuned(folder / "run", mine(), export=True, epochs=1)
    assert set(load_file(made / "model.safetensors")) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    names = {tensor.name for tensor in onnx.load(made / "model.onnx").graph.initializer}
    assert not [name for name in names if "anchors" in name or "own." in name]


@pytest.mark.parametrize(
    "values",
    [{"freeze": "none"}, {"freeze": "layerwise:0.5"}, {"freeze": "gradual:1"}, {"freeze": "backbone", "sweep": True, "epochs": 1}, {"folds": 2, "epochs": 1}],
    ids=["none", "layerwise", "gradual", "sweep", "folds"],
)  # fmt: skip # a table of cases
def test_what_the_zoo_has_fixed_ends_a_run_bit_equal(values: dict[str, Any], folder: Path) -> None:
    made = finetuned(folder / "run", mine(), **values, lr=0.1, backbone_lr=0.1, weight_decay=0.5)
    torch.manual_seed(0)
    built = fixed_family().build("one").state_dict()
    learnt = load_file(made / "model.safetensors")
    assert torch.equal(learnt["0.bias"], built["0.bias"])
    assert torch.equal(learnt["0.weight"], built["0.weight"]) == (
        values["freeze"] == "backbone" if "freeze" in values else False
    )


def test_a_forward_pass_that_moves_what_is_fixed_is_found_out(folder: Path) -> None:
    plain = fixed_family()

    def moving(_name: str, _module: Any) -> zooft.Anatomy:
        given = plain.anatomy(_name, _module)

        def forward(module: Any, x: Tensor) -> Tensor:
            if module.training and torch.is_grad_enabled():
                module.get_submodule("0").bias.data += 0.1
            return module.get_submodule("2")(module.get_submodule("1")(module.get_submodule("0")(x)))  # type: ignore[no-any-return]

        return replace(given, stages={"all": zooft.Stage(("0", "1", "2"), forward)})

    stranger = Stranger(families=[replace(plain, anatomy=moving)], tasks=[task()])
    with pytest.raises(zooft.ZooftError, match=r"0.bias \(which the zoo has fixed\)") as caught:
        finetuned(folder / "run", stranger, epochs=300)
    assert "its plugin should hold it as a buffer" in str(caught.value)


def test_the_screen_and_the_record_say_what_is_fixed(folder: Path) -> None:
    import json

    made = finetuned(folder / "run", mine(), epochs=1)
    assert json.loads((made / "run.json").read_text())["backbone"]["fixed"] == ["0.bias"]


# Rates that change


def test_a_stage_s_rate_follows_the_plan_of_each_epoch() -> None:
    """Scaled by 0 in the second epoch, a stage doesn't change in it, and does in all others."""
    import copy

    model = fresh_model()
    seen: list[dict[str, Tensor]] = [copy.deepcopy(model.trunk.state_dict())]
    scales = [{"low": 1.0}, {"low": 0.0}, {"low": 2.0}]
    run(
        model,
        replace(RECIPE, optimizer="sgd", weight_decay=0.0, schedule="constant", momentum=0.0),
        plan=lambda epoch: FreezePlan(frozen=frozenset(), scales=scales[epoch]),
        after_epoch=lambda _record: seen.append(copy.deepcopy(model.trunk.state_dict())),
    )
    moved = [not torch.equal(a["low.0.weight"], b["low.0.weight"]) for a, b in pairwise(seen)]
    others = [not torch.equal(a["high.0.weight"], b["high.0.weight"]) for a, b in pairwise(seen)]
    assert (moved, others) == ([True, False, True], [True, True, True])


def test_a_metric_that_is_never_defined_is_reported() -> None:
    seen = run(fresh_model(), metrics=lambda _t, _p: {"accuracy": float("nan")})
    assert any(
        "accuracy is undefined on the validation samples after every epoch, so the best epoch was chosen by" in n
        for n in seen.notes
    )
