"""Rate limits and the headers that announce them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rally_pipeline.sandbox import FixedWindow, SeveralWindows, Unlimited
from rally_pipeline.sandbox.limiter import Admission, Limiter

NOON = datetime(2026, 1, 1, 12, 0, 20, tzinfo=UTC)


def ask(limiter: Limiter, times: int, at: datetime = NOON) -> list[Admission]:
    return [limiter.admit(at) for _ in range(times)]


def test_window_admits_exactly_its_limit_and_counts_down() -> None:
    admissions = ask(FixedWindow(3), 4)
    assert [admission.allowed for admission in admissions] == [True, True, True, False]
    assert [admission.headers["X-RateLimit-Remaining"] for admission in admissions] == ["2", "1", "0", "0"]
    assert admissions[3].wait_seconds == 40
    assert "Retry-After" not in admissions[3].headers


def test_aligned_window_ends_with_the_minute_and_starts_over() -> None:
    limiter = FixedWindow(1)
    reset = int(ask(limiter, 1)[0].headers["X-RateLimit-Reset"])
    assert datetime.fromtimestamp(reset, UTC) == NOON.replace(minute=1, second=0)
    assert not limiter.admit(NOON + timedelta(seconds=39)).allowed
    assert limiter.admit(NOON + timedelta(seconds=40)).allowed


def test_unaligned_window_starts_with_its_first_request() -> None:
    limiter = FixedWindow(1, 10, aligned=False)
    assert limiter.admit(NOON).allowed
    assert not limiter.admit(NOON + timedelta(seconds=9)).allowed
    assert limiter.admit(NOON + timedelta(seconds=10)).allowed


def test_clock_put_back_opens_a_new_window() -> None:
    limiter = FixedWindow(1)
    assert limiter.admit(NOON).allowed
    assert limiter.admit(NOON - timedelta(minutes=5)).allowed


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("seconds", str(int(NOON.timestamp()) + 40)),
        ("milliseconds", str((int(NOON.timestamp()) + 40) * 1000)),
        ("delta", "40"),
    ],
)
def test_reset_is_written_in_the_unit_asked_for(unit: str, value: str) -> None:
    limiter = FixedWindow(1, reset_unit=unit)  # type: ignore[arg-type]
    assert limiter.admit(NOON).headers["X-RateLimit-Reset"] == value


def test_refusal_may_carry_retry_after() -> None:
    seconds = FixedWindow(0, retry_after="seconds").admit(NOON)
    date = FixedWindow(0, retry_after="date").admit(NOON)
    assert seconds.headers["Retry-After"] == "40"
    assert date.headers["Retry-After"] == "Thu, 01 Jan 2026 12:01:00 GMT"


def test_headers_can_be_withheld() -> None:
    assert FixedWindow(1, announce=False).admit(NOON).headers == {}


def test_others_use_up_the_shared_budget() -> None:
    limiter = FixedWindow(10, foreign_per_second=0.1)
    assert limiter.admit(NOON).headers["X-RateLimit-Remaining"] == "7"
    limiter.spend(7, NOON)
    assert not limiter.admit(NOON).allowed
    assert limiter.remaining == 0


def test_several_windows_refuse_when_one_is_spent_and_count_no_refusal() -> None:
    limiter = SeveralWindows([FixedWindow(2, 1), FixedWindow(3, 3600)])
    assert [admission.allowed for admission in ask(limiter, 3)] == [True, True, False]
    later = NOON + timedelta(seconds=1)
    assert limiter.admit(later).headers["X-RateLimit-Limit"] == "2"
    refused = limiter.admit(later)
    assert not refused.allowed
    assert refused.headers["X-RateLimit-Limit"] == "3"
    with pytest.raises(ValueError, match="at least one"):
        SeveralWindows([])


def test_traffic_of_others_counts_in_every_window() -> None:
    limiter = SeveralWindows([FixedWindow(5), FixedWindow(9)])
    limiter.spend(5, NOON)
    assert not limiter.admit(NOON).allowed


def test_unlimited_says_nothing() -> None:
    limiter = Unlimited()
    limiter.spend(1000, NOON)
    assert limiter.admit(NOON) == Admission(True)


def test_window_needs_a_length() -> None:
    with pytest.raises(ValueError, match="longer than 0"):
        FixedWindow(1, 0)
