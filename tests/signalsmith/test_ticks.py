"""An active remote schedule plus ours: one run per tick, also on the days when the clocks change."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from rally_pipeline.signalsmith.cron import read_cron
from rally_pipeline.signalsmith.errors import RunStuck
from rally_pipeline.signalsmith.run_request import RunPolicy
from rally_pipeline.signalsmith.ticks import tick_window
from tests.signalsmith.bench import Bench

MakeBench = Callable[..., Bench]
SPRING = datetime(2026, 3, 28, 20, 0, tzinfo=UTC)
AUTUMN = datetime(2026, 10, 24, 20, 0, tzinfo=UTC)
BERLIN = "Europe/Berlin"


def dagster_ticks(cron: str, zone: str, start: datetime, end: datetime) -> Iterator[datetime]:
    """The ticks of the schedule that is derived from `cron`, as Dagster's scheduler computes them."""
    expressions = list(read_cron(cron).expressions)
    ticks = schedule_execution_time_iterator(start.timestamp() + 1, expressions, zone)
    return itertools.takewhile(lambda tick: tick <= end, (tick.astimezone(UTC) for tick in ticks))


def play_a_day(bench: Bench, sync_id: str, cron: str, *, late_seconds: float = 0.0) -> int:
    """Every tick of 28 hours is run by Dagster, which starts each run some seconds late. Returns the ticks."""
    start = bench.clock.now()
    played = 0
    for tick in dagster_ticks(cron, BERLIN, start, start + timedelta(hours=28)):
        if bench.clock.now() < tick + timedelta(seconds=late_seconds):
            bench.at(tick + timedelta(seconds=late_seconds))
        bench.run(sync_id, f"tick:{tick.isoformat()}", tick=tick, zone=BERLIN, cron=cron)
        played += 1
    bench.at(max(bench.clock.now(), start + timedelta(hours=28)))
    return played


@pytest.mark.fault("R11")
@pytest.mark.parametrize("start", [SPRING, AUTUMN], ids=["spring", "autumn"])
@pytest.mark.parametrize("cron", ["0 * * * *", "30 2 * * *", "15 */4 * * *", "0 3 * * *", "*/30 1-4 * * *"])
def test_remote_schedule_and_ours_make_one_run_per_tick(
    make_bench: MakeBench, start: datetime, cron: str
) -> None:
    bench = make_bench(start=start, timezone=BERLIN, syncs=0, switches={"run_seconds": 60.0})
    sync_id = bench.make_sync(schedule=cron)
    ticks = play_a_day(bench, sync_id, cron, late_seconds=4.0)
    assert ticks >= 1
    assert len(bench.started(sync_id)) == ticks
    assert bench.requests("trigger") == []


@pytest.mark.parametrize("gap", ["end", "shift", "skip"])
def test_a_skipped_local_time_gets_one_run_however_the_remote_reads_it(
    make_bench: MakeBench, gap: str
) -> None:
    bench = make_bench(start=SPRING, timezone=BERLIN, syncs=0, switches={"dst_gap": gap})
    sync_id = bench.make_sync(schedule="30 2 * * *")
    assert play_a_day(bench, sync_id, "30 2 * * *") == 1
    assert len(bench.started(sync_id)) == 1
    assert len(bench.requests("trigger")) == (1 if gap == "skip" else 0)


@pytest.mark.parametrize(("fold", "remote_runs"), [("first", 1), ("second", 1), ("both", 2)])
def test_a_doubled_local_time_adds_no_run_to_those_of_the_remote(
    make_bench: MakeBench, fold: str, remote_runs: int
) -> None:
    bench = make_bench(start=AUTUMN, timezone=BERLIN, syncs=0, switches={"dst_fold": fold})
    sync_id = bench.make_sync(schedule="30 2 * * *")
    assert play_a_day(bench, sync_id, "30 2 * * *") == 1
    assert len(bench.started(sync_id)) == remote_runs
    assert bench.requests("trigger") == []


@pytest.mark.parametrize("delay", [0.0, 5.0, 45.0, 80.0])
def test_a_remote_scheduler_that_is_late_within_the_grace_is_waited_for(
    make_bench: MakeBench, delay: float
) -> None:
    bench = make_bench(start=SPRING, timezone=BERLIN, syncs=0, switches={"scheduler_delay_seconds": delay})
    sync_id = bench.make_sync(schedule="0 * * * *")
    ticks = play_a_day(bench, sync_id, "0 * * * *")
    assert len(bench.started(sync_id)) == ticks
    assert bench.requests("trigger") == []


def test_where_the_remote_scheduler_sleeps_each_tick_is_triggered_once(make_bench: MakeBench) -> None:
    bench = make_bench(start=SPRING, timezone=BERLIN, syncs=0, switches={"scheduler": False})
    sync_id = bench.make_sync(schedule="0 * * * *")
    ticks = play_a_day(bench, sync_id, "0 * * * *")
    assert len(bench.started(sync_id)) == len(bench.requests("trigger")) == ticks


