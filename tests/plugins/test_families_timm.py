"""The family timm: against timm itself."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from zooft import Family, ModelError, WeightsError, testing
from zooft.errors import UnknownNameError
from zooft.model import freeze
from zooft.model.adapted import AdaptedModel, zoo_state_dict
from zooft.model.backbone import Backbone, adapt_first_convolution, load_backbone, outline_backbone
from zooft.model.names import full_name
from zooft.model.taps import measure
from zooft_timm import zoo, zooft_register_families

# the map with a stage for each block, by what is peculiar to the model
FINE = {
    "test_resnet": "deep stem",
    "resnet18": "plain",
    "test_vit": "class token",
    "test_vit2": "registers",
    "test_vit3": "attention pooling, no class token",
    "deit_tiny_distilled_patch16_224": "two heads",
    "test_efficientnet": "plain",
    "tf_efficientnet_lite0": "convolutions padded as TensorFlow does",
    "mobilenetv3_small_050": "reports 576 features and pools to 1,024",
}
# features taken apart, where timm has them in a row
CHAINS = ["test_convnext", "test_nfnet", "test_byobnet", "test_coatnet", "regnetx_002"]
# features and pool
# hiera attends over five axes, which the exporter can't write as one operation
COARSE = [*CHAINS, "levit_128s", "hiera_tiny_224"]
WIDTHS = {"resnet18": 512, "mobilenetv3_small_050": 1024, "tf_efficientnet_lite0": 1280, "regnetx_002": 368}

# One small model of every class of timm 1.0.31.
EVERY_CLASS = [
    "test_convnext", "test_efficientnet", "test_vit", "test_nfnet", "test_mambaout", "test_byobnet", "test_resnet",
    "starnet_s050", "test_coatnet", "test_vit_relpos", "dla46x_c", "edgenext_xx_small", "mobilenetv3_small_050",
    "ese_vovnet19b_slim_dw", "repghostnet_050", "efficientvit_m0", "ghostnet_050", "regnetx_002", "cspnext_tiny",
    "iformer_t", "xcit_nano_12_p8_224", "cs3darknet_focus_s", "efficientvit_b0", "swiftformer_xs",
    "efficientformerv2_s0", "pvt_v2_b0", "fasternet_t0", "fastvit_t8", "lcnetv2_small", "inception_next_atto",
    "rexnet_100", "pit_ti_224", "repvit_m1", "coat_tiny", "eva02_tiny_patch14_224", "convit_tiny", "gmlp_ti16_224",
    "deit_tiny_distilled_patch16_224", "hgnetv2_b0", "shvit_s1", "cpubone_nano", "levit_128s", "densenet121",
    "dpn48b", "visformer_tiny", "csatv2", "resnetv2_18", "legacy_seresnet18", "poolformerv2_s12", "cait_xxs24_224",
    "gcvit_xxtiny", "tiny_vit_5m_224", "efficientformer_l1", "hrnet_w18_small", "lowformer_b0", "nest_tiny",
    "convmixer_768_32", "legacy_xception", "tnt_s_legacy_patch16_224", "inception_v3", "rdnet_tiny",
    "twins_svt_small", "mvitv2_tiny", "levit_256d", "xception41p", "sequencer2d_s", "hiera_tiny_224",
    "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224", "swinv2_tiny_window8_256", "davit_tiny",
    "focalnet_tiny_srf", "selecsls42", "tresnet_m", "nextvit_small", "hieradet_small", "inception_v4",
    "efficientvit_l1", "inception_resnet_v2", "mobilenetv5_base", "pnasnet5large", "samvit_base_patch16_224",
    "naflexvit_base_patch16_parfac_gap", "beit_base_patch16_224", "qwen3_vit_88m", "nasnetalarge", "vgg11",
    "gemma4_vit_167m", "deepseek_vit_412m", "volo_d1_224", "levit_384_s8",
]  # fmt: skip # a table of models
# what no name of was usable for a while, or whose own description in timm misleads, a small one of each kind
UNTRAINED = [
    "test_vit4", "convnext_atto_rms", "cs3darknet_s", "dpn48b", "ese_vovnet19b_slim_dw", "ghostnetv3_050", "gmlp_ti16_224",
    "halonet_h1", "lcnet_035", "levit_384_s8", "mobilenetv2_035", "regnetz_005", "rexnetr_100", "seresnet18", "starnet_s100",
    "vit_small_resnet50d_s16_224", "volo_d1_224",
]  # fmt: skip # a table of models
REFUSED = {
    "crossvit_tiny_240": r"2 classifiers of different widths \(192, 96\)",
    "efficientvim_m1": "4 classifiers of different widths",
    "efficientvim_m1_dist": "8 classifiers of different widths",
    "qwen3_vit_88m_enc": "no classifier to replace",
    "gemma4_vit_167m_enc": "no classifier to replace",
    "deepseek_vit_412m_enc": "no classifier to replace",
    "mobilenetv5_300m_enc": "no classifier to replace",
}


@cache
def family() -> Family:
    """As registered, but for tensors that no longer are as they were initialised."""
    (only,) = zooft_register_families()
    return replace(only, build=lambda name: shaken(zoo.build(name)))


def load(name: str, *, channels: int = 3) -> Backbone:
    torch.manual_seed(0)
    return load_backbone(family(), name, weights="random", sources=(), channels=channels)


def adapted(name: str, outputs: int = 2) -> AdaptedModel:
    backbone = load(name)
    return AdaptedModel(backbone, nn.Linear(backbone.width, outputs)).eval()


def noise(model: AdaptedModel | Backbone, samples: int = 2, size: int = 224) -> torch.Tensor:
    return torch.randn(samples, 3, size, size, generator=torch.Generator().manual_seed(1))


def shaken(module: nn.Module) -> nn.Module:
    """Give BatchNorm statistics, biases and scales values that show in the output, as training does."""
    generator = torch.Generator().manual_seed(2)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            size = 0.1 if name.endswith("running_var") else 0.02
            tensor.add_(torch.rand(tensor.shape, generator=generator) * size)
    return module


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_a_model_keeps_every_promise_up_to_its_onnx_file(name: str, tmp_path: Path) -> None:
    testing.check_family(family(), name, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FINE, *COARSE])
def test_every_kind_of_map_keeps_every_promise_up_to_its_onnx_file(name: str, tmp_path: Path) -> None:
    testing.check_family(family(), name, folder=tmp_path)


@pytest.mark.parametrize("name", [*FINE, "test_convnext", "test_nfnet", "test_byobnet", "regnetx_002"])
def test_frozen_stages_stay_and_the_others_learn(name: str) -> None:
    testing.check_freezing(load(name))


@pytest.mark.parametrize("name", FINE)
def test_fine_maps_have_a_stage_for_each_block(name: str) -> None:
    assert len(load(name).stages) >= 6


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto", *CHAINS])
def test_the_pyramid_is_what_timms_own_features_only_gives(name: str) -> None:
    """Strides and channels by timm's feature_info, a truth that zooft doesn't read."""
    backbone = load(name)
    info = timm.create_model(name, features_only=True, pretrained=False).feature_info
    found = {tap.stride: tap.channels for tap in measure(backbone).taps if tap.stride >= 4}
    assert found == {of: channels for of, channels in zip(info.reduction(), info.channels(), strict=True) if of >= 4}


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto", "test_nfnet"])
def test_maps_between_stages_are_those_of_timms_features_only(name: str) -> None:
    """Their values, but for the deepest, which has the last norm too."""
    backbone = load(name)
    plain = timm.create_model(name, features_only=True, pretrained=False).eval()
    tensors = {key.replace("_", "."): tensor for key, tensor in backbone.module.state_dict().items()}
    plain.load_state_dict({key: tensors[key.replace("_", ".")] for key in plain.state_dict()})
    x, maps = noise(backbone, 1), []
    with torch.inference_mode():
        expected = plain(x)
        for stage in backbone.stages.values():
            x = stage(backbone.module.eval(), x)
            maps.append(x)
    for one in [one for one, stride in zip(expected, plain.feature_info.reduction(), strict=True) if stride >= 4][:-1]:
        assert any(one.shape == each.shape and torch.allclose(one, each, atol=1e-5) for each in maps)


@pytest.mark.parametrize(("name", "width"), WIDTHS.items())
def test_the_width_is_what_the_trunk_gives_and_not_what_timm_reports(name: str, width: int) -> None:
    assert load(name).width == width


@pytest.mark.parametrize("name", [*FINE, *COARSE, "resnetv2_18"])
def test_a_checkpoint_for_two_classes_loads_strictly_into_plain_timm(name: str) -> None:
    model = adapted(name)
    plain = timm.create_model(name, num_classes=2).eval()
    plain.load_state_dict(zoo_state_dict(model), strict=True)
    x = noise(model, size=plain.pretrained_cfg["input_size"][1])
    with torch.inference_mode():
        expected = plain(x)
        assert float(expected.std()) > 0
        torch.testing.assert_close(model(x)["logits"], expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


@pytest.mark.parametrize(("name", "classifier", "axes"), [("resnetv2_18", "head.fc", 4), ("resnet18", "fc", 2)])
def test_the_classifiers_own_kind_of_layer_is_stored_in_the_checkpoint(name: str, classifier: str, axes: int) -> None:
    plain = timm.create_model(name, num_classes=2).state_dict()
    ours = zoo_state_dict(adapted(name))
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in plain.items()}
    assert ours[f"{classifier}.weight"].ndim == axes


def test_both_heads_of_a_distilled_transformer_get_the_new_one() -> None:
    tensors = zoo_state_dict(adapted("deit_tiny_distilled_patch16_224"))
    assert torch.equal(tensors["head.weight"], tensors["head_dist.weight"])
    assert torch.equal(tensors["head.bias"], tensors["head_dist.bias"])


@pytest.mark.parametrize("name", ["test_byobnet", "regnetx_002", "test_efficientnet"])
def test_statistics_of_frozen_batchnorms_stand_still(name: str) -> None:
    model = adapted(name)
    before = {n: b.clone() for n, b in model.trunk.named_buffers()}
    freeze.apply(model, freeze.learnable_stages(model))
    model(noise(model, 4, 160))
    assert any("running_mean" in n for n in before)
    assert all(torch.equal(b, before[n]) for n, b in model.trunk.named_buffers())


@pytest.mark.parametrize("name", ["test_byobnet", "test_efficientnet"])
def test_statistics_of_learning_batchnorms_move(name: str) -> None:
    model = adapted(name)
    before = {n: b.clone() for n, b in model.trunk.named_buffers()}
    freeze.apply(model, ())
    model(noise(model, 4, 160))
    assert all(not torch.equal(b, before[n]) for n, b in model.trunk.named_buffers() if "running_mean" in n)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "deit_tiny_distilled_patch16_224"])
def test_frozen_stages_drop_nothing(name: str) -> None:
    def build(full: str) -> nn.Module:
        return shaken(timm.create_model(full, drop_rate=0.5, drop_path_rate=0.5))

    torch.manual_seed(0)
    dropping = replace(family(), build=build)
    backbone = load_backbone(dropping, name, weights="random", sources=())
    model = AdaptedModel(backbone, nn.Linear(backbone.width, 2))
    x = noise(model, 2, backbone.input.height)
    freeze.apply(model, ())
    assert not torch.equal(model(x)["logits"], model(x)["logits"]), (
        "nothing drops even where everything learns, so this proves nothing"
    )
    freeze.apply(model, freeze.learnable_stages(model))
    assert torch.equal(model(x)["logits"], model(x)["logits"])
    model.eval()
    quiet = model(x)["logits"]
    freeze.apply(model, freeze.learnable_stages(model))
    assert torch.equal(model(x)["logits"], quiet)


def test_grey_is_refused_where_the_first_convolution_standardises_its_weights() -> None:
    """Three equal channels are another image there than one channel of the weights' sum."""
    with pytest.raises(ModelError, match="takes 3 channels and can't be adapted to 1"):
        load("test_nfnet", channels=1)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_one_channel_gives_what_the_grey_image_over_three_channels_gives(name: str) -> None:
    wide, narrow = load(name), load(name, channels=1)
    rest = {n: t for n, t in wide.module.state_dict().items() if n in narrow.module.state_dict()}
    first = next(n for n, t in narrow.module.state_dict().items() if t.shape != rest[n].shape)
    rest[first] = rest[first].sum(1, keepdim=True)
    narrow.module.load_state_dict(rest)
    grey = torch.randn(2, 1, wide.input.height, wide.input.width)
    with torch.inference_mode():
        expected = wide.module.eval()(grey.repeat(1, 3, 1, 1))
        torch.testing.assert_close(narrow.module.eval()(grey), expected, rtol=1e-4, atol=1e-5)
    assert narrow.input.channels == 1


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_the_first_convolution_is_adapted_as_timm_does(channels: int) -> None:
    from timm.models import adapt_input_conv

    convolution = nn.Conv2d(3, 8, 3)
    expected = adapt_input_conv(channels, convolution.weight.detach().clone())
    adapt_first_convolution(convolution, channels)
    torch.testing.assert_close(convolution.weight.detach(), expected)


