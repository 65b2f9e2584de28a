"""Each assumption about the server has a monitor; where the sandbox breaks the assumption, its check fails."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from rally_pipeline.orchestration import checks
from rally_pipeline.orchestration.windows import hour_of, window_key
from rally_pipeline.rally.defs import reports
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.feed_state import FEED_STREAM
from rally_pipeline.warehouse import FenceLost, Warehouse
from tests.rally.conftest import MakeWorld
from tests.rally.world import World

CONTACTS = Entity.CONTACTS


def feed_checks(world: World) -> dict[str, bool]:
    result = world.mirror.read_changes()
    report = reports.feed_report(world.mirror, result, None, overlap_seconds=world.policy.overlap_seconds)
    return _passed(report)


def mirror_checks(world: World) -> dict[str, bool]:
    result = world.mirror.settle(CONTACTS)
    return _passed(reports.mirror_report(world.mirror, CONTACTS, result, None, bound_seconds=900))


def extract_checks(world: World) -> dict[str, bool]:
    return _passed(reports.extract_report(world.mirror, CONTACTS, world.mirror.extract(CONTACTS), None))


def _passed(report: Any) -> dict[str, bool]:
    return {check.check_name: check.passed for check in report.check_results}


def failed(found: Mapping[str, bool]) -> list[str]:
    return [name for name, passed in found.items() if not passed]


def touch(world: World, count: int, *, start: int = 0) -> None:
    ids = [record["id"] for record in world.sandbox.rally.records("contacts")][start : start + count]
    for place, contact in enumerate(ids):
        world.sandbox.rally.update("contacts", contact, {"lastName": f"Touched {place}"})


def test_a_server_that_keeps_to_the_assumptions_raises_no_alarm(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 60}, policy={"page_limit": 20, "staleness_seconds": 5})
    assert failed(extract_checks(world)) == []
    world.pass_time(30)
    touch(world, 8)
    world.pass_time(30)
    assert failed(feed_checks(world)) == []
    assert failed(mirror_checks(world)) == []
    assert world.mirror.verify(CONTACTS, heal=True).repaired == 0
    assert failed(mirror_checks(world)) == []


def test_a1_entries_that_come_later_than_half_the_overlap(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 30}, policy={"overlap_seconds": 120})
    world.extract([CONTACTS])
    world.pass_time(130)
    assert failed(feed_checks(world)) == []
    world.sandbox.rally.switch(feed_delay_seconds=100)
    world.pass_time(10)
    touch(world, 3)
    world.pass_time(95)
    assert failed(feed_checks(world)) == []
    world.pass_time(10)
    result = world.mirror.read_changes()
    assert result.late_seconds > 60
    assert sum(count for _, count in result.lateness) == 3
    report = reports.feed_report(world.mirror, result, None, overlap_seconds=120)
    assert failed(_passed(report)) == [reports.LATENESS]
    key = window_key(hour_of(world.sandbox.clock.now()))
    shown = reports.window_metadata(world.mirror, result, [key])[key]
    assert shown["rally/run_lateness"].value == {"up to 120 s": 3}
    assert (shown["rally/late_entries"].value, shown["rally/run_late_entries"].value) == (3, 3)


def test_a2_answers_that_are_staler_than_the_bound(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 30}, policy={"staleness_seconds": 5})
    world.extract([CONTACTS])
    world.pass_time(60)
    world.sandbox.rally.switch(replica_lag_seconds=60, replica_serves=["records"])
    touch(world, 1)
    world.mirror.read_changes()
    world.pass_time(6)
    assert failed(mirror_checks(world)) == [reports.FRESH]


def test_a3_a_list_whose_rows_change_places(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 60}, policy={"page_limit": 20}, list_order="random")
    assert failed(extract_checks(world)) == [reports.COMPLETE]


def test_a5_a_feed_whose_pages_hold_less_than_is_relied_on(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 60}, feed_max_limit=5)
    world.extract([CONTACTS])
    world.pass_time(120)
    for place in range(12):
        touch(world, 1, start=place)
        world.pass_time(2)
    world.pass_time(600)
    assert failed(feed_checks(world)) == [reports.CAPACITY]
    touch(world, 3)
    assert failed(feed_checks(world)) == []


def test_a5_a_list_whose_pages_are_too_small_to_tell_its_end(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 30})
    world.extract([CONTACTS])
    world.sandbox.rally.switch(max_limit=2)
    assert failed(extract_checks(world)) == [reports.COMPLETE]


@pytest.mark.parametrize("stream", [FEED_STREAM, CONTACTS.stream])
def test_a6_two_writers_of_one_stream(make_sqlite_world: MakeWorld, stream: str) -> None:
    world = make_sqlite_world(records={"contacts": 30})
    world.extract([CONTACTS])
    with Warehouse.open(world.url, clock=world.clock) as other, world.warehouse.lease(stream) as slow:
        world.pass_time(130)
        with other.lease(stream), pytest.raises(FenceLost), world.warehouse.transaction("late", slow):
            pytest.fail("the fence let a second writer through")
    with world.warehouse.reading() as tx:
        now = world.clock.now()
        found = checks.one_writer(tx, stream, ("rally", "contacts"), now=now)
        assert not found.passed
        assert found.metadata["fence_violations"].value == 1
        assert checks.one_writer(tx, "rally.deals", ("rally", "deals"), now=now).passed
        assert checks.one_writer(tx, stream, ("rally", "contacts"), now=now + timedelta(days=2)).passed
    assert checks.ONE_WRITER in feed_checks(world)
    assert checks.ONE_WRITER in mirror_checks(world)


def test_a7_changes_that_the_feed_never_told(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 30})
    world.extract([CONTACTS])
    world.pass_time(60)
    world.sandbox.rally.switch(no_entry_share=1.0)
    touch(world, 4)
    world.catch_up()
    assert failed(mirror_checks(world)) == []
    # Until the overlap has passed the entries could still come: the records are in flight.
    assert world.mirror.verify(CONTACTS, heal=True).in_flight == 4
    assert failed(mirror_checks(world)) == []
    world.pass_time(100)
    assert world.mirror.verify(CONTACTS, heal=True).repaired == 4
    assert failed(mirror_checks(world)) == [reports.NO_REPAIRS]
    assert world.mirror.verify(CONTACTS, heal=True).repaired == 0
    assert failed(mirror_checks(world)) == []
