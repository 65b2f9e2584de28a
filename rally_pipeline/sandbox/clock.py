"""The sandbox's time: virtual (moves only when told) or running (with a speed), and a clock for the engine
under test.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

VIRTUAL_START = datetime(2026, 3, 2, 8, 0, 0, tzinfo=UTC)
"""Where a virtual clock starts unless told otherwise, so that two runs with one seed see the same times."""


class SandboxClock:
    """The server's clock. It also fits `rally_pipeline.clock.Clock`, so that an engine under test can share
    it.

    `speed` is the number of sandbox seconds that pass in one real second: 0 is a virtual clock, which moves
    only by `advance`, `sleep` and `set`; 1 is real time; 60 lets a minute pass in a second. Thread-safe.
    """

    def __init__(self, start: datetime = VIRTUAL_START, *, speed: float = 0.0) -> None:
        if start.tzinfo is None:
            raise ValueError("the sandbox clock needs an aware start time")
        if speed < 0:
            raise ValueError("the speed of the sandbox clock cannot be negative")
        self._lock = threading.Lock()
        self._speed = speed
        self._origin = start.astimezone(UTC)
        self._passed = timedelta(0)
        self._anchor = time.monotonic()

    @classmethod
    def running(cls, start: datetime | None = None, *, speed: float = 1.0) -> SandboxClock:
        """A clock that runs by itself, from the machine's present time unless `start` is given."""
        return cls(start or datetime.now(UTC), speed=speed)

    @property
    def speed(self) -> float:
        return self._speed

    @property
    def is_virtual(self) -> bool:
        """True when no time passes by itself."""
        return self._speed == 0

    def elapsed(self) -> timedelta:
        """Time passed since the clock was made. Never steps back, whatever `set` did to the wall clock."""
        with self._lock:
            self._settle()
            return self._passed

    def now(self) -> datetime:
        """The wall clock as an aware UTC instant."""
        with self._lock:
            self._settle()
            return self._origin + self._passed

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back."""
        return self.elapsed().total_seconds()

    def sleep(self, seconds: float) -> None:
        """Let `seconds` of sandbox time pass: a virtual clock is advanced, a running one is really waited
        for.
        """
        if seconds <= 0:
            return
        if self.is_virtual:
            self.advance(seconds)
        else:
            time.sleep(seconds / self._speed)

    def advance(self, seconds: float) -> None:
        """Let time pass at once, on a running clock too."""
        if seconds < 0:
            raise ValueError("time only advances; use set() to put the wall clock back")
        with self._lock:
            self._passed += timedelta(seconds=seconds)

    def set(self, now: datetime) -> None:
        """Put the wall clock to `now`, forwards or backwards, as on a badly kept server; no time passes."""
        if now.tzinfo is None:
            raise ValueError("the sandbox clock is set to an aware time only")
        with self._lock:
            self._settle()
            self._origin = now.astimezone(UTC) - self._passed

    def run(self, speed: float) -> None:
        """Change the speed from here on; 0 stops the clock."""
        if speed < 0:
            raise ValueError("the speed of the sandbox clock cannot be negative")
        with self._lock:
            self._settle()
            self._speed = speed

    def skewed(self, seconds: float) -> SkewedClock:
        """A client's clock that is wrong by `seconds` but otherwise moves with this one."""
        return SkewedClock(self, seconds)

    def _settle(self) -> None:
        if self._speed:
            reading = time.monotonic()
            self._passed += timedelta(seconds=(reading - self._anchor) * self._speed)
            self._anchor = reading
        else:
            self._anchor = time.monotonic()


class SkewedClock:
    """A wall clock that is off by a settable number of seconds; spans stay right."""

    def __init__(self, clock: SandboxClock, seconds: float) -> None:
        self._clock = clock
        self.skew_seconds = seconds

    def now(self) -> datetime:
        return self._clock.now() + timedelta(seconds=self.skew_seconds)

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)