def test_short_names_are_resolved_to_the_architecture_and_its_weights() -> None:
    assert full_name(family(), "vit_base") == "vit_base_patch16_224.augreg2_in21k_ft_in1k"
    assert full_name(family(), "resnet50") == "resnet50.a1_in1k"
    assert full_name(family(), "resnet50.tv_in1k") == "resnet50.tv_in1k"


def test_every_name_of_timms_stands_for_itself_or_for_its_default_weights() -> None:
    for name in timm.list_models():
        full = zoo.canonical(name)
        assert (full.partition(".")[0], zoo.canonical(full)) == (name, full)
    for name in timm.list_models(include_tags=True):
        assert zoo.canonical(name) == name


def test_a_name_that_timm_has_given_up_stands_for_the_one_that_it_has_now() -> None:
    assert zoo.canonical("vit_base_patch16_224_in21k") == "vit_base_patch16_224.augreg_in21k"


@pytest.mark.parametrize("name", ["resnet50.", ".a1_in1k", "resnet50.a1_in1k.more", "hub/resnet50"])
def test_what_is_no_name_of_timms_is_not_mistaken_for_one(name: str) -> None:
    with pytest.raises(KeyError):
        zoo.canonical(name)


@pytest.mark.parametrize("name", ["test_vit4", "levit_384_s8", "volo_d1_224", "resnet18", "test_coatnet", "coat_tiny"])
def test_a_model_without_weights_is_checked_without_memory_too(name: str) -> None:
    backbone = outline_backbone(family(), name)
    plain = timm.create_model(name, num_classes=0) if name in {"resnet18", "test_vit4"} else None
    assert all(tensor.is_meta for tensor in backbone.module.state_dict().values())
    assert plain is None or backbone.width == plain(torch.zeros(1, 3, 224, 224)).shape[1]


