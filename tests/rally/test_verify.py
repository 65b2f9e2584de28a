"""Comparison, healing, status: what is said about the mirror is true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from rally_pipeline.rally.deletes import MassDeleteSuspected
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.mirror import RallyMirror
from rally_pipeline.rally.tables import ENTITY_TABLES
from rally_pipeline.rally.verify import NeverExtracted
from tests.rally.conftest import MakeWorld
from tests.rally.world import Crash, World

CONTACTS = ENTITY_TABLES[Entity.CONTACTS]
WRONG = {
    "Text": "wrong",
    "BigInteger": -4711,
    "ExactDecimal": "-47.11",
    "Instant": datetime(2001, 1, 1, tzinfo=UTC),
    "Json": {"wrong": 1},
}
"""A value of each column type that no record has."""


def damage(world: World) -> tuple[str, str, str]:
    """One row less, one row more, one row different, behind the engine's back."""
    ids = sorted(world.rows(Entity.CONTACTS))
    with world.warehouse.transaction("damage") as tx:
        tx.execute(CONTACTS.delete().where(CONTACTS.c.id == ids[0]))
        tx.execute(CONTACTS.insert().values(id="not-in-rally", first_name="Nobody"))
        tx.execute(update(CONTACTS).where(CONTACTS.c.id == ids[1]).values(notes="other", _version=1))
    return ids[0], "not-in-rally", ids[1]


def edit(world: World, count: int, *, start: int = 5) -> list[str]:
    """Ordinary edits of some contacts; returns their ids."""
    ids = world.sandbox.rally.ids("contacts")[start : start + count]
    for contact in ids:
        world.sandbox.rally.update("contacts", contact, {"lastName": f"Edited at {world.clock.now()}"})
    return ids


@contextmanager
def at_each_list_page(world: World, change: Callable[[], object]) -> Iterator[None]:
    """Do `change` just before each request for a page of contacts, in which a second passes."""
    usual = world.http._step

    def step(name: str) -> None:
        usual(name)
        if name == "rally:GET /contacts:before":
            change()
            world.pass_time(1)

    world.http._step = step
    try:
        yield
    finally:
        world.http._step = usual


def test_every_kind_of_difference_is_found_and_named(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 60})
    world.extract([Entity.CONTACTS])
    missing, extra, stale = damage(world)
    found = world.mirror.verify(Entity.CONTACTS)
    assert (found.missing, found.extra, found.stale) == (1, 1, 1)
    assert dict(found.examples) == {missing: "missing", extra: "extra", stale: "stale"}
    assert found.compared == 60
    assert found.equal == 58
    assert world.differences() != []


def test_healing_repairs_just_the_difference_and_counts_it(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 60})
    world.extract([Entity.CONTACTS])
    damage(world)
    before = world.rows(Entity.CONTACTS)
    healed = world.mirror.verify(Entity.CONTACTS, heal=True)
    assert healed.repaired == 3
    assert world.differences() == []
    assert world.mirror.status().reconcile_repairs == 3
    untouched = [key for key, row in world.rows(Entity.CONTACTS).items() if before.get(key) == row]
    assert len(untouched) == 58


@pytest.mark.parametrize("heal", [False, True])
def test_ordinary_edits_since_the_last_poll_are_neither_a_difference_nor_a_repair(
    make_world: MakeWorld, heal: bool
) -> None:
    world = make_world(records={"contacts": 60}, policy={"staleness_seconds": 30})
    world.extract()
    world.pass_time(200)
    world.catch_up()
    world.sandbox.rally.mutate(3, {"update": 1.0, "insert": 1.0, "delete": 1.0}, entities=["contacts"])
    before = world.clock.monotonic()
    found = world.mirror.verify(Entity.CONTACTS, heal=heal)
    assert (found.differences, found.in_flight, found.repaired, found.left) == (0, 0, 0, 0)
    assert found.equal == found.compared == world.sandbox.rally.counts()["contacts"]
    assert world.clock.monotonic() - before < 40  # the staleness bound, once
    assert world.differences() == []


