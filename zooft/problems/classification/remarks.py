"""What deserves a sentence in an evaluation of classes, on the screen and in the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.problems.classification.evaluation import details_of
from zooft.problems.classification.groups import nothing_index, truth_in_words
from zooft.report import formatting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zooft.contracts import Labels
    from zooft.evaluation.evaluate import Evaluation


def mixed_groups(evaluation: Evaluation, labels: Labels) -> Sequence[str]:
    """How many groups have samples of several classes, and what they count as; nothing where none has."""
    if not evaluation.mixed_groups:
        return ()
    many = formatting.plural(evaluation.group_name)
    return (f"{many} with samples of several classes: {evaluation.mixed_groups}; {truth_in_words(labels)}",)


def one_class(evaluation: Evaluation, labels: Labels) -> Sequence[str]:
    """Why there are no figures per group, where all of them count as one class; nothing elsewhere."""
    one = evaluation.one_class
    if not one:
        return ()
    many = formatting.plural(evaluation.group_name)
    two = len(labels[0].categories) == 2
    rule = "one sample decides" if two else "most samples decide"
    if nothing_index(labels) is not None:
        rule = f"{labels[0].nothing} gives way to anything else"
    return (
        f"no figures per {evaluation.group_name}: by the rule that {rule}, all {evaluation.groups} {many} count "
        f"as {one}, so predicting {one} for all would always be right; check whether {one} is the positive class "
        f"(--positive), and whether the data has enough of {'both' if two else 'the others'}",
    )


def one_answer(evaluation: Evaluation, labels: Labels) -> Sequence[str]:
    """That the threshold makes one class of everybody, where it does; nothing elsewhere."""
    details = details_of(evaluation.details)
    if details.threshold is None or evaluation.one_class:
        return ()
    per, matrix = (
        (evaluation.group_name, details.group_confusion) if details.group_confusion else ("sample", details.confusion)
    )
    predicted = [sum(column) for column in zip(*matrix, strict=True)]
    if 0 not in predicted or any(not sum(row) for row in matrix):
        return ()
    one = labels[0].categories[predicted.index(max(predicted))]
    return (
        f"at the threshold, every {per} of these {sum(predicted)} is called {one}: the answers don't tell the classes "
        f"apart here, and the predicted class has no meaning; train longer, or on more {formatting.plural(per)}",
    )
