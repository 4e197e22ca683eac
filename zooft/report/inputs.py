"""Everything that a report is made from, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from zooft.contracts import Description

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from zooft.audit import Audit
    from zooft.contracts import (
        Answer,
        Columns,
        Fitted,
        Labels,
        Picture,
        Port,
        Problem,
        Rejection,
        Sample,
        Table,
        Verification,
    )
    from zooft.evaluation.evaluate import Evaluated, Evaluation
    from zooft.report.gradcam import GradCam
    from zooft.run.record import RunRecord

EVALUATED_ON = ("test", "cross-validation", "val")
"""The split whose figures are at the top: the first of these that the run has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInputs:
    """What a run passes to its report. The report opens no data itself.

    Attributes:
        record: of the run.
        problem: the kind of prediction.
        epochs: the lines of ``metrics.jsonl``.
        rejected: files that weren't used.
        audit: the findings of `zooft.audit`, where it was made.
        evaluated: predictions and figures by split; ``cross-validation`` among them where folds were made.
        verification: of the ONNX file; None where none was written.
        stages: name, number of parameters, and how many of them were trained in the last epoch, shallow to deep.
        show: a sample as a picture for people, ``(H, W)`` or ``(H, W, 3)`` uint8.
        gradcam: for a sample and its row of columns, the Grad-CAM of its prediction; None where there is none, and in
            place of the function where it can't be had of any. Of several answers at once, ``answer=`` names the one
            whose it is to be.
        answer: a sample to the outputs of the deployed graph for it, by name and without the batch axis, for problems
            that draw them.
        extra: the task's own pictures and tables.
        private: whether ids and paths may name people; samples are then called by their salted ids only.
        samples: all of them, by split; for counts, and for the thumbnails of the audit's findings.
        ports: the ONNX file's inputs, for the lines that show how to use it.
        intended_use: in the task's words.
        reader: source of a function that reads the inputs from files, for deployment without zooft; may be empty.
    """

    record: RunRecord
    problem: Problem
    epochs: Sequence[Mapping[str, Any]]
    rejected: Sequence[Rejection]
    audit: Audit | None
    evaluated: Mapping[str, Evaluated]
    verification: Verification | None
    stages: Sequence[tuple[str, int, int]]
    show: Callable[[Sample], NDArray[np.uint8]]
    gradcam: Callable[..., GradCam | None] | None
    extra: Sequence[Picture | Table]
    private: bool
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    ports: Sequence[Port] = ()
    intended_use: str = ""
    reader: str = ""
    answer: Callable[[Sample], Columns] | None = None

    @property
    def labels(self) -> Labels:
        """What the targets mean."""
        return self.record.labels

    @property
    def fitted(self) -> Fitted:
        """What was fitted on validation data."""
        return self.record.fitted

    @property
    def description(self) -> Description:
        """The problem in words."""
        return self.problem.presentation.describe(self.labels, self.fitted, self.record.options)

    @property
    def answers(self) -> Sequence[Answer]:
        """Each of several answers at once; nothing where there is one alone."""
        return self.problem.presentation.answers(self.labels)

    def of(self, answer: Answer) -> ReportInputs:
        """The same of one of several answers alone, without the splits where it is known of no sample."""
        own = {name: answer.evaluated(part) for name, part in self.evaluated.items()}
        return replace(
            self,
            problem=answer.problem,
            record=replace(self.record, labels=answer.labels, fitted=answer.fitted(self.fitted)),
            evaluated={name: part for name, part in own.items() if part is not None},
            gradcam=self.gradcam and partial(self.gradcam, answer=answer),
        )

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories of a single label; empty where there are several labels, or one without categories."""
        return self.labels[0].categories if len(self.labels) == 1 else ()

    @property
    def primary(self) -> str:
        """The metric that chose the best epoch."""
        return self.problem.evaluation.primary

    @property
    def main_split(self) -> str:
        """The split whose figures are at the top; "" where nothing was evaluated."""
        return next((name for name in EVALUATED_ON if name in self.evaluated), "")

    @property
    def main(self) -> Evaluated | None:
        """Predictions and figures of `main_split`."""
        return self.evaluated.get(self.main_split)

    @property
    def evaluations(self) -> Mapping[str, Evaluation]:
        """Figures by split."""
        return {name: part.evaluation for name, part in self.evaluated.items()}

    def text(self, target: Any) -> str:
        """A target in words."""
        return "unlabelled" if target is None else self.problem.presentation.target(target, self.labels)

    @property
    def task(self) -> str:
        """Its name, without its plugin's."""
        return self.record.task.rpartition("/")[2]

    @property
    def head(self) -> str:
        """Its name, without its plugin's."""
        return self.record.head.rpartition("/")[2]

    @property
    def backbone(self) -> str:
        """``family:name``, and how much of it was pruned."""
        return self.record.backbone_in_words

    @property
    def software(self) -> str:
        """Versions in one sentence, without a full stop."""
        versions = (f"{name} {version}" for name, version in self.record.versions.items())
        return ", ".join((f"zooft {self.record.zooft}", *versions))
