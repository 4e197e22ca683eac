"""What people should know of a model: its metadata, as far as it holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from zooft.serve import search
from zooft.serve.occlusion import GRID

if TYPE_CHECKING:
    from zooft.serve.repository import Served


def card(served: Served) -> dict[str, Any]:
    """One model's, as JSON has it; no path, host or person."""
    about, problem = served.model.metadata, served.task.problem
    whole = asdict(about)
    names = (
        "task", "problem", "labels", "ports", "outputs", "fitted", "group_rule", "preprocessing", "backbone", "weights",
        "weights_sha256", "data", "metrics", "intended_use",
    )  # fmt: skip # a table of fields
    return {
        "name": served.name,
        "version": str(served.version),
        "zooft": about.version,
        "provider": served.model.provider,
        "description": problem.presentation.describe(about.labels, about.fitted, about.options).purpose,
        "series": served.task.gather is not None,
        "unverified": list(served.doubts),
        "grid": GRID,
        **search.describe(served.model, served.index),
        **{name: whole[name] for name in names},
    }
