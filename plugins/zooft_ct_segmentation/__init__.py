"""Segmentation of CT: label volumes on DICOM series and NIfTI, put together from `zooft_ct` and `zooft_segmentation`.

Uses their public names alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import zooft
from zooft_ct import ct_task, demo_with_masks, discover_volumes
from zooft_ct_segmentation import dice, presentation, writers
from zooft_ct_segmentation.options import CTSegmentationOptions
from zooft_ct_segmentation.targets import VALUE, meaning, nameless
from zooft_segmentation import problem as segmentation
from zooft_segmentation import write_overlays

_MODES = ("slice", "2.5d", "windows")


@zooft.hookimpl
def zooft_register_tasks() -> list[zooft.Task]:
    """Masks on CT."""
    return [
        ct_task(
            "ct-segmentation",
            problem(),
            summary="a structure for every voxel of CT, from DICOM or NIfTI and label volumes",
            own=CTSegmentationOptions,
            answers="whose voxels are marked with the listed structures",
            discover=_Discover(),
            input=network_input,
            head=_head,
            bag=_no_bag,
            demo=demo_with_masks,
        )
    ]


def problem() -> zooft.Problem:
    """Masks of CT, as a kind of prediction: segmentation's, with figures of patients and volumes."""
    own = segmentation()
    return replace(
        own,
        name="ct-segmentation",
        training=replace(own.training, check_options=partial(_check, own), unknown=_unknown, relabel=_relabel),
        evaluation=dice.evaluation_part(),
        deployment=replace(
            own.deployment,
            writers={
                "nifti": writers.write_volumes,
                "dicom-seg": writers.write_segmentations,
                "overlays": write_overlays,
            },
        ),
        presentation=presentation.presentation_part(),
    )


class _Discover:
    """`discover_volumes` with the parameters that the core passes."""

    def __call__(
        self, root: Any, options: Any, computing: zooft.Computing = zooft.unseen, *, learning: bool = True
    ) -> zooft.Discovery:
        """Samples and what can't be used."""
        return discover_volumes(meaning, root, options, computing, learning=learning)


def network_input(spec: zooft.InputSpec, options: Any) -> zooft.InputSpec:
    """Of the size of `options`; the whole field of view is stretched to it."""
    rows, columns = options.size * 2 if len(options.size) == 1 else options.size or (spec.height, spec.width)
    return replace(spec, height=rows, width=columns, mode="stretch")


def _head(_options: Any) -> str:
    return "segmentation/fpn"


def _no_bag(_options: Any) -> bool:
    return False


def _check(own: zooft.Problem, options: Any) -> None:
    if options.mode not in _MODES:
        raise zooft.ConfigError(f"--mode {options.mode}: masks are of slices; give one of {', '.join(_MODES)}")
    if options.spacing:
        raise zooft.ConfigError("--spacing has no way back to the slices' own pixels yet; leave it out for masks")
    own.training.check_options(options)


def _unknown(found: Sequence[zooft.Label], known: Sequence[zooft.Label]) -> str:
    """Structures that a model doesn't know, by name; by value where the data has no names."""
    there = _keys(known, by_value=nameless(found))
    others = [
        label.name for label, key in zip(found, _keys(found, by_value=nameless(found)), strict=True) if key not in there
    ]
    if not others:
        return ""
    return (
        f"the data has the structures {', '.join(others[:4])}{' …' if others[4:] else ''}, which the model doesn't "
        f"know; it knows {', '.join(label.name for label in known)}"
    )


def _relabel(target: Any, found: Sequence[zooft.Label], known: Sequence[zooft.Label]) -> Any:
    by_value = nameless(found)
    there: Mapping[Any, int] = {key: number for number, key in enumerate(_keys(known, by_value=by_value))}
    own = [there[key] for key in _keys(found, by_value=by_value)]
    return target if own == list(range(len(known))) else target.renumber(own, len(known))


def _keys(labels: Sequence[zooft.Label], *, by_value: bool) -> list[Any]:
    """What identifies each class; the background is number 0 in any case."""
    if by_value:
        return [label.constants.get(VALUE, float(number)) for number, label in enumerate(labels)]
    return [zooft.spelling(label.name) if number else "" for number, label in enumerate(labels)]
