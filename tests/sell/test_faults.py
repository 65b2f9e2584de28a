"""The Sell rows of the fault matrix: after each fault the next run ends equal to the account, nothing left over."""

from __future__ import annotations

from typing import Any

import pytest

from rally_pipeline.http.errors import ApiError
from rally_pipeline.sell.entities import Entity
from rally_pipeline.sell.errors import SessionLimitReached
from rally_pipeline.sell.results import StoppedReason
from rally_pipeline.sell.tables import (
    ENTITY_TABLES,
    failed_objects,
    pending_acks,
    queue_items,
    suspects,
    tombstones,
)
from tests.sell.conftest import MakeWorld
from tests.sell.world import World, soft


def first(world: World, kind: str) -> Any:
    return next(world.api.world.live(kind))


def assert_settled(world: World) -> None:
    assert world.differences() == []
    assert world.unsettled() == []


# ---------------------------------------------------------------------- S2, S3: acknowledgements


@pytest.mark.fault("S2", "T13", "H10")
@pytest.mark.parametrize("applied", [False, True])
def test_unanswered_acknowledgements_leave_their_keys_for_the_next_run(
    make_world: MakeWorld, applied: bool
) -> None:
    world = make_world()
    world.api.refuse(500, path="/v2/sync/ack", applied=applied, after=2, times=None)
    result = world.drain()
    assert world.differences() == []
    assert result.acks_pending > 0
    world.api.forgive()
    world.clock.advance(60)
    again = world.catch_up()
    assert again.acks_pending == 0
    assert again.tally.inserted == again.tally.updated == 0
    assert_settled(world)


def test_an_answer_other_than_202_is_no_acknowledgement(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records=30)
    world.sandbox.faults.add("status_200", api="sell", path="/v2/sync/ack", times=None)
    result = world.drain()
    assert result.acks == 0
    assert result.acks_pending == result.pages
    world.sandbox.faults.clear()
    assert world.drain().acks_pending == 0
    assert world.api.sync.unknown_keys == []
    assert_settled(world)


@pytest.mark.fault("S3")
def test_slow_acknowledgements_bring_items_again_and_change_no_row(make_world: MakeWorld) -> None:
    world = make_world(ack_delay_seconds=500)
    world.catch_up()
    before = world.fingerprint()
    again = world.catch_up()
    assert again.tally.items > 0
    assert again.tally.landed == again.tally.inserted == again.tally.updated == 0
    assert {name: rows for name, rows in world.fingerprint().items() if name != pending_acks.name} == {
        name: rows for name, rows in before.items() if name != pending_acks.name
    }
    world.clock.advance(600)
    assert world.catch_up().tally.items == 0
    assert_settled(world)


def test_everything_redelivered_twice_changes_no_row(make_world: MakeWorld) -> None:
    world = make_world(records=80)
    world.catch_up()
    world.api.world.mutate(40)
    world.catch_up()
    before = world.fingerprint()
    for _ in range(2):
        world.api.sync.devices[world.uuid].memory.clear()
        again = world.catch_up()
        assert again.tally.items > 70
        assert again.tally.inserted == again.tally.updated == again.tally.deleted == 0
        assert world.fingerprint() == before
    assert_settled(world)


# ---------------------------------------------------------------------- S4, S5, S6: order, deletes, revivals


@pytest.mark.fault("S4")
def test_a_lower_revision_after_a_higher_one_leaves_the_newest(make_world: MakeWorld) -> None:
    world = make_world()
    lead = first(world, "lead")
    world.catch_up()
    world.clock.advance(10)
    world.api.world.update("lead", lead.id, {"first_name": "Newest"})
    world.catch_up()
    world.api.sync.redeliver(lead)
    result = world.catch_up()
    assert result.tally.ignored == 1
    assert world.row(Entity.LEADS, lead.id)["first_name"] == "Newest"  # type: ignore[index]
    assert_settled(world)