@pytest.mark.parametrize("name", ["test_vit4"])
def test_an_architecture_without_weights_of_its_default_tag_learns_from_random_ones(name: str) -> None:
    testing.check_freezing(load(name))
    testing.check_round_trip(family(), load(name))


def test_volo_answers_as_timms_own_without_the_second_classifier() -> None:
    torch.manual_seed(0)
    module = zoo.build("volo_d1_224")
    plain = timm.create_model("volo_d1_224", use_aux_head=False)
    assert plain.state_dict().keys() == module.state_dict().keys()


def test_every_alias_stands_for_a_model_of_timm() -> None:
    assert set(zoo.ALIASES.values()) <= set(zoo.models())


def test_no_alias_hides_a_model_of_that_name() -> None:
    assert set(zoo.ALIASES).isdisjoint(zoo.models())


@pytest.mark.parametrize("name", ["resnet5O", "vit_bass", "resnet50.no_such_tag"])
def test_an_unknown_model_gets_the_nearest_names(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"timm has no model .*nearest: .*zooft backbones"):
        full_name(family(), name)


def test_the_input_is_what_timms_own_transform_would_make() -> None:
    from timm.data import create_transform, resolve_model_data_config

    for name in ("test_vit", "tf_efficientnet_lite0", "mobilenetv3_small_050", "regnetx_002"):
        module = zoo.build(name)
        spec = family().anatomy(name, module).input
        resize, crop, *_, normalise = create_transform(**resolve_model_data_config(module)).transforms
        assert (spec.resize, spec.height) == (resize.size, crop.size[0])
        assert spec.interpolation == resize.interpolation.value
        torch.testing.assert_close(torch.tensor(spec.mean), torch.as_tensor(normalise.mean))
        torch.testing.assert_close(torch.tensor(spec.std), torch.as_tensor(normalise.std))


