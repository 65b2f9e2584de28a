"""The change feed: lateness, repetition, deletes, ids used twice, and what only a comparison can find."""

from __future__ import annotations

from typing import Any

import pytest

from rally_pipeline.rally.defs.reports import LATENESS, feed_report, mirror_report
from rally_pipeline.rally.entities import Entity
from tests.faults.cycles import ENTITY, assert_equal
from tests.rally.conftest import MakeWorld
from tests.rally.world import World

W = 20
"""Overlap of these worlds in seconds."""


def feed_world(make: MakeWorld, **switches: Any) -> World:
    world = make(records={"companies": 10}, policy={"overlap_seconds": W}, **switches)
    world.extract()
    world.pass_time(60)
    world.catch_up()
    return world


def ids(world: World) -> list[str]:
    found: list[str] = world.sandbox.rally.ids("companies")
    return found


def touch(world: World, place: int, note: str) -> None:
    world.sandbox.rally.update("companies", ids(world)[place], {"notes": note})


def read(world: World) -> None:
    """The feed and the looks of the one entity."""
    world.mirror.read_changes()
    world.mirror.settle(ENTITY)


def looks(world: World) -> int:
    """Single reads of records since the log was cleared."""
    return world.requests("/companies/*")


@pytest.mark.fault("F3")
def test_an_entry_that_is_late_by_any_time_within_the_overlap_is_read(make_world: MakeWorld) -> None:
    world = feed_world(make_world, feed_max_limit=4)
    for late in (0, 1, 7, W - 2, W - 1):
        world.sandbox.rally.switch(feed_delay_seconds=late)
        touch(world, 0, f"late by {late}")
        world.sandbox.rally.switch(feed_delay_seconds=0)
        for place in range(1, 6):
            world.pass_time(0.4)
            touch(world, place, f"beside it {late}")
        read(world)
        world.pass_time(max(0, late - 2))
        read(world)
        world.pass_time(2)
        read(world)
        assert_equal(world)


@pytest.mark.fault("F4")
def test_an_entry_beyond_the_overlap_is_found_by_the_comparison_and_counted_once(
    make_world: MakeWorld,
) -> None:
    world = feed_world(make_world)
    world.sandbox.rally.switch(feed_delay_seconds=5 * W)
    touch(world, 0, "too late")
    world.sandbox.rally.switch(feed_delay_seconds=0)
    for _ in range(6):
        world.pass_time(20)
        touch(world, 1, f"at {world.clock.now()}")
        read(world)
    late = ids(world)[0]
    assert {text.split()[1].rstrip(":") for text in world.differences()} == {late}
    assert world.mirror.verify(ENTITY, heal=True).repaired == 1
    assert world.mirror.status().reconcile_repairs == 1
    assert_equal(world)


