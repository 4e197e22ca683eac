"""How a mistake is weighed, and where the line between two classes is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import zooft
from zooft_ct.header import SliceHeader

if TYPE_CHECKING:
    from torch import nn

    from zooft_ct.options import CTOptions
    from zooft_ct.read import SliceRef

INTENDED_USE = (
    "Research use only, not for diagnosis. For CT of the kind it was trained on, {answers}; no other use was tested."
)
MOST_WEIGHT = 10.0
"""How much more than average a rare class may weigh: above it a handful of patients would rule the loss."""


def loss(targets: Sequence[int], options: Any) -> nn.Module:
    """Cross entropy; with ``balanced``, classes weigh n / (classes × their count), at most `MOST_WEIGHT`."""
    import torch
    from torch import nn

    if options.class_weights == "none":
        return nn.CrossEntropyLoss()
    counts = Counter(targets)
    weights = [min(MOST_WEIGHT, len(targets) / (len(counts) * counts[index])) for index in sorted(counts)]
    return nn.CrossEntropyLoss(weight=torch.tensor(weights))


def operating_point(options: Any) -> zooft.OperatingPoint:
    """The threshold's rule."""
    return zooft.parse_point(options.operating_point)


def head(options: CTOptions) -> str:
    """A bag head for volumes: mean pooling did as well as attention or better on most tasks of moderate size."""
    return "standard/mean" if options.mode == "volume" else "standard/linear"


def bag(options: CTOptions) -> bool:
    """Whether a sample is a bag of slices."""
    return options.mode == "volume"


def identify(result: zooft.GroupResult, _options: CTOptions) -> Mapping[str, str]:
    """The patient, study, series and slice that decided, as the files call them."""
    slices = result.decisive.source.slices
    one = slices[len(slices) // 2]
    if not isinstance(one, SliceHeader):
        return {"file": str(one.volume.path), **which(one)}
    return {
        "PatientID": one.patient_id,
        "StudyInstanceUID": one.study_uid,
        "SeriesInstanceUID": one.series_uid,
        "SOPInstanceUID": one.sop_uid,
        **which(one),
    }


def which(one: SliceRef) -> Mapping[str, str]:
    """Which slice of its file it is, from 1: a frame, or a slice from the feet; nothing of a file that has one."""
    if isinstance(one, SliceHeader):
        return {"frame": str(one.frame + 1)} if one.layout.frames > 1 else {}
    return {"slice": str(one.index + 1)} if one.volume.shape[0] > 1 else {}