def test_a_clock_that_runs_ahead_of_the_server_still_waits_for_the_remote_run(make_bench: MakeBench) -> None:
    bench = make_bench(timezone="UTC", syncs=0)
    sync_id = bench.make_sync(schedule="0 * * * *")
    tick = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    bench.at(tick - timedelta(seconds=70))
    outcome = bench.run(sync_id, "tick:1", tick=tick)
    assert outcome.origin == "attached"
    assert bench.started(sync_id) == [tick]


@pytest.mark.fault("R11")
def test_a_missed_tick_found_hours_later_attaches_to_the_run_that_took_place(make_bench: MakeBench) -> None:
    bench = make_bench(timezone="UTC", syncs=0)
    sync_id = bench.make_sync(schedule="0 3 * * *")
    tick = datetime(2026, 3, 3, 3, 0, tzinfo=UTC)
    bench.at(tick + timedelta(hours=5))
    outcome = bench.run(sync_id, "tick:1", tick=tick)
    assert outcome.origin == "attached"
    assert bench.started(sync_id) == [tick]


def test_a_paused_sync_is_triggered_without_waiting_for_a_remote_run(make_bench: MakeBench) -> None:
    bench = make_bench(syncs=0)
    sync_id = bench.make_sync(schedule="0 * * * *", status="paused")
    tick = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    bench.at(tick)
    bench.run(sync_id, "tick:1", tick=tick)
    assert bench.started(sync_id) == [tick]


def test_a_run_of_another_request_is_not_taken_for_this_tick_when_the_remote_has_its_own(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(syncs=0, switches={"scheduler_delay_seconds": 60.0, "run_seconds": 20.0})
    sync_id = bench.make_sync(schedule="0 * * * *")
    tick = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    bench.at(tick + timedelta(seconds=1))
    by_hand = bench.run(sync_id, "run:by hand")
    outcome = bench.run(sync_id, "tick:1", tick=tick)
    assert outcome.run.id != by_hand.run.id
    assert bench.started(sync_id)[-1] == tick + timedelta(seconds=60)


@pytest.mark.fault("R13")
def test_nothing_is_stacked_behind_a_stuck_run(make_bench: MakeBench) -> None:
    bench = make_bench(syncs=0)
    sync_id = bench.make_sync(schedule="", status="active")
    bench.control("plan_run", sync=sync_id, stuck="running")
    bench.control("start_run", sync=sync_id)
    bench.clock.advance(7 * 3600)
    for number in range(3):
        tick = bench.clock.now()
        with pytest.raises(RunStuck, match="nothing is triggered behind it"):
            bench.run(sync_id, f"tick:{number}", RunPolicy(deadline_seconds=6 * 3600), tick=tick)
        bench.clock.advance(3600)
    assert len(bench.started(sync_id)) == 1


@pytest.mark.parametrize(
    ("tick", "zone", "first", "last"),
    [
        ("2026-06-01T00:30:00+00:00", BERLIN, "2026-06-01T00:30:00+00:00", "2026-06-01T00:30:00+00:00"),
        ("2026-10-25T00:30:00+00:00", BERLIN, "2026-10-25T00:30:00+00:00", "2026-10-25T01:30:00+00:00"),
        ("2026-10-25T01:30:00+00:00", BERLIN, "2026-10-25T00:30:00+00:00", "2026-10-25T01:30:00+00:00"),
        ("2026-03-29T01:00:00+00:00", BERLIN, "2026-03-29T00:00:00+00:00", "2026-03-29T02:00:00+00:00"),
        ("2026-10-25T01:30:00+00:00", "UTC", "2026-10-25T01:30:00+00:00", "2026-10-25T01:30:00+00:00"),
    ],
)
def test_the_window_of_a_tick_covers_every_reading_of_a_clock_change(
    tick: str, zone: str, first: str, last: str
) -> None:
    window = tick_window(datetime.fromisoformat(tick), zone)
    assert (window.first.isoformat(), window.last.isoformat()) == (first, last)


def test_the_sandbox_fires_at_the_instants_at_which_dagster_fires(make_bench: MakeBench) -> None:
    """Two independent readings of cron agree over a year with both changes of the clocks."""
    from rally_pipeline.sandbox.signalsmith.cron import CronRule

    start = datetime(2026, 1, 1, tzinfo=UTC)
    for cron in (
        "0 * * * *",
        "30 2 * * *",
        "0 6 * * 1-5",
        "15 3 1 * *",
        "0 0 29 2 *",
        "20 1 13 * 5",
        "0 7 29 * *",
    ):
        remote = CronRule.read(cron).ticks(start, ZoneInfo(BERLIN))
        ours = dagster_ticks(cron, BERLIN, start, start + timedelta(days=365 * 3))
        for mine, theirs in itertools.islice(zip(ours, remote, strict=False), 9000):
            assert mine == theirs, cron
