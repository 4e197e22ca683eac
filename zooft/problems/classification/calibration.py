"""What is fitted after training, on validation data: a temperature and an operating threshold; and the curves of both.

It uses nothing but the logits and targets that it is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from zooft.errors import ConfigError
from zooft.problems.classification.groups import group_answers
from zooft.problems.classification.metrics import bin_numbers, one_against_rest
from zooft.problems.ranking import Curve, auroc, precision_recall, ranking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from zooft.problems.ranking import Ranking

Activation = Literal["softmax", "sigmoid"]
_COLDEST, _HOTTEST = 0.05, 20.0
_ABOVE_ALL = 1 + 1e-6
_LUCK = "the threshold calls everyone positive, since these answers rank no better than guessing"
_EXACT = 1_000
"""Samples of a class up to which a probability is counted out."""
_RULES = "'youden', 'sensitivity:X' or 'specificity:X' with X above 0 and at most 1, such as sensitivity:0.9"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """How the threshold of two classes is to be chosen, on validation data only.

    Attributes:
        rule: ``youden`` for the largest sensitivity + specificity - 1 (Youden 1950), or the figure that is to be
            reached, with the other one as large as it can be. Where the answers rank no better than guessing, the
            largest is luck, and ``youden`` calls everyone positive.
        at_least: for the latter, such as 0.9.
    """

    rule: Literal["youden", "sensitivity", "specificity"] = "youden"
    at_least: float = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was fitted after training, on validation data, and is part of the deployed graph.

    Attributes:
        temperature: the logits are divided by it (Guo et al. 2017).
        threshold: of two classes, the second is predicted where its probability is at least this; None for the
        likelier.
        fitted_on: which samples it was fitted on, in words.
    """

    temperature: float = 1.0
    threshold: float | None = None
    fitted_on: str = ""


