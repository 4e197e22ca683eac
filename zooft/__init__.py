"""zooft: turn a pretrained vision model into your own deployed one.

The public names; plugins import nothing else. Each is loaded when it is first used, so that ``import zooft``
stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from zooft.config import option
    from zooft.contracts import (
        Anatomy,
        Discovery,
        EpochRecord,
        Family,
        FreezePlan,
        Freezer,
        Head,
        InputSpec,
        LoadedWeights,
        Port,
        Rejection,
        Sample,
        Stage,
        Task,
        Verification,
        WeightsSource,
    )
    from zooft.errors import ConfigError, DataError, ModelError, WeightsError, ZooftError
    from zooft.hookspecs import hookimpl
    from zooft.metrics import classification_metrics
    from zooft.preprocess import ImagePreprocess
    from zooft.recipe import FinetuneResult, finetune
    from zooft.tasks import cross_entropy, image_port, image_preprocess

__all__ = [
    "Anatomy",
    "ConfigError",
    "DataError",
    "Discovery",
    "EpochRecord",
    "Family",
    "FinetuneResult",
    "FreezePlan",
    "Freezer",
    "Head",
    "ImagePreprocess",
    "InputSpec",
    "LoadedWeights",
    "ModelError",
    "Port",
    "Rejection",
    "Sample",
    "Stage",
    "Task",
    "Verification",
    "WeightsError",
    "WeightsSource",
    "ZooftError",
    "__version__",
    "classification_metrics",
    "cross_entropy",
    "finetune",
    "hookimpl",
    "image_port",
    "image_preprocess",
    "option",
]

_HOMES = {
    "zooft.config": ("option",),
    "zooft.contracts": (
        "Anatomy", "Discovery", "EpochRecord", "Family", "FreezePlan", "Freezer", "Head", "InputSpec", "LoadedWeights",
        "Port", "Rejection", "Sample", "Stage", "Task", "Verification", "WeightsSource",
    ),
    "zooft.errors": ("ConfigError", "DataError", "ModelError", "WeightsError", "ZooftError"),
    "zooft.hookspecs": ("hookimpl",),
    "zooft.metrics": ("classification_metrics",),
    "zooft.preprocess": ("ImagePreprocess",),
    "zooft.recipe": ("FinetuneResult", "finetune"),
    "zooft.tasks": ("cross_entropy", "image_port", "image_preprocess"),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'zooft' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
