"""What a freezer plans, how a plan is put into force, and the proof that it was kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zooft
from zooft import freeze, testing
from zooft import model as models
from zooft.contracts import FreezePlan
from zooft.errors import ConfigError, FrozenChangedError
from zooft.model import AdaptedModel
from zooft.plugins import discover
from zooft.registry import Registry
from zooft.registry import load as load_registry

STAGES = ("stem", "layer1", "layer2", "layer3")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(discover())


@pytest.fixture
def adapted() -> AdaptedModel:
    """Four stages: a convolution with BatchNorm, dropout, the same again with dropout inside, pooling."""
    torch.manual_seed(0)
    backbone = models.load_backbone(family(), "one", weights="random", sources=())
    return AdaptedModel(backbone, nn.Linear(backbone.width, 2))


def family() -> zooft.Family:
    return zooft.Family(
        name="toy", summary="", models=lambda: ["one"], build=lambda _: build(), anatomy=lambda *_: anatomy()
    )


def build() -> nn.Module:
    module = nn.Sequential()
    for name, layer in {
        "conv1": nn.Conv2d(3, 4, 3, 2), "bn1": nn.BatchNorm2d(4),
        "drop": nn.Dropout(0.5),
        "conv2": nn.Conv2d(4, 6, 3, 2), "bn2": nn.BatchNorm2d(6), "drop2": nn.Dropout(0.5),
        "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(6, 5),
    }.items():  # fmt: skip
        module.add_module(name, layer)
    return module


def anatomy() -> zooft.Anatomy:
    return zooft.Anatomy(
        stages={
            "stem": zooft.Stage(("conv1", "bn1")),
            "noise": zooft.Stage(("drop",)),
            "body": zooft.Stage(("conv2", "bn2", "drop2")),
            "pool": zooft.Stage(("pool", "flat")),
        },
        classifier=("fc",),
        input=zooft.InputSpec(height=16, width=16, resize=16, mean=(0.5,) * 3, std=(0.5,) * 3),
    )


def plan(registry: Registry, text: str, stages: tuple[str, ...] = STAGES) -> FreezePlan:
    freezer, argument = registry.freezer(text)
    return freezer.plan(stages, argument, 0)


# Plans


@pytest.mark.parametrize(
    ("text", "frozen"),
    [
        ("none", ()),
        ("backbone", STAGES),
        ("first:0", ()),
        ("first:1", ("stem",)),
        ("first:3", ("stem", "layer1", "layer2")),
        ("first:4", STAGES),
        ("last:0", STAGES),
        ("last:1", ("stem", "layer1", "layer2")),
        ("last:4", ()),
        ("until:stem", ("stem",)),
        ("until:layer1", ("stem", "layer1")),
        ("until:layer3", STAGES),
    ],
)
def test_a_plan_freezes_the_shallow_stages(text: str, frozen: tuple[str, ...], registry: Registry) -> None:
    assert plan(registry, text) == FreezePlan(frozen=frozenset(frozen))


@pytest.mark.parametrize(
    "text",
    [
        "none:2", "none:", "backbone:all",
        "first", "first:", "first:5", "first:-1", "first:1.5", "first:two", "first:²",
        "last", "last:", "last:99", "last:-2", "last:x",
        "until", "until:", "until:layer9", "until:2", "until:Stem",
        "gradual", "gradual:0", "gradual:-1", "gradual:x", "warmup", "warmup:", "warmup:0", "warmup:1.5",
        "layerwise", "layerwise:0", "layerwise:-0.5", "layerwise:1.1", "layerwise:nan", "layerwise:x",
    ],
)  # fmt: skip
def test_an_argument_that_cannot_be_used_says_what_would_do(text: str, registry: Registry) -> None:
    name, colon, argument = text.partition(":")
    with pytest.raises(ConfigError, match=f"--freeze {name}") as caught:
        plan(registry, text)
    if colon and argument:
        assert repr(argument) in str(caught.value)
    if name in ("first", "last", "until"):
        assert "stem, layer1, layer2, layer3" in str(caught.value)


@pytest.mark.parametrize("epoch", [0, 1, 50])
@pytest.mark.parametrize("text", ["none", "backbone", "first:2", "last:2", "until:layer1"])
def test_the_standard_plans_are_the_same_in_every_epoch(text: str, epoch: int, registry: Registry) -> None:
    freezer, argument = registry.freezer(text)
    assert freezer.plan(STAGES, argument, epoch) == freezer.plan(STAGES, argument, 0)


@pytest.mark.parametrize(("text", "learning"), [
    ("gradual:1", [0, 1, 2, 3, 4, 4]), ("gradual:2", [0, 0, 1, 1, 2, 2]), ("warmup:1", [0, 4, 4]),
    ("warmup:3", [0, 0, 0, 4]), ("layerwise:0.5", [4, 4]),
])  # fmt: skip
def test_plans_that_move_let_more_stages_learn_the_deepest_first(
    text: str, learning: list[int], registry: Registry
) -> None:
    freezer, argument = registry.freezer(text)
    for epoch, count in enumerate(learning):
        assert freezer.plan(STAGES, argument, epoch).frozen == frozenset(STAGES[: len(STAGES) - count])


def test_rates_fall_with_the_distance_from_the_head(registry: Registry) -> None:
    scales = plan(registry, "layerwise:0.5").scales
    assert [scales[stage] for stage in STAGES] == [0.125, 0.25, 0.5, 1.0]


@pytest.mark.parametrize("text", ["none", "backbone", "first:2", "last:2", "gradual:2", "warmup:1", "layerwise:0.75"])
def test_the_standard_freezers_pass_the_conformance_kit(text: str, registry: Registry) -> None:
    testing.check_freezer(*registry.freezer(text))


def test_first_and_last_part_the_stages_between_them(registry: Registry) -> None:
    for count in range(len(STAGES) + 1):
        assert plan(registry, f"first:{count}") == plan(registry, f"last:{len(STAGES) - count}")


def test_plans_are_made_from_the_stages_that_hold_parameters(adapted: AdaptedModel, registry: Registry) -> None:
    assert freeze.learnable_stages(adapted) == ("stem", "body")
    freezer, argument = registry.freezer("last:1")
    assert freeze.plan(adapted, freezer, argument, 0).frozen == {"stem"}


# Putting a plan into force


def training(model: AdaptedModel) -> set[str]:
    """The submodules of the trunk that are in training mode."""
    return {name for name, module in model.trunk.named_modules() if name and module.training}


def learning(model: AdaptedModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


HEAD = {"head.weight", "head.bias"}
STEM = {f"trunk.{layer}.{kind}" for layer in ("conv1", "bn1") for kind in ("weight", "bias")}
BODY = {f"trunk.{layer}.{kind}" for layer in ("conv2", "bn2") for kind in ("weight", "bias")}


def test_nothing_frozen_means_everything_trains(adapted: AdaptedModel) -> None:
    freeze.apply(adapted, ())
    assert learning(adapted) == HEAD | STEM | BODY
    assert training(adapted) == {name for name, _ in adapted.trunk.named_modules() if name}


def test_frozen_stages_have_no_gradients_and_the_others_keep_theirs(adapted: AdaptedModel) -> None:
    freeze.apply(adapted, ["stem"])
    assert learning(adapted) == HEAD | BODY


def test_batch_norm_of_a_frozen_stage_stands_still(adapted: AdaptedModel) -> None:
    freeze.apply(adapted, ["stem"])
    assert "bn1" not in training(adapted)
    assert "bn2" in training(adapted)


def test_dropout_of_a_frozen_stage_drops_nothing(adapted: AdaptedModel) -> None:
    freeze.apply(adapted, ["stem", "body"])
    assert "drop2" not in training(adapted)
    assert adapted.head.training


def test_dropout_between_frozen_stages_drops_nothing(adapted: AdaptedModel) -> None:
    freeze.apply(adapted, freeze.learnable_stages(adapted))
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(adapted.prefix(x, 4), adapted.prefix(x, 4))


def test_a_plan_holds_again_after_train_was_called(adapted: AdaptedModel) -> None:
    freeze.apply(adapted, ["stem"])
    adapted.train()
    assert "bn1" in training(adapted)
    assert learning(adapted) == HEAD | BODY
    freeze.apply(adapted, ["stem"])
    assert "bn1" not in training(adapted)


def test_a_later_plan_can_let_a_stage_learn_again(adapted: AdaptedModel) -> None:
    freeze.apply(adapted, ["stem", "body"])
    freeze.apply(adapted, ["stem"])
    assert learning(adapted) == HEAD | BODY
    assert {"bn2", "drop2"} <= training(adapted)


def test_a_step_of_training_moves_what_learns_and_nothing_else(adapted: AdaptedModel) -> None:
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    train(adapted, frozen=("stem",))
    moved = {name for name, tensor in adapted.state_dict().items() if not tensor.equal(before[name])}
    statistics = {f"trunk.bn2.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert moved == HEAD | BODY | statistics


def train(model: AdaptedModel, *, frozen: tuple[str, ...]) -> None:
    """One step at a rate that nothing survives, weight decay included."""
    freeze.apply(model, frozen)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    model(torch.randn(8, 3, 16, 16)).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(
    "reference", ["timm:test_resnet", "timm:test_vit", "timm:test_efficientnet", "torchvision:mobilenet_v3_small"]
)
def test_frozen_is_bit_equal_on_models_of_the_zoos(reference: str, registry: Registry) -> None:
    zoo, _, name = reference.partition(":")
    testing.check_freezing(models.load_backbone(registry.family(zoo), name, weights="random", sources=()))


# The proof


def test_fingerprints_are_of_every_parameter_and_buffer_of_the_stages(adapted: AdaptedModel) -> None:
    assert set(freeze.fingerprints(adapted, ["stem"])) == {
        "conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias",
        "bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked",
    }  # fmt: skip


def test_fingerprints_of_no_stage_are_none(adapted: AdaptedModel) -> None:
    assert freeze.fingerprints(adapted, []) == {}


@pytest.mark.parametrize("tensor", ["conv1.weight", "bn1.bias", "bn1.running_mean", "bn1.num_batches_tracked"])
def test_the_smallest_change_of_a_frozen_tensor_is_noticed_by_name(tensor: str, adapted: AdaptedModel) -> None:
    before = freeze.fingerprints(adapted, ["stem"])
    nudge(adapted.trunk.state_dict()[tensor])
    with pytest.raises(
        FrozenChangedError, match=f"1 frozen tensors changed during training, among them {tensor}"
    ) as caught:
        freeze.check_unchanged(adapted, before, ["stem"])
    assert caught.value.names == (tensor,)


def nudge(tensor: torch.Tensor) -> None:
    """Change one element by the least that can be."""
    first = tensor.view(-1)[0]
    first += 1 if not tensor.is_floating_point() else torch.nextafter(first, torch.tensor(torch.inf)) - first


def test_a_batch_norm_left_in_training_mode_is_noticed(adapted: AdaptedModel) -> None:
    before = freeze.fingerprints(adapted, ["stem"])
    freeze.apply(adapted, ["stem"])
    adapted.train()
    adapted(torch.randn(8, 3, 16, 16))
    with pytest.raises(FrozenChangedError) as caught:
        freeze.check_unchanged(adapted, before, ["stem"])
    assert set(caught.value.names) == {"bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"}


def test_what_was_kept_passes(adapted: AdaptedModel) -> None:
    before = freeze.fingerprints(adapted, ["stem"])
    train(adapted, frozen=("stem",))
    freeze.check_unchanged(adapted, before, ["stem"])


def test_a_frozen_tensor_that_is_gone_is_noticed(adapted: AdaptedModel) -> None:
    before = freeze.fingerprints(adapted, ["stem"])
    adapted.trunk.get_submodule("conv1").register_parameter("bias", None)
    with pytest.raises(FrozenChangedError) as caught:
        freeze.check_unchanged(adapted, before, ["stem"])
    assert caught.value.names == ("conv1.bias",)


def test_changes_of_stages_that_learn_are_none_of_its_business(adapted: AdaptedModel) -> None:
    before = freeze.fingerprints(adapted, ["stem"])
    nudge(adapted.trunk.state_dict()["conv2.weight"])
    freeze.check_unchanged(adapted, before, ["stem"])


# The frozen prefix


@pytest.mark.parametrize(
    ("frozen", "count"),
    [((), 0), (("body",), 0), (("stem",), 2), (("stem", "body"), 4)],
    ids=["nothing", "a-deep-stage-alone", "and-what-holds-nothing-behind-it", "the-whole-trunk"],
)
def test_the_prefix_ends_where_learning_begins(frozen: tuple[str, ...], count: int, adapted: AdaptedModel) -> None:
    assert freeze.frozen_prefix(adapted, frozen) == count


def test_prefix_and_rest_together_are_the_model(adapted: AdaptedModel) -> None:
    adapted.eval()
    x = torch.randn(3, 3, 16, 16)
    for stop in range(len(adapted.stages) + 1):
        assert torch.equal(adapted(adapted.prefix(x, stop), stop), adapted(x))
