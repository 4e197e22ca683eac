"""Receives a run's progress: the command line draws it, Python's callers get a log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from zooft.contracts import EpochRecord, Rejection

logger = logging.getLogger("zooft")


class Reporter(Protocol):
    """Receives the progress of the work. The command line draws it; `LoggingReporter` doesn't."""

    def step(self, title: str) -> None:
        """A new part of the story begins."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def list_rejected(self, rejected: Sequence[Rejection]) -> None:
        """Files that aren't used."""

    def computing(self, title: str, total: int) -> Callable[[int], None]:
        """Long work begins; the result is called with each number of units done."""

    def epoch(self, record: EpochRecord, epochs: int) -> None:
        """An epoch of `epochs` has ended."""


class LoggingReporter:
    """A listener that only logs."""

    def step(self, title: str) -> None:
        """Log it."""
        logger.info("%s", title)

    def note(self, text: str) -> None:
        """Log it."""
        logger.info("%s", text)

    def list_rejected(self, rejected: Sequence[Rejection]) -> None:
        """Log how many, and the first few with their reasons."""
        for rejection in rejected[:5]:
            logger.warning("rejected %s: %s", rejection.id, rejection.reason)
        if len(rejected) > 5:
            logger.warning("rejected %d files; rejected.csv has them all", len(rejected))

    def computing(self, title: str, total: int) -> Callable[[int], None]:
        """Nothing to draw."""
        return lambda _done: None

    def epoch(self, record: EpochRecord, epochs: int) -> None:
        """Log the losses."""
        logger.info("epoch %d of %d: %.4f %.4f", record.epoch, epochs, record.train_loss, record.val_loss)


class SilentReporter:
    """A listener of a process that isn't the main one: the main one reports."""

    def step(self, title: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def list_rejected(self, rejected: Sequence[Rejection]) -> None:
        """Nothing."""

    def computing(self, title: str, total: int) -> Callable[[int], None]:
        """Nothing to draw."""
        return lambda _done: None

    def epoch(self, record: EpochRecord, epochs: int) -> None:
        """Nothing."""
