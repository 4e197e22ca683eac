"""How labels are trained: a logit each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import Strata, TrainingPart
from zooft.problems.multilabel import cells
from zooft.problems.multilabel.head import HEAD

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from zooft.contracts import Labels

HEAVIEST = 10.0
"""Of a rarer label, single pictures would drive the training."""


def training_part() -> TrainingPart:
    """How labels are trained."""
    return TrainingPart(
        outputs=_outputs,
        loss=_loss,
        read=cells.read,
        check=_check,
        encode=_encode,
        placeholder=_placeholder,
        strata=_strata,
        unlearnable=_unlearnable,
        unknown=_unknown,
        relabel=_relabel,
        distill=_distill,
    )


def targets_column(targets: Sequence[Any], labels: Labels) -> NDArray[np.float32]:
    """``(N, L)``: 1, 0, or NaN where it isn't known."""
    nothing = (None,) * len(labels)
    rows = [
        [math.nan if answer is None else float(answer) for answer in (nothing if target is None else target)]
        for target in targets
    ]
    return np.array(rows, np.float32).reshape(len(targets), len(labels))


def positive_weights(targets: Sequence[Any], labels: Labels) -> list[float]:
    """How many samples are without each label for one that has it, between a tenth and `HEAVIEST`."""
    table = targets_column(targets, labels)
    present, absent = (table == 1).sum(0), (table == 0).sum(0)
    return [
        float(np.clip(no / yes, 1 / HEAVIEST, HEAVIEST)) if yes and no else 1.0
        for yes, no in zip(present, absent, strict=True)
    ]


def _outputs(labels: Labels, _options: Any) -> Mapping[str, int]:
    return {HEAD: len(labels)}


def _loss(labels: Labels, targets: Sequence[Any], options: Any) -> nn.Module:
    from zooft.problems.multilabel.losses import AsymmetricLoss, WeightedLoss

    if options.multilabel_loss == "asymmetric":
        return AsymmetricLoss()
    return WeightedLoss(positive_weights(targets, labels) if options.multilabel_loss == "weighted-bce" else None)


def _distill(_labels: Labels, _theirs: Labels, _options: Any, temperature: float) -> nn.Module:
    from zooft.problems.multilabel.losses import SoftenedLabels

    return SoftenedLabels(temperature)


def _check(target: Any, labels: Labels) -> str:
    fits = isinstance(target, tuple) and len(target) == len(labels)
    known = [answer for answer in target if answer is not None] if fits else []
    if known and all(isinstance(answer, bool) for answer in known):
        return ""
    return (
        f"a tuple of {len(labels)} bools ({', '.join(label.name for label in labels)}), None for a label that isn't "
        "known, not for all"
    )


def _encode(target: Any, labels: Labels) -> NDArray[np.float32]:
    row: NDArray[np.float32] = targets_column([target], labels)[0]
    return row


def _placeholder(labels: Labels) -> tuple[bool, ...]:
    return (False,) * len(labels)


def _strata(targets: Sequence[Any], labels: Labels) -> Strata:
    """By the rarest label that a sample has, since the others come along in number anyway."""
    present = targets_column(targets, labels) == 1
    often = np.where(present, present.sum(0), len(targets) + 1)
    numbers = np.where(present.any(1), often.argmin(1), len(labels))
    return Strata(numbers.tolist(), (*(label.name for label in labels), "no label"), needed=False)


def _unlearnable(targets: Sequence[Any], labels: Labels) -> str:
    table = targets_column(targets, labels)
    if ((table == 1).any(0) & (table == 0).any(0)).any():
        return ""
    names = ", ".join(label.name for label in labels)
    return f"no label ({names}) is there in some samples and not in others, so nothing can be learnt"


def _unknown(found: Labels, known: Labels) -> str:
    theirs = {label.name for label in known}
    foreign = [label.name for label in found if label.name not in theirs]
    if not foreign:
        return ""
    return (
        f"the data has labels that the model doesn't know: {', '.join(foreign)}; it knows "
        f"{', '.join(label.name for label in known)}"
    )


def _relabel(target: Any, found: Labels, known: Labels) -> Any:
    """A label that the data doesn't have isn't known; where it has lists, none of them names it."""
    answers = dict(zip((label.name for label in found), target, strict=True))
    other = False if any(cells.LISTED in label.constants for label in found) else None
    return tuple(answers.get(label.name, other) for label in known)
