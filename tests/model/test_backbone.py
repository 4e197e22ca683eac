"""A zoo's module with its classifier out and a head in: what is checked, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zooft import Anatomy, Family, FreezePlan, Freezer, Head, InputSpec, ModelError, Stage, WeightsError
from zooft.errors import FrozenChangedError, PluginError, UnknownNameError
from zooft.hooks import registry
from zooft.model import freeze
from zooft.model.adapted import AdaptedModel, adapt, load_zoo_state_dict, zoo_state_dict
from zooft.model.backbone import Backbone, load_backbone, rebuild_backbone
from zooft.model.loading import load_strictly
from zooft.model.names import full_name
from zooft.model.zoo import describe

SPEC = InputSpec(height=16, width=16, resize=18, mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.3))


class Net(nn.Module):
    """Two convolutions with BatchNorm, one of them with dropout, and a classifier of ten classes."""

    def __init__(self, classifier: nn.Module | None = None) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.high = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.5))
        self.fc = classifier or nn.Linear(6, 10)

    def pool(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=isinstance(self.fc, nn.Conv2d))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pool(self.high(self.low(x))))
        return logits.flatten(1)


def pool(module: nn.Module, x: Tensor) -> Tensor:
    return x.mean((2, 3))


STAGES: Mapping[str, Stage] = {"low": Stage(("low",)), "high": Stage(("high",)), "pool": Stage((), pool)}


def family(
    *,
    stages: Mapping[str, Stage] = STAGES,
    build: Callable[[str], nn.Module] = lambda _name: Net(),
    first_convolution: str | None = "low.0",
) -> Family:
    def anatomy(_name: str, _module: nn.Module) -> Anatomy:
        return Anatomy(stages=stages, classifier=("fc",), input=SPEC, first_convolution=first_convolution)

    return Family(name="toy", summary="", models=lambda: ["net"], build=build, anatomy=anatomy)


def load(zoo: Family, *, channels: int = 3) -> Backbone:
    torch.manual_seed(0)
    return load_backbone(zoo, "net", weights="random", sources=(), channels=channels)


def adapted(zoo: Family | None = None, *, outputs: int = 3) -> AdaptedModel:
    backbone = load(zoo or family())
    return AdaptedModel(backbone, nn.Linear(backbone.width, outputs))


def head(build: Callable[[int, int], nn.Module]) -> Head:
    return Head(name="odd", summary="", build=build)


def test_a_backbone_knows_its_width_stages_and_reference() -> None:
    backbone = load(family())
    assert (backbone.width, tuple(backbone.stages), backbone.reference) == (6, ("low", "high", "pool"), "toy:net")
    assert not [n for n in backbone.module.state_dict() if n.startswith("fc")]


def test_what_this_process_has_checked_is_built_again_without_looking() -> None:
    zoo, looked = family(), []
    first = load(zoo)

    def pool(module: nn.Module, x: Tensor) -> Tensor:
        looked.append(x)
        return STAGES["pool"](module, x)

    watched = family(stages={**STAGES, "pool": Stage((), pool)})
    known: dict[str, Any] = {"channels": 3, "record": first.weights}
    drawn = torch.get_rng_state()
    again = rebuild_backbone(watched, "net", like=first, **known)
    assert not looked
    assert torch.equal(drawn, torch.get_rng_state())
    assert (again.width, again.input, again.slots) == (first.width, first.input, first.slots)
    assert {n: t.shape for n, t in again.module.state_dict().items()} == {
        n: t.shape for n, t in first.module.state_dict().items()
    }
    rebuild_backbone(watched, "net", **known)
    assert looked


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"high": Stage(("high.0",))}, r"in no stage: high\.1\.weight"),
        ({"high": Stage(("high", "low.0"))}, r"in several stages: low\.0\.weight \(low and high\)"),
        ({"pool": Stage((), lambda m, x: x.amax((2, 3)))}, "don't compose to its trunk: they differ by"),
        ({"pool": Stage((), lambda m, x: x)}, r"should give \(N, width\), stage by stage and whole; it gives"),
        ({"low": Stage(("low",), lambda m, x: (m.low(x), x))}, "the stage low of net gives tuple, expected a tensor"),
        ({"pool": Stage((), lambda m, x: m.no_such_thing(x))}, "the stages of net don't run: pool: AttributeError"),
    ],
)
def test_a_wrong_map_is_refused_with_what_is_wrong(changed: Mapping[str, Stage], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(family(stages={**STAGES, **changed}))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [({}, None), ({"high": Stage(("high.0",))}, "in no stage"), ({"pool": Stage((), lambda m, x: x)}, "should give")],
)
def test_a_single_model_that_is_listed_is_checked(changed: Mapping[str, Stage], problem: str | None) -> None:
    zoo = family(stages={**STAGES, **changed})
    quick, checked = (describe(registry.load(), zoo, "net", check=check) for check in (False, True))
    assert quick["problem"] is None
    assert (checked == quick) if problem is None else (problem in checked["problem"])


def test_a_family_that_fails_to_build_is_named() -> None:
    def fail(_name: str) -> nn.Module:
        raise RuntimeError("out of clay")

    with pytest.raises(PluginError, match="the family toy failed to build net: RuntimeError: out of clay"):
        load(family(build=fail))


@pytest.mark.parametrize(
    "build",
    [
        lambda width, outputs: nn.Linear(width, outputs + 1),
        lambda width, outputs: nn.Sequential(nn.Linear(width, outputs), nn.Threshold(1e9, float("nan"))),
    ],
)
def test_a_head_that_does_not_give_finite_logits_for_each_class_is_refused(
    build: Callable[[int, int], nn.Module],
) -> None:
    with pytest.raises(ModelError, match="the head odd gives"):
        adapt(load(family()), head(build), {"logits": 3})


def test_the_model_may_start_behind_any_stage() -> None:
    model, x = adapted().eval(), torch.randn(2, 3, 16, 16)
    whole = model(x)
    for stop in range(4):
        torch.testing.assert_close(model(model.prefix(x, stop), stop), whole)


def test_a_bag_is_run_instance_by_instance_and_its_stages_separate_the_bags() -> None:
    plain = adapted()
    bag = AdaptedModel(load(family()), _Mean(plain.head), bag=True).eval()
    bag.trunk.load_state_dict(plain.trunk.state_dict())
    x = torch.randn(2, 5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        alone = torch.stack([plain.eval()(one)["logits"] for one in x])
        torch.testing.assert_close(bag(x)["logits"], alone.mean(1))
        first = bag.prefix(x, 1)
        assert first.shape[:2] == (2, 5)
        torch.testing.assert_close(bag(first, 1)["logits"], alone.mean(1))


class _Mean(nn.Module):
    """The mean of a linear head's logits over the instances."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(x)
        return logits.mean(1)


