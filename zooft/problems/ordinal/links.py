"""From a head's outputs to the probabilities of grades that lie in order.

The cumulative logit model (McCullagh 1980, Regression Models for Ordinal Data): the logit of a grade of at least k is a
number l_k that falls with k. A model of one score and K - 1 thresholds holds the thresholds outside of the head, where
no file of the model would hold them; heads here have K - 1 outputs instead: the first is l_1, each other one, through a
softplus, how far the next l lies below. So l_1 > l_2 > ... for every image, in training as in the file, and no
probability can be negative, without which rank-consistency would have to be hoped for, as with K - 1 separate logits,
or forced by one shared weight (CORAL, Cao, Mirjalili and Raschka 2020). Proportional odds are the case in which the
outputs after the first don't depend on the image; weight decay pulls towards it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEAD = "steps"
"""The head's output, ``(N, K - 1)``."""
NARROWEST = 1e-6
"""Between two cumulative logits: the likelihood of the grade between them stays finite."""


def cumulative_logits(steps: NDArray[Any]) -> NDArray[np.float64]:
    """Logits of a grade of at least 1, 2, …, ``(N, K - 1)``, descending, from the head's output."""
    steps = np.asarray(steps, np.float64)
    gaps = np.logaddexp(0, steps[:, 1:]) + NARROWEST
    return np.asarray(np.concatenate([steps[:, :1], steps[:, :1] - gaps.cumsum(1)], axis=1), np.float64)


def probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Of each grade, ``(N, K)``, from cumulative logits ``(N, K - 1)``."""
    from scipy.special import expit

    edge = np.ones((len(logits), 1))
    at_least = np.concatenate([edge, expit(np.asarray(logits, np.float64)), 0 * edge], axis=1)
    return np.asarray(at_least[:, :-1] - at_least[:, 1:], np.float64)


def median_grade(given: NDArray[Any]) -> NDArray[np.int64]:
    """The grades ``(N,)`` that probabilities ``(N, K)`` give.

    How many of the others are reached with more than one half.

    It is the median, which has the smallest expected error in grades. Summed from above, as `cumulative_logits` do.
    """
    at_least = np.asarray(given, np.float64)[:, :0:-1].cumsum(1)
    return np.asarray((at_least > 0.5).sum(1), np.int64)
