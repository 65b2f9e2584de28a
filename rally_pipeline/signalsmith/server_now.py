"""The server's present time, from the `Date` of its last answer and a clock that measures spans."""

from __future__ import annotations

from datetime import datetime, timedelta

from rally_pipeline.clock import Clock
from rally_pipeline.signalsmith.client import SignalSmithClient


class ServerNow:
    """Never stands still, also when answers stop carrying a `Date`; without any, the local time has to do."""

    def __init__(self, client: SignalSmithClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._date = clock.now()
        self._at = clock.monotonic()
        self._known = False

    def __call__(self) -> datetime:
        """An instant that the server's clock has certainly passed."""
        date, at = self._client.server_time, self._clock.monotonic()
        if date is not None and (not self._known or date != self._date):
            self._date, self._at, self._known = date, at, True
        return self._date + timedelta(seconds=max(0.0, at - self._at))
