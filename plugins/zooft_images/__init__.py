"""The task ``classification``: images in class folders or listed in a manifest."""

from __future__ import annotations

import zooft
from zooft_images import demo, discover, options, read, views


@zooft.hookimpl
def zooft_register_tasks() -> list[zooft.Task]:
    """One task."""
    return [
        zooft.Task(
            name="classification",
            summary="one class an image, from class folders or a CSV manifest",
            options=options.ClassificationOptions,
            discover=discover.discover,
            read=read.read,
            digest=read.digest,
            sketch=read.sketch,
            port=views.port,
            channels=options.channels,
            preprocess=zooft.image_preprocess,
            augment=views.augment,
            problem=zooft.classification(loss=views.loss),
            reader=views.reader,
            intended_use="Sorts images of the kind it was trained on into the listed classes. No other use was tested.",
            demo=demo.digits,
        )
    ]
