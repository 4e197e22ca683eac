"""A model zoo, tried on one of its models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from zooft.errors import UnknownNameError
from zooft.hooks.guard import call_plugin, place_of
from zooft.model.backbone import load_backbone
from zooft.model.names import full_name
from zooft.testing.breaches import accept, expect, report_breaches
from zooft.testing.deployment import check_export, check_round_trip
from zooft.testing.freezing import check_freezing
from zooft.testing.stages import check_stages

if TYPE_CHECKING:
    from pathlib import Path

    from zooft.contracts import Family
    from zooft.model.backbone import Backbone


@report_breaches()
def check_family(family: Family, model: str, *, folder: Path) -> None:
    """Everything that zooft relies on in a family, tried on one of its models with random weights.

    The name is known and unknown ones are refused; the trunk gives ``(N, width)``; stages hold every tensor once,
    compose to the trunk and hold nothing else; frozen stages stay bit-equal while the others learn; a
    checkpoint goes back into the zoo's own model and answers the same; the ONNX file answers the same at two batch
    sizes and two image sizes.

    Args:
        family: what the plugin registers.
        model: a name of it.
        folder: for the ONNX file.
    """
    family = accept(family)
    _check_names(family, model)
    _check_unknown(family)

    def draw_backbone() -> Backbone:
        torch.manual_seed(0)
        return load_backbone(family, model, weights="random", sources=())

    backbone = draw_backbone()
    check_stages(family, backbone)
    check_freezing(backbone)
    check_round_trip(family, draw_backbone())
    check_export(draw_backbone(), folder)


def _check_names(family: Family, model: str) -> None:
    """Full names are full names of themselves, and every alias is one of a model that there is."""
    full = full_name(family, model)
    expect(full != "", f"{family.name} has an empty name for {model}")
    again = full_name(family, full)
    if again != full:
        words = f"gives {full!r} for {model!r}, and {again!r} for that; expected a full name to be its own"
        raise place_of(family, "canonical").error(words)
    known = set(call_plugin(family, "models"))
    for alias, meant in family.aliases.items():
        if alias in known:
            raise place_of(family, "aliases").error(f"has the alias {alias!r}, which is also the name of a model")
        try:
            full_name(family, alias)
        except UnknownNameError as error:
            raise place_of(family, "aliases").error(f"has the alias {alias!r} for {meant!r}: {error}") from error


def _check_unknown(family: Family) -> None:
    try:
        made_up = full_name(family, "a-model-that-nobody-has")
    except UnknownNameError:
        return
    words = f"gives {made_up!r} for a model that nobody has; expected a KeyError"
    raise place_of(family, "canonical").error(words)
