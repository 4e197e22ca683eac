"""Stages: they run the module that they are given, each image for itself, in training as in evaluation."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zooft.hooks.guard import ask, place_of
from zooft.model import building
from zooft.testing.breaches import TOLERANCE, conforming, difference
from zooft.testing.inputs import noise

if TYPE_CHECKING:
    from collections.abc import Callable

    from zooft.contracts import Family
    from zooft.hooks.guard import Place
    from zooft.model.backbone import Backbone


@conforming()
def check_stages(family: Family, backbone: Backbone) -> None:
    """Stages run the module that they are given, twice alike, each image for itself, and in training as the zoo does.

    Args:
        family: of the backbone.
        backbone: as it was loaded.
    """
    place, stages = place_of(family, "anatomy"), list(backbone.stages.values())
    module, x, other = backbone.module.eval(), noise(backbone, 3), noise(backbone, 3, seed=2)

    def run(trunk: nn.Module, batch: Tensor) -> Tensor:
        for stage in stages:
            batch = stage(trunk, batch)
        return batch

    def expect_same(got: Tensor, wanted: Tensor, words: str, tolerance: float = TOLERANCE) -> None:
        if difference(got, wanted) > tolerance:
            raise place.error(f"{words}: they differ by {difference(got, wanted):.1e}")

    with torch.no_grad():
        wanted = run(module, x)
        expect_same(run(module, x), wanted, "stages answer one image in two ways in evaluation mode", 0.0)
        expect_same(run(module, x[:1]), wanted[:1], "stages answer an image by the others in its batch", 10 * TOLERANCE)
        one, two = x, other
        for stage in stages:  # side by side, as threads run them
            one, two = stage(module, one), stage(module, two)
        expect_same(one, wanted, "stages keep on the module what they find out about an image")
        again = copy.deepcopy(module)
        for parameter in again.parameters():
            parameter.mul_(1.1)
        expect_same(
            run(again, x),
            again(x),
            "stages run another module than the one that they are given, such as one they hold on to",
        )
        _check_training(place, copy.deepcopy(module).train(), run, x)
    _check_first_convolution(family, backbone)


def _check_training(place: Place, module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> None:
    """Dropout is where the zoo has it: with the same random numbers both ways give the same."""
    state = copy.deepcopy(module.state_dict())
    torch.manual_seed(3)
    whole = module(x)
    if not isinstance(whole, Tensor) or whole.ndim != 2:  # with answers of other branches, which zooft doesn't train
        return
    module.load_state_dict(state)
    torch.manual_seed(3)
    staged = run(module, x)
    if difference(staged, whole) > 10 * TOLERANCE:
        raise place.error(
            f"stages don't compose to the trunk in training mode, such as by a dropout that one of them leaves out: they differ by "
            f"{difference(staged, whole):.1e}"
        )


def _check_first_convolution(family: Family, backbone: Backbone) -> None:
    module = ask(family, "build", backbone.name)
    anatomy = ask(family, "anatomy", backbone.name, module)
    if anatomy.first_convolution is not None:
        building.check_first_convolution(family, backbone.name, module, anatomy)
