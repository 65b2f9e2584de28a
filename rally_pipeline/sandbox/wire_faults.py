"""Faults in the delivery of an answer: the server did or did not apply the request, and the bytes go
astray.
"""

from __future__ import annotations

from .fault import Exchange, FaultFunction
from .wire import Answer, Delivery, WireFault


def _unanswered(exchange: Exchange, delivery: Delivery, applied: bool, seconds: float = 0.0) -> Answer:
    answer = exchange.apply() if applied else Answer(0)
    answer.fault = WireFault(delivery, seconds=seconds)
    return answer


def _delivered(exchange: Exchange, fault: WireFault) -> Answer:
    answer = exchange.apply()
    answer.fault = fault
    return answer


def reset_before_headers(exchange: Exchange, *, applied: bool = False) -> Answer:
    """The connection is reset before a byte of the answer."""
    return _unanswered(exchange, Delivery.RESET_BEFORE_HEADERS, applied)


def close_before_headers(exchange: Exchange, *, applied: bool = False) -> Answer:
    """The connection is closed properly before a byte of the answer, as a keep-alive connection that timed
    out.
    """
    return _unanswered(exchange, Delivery.CLOSE_BEFORE_HEADERS, applied)


def lost_answer(exchange: Exchange) -> Answer:
    """The request is applied, then the connection is reset without an answer."""
    return _unanswered(exchange, Delivery.RESET_BEFORE_HEADERS, True)


def cut_headers(exchange: Exchange) -> Answer:
    """The connection closes within the headers."""
    return _delivered(exchange, WireFault(Delivery.CUT_HEADERS))


def reset_in_body(exchange: Exchange, *, at: int | None = None) -> Answer:
    """Content-Length promises the whole body, a reset comes after `at` bytes."""
    return _delivered(exchange, WireFault(Delivery.RESET_IN_BODY, at))


def cut_body(exchange: Exchange, *, at: int | None = None) -> Answer:
    """Content-Length promises the whole body, the connection closes after `at` bytes."""
    return _delivered(exchange, WireFault(Delivery.CUT_BODY, at))


def cut_chunked(exchange: Exchange, *, at: int | None = None) -> Answer:
    """A chunked body whose last chunk never comes."""
    return _delivered(exchange, WireFault(Delivery.CUT_CHUNKED, at))


def cut_close_delimited(exchange: Exchange, *, at: int | None = None) -> Answer:
    """A body without a length that ends early with the connection: to HTTP it looks complete."""
    return _delivered(exchange, WireFault(Delivery.CUT_CLOSE_DELIMITED, at))


def chunked(exchange: Exchange) -> Answer:
    """No fault: the body comes whole, in chunks."""
    return _delivered(exchange, WireFault(Delivery.CHUNKED))


def close_delimited(exchange: Exchange) -> Answer:
    """No fault: the body comes whole, without a length."""
    return _delivered(exchange, WireFault(Delivery.CLOSE_DELIMITED))


def stall(exchange: Exchange, *, seconds: float = 60.0, applied: bool = True) -> Answer:
    """Silence for `seconds` before the answer; not `applied`: silence, then the connection closes."""
    if not applied:
        return _unanswered(exchange, Delivery.STALL, False, seconds)
    return _delivered(exchange, WireFault(Delivery.STALL, seconds=seconds))


def stall_body(exchange: Exchange, *, seconds: float = 60.0, at: int | None = None) -> Answer:
    """Silence for `seconds` after `at` bytes of the body."""
    return _delivered(exchange, WireFault(Delivery.STALL_BODY, at, seconds))


def drip_headers(exchange: Exchange, *, seconds: float = 1.0) -> Answer:
    """The headers come one byte every `seconds`."""
    return _delivered(exchange, WireFault(Delivery.DRIP_HEADERS, seconds=seconds))


def drip_body(exchange: Exchange, *, seconds: float = 1.0) -> Answer:
    """The body comes one byte every `seconds`: no read timeout ever fires."""
    return _delivered(exchange, WireFault(Delivery.DRIP_BODY, seconds=seconds))


def close_after(exchange: Exchange) -> Answer:
    """The answer is whole; the keep-alive connection is then closed without having been announced."""
    return _delivered(exchange, WireFault(Delivery.CLOSE_AFTER))


def interim(exchange: Exchange) -> Answer:
    """Two 1xx answers come before the real one."""
    return _delivered(exchange, WireFault(Delivery.INTERIM))


def second_answer(exchange: Exchange) -> Answer:
    """A second whole answer follows on the connection, unasked."""
    return _delivered(exchange, WireFault(Delivery.SECOND_ANSWER))


def unsolicited(exchange: Exchange) -> Answer:
    """Bytes that are no HTTP follow the answer."""
    return _delivered(exchange, WireFault(Delivery.UNSOLICITED))


def duplicate_headers(exchange: Exchange) -> Answer:
    """Content-Type, Date and X-RateLimit-Remaining come twice, with other values the second time."""
    return _delivered(exchange, WireFault(Delivery.DUPLICATE_HEADERS))


def endless_headers(exchange: Exchange, *, size: int = 4_000_000) -> Answer:
    """`size` bytes of further headers."""
    return _delivered(exchange, WireFault(Delivery.ENDLESS_HEADERS, size=size))


def huge_body(exchange: Exchange, *, size: int = 200_000_000) -> Answer:
    """A body of `size` bytes: a JSON array with one endless string."""
    return _delivered(exchange, WireFault(Delivery.HUGE_BODY, size=size))


WIRE_FAULTS: dict[str, FaultFunction] = {
    play.__name__: play
    for play in (
        reset_before_headers,
        close_before_headers,
        lost_answer,
        cut_headers,
        reset_in_body,
        cut_body,
        cut_chunked,
        cut_close_delimited,
        chunked,
        close_delimited,
        stall,
        stall_body,
        drip_headers,
        drip_body,
        close_after,
        interim,
        second_answer,
        unsolicited,
        duplicate_headers,
        endless_headers,
        huge_body,
    )
}
