"""How grades are trained: where each sample lies between the steps of the scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zooft.contracts import Strata, TrainingPart
from zooft.problems.ordinal import cells
from zooft.problems.ordinal.links import HEAD

if TYPE_CHECKING:
    from torch import nn

    from zooft.contracts import Labels


def training_part() -> TrainingPart:
    """How grades are trained."""
    return TrainingPart(
        outputs=_outputs,
        loss=_loss,
        read=cells.read,
        check=_check,
        placeholder=_placeholder,
        strata=_strata,
        unlearnable=_unlearnable,
        unknown=_unknown,
        relabel=_relabel,
        distill=_distill,
    )


def _outputs(labels: Labels, _options: Any) -> Mapping[str, int]:
    return {HEAD: len(labels[0].categories) - 1}


def _loss(_labels: Labels, _targets: Sequence[Any], _options: Any) -> nn.Module:
    from zooft.problems.ordinal.losses import CumulativeLinkLoss

    return CumulativeLinkLoss()


def _distill(_labels: Labels, _theirs: Labels, _options: Any, temperature: float) -> nn.Module:
    from zooft.problems.ordinal.losses import SoftenedGrades

    return SoftenedGrades(temperature)


def _check(target: Any, labels: Labels) -> str:
    grades = labels[0].categories
    if hasattr(type(target), "__index__") and not isinstance(target, bool) and 0 <= target < len(grades):
        return ""
    return f"a whole number from 0 to {len(grades) - 1}, an index into the {len(grades)} grades"


def _placeholder(_labels: Labels) -> int:
    return 0


def _strata(targets: Sequence[Any], labels: Labels) -> Strata:
    """A grade that nobody has can still be predicted: it has its place in the scale."""
    return Strata(targets, labels[0].categories, needed=False)


def _unlearnable(targets: Sequence[Any], labels: Labels) -> str:
    found = Counter(targets)
    if len(found) > 1:
        return ""
    grades = [labels[0].categories[index] for index in found]
    return f"all samples have the {labels[0].name} {', '.join(grades) or 'unknown'}; there is nothing to learn"


def _unknown(found: Labels, known: Labels) -> str:
    theirs = known[0].categories
    foreign = [name for name in found[0].categories if name not in theirs]
    if foreign:
        return f"the data has grades that the model doesn't know: {', '.join(foreign)}; it knows {', '.join(theirs)}"
    places = [theirs.index(name) for name in found[0].categories]
    if places != sorted(places):
        return (
            f"the data has the grades {', '.join(found[0].categories)} in this order, and the model {', '.join(theirs)}"
        )
    return ""


def _relabel(target: int, found: Labels, known: Labels) -> int:
    return known[0].categories.index(found[0].categories[target])
