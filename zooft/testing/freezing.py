"""Frozen stages of a backbone, tried by two steps of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from zooft.model import freeze
from zooft.model.adapted import AdaptedModel
from zooft.testing.breaches import expect, report_breaches
from zooft.testing.inputs import noise

if TYPE_CHECKING:
    from zooft.model.backbone import Backbone

_LARGE = 500_000
"""Pixels of an input of which attention between all its tokens takes gigabytes an image."""


@report_breaches()
def check_freezing(backbone: Backbone) -> None:
    """Two steps of training with all but the last stage frozen: these stay bit-equal, and something else moves.

    What the zoo has built with ``requires_grad=False`` stays too, with nothing frozen.
    """
    adapted = AdaptedModel(backbone, torch.nn.Linear(backbone.width, 2))
    stages = freeze.learnable_stages(adapted)
    expect(len(stages) > 0, f"{backbone.reference} has no stage with parameters")
    frozen = stages[:-1]
    before, head = freeze.fingerprints(adapted, frozen), adapted.head.state_dict()["weight"].clone()
    optimizer = torch.optim.SGD(adapted.parameters(), lr=0.1)
    rows = 4 if backbone.input.height * backbone.input.width < _LARGE else 2
    for _ in range(2):
        freeze.apply(adapted, frozen)
        optimizer.zero_grad()
        adapted(noise(backbone, rows))["logits"].square().mean().backward()
        optimizer.step()
    freeze.check_unchanged(adapted, before, frozen)
    if backbone.fixed:
        freeze.apply(adapted, ())
        adapted(noise(backbone, rows))["logits"].square().mean().backward()
        optimizer.step()
        freeze.check_unchanged(adapted, {name: before[name] for name in backbone.fixed}, ())
    expect(not torch.equal(head, adapted.head.state_dict()["weight"]), "the head doesn't learn")
