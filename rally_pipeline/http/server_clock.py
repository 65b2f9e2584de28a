"""The server's clock to the millisecond, from `Date` headers that show whole seconds."""

from __future__ import annotations

import math

SHARP_SECONDS = 0.05
_DRIFT = 1e-4
"""Seconds by which two clocks may drift apart in a second."""


class ServerClock:
    """What is to be added to the local monotonic clock to get the server's Unix time, as an interval.

    An answer with `Date` d shows that the server's time lay in [d, d + 1) at some moment between sending and
    receiving. Every answer narrows the interval; the many answers around a change of second make it as narrow
    as the round trip. An answer that contradicts the interval (the clock was set, or another server answered)
    starts it anew. Algorithm: intersection of intervals, K. Marzullo, 1984.
    """

    def __init__(self) -> None:
        self._low = -math.inf
        self._high = math.inf
        self._updated_at = 0.0

    @property
    def known(self) -> bool:
        """Whether any answer with a `Date` was seen."""
        return self._high < math.inf

    @property
    def sharp(self) -> bool:
        """Whether the server's clock is known well enough to aim at a moment of it."""
        return self._high - self._low <= SHARP_SECONDS

    def observe(self, date: float, sent_at: float, received_at: float) -> None:
        """Take in the `Date` of an answer (Unix seconds) and when its request was sent and received."""
        low, high = date - received_at, date + 1 - sent_at
        if self.known:
            widened = _DRIFT * max(0.0, received_at - self._updated_at)
            self._low = max(self._low - widened, low)
            self._high = min(self._high + widened, high)
        if not self.known or self._low > self._high:
            self._low, self._high = low, high
        self._updated_at = received_at

    def local(self, server: float) -> tuple[float, float]:
        """The local monotonic seconds between which the server's clock shows `server`: (earliest, latest)."""
        return server - self._high, server - self._low

    def next_telling(self, now: float) -> float:
        """When to send a request whose answer halves the interval, after `now`.

        That is in the middle of where the server's next change of second may lie: its answer shows whether the
        change was before or after.
        """
        middle = (self._low + self._high) / 2
        return math.floor(now + middle + 1) - middle
