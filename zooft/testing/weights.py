"""A source of weights, tried on what it serves of a family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.hooks.guard import ask, place_of
from zooft.model.backbone import load_backbone
from zooft.model.names import full_name
from zooft.testing.breaches import accepted, conforming

if TYPE_CHECKING:
    from zooft.contracts import Family, WeightsSource


@conforming()
def check_weights(source: WeightsSource, family: Family) -> None:
    """What the source serves of a family's models loads strictly: every name and shape fits, but for the classifier's.

    Args:
        source: what the plugin registers.
        family: of which it serves models.
    """
    source, family = accepted(source), accepted(family)
    served = [model for model in ask(source, "models") if model.startswith(f"{family.name}:")]
    place = place_of(source, "models")
    if not served:
        raise place.error(f"names no model of {family.name}; expected names such as {family.name}:MODEL")
    for reference in served:
        name = reference.partition(":")[2]
        if full_name(family, name) != name:
            raise place.error(f"names {reference}; expected the full name, {family.name}:{full_name(family, name)}")
        load_backbone(family, name, weights="pretrained", sources=[source])
