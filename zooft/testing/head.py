"""A head, tried on features of one width and of another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zooft.hooks.guard import ask, place_of
from zooft.model.adapted import adapt
from zooft.testing.breaches import TOLERANCE, accepted, conforming, difference, expect

if TYPE_CHECKING:
    from zooft.contracts import Head


@conforming()
def check_head(head: Head) -> None:
    """``(N, width) -> (N, outputs)``, or ``(N, Z, width)`` for a bag, finite, with gradients to every parameter that learns.

    A parameter that is to stay as it was drawn is marked with ``requires_grad_(False)``. In evaluation mode a sample gets the same
    answer twice, and whatever other samples are in its batch.
    """
    head = accepted(head)
    place = place_of(head, "build")
    module: nn.Module = ask(head, "build", 16, 3)
    x = torch.randn((5, 7, 16) if head.bag else (5, 16), generator=torch.Generator().manual_seed(0))
    logits = _logits(head, module, x)
    logits.square().mean().backward()  # type: ignore[no-untyped-call]
    idle = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    if idle:
        raise place.error(
            f"gives a module that doesn't use {', '.join(idle)}; use it, or mark what is to stay fixed with requires_grad_(False)"
        )
    module.eval()
    with torch.no_grad():
        wanted = _logits(head, module, x)
        if difference(_logits(head, module, x), wanted) > 0:
            raise place.error(
                "gives a module that answers one sample in two ways in evaluation mode, such as by dropout"
            )
        if difference(module(x[:1]), wanted[:1]) > TOLERANCE:
            raise place.error("gives a module that answers a sample by the others in its batch in evaluation mode")
    adapt(_stub(9), head, {"logits": 2})


def _logits(head: Head, module: nn.Module, x: Tensor) -> Tensor:
    try:
        logits = module(x)
    except Exception as error:  # plugin code
        words = f"gives a module that fails on {tuple(x.shape)}: {type(error).__name__}: {error}"
        raise place_of(head, "build").error(words) from error
    if not isinstance(logits, Tensor):
        raise place_of(head, "build").amiss(logits, "a tensor (5, 3)", what="what its module makes")
    expect(tuple(logits.shape) == (5, 3), f"the head {head.name} gives {tuple(logits.shape)}, expected (5, 3)")
    expect(bool(torch.isfinite(logits).all()), f"the head {head.name} gives numbers that aren't finite")
    return logits


def _stub(width: int) -> Any:
    """As much of a backbone as a head needs to be built for."""
    return SimpleNamespace(module=nn.Identity(), stages={}, slots=(), fixed=frozenset(), width=width)