@pytest.mark.parametrize("heal", [False, True])
def test_a_change_that_stays_pending_is_in_flight(make_sqlite_world: MakeWorld, heal: bool) -> None:
    world = make_sqlite_world(records={"contacts": 30})
    world.extract([Entity.CONTACTS])
    world.pass_time(200)
    (victim,) = edit(world, 1)
    world.pass_time(200)
    world.sandbox.faults.add("status_500", path=f"/contacts/{victim}", times=None)
    world.mirror.read_changes()
    world.mirror.settle(Entity.CONTACTS)
    found = world.mirror.verify(Entity.CONTACTS, heal=heal)
    assert (found.differences, found.in_flight, found.left, found.equal) == (0, 1, 0, 29)


@pytest.mark.parametrize("heal", [False, True])
@pytest.mark.parametrize("late_seconds", [0, 20])
def test_a_source_that_changes_during_the_scan_is_no_defect(
    make_world: MakeWorld, heal: bool, late_seconds: int
) -> None:
    world = make_world(
        records={"contacts": 120},
        max_limit=10,
        late_seconds=late_seconds,
        late_share=0.5,
        policy={"staleness_seconds": 25, "overlap_seconds": 120},
    )
    world.extract([Entity.CONTACTS])
    world.pass_time(300)
    lost, _, changed = damage(world)
    kinds = {"update": 3.0, "insert": 1.0, "delete": 1.0}

    def change() -> None:
        world.sandbox.rally.mutate(2, kinds, entities=["contacts"], tie_share=0.3, over_seconds=1)

    with at_each_list_page(world, change):
        found = world.mirror.verify(Entity.CONTACTS, heal=heal)
    assert found.in_flight > 10
    named = {entity_id for entity_id, _ in found.examples}
    # The source may have deleted or changed the damaged records as well.
    assert named <= {lost, "not-in-rally", changed}
    assert "not-in-rally" in named
    assert found.differences == len(named) == found.repaired + found.left
    assert found.repaired == (len(named) if heal else 0)
    world.pass_time(300)
    world.catch_up()
    left = {text.split()[1].rstrip(":") for text in world.differences()}
    assert left == (set() if heal else named)


def test_only_what_was_not_in_flight_counts_as_repaired(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 60})
    world.extract([Entity.CONTACTS])
    world.pass_time(300)
    damage(world)
    edited = []
    with at_each_list_page(world, lambda: edited.extend(edit(world, 3, start=len(edited) + 10))):
        found = world.mirror.verify(Entity.CONTACTS, heal=True)
    assert edited
    assert (found.missing, found.extra, found.stale) == (1, 1, 1)
    assert (found.repaired, found.left) == (3, 0)
    assert world.mirror.status().reconcile_repairs == 3


@pytest.mark.parametrize("entity", list(Entity))
def test_every_column_is_compared_whatever_the_version_says(make_world: MakeWorld, entity: Entity) -> None:
    world = make_world(records={entity.value: 40})
    world.extract([entity])
    world.pass_time(300)
    table = ENTITY_TABLES[entity]
    columns = [column for column in table.columns if column.name not in ("id", "_version", "_synced_at")]
    ids = sorted(world.rows(entity))[: len(columns)]
    with world.warehouse.transaction("somebody") as tx:
        for entity_id, column in zip(ids, columns, strict=True):
            wrong = WRONG[type(column.type).__name__]
            tx.execute(update(table).where(table.c.id == entity_id).values({column.name: wrong}))
    damaged = len(columns)
    found = world.mirror.verify(entity)
    # A row that is marked deleted is not there.
    assert (found.missing, found.extra, found.stale) == (1, 0, damaged - 1)
    assert found.equal == 40 - damaged
    healed = world.mirror.verify(entity, heal=True)
    assert (healed.differences, healed.repaired, healed.left) == (damaged, damaged, 0)
    assert world.differences() == []
    assert world.mirror.verify(entity).differences == 0


