"""Leaks and shortcuts in a data set: what makes a model's figures better than the model.

Reads every sample once, before training. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zooft.audit import composition, duplicates, shortcuts, thumbnails
from zooft.audit.findings import Audit, FactRow, Finding, by_severity, pairs_to_show
from zooft.audit.targets import targets_of
from zooft.contracts import unseen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Arrays, Computing, Labels, Problem, Sample

_WARNING = "warning: "
"""The beginning of such notes."""

__all__ = ["Audit", "FactRow", "Finding", "audit", "pairs_to_show"]


def audit(
    samples: Sequence[Sample],
    problem: Problem,
    labels: Labels,
    read: Callable[[Sample], Arrays],
    *,
    show: Callable[[Arrays], NDArray[Any]],
    computing: Computing = unseen,
    seed: int = 0,
    splits: Sequence[str | None] | None = None,
    cache: thumbnails.ThumbnailCache | None = None,
    notes: Sequence[str] = (),
) -> Audit:
    """Look for leaks and shortcuts.

    Args:
        samples: labelled ones.
        problem: for the kind of targets.
        labels: what the targets mean.
        read: a sample's arrays; called in threads.
        show: arrays to a picture, ``(H, W)`` or ``(H, W, 3)`` uint8; called in threads.
        computing: for progress.
        seed: of folds and resamples.
        splits: of every sample, where one was made; None for the data's own.
        cache: of thumbnails.
        notes: the task's about the data; warnings among them become findings.
    """
    if splits is None:
        splits = [sample.split for sample in samples]
    seen = thumbnails.make(samples, read, show, computing("reading the samples", len(samples)), cache)
    targets = targets_of(samples, problem, labels)
    facts, found = shortcuts.find(samples, targets, seed=seed, computing=computing)
    return Audit(
        findings=by_severity(
            (
                *duplicates.find(
                    seen, targets.numbers[seen.rows], [splits[row] for row in seen.rows.tolist()], computing
                ),
                *composition.find(samples, targets, splits),
                *found,
                *thumbnails.unreadable(seen),
                *(
                    Finding(kind="told_by_task", severity="warning", text=text.removeprefix(_WARNING))
                    for text in notes
                    if text.startswith(_WARNING)
                ),
            )
        ),
        facts=facts,
        samples=len(seen.samples),
        notes=(*thumbnails.notes(seen), *shortcuts.notes(facts, targets, len(samples))),
    )
