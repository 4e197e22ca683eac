"""Stages of torchvision's classes, which don't part their forward: what it runs in a row, and what follows that.

By the exact class, after its `forward`: what inherits from one may well run in another order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import zooft

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn


def stages(module: Any, classifier: str) -> dict[str, zooft.Stage] | None:
    """The stages of a model, shallow to deep; None of a class that isn't known here."""
    from torchvision import models

    kind = type(module)
    if getattr(models, kind.__name__, None) is not kind or kind.__name__ not in _CLASSES:
        return None
    if kind is models.VisionTransformer:
        made = _vision_transformer(module)
    elif getattr(module, "transform_input", False):
        return None
    else:
        names = _CLASSES[kind.__name__][0] or [name for name, _ in module.named_children() if name not in _ENDS]
        made = _in_a_row(module, names)
    return {**made, "pool": zooft.Stage(_rest(module, made, classifier), _CLASSES[kind.__name__][1])}


def _in_a_row(module: nn.Module, names: Sequence[str]) -> dict[str, zooft.Stage]:
    """Lone layers, which hold no others, end the stage before, unless that ends with a pooling."""
    from torch import nn

    grouped: list[list[str]] = []
    for part in (part for name in names for part in _below(module, name)):
        alone = not any("." in name for name in module.get_submodule(part).state_dict())
        if alone and grouped and not isinstance(module.get_submodule(grouped[-1][-1]), nn.MaxPool2d):
            grouped[-1].append(part)
        else:
            grouped.append([part])
    return {_short(group[0]): zooft.Stage(tuple(group)) for group in grouped}


def _short(part: str) -> str:
    """The last name, with the one before where that is a number: ``features.0`` is ``features0``."""
    outer, _, last = part.rpartition(".")
    return f"{outer}{last}" if last.isdigit() else last


def _below(module: nn.Module, name: str) -> list[str]:
    """The parts of a container of stages; another module is one part."""
    within = module.get_submodule(name)
    return [f"{name}.{part}" for part, _ in within.named_children()] if name in _CONTAINERS else [name]


def _rest(module: nn.Module, made: Mapping[str, zooft.Stage], classifier: str) -> tuple[str, ...]:
    """What is in no stage, and not the classifier."""
    listed = [classifier, *(part for stage in made.values() for part in stage.parts)]
    leaves = [name for name, child in module.named_modules() if name and not list(child.children())]
    names = dict.fromkeys((*leaves, *module.state_dict()))
    return tuple(name for name in names if not any(f"{name}.".startswith(f"{part}.") for part in listed))


def _vision_transformer(module: Any) -> dict[str, zooft.Stage]:
    layers = [name for name, _ in module.encoder.layers.named_children()]
    return {
        "embed": zooft.Stage(("conv_proj", "class_token", "encoder.pos_embedding", "encoder.dropout"), _embed),
        **{f"block{number}": zooft.Stage((f"encoder.layers.{name}",)) for number, name in enumerate(layers)},
    }


def _embed(module: Any, x: Tensor) -> Tensor:
    import torch

    x = module._process_input(x)
    x = torch.cat([module.class_token.expand(x.shape[0], -1, -1), x], 1)
    out: Tensor = module.encoder.dropout(x + module.encoder.pos_embedding)
    return out


def _pool(module: Any, x: Tensor) -> Tensor:
    out: Tensor = module.avgpool(x).flatten(1)
    return out


def _pool_and_classify(module: Any, x: Tensor) -> Tensor:
    """Hidden layers of the classifier, too."""
    out: Tensor = module.classifier(_pool(module, x))
    return out


_CONTAINERS = frozenset({"features", "layers", "trunk_output", "blocks"})
_ENDS = frozenset({"avgpool", "dropout", "fc"})
_CLASSES: dict[str, tuple[tuple[str, ...], Callable[[Any, Tensor], Tensor]]] = {
    "AlexNet": (("features",), _pool_and_classify),
    "ConvNeXt": (("features",), lambda m, x: m.classifier(m.avgpool(x))),
    "DenseNet": (("features",), lambda _m, x: x.relu().mean((2, 3))),
    "EfficientNet": (("features",), _pool_and_classify),
    "GoogLeNet": ((), lambda m, x: m.dropout(_pool(m, x))),
    "Inception3": ((), lambda m, x: m.dropout(m.avgpool(x)).flatten(1)),
    "MNASNet": (("layers",), lambda m, x: m.classifier(x.mean((2, 3)))),
    "MaxVit": (("stem", "blocks"), lambda m, x: m.classifier(x)),
    "MobileNetV2": (("features",), lambda m, x: m.classifier(x.mean((2, 3)))),
    "MobileNetV3": (("features",), _pool_and_classify),
    "RegNet": (("stem", "trunk_output"), _pool),
    "ShuffleNetV2": (("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"), lambda _m, x: x.mean((2, 3))),
    "SqueezeNet": (("features",), lambda m, x: m.classifier(x).flatten(1)),
    "SwinTransformer": (("features", "norm"), lambda m, x: m.flatten(m.avgpool(m.permute(x)))),
    "VisionTransformer": ((), lambda m, x: m.heads(m.encoder.ln(x)[:, 0])),
}
"""A class to what runs in a row, all children where nothing is named, and what makes features of the last map."""
