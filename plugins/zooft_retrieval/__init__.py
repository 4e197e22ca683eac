"""Metric learning: embeddings that are near for pictures of one person or thing, known or not."""

from __future__ import annotations

from collections.abc import Iterator

import zooft
from zooft_retrieval import demo, discover, options, problem, read, views


@zooft.hookimpl
def zooft_register_tasks() -> Iterator[zooft.Task]:
    """One task, for every kind of thing that has an identity."""
    yield zooft.Task(
        name="retrieval",
        summary="embeddings of people or things that may be new, from a folder for each, a CSV manifest or LFW's pairs",
        problem=problem.retrieval(),
        options=options.RetrievalOptions,
        discover=discover.discover,
        read=read.read,
        digest=read.digest,
        port=zooft.image_port,
        preprocess=zooft.image_preprocess,
        input=views.whole_picture,
        augment=views.augment,
        reader=zooft.image_reader,
        intended_use="Finds pictures of the same person or thing among those of the kind it was trained on. No other use was tested. "
        "Where it is used on people, whoever uses it answers for consent and law.",
        demo=demo.patterns,
    )
