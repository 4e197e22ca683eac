"""The record that a run begins with: everything that was resolved, for whoever wants to know or to do it again."""

from __future__ import annotations

import contextlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from zooft import config as configuration
from zooft.data import samples as sample_tables
from zooft.run.record import BackboneRecord, DataRecord, RunRecord
from zooft.version import __version__

if TYPE_CHECKING:
    from zooft.contracts import Discovery, Problem
    from zooft.data.split import Splits
    from zooft.model.adapted import AdaptedModel
    from zooft.model.backbone import Backbone
    from zooft.pipeline.plan import Plan

_RECORDED_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "onnx",
    "onnxscript",
    "numpy",
    "pillow",
    "scikit-learn",
)
READERS = ("pydicom", "nibabel", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "python-gdcm")
"""Of extras, recorded where they are installed: they decide what is read."""


def begin_record(plan: Plan, backbone: Backbone, adapted: AdaptedModel, splits: Splits, found: Discovery) -> RunRecord:
    """Everything that is resolved before training."""
    return RunRecord(
        zooft=__version__,
        versions=_versions(),
        task=plan.registry.qualified_name("task", plan.config.task),
        head=plan.registry.qualified_name("head", plan.head),
        options=configuration.plain(plan.options),
        problem=plan.task.problem.name,
        labels=tuple(found.labels),
        backbone=BackboneRecord(
            family=plan.registry.qualified_name("family", plan.family_name),
            name=backbone.name,
            width=backbone.width,
            stages=tuple(backbone.stages),
            input=backbone.input,
            fixed=tuple(sorted(backbone.fixed)),
            taps=adapted.taps,
        ),
        weights=backbone.weights,
        data=_data(plan, splits, found),
        notes=(*found.notes, *splits.notes),
        config={**configuration.plain(plan.config), "weights": Path(plan.config.model.weights).name},
        distillation=None if plan.teacher is None else plan.teacher.describe(),
    )


def _data(plan: Plan, splits: Splits, found: Discovery) -> DataRecord:
    return DataRecord(
        fingerprint=sample_tables.fingerprint(found),
        rejected=len(found.rejected),
        group_rule=found.group_rule or next(iter(plan.task.problem.evaluation.rules), ""),
        group_name=found.group_name,
        counts=_counts(plan.task.problem, found, splits),
        groups=len({sample.group for sample in found.samples if sample.group is not None}),
        train=len(splits.train),
        val=len(splits.val),
        test=len(splits.test),
        path=None if plan.task.private else str(plan.config.data.resolve()),
    )


def _versions() -> dict[str, str]:
    found = {name: metadata.version(name) for name in _RECORDED_PACKAGES}
    for name in READERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _counts(problem: Problem, found: Discovery, splits: Splits) -> dict[str, dict[str, int]]:
    """Split to class, or what else a split spreads evenly, to number of samples."""
    named = splits.by_name()
    return {name: sample_tables.by_stratum(problem, own, found.labels) for name, own in named.items() if own}
