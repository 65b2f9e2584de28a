"""What an answer says about the rate limit: how long to wait, how much is left, when it starts anew."""

from __future__ import annotations

from dataclasses import dataclass

from rally_pipeline.http.transport import Response, parse_http_date

SHORTEST_WAIT = 1.0
LONGEST_WAIT = 90.0
_MILLISECONDS = 1e11
_DELTA = 1e8
_LONGEST_NUMBER = 24


@dataclass(frozen=True, slots=True)
class Quota:
    """The rate limit as one answer states it.

    Attributes:
        limit: requests in a window.
        remaining: how many of them are left, this answer's own request already taken off.
        reset: when the window ends, in Unix seconds of the server's clock.
        exact: whether the same window always states the same `reset` (False when it is stated as a delta).
    """

    limit: int
    remaining: int
    reset: float
    exact: bool


def read_number(text: str | None) -> float | None:
    """A finite decimal number of a header, None if absent or garbage."""
    if text is None or len(text) > _LONGEST_NUMBER:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < 1e18 else None  # also refuses nan and the infinities


def server_seconds(response: Response) -> float | None:
    """The `Date` header in Unix seconds, None if absent or garbage."""
    time = response.server_time
    return None if time is None else time.timestamp()


def read_reset(response: Response) -> tuple[float, bool] | None:
    """`X-RateLimit-Reset` in Unix seconds of the server's clock, and whether it was stated as such.

    Seconds, milliseconds (above 1e11) and seconds from now (below 1e8) are told apart by their size. None if
    the header is absent or garbage, or says nothing of use: past, or more than a day ahead.
    """
    number = read_number(response.headers.get("x-ratelimit-reset"))
    now = server_seconds(response)
    if number is None or number < 0:
        return None
    exact = number >= _DELTA
    if not exact:
        if now is None:
            return None
        number += now
    elif number > _MILLISECONDS:
        number /= 1000
    if now is not None and not now - 1 <= number <= now + 86_400:
        return None
    return number, exact


def read_quota(response: Response) -> Quota | None:
    """The three `X-RateLimit-*` headers, None unless all of them can be used."""
    limit = read_number(response.headers.get("x-ratelimit-limit"))
    remaining = read_number(response.headers.get("x-ratelimit-remaining"))
    reset = read_reset(response)
    if limit is None or remaining is None or reset is None or limit < 1 or remaining > limit:
        return None
    return Quota(int(limit), max(0, int(remaining)), *reset)


def server_wait(response: Response) -> float | None:
    """Seconds after which to ask again: what a 429 asks to wait, clamped to 1 to 90; None if it does not say."""
    return _clamped(stated_wait(response))


def failure_wait(response: Response) -> float | None:
    """The same of an answer that is not about the rate limit, whose reset then says nothing: `Retry-After` alone."""
    return _clamped(_retry_after(response))


def stated_wait(response: Response) -> float | None:
    """Seconds that a 429 asks to wait, as it says them; None if it does not.

    `Retry-After` as seconds or as a date, else `X-RateLimit-Reset`; both dates are taken against the `Date`
    header of the same answer, never against the local clock.
    """
    seconds = _retry_after(response)
    if seconds is not None:
        return seconds
    now, reset = server_seconds(response), read_reset(response)
    seconds = reset[0] - now if reset is not None and now is not None else None
    return None if seconds is None or seconds < 0 else seconds


def _retry_after(response: Response) -> float | None:
    stated = response.headers.get("retry-after")
    now = server_seconds(response)
    seconds = read_number(stated)
    if seconds is None and now is not None and (date := parse_http_date(stated)) is not None:
        seconds = date.timestamp() - now
    return None if seconds is None or seconds < 0 else seconds


def _clamped(seconds: float | None) -> float | None:
    return None if seconds is None else min(LONGEST_WAIT, max(SHORTEST_WAIT, seconds))
