"""How boxes are learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_detection import settings
from zooft_detection.target import Boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    Labels = tuple[zooft.Label, ...]
    Encoded = Mapping[str, NDArray[Any]]

_SEEN = 0.3
"""Share of a box that a view must show; an object of which it shows less is left out of the loss."""


def training_part() -> zooft.TrainingPart:
    """What is learnt."""
    return zooft.TrainingPart(
        outputs=_outputs,
        gives="places",
        loss=_loss,
        check=_check,
        prepare=_prepare,
        encode=_encode,
        move=_move,
        collate=collate,
        strata=_strata,
        unlearnable=_unlearnable,
        unknown=_unknown,
        relabel=_relabel,
    )


def _outputs(labels: Labels, _options: Any) -> Mapping[str, int]:
    """As `pyramid` names them."""
    return {"classes": len(labels), "centreness": 1, "distances": 4, "squares": 4}


def _check(target: Any, labels: Labels) -> str:
    if not isinstance(target, Boxes):
        return "boxes"
    if any(not 0 <= number < len(labels) for number in target.classes):
        return f"boxes of {len(labels)} classes"
    return ""


def _prepare(labels: Labels, _targets: Sequence[Boxes], options: Any) -> Labels:
    return settings.record(labels, options)


def _encode(target: Boxes, _labels: Labels) -> Encoded:
    corners, classes, ignored = target.arrays()
    return {"boxes": corners, "labels": classes, "ignored": ignored}


def _move(encoded: Encoded, geometry: zooft.Geometry) -> Encoded:
    """Boxes of which a view shows nothing are dropped; those of which it shows little are ignored."""
    boxes = geometry.boxes(encoded["boxes"])
    scale = abs(np.linalg.det(geometry.matrix[:, :2]))
    before = (encoded["boxes"][:, 2:] - encoded["boxes"][:, :2]).prod(1) * scale
    seen = (boxes[:, 2:] - boxes[:, :2]).prod(1) / np.maximum(before, 1e-12)
    there = seen > 0
    return {
        "boxes": boxes[there],
        "labels": encoded["labels"][there],
        "ignored": (encoded["ignored"] | (seen < _SEEN))[there],
    }


def collate(items: list[Encoded]) -> dict[str, Tensor]:
    """As many boxes for each picture as the one with the most has: ``boxes`` ``(N, M, 4)`` float32, others -1."""
    import torch

    most = max([1, *(len(item["labels"]) for item in items)])
    made = {
        "boxes": torch.zeros(len(items), most, 4),
        "labels": torch.full((len(items), most), -1),
        "ignored": torch.zeros(len(items), most, dtype=torch.bool),
    }
    for row, item in enumerate(items):
        for name, tensor in made.items():
            tensor[row, : len(item["labels"])] = torch.from_numpy(np.ascontiguousarray(item[name])).to(tensor.dtype)
    return made


def _loss(_labels: Labels, _targets: Sequence[Boxes], _options: Any) -> nn.Module:
    from zooft_detection.losses import BoxLoss

    return BoxLoss()


def _strata(targets: Sequence[Boxes], labels: Labels) -> zooft.Strata:
    """By the rarest class that a picture has, and apart those without any object."""
    frequency = Counter(number for target in targets for number in set(target.classes))
    numbers = [
        min(target.classes, key=lambda number: (frequency[number], number), default=len(labels)) for target in targets
    ]
    return zooft.Strata(numbers, (*(label.name for label in labels), "nothing"), needed=False)


def _unlearnable(targets: Sequence[Boxes], _labels: Labels) -> str:
    if not any(not ignored for target in targets for ignored in target.ignored):
        return "the training samples show no object at all"
    return ""


def _unknown(found: Labels, known: Labels) -> str:
    """Classes of data that a model doesn't have."""
    names = {label.name for label in known}
    others = [label.name for label in found if label.name not in names]
    if not others:
        return ""
    return (
        f"the data has the classes {', '.join(others[:4])}{' …' if others[4:] else ''}, which the model doesn't know; "
        f"it knows {', '.join(label.name for label in known)}"
    )


def _relabel(target: Boxes, found: Labels, known: Labels) -> Boxes:
    numbers = {label.name: number for number, label in enumerate(known)}
    own = [numbers[label.name] for label in found]
    return target if own == list(range(len(own))) else target.renumber(own)
