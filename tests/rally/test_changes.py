"""The change feed: nothing is passed over, nothing is recorded twice, and what cannot be known is said."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.feed_state import require_snapshot, requirements
from rally_pipeline.rally.retention import SnapshotRequired
from rally_pipeline.rally.tables import changes, feed_windows
from rally_pipeline.settings import DeleteMode
from tests.rally.conftest import MakeWorld
from tests.rally.world import Crash, World


def recorded(world: World) -> int:
    with world.warehouse.reading() as tx:
        return tx.count(changes)


def touch(world: World, number: int, *, entity: str = "contacts", start: int = 0) -> None:
    """Update records without letting time pass: one tie group."""
    ids = [record["id"] for record in world.sandbox.rally.truth()[entity]]
    for entity_id in ids[start : start + number]:
        world.sandbox.rally.update(entity, entity_id, {"notes": f"touched {number}"})


@pytest.mark.fault("F1")
@pytest.mark.parametrize("first_group", range(1, 10))
def test_a_tie_group_across_a_page_end_is_read_whole(make_sqlite_world: MakeWorld, first_group: int) -> None:
    """The page ends after ten entries, inside the second group."""
    world = make_sqlite_world(
        records={"contacts": 40}, feed_max_limit=10, policy={"feed_capacity_floor": 10, "overlap_seconds": 5}
    )
    world.extract([Entity.CONTACTS])
    world.pass_time(60)
    touch(world, first_group)
    world.pass_time(1)
    touch(world, 9, start=12)
    world.pass_time(1)
    touch(world, 9, start=24)
    world.pass_time(60)
    world.catch_up()
    assert recorded(world) == first_group + 18
    assert world.differences() == []


@pytest.mark.fault("F2")
def test_a_tie_group_larger_than_a_page_is_read_entity_by_entity_or_ends_in_a_full_extract(
    make_sqlite_world: MakeWorld,
) -> None:
    world = make_sqlite_world(
        records={"contacts": 60, "companies": 20},
        feed_max_limit=10,
        policy={"feed_capacity_floor": 10, "overlap_seconds": 5},
    )
    world.extract()
    world.pass_time(60)
    touch(world, 7)
    touch(world, 7, entity="companies")
    world.pass_time(60)
    result, _ = world.catch_up()
    assert result.snapshot_required is None
    assert result.recorded == 14
    touch(world, 45)
    world.pass_time(60)
    result, _ = world.catch_up()
    assert "than a feed page can hold" in (result.snapshot_required or "")
    assert world.differences() == []
    world.pass_time(60)
    assert world.catch_up()[0].snapshot_required is None
    assert world.mirror.coverage().problem is None


@pytest.mark.parametrize(
    "server", [{"feed_since": "inclusive"}, {"feed_compare_digits": 7}], ids=["inclusive", "finer"]
)
def test_a_full_page_that_only_repeats_a_group_does_not_end_the_read(
    make_sqlite_world: MakeWorld, server: dict[str, Any]
) -> None:
    """Found by `python -m tests.simulation rally --histories 1 --seed 23`: what came later was never read."""
    world = make_sqlite_world(
        records={"contacts": 20, "companies": 20},
        feed_max_limit=10,
        **server,
        policy={"feed_capacity_floor": 10, "overlap_seconds": 5},
    )
    world.extract()
    world.pass_time(60.5)
    touch(world, 6)
    touch(world, 6, entity="companies")
    world.pass_time(1)
    touch(world, 3, start=10)
    touch(world, 3, entity="companies", start=10)
    world.pass_time(60)
    result, _ = world.catch_up()
    assert result.recorded == 18
    assert world.differences() == []


@pytest.mark.fault("F3")
def test_a_late_entry_behind_the_position_is_found_and_its_lateness_reported(
    make_sqlite_world: MakeWorld,
) -> None:
    world = make_sqlite_world(records={"contacts": 30}, policy={"overlap_seconds": 120})
    world.extract([Entity.CONTACTS])
    world.pass_time(30)
    world.sandbox.rally.switch(late_seconds=50, late_share=1.0)
    touch(world, 5)
    world.sandbox.rally.switch(late_seconds=0)
    world.pass_time(2)
    touch(world, 5, start=10)
    world.pass_time(1)
    world.catch_up()
    world.pass_time(80)
    result, _ = world.catch_up()
    assert result.recorded > 0
    assert 0 < result.late_seconds <= 50
    world.pass_time(100)
    world.catch_up()
    assert recorded(world) == 10
    assert world.differences() == []


@pytest.mark.fault("F17")
def test_an_entry_later_than_the_overlap_is_repaired_and_counted_by_the_comparison(
    make_world: MakeWorld,
) -> None:
    world = make_world(records={"contacts": 30}, policy={"overlap_seconds": 20})
    world.extract([Entity.CONTACTS])
    world.sandbox.rally.switch(no_entry_share=1.0)
    touch(world, 3)
    world.pass_time(100)
    world.catch_up()
    assert len(world.differences()) == 3 * 2
    outcome = world.mirror.verify(Entity.CONTACTS)
    assert (outcome.stale, outcome.missing, outcome.extra) == (3, 0, 0)
    healed = world.mirror.verify(Entity.CONTACTS, heal=True)
    assert healed.repaired == 3
    assert world.differences() == []
    assert world.mirror.verify(Entity.CONTACTS).differences == 0
    assert world.mirror.status().reconcile_repairs == 0


@pytest.mark.fault("P1")
def test_a_crash_at_any_step_loses_and_doubles_nothing(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(
        records={"contacts": 40, "companies": 20}, feed_max_limit=12, policy={"feed_capacity_floor": 10}
    )
    world.extract()
    for step in range(1, 400, 5):
        world.pass_time(120)
        world.sandbox.rally.mutate(12, over_seconds=10, entities=["contacts", "companies"])
        world.pass_time(30)
        world.crash_at(step)
        try:
            world.catch_up()
        except Crash:
            world.restart()
            world.catch_up()
        else:
            break
        assert world.differences() == [], f"crash at step {step}"
        assert world.marks() == [], f"crash at step {step}"
    assert 20 < step < 395
    with world.warehouse.reading() as tx:
        twice = select(changes.c.id).group_by(changes.c.id).having(func.count() > 1)
        assert tx.rows(twice) == []


def test_two_readers_at_once_do_not_disturb_each_other(make_world: MakeWorld) -> None:
    from rally_pipeline.warehouse import LeaseHeld

    world = make_world(records={"contacts": 30})
    world.extract([Entity.CONTACTS])
    world.pass_time(60)
    touch(world, 5)
    world.pass_time(60)
    with world.warehouse.lease("rally.feed"), pytest.raises(LeaseHeld, match=r"rally\.feed"):
        world.mirror.read_changes()
    assert recorded(world) == 0
    world.catch_up()
    assert world.differences() == []


def test_windows_are_closed_only_when_the_cursor_has_passed_their_end(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 30}, policy={"overlap_seconds": 120})
    world.extract([Entity.CONTACTS])
    now = world.clock.now()
    end_of_hour = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    world.pass_time((end_of_hour - now).total_seconds() + 60)
    world.catch_up()
    assert world.mirror.windows_to_close(world.clock.now()) == [end_of_hour - timedelta(hours=1)]
    world.pass_time(120)
    world.catch_up()
    assert world.mirror.windows_to_close(world.clock.now()) == []
    assert world.mirror.coverage().gaps == ()


def test_reading_windows_again_adds_what_is_missing_and_nothing_else(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 60}, policy={"overlap_seconds": 60})
    world.extract([Entity.CONTACTS])
    start = world.clock.now().replace(minute=0, second=0, microsecond=0)
    for hour in range(6):
        touch(world, 4, start=hour * 5)
        world.pass_time(3_600)
    world.catch_up()
    assert recorded(world) == 24
    _lose(world, start + timedelta(hours=2), start + timedelta(hours=3))
    result = world.mirror.read_changes(start, start + timedelta(hours=5))
    assert result.recorded == 4
    again = world.mirror.read_changes(start, start + timedelta(hours=5))
    assert (again.recorded, again.marked) == (0, 0)
    world.pass_time(5)
    world.catch_up()
    assert world.differences() == []


def _lose(world: World, start: datetime, end: datetime) -> None:
    with world.warehouse.transaction("lose") as tx:
        tx.execute(changes.delete().where(changes.c.changed_at >= start, changes.c.changed_at < end))


def test_a_window_older_than_the_retention_is_an_error_never_an_empty_success(
    make_sqlite_world: MakeWorld,
) -> None:
    world = make_sqlite_world(records={"contacts": 30}, policy={"overlap_seconds": 60})
    world.extract([Entity.CONTACTS])
    start = world.clock.now().replace(minute=0, second=0, microsecond=0)
    touch(world, 5)
    world.pass_time(7_200)
    world.catch_up()
    touch(world, 5, start=10)
    world.pass_time(60)
    world.catch_up()
    world.sandbox.rally.switch(retention_seconds=3_600)
    with pytest.raises(SnapshotRequired, match="retention"):
        world.mirror.read_changes(start, start + timedelta(hours=1))
    _lose(world, start, start + timedelta(hours=1))
    with pytest.raises(SnapshotRequired, match="may have been forgotten"):
        world.mirror.read_changes(start, start + timedelta(hours=1))


@pytest.mark.fault("F14")
@pytest.mark.parametrize("answer", ["silent", "error"])
def test_a_pause_longer_than_the_retention_asks_for_a_full_extract(
    make_sqlite_world: MakeWorld, answer: str
) -> None:
    world = make_sqlite_world(records={"contacts": 40}, policy={"overlap_seconds": 60})
    world.extract()
    touch(world, 5)
    world.pass_time(300)
    world.catch_up()
    world.sandbox.rally.switch(retention_seconds=3_600, retention_answer=answer)
    world.pass_time(600)
    victim = world.sandbox.rally.truth()["contacts"][0]["id"]
    world.sandbox.rally.delete("contacts", victim)
    world.pass_time(20_000)
    touch(world, 3, start=20)
    world.pass_time(100)
    assert world.mirror.poll().windows  # either way the sensor asks for a read
    result = world.mirror.read_changes()
    assert result.snapshot_required is not None
    assert "a full extract is required" in (world.mirror.coverage().problem or "")
    world.extract()
    world.pass_time(100)
    world.catch_up()
    assert world.mirror.coverage().problem is None
    assert world.differences() == []


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_a_feed_that_has_forgotten_everything_asks_for_a_full_extract(
    make_sqlite_world: MakeWorld, mode: str
) -> None:
    """Found by `python -m tests.simulation rally --histories 1 --seed 125`: an empty feed was taken for a quiet one."""
    world = make_sqlite_world(
        records={"contacts": 40}, policy={"overlap_seconds": 60, "delete_mode": DeleteMode(mode)}
    )
    world.extract()
    world.sandbox.rally.switch(retention_seconds=7_200)
    world.sandbox.rally.delete("contacts", world.sandbox.rally.ids("contacts")[0])
    world.pass_time(8_000)
    result, _ = world.catch_up()
    assert "no entry at all" in (result.snapshot_required or "")
    assert world.differences() == []


@pytest.mark.fault("F15")
@pytest.mark.parametrize(
    ("first", "reason"), [(1, "ids start over"), (None, "came again with other content")]
)
def test_ids_that_start_over_ask_for_a_full_extract(
    make_sqlite_world: MakeWorld, first: int | None, reason: str
) -> None:
    world = make_sqlite_world(records={"contacts": 40}, policy={"overlap_seconds": 60})
    world.extract()
    touch(world, 10)
    world.pass_time(300)
    world.catch_up()
    with world.warehouse.reading() as tx:
        known = int(tx.scalar(select(func.min(changes.c.id))))
    world.sandbox.rally.restart_feed_ids(first or known)
    touch(world, 4, start=20)
    world.pass_time(300)
    result, _ = world.catch_up()
    assert reason in (result.snapshot_required or "")
    world.pass_time(300)
    world.catch_up()
    assert world.differences() == []


@pytest.mark.fault("F14")
def test_a_feed_that_was_cleared_asks_for_a_full_extract(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 40}, policy={"overlap_seconds": 300})
    world.extract()
    world.pass_time(10)
    touch(world, 10)
    world.pass_time(60)
    world.catch_up()
    world.sandbox.rally.clear_feed()
    world.pass_time(60)
    assert "are gone from the feed" in (world.mirror.read_changes().snapshot_required or "")


@pytest.mark.fault("F13")
def test_a_future_entry_does_not_pull_the_cursor_forward(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 30}, ahead_seconds=7_200, ahead_share=1.0)
    world.extract()
    touch(world, 5)
    world.pass_time(60)
    result = world.mirror.read_changes()
    assert result.cursor <= world.clock.now()
    world.sandbox.rally.switch(ahead_seconds=0)
    touch(world, 5, start=10)
    world.pass_time(120)
    world.catch_up()
    assert world.differences() == []


@pytest.mark.fault("F12")
def test_an_unknown_entry_is_parked_and_nothing_else_is_held_up(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 30})
    world.extract()
    world.pass_time(60)
    world.sandbox.rally.entry(entity_type="invoice", entity_id="i-1", action="updated")
    touch(world, 5)
    world.pass_time(60)
    result, _ = world.catch_up()
    assert result.parked == 1
    assert result.snapshot_required is None
    assert world.differences() == []
    with world.warehouse.reading() as tx:
        assert "invoice" in tx.quarantined("rally.feed")[0].reason


def test_one_poll_is_one_request_and_names_the_windows(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 30})
    assert world.mirror.poll().cursor is None
    world.extract()
    world.pass_time(120)
    world.catch_up()
    before = world.requests()
    assert world.mirror.poll().windows == ()
    touch(world, 5)
    world.pass_time(10)
    poll = world.mirror.poll()
    assert world.requests() == before + 2
    assert poll.entries == 5
    assert poll.windows == (world.clock.now().replace(minute=0, second=0, microsecond=0),)
    assert recorded(world) == 0


@pytest.mark.fault("C7", "H30")
def test_a_server_clock_that_is_set_back_loses_nothing(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 60}, policy={"overlap_seconds": 60})
    world.extract()
    world.pass_time(600)
    touch(world, 5)
    world.pass_time(10)
    world.catch_up()
    cursor = world.mirror.status().synced_through
    world.sandbox.clock.set(world.clock.now() - timedelta(seconds=300))
    touch(world, 5, start=10)
    world.pass_time(5)
    world.catch_up()
    world.pass_time(400)
    world.catch_up()
    after = world.mirror.status().synced_through
    assert cursor is not None
    assert after is not None
    assert after >= cursor
    assert world.differences() == []


@pytest.mark.parametrize(("set_back", "pause"), [(5, 90), (50, 90), (500, 90), (12, 20_000)])
@pytest.mark.parametrize("new_process", [True, False])
def test_what_a_clock_that_was_set_back_stamped_long_before_the_next_read_is_read(
    make_sqlite_world: MakeWorld, set_back: int, pause: int, new_process: bool
) -> None:
    """Found by `python -m tests.simulation rally`, seeds 211 and 1628: only the overlap was read again.

    In a long pause, what is put back by less than a clock may go wrong is more than the overlap covers.
    """
    world = make_sqlite_world(records={"contacts": 20}, policy={"overlap_seconds": 7})
    world.clock = local = world.sandbox.clock.skewed(0)  # type: ignore[assignment]
    world.restart()
    world.extract()
    world.sandbox.clock.advance(30)
    world.catch_up()
    world.sandbox.clock.set(world.sandbox.clock.now() - timedelta(seconds=set_back))
    local.skew_seconds = set_back
    touch(world, 3)
    world.sandbox.clock.advance(pause)
    if new_process:
        world.restart()
    result, _ = world.catch_up()
    assert result.snapshot_required is None
    assert world.differences() == []


def test_what_a_stale_read_after_a_clock_was_set_back_could_not_see_is_read_by_the_next_one(
    make_sqlite_world: MakeWorld,
) -> None:
    """Found by `python -m tests.simulation rally --histories 1 --seed 211`, when the first half was mended."""
    lag = {"staleness_seconds": 5, "overlap_seconds": 7}
    world = make_sqlite_world(records={"contacts": 20}, replica_lag_seconds=5.0, policy=lag)
    world.clock = local = world.sandbox.clock.skewed(0)  # type: ignore[assignment]
    world.restart()
    world.extract()
    world.sandbox.clock.advance(30)
    world.catch_up()
    world.sandbox.clock.set(world.sandbox.clock.now() - timedelta(seconds=50))
    local.skew_seconds = 50
    touch(world, 3)
    world.catch_up()
    world.sandbox.clock.advance(25)
    result, _ = world.catch_up()
    assert result.snapshot_required is None
    assert result.recorded == 3
    assert world.differences() == []


@pytest.mark.parametrize("request_seconds", [0.0, 0.2])
def test_the_cost_of_ten_thousand_changes_is_near_the_least_possible(
    make_sqlite_world: MakeWorld, request_seconds: float
) -> None:
    """However long the read of the feed takes: its marks are looked at together, once all of them are due."""
    world = make_sqlite_world(records={"contacts": 12_000}, policy={"overlap_seconds": 60})
    world.extract([Entity.CONTACTS])
    world.pass_time(600)
    distinct = _change(world, 10_000)
    world.pass_time(600)
    world.sandbox.log.clear()
    world.sandbox.request_seconds = request_seconds
    changes_result = world.mirror.read_changes()
    world.mirror.settle(Entity.CONTACTS)
    least = -(-10_000 // 1000) + -(-distinct // 1000)
    assert changes_result.recorded == 10_000
    assert world.requests() <= 1.3 * least
    assert world.differences() == []


def _change(world: World, number: int) -> int:
    """Updates over 3,000 seconds, with ties; returns how many records they name."""
    before = len(world.sandbox.rally.entries())
    world.sandbox.rally.mutate(number, {"update": 1.0}, entities=["contacts"], over_seconds=3_000)
    return len({entry["entityId"] for entry in world.sandbox.rally.entries()[before:]})


def test_every_window_of_the_log_is_counted(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 20}, policy={"overlap_seconds": 60})
    world.extract()
    touch(world, 7)
    world.pass_time(4_000)
    world.catch_up()
    with world.warehouse.reading() as tx:
        rows: list[tuple[Any, ...]] = tx.rows(select(feed_windows.c.entries))
    assert sum(row[0] for row in rows) == 7


# -- groups of one time that no page can hold -----------------------------------------------------------------------

CAPPED = {"feed_capacity_floor": 10, "overlap_seconds": 60}


def required(world: World) -> list[str]:
    return [found.entity for found in world.mirror.required_extracts()]


def extracts_made(world: World, entity: Entity) -> int:
    with world.warehouse.reading() as tx:
        return int((tx.state(entity.stream) or {})["generation"])


@pytest.mark.fault("F2")
def test_a_group_that_no_page_can_hold_is_covered_by_one_full_extract_that_begins_late_enough(
    make_world: MakeWorld,
) -> None:
    world = make_world(records={"contacts": 60, "companies": 20}, feed_max_limit=10, policy=CAPPED)
    world.extract()
    world.pass_time(600)
    world.catch_up()
    cursor = world.mirror.coverage().through
    group = world.clock.now()
    touch(world, 45)
    world.pass_time(5)
    touch(world, 3, entity="companies")
    world.pass_time(5)
    result = world.mirror.read_changes()
    assert "more contacts changed" in (result.snapshot_required or "")
    assert recorded(world) == 10  # what came is kept
    (demand,) = world.mirror.required_extracts()
    assert demand.entity == Entity.CONTACTS
    assert demand.since == group.replace(microsecond=0) + timedelta(seconds=61)
    assert world.mirror.coverage().through == cursor  # nothing may lie behind it unrecorded
    world.mirror.extract(Entity.CONTACTS)  # begins too early to show every change for certain
    assert required(world) == [Entity.CONTACTS]
    world.pass_time(62)
    before = extracts_made(world, Entity.CONTACTS)
    world.mirror.extract(Entity.CONTACTS)
    assert required(world) == []
    assert world.catch_up()[0].snapshot_required is None
    assert recorded(world) == 10 + 3
    assert world.differences() == []
    for _ in range(6):
        world.pass_time(20)
        touch(world, 1, entity="companies")
        assert world.catch_up()[0].snapshot_required is None
        assert required(world) == []
    assert extracts_made(world, Entity.CONTACTS) == before + 1
    assert world.mirror.coverage().problem is None
    assert world.differences() == []


def test_a_group_that_a_full_extract_has_covered_already_demands_none(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 60}, feed_max_limit=10, policy=CAPPED)
    world.extract()
    world.pass_time(600)
    touch(world, 45)
    world.pass_time(62)
    world.extract()
    assert world.catch_up()[0].snapshot_required is None
    assert world.differences() == []


def test_an_interrupted_extract_that_began_too_early_is_not_gone_on_with(
    make_sqlite_world: MakeWorld,
) -> None:
    world = make_sqlite_world(
        records={"contacts": 60}, feed_max_limit=10, max_limit=10, policy={**CAPPED, "page_limit": 10}
    )
    world.extract()
    world.pass_time(600)
    world.crash_at(40)
    with pytest.raises(Crash):
        world.mirror.extract(Entity.CONTACTS)
    world.restart()
    touch(world, 45)
    world.pass_time(62)
    world.mirror.read_changes()
    assert required(world) == [Entity.CONTACTS]
    assert not world.mirror.extract(Entity.CONTACTS).resumed
    assert required(world) == []


@pytest.mark.parametrize(
    "server",
    [
        {"feed_since": "inclusive"},
        {"feed_compare_digits": 7},
        {"feed_compare_digits": 7, "feed_since": "inclusive"},
        {"feed_digits": 3, "feed_compare_digits": 7, "feed_since": "inclusive"},
        {"feed_digits": 3, "feed_compare_digits": 3, "feed_since": "inclusive"},
    ],
    ids=["inclusive", "finer", "both", "milliseconds", "inclusive milliseconds"],
)
def test_what_lies_behind_a_group_that_hides_it_is_read_once_the_group_is_covered(
    make_sqlite_world: MakeWorld, server: dict[str, Any]
) -> None:
    world = make_sqlite_world(
        records={"contacts": 60, "companies": 20}, feed_max_limit=10, **server, policy=CAPPED
    )
    world.extract()
    world.pass_time(600.25)
    touch(world, 45)
    world.pass_time(2)
    touch(world, 3, entity="companies")
    world.pass_time(0.001)
    touch(world, 2, entity="companies", start=5)
    world.pass_time(70)
    for _ in range(2):
        world.catch_up()
    assert required(world) == []
    with world.warehouse.reading() as tx:
        companies = tx.rows(select(changes.c.id).where(changes.c.entity_type == "company"))
    assert len(companies) == 5
    assert world.differences() == []


# -- dates that are none --------------------------------------------------------------------------------------------

NEVER = [
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59.9999999Z",
    "9999-12-31T23:59:59-05:00",
    "2500-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+02:00",
    "1601-01-01T00:00:00Z",
]


def say(world: World, old: str, new: str) -> None:
    """Let the feed's answers show `new` where they would show `old`."""
    read = world.http.read

    def changed(path: str, decode: Callable[[Any], Any], **options: Any) -> Any:
        def decode_changed(answer: Any) -> Any:
            answer.body = bytes(answer.body).replace(old.encode(), new.encode())
            return decode(answer)

        return read(path, decode_changed, **options)

    world.http.read = changed  # type: ignore[method-assign]