@pytest.mark.parametrize("classifier", [lambda n: nn.Linear(6, n), lambda n: nn.Conv2d(6, n, 1)])
def test_a_linear_head_goes_back_into_the_classifiers_place(classifier: Callable[[int], nn.Module]) -> None:
    model = adapted(family(build=lambda _name: Net(classifier(10))), outputs=3).eval()
    plain = Net(classifier(3)).eval()
    plain.load_state_dict(zoo_state_dict(model), strict=True)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(plain(x), model(x)["logits"])


def test_saved_tensors_come_back_exactly() -> None:
    ours, other = adapted(), adapted()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter))
    load_zoo_state_dict(other, zoo_state_dict(ours), what="a file")
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in ours.state_dict().items())


def test_another_kind_of_head_is_saved_under_our_own_name() -> None:
    backbone = load(family())
    ours = AdaptedModel(backbone, nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)))
    tensors = zoo_state_dict(ours)
    assert [n for n in tensors if n.startswith("fc")] == []
    assert "zooft_head.0.weight" in tensors
    other = AdaptedModel(load(family()), nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)))
    load_zoo_state_dict(other, tensors, what="a file")
    assert torch.equal(other.head.state_dict()["2.weight"], ours.head.state_dict()["2.weight"])


@pytest.mark.parametrize("head", [nn.Linear(6, 3), nn.Sequential(nn.Linear(6, 3))], ids=["linear", "another"])
def test_saved_tensors_stay_as_they_are_while_the_model_learns_on(head: nn.Module) -> None:
    model = AdaptedModel(load(family()), head)
    tensors = zoo_state_dict(model)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())


