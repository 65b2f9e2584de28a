"""Sell's part of the demo: the queue drained, changes and faults behind our back, drained again, and compared."""

from __future__ import annotations

import shutil
import time
from math import ceil
from typing import TYPE_CHECKING

import msgspec

from rally_pipeline.cli.demo.stage import DemoLine, Stage
from rally_pipeline.cli.terminal import remarks
from rally_pipeline.sell.entities import Entity

if TYPE_CHECKING:
    from rally_pipeline.sell.mirror import SellMirror

CHANGED_SHARE = 0.10
FAILED_OBJECTS = 3
DUPLICATE_SHARE = 0.05
BOOKKEEPING = ("revision", "_synced_at")


def perform(stage: Stage) -> list[DemoLine]:
    """Drain, change, drain again, settle, compare."""
    from rally_pipeline.sell.connection import open_mirror

    # The demo's warehouse is a new one every time, and a device UUID belongs to one warehouse.
    shutil.rmtree(stage.settings.home_path / "sell-devices", ignore_errors=True)
    sell = stage.sandbox.sell
    inserted = updated = deleted = requests = fewest = 0
    begun = time.monotonic()
    with open_mirror(stage.settings, clock=stage.clock, progress=stage.progress) as mirror:
        for change in (False, True):
            if change:
                _change(stage)
            drained = mirror.drain()
            stage.progress.finish("sell.queue")
            settled = list(mirror.settle(Entity).values())
            tally = drained.tally
            inserted += tally.inserted + sum(result.inserted for result in settled)
            updated += tally.updated + sum(result.updated for result in settled)
            deleted += tally.deleted + sum(result.deleted for result in settled)
            requests += drained.cost.requests + sum(result.cost.requests for result in settled)
            fewest += 2 * ceil(tally.items / sell.options.page_size) + 2
        landed = mirror.landed_items()
        lines = [_compare(stage, mirror, entity) for entity in Entity]
    seconds = time.monotonic() - begun
    queue = DemoLine("sell_queue_items", landed, inserted, updated, deleted, requests, fewest, seconds, 0)
    return [queue, *lines]


def _change(stage: Stage) -> None:
    """Edits, deletes and revivals; the queue repeats items, delivers some late, and cannot load others."""
    sell = stage.sandbox.sell
    world = sell.world
    done = world.mutate(max(20, round(len(world.things) * CHANGED_SHARE)))
    contacts = list(world.live("contact"))
    for contact in contacts[:FAILED_OBJECTS]:
        world.update("contact", contact.id)
        sell.sync.failing[contact.reference] = 1
    for contact in contacts[FAILED_OBJECTS : 2 * FAILED_OBJECTS]:
        world.update("contact", contact.id)
        sell.sync.redeliver(contact)
    sell.switch(duplicate_share=DUPLICATE_SHARE, empty_every=3)
    told = ", ".join(f"{count} {kind}" for kind, count in done.items() if count)
    remarks.print(
        f"Sell changes: {told}; its queue repeats items, delivers {FAILED_OBJECTS} old states late, sends empty pages"
        f" and cannot load {FAILED_OBJECTS} objects"
    )


def _compare(stage: Stage, mirror: SellMirror, entity: Entity) -> DemoLine:
    """Every record of the account against the row that it should be, and rows without a record."""
    from rally_pipeline.sell.records import decoder_of, read_record
    from rally_pipeline.sell.tables import ENTITY_TABLES

    decoder, table = decoder_of(entity), ENTITY_TABLES[entity]
    compared = [name for name in decoder.columns[1:] if name not in BOOKKEEPING]
    places = [decoder.columns.index(name) for name in compared]
    expected = {}
    for record in stage.sandbox.sell.truth().get(entity.value, []):
        read = read_record(entity, msgspec.json.encode(record))
        row = decoder.row(read, revision=None, synced_at="")
        expected[read.key] = tuple(row[place] for place in places)
    stored = mirror.read(
        lambda tx: {key: row for page in tx.scan(table, compared) for key, row in page if row[-1] is None}
    )
    differing = sum(stored.get(key) != row for key, row in expected.items()) + len(
        stored.keys() - expected.keys()
    )
    return DemoLine(entity.table_name, len(stored), 0, 0, 0, 0, 0, 0.0, differing)