@pytest.mark.fault("S4")
def test_a_lower_revision_with_a_later_time_is_decided_by_a_look(make_world: MakeWorld) -> None:
    world = make_world()
    lead = first(world, "lead")
    world.catch_up()
    item = {
        "data": {"id": int(lead.id), "first_name": "Claimed", "updated_at": "2031-01-01T00:00:00Z"},
        "meta": {"type": "lead", "sync": {"event_type": "updated", "ack_key": "Lead-x-1", "revision": 1}},
    }
    world.sandbox.control("sell", "inject", {"item": item, "ack_key": "Lead-x-1"})
    result = world.drain()
    assert result.tally.suspected == 1
    assert world.row(Entity.LEADS, lead.id)["first_name"] != "Claimed"  # type: ignore[index]
    assert world.landed("lead", lead.id)[-1]["payload"] is not None or any(
        row["payload"] for row in world.landed("lead", lead.id)
    )
    world.settle()
    assert not any(row["payload"] for row in world.landed("lead", lead.id))
    assert_settled(world)


@pytest.mark.fault("S5")
@pytest.mark.parametrize("mode", [{}, soft()])
def test_a_delete_with_revision_0_takes_the_row_away(make_world: MakeWorld, mode: dict[str, Any]) -> None:
    world = make_world(policy=mode)
    lead = first(world, "lead")
    world.catch_up()
    revision = world.row(Entity.LEADS, lead.id)["revision"]  # type: ignore[index]
    world.api.world.delete("lead", lead.id)
    result = world.drain()
    assert result.tally.deleted == 1
    assert world.row(Entity.LEADS, lead.id) is None
    assert [row["revision"] for row in world.rows(tombstones)] == [revision]
    kept = [row for row in world.rows(ENTITY_TABLES[Entity.LEADS]) if row["id"] == int(lead.id)]
    assert len(kept) == (1 if mode else 0)
    world.settle()
    assert_settled(world)


@pytest.mark.fault("S5")
def test_a_delete_of_an_unknown_object_is_a_tombstone_and_no_error(make_world: MakeWorld) -> None:
    world = make_world()
    world.catch_up()
    thing = world.api.world.create("lead", {})
    world.api.world.delete("lead", thing.id)
    result = world.catch_up()
    assert result.tally.items == 1
    assert [(row["type"], row["id"], row["revision"]) for row in world.rows(tombstones)] == [
        ("lead", thing.id, None)
    ]
    assert_settled(world)


@pytest.mark.fault("S6")
def test_an_undeleted_object_comes_back_after_a_look(make_world: MakeWorld) -> None:
    world = make_world()
    lead = first(world, "lead")
    world.catch_up()
    world.api.world.delete("lead", lead.id)
    world.catch_up()
    world.clock.advance(5)
    world.api.world.revive("lead", lead.id)
    result = world.drain()
    assert result.tally.suspected == 1
    assert world.row(Entity.LEADS, lead.id) is None
    world.settle()
    assert world.row(Entity.LEADS, lead.id) is not None
    assert world.rows(tombstones) == []
    assert_settled(world)


@pytest.mark.security("38")
@pytest.mark.fault("S6")
def test_a_late_state_of_a_deleted_object_does_not_bring_it_back(make_world: MakeWorld) -> None:
    world = make_world()
    lead = first(world, "lead")
    world.catch_up()
    world.api.world.delete("lead", lead.id)
    world.catch_up()
    world.api.sync.redeliver(lead)
    result = world.catch_up()
    assert result.tally.suspected == 1
    assert world.row(Entity.LEADS, lead.id) is None
    assert_settled(world)


def test_a_stale_replica_does_not_decide(make_world: MakeWorld) -> None:
    world = make_world(policy={"staleness_seconds": 30})
    lead = first(world, "lead")
    world.catch_up()
    world.api.switch(lag_seconds=25)
    world.api.world.delete("lead", lead.id)
    world.drain()
    before = world.requests("/v2/leads*")
    world.settle(wait=False)
    assert world.requests("/v2/leads*") == before
    world.settle(wait=True)
    assert world.row(Entity.LEADS, lead.id) is None
    assert_settled(world)


# ---------------------------------------------------------------------- S7: failed objects


