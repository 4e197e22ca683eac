"""Everything that a report is made from, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from zooft.contracts import Picture, Port, Rejection, Sample, Table, Verification
    from zooft.evaluation.judge import Predictions
    from zooft.evaluation.metrics import Evaluation
    from zooft.report.gradcam import Look
    from zooft.run.record import RunRecord

JUDGED_BY = ("test", "cross-validation", "val")
"""Which samples a model is judged by: the first of these that there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a run gives to its report. The report opens no data itself.

    Attributes:
        record: of the run.
        epochs: the lines of ``metrics.jsonl``.
        rejected: files that aren't used.
        audit: the findings of `zooft.audit`, where it was made.
        evaluations: by split; ``cross-validation`` among them where folds were made.
        predictions: by split, of the same samples.
        verification: of the ONNX file; None where none was written.
        stages: name, number of parameters, and how many of them learnt in the last epoch, shallow to deep.
        show: a sample as a picture for people, ``(H, W)`` or ``(H, W, 3)`` uint8.
        looked: for a sample and a class, what the network saw and where it looked; None where that can't be had.
        extra: the task's own pictures and tables.
        private: whether ids and paths may name people; samples are then called by their salted ids only.
        samples: all of them, by split; for counts, and for the thumbnails of what the audit found.
        ports: the ONNX file's inputs, for the lines that show how to use it.
        primary: the metric that chose the best epoch.
        intended_use: in the task's words.
        reader: source of a function that reads the inputs from files, for who deploys without zooft; may be empty.
    """

    record: RunRecord
    epochs: Sequence[Mapping[str, Any]]
    rejected: Sequence[Rejection]
    audit: Any | None
    evaluations: Mapping[str, Evaluation]
    predictions: Mapping[str, Predictions]
    verification: Verification | None
    stages: Sequence[tuple[str, int, int]]
    show: Callable[[Sample], NDArray[np.uint8]]
    looked: Callable[[Sample, int], Look | None] | None
    extra: Sequence[Picture | Table]
    private: bool
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    ports: Sequence[Port] = ()
    primary: str = ""
    intended_use: str = ""
    reader: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the outputs."""
        return self.record.classes

    @property
    def judged(self) -> str:
        """The split that the model is judged by."""
        return next((name for name in JUDGED_BY if name in self.evaluations), "")

    @property
    def task(self) -> str:
        """Its name, without its plugin's."""
        return self.record.task.rpartition("/")[2]

    @property
    def backbone(self) -> str:
        """``family:name``."""
        return self.record.backbone.reference
