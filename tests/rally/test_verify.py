"""Comparison, healing, status: what is said about the mirror is true."""

from __future__ import annotations

from sqlalchemy import update

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.tables import ENTITY_TABLES
from tests.rally.conftest import MakeWorld
from tests.rally.world import World

CONTACTS = ENTITY_TABLES[Entity.CONTACTS]


def damage(world: World) -> tuple[str, str, str]:
    """One row less, one row more, one row different, behind the engine's back."""
    ids = sorted(world.rows(Entity.CONTACTS))
    with world.warehouse.transaction("damage") as tx:
        tx.execute(CONTACTS.delete().where(CONTACTS.c.id == ids[0]))
        tx.execute(CONTACTS.insert().values(id="not-in-rally", first_name="Nobody"))
        tx.execute(update(CONTACTS).where(CONTACTS.c.id == ids[1]).values(notes="other", _version=1))
    return ids[0], "not-in-rally", ids[1]


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


def test_a_change_that_is_already_marked_is_in_flight_not_a_defect(make_sqlite_world: MakeWorld) -> None:
    world = make_sqlite_world(records={"contacts": 30})
    world.extract([Entity.CONTACTS])
    world.pass_time(60)
    world.sandbox.rally.mutate(5, {"update": 1.0}, entities=["contacts"], tie_share=0.0, over_seconds=10)
    world.pass_time(10)
    marked = world.mirror.read_changes().marked
    found = world.mirror.verify(Entity.CONTACTS)
    assert found.differences == 0
    assert found.in_flight == marked


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
