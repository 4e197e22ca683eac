"""Tasks with images: in class folders, or listed in a table whose columns are the targets."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import zooft
from zooft_images import demo, discover, options, tasks, views


@zooft.hookimpl
def zooft_register_tasks() -> Iterator[zooft.Task]:
    """A task for each kind of answer; where a kind isn't installed, the others work."""
    for make in (_classification, _regression, _ordinal, _multilabel, _multitask):
        try:
            made = make()
        except ModuleNotFoundError as error:
            logging.getLogger("zooft").warning("the task images/%s is left out: %s", make.__name__[1:], error)
            continue
        yield made


def _classification() -> zooft.Task:
    return tasks.image_task(
        "classification",
        zooft.classification(loss=views.loss),
        summary="one class an image, from class folders or a CSV manifest",
        own=options.ClassificationOptions,
        discover=discover.discover,
        intended_use="Sorts images of the kind it was trained on into the listed classes. No other use was tested.",
        demo=demo.digits,
    )


def _regression() -> zooft.Task:
    return tasks.image_task(
        "regression",
        zooft.regression(),
        summary="one or several numbers an image, from columns of a CSV manifest",
        own=options.RegressionOptions,
        intended_use="Estimates the listed numbers from images of the kind it was trained on. No other use was tested.",
    )


def _ordinal() -> zooft.Task:
    return tasks.image_task(
        "ordinal",
        zooft.ordinal(),
        summary="one of several ordered grades an image, from a column of a CSV manifest",
        own=options.OrdinalOptions,
        intended_use="Grades images of the kind it was trained on. No other use was tested.",
    )


def _multilabel() -> zooft.Task:
    return tasks.image_task(
        "multilabel",
        zooft.multilabel(),
        summary="several labels an image, from columns of a CSV manifest or one that lists them",
        own=options.MultilabelOptions,
        input=views.whole_picture,
        head=options.logistic_head,
        intended_use="Finds the listed labels in images of the kind it was trained on. No other use was tested.",
    )


def _multitask() -> zooft.Task:
    kinds = {
        "classification": zooft.classification(),
        "regression": zooft.regression(),
        "ordinal": zooft.ordinal(),
        "multilabel": zooft.multilabel(),
    }
    return tasks.image_task(
        "multitask",
        zooft.combined(kinds),
        summary="several answers an image at once, from columns of a CSV manifest that a small TOML file types",
        own=options.MultitaskOptions,
        input=views.of_answers,
        intended_use=(
            "Answers the listed questions about images of the kind it was trained on. No other use was tested."
        ),
    )
