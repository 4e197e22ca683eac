"""The task ``classification``: images in class folders or listed in a manifest."""

from __future__ import annotations

import zooft
from zooft_images import demo, discover, options, tasks, views


@zooft.hookimpl
def zooft_register_tasks() -> list[zooft.Task]:
    """One task."""
    return [
        tasks.image_task(
            "classification",
            zooft.classification(loss=views.loss),
            summary="one class an image, from class folders or a CSV manifest",
            own=options.ClassificationOptions,
            discover=discover.discover,
            intended_use="Sorts images of the kind it was trained on into the listed classes. No other use was tested.",
            demo=demo.digits,
        ),
        tasks.image_task(
            "multilabel",
            zooft.multilabel(),
            summary="several labels an image, from columns of a CSV manifest or one that lists them",
            own=options.MultilabelOptions,
            preprocess=views.whole_picture,
            intended_use="Finds the listed labels in images of the kind it was trained on. No other use was tested.",
        ),
    ]