@pytest.mark.fault("C5", "F13")
@pytest.mark.parametrize("time", NEVER)
def test_an_entry_whose_date_is_none_is_flagged_once_and_never_in_the_way(
    make_world: MakeWorld, time: str
) -> None:
    world = make_world(records={"contacts": 30})
    world.extract()
    world.pass_time(120)
    world.catch_up()
    first, second = world.sandbox.rally.ids("contacts")[:2]
    world.sandbox.rally.change_silently("contacts", first, {"notes": "never"})
    world.sandbox.rally.entry("contact", first, changed_at="2999-05-05T05:05:05Z")
    say(world, "2999-05-05T05:05:05Z", time)
    poll = world.mirror.poll()
    assert (poll.entries, len(poll.windows)) == (1, 1)
    assert abs(poll.windows[0] - world.clock.now()) < timedelta(hours=2)
    result, _ = world.catch_up()
    assert (result.recorded, result.snapshot_required) == (1, None)
    assert result.cursor <= world.clock.now()
    assert world.differences() == []
    assert world.marks() == []
    for _ in range(3):
        world.pass_time(400)
        assert world.mirror.poll().entries == 0
        result, _ = world.catch_up()
        assert (result.recorded, result.marked, result.parked) == (0, 0, 0)
    world.sandbox.rally.update("contacts", second, {"notes": "now"})
    world.pass_time(5)
    assert world.mirror.poll().entries == 1
    world.catch_up()
    assert world.differences() == []
    status = world.mirror.status()
    assert status.lag_seconds is not None
    assert status.lag_seconds < 200
    assert world.mirror.coverage().problem is None
    window = world.clock.now().replace(minute=0, second=0, microsecond=0)
    assert world.mirror.read_changes(window, window + timedelta(hours=1)).recorded == 0


