"""What a freezer plans, how a plan is put into force, and the proof that it was followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn

import zooft
from zooft import testing
from zooft.contracts import FreezePlan
from zooft.errors import ConfigError, FrozenChangedError, PluginError
from zooft.hooks.loading import discover
from zooft.hooks.registry import Registry
from zooft.hooks.registry import load as load_registry
from zooft.model import freeze
from zooft.model.adapted import AdaptedModel
from zooft.model.backbone import adapt_first_convolution, load_backbone

STAGES = ("stem", "layer1", "layer2", "layer3")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(discover())


@pytest.fixture
def adapted() -> AdaptedModel:
    """Four stages: a convolution with BatchNorm, dropout, the same again with dropout inside, pooling."""
    torch.manual_seed(0)
    backbone = load_backbone(family(), "one", weights="random", sources=())
    return AdaptedModel(backbone, nn.Linear(backbone.width, 2))


def family() -> zooft.Family:
    return zooft.Family(
        name="toy", summary="", models=lambda: ["one"], build=lambda _: build(), anatomy=lambda *_: anatomy()
    )


def build() -> nn.Module:
    module = nn.Sequential()
    for name, layer in {
        "conv1": nn.Conv2d(3, 4, 3, 2),
        "bn1": nn.BatchNorm2d(4),
        "drop": nn.Dropout(0.5),
        "conv2": nn.Conv2d(4, 6, 3, 2),
        "bn2": nn.BatchNorm2d(6),
        "drop2": nn.Dropout(0.5),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
        "fc": nn.Linear(6, 5),
    }.items():
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
        "norm:", "norm:last", "bias:2",
        "layerwise", "layerwise:0", "layerwise:-0.5", "layerwise:1.1", "layerwise:nan", "layerwise:x",
    ],
)  # fmt: skip # a table of cases
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
])  # fmt: skip # a table of cases
def test_plans_that_move_let_more_stages_learn_the_deepest_first(
    text: str, learning: list[int], registry: Registry
) -> None:
    freezer, argument = registry.freezer(text)
    for epoch, count in enumerate(learning):
        assert freezer.plan(STAGES, argument, epoch).frozen == frozenset(STAGES[: len(STAGES) - count])


def test_rates_fall_with_the_distance_from_the_head(registry: Registry) -> None:
    scales = plan(registry, "layerwise:0.5").scales
    assert [scales[stage] for stage in STAGES] == [0.125, 0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    "text", ["none", "backbone", "first:2", "last:2", "gradual:2", "warmup:1", "layerwise:0.75", "norm", "bias"]
)
def test_the_standard_freezers_pass_the_conformance_kit(text: str, registry: Registry) -> None:
    testing.check_freezer(*registry.freezer(text))


def test_first_and_last_part_the_stages_between_them(registry: Registry) -> None:
    for count in range(len(STAGES) + 1):
        assert plan(registry, f"first:{count}") == plan(registry, f"last:{len(STAGES) - count}")


def test_plans_are_made_from_the_stages_that_hold_parameters(adapted: AdaptedModel, registry: Registry) -> None:
    assert freeze.learnable_stages(adapted) == ("stem", "body")
    freezer, argument = registry.freezer("last:1")
    assert freeze.plan(adapted, freezer, argument, 0).frozen == {"stem"}


WRONG_PLANS = {
    "no-such-stage": (FreezePlan(frozen=frozenset({"bodi"})), "FreezePlan.frozen in epoch 2 is 'bodi' (str); expected a stage, nearest: body; there are stem, noise, body, pool"),
    "far-from-any": (FreezePlan(frozen=frozenset({"zzzz"})), "'zzzz' (str); expected a stage; there are stem, noise, body, pool"),
    "parameter": (FreezePlan(frozen=frozenset({"conv1.weight"})), "'conv1.weight' (str); expected a stage and not a parameter or module; stem holds it"),
    "module": (FreezePlan(frozen=frozenset({"conv2"})), "'conv2' (str); expected a stage and not a parameter or module; body holds it"),
    "letters": (FreezePlan(frozen="stem"), "frozen is 'stem' (str); expected a frozenset of text"),  # type: ignore[arg-type]
    "a-list": (FreezePlan(frozen=["stem"]), "frozen is ['stem'] (list); expected a frozenset of text"),  # type: ignore[arg-type]
    "numbers": (FreezePlan(frozen=frozenset({0})), "frozen[0] is 0 (int); expected text"),  # type: ignore[arg-type]
    "scaled-stranger": (FreezePlan(frozen=frozenset(), scales={"steam": 1.0}), "FreezePlan.scales in epoch 2 is 'steam' (str); expected a stage, nearest: stem"),
    "no-parameter": (FreezePlan(frozen=frozenset({"stem"}), exempt=frozenset({"bn1.wait"})), "FreezePlan.exempt in epoch 2 is 'bn1.wait' (str); expected a parameter that may learn, such as bn1.weight"),
    "a-stage-for-its-parameters": (FreezePlan(frozen=frozenset({"stem"}), exempt=frozenset({"body"})), "'body' (str); expected a parameter that may learn, such as conv2.weight, conv2.bias, bn2.weight"),
    "a-module-for-its-parameters": (FreezePlan(frozen=frozenset({"stem"}), exempt=frozenset({"bn1"})), "'bn1' (str); expected a parameter that may learn, such as bn1.weight, bn1.bias"),
    "a-buffer": (FreezePlan(frozen=frozenset({"stem"}), exempt=frozenset({"bn1.running_mean"})), "'bn1.running_mean' (str); expected a parameter that may learn"),
    "kinds": (FreezePlan(frozen=frozenset({"stem"}), exempt=frozenset({"zzzz"})), "'zzzz' (str); expected a parameter that may learn; there are 8, none of a name like that"),
    "exempt-in-letters": (FreezePlan(frozen=frozenset({"stem"}), exempt="norm"), "exempt is 'norm' (str); expected a frozenset of text"),  # type: ignore[arg-type]
    "negative": (FreezePlan(frozen=frozenset(), scales={"stem": -1.0}), "FreezePlan.scales['stem'] in epoch 2 is -1.0"),
    "nan": (FreezePlan(frozen=frozenset(), scales={"stem": float("nan")}), "is nan (float); expected a factor of the learning rate: finite, 0 or larger"),
    "infinite": (FreezePlan(frozen=frozenset(), scales={"stem": float("inf")}), "is inf (float)"),
    "text": (FreezePlan(frozen=frozenset(), scales={"stem": "0.5"}), "scales['stem'] is '0.5' (str); expected a number"),  # type: ignore[dict-item]
    "no-mapping": (FreezePlan(frozen=frozenset(), scales=[0.5]), "scales is [0.5] (list); expected a mapping of text to a number"),  # type: ignore[arg-type]
    "none": (None, "gives in plan: None; expected a FreezePlan"),
    "set": ({"stem"}, "gives in plan: {'stem'} (set); expected a FreezePlan"),
}  # fmt: skip # a table of mistakes


def odd(given: object) -> zooft.Freezer:
    """Fine at first, and another plan from epoch 2 on."""
    fine = FreezePlan(frozen=frozenset({"stem"}))
    return zooft.Freezer(name="odd", summary="", plan=lambda _s, _a, epoch: given if epoch == 2 else fine)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("kind", WRONG_PLANS)
def test_a_plan_for_what_is_no_stage_or_no_factor_is_refused_in_any_epoch(kind: str, adapted: AdaptedModel) -> None:
    given, words = WRONG_PLANS[kind]
    freeze.plan(adapted, odd(given), None, 0)
    with pytest.raises(PluginError) as caught:
        freeze.plan(adapted, odd(given), None, 2)
    assert str(caught.value).startswith("the freezer odd gives in plan: ")
    assert words in str(caught.value)
    assert str(caught.value).endswith("(hook zooft_register_freezers, field Freezer.plan)")


@pytest.mark.parametrize("scale", [0.0, 1e-9, 3.0, 2, torch.tensor(0.5)])
def test_any_finite_factor_that_is_not_negative_will_do(scale: float, adapted: AdaptedModel) -> None:
    given = FreezePlan(frozen=frozenset({"pool"}), scales={"stem": scale})
    assert freeze.plan(adapted, odd(given), None, 2) is given


def test_a_freezer_that_draws_lots_is_refused(adapted: AdaptedModel) -> None:
    import itertools

    count = itertools.count()

    def lots(stages: Sequence[str], _argument: str | None, _epoch: int) -> FreezePlan:
        return FreezePlan(frozen=frozenset(stages[: next(count) % 2]))

    with pytest.raises(PluginError, match="two different plans for epoch 0; expected the same each time"):
        freeze.plan(adapted, zooft.Freezer(name="lots", summary="", plan=lots), None, 0)


# Parameters that learn though their stage is frozen


def only(model: AdaptedModel, registry: Registry, text: str) -> FreezePlan:
    freezer, argument = registry.freezer(text)
    return freeze.plan(model, freezer, argument, 0)


NORMS = {"bn1.weight", "bn1.bias", "bn2.weight", "bn2.bias"}
BIASES = {"conv1.bias", "bn1.bias", "conv2.bias", "bn2.bias"}


def test_norm_and_bias_exempt_parameters_of_their_kind_from_frozen_stages(
    adapted: AdaptedModel, registry: Registry
) -> None:
    assert only(adapted, registry, "norm") == FreezePlan(frozen=frozenset({"stem", "body"}), exempt=frozenset(NORMS))
    assert only(adapted, registry, "bias") == FreezePlan(frozen=frozenset({"stem", "body"}), exempt=frozenset(BIASES))


def test_what_is_exempt_learns_and_its_stage_stays_in_evaluation_mode(
    adapted: AdaptedModel, registry: Registry
) -> None:
    plan = only(adapted, registry, "norm")
    freeze.apply(adapted, plan.frozen, plan.exempt)
    assert learning(adapted) == HEAD | {f"trunk.{name}" for name in NORMS}
    assert training(adapted) == {"fc"}  # where the classifier was, outside all stages


@pytest.mark.parametrize(("text", "names"), [("norm", NORMS), ("bias", BIASES)])
def test_a_step_moves_what_is_exempt_and_no_other_parameter_or_buffer(
    text: str, names: set[str], adapted: AdaptedModel, registry: Registry
) -> None:
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    plan = only(adapted, registry, text)
    train(adapted, frozen=tuple(plan.frozen), exempt=plan.exempt)
    moved = {name for name, tensor in adapted.state_dict().items() if not tensor.equal(before[name])}
    assert moved == HEAD | {f"trunk.{name}" for name in names}


@pytest.mark.parametrize(("exempt", "count"), [((), 4), (("bn1.bias",), 0), (("bn2.weight",), 2)])
def test_the_prefix_ends_before_the_first_stage_with_something_exempt(
    exempt: tuple[str, ...], count: int, adapted: AdaptedModel
) -> None:
    assert freeze.frozen_prefix(adapted, ["stem", "body"], exempt) == count


def test_the_optimizer_holds_what_one_of_the_plans_exempts(adapted: AdaptedModel) -> None:
    from test_train import RECIPE

    from zooft.train.optimizer import make_optimizer

    frozen = frozenset({"stem", "body"})
    plans = [FreezePlan(frozen=frozen, exempt=frozenset({name})) for name in ("bn1.bias", "bn2.weight")]
    held = {id(p) for group in make_optimizer(adapted, RECIPE, plans).param_groups for p in group["params"]}
    expected = {"trunk.bn1.bias", "trunk.bn2.weight"} | HEAD
    assert held == {id(p) for name, p in adapted.named_parameters() if name in expected}


def test_the_proof_is_of_each_tensor_that_is_not_exempt(adapted: AdaptedModel, registry: Registry) -> None:
    """Weights beside the norms and the norms' own statistics are among them."""
    plan = only(adapted, registry, "norm")
    stages = sorted(plan.frozen)
    before = freeze.fingerprints(adapted, stages, plan.exempt)
    assert set(before) == set(adapted.trunk.state_dict()) - NORMS
    train(adapted, frozen=tuple(stages), exempt=plan.exempt)
    freeze.check_unchanged(adapted, before, stages, plan.exempt)
    for name in before:
        saved = adapted.trunk.state_dict()[name].clone()
        nudge(adapted.trunk.state_dict()[name])
        with pytest.raises(FrozenChangedError) as caught:
            freeze.check_unchanged(adapted, before, stages, plan.exempt)
        assert caught.value.names == (name,)
        adapted.trunk.state_dict()[name].copy_(saved)


