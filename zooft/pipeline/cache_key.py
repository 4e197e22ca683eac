"""What features depend on besides tensors and pictures: code, versions, preprocessing, options.

Cached features are found again by this and by nothing else, so whatever could change them must be in it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft import config as configuration
from zooft.hooks.guard import Guarded
from zooft.pipeline.record import READERS
from zooft.run import folder as runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zooft.model.backbone import Backbone
    from zooft.pipeline.plan import Plan
    from zooft.run.record import BackboneRecord

_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow", "scipy")
_CORE = (
    "zooft.features",
    "zooft.compute.kernels",
    "zooft.model.preprocess",
    "zooft.model.resampling",
    "zooft.model.adapted",
    "zooft.model.backbone",
    "zooft.model.skip_init",
    "zooft.model.building",
    "zooft.model.pruning",
    "zooft.model.stages",
    "zooft.model.taps",
    "zooft.model.geometry",
    "zooft.model.views",
    "zooft.compute.trees",
    "zooft.data.samples",
    "zooft.audit.thumbnails",
)


def feature_key(plan: Plan, backbone: Backbone | BackboneRecord) -> dict[str, Any]:
    """What features depend on, as JSON has it."""
    spec = backbone.input
    task = plan.task
    own = [task.preprocess, task.augment, task.decode_small, task.geometry, plan.family.anatomy]
    return {
        **reading_key(plan),
        "backbone": backbone.reference,
        "input": runs.to_json(spec),
        "preprocessing": task.explain(spec, plan.options),
        "code": code_sha256([task.read, *(function for function in own if function is not None)]),
    }


def reading_key(plan: Plan) -> dict[str, Any]:
    """What the arrays of a sample depend on besides its content."""
    return {
        "task": plan.registry.qualified_name("task", plan.config.task),
        "options": configuration.plain(plan.options),
        "code": code_sha256([plan.task.read, plan.task.show, *([plan.task.digest] if plan.task.digest else [])]),
        "libraries": _installed_versions((*_LIBRARIES, *READERS)),
    }


def code_sha256(functions: Iterable[Callable[..., Any]]) -> str:
    """SHA-256 over the source of the core's part and of the packages that `functions` come from.

    A version number would miss what a plugin's author changes between two runs. Code without a file, typed into an
    interpreter, counts as new in every process.
    """
    files = {path for name in _CORE for path in _sources(name)}
    digest = hashlib.sha256()
    for function in functions:
        found = _sources(_unwrap(function).__module__.partition(".")[0])
        files |= set(found)
        if not found:
            digest.update(os.urandom(16))
    for path in sorted(files):
        digest.update(f"{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _unwrap(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, (functools.partial, Guarded)):
        function = function.func if isinstance(function, functools.partial) else function.function
    return function


def _sources(name: str) -> list[Path]:
    """A module's file, or all of its package's, whether or not the package has a file of its own."""
    module = sys.modules.get(name) or importlib.import_module(name)
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    if folders:
        return sorted(path for folder in folders for path in folder.rglob("*.py"))
    file = getattr(module, "__file__", None)
    return [Path(file)] if file and Path(file).is_file() else []


def _installed_versions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
