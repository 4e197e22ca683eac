"""Object detection.

Boxes with classes, from pictures and COCO, Pascal VOC or YOLO annotations to a file that gives boxes in the picture's
own pixels.
"""

from __future__ import annotations

import zooft
from zooft_detection import demo, deploy, evaluation, heads, options, presentation, training, views
from zooft_detection.discover import discover


@zooft.hookimpl
def zooft_register_heads() -> list[zooft.Head]:
    """What gives a class and a box at every place."""
    return heads.heads()


@zooft.hookimpl
def zooft_register_tasks() -> list[zooft.Task]:
    """Boxes on images."""
    return [
        zooft.Task(
            name="detection",
            summary="boxes around objects, from COCO, Pascal VOC or YOLO annotations",
            problem=problem(),
            options=options.DetectionOptions,
            discover=discover,
            read=zooft.image_read,
            digest=zooft.image_digest,
            port=zooft.image_port,
            preprocess=zooft.image_preprocess,
            input=views.network_input,
            geometry=zooft.image_geometry,
            augment=views.augment,
            head=options.head,
            reader=views.reader,
            intended_use="Finds the listed objects in images of the kind it was trained on. No other use was tested.",
            demo=demo.shapes,
        )
    ]


def problem() -> zooft.Problem:
    """Boxes, as a kind of prediction."""
    return zooft.Problem(
        name="detection",
        training=training.training_part(),
        evaluation=evaluation.evaluation_part(),
        deployment=deploy.deployment_part(),
        presentation=presentation.presentation_part(),
    )
