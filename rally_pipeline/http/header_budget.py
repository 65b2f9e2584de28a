"""Pacing by the server's own headers, so that processes share a limit without talking to each other.

Assumed is a fixed window: `X-RateLimit-Limit` requests until `X-RateLimit-Reset`, then as many again. The
shortest time for many requests is then to send at full speed until little is left, to wait for the reset, and
to go on; even pacing would waste the window that is open at the start. What other processes do shows in
`X-RateLimit-Remaining`, which falls faster than by the own requests.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque

from rally_pipeline.clock import Clock, SystemClock
from rally_pipeline.http.retry import TOO_MANY_REQUESTS
from rally_pipeline.http.server_clock import SHARP_SECONDS, ServerClock
from rally_pipeline.http.shortage import LONGEST_SHORTAGE, Shortage
from rally_pipeline.http.throttle import (
    LONGEST_WAIT,
    SHORTEST_WAIT,
    Quota,
    read_quota,
    server_seconds,
    server_wait,
)
from rally_pipeline.http.transport import LimitReached, Response
from rally_pipeline.http.waits import announce, moment

logger = logging.getLogger(__name__)

# What is left untouched of a window: a share of the limit, at least four (or a tenth), at most ten.
_RESERVED_SHARE = 0.02
_LEAST_RESERVE = 4
_LARGEST_RESERVE = 10
# The last requests above the reserve wait for moments at which their answers tell the server's time.
_TIMED = 4
# After this long without an answer, others may have used up what was left.
_STALE_SECONDS = 1.0
# Others' recent maximum, with a margin; it fades with every answer, and halves with every window.
_CAUTION = 1.25
_FADING = 0.98
_SAMPLES = 16
# A reset in whole seconds may be rounded down: the window then ends up to a second later.
_LONGEST_SLACK = 1.0
_SHORT_WINDOW = 30.0
_SLACK_STEP = 0.25
_EDGE_SECONDS = 0.005
_SHORTEST_SLEEP = 0.001
_LONGEST_NAP = 0.5


class OthersDemand:
    """How fast others use up the limit: the fall of `Remaining` that own requests do not explain."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=_SAMPLES)
        self._start = 0
        self._answered = 0
        self._rate = 0.0

    def begin_window(self, remaining: int, now: float) -> None:
        """The first answer of a window is here; what happened in the window before it is not judged."""
        self._start = remaining + 1
        self._answered = 1
        self._rate /= 2
        self._samples.clear()
        self._samples.append((now, 0))

    def observe(self, lowest_remaining: int, in_flight: int, now: float) -> None:
        """One more own answer in this window; `in_flight` own requests may or may not be counted already."""
        self._answered += 1
        used = max(self._samples[-1][1], self._start - lowest_remaining - self._answered - in_flight)
        first_at, first_used = self._samples[0]
        self._samples.append((now, used))
        if now > first_at:
            self._rate = max(self._rate * _FADING, (used - first_used) / (now - first_at))

    def within(self, seconds: float) -> int:
        """Requests that others may send within `seconds`, by their recent maximum."""
        return math.ceil(_CAUTION * self._rate * seconds)


