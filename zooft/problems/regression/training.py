"""How numbers are trained: each in standard deviations from its mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import Strata, TrainingPart
from zooft.problems.regression import cells
from zooft.problems.regression.scaling import HEAD, QUARTILES, numbers_of, prepare, scale_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from zooft.contracts import Labels


def training_part() -> TrainingPart:
    """How numbers are trained."""
    return TrainingPart(
        outputs=_outputs,
        loss=_loss,
        read=cells.read,
        check=_check,
        prepare=prepare,
        encode=_encode,
        placeholder=_placeholder,
        strata=_strata,
        unlearnable=_unlearnable,
        unknown=_unknown,
        relabel=_relabel,
        distill=_distill,
    )


def name_with_unit(label_name: str, unit: str) -> str:
    """A number's name with its unit, as in a header: ``diameter [mm]``."""
    return f"{label_name} [{unit}]" if unit else label_name


def _outputs(labels: Labels, _options: Any) -> Mapping[str, int]:
    return {HEAD: len(labels)}


def _loss(_labels: Labels, _targets: Sequence[Any], options: Any) -> nn.Module:
    from zooft.problems.regression.losses import NumbersLoss

    return NumbersLoss(squared=options.loss == "mse")


def _distill(labels: Labels, theirs: Labels, _options: Any, _temperature: float) -> nn.Module:
    from zooft.problems.regression.losses import TaughtNumbers

    return TaughtNumbers(scale_of(theirs), scale_of(labels))


def _check(target: Any, labels: Labels) -> str:
    fits = isinstance(target, tuple) and len(target) == len(labels)
    known = [number for number in target if number is not None] if fits else []
    if known and all(_is_number(number) for number in known):
        return ""
    names = ", ".join(name_with_unit(label.name, label.unit) for label in labels)
    return (
        f"a tuple of {len(labels)} finite float{'s' if len(labels) > 1 else ''} ({names}), None for one that isn't "
        "known"
    )


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float, np.integer, np.floating))
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def _encode(target: Any, labels: Labels) -> NDArray[np.float32]:
    """``(L,)``, standardised in float64, since float32 would lose what differs among large numbers.

    NaN for unknown ones.
    """
    return scale_of(labels).standardise(numbers_of([target], labels)[0]).astype(np.float32)


def _placeholder(labels: Labels) -> tuple[float, ...]:
    return (0.0,) * len(labels)


def _strata(targets: Sequence[Any], labels: Labels) -> Strata:
    """Quarters of the first number: those of the training targets where the labels have them, else of these."""
    column, label = numbers_of(targets, labels)[:, 0], labels[0]
    known = ~np.isnan(column)
    cuts = [label.constants[name] for name in QUARTILES if name in label.constants]
    if not cuts:
        cuts = [float(np.quantile(column[known], share)) for share in QUARTILES.values()] if known.any() else [0.0]
    cuts = sorted(set(cuts))
    numbers = np.where(known, np.searchsorted(cuts, column), len(cuts) + 1)
    inner = [f"over {low:.6g} to {high:.6g}" for low, high in pairwise(cuts)]
    names = [f"up to {cuts[0]:.6g}", *inner, f"over {cuts[-1]:.6g}", "unknown"]
    return Strata(numbers.tolist(), tuple(f"{label.name} {name}" for name in names), needed=False)


def _unlearnable(targets: Sequence[Any], labels: Labels) -> str:
    for label, column in zip(labels, numbers_of(targets, labels).T, strict=True):
        known = column[~np.isnan(column)]
        if not len(known):
            return f"no sample has a value of {label.name}; there is nothing to learn"
        if len(np.unique(known)) < 2:
            return f"{label.name} is {known[0]:g} in all samples; there is nothing to learn"
    return ""


def _unknown(found: Labels, known: Labels) -> str:
    theirs = {label.name: label for label in known}
    foreign = [label.name for label in found if label.name not in theirs]
    if foreign:
        return f"the data has numbers that the model doesn't know: {', '.join(foreign)}; it knows {', '.join(theirs)}"
    for label in found:
        wanted = theirs[label.name].unit
        if label.unit != wanted:
            return (
                f"the data gives {label.name} {_in(label.unit)}, and the model {_in(wanted)}; convert it, or call the "
                f"column {name_with_unit(label.name, wanted)} where it is in that unit"
            )
    return ""


def _in(unit: str) -> str:
    return f"in {unit}" if unit else "without a unit"


def _relabel(target: Any, found: Labels, known: Labels) -> Any:
    numbers = dict(zip((label.name for label in found), target, strict=True))
    return tuple(numbers.get(label.name) for label in known)
