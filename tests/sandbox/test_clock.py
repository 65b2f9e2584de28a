"""The sandbox's time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rally_pipeline.sandbox import SandboxClock

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_virtual_clock_moves_only_when_told() -> None:
    clock = SandboxClock(START)
    assert clock.now() == clock.now() == START
    clock.advance(1.5)
    clock.sleep(2)
    clock.sleep(0)
    clock.sleep(-1)
    assert clock.now() == START + timedelta(seconds=3.5)
    assert clock.monotonic() == 3.5


def test_wall_clock_can_be_put_back_but_elapsed_time_never_is() -> None:
    clock = SandboxClock(START)
    clock.advance(600)
    clock.set(START)
    assert clock.now() == START
    assert clock.monotonic() == 600
    clock.advance(1)
    assert clock.now() == START + timedelta(seconds=1)


def test_running_clock_runs_at_its_speed() -> None:
    clock = SandboxClock.running(START, speed=100_000)
    before = clock.monotonic()
    while clock.monotonic() - before < 100:
        pass
    assert clock.now() >= START + timedelta(seconds=100)
    clock.run(0)
    assert clock.is_virtual
    assert clock.now() == clock.now()


def test_running_clock_sleeps_in_its_own_seconds() -> None:
    clock = SandboxClock.running(START, speed=1000)
    before = clock.monotonic()
    clock.sleep(10)
    assert clock.monotonic() - before >= 10


def test_skewed_clock_is_off_but_moves_along() -> None:
    clock = SandboxClock(START)
    wrong = clock.skewed(-3600)
    wrong.sleep(5)
    assert clock.now() == START + timedelta(seconds=5)
    assert wrong.now() == START + timedelta(seconds=5 - 3600)
    assert wrong.monotonic() == clock.monotonic()


def test_clock_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="aware"):
        SandboxClock(datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="negative"):
        SandboxClock(speed=-1)
    clock = SandboxClock()
    with pytest.raises(ValueError, match="only advances"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="aware"):
        clock.set(datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="negative"):
        clock.run(-1)
