"""What all tools start from: the same initial tensors, and the same list of frozen parameters."""

from __future__ import annotations

from pathlib import Path

FREEZERS = {"head": "backbone", "last": "last:1", "full": "none"}
"""Job to zooft's ``--freeze``."""


def weights(model: str, folder: Path, *, pretrained: bool, seed: int = 0) -> Path:
    """A safetensors file of the model's tensors under timm's own names, made at the first call.

    Args:
        model: timm's name.
        folder: for all such files.
        pretrained: from zooft's sources, timm's own download last; else random, from `seed`.
    """
    kind = "pretrained" if pretrained else f"random-{seed}"
    path = folder / f"{model}-{kind}.safetensors"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    if pretrained:
        _fetch(model, path)
    else:
        _draw(model, path, seed)
    return path


def at_hand(model: str) -> bool:
    """Whether an installed package has pretrained weights of the model, so that no network is needed."""
    from zooft.hooks import registry
    from zooft.model.names import full_name

    found = registry.load()
    reference = f"timm:{full_name(found.family('timm'), model)}"
    return any(reference in set(entry.value.models()) for entry in found.weights)


def frozen(model: str, job: str) -> tuple[str, ...]:
    """timm's names of the parameters that zooft freezes in such a job."""
    import torch

    from zooft.hooks import registry
    from zooft.model.names import full_name
    from zooft.model.stages import owners

    found = registry.load()
    family = found.family("timm")
    full = full_name(family, model)
    with torch.device("meta"):
        module = family.build(full)
        anatomy = family.anatomy(full, module)
    names = [name for name, _ in module.named_parameters()]
    owned = {name: stages[0] for name, stages in owners(names, anatomy.stages).items() if stages}
    holding = tuple(stage for stage in anatomy.stages if stage in set(owned.values()))
    freezer, argument = found.freezer(FREEZERS[job])
    plan = freezer.plan(holding, argument, 0)
    return tuple(name for name in names if owned.get(name) in plan.frozen)


def _draw(model: str, path: Path, seed: int) -> None:
    import timm
    import torch

    from zooft.contracts import LoadedWeights
    from zooft.model.weights import write_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tensors = timm.create_model(model).state_dict()
    write_file(path, LoadedWeights(tensors=tensors, source=f"random, seed {seed}", licence=None, file_sha256=None))


def _fetch(model: str, path: Path) -> None:
    from zooft.hooks import registry
    from zooft.model.zoo import fetch_weights

    fetched, _ = fetch_weights(registry.load(), f"timm:{model}", path.with_suffix(".fetched"))
    fetched.replace(path)
