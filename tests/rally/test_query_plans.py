"""What the mirror asks of its own bookkeeping is found by an index, however long the bookkeeping has grown."""

from __future__ import annotations

import sqlalchemy as sa

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.tables import ENTITY_TABLES, changes, dirty, feed_windows, tombstones
from rally_pipeline.warehouse.tables import quarantine
from tests.rally.conftest import MakeWorld
from tests.rally.world import World
from tests.warehouse.query_plans import fill, refresh_statistics, watched_plans

BOOKKEEPING = (changes, dirty, feed_windows, tombstones, quarantine)
LONG_AGO = "'2020-01-01T00:00:00.000000Z'"


def grow_old(world: World) -> None:
    """Years of entries, windows and tombstones, and many open marks of another entity."""
    with world.warehouse.transaction("years") as tx:
        connection = tx.connection
        hour = (
            "strftime('%Y-%m-%dT%H:%M:%S.000000Z', '2000-01-01', '+' || n || ' hours')"
            if connection.dialect.name == "sqlite"
            else "timestamptz '2000-01-01 00:00:00Z' + n * interval '1 hour'"
        )
        named = {"entity_type": "'deal'", "entity_id": "'deal-' || n"}
        fill(
            connection,
            changes,
            20_000,
            id="-n",
            changed_at=hour,
            recorded_at=hour,
            action="'updated'",
            **named,
        )
        fill(
            connection,
            dirty,
            20_000,
            **named,
            mark="1",
            first_seen=hour,
            last_seen=LONG_AGO,
            reason="'updated'",
            attempts="0",
        )
        fill(
            connection, feed_windows, 20_000, window_start=hour, window_end=hour, entries="1", closed_at=hour
        )
        fill(connection, tombstones, 20_000, **named, deleted_at=LONG_AGO)
        fill(
            connection,
            quarantine,
            20_000,
            source="'sell.queue'",
            key="'key-' || n",
            reason="'bad'",
            raw="'{}'",
            first_seen=hour,
            last_seen=hour,
            attempts="1",
        )
    with world.warehouse.transaction("statistics") as tx:
        refresh_statistics(tx.connection)


def test_no_operation_reads_the_bookkeeping_from_end_to_end(make_world: MakeWorld) -> None:
    world = make_world(records={"contacts": 400, "companies": 0, "deals": 0, "activities": 0})
    world.extract([Entity.CONTACTS])
    grow_old(world)
    with watched_plans([table.name for table in BOOKKEEPING]) as watch:
        world.warehouse.close()
        world.open()
        mirror, contacts = world.mirror, world.sandbox.rally.ids("contacts")
        for entity_id in contacts[:40]:
            world.sandbox.rally.update("contacts", entity_id, {"title": "Changed"})
        for entity_id in contacts[40:45]:
            world.sandbox.rally.delete("contacts", entity_id)
        world.sandbox.rally.distort("contacts", contacts[50], raw={"firstName": "NaN"})
        world.pass_time(3_700)
        mirror.poll()
        mirror.read_changes()
        mirror.settle(Entity.CONTACTS)
        mirror.extract(Entity.CONTACTS)
        mirror.extract_updated(Entity.CONTACTS)
        with world.warehouse.transaction("somebody") as tx:
            tx.execute(sa.update(ENTITY_TABLES[Entity.CONTACTS]).values(notes="wrong"))
        mirror.verify(Entity.CONTACTS)
        mirror.verify(Entity.CONTACTS, heal=True)
        mirror.coverage()
        mirror.windows_to_close(world.clock.now())
    assert watch.touched() == {table.name for table in BOOKKEEPING}
    assert watch.scans() == []


def test_a_scan_is_noticed(make_world: MakeWorld) -> None:
    world = make_world(records=20)
    grow_old(world)
    with watched_plans(["rally_changes"]) as watch:
        world.warehouse.close()
        world.open()
        with world.warehouse.reading() as tx:
            tx.rows(sa.select(changes.c.id).where(changes.c.changed_by == "nobody"))
    assert len(watch.scans()) == 1