def test_what_the_zoo_has_fixed_is_no_bias_to_learn(partly_fixed: AdaptedModel, registry: Registry) -> None:
    assert only(partly_fixed, registry, "bias").exempt == BIASES - {"conv1.bias"}
    fixed = FreezePlan(frozen=frozenset({"stem"}), exempt=frozenset({"conv1.bias"}))
    with pytest.raises(
        PluginError, match=r"'conv1.bias' .str.; expected a parameter that may learn; the zoo has fixed"
    ):
        freeze.plan(partly_fixed, odd(fixed), None, 2)


def test_a_backbone_without_norms_says_what_it_has_instead(registry: Registry) -> None:
    backbone = load_backbone(registry.family("torchvision"), "vgg11", weights="random", sources=())
    with pytest.raises(ConfigError, match=r"no norm to learn in this backbone.* of the classes Conv2d, Linear; use"):
        only(AdaptedModel(backbone, nn.Linear(backbone.width, 2)), registry, "norm")


@pytest.mark.parametrize("text", ["norm", "bias"])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_training_gives_the_tensors_that_plain_torch_gives(name: str, text: str, registry: Registry) -> None:
    """By hand: the zoo's module in evaluation mode, gradients for what torch's own classes say, plain SGD."""
    import timm

    torch.manual_seed(3)
    backbone = load_backbone(registry.family("timm"), name, weights="random", sources=())
    model = AdaptedModel(backbone, nn.Linear(backbone.width, 2))
    by_hand = timm.create_model(backbone.name, num_classes=2).eval()
    slot = backbone.slots[0].name
    by_hand.load_state_dict(
        {**model.trunk.state_dict(), **{f"{slot}.{n}": t for n, t in model.head.state_dict().items()}}
    )
    norms = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)
    for module in by_hand.modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            chosen = isinstance(module, norms) if text == "norm" else leaf == "bias"
            parameter.requires_grad_(chosen or module is by_hand.get_submodule(slot))
    plan = only(model, registry, text)
    freeze.apply(model, plan.frozen, plan.exempt)
    x, y = (
        torch.randn(4, 3, 64, 64) if name == "test_resnet" else torch.randn(4, 3, 160, 160),
        torch.tensor([0, 1, 0, 1]),
    )
    for trained in (model, by_hand):
        optimizer = torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            found = trained(x)
            nn.functional.cross_entropy(found["logits"] if isinstance(found, dict) else found, y).backward()
            optimizer.step()
    expected = by_hand.state_dict()
    for name, tensor in model.trunk.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6, msg=name)
    assert {name for name, p in by_hand.named_parameters() if p.requires_grad} - set(model.trunk.state_dict()) == {
        f"{slot}.weight",
        f"{slot}.bias",
    }


