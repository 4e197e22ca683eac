"""Figures of merit for classes.

The formulas are written out over the confusion matrix and the ranks, because the bootstrap evaluates them a
thousand times and scikit-learn's take 10 ms a time; tests compare each with scikit-learn's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.problems.ranking import Ranking, auroc, average_precision, one_class_only, ranking

if TYPE_CHECKING:
    from numpy.typing import NDArray


SMALLER_IS_BETTER = frozenset({"brier", "ece"})
"""Names of figures that are better when smaller; all others are better when larger."""

_ECE_BINS = 15
_TOLERANCE = 1e-9


def classification_metrics(targets: NDArray[Any], probabilities: NDArray[Any]) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1 and AUROC, as scikit-learn defines them.

    Args:
        targets: ``(N,)`` class indices.
        probabilities: ``(N, classes)``.

    Returns:
        Name to value. Classes that don't occur among the targets are left out of the balanced accuracy; AUROC
        (one against the rest, macro average for three and more classes) is NaN where a class doesn't occur.
    """
    matrix = confusion(targets, probabilities)
    true_positives, truth, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    either = (truth + predicted) > 0
    f1 = 2 * true_positives[either] / (truth + predicted)[either]
    return {
        "accuracy": float(true_positives.sum() / matrix.sum()),
        "balanced_accuracy": _balanced_accuracy(matrix),
        "macro_f1": float(f1.mean()),
        "auroc": float(np.mean([auroc(rank) for rank in _rankings(targets, probabilities)])),
    }


def diagnostic_metrics(targets: NDArray[Any], probabilities: NDArray[Any]) -> dict[str, float]:
    """The figures of a diagnostic test, as scikit-learn defines them where it does.

    Args:
        targets: ``(N,)`` class indices; of two classes the second is the positive one.
        probabilities: ``(N, classes)``.

    Returns:
        Name to value.

        - ``auroc`` (Hanley and McNeil 1982) and ``auprc`` (average precision: the step sum, without interpolation);
          macro average of one against the rest for three and more classes; NaN where a class doesn't occur.
        - ``balanced_accuracy``, ``accuracy``: of the likelier class, whatever the operating threshold is.
        - ``sensitivity_at_specificity_90``, ``specificity_at_sensitivity_90``: two classes only. The largest one that a
          threshold reaches while the other is at least 0.9, read off the empirical ROC curve without interpolation.
        - ``brier`` (Brier 1950): the mean squared error of the positive class's probability; for three and more
          classes, of all classes' summed. Smaller is better.
        - ``ece``: the expected calibration error over 15 bins of equal width (Guo et al. 2017), of the positive class's
          probability for two classes and of the likeliest class's for more. Smaller is better.
    """
    matrix = confusion(targets, probabilities)
    rankings = _rankings(targets, probabilities)
    figures = {
        "auroc": float(np.mean([auroc(rank) for rank in rankings])),
        "auprc": float(np.mean([average_precision(rank) for rank in rankings])),
        "balanced_accuracy": _balanced_accuracy(matrix),
        "accuracy": float(np.diag(matrix).sum() / matrix.sum()),
    }
    if probabilities.shape[1] == 2:
        figures["sensitivity_at_specificity_90"] = _sensitivity_at_specificity(rankings[0], 0.9)
        figures["specificity_at_sensitivity_90"] = _specificity_at_sensitivity(rankings[0], 0.9)
    return {**figures, "brier": _brier(targets, probabilities), "ece": _calibration_error(targets, probabilities)}


def decide(probabilities: NDArray[Any], threshold: float | NDArray[Any] | None) -> NDArray[np.int64]:
    """Class indices ``(N,)`` for probabilities ``(N, classes)``: the predicted classes.

    Args:
        probabilities: of the classes, in their order.
        threshold: of two classes, the second is predicted from this probability on, one for all or ``(N,)``;
            None for the likeliest class, the first of equals.
    """
    if threshold is None:
        likeliest: NDArray[np.int64] = probabilities.argmax(1)
        return likeliest
    assert probabilities.shape[1] == 2, "a threshold decides between two classes"  # noqa: S101 -- our own invariant
    # in the precision of the probabilities, as a deployed graph compares them
    line = np.asarray(threshold, dtype=probabilities.dtype)
    predicted: NDArray[np.int64] = (probabilities[:, 1] >= line).astype(np.int64)
    return predicted


def confusion(
    targets: NDArray[Any], probabilities: NDArray[Any], *, threshold: float | NDArray[Any] | None = None
) -> NDArray[np.int64]:
    """``(classes, classes)`` counts; rows are true classes, columns those that `decide` gives."""
    classes = probabilities.shape[1]
    predicted = decide(probabilities, threshold)
    return np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def one_against_rest(
    targets: NDArray[Any], probabilities: NDArray[Any], which: int
) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Who is of class `which`, ``(N,)``, and the probability predicted for it, ``(N,)``."""
    return targets == which, probabilities[:, which]


def bin_numbers(probabilities: NDArray[Any], bins: int) -> NDArray[np.int64]:
    """Which of `bins` equal widths between 0 and 1 each probability lies in; the right edge belongs to a bin."""
    return np.linspace(0, 1, bins + 1)[1:-1].searchsorted(probabilities)


def _rankings(targets: NDArray[Any], probabilities: NDArray[Any]) -> list[Ranking]:
    """Of the positive class, or of each class against the rest for three and more."""
    classes = probabilities.shape[1]
    chosen = [1] if classes == 2 else range(classes)
    return [ranking(*one_against_rest(targets, probabilities, which)) for which in chosen]


def _sensitivity_at_specificity(rank: Ranking, at_least: float) -> float:
    if one_class_only(rank):
        return math.nan
    allowed = rank.true_positives[rank.false_positives <= (1 - at_least) * rank.negatives + _TOLERANCE]
    return float(allowed.max(initial=0) / rank.positives)


def _specificity_at_sensitivity(rank: Ranking, at_least: float) -> float:
    if one_class_only(rank):
        return math.nan
    allowed = rank.false_positives[rank.true_positives >= at_least * rank.positives - _TOLERANCE]
    return float(1 - allowed.min() / rank.negatives)


def _balanced_accuracy(matrix: NDArray[np.int64]) -> float:
    true_positives, truth = np.diag(matrix), matrix.sum(1)
    occurs = truth > 0
    return float((true_positives[occurs] / truth[occurs]).mean())


def _brier(targets: NDArray[Any], probabilities: NDArray[Any]) -> float:
    if probabilities.shape[1] == 2:
        return float(((probabilities[:, 1] - (targets == 1)) ** 2).mean())
    truth = np.eye(probabilities.shape[1])[targets]
    return float(((probabilities - truth) ** 2).sum(1).mean())


def _calibration_error(targets: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """The distance between predicted and observed frequencies, in each bin, weighed by the bins' sizes."""
    if probabilities.shape[1] == 2:
        true, predicted = one_against_rest(targets, probabilities, 1)
    else:
        true, predicted = probabilities.argmax(1) == targets, probabilities.max(1)
    return float(
        np.abs(np.bincount(bin_numbers(predicted, _ECE_BINS), weights=true - predicted)).sum() / len(predicted)
    )
