"""How timm's models are built.

The stages of ResNets, of plain vision transformers, EVA and BEiT, and of the EfficientNet and MobileNet family are
written by hand. Every other model has two, after the two halves that all timm models have: ``forward_features`` and
``forward_head``, the latter with the classifier taken out; the first is taken apart where it is a chain (`chain`).
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import zooft
from zooft_timm import chain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

_MODES = {"center": "crop", "squash": "stretch", "border": "letterbox"}


def anatomy(name: str, module: nn.Module) -> zooft.Anatomy:
    """Stages, classifier and input of a timm model."""
    config: Any = module.pretrained_cfg
    classifier = _classifier(config, module)
    if not classifier:
        raise zooft.ModelError(
            f"timm's {name} has no classifier to replace; choose another model ('zooft backbones timm:*')"
        )
    _refuse_irreplaceable(name, module, classifier)
    spec = _input(module)
    modules = {name for name, _ in module.named_modules()}
    first = [part for part in _names(config.get("first_conv")) if part in modules and _is_linear(module, part)]
    return zooft.Anatomy(
        stages=_by_hand(module) or _halves(name, module, classifier, spec),
        classifier=classifier,
        input=spec,
        first_convolution=first[0] if len(first) == 1 else None,
    )


def _is_linear(module: nn.Module, part: str) -> bool:
    """Whether a convolution is linear in its weights, so that grey images can be adapted to by their sum.

    Those of NFNets and BiT standardise their weights over the channels.
    """
    from timm.layers.std_conv import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame

    return not isinstance(module.get_submodule(part), (ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame))


def _classifier(config: Any, module: nn.Module) -> tuple[str, ...]:
    """Timm's metadata of the architecture, as far as it holds for the module.

    Parts that it has, and both heads of a distilled one.
    """
    named = [part for part in _names(config.get("classifier")) if _has(module, part)]
    twins = [part.replace("head", "head_dist", 1) for part in named if part.startswith("head")]
    return tuple(dict.fromkeys([*named, *(twin for twin in twins if _has(module, twin))]))


def _refuse_irreplaceable(name: str, module: nn.Module, classifier: tuple[str, ...]) -> None:
    """CrossViT and EfficientViM classify each branch by itself: no single head is both."""
    layers: list[Any] = [module.get_submodule(part) for part in classifier]
    widths = {getattr(layer, "in_features", getattr(layer, "in_channels", None)) for layer in layers}
    if len(widths) > 1:
        listed = ", ".join(str(width) for width in sorted(widths, key=str))
        raise zooft.ModelError(
            f"timm's {name} has {len(classifier)} classifiers of different widths ({listed}), which one head can't "
            "replace; choose another model"
        )


def _by_hand(module: Any) -> Mapping[str, zooft.Stage] | None:
    """By the exact class: what inherits from one may well run in another order."""
    from timm.models.beit import Beit
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.efficientnet import EfficientNet
    from timm.models.eva import Eva
    from timm.models.mobilenetv3 import MobileNetV3
    from timm.models.resnet import ResNet
    from timm.models.vision_transformer import VisionTransformer

    makers = {
        ResNet: _resnet,
        VisionTransformer: _vision_transformer,
        VisionTransformerDistilled: _vision_transformer,
        EfficientNet: _efficientnet,
        MobileNetV3: _mobilenet,
        Eva: _eva,
        Beit: _beit,
    }
    maker = makers.get(type(module))
    return maker(module) if maker else None


def _resnet(_module: Any) -> Mapping[str, zooft.Stage]:
    return {
        "stem": zooft.Stage(("conv1", "bn1", "act1", "maxpool")),
        **{f"layer{i}": zooft.Stage((f"layer{i}",)) for i in range(1, 5)},
        "pool": zooft.Stage(("global_pool",), _pre_logits),
    }


def _vision_transformer(module: Any) -> Mapping[str, zooft.Stage]:
    tokens = (
        "patch_embed",
        "cls_token",
        "reg_token",
        "dist_token",
        "pos_embed",
        "pos_drop",
        "patch_drop",
        "norm_pre",
    )
    return {
        "embed": zooft.Stage(tokens, _embed),
        **{f"block{i}": zooft.Stage((f"blocks.{i}",)) for i in range(len(module.blocks))},
        "pool": zooft.Stage(("norm", "attn_pool", "fc_norm", "head_drop"), lambda m, x: _pre_logits(m, m.norm(x))),
    }


def _embed(module: Any, x: Tensor) -> Tensor:
    x = module.patch_drop(module._pos_embed(module.patch_embed(x)))
    normed: Tensor = module.norm_pre(x)
    return normed


def _eva(module: Any) -> Mapping[str, zooft.Stage] | None:
    """Every block computes the rotary positions again; None with options by which they differ each time."""
    if module.dynamic_img_size or module.patch_drop is not None or getattr(module.rope, "aug_active", False):
        return None

    def block(number: int, m: Any, x: Tensor) -> Tensor:
        rope: Any = None if m.rope is None else m.rope.get_embed(**shape)
        out: Tensor = m.blocks[number](x, rope=rope[number] if m.rope_mixed else rope)
        return out

    shape = {} if hasattr(module.rope, "feat_shape") else {"shape": module.patch_embed.grid_size}
    tokens = ("patch_embed", "cls_token", "reg_token", "pos_embed", "pos_drop", "rope", "norm_pre")
    return {
        "embed": zooft.Stage(tokens, lambda m, x: m.norm_pre(m._pos_embed(m.patch_embed(x))[0])),
        **_blocks(module, block),
        "pool": zooft.Stage(("norm", "attn_pool", "fc_norm", "head_drop"), lambda m, x: _pre_logits(m, m.norm(x))),
    }


def _beit(module: Any) -> Mapping[str, zooft.Stage]:
    import torch

    def embed(m: Any, x: Tensor) -> Tensor:
        x = m.patch_embed(x)
        x = torch.cat([m.cls_token.expand(x.shape[0], -1, -1), x], 1)
        out: Tensor = m.pos_drop(x if m.pos_embed is None else x + m.pos_embed)
        return out

    def block(number: int, m: Any, x: Tensor) -> Tensor:
        bias = None if m.rel_pos_bias is None else m.rel_pos_bias()
        out: Tensor = m.blocks[number](x, shared_rel_pos_bias=bias)
        return out

    return {
        "embed": zooft.Stage(("patch_embed", "cls_token", "pos_embed", "pos_drop", "rel_pos_bias"), embed),
        **_blocks(module, block),
        "pool": zooft.Stage(("norm", "fc_norm", "head_drop"), lambda m, x: _pre_logits(m, m.norm(x))),
    }


def _blocks(module: Any, forward: Callable[[int, Any, Tensor], Tensor]) -> dict[str, zooft.Stage]:
    return {f"block{i}": zooft.Stage((f"blocks.{i}",), partial(forward, i)) for i in range(len(module.blocks))}


def _efficientnet(module: Any) -> Mapping[str, zooft.Stage]:
    return {
        "stem": zooft.Stage(("conv_stem", "bn1")),
        **{f"blocks{i}": zooft.Stage((f"blocks.{i}",)) for i in range(len(module.blocks))},
        "conv_head": zooft.Stage(("conv_head", "bn2")),
        "pool": zooft.Stage(("global_pool",), _pre_logits),
    }


def _mobilenet(module: Any) -> Mapping[str, zooft.Stage]:
    return {
        "stem": zooft.Stage(("conv_stem", "bn1")),
        **{f"blocks{i}": zooft.Stage((f"blocks.{i}",)) for i in range(len(module.blocks))},
        "pool": zooft.Stage(("global_pool", "conv_head", "norm_head", "act2", "flatten"), _pre_logits),
    }


def _pre_logits(module: Any, x: Tensor) -> Tensor:
    pooled: Tensor = module.forward_head(x, pre_logits=True)
    return pooled


def _halves(name: str, module: Any, classifier: tuple[str, ...], spec: zooft.InputSpec) -> Mapping[str, zooft.Stage]:
    """The features, in the parts that they are a chain of, and the pooling."""
    leaves = [key for key, child in module.named_modules() if key and not list(child.children())]
    items = dict.fromkeys(key for key in (*leaves, *module.state_dict()) if not _inside(key, classifier))
    watched, pooling = _watch_halves(name, module, spec)
    if pooling is None:
        return {"features": zooft.Stage(tuple(items), lambda m, x: m.forward_head(m.forward_features(x)))}
    late = tuple(key for key in items if key in pooling or key.rpartition(".")[0] in pooling)
    early = tuple(key for key in items if key not in late)
    return {
        **(_chain_stages(chain.stages(module, watched), early) or _features(early)),
        # not pre_logits: some heads have a norm or hidden layer before the classifier, which that would leave out
        "pool": zooft.Stage(late, lambda m, x: m.forward_head(x)),
    }


def _features(early: tuple[str, ...]) -> dict[str, zooft.Stage]:
    return {"features": zooft.Stage(early, lambda m, x: m.forward_features(x))}


def _chain_stages(parts: Mapping[str, tuple[str, ...]], early: tuple[str, ...]) -> dict[str, zooft.Stage]:
    """Stages of a chain; the last one owns what no image runs through, such as pretraining's mask token."""
    owned = tuple(part for run in parts.values() for part in run)
    unused = tuple(key for key in early if not _inside(key, owned))
    return {
        stage: zooft.Stage((*run, *unused) if stage == list(parts)[-1] else run, partial(chain.run_parts, run))
        for stage, run in parts.items()
    }


