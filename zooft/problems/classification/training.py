"""How classes are trained: a logit each, and a loss of sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from zooft.contracts import Strata, Targets, TrainingPart, class_labels
from zooft.data.labels import check_labels
from zooft.data.positive_class import nothing_of, order_classes
from zooft.errors import DataError
from zooft.problems.classification.calibration import OperatingPoint

if TYPE_CHECKING:
    from torch import nn

    from zooft.contracts import Labels

ClassLoss = Callable[[Sequence[int], Any], "nn.Module"]


def training_part(loss: ClassLoss, point: Callable[[Any], OperatingPoint | None]) -> TrainingPart:
    """How classes are trained.

    Args:
        loss: from all training targets and the task's options to a module ``(logits (N, classes), targets (N,))`` that
            gives a `Loss`, or the mean of one.
        point: from the options to the rule of two classes' threshold.
    """
    return TrainingPart(
        outputs=_outputs,
        loss=_Made(loss),
        read=read,
        check=_check,
        placeholder=_placeholder,
        strata=_strata,
        absent=_absent,
        unlearnable=_unlearnable,
        unknown=_unknown,
        relabel=_relabel,
        check_options=partial(_check_options, point),
        distill=_distill,
    )


class _Made:
    """A problem's loss from one of logits and targets.

    Args:
        loss: as `training_part` takes it.
    """

    def __init__(self, loss: ClassLoss) -> None:
        self.__wrapped__ = loss  # whose code a message names

    def __call__(self, _labels: Labels, targets: Sequence[int], options: Any) -> nn.Module:
        from zooft.problems.classification.losses import sums_of

        return sums_of(self.__wrapped__(targets, options))


def _distill(_labels: Labels, _theirs: Labels, _options: Any, temperature: float) -> nn.Module:
    from zooft.problems.classification.losses import SoftenedClasses

    return SoftenedClasses(temperature)


def cross_entropy(_targets: Sequence[int], _options: Any) -> nn.Module:
    """The plain loss of classes that exclude each other."""
    from torch import nn

    return nn.CrossEntropyLoss()


def _check_options(point: Callable[[Any], OperatingPoint | None], options: Any) -> None:
    wanted = point(options)
    if wanted is not None and not isinstance(wanted, OperatingPoint):
        raise TypeError(
            f"the operating point is {wanted!r} ({type(wanted).__name__}), expected an OperatingPoint or None"
        )


def _outputs(labels: Labels, _options: Any) -> Mapping[str, int]:
    return {"logits": len(labels[0].categories)}


def read(rows: Sequence[Mapping[str, str]], columns: Sequence[str], _options: Any) -> Targets:
    """Names of classes from the one column, by the rules of `zooft.check_labels`.

    An empty cell is a class that isn't known.

    Args:
        rows: cells by column.
        columns: the one.

    Raises:
        DataError: there are several columns, the column is empty in all rows, or holds what can't be names of classes.
    """
    if len(columns) != 1:
        raise DataError(f"classes are trained on one column, and there are {len(columns)}: {', '.join(columns)}")
    column = columns[0]
    cells = [row.get(column, "").strip() for row in rows]
    if rows and not any(cells):
        raise DataError(f"the column {column!r} is empty in all {len(rows)} rows; expected the name of a class in each")
    stated = ((cell, f"row {number} of the column {column!r}") for number, cell in enumerate(cells, 1) if cell)
    notes = check_labels(stated, in_table=True)
    classes, order = order_classes(sorted({cell for cell in cells if cell}), "")
    places = {name: index for index, name in enumerate(classes)}
    return Targets(
        labels=class_labels(classes, name=column.strip(), nothing=nothing_of(classes, "")),
        values=[places.get(cell) for cell in cells],
        faults={
            number: f"{column} is empty; expected the name of a class" for number, cell in enumerate(cells) if not cell
        },
        # who reads a table has no such option
        notes=(*notes, *(text.removesuffix("; --positive names another") for text in order)),
    )


def _check(target: Any, labels: Labels) -> str:
    classes = len(labels[0].categories)
    if hasattr(type(target), "__index__") and not isinstance(target, bool) and 0 <= target < classes:
        return ""
    return f"a whole number from 0 to {classes - 1}, an index into the {classes} classes"


def _placeholder(_labels: Labels) -> int:
    return 0


def _strata(targets: Sequence[Any], labels: Labels) -> Strata:
    return Strata(targets, labels[0].categories)


def _absent(targets: Sequence[Any], labels: Labels) -> tuple[str, ...]:
    counts = Counter(targets)
    return tuple(name for index, name in enumerate(labels[0].categories) if not counts[index])


def _unlearnable(_targets: Sequence[Any], labels: Labels) -> str:
    classes = labels[0].categories
    return f"only one class, {classes[0]!r}; at least two are needed" if len(classes) < 2 else ""


def _unknown(found: Labels, known: Labels) -> str:
    theirs = known[0].categories
    foreign = [name for name in found[0].categories if name not in theirs]
    if not foreign:
        return ""
    return f"the data has classes that the model doesn't know: {', '.join(foreign)}; it knows {', '.join(theirs)}"


def _relabel(target: int, found: Labels, known: Labels) -> int:
    return known[0].categories.index(found[0].categories[target])
