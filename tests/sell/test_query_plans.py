"""What the drain asks of its own bookkeeping is found by an index, however long the bookkeeping has grown."""

from __future__ import annotations

from rally_pipeline.sell.tables import failed_objects, pending_acks, queue_items, suspects, tombstones
from tests.sell.conftest import MakeWorld
from tests.sell.world import World
from tests.warehouse.query_plans import fill, refresh_statistics, watched_plans

BOOKKEEPING = (queue_items, pending_acks, suspects, failed_objects, tombstones)


def grow_old(world: World) -> None:
    """Many landed items that are to be kept, and many open objects and tombstones of a type that nobody settles."""
    with world.warehouse.transaction("years") as tx:
        connection = tx.connection
        moment = f"'{world.clock.now().isoformat()}'"
        named = {"type": "'order'", "id": "'order-' || n"}
        landed = {**named, "ack_key": "'key-' || n", "event_type": "'updated'", "lineage": "1", "page": "-n"}
        fill(connection, queue_items, 20_000, **landed, seen_at=moment, acked_at=moment)
        fill(
            connection,
            pending_acks,
            20_000,
            page="-n",
            lineage="0",
            ack_keys="'[]'",
            committed_at=moment,
        )
        marked = {
            **named,
            "mark": "1",
            "reason": "'contradiction'",
            "first_seen": moment,
            "last_seen": moment,
            "attempts": "0",
            "absences": "0",
        }
        for table in (suspects, failed_objects):
            fill(connection, table, 20_000, **marked)
        fill(connection, tombstones, 20_000, **named, deleted_at=moment)
    with world.warehouse.transaction("statistics") as tx:
        refresh_statistics(tx.connection)


def test_no_operation_reads_the_bookkeeping_from_end_to_end(make_world: MakeWorld) -> None:
    world = make_world(records=60)
    world.catch_up()
    grow_old(world)
    with watched_plans([table.name for table in BOOKKEEPING]) as watch:
        world.reopen()
        world.api.control("mutate", {"changes": 60})
        world.catch_up()
    assert watch.touched() == {table.name for table in BOOKKEEPING}
    # Counting what is open reads what is open, and that is little; nothing else may.
    assert [scan for scan in watch.scans() if "count(*)" not in scan] == []
