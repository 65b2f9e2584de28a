"""Rate limits of the simulated APIs: fixed windows that announce themselves in `X-RateLimit-*` headers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal, Protocol

RetryAfter = Literal["none", "seconds", "date"]
ResetUnit = Literal["seconds", "milliseconds", "delta"]


@dataclass(frozen=True, slots=True)
class Admission:
    """What a limiter says of one request: whether it may pass, the headers for its answer, the seconds
    until it may.
    """

    allowed: bool
    headers: dict[str, str] = field(default_factory=dict)
    wait_seconds: float = 0.0


class Limiter(Protocol):
    """Counts the requests of one API."""

    def admit(self, at: datetime) -> Admission:
        """Count one request that arrives at `at`; it is refused when the budget is spent."""
        ...

    def spend(self, requests: int, at: datetime) -> None:
        """Let other users of the same budget make `requests` requests."""
        ...


class Unlimited:
    """No limit and no headers."""

    def admit(self, at: datetime) -> Admission:
        del at
        return Admission(True)

    def spend(self, requests: int, at: datetime) -> None:
        del requests, at


class FixedWindow:
    """At most `limit` requests in each window of `window_seconds`.

    `aligned` windows begin at whole multiples of their length on the wall clock; others begin with the
    first request after the last one ended. `foreign_per_second` is the traffic of other integrations that
    share the budget. `reset_unit` and `retry_after` set how `X-RateLimit-Reset` is written and whether a
    refusal also carries `Retry-After`. A limit of 0 or less refuses everything. All settings may be changed
    at any time.
    """

    def __init__(
        self,
        limit: int,
        window_seconds: float = 60.0,
        *,
        aligned: bool = True,
        announce: bool = True,
        reset_unit: ResetUnit = "seconds",
        retry_after: RetryAfter = "none",
        foreign_per_second: float = 0.0,
    ) -> None:
        if window_seconds <= 0:
            raise ValueError("a rate window must be longer than 0 seconds")
        self.limit = limit
        self.window_seconds = window_seconds
        self.aligned = aligned
        self.announce = announce
        self.reset_unit = reset_unit
        self.retry_after = retry_after
        self.foreign_per_second = foreign_per_second
        self._start: float | None = None
        self._used = 0
        self._foreign = 0.0

    def admit(self, at: datetime) -> Admission:
        moment = at.timestamp()
        self._roll(moment)
        used = self._used + int(self._foreign)
        allowed = used < self.limit
        if allowed:
            self._used += 1
            used += 1
        end = self._end()
        wait = 0.0 if allowed else max(0.0, end - moment)
        return Admission(allowed, self._headers(at, used, end, wait, allowed), wait)

    def spend(self, requests: int, at: datetime) -> None:
        self._roll(at.timestamp())
        self._used += requests

    def has_room(self, at: datetime) -> bool:
        """Whether a request that arrives at `at` would pass."""
        self._roll(at.timestamp())
        return self.remaining > 0

    @property
    def remaining(self) -> int:
        """Requests left in the window as of the last request."""
        return max(0, self.limit - self._used - int(self._foreign))

    def _roll(self, moment: float) -> None:
        start = self._start
        if start is None or moment >= start + self.window_seconds or moment < start:
            whole = math.floor(moment / self.window_seconds) * self.window_seconds
            start = self._start = whole if self.aligned else moment
            self._used = 0
        self._foreign = (moment - start) * self.foreign_per_second

    def _end(self) -> float:
        return (self._start or 0.0) + self.window_seconds

    def _headers(self, at: datetime, used: int, end: float, wait: float, allowed: bool) -> dict[str, str]:
        headers: dict[str, str] = {}
        if self.announce:
            if self.reset_unit == "milliseconds":
                reset = math.ceil(end * 1000)
            elif self.reset_unit == "delta":
                reset = math.ceil(end - at.timestamp())
            else:
                reset = math.ceil(end)
            headers["X-RateLimit-Limit"] = str(self.limit)
            headers["X-RateLimit-Remaining"] = str(max(0, self.limit - used))
            headers["X-RateLimit-Reset"] = str(reset)
        if not allowed and self.retry_after == "seconds":
            headers["Retry-After"] = str(math.ceil(wait))
        elif not allowed and self.retry_after == "date":
            headers["Retry-After"] = format_datetime(datetime.fromtimestamp(math.ceil(end), UTC), usegmt=True)
        return headers


class SeveralWindows:
    """Several limits at once, such as 10 a second and 36,000 an hour.

    A request that one of them refuses counts in none. The headers are those of the one that refuses, else of
    the first one.
    """

    def __init__(self, windows: Sequence[FixedWindow]) -> None:
        if not windows:
            raise ValueError("at least one window is needed")
        self.windows = tuple(windows)

    def admit(self, at: datetime) -> Admission:
        full = next((window for window in self.windows if not window.has_room(at)), None)
        if full is not None:
            return full.admit(at)
        admissions = [window.admit(at) for window in self.windows]
        return admissions[0]

    def spend(self, requests: int, at: datetime) -> None:
        for window in self.windows:
            window.spend(requests, at)