def test_tensors_of_a_run_with_other_classes_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"weight is \(4, 6\) instead of \(3, 6\)"):
        load_zoo_state_dict(adapted(outputs=3), zoo_state_dict(adapted(outputs=4)), what="a file")


def test_loading_is_all_or_nothing() -> None:
    module = Net()
    before = {n: t.clone() for n, t in module.state_dict().items()}
    given = {n: t + 1 for n, t in before.items() if n != "high.0.bias"}
    with pytest.raises(WeightsError, match=r"missing: high\.0\.bias"):
        load_strictly(module, given, without=("fc",), what="a file")
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())


@pytest.mark.parametrize(("channels", "mean"), [(1, (0.4,)), (2, (0.2, 0.4)), (4, (0.2, 0.4, 0.6, 0.2))])
def test_other_channel_counts_take_their_normalisation_along(channels: int, mean: tuple[float, ...]) -> None:
    backbone = load(family(), channels=channels)
    assert backbone.input.mean == pytest.approx(mean)
    assert tuple(backbone.module.state_dict()["low.0.weight"].shape) == (4, channels, 3, 3)


def test_a_first_convolution_that_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(ModelError, match="takes 3 channels and can't be adapted to 1"):
        load(family(first_convolution=None), channels=1)


def test_a_missing_model_is_an_unknown_name() -> None:
    def unknown(name: str) -> str:
        raise KeyError(name)

    with pytest.raises(UnknownNameError, match="toy has no model 'nett'; nearest: net"):
        full_name(replace(family(), canonical=unknown), "nett")


def test_learnable_stages_are_those_that_hold_parameters() -> None:
    assert freeze.learnable_stages(adapted()) == ("low", "high")


@pytest.mark.parametrize(("frozen", "count"), [((), 0), (("low",), 1), (("high",), 0), (("low", "high"), 3)])
def test_the_frozen_prefix_ends_at_the_first_stage_that_learns(frozen: tuple[str, ...], count: int) -> None:
    assert freeze.frozen_prefix(adapted(), frozen) == count


def test_a_plan_is_put_into_force_again_after_every_change_of_mode() -> None:
    model = adapted()
    freeze.apply(model, ["low"])
    model.train()
    freeze.apply(model, ["low"])
    modes = {name: module.training for name, module in model.trunk.named_modules()}
    assert not any(mode for name, mode in modes.items() if name.startswith("low"))
    assert all(mode for name, mode in modes.items() if name.startswith("high"))
    assert {n: p.requires_grad for n, p in model.trunk.named_parameters()} == {
        n: n.startswith("high") for n, _ in model.trunk.named_parameters()
    }


def test_thawed_stages_learn_again() -> None:
    model = adapted()
    freeze.apply(model, ["low", "high"])
    freeze.apply(model, [])
    assert all(p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize("name", ["low.0.weight", "low.1.running_var", "low.1.num_batches_tracked"])
def test_the_smallest_change_of_a_frozen_tensor_is_found(name: str) -> None:
    model = adapted()
    before = freeze.fingerprints(model, ["low"])
    freeze.check_unchanged(model, before, ["low"])
    tensor = model.trunk.state_dict()[name]
    if tensor.is_floating_point():
        tensor.view(-1)[:1].copy_(torch.nextafter(tensor.view(-1)[:1], torch.tensor([9.0])))
    else:
        tensor.add_(1)
    with pytest.raises(FrozenChangedError, match=name) as caught:
        freeze.check_unchanged(model, before, ["low"])
    assert caught.value.names == (name,)


def test_a_freezer_gets_the_stages_that_hold_parameters() -> None:
    requested: list[Any] = []

    def plan(stages: Any, argument: str | None, epoch: int) -> FreezePlan:
        requested.append((tuple(stages), argument, epoch))
        return FreezePlan(frozen=frozenset())

    freeze.plan(adapted(), Freezer(name="curious", summary="", plan=plan), "7", 3)
    assert set(requested) == {(("low", "high"), "7", 3)}