@dataclass(frozen=True, slots=True)
class Reliability:
    """Predicted probabilities against observed frequencies, in bins of equal width; empty bins are left out.

    Attributes:
        predicted: ``(B,)`` mean probability.
        observed: ``(B,)`` share of samples of the class.
        samples: ``(B,)`` how many.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    samples: NDArray[np.int64]


def parse_point(text: str) -> OperatingPoint:
    """Read ``youden``, ``sensitivity:0.9`` or ``specificity:0.9``.

    Raises:
        ConfigError: it is none of them.
    """
    if text == "youden":
        return OperatingPoint(rule="youden")
    rule, _, share = text.partition(":")
    if rule in {"sensitivity", "specificity"} and 0 < _float(share) <= 1:
        return OperatingPoint(rule="sensitivity" if rule == "sensitivity" else "specificity", at_least=float(share))
    raise ConfigError(f"{text!r} isn't an operating point; give {_RULES}")


def fit(
    logits: NDArray[Any],
    targets: NDArray[Any],
    point: OperatingPoint | None,
    *,
    activation: Activation,
    fitted_on: str,
    members: Sequence[NDArray[Any]],
    rule: str = "mean",
) -> Calibration:
    """Fit a temperature to samples, then a threshold to the answers that are used.

    The threshold is chosen among the calibrated probabilities of groups (patients) where groups are known, of samples
    otherwise.

    Args:
        logits: ``(N, classes)`` of validation samples.
        targets: ``(N,)`` class indices.
        point: the rule of the threshold; None for no threshold. There is none but for two classes.
        activation: the deployed graph's.
        fitted_on: which samples these are, in words.
        members: the rows of each group; of samples of unknown group, one each.
        rule: how a group's samples make one answer.

    Returns:
        What was fitted. Where the data can't determine a value, the temperature stays 1 or the threshold None, and
        `fitted_on` states why.
    """
    temperature, reason = _temperature(logits, targets, activation)
    words = [fitted_on, reason]
    threshold = None
    if point is not None and logits.shape[1] == 2:
        probabilities = apply(Calibration(temperature=temperature), logits, activation)
        truth, answers = group_answers(targets, probabilities, members, rule)
        threshold, reason = choose_threshold(truth, answers, point)
        many = len(members)
        words.append(reason or (f"the threshold on {many} groups" if many < len(targets) else ""))
    return Calibration(temperature=temperature, threshold=threshold, fitted_on="; ".join(filter(None, words)))


def choose_threshold(
    targets: NDArray[Any], probabilities: NDArray[Any], point: OperatingPoint
) -> tuple[float | None, str]:
    """The middle of the gap between probabilities that the rule chooses, and why it is another or there is none.

    Args:
        targets: ``(N,)`` class indices, 0 or 1.
        probabilities: ``(N, 2)``.
        point: the rule.
    """
    rank = _rank(targets, probabilities, 1)
    if not (rank.positives and rank.negatives):
        return None, "no threshold: all answers are about one class"
    edges = np.concatenate([[_ABOVE_ALL], rank.scores, [0.0]])
    middles = (edges[:-1] + edges[1:]) / 2
    if point.rule == "youden" and _is_luck(rank):
        return float(middles[-1]), _LUCK
    return float(middles[_choose_gap(rank, point)]), ""


def apply(calibration: Calibration, logits: NDArray[Any], activation: Activation) -> NDArray[np.float32]:
    """Probabilities ``(N, classes)`` float32 as the deployed graph gives them, from logits ``(N, classes)``."""
    scaled = np.asarray(logits, dtype=np.float64) / calibration.temperature
    return np.exp(_log_probabilities(scaled, activation)).astype(np.float32)


def roc_points(targets: NDArray[Any], probabilities: NDArray[Any], *, which: int | None = None) -> Curve:
    """The empirical ROC curve, a point for each distinct probability, from (0, 0) to (1, 1).

    Args:
        targets: ``(N,)`` class indices; class `which` and others occur.
        probabilities: ``(N, classes)``.
        which: the class that counts as positive; the last one where none is given.
    """
    rank = _rank(targets, probabilities, which)
    return Curve(
        x=np.concatenate([[0.0], rank.false_positives / rank.negatives]),
        y=np.concatenate([[0.0], rank.true_positives / rank.positives]),
        thresholds=np.concatenate([[math.inf], rank.scores]),
    )


def pr_points(targets: NDArray[Any], probabilities: NDArray[Any], *, which: int | None = None) -> Curve:
    """The empirical precision-recall curve, a point for each distinct probability, from recall 0 to 1.

    Args:
        targets: ``(N,)`` class indices; class `which` occurs.
        probabilities: ``(N, classes)``.
        which: the class that counts as positive; the last one where none is given.
    """
    return precision_recall(_rank(targets, probabilities, which))


def reliability_bins(
    targets: NDArray[Any], probabilities: NDArray[Any], *, bins: int = 10, which: int | None = None
) -> Reliability:
    """The reliability diagram of one class's probability (Murphy and Winkler 1977).

    Args:
        targets: ``(N,)`` class indices.
        probabilities: ``(N, classes)``.
        bins: of equal width between 0 and 1.
        which: the class; the last one where none is given.
    """
    true, probability = one_against_rest(targets, probabilities, _class(probabilities, which))
    place = bin_numbers(probability, bins)
    samples = np.bincount(place, minlength=bins)
    there = samples > 0
    return Reliability(
        predicted=np.bincount(place, weights=probability, minlength=bins)[there] / samples[there],
        observed=np.bincount(place, weights=true, minlength=bins)[there] / samples[there],
        samples=samples[there],
    )


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _class(probabilities: NDArray[Any], which: int | None) -> int:
    return probabilities.shape[1] - 1 if which is None else which


def _rank(targets: NDArray[Any], probabilities: NDArray[Any], which: int | None) -> Ranking:
    return ranking(*one_against_rest(targets, probabilities, _class(probabilities, which)))


def _log_probabilities(logits: NDArray[np.float64], activation: Activation) -> NDArray[np.float64]:
    from scipy.special import log_expit, log_softmax

    found: NDArray[np.float64] = log_expit(logits) if activation == "sigmoid" else log_softmax(logits, axis=1)
    return found


def _temperature(logits: NDArray[Any], targets: NDArray[Any], activation: Activation) -> tuple[float, str]:
    """What the logits are divided by, and why it is 1 where the data can't determine it (Guo et al. 2017).

    The loss is convex in 1 / T, so it has one minimum in log T as well.
    """
    from scipy.optimize import minimize_scalar

    reason = _untellable(logits, targets, activation)
    if reason:
        return 1.0, f"the temperature stays 1: {reason}"
    wide = np.asarray(logits, dtype=np.float64)
    found = minimize_scalar(
        lambda log_t: _loss(wide / math.exp(log_t), targets, activation),
        bounds=(math.log(_COLDEST), math.log(_HOTTEST)),
        method="bounded",
    )
    temperature = math.exp(float(found.x))
    inside = 1.01 * _COLDEST < temperature < 0.99 * _HOTTEST
    if inside:
        return temperature, ""
    return 1.0, (
        f"the temperature stays 1: these samples would have it at {temperature:.3g} or beyond, since the answers tell "
        "the classes hardly apart"
        if temperature > 1
        else "the temperature stays 1: these samples leave hardly any doubt"
    )


def _untellable(logits: NDArray[Any], targets: NDArray[Any], activation: Activation) -> str:
    if len(np.unique(targets)) < 2:
        return "the samples are of one class only"
    if not np.isfinite(logits).all():
        return "some logits aren't finite"
    own = np.arange(logits.shape[1]) == targets[:, None]
    least, most = np.where(own, logits, np.inf).min(1), np.where(own, -np.inf, logits).max(1)
    right = (least >= 0) & (most <= 0) if activation == "sigmoid" else least >= most
    return "all answers are right, so that any sharpening would seem better" if right.all() else ""


def _loss(logits: NDArray[np.float64], targets: NDArray[Any], activation: Activation) -> float:
    """The negative log-likelihood: of the true class; for sigmoids, of every class being it or not."""
    of_class = _log_probabilities(logits, activation)[np.arange(len(targets)), targets]
    if activation == "softmax":
        return float(-of_class.mean())
    of_others = np.where(np.arange(logits.shape[1]) == targets[:, None], 0.0, _log_probabilities(-logits, activation))
    return float(-(of_class + of_others.sum(1)).mean())


def _is_luck(rank: Ranking) -> bool:
    """Whether a ranking is no better than guessing, and guessing reaches its largest Youden index more often than not.

    That index is the one-sided Kolmogorov-Smirnov statistic of the scores of positives and negatives. Both are tried,
    since a ranking may separate some positives surely and put the others last.
    """
    if auroc(rank) > 0.5:
        return False
    from scipy.stats import ks_2samp

    counts = (np.diff(found, prepend=0) for found in (rank.true_positives, rank.false_positives))
    positives, negatives = (np.repeat(rank.scores, count) for count in counts)
    exact = max(rank.positives, rank.negatives) <= _EXACT
    found = ks_2samp(positives, negatives, alternative="less", method="exact" if exact else "asymp")
    return bool(found.pvalue > 0.5)


def _choose_gap(rank: Ranking, point: OperatingPoint) -> int:
    """Which gap, counted from the one above all scores; whole numbers, so that equals are equal.

    Of gaps that do equally well, the one with the larger sensitivity is taken; for a specificity that is to be
    reached, the one with the larger specificity.
    """
    true_positives = np.concatenate([[0], rank.true_positives])
    true_negatives = rank.negatives - np.concatenate([[0], rank.false_positives])
    if point.rule == "youden":
        return _best(true_positives * rank.negatives + true_negatives * rank.positives, true_positives)
    if point.rule == "sensitivity":
        reached = true_positives >= point.at_least * rank.positives - 1e-9
        return _best(np.where(reached, true_negatives, -1), true_positives)
    reached = true_negatives >= point.at_least * rank.negatives - 1e-9
    return _best(np.where(reached, true_positives, -1), true_negatives)


def _best(first: NDArray[Any], second: NDArray[Any]) -> int:
    return int(np.lexsort((second, first))[-1])