# What the zoo has fixed


@pytest.fixture
def partly_fixed() -> AdaptedModel:
    """The same with a fixed bias in the first stage, and a fixed scale between the stages that is all its stage holds."""

    def fixed() -> nn.Module:
        module = build()
        module.get_submodule("conv1").get_parameter("bias").requires_grad_(False)
        module.register_parameter("scale", nn.Parameter(torch.tensor(0.9), requires_grad=False))
        return module

    def of(*_given: object) -> zooft.Anatomy:
        plain = anatomy()
        stages = {**plain.stages, "noise": zooft.Stage(("drop", "scale"), lambda m, x: m.drop(x))}
        return replace(plain, stages=stages)

    zoo = replace(family(), build=lambda _: fixed(), anatomy=of)
    torch.manual_seed(0)
    backbone = load_backbone(zoo, "one", weights="random", sources=())
    return AdaptedModel(backbone, nn.Linear(backbone.width, 2))


def test_what_the_zoo_has_fixed_is_remembered_from_the_building_on(partly_fixed: AdaptedModel) -> None:
    assert partly_fixed.fixed == {"conv1.bias", "scale"}


@pytest.mark.parametrize("text", ["none", "layerwise:0.5", "gradual:1", "first:0", "last:1"])
def test_no_plan_lets_learn_what_the_zoo_has_fixed(text: str, partly_fixed: AdaptedModel, registry: Registry) -> None:
    freezer, argument = registry.freezer(text)
    for epoch in (0, 5):
        freeze.apply(partly_fixed, freeze.plan(partly_fixed, freezer, argument, epoch).frozen)
        assert not learning(partly_fixed) & {"trunk.conv1.bias", "trunk.scale"}
    freeze.apply(partly_fixed, ())
    assert learning(partly_fixed) == HEAD | BODY | STEM - {"trunk.conv1.bias"}


