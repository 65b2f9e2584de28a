"""Pacing by known rates, for servers whose answers do not say how much is left."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from rally_pipeline.clock import Clock, SystemClock
from rally_pipeline.http.retry import TOO_MANY_REQUESTS
from rally_pipeline.http.throttle import server_wait
from rally_pipeline.http.transport import LimitReached, Response
from rally_pipeline.http.waits import announce

logger = logging.getLogger(__name__)

_SLICES = 200
_SAME_BOOT_SECONDS = 60.0


class _State(msgspec.Struct):
    """What was granted, in monotonic seconds.

    Attributes:
        grants: per rate, pairs of (latest grant of a slice, number of grants in it), in order of time.
        blocked_until: before this the server refuses.
        boot: wall clock minus monotonic clock; after a restart of the machine the seconds mean nothing.
    """

    grants: list[list[tuple[float, int]]]
    blocked_until: float = 0.0
    boot: float = 0.0


class TokenBudget:
    """Never more than `count` requests in any span of `seconds`, for each of the rates. Safe to use from threads.

    That is stricter than a token bucket that starts full, and as strict as a server needs it that counts in
    fixed or in sliding windows; bursts up to `count` are allowed. Requests get their turns in the order asked.

    Args:
        rates: pairs of (count, seconds), such as `[(100, 60), (20, 1)]`.
        state_path: a file that processes of one machine share the rates by (POSIX file lock; it is created with
            mode 0600). None: the rates are this object's alone.
        allowance_seconds: added to each span, because requests sent a span apart may arrive closer together.
        system: whose limit it is, for the log.
    """

    def __init__(
        self,
        rates: Sequence[tuple[int, float]],
        *,
        clock: Clock | None = None,
        state_path: Path | None = None,
        allowance_seconds: float = 0.1,
        system: str = "rate limit",
    ) -> None:
        if not rates or any(count < 1 or seconds <= 0 for count, seconds in rates):
            raise ValueError("a rate is a positive count and a positive number of seconds")
        self._rates = [(count, seconds + allowance_seconds) for count, seconds in rates]
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._path = state_path
        self._system = system
        self._lock = threading.Lock()
        self._state = self._empty()

    def __repr__(self) -> str:
        return f"TokenBudget({self._rates})"

    def acquire(self, give_up_at: float = math.inf) -> float:
        """See `Budget.acquire`."""
        waited = 0.0
        while True:
            with self._exclusive() as state:
                now = self._clock.monotonic()
                turn = self._next_turn(state, now)
                if turn > give_up_at:
                    raise LimitReached(f"the next request may be sent in {turn - now:.0f} s only")
                self._grant(state, turn)
            if turn <= now:
                return waited
            reason = (
                "the server refused further requests" if state.blocked_until >= turn else "its rate limit"
            )
            announce(logger, self._clock, self._system, turn - now, reason)
            self._clock.sleep(turn - now)
            waited += turn - now
            with self._exclusive() as state:
                if state.blocked_until <= self._clock.monotonic():
                    return waited
            # The server refused somebody meanwhile: this turn is void, queue for another.

    def observe(self, response: Response | None, sent_at: float, received_at: float) -> None:  # noqa: ARG002
        """See `Budget.observe`: after a 429, nobody who shares the rates sends before the server's wait is over."""
        if response is None or response.status != TOO_MANY_REQUESTS:
            return
        wait = server_wait(response)
        if wait is not None:
            with self._exclusive() as state:
                state.blocked_until = max(state.blocked_until, received_at + wait)

    def _empty(self) -> _State:
        return _State(grants=[[] for _ in self._rates])

    def _next_turn(self, state: _State, now: float) -> float:
        """The earliest second at which one more grant keeps every rate, after all grants given so far."""
        turn = max(now, state.blocked_until)
        for (count, seconds), grants in zip(self._rates, state.grants, strict=True):
            if grants:
                turn = max(turn, grants[-1][0])
            room = count
            for latest, granted in reversed(grants):
                room -= granted
                if room < 1:
                    turn = max(turn, latest + seconds)
                    break
        return turn

    def _grant(self, state: _State, turn: float) -> None:
        for (_, seconds), grants in zip(self._rates, state.grants, strict=True):
            # Grants of one slice are kept as one, all at the time of the latest: they leave the span late.
            width = seconds / _SLICES
            if grants and grants[-1][0] // width == turn // width:
                grants[-1] = (turn, grants[-1][1] + 1)
            else:
                grants.append((turn, 1))
            while grants[0][0] + seconds < turn:
                del grants[0]

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[_State]:
        """The state, shared with nobody else inside the block; written back at its end."""
        with self._lock:
            if self._path is None:
                yield self._state
                return
            import fcntl

            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                before = file.read()
                state = self._parse(before)
                yield state
                after = msgspec.json.encode(state)
                if after != before:
                    file.seek(0)
                    file.write(after)
                    file.truncate()

    def _parse(self, text: bytes) -> _State:
        """The stored state; an empty one if it is damaged, of other rates, or from before a restart."""
        boot = self._clock.now().timestamp() - self._clock.monotonic()
        try:
            state = msgspec.json.decode(text, type=_State)
        except msgspec.MsgspecError:
            state = self._empty()
        if len(state.grants) != len(self._rates) or abs(state.boot - boot) > _SAME_BOOT_SECONDS:
            state = self._empty()
            state.boot = boot
        return state
