"""zooft: turn a pretrained vision model into your own deployed one.

The public names; plugins import nothing else. Each is loaded when it is first used, so that ``import zooft``
stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zooft.version import __version__

if TYPE_CHECKING:
    from zooft.config import option
    from zooft.contracts import (
        SPLIT_NAMES,
        Anatomy,
        Answer,
        Arrays,
        Back,
        Column,
        Computing,
        DeployedFile,
        DeploymentPart,
        Description,
        Discovery,
        EpochRecord,
        EvaluationPart,
        Family,
        Figure,
        FileAnswer,
        FreezePlan,
        Freezer,
        Geometry,
        GroupResult,
        Head,
        InputGeometry,
        InputSpec,
        Label,
        LoadedWeights,
        Loss,
        Output,
        ParameterInfo,
        Picture,
        Port,
        PresentationPart,
        Problem,
        Rejection,
        Row,
        RunEnded,
        RunEvaluated,
        RunStarted,
        Sample,
        Source,
        Stage,
        StageInfo,
        Strata,
        Table,
        Tap,
        Targets,
        Task,
        TrainingPart,
        Verification,
        View,
        WeightsSource,
        class_labels,
        join_options,
        unseen,
    )
    from zooft.data.group_columns import likely_groups
    from zooft.data.hidden import is_hidden
    from zooft.data.labels import check_labels, label_fault, spelling
    from zooft.data.positive import nothing_first, nothing_of, order_classes
    from zooft.data.sources import source_of
    from zooft.data.tables import CsvTable, path_in_table, read_csv
    from zooft.errors import ConfigError, DataError, ModelError, NoWeightsError, WeightsError, ZooftError
    from zooft.evaluation.predictions import Predictions
    from zooft.hooks.specs import hookimpl
    from zooft.model.image_parts import image_geometry, image_port, image_preprocess, image_reader
    from zooft.model.preprocess import ImagePreprocess, Resize
    from zooft.model.resampling import floor_divide
    from zooft.pipeline.finetune import FinetuneResult, finetune
    from zooft.problems.classification import (
        OperatingPoint,
        class_of_group,
        classification,
        classification_metrics,
        cross_entropy,
        diagnostic_metrics,
        parse_point,
    )
    from zooft.problems.combined import CombinedOptions, combined
    from zooft.problems.multilabel import MultilabelOptions, multilabel
    from zooft.problems.ordinal import OrdinalOptions, ordinal
    from zooft.problems.regression import RegressionOptions, regression
    from zooft.storage.sequences import spilled

__all__ = [
    "SPLIT_NAMES",
    "Anatomy",
    "Answer",
    "Arrays",
    "Back",
    "Column",
    "CombinedOptions",
    "Computing",
    "ConfigError",
    "CsvTable",
    "DataError",
    "DeployedFile",
    "DeploymentPart",
    "Description",
    "Discovery",
    "EpochRecord",
    "EvaluationPart",
    "Family",
    "Figure",
    "FileAnswer",
    "FinetuneResult",
    "FreezePlan",
    "Freezer",
    "Geometry",
    "GroupResult",
    "Head",
    "ImagePreprocess",
    "InputGeometry",
    "InputSpec",
    "Label",
    "LoadedWeights",
    "Loss",
    "ModelError",
    "MultilabelOptions",
    "NoWeightsError",
    "OperatingPoint",
    "OrdinalOptions",
    "Output",
    "ParameterInfo",
    "Picture",
    "Port",
    "Predictions",
    "PresentationPart",
    "Problem",
    "RegressionOptions",
    "Rejection",
    "Resize",
    "Row",
    "RunEnded",
    "RunEvaluated",
    "RunStarted",
    "Sample",
    "Source",
    "Stage",
    "StageInfo",
    "Strata",
    "Table",
    "Tap",
    "Targets",
    "Task",
    "TrainingPart",
    "Verification",
    "View",
    "WeightsError",
    "WeightsSource",
    "ZooftError",
    "__version__",
    "check_labels",
    "class_labels",
    "class_of_group",
    "classification",
    "classification_metrics",
    "combined",
    "cross_entropy",
    "diagnostic_metrics",
    "finetune",
    "floor_divide",
    "hookimpl",
    "image_geometry",
    "image_port",
    "image_preprocess",
    "image_reader",
    "is_hidden",
    "join_options",
    "label_fault",
    "likely_groups",
    "multilabel",
    "nothing_first",
    "nothing_of",
    "option",
    "order_classes",
    "ordinal",
    "parse_point",
    "path_in_table",
    "read_csv",
    "regression",
    "source_of",
    "spelling",
    "spilled",
    "unseen",
]

_HOMES = {
    "zooft.config": ("option",),
    "zooft.contracts": (
        "Anatomy", "Answer", "Arrays", "Back", "Column", "Computing", "DeployedFile", "DeploymentPart", "Description", "Discovery", "EpochRecord", "EvaluationPart", "Family",
        "Figure", "FileAnswer", "FreezePlan", "Freezer", "Geometry", "GroupResult", "Head", "InputGeometry", "InputSpec", "Label", "LoadedWeights", "Loss", "Output", "ParameterInfo",
        "Picture", "Port", "PresentationPart", "Problem", "Rejection", "Row", "RunEnded", "RunEvaluated", "RunStarted", "SPLIT_NAMES",
        "Sample", "Source", "Stage", "StageInfo", "Strata", "Table", "Tap", "Targets", "Task", "TrainingPart", "Verification", "View", "WeightsSource",
        "class_labels", "join_options", "unseen",
    ),
    "zooft.errors": ("ConfigError", "DataError", "ModelError", "NoWeightsError", "WeightsError", "ZooftError"),
    "zooft.data.group_columns": ("likely_groups",),
    "zooft.data.hidden": ("is_hidden",),
    "zooft.hooks.specs": ("hookimpl",),
    "zooft.data.labels": ("check_labels", "label_fault", "spelling"),
    "zooft.data.positive": ("nothing_first", "nothing_of", "order_classes"),
    "zooft.data.sources": ("source_of",),
    "zooft.model.preprocess": ("ImagePreprocess", "Resize"),
    "zooft.pipeline.finetune": ("FinetuneResult", "finetune"),
    "zooft.model.resampling": ("floor_divide",),
    "zooft.storage.sequences": ("spilled",),
    "zooft.data.tables": ("CsvTable", "path_in_table", "read_csv"),
    "zooft.problems.classification": (
        "OperatingPoint", "class_of_group", "classification", "classification_metrics", "cross_entropy", "diagnostic_metrics", "parse_point",
    ),
    "zooft.problems.multilabel": ("MultilabelOptions", "multilabel"),
    "zooft.problems.ordinal": ("OrdinalOptions", "ordinal"),
    "zooft.problems.regression": ("RegressionOptions", "regression"),
    "zooft.evaluation.predictions": ("Predictions",),
    "zooft.problems.combined": ("CombinedOptions", "combined"),
    "zooft.model.image_parts": ("image_geometry", "image_port", "image_preprocess", "image_reader"),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'zooft' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