def test_a_stage_of_fixed_parameters_alone_holds_nothing_to_learn(partly_fixed: AdaptedModel) -> None:
    assert freeze.learnable_stages(partly_fixed) == ("stem", "body")
    assert freeze.frozen_prefix(partly_fixed, ["stem"]) == 2


def test_a_fixed_parameter_is_no_frozen_stage(partly_fixed: AdaptedModel) -> None:
    freeze.apply(partly_fixed, ())
    assert {"bn1", "drop"} <= training(partly_fixed)


def test_the_optimizer_leaves_out_what_is_fixed(partly_fixed: AdaptedModel) -> None:
    from test_train import RECIPE

    from zooft.train.optimizer import make_optimizer

    optimizer = make_optimizer(partly_fixed, RECIPE, [FreezePlan(frozen=frozenset())])
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    expected = {id(p) for name, p in partly_fixed.named_parameters() if name not in {"trunk.conv1.bias", "trunk.scale"}}
    assert held == expected


def test_the_proof_is_of_fixed_parameters_too(partly_fixed: AdaptedModel) -> None:
    before = freeze.fingerprints(partly_fixed, [])
    assert set(before) == {"conv1.bias", "scale"}
    train(partly_fixed, frozen=())
    freeze.check_unchanged(partly_fixed, before, [])
    nudge(partly_fixed.trunk.state_dict()["conv1.bias"])
    with pytest.raises(FrozenChangedError, match=r"conv1.bias \(which the zoo has fixed\)") as caught:
        freeze.check_unchanged(partly_fixed, before, [])
    assert caught.value.names == ("conv1.bias",)


