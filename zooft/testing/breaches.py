"""What a check is made of: breaches of the contract in words, and how close two answers must be."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from zooft.errors import ConformanceError, ZooftError
from zooft.hooks import registry
from zooft.hooks.guard import guard_functions

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
TOLERANCE = 1e-4
"""Of answers that are to be the same, of their size."""


@contextlib.contextmanager
def report_breaches() -> Iterator[None]:
    """Whatever zooft finds wrong is a breach of the contract here."""
    try:
        yield
    except ConformanceError:
        raise
    except ZooftError as error:
        raise ConformanceError(str(error)) from error
    except Exception as error:  # plugin code, such as a stage or a preprocessing that fails
        raise ConformanceError(f"failed: {type(error).__name__}: {error}") from error


def accept(value: T) -> T:
    """What a plugin registers, its fields checked, its functions under guard."""
    try:
        registry.check_fields(value)
    except (TypeError, ValueError) as error:
        raise ConformanceError(str(error)) from error
    return guard_functions(value)


def expect(holds: bool, message: str) -> None:
    """Raise ConformanceError with `message` where something doesn't hold."""
    if not holds:
        raise ConformanceError(message)


def expect_close(got: Tensor, wanted: Tensor, what: str) -> None:
    """Raise ConformanceError where logits aren't the same but for rounding; `what` they are of, for the message."""
    worst = difference(got, wanted)
    expect(worst < TOLERANCE * 10, f"{what} differs by {worst:.1e} of the logits' size")


def difference(got: Tensor, wanted: Tensor) -> float:
    """The largest, over the root mean square of what is expected.

    The spread of a few numbers may be nothing by chance.
    """
    if got.shape != wanted.shape:
        return math.inf
    scale = max(float(wanted.square().mean().sqrt()), 1e-6)
    return float((got - wanted).abs().max()) / scale
