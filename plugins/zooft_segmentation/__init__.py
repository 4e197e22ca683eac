"""Semantic segmentation.

A class for every pixel, from pictures and masks to a file that gives masks of the picture's own size.
"""

from __future__ import annotations

import zooft
from zooft_segmentation import areas, demo, deploy, heads, options, presentation, tiles, training, views
from zooft_segmentation.areas import AREAS, BOTH, FOUND, SHARES, TRUE, overlaps
from zooft_segmentation.classes import FILES as CLASS_FILES
from zooft_segmentation.classes import ClassSpec
from zooft_segmentation.classes import from_json as classes_from_json
from zooft_segmentation.classes import labels_of as class_labels
from zooft_segmentation.classes import read_file as read_classes
from zooft_segmentation.classes import to_json as classes_to_json
from zooft_segmentation.deploy import MASK, write_classes, write_overlays
from zooft_segmentation.discover import discover
from zooft_segmentation.masks import MOST_CLASSES, OUTSIDE

__all__ = [
    "AREAS",
    "BOTH",
    "CLASS_FILES",
    "FOUND",
    "MASK",
    "MOST_CLASSES",
    "OUTSIDE",
    "SHARES",
    "TRUE",
    "ClassSpec",
    "class_labels",
    "classes_from_json",
    "classes_to_json",
    "overlaps",
    "problem",
    "read_classes",
    "write_classes",
    "write_overlays",
    "zooft_register_heads",
    "zooft_register_tasks",
]


@zooft.hookimpl
def zooft_register_heads() -> list[zooft.Head]:
    """What gives a map of classes."""
    return heads.heads()


@zooft.hookimpl
def zooft_register_tasks() -> list[zooft.Task]:
    """Masks on images."""
    return [
        zooft.Task(
            name="segmentation",
            summary="a class for every pixel, from pictures and masks side by side or a table of pairs",
            problem=problem(),
            options=options.SegmentationOptions,
            discover=discover,
            read=tiles.read,
            digest=tiles.digest,
            port=zooft.image_port,
            preprocess=zooft.image_preprocess,
            input=views.network_input,
            geometry=zooft.image_geometry,
            augment=views.augment,
            head=options.head,
            reader=views.reader,
            intended_use="Marks the listed classes in images of the kind it was trained on. No other use was tested.",
            demo=demo.shapes,
        )
    ]


def problem() -> zooft.Problem:
    """Masks, as a kind of prediction."""
    return zooft.Problem(
        name="segmentation",
        training=training.training_part(),
        evaluation=areas.evaluation_part(),
        deployment=deploy.deployment_part(),
        presentation=presentation.presentation_part(),
    )