@pytest.mark.fault("S7")
def test_a_failed_object_is_repaired_by_a_look(make_world: MakeWorld) -> None:
    world = make_world()
    lead = first(world, "lead")
    world.api.sync.failing[lead.reference] = 1
    result = world.drain()
    assert result.tally.failed_objects == 1
    assert [(row["type"], row["id"]) for row in world.rows(failed_objects)] == [("lead", lead.id)]
    assert world.row(Entity.LEADS, lead.id) is None
    world.settle()
    assert_settled(world)


def test_a_failed_object_that_the_queue_brings_later_is_closed(make_world: MakeWorld) -> None:
    world = make_world(redeliver_failed=True)
    lead = first(world, "lead")
    world.api.sync.failing[lead.reference] = 1
    world.drain()
    assert world.count(failed_objects) == 1
    world.drain()
    assert world.count(failed_objects) == 0
    assert_settled(world)


def test_a_failed_object_of_an_unknown_type_is_settled_when_it_comes(make_sqlite_world: MakeWorld) -> None:
    """It has no table and no look: what the queue brings is all that can come."""
    world = make_sqlite_world(redeliver_failed=True)
    unknown = first(world, "call_outcome")
    world.api.sync.failing[unknown.reference] = 1
    world.drain()
    assert world.count(failed_objects) == 1
    world.drain()
    assert world.count(failed_objects) == 0
    assert_settled(world)


@pytest.mark.fault("S7")
def test_a_failed_object_that_fails_for_ever_stays_open_and_is_tombstoned_when_gone(
    make_world: MakeWorld,
) -> None:
    world = make_world()
    lead = first(world, "lead")
    world.api.sync.failing[lead.reference] = None
    world.api.refuse(500, path=f"/v2/leads/{lead.id}", times=None)
    for _ in range(3):
        world.catch_up()
        world.clock.advance(60)
    (row,) = world.rows(failed_objects)
    assert row["attempts"] == 3
    assert "500" in row["last_error"]
    world.api.forgive()
    world.api.world.delete("lead", lead.id)
    left = []
    for _ in range(3):
        world.catch_up()
        left.append(world.count(failed_objects))
        world.clock.advance(60)
    # It was never delivered, so its delete is not announced either: it may be hidden from the token only.
    assert left == [1, 1, 0]
    assert [row["id"] for row in world.rows(tombstones)] == [lead.id]
    assert_settled(world)


def test_one_absence_is_not_enough_for_an_object_whose_delete_nobody_announced(make_world: MakeWorld) -> None:
    world = make_world(policy={"staleness_seconds": 30})
    lead = first(world, "lead")
    world.api.sync.failing[lead.reference] = 1
    world.api.reads.hidden.add(lead.reference)
    world.drain()
    world.clock.advance(60)
    world.settle(wait=False)
    assert world.count(failed_objects) == 1
    world.api.reads.hidden.clear()
    world.clock.advance(60)
    world.settle(wait=False)
    assert_settled(world)


# ---------------------------------------------------------------------- S8, S9, S13, S14: sessions and pages


@pytest.mark.fault("S8")
@pytest.mark.parametrize("fetches", [1, 2, 3, 5])
def test_a_session_that_expires_is_followed_by_another(make_sqlite_world: MakeWorld, fetches: int) -> None:
    world = make_sqlite_world(page_size=10, session_fetches=fetches)
    result = world.drain()
    assert result.stopped_reason is StoppedReason.DRAINED
    assert result.sessions >= 1
    world.settle()
    assert_settled(world)


@pytest.mark.parametrize("status", [401, 404, 410])
def test_a_lost_session_is_recognised_by_any_of_its_statuses(
    make_sqlite_world: MakeWorld, status: int
) -> None:
    world = make_sqlite_world(session_fetches=4, lost_session_status=status)
    assert world.drain().stopped_reason is StoppedReason.DRAINED
    assert_settled(world)


