"""Rate limit headers as servers write them, and as they should not."""

from __future__ import annotations

import pytest

from rally_pipeline.http.throttle import Quota, read_number, read_quota, server_wait
from rally_pipeline.http.transport import Response, parse_http_date
from tests.http.fakes import DATE, START_SECONDS

NOW = int(START_SECONDS)


def quota(
    limit: str | None, remaining: str | None, reset: str | None, date: str | None = DATE
) -> Quota | None:
    named = {
        "X-RateLimit-Limit": limit,
        "X-RateLimit-Remaining": remaining,
        "X-RateLimit-Reset": reset,
        "Date": date,
    }
    return read_quota(Response(200, {name: value for name, value in named.items() if value is not None}))


@pytest.mark.parametrize(
    ("reset", "seconds", "exact"),
    [
        (str(NOW + 42), NOW + 42, True),
        (str(NOW), NOW, True),
        (f"{NOW + 42}.25", NOW + 42.25, True),
        (f" {NOW + 42} ", NOW + 42, True),
        (str((NOW + 42) * 1000 + 250), NOW + 42.25, True),
        ("42", NOW + 42, False),
        ("0", NOW, False),
        ("1.5", NOW + 1.5, False),
    ],
)
def test_reset_in_seconds_milliseconds_or_from_now(reset: str, seconds: float, exact: bool) -> None:
    assert quota("1000", "7", reset) == Quota(1000, 7, seconds, exact)


@pytest.mark.parametrize(
    ("limit", "remaining", "reset"),
    [
        (None, "7", str(NOW + 42)),
        ("1000", None, str(NOW + 42)),
        ("1000", "7", None),
        ("many", "7", str(NOW + 42)),
        ("1000", "", str(NOW + 42)),
        ("1000", "1e400", str(NOW + 42)),
        ("0", "0", str(NOW + 42)),
        ("1000", "1001", str(NOW + 42)),
        ("1000", "7", "soon"),
        ("1000", "7", "nan"),
        ("1000", "7", "inf"),
        ("1000", "7", "-1"),
        ("1000", "7", str(NOW - 100)),
        ("1000", "7", str(NOW + 100_000)),
        ("1000", "7", "9" * 30),
        ("1000", "7", "2026-03-03T10:00:42Z"),
    ],
)
def test_headers_that_cannot_be_used(limit: str | None, remaining: str | None, reset: str | None) -> None:
    assert quota(limit, remaining, reset) is None


def test_a_negative_remaining_is_none_left() -> None:
    assert quota("1000", "-3", str(NOW + 42)) == Quota(1000, 0, NOW + 42, True)


def test_without_a_date_only_an_absolute_reset_is_known() -> None:
    assert quota("1000", "7", str(NOW + 42), None) == Quota(1000, 7, NOW + 42, True)
    assert quota("1000", "7", "42", None) is None


def test_no_wait_is_read_from_a_reset_without_a_date() -> None:
    assert server_wait(Response(429, {"X-RateLimit-Reset": str(NOW + 42)})) is None
    assert server_wait(Response(429, {"Retry-After": DATE})) is None
    assert server_wait(Response(429, {"Retry-After": "42"})) == 42


@pytest.mark.parametrize("text", [None, "", "x", "1e400", "nan", "-inf", "1" * 25, "0x10", "1_0 0", "１２"])
def test_numbers_that_are_none(text: str | None) -> None:
    number = read_number(text)
    assert number is None or abs(number) < 1e18


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "yesterday",
        "Tue, 99 Mar 2026 10:00:00 GMT",
        "Tue, 03 Mar 99999 10:00:00 GMT",
        "\0",
        "x" * 10_000,
        "Tue, 03 Mar 2026 25:00:00 GMT",
        "0",
    ],
)
def test_dates_that_are_none(text: str | None) -> None:
    assert parse_http_date(text) is None


@pytest.mark.parametrize(
    "text",
    [
        DATE,
        "Tue, 03 Mar 2026 10:00:00 +0000",
        "03 Mar 2026 11:00:00 +0100",
        "Tuesday, 03-Mar-26 10:00:00 GMT",
        "Tue Mar  3 10:00:00 2026",
    ],
)
def test_dates_in_every_form_of_the_standard(text: str) -> None:
    assert parse_http_date(text).timestamp() == NOW  # type: ignore[union-attr]
