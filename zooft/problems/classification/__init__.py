"""Classes that exclude each other, or one class against another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zooft.contracts import Problem
from zooft.problems.classification.calibration import OperatingPoint, parse_point
from zooft.problems.classification.deployment import deployment_part
from zooft.problems.classification.evaluation import evaluation_part
from zooft.problems.classification.groups import class_of_group
from zooft.problems.classification.metrics import classification_metrics, diagnostic_metrics
from zooft.problems.classification.presentation import presentation_part
from zooft.problems.classification.training import cross_entropy, training_part

if TYPE_CHECKING:
    from zooft.problems.classification.calibration import Activation
    from zooft.problems.classification.evaluation import Metrics
    from zooft.problems.classification.training import ClassLoss


def _no_point(_options: Any) -> None:
    return None


def classification(
    *,
    loss: ClassLoss = cross_entropy,
    metrics: Metrics = classification_metrics,
    primary: str = "balanced_accuracy",
    activation: Activation = "softmax",
    operating_point: Callable[[Any], OperatingPoint | None] = _no_point,
    probability_limit: float = 1e-2,
) -> Problem:
    """The problem of classes.

    Args:
        loss: from all training targets and the task's options to a module ``(logits (N, classes), targets (N,))`` that
            gives a `Loss`, or a scalar that is the mean over a batch.
        metrics: ``(targets (N,), probabilities (N, classes)) -> name to value``.
        primary: the one of `metrics` that chooses the best epoch.
        activation: what turns logits into probabilities in the deployed graph.
        operating_point: from the task's options to how the threshold of two classes is chosen. With one, a temperature
            is fitted too; None leaves probabilities as they are.
        probability_limit: how much a probability of the exported file may differ from the model's; the default leaves
            room for rounding to whole levels of 8-bit images inside the graph.

    Raises:
        ConfigError: there is no such activation.
    """
    return Problem(
        name="classification",
        training=training_part(loss, operating_point),
        evaluation=evaluation_part(metrics=metrics, primary=primary, activation=activation, point=operating_point),
        deployment=deployment_part(activation=activation, probability_limit=probability_limit),
        presentation=presentation_part(),
    )


__all__ = [
    "OperatingPoint",
    "class_of_group",
    "classification",
    "classification_metrics",
    "cross_entropy",
    "diagnostic_metrics",
    "parse_point",
]
