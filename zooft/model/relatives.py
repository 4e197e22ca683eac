"""Smaller models of the same family: found by their names and parameter counts."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from zooft.errors import ZooftError
from zooft.hooks.guard import call_plugin
from zooft.model import weights as weight_files
from zooft.model.building import weight_places
from zooft.model.names import full_name
from zooft.model.skip_init import on_meta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zooft.contracts import Family, WeightsSource

_SIZES = re.compile(
    "atto|femto|pico|zepto|nano|micro|mini|minimal|x?tiny|small|little|medium|base|big|x?large|huge|giant|gigantic|enormous"
    "|x{0,2}s|m|b|x{0,2}l|h|g|t|n|p"
)
"""What zoos call sizes."""


@dataclass(frozen=True, slots=True)
class Relative:
    """A model of the same kind and another size.

    Attributes:
        name: in its zoo, in full.
        parameters: how many it has, its own classifier's among them.
    """

    name: str
    parameters: int


def find_smaller(
    family: Family, name: str, *, near: int, below: int, sources: Sequence[WeightsSource], pretrained: bool
) -> Relative | None:
    """The model of the same kind whose parameter count comes nearest; None where there is none.

    Those whose pretrained weights are at hand come first, where such are wanted.

    Args:
        family: the zoo.
        name: the model's, in full.
        near: the number of parameters that is wanted.
        below: so many at most, less one.
        sources: weights plugins.
        pretrained: whether weights are wanted.
    """
    found = [each for each in _relatives(family, name) if each.parameters < below]
    if pretrained:
        found = [each for each in found if _has_weights(family, each.name, sources)] or found
    plain = _bare(name)

    def distance(each: Relative) -> tuple[float, float]:
        away = abs(math.log(each.parameters / near))
        return round(away, 1), -difflib.SequenceMatcher(None, plain, _bare(each.name)).ratio()

    return min(found, key=distance, default=None)


def _relatives(family: Family, name: str) -> list[Relative]:
    kind, found = _kind(name), []
    for other in call_plugin(family, "models"):
        if _kind(other) != kind or _bare(other) == _bare(name):
            continue
        try:
            full = full_name(family, other)
            module = on_meta(partial(call_plugin, family, "build", full))
        except ZooftError:  # a model that its zoo can't build isn't of use
            continue
        found.append(Relative(full, sum(parameter.numel() for parameter in module.parameters())))
    return found


def _has_weights(family: Family, full: str, sources: Sequence[WeightsSource]) -> bool:
    places = weight_places(family, full, sources, folder=weight_files.folder_from_environment())
    return weight_files.at_hand(places) is not None


def _bare(name: str) -> str:
    """Without the tag of its weights."""
    return name.partition(".")[0]


def _kind(name: str) -> str:
    """What sizes of a model share of its name: ``resnet#`` of resnet50, ``vit_patch16`` of vit_small_patch16."""
    kept = []
    for part in _bare(name).lower().split("_"):
        if _SIZES.fullmatch(part) or part.isdigit():
            continue
        grid = re.fullmatch(r"(patch|window|win|p|w)\d+", part)
        kept.append(part if grid else re.sub(r"(?<!v)\d+", "#", part))  # a version isn't a size
    return "_".join(kept)
