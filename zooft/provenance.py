"""What features depend on besides tensors and pictures: code, versions, preprocessing, options.

Kept features are found again by this and by nothing else, so whatever could change them must stand here.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft import config as configuration
from zooft import run as runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zooft.model import Backbone
    from zooft.plan import Plan

_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow", "scipy")
_CORE = ("zooft.features", "zooft.prefix", "zooft.preprocess", "zooft.model", "zooft.samples")


def depends_on(plan: Plan, backbone: Backbone) -> dict[str, Any]:
    """What features depend on, as JSON has it."""
    spec = backbone.input
    task = plan.task
    own = [task.preprocess, task.augment, task.sketch, plan.family.anatomy]
    return {
        **reads_by(plan),
        "backbone": backbone.reference,
        "input": runs.to_json(spec),
        "preprocessing": task.explain(spec, plan.options),
        "code": code_sha256([task.read, *(function for function in own if function is not None)]),
    }


def reads_by(plan: Plan) -> dict[str, Any]:
    """What the arrays of a sample depend on besides its content."""
    return {
        "task": plan.registry.owned_name("task", plan.config.task),
        "options": configuration.plain(plan.options),
        "code": code_sha256([plan.task.read, *([plan.task.digest] if plan.task.digest else [])]),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


def code_sha256(functions: Iterable[Callable[..., Any]]) -> str:
    """SHA-256 over the source of the core's part and of the packages that `functions` come from.

    A version number would miss what a plugin's author changes between two runs.
    """
    roots = {function.__module__.partition(".")[0] for function in functions} - {"zooft"}
    files = {path for root in roots for path in _sources(root)}
    files |= {path for name in _CORE for path in _sources(name)}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources(module: str) -> list[Path]:
    """A module's file, or all of its package's."""
    import importlib.util

    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # a module that was put together in memory
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return []  # typed in by hand: it has no file, and nothing that a later process could mistake for it
    if spec.submodule_search_locations:
        return sorted(path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.py"))
    return [Path(spec.origin)]
