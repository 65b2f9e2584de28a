"""What an operation spends at the API: the difference between two readings of the HTTP client's counters."""

from __future__ import annotations

from rally_pipeline.clock import Clock
from rally_pipeline.rally.client import RallyClient
from rally_pipeline.rally.results import Cost


class Meter:
    """Started when an operation begins."""

    def __init__(self, client: RallyClient, clock: Clock) -> None:
        self._usage = client.http.usage
        self._clock = clock
        self._requests = self._usage.requests
        self._throttled = self._usage.throttled
        self._waited = self._usage.waited_seconds
        self._begun = clock.monotonic()

    def cost(self) -> Cost:
        """Spent so far."""
        return Cost(
            requests=self._usage.requests - self._requests,
            throttled=self._usage.throttled - self._throttled,
            waited_seconds=round(self._usage.waited_seconds - self._waited, 3),
            seconds=round(self._clock.monotonic() - self._begun, 3),
        )