@pytest.mark.fault("F3", "F4")
def test_lateness_above_half_of_the_overlap_is_a_warning(make_sqlite_world: MakeWorld) -> None:
    world = feed_world(make_sqlite_world)
    passed = []
    for late in (W // 2 - 4, W // 2 + 4):
        world.sandbox.rally.switch(feed_delay_seconds=late + 1)
        touch(world, 0, "late")
        world.sandbox.rally.switch(feed_delay_seconds=0)
        world.pass_time(late)
        read(world)
        world.pass_time(2)
        result = world.mirror.read_changes()
        report = feed_report(world.mirror, result, None, overlap_seconds=W)
        passed += [check.passed for check in report.check_results or [] if check.check_name == LATENESS]
        world.pass_time(100)
        read(world)
    assert passed == [True, False]
    assert_equal(world)


@pytest.mark.fault("F6", "F7", "F8")
@pytest.mark.parametrize(
    "server",
    [{"feed_duplicate_share": 1.0}, {"feed_since": "inclusive"}, {}],
    ids=["doubled", "inclusive", "plain"],
)
def test_a_record_is_looked_at_once_however_often_it_is_named(
    make_world: MakeWorld, server: dict[str, Any]
) -> None:
    world = feed_world(make_world, **server)
    for number in range(30):
        touch(world, 0, f"change {number}")
        world.pass_time(number % 3)
    touch(world, 1, "once")
    world.pass_time(5)
    world.sandbox.log.clear()
    world.catch_up()
    assert looks(world) == 2
    world.pass_time(5)
    world.catch_up()
    assert looks(world) == 2
    assert_equal(world)


@pytest.mark.fault("F9", "H23")
@pytest.mark.parametrize("status", [404, 410])
def test_a_record_that_is_gone_goes_once_the_answer_cannot_be_stale(
    make_world: MakeWorld, status: int
) -> None:
    world = make_world(
        records={"companies": 10},
        gone_status=status,
        policy={"staleness_seconds": 30, "overlap_seconds": 60},
    )
    world.extract()
    world.pass_time(100)
    victim = ids(world)[0]
    touch(world, 0, "its last change")
    world.sandbox.rally.delete("companies", victim)
    world.pass_time(5)
    world.mirror.read_changes()
    assert world.mirror.settle(ENTITY, wait=False).settled == 0
    assert victim in world.rows(ENTITY)
    world.pass_time(35)
    settled = world.mirror.settle(ENTITY, wait=False)
    assert (settled.deleted, settled.waiting) == (1, 0)
    assert victim not in world.rows(ENTITY)
    assert_equal(world)


@pytest.mark.fault("F10")
def test_a_record_that_was_deleted_and_is_there_again_in_the_same_second_stays(make_world: MakeWorld) -> None:
    world = feed_world(make_world)
    victim = ids(world)[0]
    world.sandbox.rally.delete("companies", victim)
    world.sandbox.rally.revive("companies", victim)
    world.pass_time(5)
    world.catch_up()
    assert victim in world.rows(ENTITY)
    assert_equal(world)


@pytest.mark.fault("F11")
def test_of_a_record_whose_id_is_used_again_nothing_is_left(make_world: MakeWorld) -> None:
    world = feed_world(make_world)
    victim = max(ids(world), key=lambda key: sum(v is not None for v in world.rows(ENTITY)[key].values()))
    old = world.rows(ENTITY)[victim]
    kept = {"id", "tenant_id", "created_at"}
    emptied = {
        f.name: None for f in ENTITY.fields if f.column not in kept and f.name not in ("name", "updatedAt")
    }
    world.sandbox.rally.delete("companies", victim)
    world.sandbox.rally.revive("companies", victim)
    world.sandbox.rally.change_silently("companies", victim, {**emptied, "name": "Somebody else"})
    world.pass_time(5)
    world.catch_up()
    row = world.rows(ENTITY)[victim]
    assert row["name"] == "Somebody else"
    assert sum(value is not None for value in old.values()) > 8
    assert {name for name, value in row.items() if value is not None} <= kept | {
        "name", "updated_at", "_version", "_synced_at",
    }  # fmt: skip
    assert_equal(world)


@pytest.mark.fault("F16")
def test_a_mark_that_cannot_be_settled_grows_old_and_is_told(make_sqlite_world: MakeWorld) -> None:
    world = feed_world(make_sqlite_world)
    victim = ids(world)[0]
    world.sandbox.faults.add("status_500", path=f"/companies/{victim}", times=None)
    touch(world, 0, "cannot be read")
    touch(world, 1, "can be read")
    for _ in range(3):
        world.pass_time(4_000)
        _, settled = world.catch_up()
    assert settled[ENTITY].waiting == 1
    table = next(table for table in world.mirror.status().tables if table.open_marks)
    assert (table.oldest_mark_seconds or 0) >= 8_000
    report = mirror_report(world.mirror, ENTITY, settled[ENTITY], None, bound_seconds=3_600)
    assert [check.check_name for check in report.check_results or [] if not check.passed] == [
        "marks_not_overdue"
    ]
    world.sandbox.faults.clear()
    world.pass_time(4_000)
    world.catch_up()
    assert_equal(world)


@pytest.mark.fault("B16")
def test_a_list_in_random_order_can_be_compared_and_healed(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"companies": 40}, list_order="random", max_limit=12)
    assert not world.extract([Entity.COMPANIES])[ENTITY].verified
    world.sandbox.rally.switch(no_entry_share=1.0)
    touch(world, 0, "without an entry")
    world.pass_time(100)
    healed = world.mirror.verify(ENTITY, heal=True)
    assert (healed.repaired, healed.verified) == (1, False)
    assert_equal(world)
