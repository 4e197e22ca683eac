"""The heads and freezers that everybody needs, registered by the same door as a stranger's."""

from __future__ import annotations

import zooft
from zooft_standard import freezers, heads


@zooft.hookimpl
def zooft_register_heads() -> list[zooft.Head]:
    """Linear and logistic; for bags mean, max and attention."""
    return [
        zooft.Head(name="linear", summary="one linear layer, as the zoos' own", build=heads.linear),
        zooft.Head(
            name="logistic",
            summary="features standardised, one linear layer whose weights are penalised, as in a logistic regression",
            build=heads.logistic,
            logit_std=2.0,
        ),
        zooft.Head(
            name="mean", summary="for bags: mean over the instances, one linear layer", build=heads.mean, reads="bag"
        ),
        zooft.Head(
            name="max",
            summary="for bags: each feature's maximum over the instances, one linear layer",
            build=heads.largest,
            reads="bag",
        ),
        zooft.Head(
            name="attention",
            summary="for bags: learnt weights of the instances (Ilse et al. 2018), one linear layer",
            build=heads.attention,
            reads="bag",
        ),
    ]


@zooft.hookimpl
def zooft_register_freezers() -> list[zooft.Freezer]:
    """None, backbone, first:K, last:K, until:STAGE, gradual:E, warmup:E, layerwise:DECAY, norm, bias."""
    return [
        zooft.Freezer(name="none", summary="everything learns", plan=freezers.none),
        zooft.Freezer(name="backbone", summary="only the head learns (feature extraction)", plan=freezers.backbone),
        zooft.Freezer(name="first", summary="the first K stages stay", plan=freezers.first, argument="K"),
        zooft.Freezer(
            name="last", summary="only the last K stages and the head learn", plan=freezers.last, argument="K"
        ),
        zooft.Freezer(
            name="until",
            summary="all stages up to and including STAGE stay",
            plan=freezers.until,
            argument="STAGE",
        ),
        zooft.Freezer(
            name="gradual",
            summary="one more stage learns every E epochs, the deepest first",
            plan=freezers.gradual,
            argument="E",
        ),
        zooft.Freezer(
            name="warmup",
            summary="only the head learns for E epochs, then everything",
            plan=freezers.warmup,
            argument="E",
        ),
        zooft.Freezer(
            name="layerwise",
            summary="everything learns, each stage DECAY times as fast as the one behind it",
            plan=freezers.layerwise,
            argument="DECAY",
        ),
        zooft.Freezer(
            name="norm",
            summary="only scales and shifts of normalisation layers learn, and the head",
            plan=freezers.norm,
        ),
        zooft.Freezer(name="bias", summary="only biases learn, and the head (BitFit)", plan=freezers.bias),
    ]