def test_a_fixed_first_convolution_stays_fixed_when_it_is_adapted_to_other_channels() -> None:
    convolution = nn.Conv2d(3, 4, 3)
    convolution.weight.requires_grad_(False)
    adapt_first_convolution(convolution, 1)
    assert convolution.weight.shape == (4, 1, 3, 3)
    assert not convolution.weight.requires_grad


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


def train(model: AdaptedModel, *, frozen: tuple[str, ...], exempt: frozenset[str] = frozenset()) -> None:
    """One step at a rate that nothing survives, weight decay included."""
    freeze.apply(model, frozen, exempt)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    model(torch.randn(8, 3, 16, 16))["logits"].square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(
    "reference", ["timm:test_resnet", "timm:test_vit", "timm:test_efficientnet", "torchvision:mobilenet_v3_small"]
)
def test_frozen_is_bit_equal_on_models_of_the_zoos(reference: str, registry: Registry) -> None:
    zoo, _, name = reference.partition(":")
    testing.check_freezing(load_backbone(registry.family(zoo), name, weights="random", sources=()))


# The proof


def test_fingerprints_are_of_every_parameter_and_buffer_of_the_stages(adapted: AdaptedModel) -> None:
    assert set(freeze.fingerprints(adapted, ["stem"])) == {
        "conv1.weight",
        "conv1.bias",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "bn1.running_var",
        "bn1.num_batches_tracked",
    }


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


def test_what_was_stored_passes(adapted: AdaptedModel) -> None:
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
        assert torch.equal(adapted(adapted.prefix(x, stop), stop)["logits"], adapted(x)["logits"])
