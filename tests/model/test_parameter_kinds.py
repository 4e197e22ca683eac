"""Which parameters are norms and which are biases, against torch's classes and timm's own."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from zooft.contracts import ParameterInfo, StageInfo
from zooft.hooks.registry import load
from zooft.model import freeze
from zooft.model.adapted import AdaptedModel
from zooft.model.backbone import outline_backbone
from zooft.model.parameter_kinds import is_norm, parameter_info


def infos(reference: str) -> list[ParameterInfo]:
    family, _, name = reference.partition(":")
    backbone = outline_backbone(load().family(family), name)
    model = AdaptedModel(backbone, nn.Linear(backbone.width, 2))
    return [one for stage in freeze.learnable_stages(model) for one in stage.parameters]


def test_a_parameter_is_described_by_its_name_shape_and_layer() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert parameter_info(module, "0.weight") == ParameterInfo(
        name="0.weight", shape=(4, 3, 3, 3), layer="Conv2d", norm=False, bias=False
    )
    assert parameter_info(module, "0.weight").size == 4 * 3 * 3 * 3
    kinds = {
        name: (one.norm, one.bias)
        for name in ("0.bias", "1.weight", "1.bias")
        for one in [parameter_info(module, name)]
    }
    assert kinds == {"0.bias": (False, True), "1.weight": (True, False), "1.bias": (True, True)}


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm1d(4), nn.InstanceNorm2d(4, affine=True), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.SyncBatchNorm(4)],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip # a table of cases
def test_every_norm_of_torch_is_one_and_so_is_what_derives_from_it(layer: nn.Module) -> None:
    assert is_norm(layer)
    layer.__class__ = type("Standardise", (type(layer),), {})
    assert is_norm(layer)


@pytest.mark.parametrize(
    "name",
    [
        "RmsNorm",
        "SimpleNorm2d",
        "EvoNorm2dS0",
        "FilterResponseNormTlu2d",
        "LayerNormAct2d",
        "GroupNormAct",
        "BatchNormAct2d",
    ],
)
def test_the_norms_that_timm_has_written_are_norms(name: str) -> None:
    from timm import layers

    layer = getattr(layers, name)(32)
    held = [parameter_info(layer, leaf) for leaf, _ in layer.named_parameters(recurse=False)]
    assert held
    assert all(one.norm for one in held)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(2, 2),
        nn.Conv2d(2, 2, 1),
        nn.PReLU(2),
        nn.Embedding(3, 2),
        nn.MultiheadAttention(4, 2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_other_layers_are_no_norms(layer: nn.Module) -> None:
    assert not is_norm(layer)


def test_a_matrix_within_a_layer_that_is_called_a_norm_is_neither() -> None:
    class ConvNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.gain = nn.Parameter(torch.ones(4, 3, 1, 1)), nn.Parameter(torch.ones(4))

    assert not parameter_info(ConvNorm(), "weight").norm
    assert parameter_info(ConvNorm(), "gain").norm


def test_biases_of_attention_and_recurrent_layers_are_biases_and_tables_of_positions_are_not() -> None:
    layers = nn.ModuleDict({"mha": nn.MultiheadAttention(4, 2, add_bias_kv=True), "lstm": nn.LSTM(2, 3)})
    layers.register_parameter("relative_position_bias_table", nn.Parameter(torch.zeros(9, 2)))
    named = {name for name, _ in layers.named_parameters() if parameter_info(layers, name).bias}
    assert named == {
        "mha.in_proj_bias",
        "mha.bias_k",
        "mha.bias_v",
        "mha.out_proj.bias",
        "lstm.bias_ih_l0",
        "lstm.bias_hh_l0",
    }


@pytest.mark.parametrize(
    "reference",
    [
        "torchvision:swin_v2_t",
        "torchvision:densenet121",
        "timm:test_vit",
        "timm:test_efficientnet",
        "timm:resnetv2_50x1_bit",
    ],
)
def test_of_a_zoo_s_model_the_norms_are_those_of_torch_s_classes(reference: str) -> None:
    family, _, name = reference.partition(":")
    module = outline_backbone(load().family(family), name).module
    norms = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    expected = {
        f"{holder}.{leaf}"
        for holder, inner in module.named_modules()
        if isinstance(inner, norms)
        for leaf, _ in inner.named_parameters(recurse=False)
    }
    found = infos(reference)
    assert {one.name for one in found if one.norm} == expected
    assert {one.name for one in found if one.bias} == {one.name for one in found if one.name.endswith(".bias")}
    assert sum(one.size for one in found) == sum(p.numel() for p in module.parameters())


def test_a_stage_that_names_what_it_holds_is_its_name() -> None:
    one = ParameterInfo(name="a.bias", shape=(3,), layer="Linear", norm=False, bias=True)
    stage = StageInfo("block1", [one])
    assert stage == "block1"
    assert frozenset([stage]) == {"block1"}
    assert {"block1": 2}[stage] == 2
    assert f"{stage}" == "block1"
    for other in (copy.deepcopy(stage), pickle.loads(pickle.dumps(stage))):  # noqa: S301 -- our own bytes
        assert (other, other.parameters) == (stage, (one,))
