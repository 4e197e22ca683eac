"""Records of runs that nothing was trained for."""

from __future__ import annotations

from typing import Any

from zooft.contracts import InputSpec, WeightsRecord, class_labels
from zooft.run.record import BackboneRecord, DataRecord, RunRecord

SPEC = InputSpec(height=32, width=32, resize=36, mean=(0.5,), std=(0.5,))


def data_record(**changes: Any) -> DataRecord:
    """Of 60 training and 40 validation samples."""
    facts: dict[str, Any] = {
        "fingerprint": "f" * 64,
        "rejected": 0,
        "group_rule": "mean",
        "group_name": "group",
        "groups": 0,
        "counts": {"train": {"no": 30, "yes": 30}, "val": {"no": 20, "yes": 20}},
        "train": 60,
        "val": 40,
        "test": 0,
    }
    return DataRecord(**{**facts, **changes})


def run_record(**changes: Any) -> RunRecord:
    """As at a run's beginning, but for `changes`."""
    facts: dict[str, Any] = {
        "zooft": "0.1.0",
        "versions": {"torch": "2.14"},
        "task": "images/classification",
        "head": "standard/linear",
        "options": {"augment": "none"},
        "problem": "classification",
        "labels": class_labels(("no", "yes")),
        "backbone": BackboneRecord(
            family="timm/timm", name="resnet18", width=8, stages=("stem", "layer1", "pool"), input=SPEC
        ),
        "weights": WeightsRecord(kind="zoo", source="the zoo", licence=None, file_sha256=None, tensors_sha256="0" * 64),
        "data": data_record(),
        "notes": (),
        "config": {"lr": 0.005, "epochs": 2},
    }
    return RunRecord(**{**facts, **changes})