def test_json_that_databases_spell_differently_is_equal(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 5})
    victim = world.sandbox.rally.ids("contacts")[0]
    odd = {
        "score": "1.10",
        "big": "1e2",
        "small": "1e-7",
        "long": "9" * 40,
        "huge": "1e400",
        "flag": "true",
        "list": '[1.0, {"a": 0.30}]',
    }
    world.sandbox.rally.distort("contacts", victim, raw=odd)
    world.extract([Entity.CONTACTS])
    world.pass_time(300)
    assert world.mirror.verify(Entity.CONTACTS).equal == 5
    with world.warehouse.transaction("somebody") as tx:
        extra = dict(world.rows(Entity.CONTACTS)[victim]["extra"]) | {"flag": 1}
        tx.execute(update(CONTACTS).where(CONTACTS.c.id == victim).values(extra=extra))
    assert world.mirror.verify(Entity.CONTACTS).stale == 1


def test_a_comparison_costs_the_list_and_one_look_at_the_feed(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 60}, max_limit=20)
    world.extract()
    world.pass_time(300)
    world.catch_up()
    lists = {}
    for entity in Entity:
        world.sandbox.log.clear()
        world.mirror.extract(entity)
        lists[entity] = world.requests(f"/{entity.value}")
    world.pass_time(300)
    world.sandbox.log.clear()
    found = world.mirror.verify_all()
    assert world.requests("/sync/changes") == 1
    assert {entity: world.requests(f"/{entity.value}") for entity in Entity} == lists
    assert sum(result.cost.requests for result in found) == world.requests()


def test_what_cannot_be_refetched_is_left_and_never_counted_as_repaired(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 60})
    world.extract([Entity.CONTACTS])
    world.pass_time(300)
    _, _, stale = damage(world)
    world.sandbox.faults.add("status_500", path=f"/contacts/{stale}", times=None)
    healed = world.mirror.verify(Entity.CONTACTS, heal=True)
    assert (healed.differences, healed.repaired, healed.left) == (3, 2, 1)
    world.sandbox.faults.clear()
    world.pass_time(4_000)
    world.catch_up()
    assert world.differences() == []


@pytest.mark.parametrize("heal", [False, True])
def test_a_wrong_answer_of_the_list_is_no_difference(make_sqlite_world: MakeWorld, heal: bool) -> None:
    world = make_sqlite_world(records={"contacts": 60})
    world.extract([Entity.CONTACTS])
    world.pass_time(300)
    world.sandbox.faults.add("long_integer", path="/contacts", times=1)
    found = world.mirror.verify(Entity.CONTACTS, heal=heal)
    assert (found.differences, found.repaired, found.left, found.equal) == (0, 0, 0, 60)


def test_many_differences_are_healed_from_list_pages(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 400})
    world.extract([Entity.CONTACTS])
    world.pass_time(300)
    with world.warehouse.transaction("somebody") as tx:
        tx.execute(update(CONTACTS).values(notes="wrong"))
    world.sandbox.log.clear()
    healed = world.mirror.verify(Entity.CONTACTS, heal=True)
    assert (healed.repaired, healed.left) == (400, 0)
    assert world.requests("/contacts/*") == 0
    assert world.requests() < 20


def test_the_guard_stops_healing_before_the_first_delete(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 300, "companies": 30})
    world.extract()
    world.pass_time(300)
    for contact in world.sandbox.rally.ids("contacts")[:150]:
        world.sandbox.rally.delete("contacts", contact)
    world.sandbox.rally.clear_feed()
    world.pass_time(300)
    companies = ENTITY_TABLES[Entity.COMPANIES]
    with world.warehouse.transaction("somebody") as tx:
        tx.execute(update(companies).values(name="wrong"))
    with pytest.raises(MassDeleteSuspected, match="allow-deletes contacts 150"):
        world.mirror.verify_all(heal=True)
    assert len(world.rows(Entity.CONTACTS)) == 300
    assert {row["name"] for row in world.rows(Entity.COMPANIES).values()} != {"wrong"}
    world.mirror.allow_deletes(Entity.CONTACTS, 150)
    assert sum(result.left for result in world.mirror.verify_all(heal=True)) == 0
    assert world.differences() == []


