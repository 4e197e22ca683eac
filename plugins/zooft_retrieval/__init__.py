"""Metric learning: embeddings that are near for pictures of one person or thing, known or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import zooft
from zooft_retrieval import demo, discover, options, problem, views

if TYPE_CHECKING:
    from torch import nn


@zooft.hookimpl
def zooft_register_heads() -> Iterator[zooft.Head]:
    """The head of embeddings."""
    yield zooft.Head(
        name="embedding", summary="features less their mean, through a linear layer that turns slowly", build=_head
    )


def _head(width: int, outputs: int) -> nn.Module:
    from zooft_retrieval.head import Embedding

    return Embedding(width, outputs)


@zooft.hookimpl
def zooft_register_tasks() -> Iterator[zooft.Task]:
    """One task, for every kind of thing that has an identity."""
    yield zooft.Task(
        name="retrieval",
        summary="embeddings of people or things that may be new, from a folder for each, a CSV manifest or LFW's pairs",
        problem=problem.retrieval(),
        options=options.RetrievalOptions,
        discover=discover.discover,
        read=zooft.image_read,
        digest=zooft.image_digest,
        port=zooft.image_port,
        preprocess=zooft.image_preprocess,
        input=views.whole_picture,
        augment=views.augment,
        reader=zooft.image_reader,
        head=lambda options: "retrieval/embedding",
        intended_use="Finds pictures of the same person or thing among those of the kind it was trained on. "
        "No other use was tested. "
        "Where it is used on people, whoever uses it answers for consent and law.",
        demo=demo.patterns,
    )