@pytest.mark.parametrize("name", ["crossvit_tiny_240", "efficientvim_m1"])
def test_a_model_whose_classifier_one_head_cannot_replace_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=REFUSED[name]):
        load(name)


def test_weights_are_not_at_hand_where_nothing_was_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert not zoo.at_hand("resnet18.a1_in1k")


def test_without_a_network_the_hub_is_queried_once_and_not_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[str] = []

    def unreachable(url: str, **_: object) -> object:
        requested.append(url)
        raise OSError("[Errno -2] Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    monkeypatch.setattr("timm.create_model", lambda *_a, **_k: pytest.fail("timm was left to retry"))
    monkeypatch.setattr(zoo, "at_hand", lambda _name: False)
    with pytest.raises(WeightsError, match=r"the hub .* can't be reached: .*Name or service not known"):
        zoo.pretrained_weights("resnet18.a1_in1k")
    assert len(requested) == 1


@pytest.mark.network
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_timms_own_weights_are_downloaded_and_recorded(name: str) -> None:
    (plain,) = zooft_register_families()
    backbone = load_backbone(plain, name, weights="pretrained", sources=())
    assert (backbone.weights.kind, backbone.weights.licence) == ("zoo", "apache-2.0")
    assert zoo.at_hand(backbone.name)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", EVERY_CLASS)
def test_one_model_of_every_class_of_timm_keeps_its_promises(name: str) -> None:
    testing.check_freezing(load(name))
    testing.check_round_trip(family(), load(name))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", REFUSED)
def test_the_classes_that_cannot_be_adapted_say_why(name: str) -> None:
    with pytest.raises(ModelError, match=REFUSED[name]):
        load(name)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", UNTRAINED)
def test_a_model_that_timm_has_no_weights_for_keeps_its_promises(name: str) -> None:
    testing.check_freezing(load(name))
    testing.check_round_trip(family(), load(name))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_all_but_a_few_models_of_timm_can_be_used_and_docs_name_those_few() -> None:
    refused = []
    for name in zoo.models():
        try:
            outline_backbone(family(), name)
        except ModelError:
            refused.append(name)
    assert len(refused) <= 0.02 * len(zoo.models())
    listed = (Path(__file__).resolve().parents[2] / "docs" / "zoo.md").read_text(encoding="utf-8")
    assert set(
        re.findall(r"`([^` *:()]+)`", listed.partition("## What isn't supported of timm")[2].partition("##")[0])
    ) == set(refused)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_class_of_timm_is_walked() -> None:
    walked = {type(zoo_module(name)) for name in (*EVERY_CLASS, *REFUSED)}
    missing: dict[type[nn.Module], str] = {}
    for name in zoo.models():
        kind = type(zoo_module(name))
        if kind not in walked:
            missing.setdefault(kind, name)
    assert not missing


def zoo_module(name: str) -> nn.Module:
    """Built without memory for its tensors."""
    with torch.device("meta"):
        return zoo.build(name)
