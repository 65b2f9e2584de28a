"""Time as an argument, so that a test can replay any history exactly."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

Step = Callable[[str], None]
"""Called with a name before and after every network call and every commit; tests crash the process here."""


def no_step(name: str) -> None:
    """The production `Step`: does nothing."""


class Clock(Protocol):
    """What the engines know of time. The local wall clock is for display only; it never moves a cursor."""

    def now(self) -> datetime:
        """The wall clock as an aware UTC instant."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back; only differences mean anything."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass; zero and negative values return at once."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)