def _has(module: nn.Module, name: str) -> bool:
    return any(name == key for key, _ in module.named_modules())


def _inside(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(name + ".") for name in names)


def _watch_halves(name: str, module: Any, spec: zooft.InputSpec) -> tuple[chain.Watch, set[str] | None]:
    """What ``forward_features`` runs, and the names of the modules that ``forward_head`` runs and it doesn't.

    The latter are None where the features are several maps, as CoaT's, which no stage can hand on.
    """
    import torch

    try:
        module.eval()
        device = next(module.parameters()).device
        image = torch.zeros(1, spec.channels, spec.height, spec.width, device=device)
        features, watched = chain.watch(module, module.forward_features, image)
        _, after = chain.watch(module, module.forward_head, features)
    except Exception as error:
        raise zooft.ModelError(f"timm's {name} can't be parted into features and pooling: {error}") from error
    return watched, after.all - watched.all if isinstance(features, torch.Tensor) else None


def _input(module: nn.Module) -> zooft.InputSpec:
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(module)
    _, height, width = config["input_size"]
    mode: Any = _MODES[config["crop_mode"]] if height == width else "stretch"
    return zooft.InputSpec(
        height=height,
        width=width,
        resize=math.floor(height / config["crop_pct"]) if mode == "crop" else height,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        mode=mode,
    )


def _names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())
