"""The sensor's cursor: a hint that may be missing, damaged or foreign."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from rally_pipeline.orchestration.cursor import LONGEST_PAUSE, VERSION, RequestCursor

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


def test_a_written_cursor_is_read_back():
    cursor = RequestCursor().asked("read 09:00", NOW, interval_seconds=60).seen(NOW)
    assert RequestCursor.read(cursor.text()) == cursor
    assert json.loads(cursor.text())["version"] == VERSION


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "not json",
        "[]",
        "7",
        '{"version": 99, "request": "x"}',
        '{"version": 1, "attempts": "many"}',
        '{"version": 1, "retry_at": "soon"}',
        "2026-03-02T09:00:00Z",
    ],
)
def test_any_other_content_is_an_empty_cursor(text):
    assert RequestCursor.read(text) == RequestCursor()


def test_the_same_request_waits_longer_each_time_up_to_a_bound():
    cursor, now, pauses = RequestCursor(), NOW, []
    for _ in range(8):
        assert cursor.pause_before("read 09:00", now) is None
        cursor = cursor.asked("read 09:00", now, interval_seconds=60)
        until = cursor.pause_before("read 09:00", now)
        assert until is not None
        pauses.append(until - now)
        now = until
    assert pauses[:4] == [timedelta(seconds=60 * 2**n) for n in range(4)]
    assert pauses[-1] == LONGEST_PAUSE


def test_another_request_goes_at_once_and_starts_counting_anew():
    cursor = RequestCursor()
    for _ in range(5):
        cursor = cursor.asked("read 09:00", NOW, interval_seconds=60)
    assert cursor.pause_before("read 10:00", NOW) is None
    assert cursor.asked("read 10:00", NOW, interval_seconds=60).attempts == 1


def test_a_pause_left_from_before_the_clock_was_set_back_is_none():
    ahead = RequestCursor().asked("read 09:00", NOW + timedelta(hours=3), interval_seconds=60)
    assert ahead.pause_before("read 09:00", NOW) is None
