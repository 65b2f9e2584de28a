"""What an operation spends at the API: the difference between two readings of the HTTP client's counters."""

from __future__ import annotations

from rally_pipeline.clock import Clock
from rally_pipeline.rally.client import RallyClient
from rally_pipeline.rally.results import Cost


class Meter:
    """Started when an operation begins."""

    def __init__(self, client: RallyClient, clock: Clock) -> None:
        self._http = client.http
        self._clock = clock
        self._before = self._http.usage
        self._begun = clock.monotonic()

    def cost(self) -> Cost:
        """Spent so far."""
        spent = self._http.usage - self._before
        return Cost(
            requests=spent.requests,
            throttled=spent.throttled,
            waited_seconds=round(spent.waited_seconds, 3),
            seconds=round(self._clock.monotonic() - self._begun, 3),
        )