@pytest.mark.parametrize("time", ["10000-01-01T00:00:00Z", "never", ""])
def test_an_entry_alone_on_its_page_whose_time_cannot_be_read_is_parked_once_and_its_object_refetched(
    make_world: MakeWorld, time: str
) -> None:
    world = make_world(records={"contacts": 30})
    world.extract()
    world.pass_time(120)
    contact = world.sandbox.rally.ids("contacts")[0]
    world.sandbox.rally.change_silently("contacts", contact, {"notes": "never"})
    world.sandbox.rally.entry("contact", contact, changed_at="2999-05-05T05:05:05Z")
    say(world, "2999-05-05T05:05:05Z", time)
    result, _ = world.catch_up()
    assert (result.parked, result.marked, result.snapshot_required) == (1, 1, None)
    assert world.differences() == []
    for _ in range(3):
        world.pass_time(100)
        result, _ = world.catch_up()
        assert (result.parked, result.marked, result.snapshot_required) == (0, 0, None)


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_many_entries_and_records_without_a_date_are_refetched_all_the_same(
    make_world: MakeWorld, time: str
) -> None:
    world = make_world(records={"contacts": 30})
    world.extract()
    world.pass_time(120)
    ids = world.sandbox.rally.ids("contacts")[:8]
    for contact in ids:
        world.sandbox.rally.change_silently("contacts", contact, {"notes": "never"})
        world.sandbox.rally.distort("contacts", contact, set={"updatedAt": time, "createdAt": time})
        world.sandbox.rally.entry("contact", contact, changed_at="2999-05-05T05:05:05Z")
    say(world, "2999-05-05T05:05:05Z", time)
    result, looks = world.catch_up()
    assert result.recorded == 8
    settled = [looks[Entity.CONTACTS]]
    # What is older than the stored row is believed at the third time.
    for _ in range(2):
        world.pass_time(120)
        settled.append(world.mirror.settle(Entity.CONTACTS))
    assert sum(result.settled for result in settled) == 8
    assert sum(result.behind for result in settled) == 0
    assert world.marks() == []
    assert {row["notes"] for key, row in world.rows(Entity.CONTACTS).items() if key in ids} == {"never"}
    world.extract()
    assert world.mirror.verify(Entity.CONTACTS).differences == 0


