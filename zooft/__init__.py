"""zooft: turn a pretrained vision model into your own deployed one.

The public names; plugins import nothing else. Each is loaded when it is first used, so that ``import zooft``
stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from zooft.calibration import parse_point
    from zooft.config import option
    from zooft.contracts import (
        SPLIT_NAMES,
        UNLABELLED,
        Anatomy,
        Arrays,
        Computing,
        DeployedFile,
        Discovery,
        EpochRecord,
        Family,
        FreezePlan,
        Freezer,
        GroupResult,
        Head,
        InputSpec,
        LoadedWeights,
        OperatingPoint,
        Picture,
        Port,
        Rejection,
        Sample,
        Stage,
        Table,
        Task,
        Verification,
        WeightsSource,
        unseen,
    )
    from zooft.errors import ConfigError, DataError, ModelError, NoWeightsError, WeightsError, ZooftError
    from zooft.hidden import is_hidden
    from zooft.hookspecs import hookimpl
    from zooft.labels import check_labels, label_fault, spelling
    from zooft.metrics import classification_metrics, diagnostic_metrics
    from zooft.positive import nothing_first, order_classes
    from zooft.preprocess import ImagePreprocess, Resize
    from zooft.recipe import FinetuneResult, finetune
    from zooft.resampling import floor_divide
    from zooft.spill import spilled
    from zooft.tables import CsvTable, path_in_table, read_csv
    from zooft.tasks import cross_entropy, image_port, image_preprocess, image_reader

__all__ = [
    "SPLIT_NAMES",
    "UNLABELLED",
    "Anatomy",
    "Arrays",
    "Computing",
    "ConfigError",
    "CsvTable",
    "DataError",
    "DeployedFile",
    "Discovery",
    "EpochRecord",
    "Family",
    "FinetuneResult",
    "FreezePlan",
    "Freezer",
    "GroupResult",
    "Head",
    "ImagePreprocess",
    "InputSpec",
    "LoadedWeights",
    "ModelError",
    "NoWeightsError",
    "OperatingPoint",
    "Picture",
    "Port",
    "Rejection",
    "Resize",
    "Sample",
    "Stage",
    "Table",
    "Task",
    "Verification",
    "WeightsError",
    "WeightsSource",
    "ZooftError",
    "__version__",
    "check_labels",
    "classification_metrics",
    "cross_entropy",
    "diagnostic_metrics",
    "finetune",
    "floor_divide",
    "hookimpl",
    "image_port",
    "image_preprocess",
    "image_reader",
    "is_hidden",
    "label_fault",
    "nothing_first",
    "option",
    "order_classes",
    "parse_point",
    "path_in_table",
    "read_csv",
    "spelling",
    "spilled",
    "unseen",
]

_HOMES = {
    "zooft.calibration": ("parse_point",),
    "zooft.config": ("option",),
    "zooft.contracts": (
        "Anatomy", "Arrays", "Computing", "DeployedFile", "Discovery", "EpochRecord", "Family", "FreezePlan", "Freezer", "GroupResult",
        "Head", "InputSpec", "LoadedWeights", "OperatingPoint", "Picture", "Port", "Rejection", "Sample", "Stage", "Table",
        "SPLIT_NAMES", "Task", "UNLABELLED", "Verification", "WeightsSource", "unseen",
    ),
    "zooft.errors": ("ConfigError", "DataError", "ModelError", "NoWeightsError", "WeightsError", "ZooftError"),
    "zooft.hidden": ("is_hidden",),
    "zooft.hookspecs": ("hookimpl",),
    "zooft.labels": ("check_labels", "label_fault", "spelling"),
    "zooft.metrics": ("classification_metrics", "diagnostic_metrics"),
    "zooft.positive": ("nothing_first", "order_classes"),
    "zooft.preprocess": ("ImagePreprocess", "Resize"),
    "zooft.recipe": ("FinetuneResult", "finetune"),
    "zooft.resampling": ("floor_divide",),
    "zooft.spill": ("spilled",),
    "zooft.tables": ("CsvTable", "path_in_table", "read_csv"),
    "zooft.tasks": ("cross_entropy", "image_port", "image_preprocess", "image_reader"),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'zooft' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
