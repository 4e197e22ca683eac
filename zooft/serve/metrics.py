"""What Prometheus reads at /metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

if TYPE_CHECKING:
    from zooft.serve.repository import Repository

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counts of one server, under names that begin with ``zooft_``; of no client, file or patient.

    Args:
        repository: whose queues are shown.
    """

    def __init__(self, repository: Callable[[], Repository]) -> None:
        self._repository = repository
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter("zooft_requests", "answered requests", ("route", "status"), registry=self._registry)
        self._seconds = Histogram(
            "zooft_request_seconds",
            "from a request's first byte to its answer",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "zooft_batch_samples", "samples in a batch", ("model",), buckets=_ROWS, registry=self._registry
        )
        self._waiting = Gauge("zooft_waiting_requests", "requests in a queue", ("model",), registry=self._registry)

    def count(self, route: str, status: int, seconds: float) -> None:
        """One more answered request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_batch(self, model: str, rows: int) -> None:
        """One more batch."""
        self._batches.labels(model).observe(rows)

    def text(self) -> bytes:
        """In Prometheus' format."""
        self._waiting.clear()
        for served in self._repository().open_models():
            self._waiting.labels(f"{served.name}/{served.version}").set(len(served.batcher))
        return generate_latest(self._registry)