def test_a_group_dated_never_that_no_page_can_hold_demands_one_extract_and_hides_nothing(
    make_sqlite_world: MakeWorld,
) -> None:
    world = make_sqlite_world(records={"contacts": 60}, feed_max_limit=10, policy=CAPPED)
    world.extract()
    world.pass_time(600)
    for contact in world.sandbox.rally.ids("contacts")[:25]:
        world.sandbox.rally.change_silently("contacts", contact, {"notes": "never"})
        world.sandbox.rally.entry("contact", contact, changed_at="9999-12-31T23:59:59Z")
    world.mirror.read_changes()
    assert required(world) == [Entity.CONTACTS]
    world.pass_time(62)
    world.extract()
    before = extracts_made(world, Entity.CONTACTS)
    for _ in range(5):
        world.pass_time(300)
        assert not world.mirror.poll().truncated
        touch(world, 2, start=40)
        world.pass_time(10)
        assert world.mirror.poll().entries
        assert world.catch_up()[0].snapshot_required is None
    assert extracts_made(world, Entity.CONTACTS) == before
    assert world.differences() == []


# -- polling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [20, 50, 1_000])
def test_a_burst_larger_than_a_page_does_not_hide_what_comes_after_it(
    make_sqlite_world: MakeWorld, cap: int
) -> None:
    """The overlap is full of entries that are known already, for five minutes or, in a quiet time, for ever."""
    policy = {"feed_capacity_floor": min(cap, 100), "overlap_seconds": 300}
    world = make_sqlite_world(records={"contacts": 1_500}, feed_max_limit=cap, policy=policy)
    world.extract()
    world.pass_time(400)
    world.catch_up()
    for start in range(0, 1_200, 15):
        touch(world, 15, start=start)
        world.pass_time(1)
    world.pass_time(30)
    world.catch_up()
    world.pass_time(3_600)
    quiet = world.mirror.poll()
    assert (quiet.entries, quiet.truncated) in ((0, False), (0, True))
    touch(world, 1, start=1_300)
    world.pass_time(60)
    poll = world.mirror.poll()
    assert poll.entries or poll.truncated
    assert poll.windows
    world.catch_up()
    world.catch_up()
    assert world.differences() == []
    world.sandbox.log.clear()
    assert world.mirror.poll().windows == ()
    assert world.requests() == 1