class HeaderBudget:
    """Uses the limit to its edge, and sends no request that would be refused. Safe to use from several threads.

    - In a window, requests go at full speed until `Remaining`, less the own requests under way, comes down to
      a reserve: what others may send before the next answer, and at least a small share of the limit. The
      share is left for processes that start when the window is used up: they learn it from a 200, not a 429.
    - After the reset one request goes first and must show the new window before the others follow. As long as
      the exact moment is uncertain (rounded header, unsharp clock), the reserve pays for that request.
    - After a pause in which others may have used up everything, one request goes first as well.
    - A reset that is far ahead may be a mistake of the server: every 90 s one request asks again, for half an hour.
    - Without usable headers requests are not paced, apart from the wait after a 429.

    Args:
        clock: time; its monotonic seconds are those passed to `observe`.
        system: whose limit it is, for the log.
        shortage: what is known of one from other budgets of the same account.
    """

    def __init__(
        self, *, clock: Clock | None = None, system: str = "rate limit", shortage: Shortage | None = None
    ) -> None:
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._system = system
        self._changed = threading.Condition()
        self._server_clock = ServerClock()
        self._others = OthersDemand()
        self._quota: Quota | None = None
        self._paced = True
        self._in_flight = 0
        self._scout_since: float | None = None
        self._heard_at = -math.inf
        self._known_at = -math.inf
        self._began_by = math.inf
        self._period = math.inf
        self._slack = 0.0
        self._shut_at = -math.inf
        self._telling_at: float | None = None
        self._longest_view = 0.0
        self._blocked_until = -math.inf
        self._refusals = 0
        self._shortage = shortage if shortage is not None else Shortage()
        self._announced_end = -math.inf

    def __repr__(self) -> str:
        return f"HeaderBudget({self._quota})"

    def acquire(self, give_up_at: float = math.inf) -> float:
        """See `Budget.acquire`; a shortage that lasts from call to call is waited for 30 minutes in all."""
        waited = 0.0
        while True:
            with self._changed:
                now = self._clock.monotonic()
                delay = self.try_acquire(now)
                if delay == 0:
                    return waited
                if self._in_flight:
                    # An answer under way may change everything: it is waited for as well as the time.
                    self._changed.wait(min(delay, _LONGEST_NAP))
                    waited += self._clock.monotonic() - now
                    continue
                self._check_patience(now, delay, give_up_at)
                self._announce(now, delay)
            self._clock.sleep(delay)
            waited += delay

    def _check_patience(self, now: float, delay: float, give_up_at: float) -> None:
        since = self._shortage.since(now)
        if since is not None:
            give_up_at = min(give_up_at, since + LONGEST_SHORTAGE)
        if now + delay > give_up_at:
            raise LimitReached(self._reason())

    def _announce(self, now: float, delay: float) -> None:
        """Log the wait once, not for every thread."""
        if abs(now + delay - self._announced_end) > _LONGEST_SLACK:
            self._announced_end = now + delay
            announce(logger, self._clock, self._system, delay, self._reason())

    def _reason(self) -> str:
        """Why nothing is sent now."""
        quota = self._quota
        if self._refusals or quota is None:
            return "the server refused further requests (429)"
        return f"{quota.remaining:,} of {quota.limit:,} requests are left until {moment(quota.reset)}"

    def try_acquire(self, now: float) -> float:
        """0 if a request may be sent at monotonic second `now`; it then counts as under way.

        Otherwise the seconds after which to ask again; infinite while only an answer under way can tell.
        """
        with self._changed:
            delay, goes_first = self._judge(now)
            if delay > 0:
                return max(delay, _SHORTEST_SLEEP)
            self._in_flight += 1
            if goes_first:
                self._scout_since = now
            return 0.0

    def observe(self, response: Response | None, sent_at: float, received_at: float) -> None:
        """See `Budget.observe`."""
        with self._changed:
            self._in_flight -= 1
            scout = self._scout_since is not None and sent_at >= self._scout_since
            if scout:
                self._scout_since = None
            if response is None:
                self._count_one()
            else:
                self._heard_at = received_at
                self._learn(response, sent_at, received_at, scout=scout)
            self._changed.notify_all()

    def _judge(self, now: float) -> tuple[float, bool]:
        """The delay, and whether a request sent now goes first while all others wait for its answer."""
        if now < self._blocked_until:
            return self._blocked_until - now, False
        if self._scout_since is not None:
            return math.inf, False
        if self._refusals or (self._paced and self._quota is None):
            return 0.0, True
        quota = self._quota
        if quota is None:
            return 0.0, False
        opens = self._opens(quota)
        if now >= opens:
            return 0.0, True
        left = quota.remaining - self._in_flight
        silence = now - self._heard_at
        others = self._others.within(min(now - self._known_at, _STALE_SECONDS))
        spare = left - _reserve(quota.limit) - others
        if spare < 1:
            return self._await_reset(opens, now)
        self._shortage.end()
        if spare <= _TIMED and not self._server_clock.sharp:
            if self._telling_at is None:
                self._telling_at = self._server_clock.next_telling(now)
            if now < self._telling_at:
                return min(self._telling_at, opens) - now, False
            self._telling_at = None
        return 0.0, silence > _STALE_SECONDS and left < max(quota.limit / 2, self._others.within(silence))

    def _await_reset(self, opens: float, now: float) -> tuple[float, bool]:
        """As `_judge` where too little is left: until the reset, but in steps after which one request asks again."""
        ask_again = max(self._heard_at, self._shortage.note(now)) + LONGEST_WAIT
        return (0.0, True) if now >= ask_again else (min(opens, ask_again) - now, False)

    def _opens(self, quota: Quota) -> float:
        """The monotonic second at which to try the next window."""
        earliest, latest = self._server_clock.local(quota.reset)
        certain = max(latest, min(latest + _LONGEST_SLACK, self._began_by + self._period))
        left, reserve = quota.remaining - self._in_flight, _reserve(quota.limit)
        # Others try too: a second try at one reset is for who is alone with its reserve.
        tried = self._shut_at > latest - _LONGEST_SLACK
        if left >= (reserve - 1 if tried else reserve // 2 + 1) and self._longest_view <= _SHORT_WINDOW:
            # A second counts in a short window, and the reserve can pay for a try that comes too early.
            unsure = latest - max(earliest, self._shut_at - self._slack)
            early = unsure / 2 if unsure > SHARP_SECONDS and left >= reserve else 0.0
            certain = min(certain, latest + self._slack - early)
        return certain + _EDGE_SECONDS

    def _learn(self, response: Response, sent_at: float, received_at: float, *, scout: bool) -> None:
        date = server_seconds(response)
        if date is not None:
            self._server_clock.observe(date, sent_at, received_at)
        quota = read_quota(response)
        if response.status == TOO_MANY_REQUESTS:
            self._refusals += 1
            fallback = min(LONGEST_WAIT, SHORTEST_WAIT * 2.0 ** min(self._refusals, 10))
            self._blocked_until = received_at + (server_wait(response) or fallback)
        else:
            self._refusals = 0
        if quota is None or date is None:
            self._count_one()
            if response.status < 429 and (scout or self._quota is None):
                # A good answer without usable headers: the server does not say.
                self._quota, self._paced = None, False
            return
        self._paced = True
        self._longest_view = max(self._longest_view, quota.reset - date)
        self._place(quota, sent_at, received_at, scout=scout)
        self._known_at = max(self._known_at, sent_at)

    def _place(self, quota: Quota, sent_at: float, received_at: float, *, scout: bool) -> None:
        """Take in what an answer says about its window, which may be a new, the present, or a past one."""
        present = self._quota
        if present is not None and self._same_window(present, quota):
            lowest = min(present.remaining, quota.remaining)
            self._quota = Quota(quota.limit, lowest, max(present.reset, quota.reset), quota.exact)
            self._others.observe(lowest, self._in_flight, received_at)
            if scout:
                self._shut(sent_at, quota.reset)
            return
        if present is not None and quota.reset < present.reset and sent_at <= self._began_by:
            return
        if present is not None and quota.exact and present.exact and quota.reset > present.reset:
            self._period = min(self._period, quota.reset - present.reset)
        self._quota = quota
        self._began_by = received_at
        self._telling_at = None
        self._others.begin_window(quota.remaining, received_at)

    def _shut(self, sent_at: float, reset: float) -> None:
        """A request that was to open the next window came too early."""
        self._shut_at = sent_at
        late = sent_at - self._server_clock.local(reset)[1]
        if late >= 0:
            # By the server's own clock the reset has passed: the header is rounded down.
            self._slack = min(_LONGEST_SLACK, max(self._slack, late) + _SLACK_STEP)

    def _same_window(self, present: Quota, quota: Quota) -> bool:
        if present.exact and quota.exact:
            return present.reset == quota.reset
        near = abs(present.reset - quota.reset) <= 1.5
        return near and quota.remaining <= present.remaining + self._in_flight + 1

    def _count_one(self) -> None:
        """A request that nothing is known of may have been counted by the server."""
        quota = self._quota
        if quota is not None:
            self._quota = Quota(quota.limit, max(0, quota.remaining - 1), quota.reset, quota.exact)


def _reserve(limit: int) -> int:
    least = min(_LEAST_RESERVE, limit // 10)
    return min(_LARGEST_RESERVE, max(least, round(_RESERVED_SHARE * limit)))
