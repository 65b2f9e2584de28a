"""Faults in the status line and the headers of an answer."""

from __future__ import annotations

from datetime import timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import Literal

from .fault import Exchange, FaultFunction
from .wire import Answer

BodyForm = Literal["json", "html", "text", "empty"]
RATE_HEADERS = frozenset({"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"})
ThrottleForm = Literal[
    "seconds", "date", "reset", "reset_ms", "reset_past", "reset_delta", "nothing", "as_announced"
]


def error_answer(status: int, body: BodyForm = "json") -> Answer:
    """An error as some server or proxy on the way would write it."""
    if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return Answer.empty(status)
    phrase = HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else "Unknown"
    if body == "json":
        return Answer.json({"title": phrase, "status": status}, status)
    if body == "html":
        page = f"<html><head><title>{status} {phrase}</title></head><body><h1>{phrase}</h1></body></html>"
        return Answer.text(page, status, "text/html; charset=utf-8")
    if body == "text":
        return Answer.text(phrase, status)
    return Answer.empty(status)


def status_fault(status: int, *, applied: bool) -> FaultFunction:
    """The fault `status_NNN` or `applied_NNN`."""

    def play(exchange: Exchange, *, body: BodyForm = "json") -> Answer:
        if applied:
            exchange.apply()
        return error_answer(status, body)

    return play


def html_503(_exchange: Exchange) -> Answer:
    """A proxy's page for a server that is down."""
    return error_answer(503, "html")


def unauthorized(_exchange: Exchange) -> Answer:
    """The key was revoked."""
    return error_answer(401)


def forbidden(_exchange: Exchange) -> Answer:
    """The key lacks the scope."""
    return error_answer(403)


def hidden(_exchange: Exchange) -> Answer:
    """The endpoint does not exist: a plain 404 without a word on a record."""
    return error_answer(404, "empty")


def redirect(
    _exchange: Exchange, *, status: int = 302, location: str = "http://127.0.0.2:9/elsewhere"
) -> Answer:
    """The server sends the client elsewhere."""
    return Answer(status, {"Location": location})


def throttle(
    exchange: Exchange, *, form: ThrottleForm = "seconds", seconds: float = 7, retry_after: str | None = None
) -> Answer:
    """A 429 that tells the wait in one of many ways; `retry_after` writes that header literally (`-5`,
    `abc`, `1e9`).
    """
    answer = error_answer(429)
    if form == "as_announced":
        return answer
    answer.without = RATE_HEADERS
    end = exchange.call.at + timedelta(seconds=seconds)
    reset = {
        "reset": int(end.timestamp()),
        "reset_ms": int(end.timestamp() * 1000),
        "reset_past": int((exchange.call.at - timedelta(seconds=seconds)).timestamp()),
        "reset_delta": int(seconds),
    }
    if retry_after is not None:
        answer.headers["Retry-After"] = retry_after
    elif form == "seconds":
        answer.headers["Retry-After"] = str(int(seconds))
    elif form == "date":
        answer.headers["Retry-After"] = format_datetime(end, usegmt=True)
    elif form in reset:
        answer.headers |= {
            "X-RateLimit-Limit": "1000",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": str(reset[form]),
        }
    return answer


def always_429(_exchange: Exchange) -> Answer:
    """A 429 with the API's usual headers; meant to be added with `times=None`."""
    return error_answer(429)


def date_skew(exchange: Exchange, *, seconds: float = 7200.0) -> Answer:
    """The `Date` header is off by `seconds`."""
    answer = exchange.apply()
    answer.headers["Date"] = format_datetime(exchange.call.at + timedelta(seconds=seconds), usegmt=True)
    return answer


def bad_date(exchange: Exchange) -> Answer:
    """The `Date` header is no date."""
    answer = exchange.apply()
    answer.headers["Date"] = "yesterday"
    return answer


def no_date(exchange: Exchange) -> Answer:
    """No `Date` header."""
    answer = exchange.apply()
    answer.without |= {"Date"}
    return answer


def no_rate_headers(exchange: Exchange) -> Answer:
    """The `X-RateLimit-*` headers are missing, as on a proxy's answer."""
    answer = exchange.apply()
    answer.without |= RATE_HEADERS
    return answer


def bad_rate_headers(exchange: Exchange) -> Answer:
    """The `X-RateLimit-*` headers hold no numbers."""
    answer = exchange.apply()
    answer.headers |= dict.fromkeys(RATE_HEADERS, "many")
    return answer


def unmarked(exchange: Exchange) -> Answer:
    """The answer does not say that it comes from a sandbox."""
    answer = exchange.apply()
    answer.without |= {"X-Sandbox"}
    return answer


STATUS_FAULTS: dict[str, FaultFunction] = {
    play.__name__: play
    for play in (
        html_503,
        unauthorized,
        forbidden,
        hidden,
        redirect,
        throttle,
        always_429,
        date_skew,
        bad_date,
        no_date,
        no_rate_headers,
        bad_rate_headers,
        unmarked,
    )
}
