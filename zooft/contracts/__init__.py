"""The words that the core and its plugins share, as types.

Frozen dataclasses of plain values and callables: a plugin fills one in, nobody inherits. Nothing here
imports torch or numpy; annotations name their types only.
"""

from zooft.contracts.data import (
    SPLIT_NAMES,
    UNLABELLED,
    Arrays,
    Discovery,
    GroupScore,
    Port,
    Rejection,
    Sample,
    SplitName,
)
from zooft.contracts.events import Figure, RunEnded, RunEvaluated, RunStarted
from zooft.contracts.parts import FreezePlan, Freezer, Head, ParameterInfo, Scale, StageInfo
from zooft.contracts.progress import Advance, Computing, unseen
from zooft.contracts.results import (
    Calibration,
    DeployedFile,
    EpochRecord,
    GroupResult,
    LabelVerification,
    LevelDifference,
    Picture,
    Table,
    Verification,
)
from zooft.contracts.source import Column, Row, Source
from zooft.contracts.task import API_VERSION, Activation, NoOptions, OperatingPoint, Task
from zooft.contracts.zoo import (
    Anatomy,
    Family,
    InputSpec,
    Interpolation,
    LoadedWeights,
    ResizeMode,
    Stage,
    WeightsRecord,
    WeightsSource,
    parse_reference,
)

__all__ = [
    "API_VERSION",
    "SPLIT_NAMES",
    "UNLABELLED",
    "Activation",
    "Advance",
    "Anatomy",
    "Arrays",
    "Calibration",
    "Column",
    "Computing",
    "DeployedFile",
    "Discovery",
    "EpochRecord",
    "Family",
    "Figure",
    "FreezePlan",
    "Freezer",
    "GroupResult",
    "GroupScore",
    "Head",
    "InputSpec",
    "Interpolation",
    "LabelVerification",
    "LevelDifference",
    "LoadedWeights",
    "NoOptions",
    "OperatingPoint",
    "ParameterInfo",
    "Picture",
    "Port",
    "Rejection",
    "ResizeMode",
    "Row",
    "RunEnded",
    "RunEvaluated",
    "RunStarted",
    "Sample",
    "Scale",
    "Source",
    "SplitName",
    "Stage",
    "StageInfo",
    "Table",
    "Task",
    "Verification",
    "WeightsRecord",
    "WeightsSource",
    "parse_reference",
    "unseen",
]
