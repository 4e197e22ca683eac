"""How timm's models are built.

ResNets, plain vision transformers and the EfficientNet and MobileNet family have fine stages. Every other model has
two, after the two halves that all timm models have: ``forward_features`` and ``forward_head``, the latter with the
classifier taken out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import zooft

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    first = [name for name in _names(config.get("first_conv")) if name in modules]
    return zooft.Anatomy(
        stages=_fine_stages(module) or _two_stages(name, module, classifier, spec),
        classifier=classifier,
        input=spec,
        first_convolution=first[0] if len(first) == 1 else None,
    )


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


def _fine_stages(module: Any) -> Mapping[str, zooft.Stage] | None:
    """By the exact class: what inherits from one may well run in another order."""
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.efficientnet import EfficientNet
    from timm.models.mobilenetv3 import MobileNetV3
    from timm.models.resnet import ResNet
    from timm.models.vision_transformer import VisionTransformer

    makers = {
        ResNet: _resnet,
        VisionTransformer: _vision_transformer,
        VisionTransformerDistilled: _vision_transformer,
        EfficientNet: _efficientnet,
        MobileNetV3: _mobilenet,
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


def _two_stages(
    name: str, module: Any, classifier: tuple[str, ...], spec: zooft.InputSpec
) -> Mapping[str, zooft.Stage]:
    leaves = [key for key, child in module.named_modules() if key and not list(child.children())]
    items = dict.fromkeys(key for key in (*leaves, *module.state_dict()) if not _inside(key, classifier))
    pooling = _run_while_pooling(name, module, spec)
    if pooling is None:
        return {"features": zooft.Stage(tuple(items), lambda m, x: m.forward_head(m.forward_features(x)))}
    late = tuple(key for key in items if key in pooling or key.rpartition(".")[0] in pooling)
    early = tuple(key for key in items if key not in late)
    return {
        "features": zooft.Stage(early, lambda m, x: m.forward_features(x)),
        # not pre_logits: some heads have a norm or hidden layer before the classifier, which that would leave out
        "pool": zooft.Stage(late, lambda m, x: m.forward_head(x)),
    }


def _has(module: nn.Module, name: str) -> bool:
    return any(name == key for key, _ in module.named_modules())


def _inside(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(name + ".") for name in names)


def _run_while_pooling(name: str, module: Any, spec: zooft.InputSpec) -> set[str] | None:
    """Names of the modules that ``forward_head`` runs and ``forward_features`` doesn't.

    None where the features are several maps, as CoaT's, which no stage can hand on.
    """
    import torch

    ran: set[str] = set()
    hooks = [
        child.register_forward_hook(lambda _m, _i, _o, key=key: ran.add(key)) for key, child in module.named_modules()
    ]
    try:
        module.eval()
        device = next(module.parameters()).device
        with torch.no_grad():
            x = module.forward_features(torch.zeros(1, spec.channels, spec.height, spec.width, device=device))
            early = set(ran)
            ran.clear()
            module.forward_head(x)
    except Exception as error:
        raise zooft.ModelError(f"timm's {name} can't be parted into features and pooling: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return ran - early if isinstance(x, torch.Tensor) else None


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
