"""``run.json``: everything that was resolved, for whoever wants to know or to do it again."""

from __future__ import annotations

import contextlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft import config as configuration
from zooft.data import samples as sample_tables
from zooft.run import folder as runs

if TYPE_CHECKING:
    from zooft.contracts import Discovery
    from zooft.data.split import Splits
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


def record(plan: Plan, backbone: Backbone, splits: Splits, found: Discovery) -> dict[str, Any]:
    """``run.json``: everything resolved, but for the figures, which are added when they are known."""
    from zooft.version import __version__

    data: dict[str, Any] = {
        "fingerprint": sample_tables.fingerprint(found),
        "rejected": len(found.rejected),
        "group_score": found.group_score,
        "group_name": found.group_name,
        "classes": _counts(found, splits),
        "groups": len({sample.group for sample in found.samples if sample.group is not None}),
        **{name: len(getattr(splits, name)) for name in ("train", "val", "test")},
    }
    if not plan.task.private:
        data["path"] = str(plan.config.data.resolve())
    settings = {**configuration.plain(plan.config), "weights": Path(plan.config.weights).name}
    return {
        "schema": runs.SCHEMA,
        "zooft": __version__,
        "versions": _versions(),
        "task": plan.registry.owned_name("task", plan.config.task),
        "head": plan.registry.owned_name("head", plan.head),
        "options": configuration.plain(plan.options),
        "classes": list(found.classes),
        "positive": found.classes[1] if len(found.classes) == 2 else None,
        "backbone": {
            "family": plan.registry.owned_name("family", plan.family_name), "name": backbone.name, "width": backbone.width,
            "stages": list(backbone.stages), "input": runs.to_json(backbone.input), "fixed": sorted(backbone.fixed),
        },
        "weights": runs.to_json(backbone.weights),
        "data": data,
        "notes": [*found.notes, *splits.notes],
        "config": settings,
        "evaluation": {},
    }  # fmt: skip


def _versions() -> dict[str, str]:
    found = {name: metadata.version(name) for name in _RECORDED_PACKAGES}
    for name in READERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _counts(found: Discovery, splits: Splits) -> dict[str, dict[str, int]]:
    """Split to class to number of samples."""
    return {name: sample_tables.by_class(members, found.classes) for name, members in splits.named().items() if members}
