"""What is known of a zoo's model without training it: its description, and its weights fetched into a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from zooft.contracts import Family, LoadedWeights, WeightsRecord, parse_reference
from zooft.hooks.guard import call_plugin
from zooft.model import weights as weight_files
from zooft.model.backbone import outline_backbone
from zooft.model.building import build_module, first_line, read_anatomy, shapes_of, weight_places
from zooft.model.loading import load_strictly
from zooft.model.names import full_name
from zooft.model.skip_init import on_meta
from zooft.model.stages import owners

if TYPE_CHECKING:
    from pathlib import Path

    from zooft.hooks.registry import Registry


def fetch_weights(registry: Registry, reference: str, folder: Path) -> tuple[Path, WeightsRecord]:
    """Write a model's pretrained weights to where `load_backbone` finds them with ``ZOOFT_WEIGHTS`` set.

    Args:
        registry: what the plugins register.
        reference: ``family:model``.
        folder: to be filled.

    Returns:
        The file, and the record of its weights.
    """
    family_name, name = parse_reference(reference)
    family = registry.family(family_name)
    full = full_name(family, name)
    module = build_module(family, full, drawn=False)
    anatomy = read_anatomy(family, full, module)
    places = weight_places(family, full, [entry.value for entry in registry.weights], folder=None)
    found = weight_files.find("pretrained", places, shapes_of(module))
    tensors = found.tensors or {}
    load_strictly(module, tensors, without=anatomy.classifier, what=weight_files.origin(places, found))
    path = weight_files.path_in(folder, family.name, full)
    weights = LoadedWeights(tensors=tensors, source=found.record.source, licence=found.record.licence)
    weight_files.write_file(path, weights)
    return path, found.record


def describe(registry: Registry, family: Family, name: str, *, check: bool = False) -> dict[str, Any]:
    """What ``zooft backbones`` shows of a model, built without memory for its tensors.

    Args:
        registry: what the plugins register.
        family: the model zoo.
        name: a model of it, alias or full name.
        check: whether its stages are tried, too; of many models that takes long.
    """
    full = full_name(family, name)
    row: dict[str, Any] = {
        "name": name,
        "full_name": full,
        "parameters": None,
        "input": None,
        "stages": None,
        "problem": None,
        "weights": None,
        "downloadable": family.pretrained is not None,
    }
    places = weight_places(
        family,
        full,
        [entry.value for entry in registry.weights],
        folder=weight_files.folder_from_environment(),
    )
    try:
        row["weights"] = weight_files.at_hand(places)
        module = on_meta(lambda: call_plugin(family, "build", full))
        with torch.device("meta"):
            anatomy = call_plugin(family, "anatomy", full, module)
        if check:
            outline_backbone(family, full)
    except Exception as error:  # plugin code; one odd model mustn't end the list
        return {**row, "problem": first_line(error.__cause__ or error)}
    sizes = {key: parameter.numel() for key, parameter in module.named_parameters()}
    owned = owners(sizes, anatomy.stages)
    stages = [
        {"name": stage, "parameters": sum(n for key, n in sizes.items() if stage in owned[key])}
        for stage in anatomy.stages
    ]
    spec = anatomy.input
    return {
        **row,
        "parameters": sum(sizes.values()),
        "input": f"{spec.height}x{spec.width}",
        "stages": stages,
    }
