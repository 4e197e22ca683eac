"""torchvision's models: listing, building, weights, and their anatomy.

The stages of ResNet and VGG are here, those of the other classes in `chains`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import zooft
from zooft_torchvision import chains

if TYPE_CHECKING:
    from torch import nn

_WITH_SIDE_EXITS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
_TRANSFORMING = frozenset({"googlenet", "inception_v3"})
"""With pretrained weights, these bring what is normalised by ImageNet's statistics to a mean and a spread of a half."""
_HALVES = (0.5, 0.5, 0.5)


def models() -> list[str]:
    """Names of the classification models."""
    import torchvision

    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def canonical(name: str) -> str:
    """The name itself; KeyError for an unknown one."""
    if name not in models():
        raise KeyError(name)
    return name


def build(name: str) -> nn.Module:
    """The model with random weights; the side exits of GoogLeNet and Inception, which only train, left out.

    SqueezeNet classifies every place by a convolution, cuts scores below zero and takes their mean; without the cut,
    which serves no other classes, this is what a linear head behind the pooling gives.
    """
    from torch import nn
    from torchvision.models import SqueezeNet, get_model

    settings = dict(_WITH_SIDE_EXITS.get(name, {}))
    if name.startswith("vit_"):  # it has a position for each patch, so it takes the size that its weights were made for
        settings["image_size"] = _default_weights(name).transforms().crop_size[0]
    module: nn.Module = get_model(name, weights=None, **settings)
    if isinstance(module, SqueezeNet):
        module.classifier[2] = nn.Identity()
    return module


def pretrained_weights(name: str) -> zooft.LoadedWeights:
    """Torchvision's default weights, downloaded if need be and checked against the hash in their name."""
    import torch
    from torchvision.models import get_model

    weights = _default_weights(name)
    with torch.random.fork_rng(devices=[]):
        module = get_model(name, weights=weights, progress=False)
    own = build(name).state_dict()
    tensors = {key: value for key, value in module.state_dict().items() if key in own}
    licence = weights.meta.get("license")
    return zooft.LoadedWeights(tensors=tensors, source=f"torchvision {weights}", licence=licence)


def at_hand(name: str) -> bool:
    """Whether the weights are in torch's download folder."""
    import torch

    file = _default_weights(name).url.rpartition("/")[2]
    return Path(torch.hub.get_dir(), "checkpoints", file).is_file()


def anatomy(name: str, module: nn.Module) -> zooft.Anatomy:
    """Stages, classifier and input of a torchvision model."""
    from torch import nn
    from torchvision.models import VGG, ResNet

    convolutions = [key for key, child in module.named_modules() if isinstance(child, nn.Conv2d)]
    linear = [key for key, child in module.named_modules() if isinstance(child, nn.Linear)]
    classifier = (linear or convolutions)[-1]
    stages = chains.stages(module, classifier) or {"features": _whole(module, classifier)}
    if isinstance(module, ResNet):
        stages = _resnet_stages()
    elif isinstance(module, VGG):
        stages = _vgg_stages(module)
    return zooft.Anatomy(stages=stages, classifier=(classifier,), input=_input(name), first_convolution=convolutions[0])


def _resnet_stages() -> dict[str, zooft.Stage]:
    layers = [f"layer{i}" for i in range(1, 5)]
    return {
        "stem": zooft.Stage(("conv1", "bn1", "relu", "maxpool")),
        **{layer: zooft.Stage((layer,)) for layer in layers},
        "pool": zooft.Stage(("avgpool",), lambda m, x: m.avgpool(x).flatten(1)),
    }


def _vgg_stages(module: Any) -> dict[str, zooft.Stage]:
    """One stage for the layers up to each pooling, and one for the two hidden linear layers."""
    from torch import nn

    stages: dict[str, zooft.Stage] = {}
    parts: list[str] = []
    for index, layer in enumerate(module.features):
        parts.append(f"features.{index}")
        if isinstance(layer, nn.MaxPool2d):
            stages[f"block{len(stages) + 1}"] = zooft.Stage(tuple(parts))
            parts = []
    hidden = tuple(f"classifier.{index}" for index in range(len(module.classifier) - 1))
    return {
        **stages,
        "hidden": zooft.Stage(("avgpool", *hidden), lambda m, x: m.classifier(m.avgpool(x).flatten(1))),
    }


def _whole(module: nn.Module, classifier: str) -> zooft.Stage:
    """The model's own forward; its classifier will have been taken out by then."""
    leaves = [name for name, child in module.named_modules() if name and not list(child.children())]
    parts = dict.fromkeys(
        name for name in (*leaves, *module.state_dict()) if not f"{name}.".startswith(classifier + ".")
    )
    return zooft.Stage(tuple(parts), lambda m, x: m(x))


def _input(name: str) -> zooft.InputSpec:
    transforms = _default_weights(name).transforms()
    size = transforms.crop_size[0]
    mean, std = (_HALVES, _HALVES) if name in _TRANSFORMING else (tuple(transforms.mean), tuple(transforms.std))
    return zooft.InputSpec(
        height=size,
        width=size,
        resize=transforms.resize_size[0],
        mean=mean,
        std=std,
        interpolation=transforms.interpolation.value,
    )


def _default_weights(name: str) -> Any:
    from torchvision.models import get_model_weights

    return get_model_weights(name).DEFAULT
