"""When a call is repeated: how often, how long, and when a server is left alone."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from random import Random

from rally_pipeline.http.errors import BadAnswer, OversizedAnswer
from rally_pipeline.http.shortage import Shortage
from rally_pipeline.http.throttle import LONGEST_WAIT, failure_wait, server_wait
from rally_pipeline.http.transport import Response, TransportFailure

TOO_MANY_REQUESTS = 429
_REPEATABLE_STATUSES = frozenset({408, 425})
_NOT_IMPLEMENTED = frozenset({501, 505})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds of the one retry layer.

    Attributes:
        max_attempts: sends of one call; waits after a 429 do not count.
        total_seconds: from the call to the start of its last attempt, waits for the rate limit included. A limit that
            goes on from call to call is waited for no longer in all.
        base_seconds, cap_seconds: backoff is `base * 2 ** n` up to the cap, half of it random (equal jitter).
        also_retry: further statuses that a GET repeats, such as 409 where a system throttles with it.
    """

    max_attempts: int = 4
    total_seconds: float = 1800.0
    base_seconds: float = 0.5
    cap_seconds: float = 20.0
    also_retry: frozenset[int] = frozenset()

    def is_failure(self, method: str, status: int) -> bool:
        """Whether an answer with this status says that the server failed, so that another attempt may help."""
        if status >= 500:
            return status not in _NOT_IMPLEMENTED
        return status in _REPEATABLE_STATUSES or (method == "GET" and status in self.also_retry)

    def backoff(self, failures: int, response: Response | None, rng: Random) -> float:
        """Seconds to wait after the `failures`-th failed attempt (1 is the first)."""
        wait = self._equal_jitter(failures, rng)
        asked = failure_wait(response) if response is not None else None
        return wait if asked is None else asked + wait

    def throttle_wait(self, throttled: int, response: Response, rng: Random) -> float:
        """Seconds to wait after the `throttled`-th 429 in a row: what the server asks, and a little more.

        Without a word from the server it is the backoff with a longer base, because limits are counted in
        minutes and the attempts must not all fall into one window.
        """
        asked = server_wait(response)
        if asked is not None:
            return asked + rng.random() * min(1.0, 0.1 * asked)
        return self._equal_jitter(throttled + 2, rng, LONGEST_WAIT)

    def _equal_jitter(self, count: int, rng: Random, cap: float | None = None) -> float:
        full = min(cap or self.cap_seconds, self.base_seconds * 2.0 ** min(count - 1, 16))
        return full / 2 + rng.random() * full / 2


class RetryBucket:
    """Keeps retries at a tenth of the calls to one host, and leaves a host alone that fails all the time.

    Every call pays a tenth of a token in, every retry takes one out. After `threshold` failures in a row only
    one probe per `probe_seconds` is sent. `refusals` is what is known of 429 from other clients of the same account.
    Safe to use from several threads.
    """

    def __init__(
        self,
        *,
        capacity: float = 10.0,
        share: float = 0.1,
        threshold: int = 10,
        probe_seconds: float = 5.0,
        refusals: Shortage | None = None,
    ) -> None:
        self._capacity = capacity
        self._tokens = capacity
        self._share = share
        self._threshold = threshold
        self._probe_seconds = probe_seconds
        self._failures = 0
        self._next_probe = 0.0
        self._refusals = refusals if refusals is not None else Shortage()
        self._lock = threading.Lock()

    def enter(self, now: float) -> float:
        """Start a call at monotonic second `now`: 0 to go on, else the seconds for which none is sent."""
        with self._lock:
            self._tokens = min(self._capacity, self._tokens + self._share)
            if self._failures >= self._threshold:
                if now < self._next_probe:
                    return self._next_probe - now
                self._next_probe = now + self._probe_seconds
            return 0.0

    def take(self) -> bool:
        """Pay for one retry; False when there is nothing left or the host is to be left alone."""
        with self._lock:
            if self._tokens < 1 or self._failures >= self._threshold:
                return False
            self._tokens -= 1
            return True

    def throttle(self, now: float) -> float:
        """Count a 429; returns the monotonic second of the first one since any other answer."""
        with self._lock:
            self._failures = 0
            return self._refusals.note(now)

    def record(self, ok: bool, now: float) -> None:
        """Count the end of one attempt; any answer below 500 is a sign of life."""
        with self._lock:
            if ok:
                self._failures = 0
                self._refusals.end()
                return
            self._failures += 1
            if self._failures >= self._threshold:
                self._next_probe = now + self._probe_seconds


class Attempts:
    """The attempts of one call.

    Args:
        now: the monotonic second at which the call begins.

    Attributes:
        sent: whether any attempt so far may have been applied by the server.
        give_up_at: the monotonic second after which no further attempt starts.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        method: str,
        bucket: RetryBucket,
        rng: Random,
        *,
        may_repeat: bool,
        now: float,
    ) -> None:
        self.sent = False
        self.give_up_at = now + policy.total_seconds
        self._policy = policy
        self._method = method
        self._bucket = bucket
        self._rng = rng
        self._may_repeat = may_repeat
        self._failures = 0
        self._throttled = 0

    def wait_after(
        self, outcome: Response | TransportFailure, now: float, refusal: BadAnswer | None = None
    ) -> float | None:
        """Seconds to wait before the next attempt; None when `outcome` is final.

        `refusal`: why the content of a 2xx cannot be used.
        """
        if isinstance(outcome, Response):
            if outcome.status == TOO_MANY_REQUESTS:
                return self._wait_for_limit(outcome, now)
            if refusal is not None:
                # The server lives, and only reading again is sure to be harmless.
                self._bucket.record(ok=True, now=now)
                passing = self._method == "GET" and not isinstance(refusal, OversizedAnswer)
                return self._wait_after_failure(outcome, now, passing=passing)
            if not self._policy.is_failure(self._method, outcome.status):
                self._bucket.record(ok=True, now=now)
                return None
            self._bucket.record(ok=False, now=now)
            return self._wait_after_failure(outcome, now, passing=True)
        self._bucket.record(ok=False, now=now)
        return self._wait_after_failure(outcome, now, passing=not outcome.lasting)

    def _wait_for_limit(self, response: Response, now: float) -> float | None:
        since = self._bucket.throttle(now)
        self._throttled += 1
        wait = self._policy.throttle_wait(self._throttled, response, self._rng)
        latest = min(self.give_up_at, since + self._policy.total_seconds)
        return wait if self._may_repeat and now + wait <= latest else None

    def _wait_after_failure(
        self, outcome: Response | TransportFailure, now: float, *, passing: bool
    ) -> float | None:
        response = outcome if isinstance(outcome, Response) else None
        self.sent = (
            self.sent or response is not None or (isinstance(outcome, TransportFailure) and outcome.sent)
        )
        self._failures += 1
        self._throttled = 0
        if not (passing and self._may_repeat) or self._failures >= self._policy.max_attempts:
            return None
        wait = self._policy.backoff(self._failures, response, self._rng)
        return wait if now + wait <= self.give_up_at and self._bucket.take() else None
