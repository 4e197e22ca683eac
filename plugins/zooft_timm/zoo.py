"""timm's models: listing, building, weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import zooft
from zooft_timm import sources

if TYPE_CHECKING:
    from torch import nn

ALIASES = {
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
    "vit_large": "vit_large_patch16_224",
    "deit_tiny": "deit_tiny_patch16_224",
    "deit_small": "deit_small_patch16_224",
    "deit_base": "deit_base_patch16_224",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "swin_small": "swin_small_patch4_window7_224",
    "swin_base": "swin_base_patch4_window7_224",
    "mobilenetv3_large": "mobilenetv3_large_100",
    "mobilenetv3_small": "mobilenetv3_small_100",
}


def models() -> list[str]:
    """Architecture names, without weights tags."""
    import timm

    names: list[str] = timm.list_models()
    return names


def canonical(name: str) -> str:
    """The name with the weights tag that timm takes by default, whether or not there are weights of that tag.

    A name that timm has given up stands for the one that it has now.

    Raises:
        KeyError: an unknown model or tag.
    """
    from timm.models import get_deprecated_models, get_pretrained_cfg, is_model

    if sources.is_saved(name):
        return sources.full_name(name)
    current: str = get_deprecated_models().get(name) or name
    architecture, dot, tag = current.partition(".")
    if not is_model(architecture) or (dot and not tag):
        raise KeyError(name)
    try:
        config = get_pretrained_cfg(current)
    except RuntimeError as error:  # no such tag
        raise KeyError(name) from error
    return f"{architecture}.{config.tag}" if config is not None and config.tag else architecture


def build(name: str) -> nn.Module:
    """The model with random weights and its own number of classes."""
    import timm

    architecture, given = sources.arguments(name) if sources.is_saved(name) else (name, {})
    module: nn.Module = timm.create_model(architecture, pretrained=False, **_settings(name), **given)
    return module


def _settings(name: str) -> dict[str, bool]:
    """VOLO's second classifier, which adds the best patch's scores and is an option of timm's, is left out."""
    return {"use_aux_head": False} if name.startswith("volo_") else {}


def pretrained_weights(name: str) -> zooft.LoadedWeights:
    """Timm's weights, downloaded if need be."""
    import timm
    import torch

    saved = sources.repository(name)
    if saved is None:
        _refuse_unweighted(name)
        _refuse_unreachable_hub(name)
    with torch.random.fork_rng(devices=[]):
        source = name if saved is None else f"{sources.FOLDER}{sources.snapshot(saved)}"
        module = timm.create_model(source, pretrained=True)
    tensors = module.state_dict()
    if _settings(name):
        tensors = {key: tensors[key] for key in build(name).state_dict()}
    config = module.pretrained_cfg
    source = config.get("hf_hub_id") or config.get("url") or name
    return zooft.LoadedWeights(
        tensors=tensors,
        source=f"timm {source}" if saved is None else f"{sources.HUB}{saved}",
        licence=config.get("license"),
    )


def _refuse_unweighted(name: str) -> None:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name.partition("?")[0])
    if "?" in name:
        raise zooft.NoWeightsError("its weights lay in a folder; give it again as timm:local-dir:FOLDER")
    if config is not None and not config.has_weights:
        raise zooft.NoWeightsError(f"timm has no weights of {name}")


def at_hand(name: str) -> bool:
    """Whether the weights are in the hub's download folder."""
    from huggingface_hub import try_to_load_from_cache

    if "?" in name:
        return _is_stored(name)
    repository = _repository(name)
    return repository is not None and any(
        isinstance(try_to_load_from_cache(repository, file), str) for file in ("model.safetensors", "pytorch_model.bin")
    )


def _is_stored(name: str) -> bool:
    saved = sources.repository(name)
    try:
        return saved is not None and sources.snapshot(saved, offline=True).is_dir()
    except zooft.WeightsError:
        return False


def _refuse_unreachable_hub(name: str) -> None:
    """Ask the hub once: without a network, timm would retry two files for a minute.

    Raises:
        WeightsError: the hub doesn't answer and the weights aren't in its download folder.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    repository = _repository(name)
    if repository is None or at_hand(name):
        return
    url = hf_hub_url(repository, "model.safetensors")
    try:
        get_hf_file_metadata(url, timeout=10)
    except HfHubHTTPError:
        return  # it answers: whether it has the file is timm's to find out
    except Exception as error:  # httpx or requests, by the hub's version
        host = url.split("/")[2]
        raise zooft.WeightsError(f"the hub {host} can't be reached: {error}") from error


def _repository(name: str) -> str | None:
    """The hub's repository of a model's weights; None where they lie elsewhere."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return None
    repository: str = config.hf_hub_id if config.hf_hub_id != "timm/" else f"timm/{name}"
    return repository