def test_sessions_that_are_always_lost_end_the_run(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    world.api.refuse(404, path="/v2/sync/*/queues/main", times=None)
    result = world.drain()
    assert result.stopped_reason is StoppedReason.SESSION_LOST
    assert result.sessions == 2
    world.api.forgive()
    assert world.catch_up().is_complete
    assert_settled(world)


@pytest.mark.fault("S9")
@pytest.mark.parametrize("status", [403, 409, 422, 429])
def test_the_session_limit_is_one_clear_line_and_no_spin(make_sqlite_world: MakeWorld, status: int) -> None:
    world = make_sqlite_world(session_limit_status=status)
    for _ in range(100):
        assert world.api.sync.start("other", world.clock.now()) is not None
    with pytest.raises(SessionLimitReached, match="at most 100 can be open at a time"):
        world.drain()
    assert world.requests("/v2/sync/start") <= 10
    world.clock.advance(4000)
    assert world.catch_up().is_complete
    assert_settled(world)


@pytest.mark.fault("S13")
def test_empty_pages_are_no_end(make_world: MakeWorld) -> None:
    world = make_world(empty_every=2)
    result = world.drain()
    assert result.stopped_reason is StoppedReason.DRAINED
    assert result.empty_pages > 0
    assert result.acks == result.pages
    world.settle()
    assert_settled(world)


@pytest.mark.fault("S13")
def test_nothing_but_empty_pages_ends_incomplete_and_goes_on_later(make_world: MakeWorld) -> None:
    world = make_world(only_empty=True)
    result = world.drain()
    assert result.stopped_reason is StoppedReason.EMPTY_PAGES
    assert not result.is_complete
    assert result.empty_pages == world.policy.max_empty_pages
    assert result.synced_through is None
    world.api.switch(only_empty=False)
    again = world.catch_up()
    assert again.resumed
    assert again.sessions == 0
    assert_settled(world)


LOST_PAGES = ["cut_chunked", "reset_in_body", "lost_answer", "cut_close_delimited", "cut_json", "applied_500"]


@pytest.mark.fault("S14")
@pytest.mark.parametrize("fault", LOST_PAGES)
def test_a_page_lost_on_its_way_comes_again_in_a_later_session(
    make_sqlite_world: MakeWorld, fault: str
) -> None:
    world = make_sqlite_world()
    world.sandbox.faults.add(fault, api="sell", path="/v2/sync/*/queues/main", after=2, times=1)
    result = world.drain()
    assert result.stopped_reason is StoppedReason.DRAINED
    assert result.sessions == 2
    world.settle()
    assert_settled(world)


@pytest.mark.fault("H11", "H12", "H13")
@pytest.mark.parametrize(
    "fault", ["html_200", "empty_200", "error_200", "null_200", "wrong_shape", "status_409", "html_503"]
)
def test_an_answer_that_is_no_page_is_never_an_empty_page(make_sqlite_world: MakeWorld, fault: str) -> None:
    world = make_sqlite_world(records=60)
    world.sandbox.faults.add(fault, api="sell", path="/v2/sync/*/queues/main", after=2, times=1)
    result = world.drain()
    assert result.stopped_reason is StoppedReason.DRAINED
    assert result.empty_pages == 0
    assert_settled(world)


@pytest.mark.fault("S8", "S14")
def test_lost_sessions_and_lost_pages_one_after_another_on_postgresql(make_postgres_world: MakeWorld) -> None:
    world = make_postgres_world(page_size=5)
    world.catch_up()
    for fault in LOST_PAGES:
        world.api.world.mutate(15)
        world.sandbox.faults.add(fault, api="sell", path="/v2/sync/*/queues/main", times=1)
        world.api.refuse(404, path="/v2/sync/*/queues/main", after=2, times=1)
        assert world.catch_up().is_complete
        world.sandbox.faults.clear()
        assert_settled(world)


def test_pages_that_are_never_readable_fail_the_run(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world()
    world.sandbox.faults.add("html_200", api="sell", path="/v2/sync/*/queues/main", times=None)
    with pytest.raises(ApiError, match="HTML"):
        world.drain()
    world.sandbox.faults.clear()
    assert world.catch_up().is_complete
    assert_settled(world)


# ---------------------------------------------------------------------- S15 to S18: odd items


@pytest.mark.fault("S15")
def test_an_unknown_type_is_kept_raw_and_acknowledged(make_world: MakeWorld) -> None:
    world = make_world(unknown_type_records=3)
    result = world.catch_up()
    assert result.tally.raw_only == 3
    kept = [row for row in world.rows(queue_items) if row["type"] == "call_outcome"]
    assert len(kept) == 3
    assert all('"name":"call_outcome' in row["payload"] for row in kept)
    assert all(row["acked_at"] is not None for row in kept)
    assert world.drain().tally.items == 0
    assert world.mirror.status().raw_items == 3


@pytest.mark.fault("S15")
def test_an_unknown_event_type_is_decided_by_a_look(make_world: MakeWorld) -> None:
    world = make_world()
    lead = first(world, "lead")
    world.catch_up()
    item = {
        "data": {"id": int(lead.id), "first_name": "Merged"},
        "meta": {"type": "lead", "sync": {"event_type": "merged", "ack_key": "Lead-m-2", "revision": 2**40}},
    }
    world.sandbox.control("sell", "inject", {"item": item, "ack_key": "Lead-m-2"})
    assert world.drain().tally.suspected == 1
    assert world.api.sync.pending(world.api.sync.devices[world.uuid]) == []
    world.settle()
    assert_settled(world)


@pytest.mark.fault("S16")
def test_the_same_item_twice_on_a_page_is_one_row(make_world: MakeWorld) -> None:
    world = make_world(duplicate_share=0.5, page_size=100)
    result = world.drain()
    assert result.tally.items > 60
    assert result.tally.suspected == 0
    world.settle()
    assert_settled(world)


@pytest.mark.fault("S16")
@pytest.mark.parametrize("seconds", [5, 0])
def test_two_states_of_an_object_on_one_page_are_decided_by_a_look(
    make_world: MakeWorld, seconds: int
) -> None:
    """And the older of them stays the older one when it comes again, also where both are of one second."""
    world = make_world(page_size=100)
    lead = first(world, "lead")
    world.catch_up()
    before = world.row(Entity.LEADS, lead.id)
    for name in ("Second", "Third"):
        world.clock.advance(seconds)
        world.api.world.update("lead", lead.id, {"first_name": name})
    world.api.sync.redeliver(lead)
    result = world.drain()
    assert result.tally.suspected == 1
    assert world.row(Entity.LEADS, lead.id) == before
    world.settle()
    assert world.row(Entity.LEADS, lead.id)["first_name"] == "Third"  # type: ignore[index]
    world.api.sync.redeliver(lead)
    world.drain()
    assert world.row(Entity.LEADS, lead.id)["first_name"] == "Third"  # type: ignore[index]
    assert_settled(world)


POISON = {
    "no object": (b"[1,2]", None),
    "no id": (b'{"first_name":"X"}', None),
    "id with a fraction": (b'{"id":2.5}', None),
    "key twice": (b'{"id":77001,"first_name":"A","first_name":"B"}', "77001"),
    "key twice, blanks": (b'{"id":77009,"first_name" :"A","first_name" :"\\":"}', "77009"),
    "5,000 digits": (b'{"id":77002,"owner_id":' + b"9" * 5000 + b"}", "77002"),
    "deep": (b'{"id":77003,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    "null": (b"null", None),
}


@pytest.mark.fault("S17", "B2", "B4", "B5")
@pytest.mark.parametrize("name", list(POISON))
def test_a_poison_item_is_put_aside_acknowledged_and_told(make_sqlite_world: MakeWorld, name: str) -> None:
    world = make_sqlite_world(records=40)
    data, key = POISON[name]
    meta = b',"meta":{"type":"lead","sync":{"event_type":"created","ack_key":"Lead-p-9","revision":9}}}'
    world.api.sync.inject(b'{"data":' + data + meta, "Lead-p-9")
    result = world.drain()
    assert result.is_complete
    assert result.tally.quarantined == 1
    (held,) = world.quarantined()
    assert held["source"].startswith("sell.")
    assert key is None or held["key"] == key
    again = world.drain()
    assert again.tally.items == 0
    assert world.differences() == []
    assert world.mirror.status().quarantined == 1


@pytest.mark.fault("S17")
def test_poison_items_of_all_kinds_on_one_page_on_postgresql(make_postgres_world: MakeWorld) -> None:
    world = make_postgres_world(page_size=60)
    for number, (data, _) in enumerate(POISON.values()):
        meta = (
            b',"meta":{"type":"lead","sync":{"event_type":"created","ack_key":"Lead-p-%d","revision":9}}}'
            % number
        )
        world.api.sync.inject(b'{"data":' + data + meta, f"Lead-p-{number}")
    assert world.drain().tally.quarantined == len(POISON)
    assert len(world.quarantined()) == len(POISON)
    assert world.drain().tally.items == 0
    assert world.differences() == []


def test_an_item_without_a_key_cannot_be_acknowledged_and_does_not_stop_the_others(
    make_world: MakeWorld,
) -> None:
    world = make_world(records=40)
    world.api.sync.inject(b'{"data":{"id":1},"meta":{"type":"lead"}}', None)
    result = world.drain()
    assert result.is_complete
    assert result.tally.keyless == 1
    assert world.drain().tally.keyless == 1
    assert len(world.quarantined()) == 1
    assert world.differences() == []


@pytest.mark.fault("S18", "R5")
def test_too_many_keys_in_one_acknowledgement_are_split(make_world: MakeWorld) -> None:
    world = make_world(records=120, page_size=60, ack_limit=16)
    result = world.drain()
    assert result.acks_pending == 0
    assert max(world.api.sync.acks) <= 16
    assert sum(world.api.sync.acks) == result.tally.items
    world.settle()
    assert_settled(world)


@pytest.mark.fault("S18", "H25")
def test_ten_thousand_keys_refused_at_once_are_split(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records=10_000, page_size=10_000, ack_limit=100, ack_limit_status=413)
    result = world.drain()
    assert result.acked == 10_002
    assert result.acks_pending == 0
    assert world.drain().tally.items == 0


# ---------------------------------------------------------------------- stages inside pipelines


def test_stages_arrive_with_their_pipeline_or_alone(make_world: MakeWorld) -> None:
    world = make_world(page_size=1)
    world.catch_up()
    pipeline = next(world.api.world.live("pipeline"))
    stage = world.api.world.create("stage", {"pipeline_id": int(pipeline.id)})
    world.api.sync.devices[world.uuid].memory[stage.reference] = stage.current.number
    world.api.world.update("pipeline", pipeline.id)
    world.catch_up()
    assert world.row(Entity.STAGES, stage.id) is not None
    assert_settled(world)


def test_a_stage_that_its_pipeline_no_longer_lists_is_looked_at(make_world: MakeWorld) -> None:
    world = make_world()
    world.catch_up()
    stages = list(world.api.world.live("stage"))
    world.api.world.delete("stage", stages[0].id)
    world.api.sync.devices[world.uuid].memory[stages[0].reference] = stages[0].current.number
    pipeline = next(world.api.world.live("pipeline"))
    world.api.world.update("pipeline", pipeline.id)
    assert world.drain().tally.suspected == 1
    world.settle()
    assert world.row(Entity.STAGES, stages[0].id) is None
    assert_settled(world)


def test_contradictions_in_every_table_are_settled_within_one_staleness_bound(make_world: MakeWorld) -> None:
    """Older states behind newer ones, and the last state before a delete behind the delete, in one session."""
    world = make_world(policy={"staleness_seconds": 30}, records=200, older_share=1.0, page_size=20)
    world.catch_up()
    account = world.api.world
    for entity in Entity:
        for number, thing in enumerate(list(account.live(entity.singular))[:4]):
            account.update(entity.singular, thing.id)
            if number % 2 and entity not in (Entity.ACCOUNTS, Entity.USERS):
                account.delete(entity.singular, thing.id)
    world.drain()
    open_types = {row["type"] for row in world.rows(suspects)}
    assert len(open_types) > 8
    begun = world.clock.now()
    world.settle()
    assert (world.clock.now() - begun).total_seconds() < 40
    assert_settled(world)


def test_the_wait_ends_although_the_servers_clock_stands_still(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(policy={"staleness_seconds": 30})
    world.catch_up()
    lead = first(world, "lead")
    world.api.world.delete("lead", lead.id)
    world.drain()
    stopped = world.mirror._client.server_time()
    world.mirror._client.server_time = lambda: stopped  # type: ignore[method-assign]
    begun = world.clock.now()
    world.settle()
    assert (world.clock.now() - begun).total_seconds() < 200
    assert world.count(suspects) == 1
