"""Stages: they run the module that they are given, each image for itself, in training as in evaluation."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zooft.errors import ModelError
from zooft.hooks.guard import call_plugin, place_of
from zooft.model import building
from zooft.model.backbone import load_backbone
from zooft.testing.breaches import TOLERANCE, difference, report_breaches
from zooft.testing.inputs import noise

if TYPE_CHECKING:
    from collections.abc import Callable

    from zooft.contracts import Family
    from zooft.hooks.guard import Place
    from zooft.model.backbone import Backbone


@report_breaches()
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

    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.no_grad():
        wanted = run(module, x)
        expect_same(run(module, x), wanted, "stages answer one image in two ways in evaluation mode", 0.0)
        changed = [name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])]
        if changed:
            raise place.error(f"stages change {', '.join(changed)} in evaluation mode; that is for training mode only")
        expect_same(run(module, x[:1]), wanted[:1], "stages answer an image by the others in its batch", 10 * TOLERANCE)
        one, two = x, other
        for stage in stages:  # side by side, as threads run them
            one, two = stage(module, one), stage(module, two)
        expect_same(one, wanted, "stages store on the module what they find out about an image")
        again = copy.deepcopy(module)
        for parameter in again.parameters():
            parameter.mul_(1.1)
        expect_same(
            run(again, x),
            again(x),
            "stages run another module than the one that they are given, such as one they hold on to",
        )
        _check_training(place, copy.deepcopy(module).train(), run, x)
    _check_gradients(place, copy.deepcopy(module).train(), run, x)
    _check_ways(place, copy.deepcopy(module), run, x)
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
            "stages don't compose to the trunk in training mode, such as by a dropout that one of them leaves out: "
            f"they differ by {difference(staged, whole):.1e}"
        )


def _check_gradients(place: Place, module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> None:
    """What learns as the zoo runs it learns stage by stage."""

    def learning(answer: Any) -> set[str]:
        if not isinstance(answer, Tensor) or not answer.requires_grad:
            return set()
        module.zero_grad()
        answer.square().mean().backward()  # type: ignore[no-untyped-call]
        return {name for name, parameter in module.named_parameters() if parameter.grad is not None}

    cut = learning(module(x)) - learning(run(module, x))
    if cut:
        raise place.error(
            f"stages cut off the gradients of {len(cut)} parameters, such as {min(cut)}; leave out detach() and "
            "no_grad()"
        )


def _check_ways(place: Place, module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> None:
    """Training runs stages in the layout channels-last, and in bfloat16 where that is faster."""
    module = module.to(memory_format=torch.channels_last)
    laid = x.to(memory_format=torch.channels_last)
    for what, context in (
        ("in the layout torch.channels_last", contextlib.nullcontext()),
        ("in bfloat16 by torch.autocast", torch.autocast("cpu", torch.bfloat16)),
    ):
        try:
            with torch.no_grad(), context:
                run(module, laid)
        except Exception as error:  # plugin code
            raise place.error(
                f"stages fail {what}, as training runs them: {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error


def _check_first_convolution(family: Family, backbone: Backbone) -> None:
    module = call_plugin(family, "build", backbone.name)
    anatomy = call_plugin(family, "anatomy", backbone.name, module)
    if anatomy.first_convolution is not None:
        building.check_first_convolution(family, backbone.name, module, anatomy)
        _check_grey(family, backbone.name, anatomy.first_convolution)


def _check_grey(family: Family, name: str, convolution: str) -> None:
    """Adapted to one channel, a backbone gives for a grey image what it gave for its copy in every channel."""

    def draw_backbone(**options: int) -> Backbone:
        torch.manual_seed(0)
        return load_backbone(family, name, weights="random", sources=(), **options)

    plain = draw_backbone()
    grey = noise(plain, 2)[:, :1]
    place, words = (
        place_of(family, "anatomy"),
        f"names the first_convolution {convolution}, but something else sees the image too",
    )
    try:
        adapted = draw_backbone(channels=1)
    except ModelError as error:
        raise place.error(f"{words}: adapted to grey images, {error}") from error
    with torch.no_grad():
        worst = difference(adapted.module(grey), plain.module(grey.expand(-1, plain.input.channels, -1, -1)))
    if worst > 10 * TOLERANCE:
        raise place.error(f"{words}: adapted to grey images, the trunk answers otherwise, by {worst:.1e}")