def test_an_id_that_comes_again_with_other_content_is_new_to_a_poll(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 30}, policy={"overlap_seconds": 300})
    world.extract()
    world.pass_time(400)
    touch(world, 3)
    world.pass_time(10)
    world.catch_up()
    with world.warehouse.reading() as tx:
        known = int(tx.scalar(select(func.min(changes.c.id))))
    world.sandbox.rally.restart_feed_ids(known)
    touch(world, 2, start=10)
    world.pass_time(10)
    assert world.mirror.poll().entries == 2


@pytest.mark.fault("C6")
@pytest.mark.parametrize("hours", [-30, -3, 3, 30])
def test_ages_and_windows_are_the_servers_whatever_this_machines_clock_shows(
    make_sqlite_world: MakeWorld, hours: int
) -> None:
    world = make_sqlite_world(records={"contacts": 30})
    world.clock = world.sandbox.clock.skewed(hours * 3_600.0)  # type: ignore[assignment]
    world.restart()
    world.extract()
    world.sandbox.clock.advance(120)
    world.catch_up()
    touch(world, 2)
    world.sandbox.clock.advance(10)
    world.restart()
    poll = world.mirror.poll()
    hour = world.sandbox.clock.now().replace(minute=0, second=0, microsecond=0)
    assert poll.windows == (hour,)
    # A window of another time brings what is new as well.
    result = world.mirror.read_changes(hour - timedelta(hours=3), hour - timedelta(hours=2))
    assert result.recorded == 2
    world.sandbox.clock.advance(20)
    world.restart()
    status = world.mirror.status()
    assert status.lag_seconds is not None
    assert 0 <= status.lag_seconds < 120
    oldest = [table.oldest_mark_seconds for table in status.tables if table.oldest_mark_seconds is not None]
    assert len(oldest) == 1
    assert 0 <= oldest[0] < 60


def test_a_full_extract_is_required_from_a_whole_second_on_like_those_by_which_one_begins(
    make_world: MakeWorld,
) -> None:
    world = make_world(records={"contacts": 3})
    moment = datetime(2026, 3, 2, 8, 0, 18, 150, tzinfo=UTC)
    for since in (moment, moment.replace(second=19, microsecond=0)):
        with world.warehouse.transaction("test") as tx:
            require_snapshot(tx, "a test", since=since)
            assert {found.since for found in requirements(tx).values()} == {
                moment.replace(second=19, microsecond=0)
            }
