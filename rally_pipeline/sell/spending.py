"""What an operation spends at the API: the difference between two readings of the HTTP client's counters."""

from __future__ import annotations

from rally_pipeline.clock import Clock
from rally_pipeline.http.client import HttpClient
from rally_pipeline.sell.results import Cost


class Meter:
    """Started when an operation begins."""

    def __init__(self, http: HttpClient, clock: Clock) -> None:
        self._http = http
        self._clock = clock
        self._before = http.usage
        self._begun = clock.monotonic()

    def cost(self) -> Cost:
        """Spent so far."""
        spent = self._http.usage - self._before
        return Cost(
            requests=spent.requests,
            retries=spent.retries,
            throttled=spent.throttled,
            waited_seconds=round(spent.waited_seconds, 3),
            seconds=round(self._clock.monotonic() - self._begun, 3),
        )