def test_a_row_older_than_the_record_was_is_written_when_scan_and_refetch_agree(
    make_world: MakeWorld,
) -> None:
    world = make_world(records={"contacts": 10})
    world.extract([Entity.CONTACTS])
    world.pass_time(300)
    with world.warehouse.transaction("somebody") as tx:
        ahead = world.clock.now() + timedelta(days=30)
        tx.execute(update(CONTACTS).values(updated_at=ahead, last_name="Ahead"))
    healed = world.mirror.verify(Entity.CONTACTS, heal=True)
    assert (healed.stale, healed.repaired, healed.left) == (10, 10, 0)
    assert world.differences() == []


def test_a_crash_at_any_step_of_healing_loses_nothing(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 20}, max_limit=8)
    world.extract([Entity.CONTACTS])
    crashes = 0
    for step in range(1, 200, 4):
        world.pass_time(300)
        with world.warehouse.transaction("somebody") as tx:
            tx.execute(update(CONTACTS).values(notes=f"wrong {step}"))
            tx.execute(CONTACTS.insert().values(id=f"not-in-rally-{step}"))
        world.crash_at(step)
        try:
            world.mirror.verify(Entity.CONTACTS, heal=True)
        except Crash:
            crashes += 1
        else:
            break
        world.restart()
        assert world.mirror.verify(Entity.CONTACTS, heal=True).left == 0
        assert world.differences() == []
        assert world.marks() == []
    assert crashes > 10


def test_without_a_full_extract_there_is_nothing_to_compare(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 10})
    world.extract([Entity.CONTACTS])
    with pytest.raises(
        NeverExtracted, match="rally_companies, rally_deals, rally_activities have not been read"
    ):
        world.mirror.verify_all()
    assert world.mirror.verify(Entity.CONTACTS).equal == 10


def test_another_process_on_the_same_stream_is_waited_for(
    make_sqlite_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_sqlite_world(records={"contacts": 10})
    world.extract([Entity.CONTACTS])
    mirror = RallyMirror(
        world.warehouse, world.mirror.client, world.policy, clock=world.clock, patience_seconds=600
    )
    with world.warehouse.lease("rally.feed"):  # its holder is stopped: the lease runs out
        assert mirror.verify(Entity.CONTACTS).equal == 10
    assert "at the latest: stream 'rally.feed' is being worked on by" in caplog.text


def test_a_change_during_the_comparison_is_not_taken_for_a_defect(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(
        records={"contacts": 30}, max_limit=10, replica_lag_seconds=20, replica_share=0.0
    )
    world.extract([Entity.CONTACTS])
    world.pass_time(60)
    world.sandbox.rally.mutate(6, {"update": 1.0, "delete": 1.0}, entities=["contacts"])
    world.pass_time(5)
    world.catch_up()
    assert world.differences() == []
    # The list comes from a replica that has not seen the changes yet; the single reads do not.
    world.sandbox.rally.switch(replica_share=1.0, replica_serves=["lists"])
    assert world.mirror.verify(Entity.CONTACTS).differences == 0


def test_a_comparison_alone_writes_no_row(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 30})
    world.extract([Entity.CONTACTS])
    damage(world)
    before = world.rows(Entity.CONTACTS)
    world.mirror.verify(Entity.CONTACTS)
    assert world.rows(Entity.CONTACTS) == before
    assert world.marks() == []


def test_status_tells_rows_marks_quarantine_and_how_far_it_is_synced(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 30})
    empty = world.mirror.status()
    assert empty.synced_through is None
    assert empty.lag_seconds is None
    world.extract()
    world.pass_time(100)
    world.sandbox.rally.mutate(4, {"update": 1.0}, entities=["contacts"], over_seconds=4, tie_share=0.0)
    world.pass_time(30)
    marked = world.mirror.read_changes().marked
    status = world.mirror.status()
    contacts = status.tables[0]
    assert (contacts.table, contacts.rows, contacts.open_marks) == ("rally_contacts", 30, marked)
    assert contacts.oldest_mark_seconds is not None
    assert status.lag_seconds is not None
    assert status.lag_seconds >= world.policy.overlap_seconds
    assert status.changes_recorded == 4
