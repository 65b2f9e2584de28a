"""Sell's part of the demo: the queue drained, changes and faults behind our back, drained again, and compared."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from rally_pipeline.cli.demo.comparing import count_differences
from rally_pipeline.cli.demo.stage import Stage, TableLine
from rally_pipeline.cli.sync.sell import catch_up
from rally_pipeline.cli.terminal import remarks
from rally_pipeline.sell.entities import Entity

CHANGED_SHARE = 0.10
FAILED_OBJECTS = 3
DUPLICATE_SHARE = 0.05


def perform(stage: Stage) -> list[TableLine]:
    """Drain, change, drain again, compare."""
    catch_up(stage.session)
    _change(stage)
    catch_up(stage.session)
    truth = stage.sandbox.sell.truth()
    return [_compare_queue(stage), *(_compare(stage, entity, truth) for entity in Entity)]


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


def _compare_queue(stage: Stage) -> TableLine:
    """Every state that Sell handed out must have landed here, and nothing may be left in the queue."""
    sync = stage.sandbox.sell.sync
    landed = {row["ack_key"] for row in stage.tables.read("sell_queue_items").values()}
    handed, left = set(), 0
    for device in sync.devices.values():
        handed |= device.handed.keys() | {item.ack_key for item in sync.injected if item.ack_key}
        left += len(sync.pending(device))
    differing = len(handed ^ landed) + left + len(sync.unknown_keys)
    return stage.line("sell_queue_items", len(handed), differing)


def _compare(stage: Stage, entity: Entity, truth: Mapping[str, list[dict[str, Any]]]) -> TableLine:
    """Every record of the account against the row that it should be, and rows without a record."""
    records = {_key(entity, record): record for record in truth.get(entity.value, [])}
    rows = stage.tables.read(entity.table_name)
    return stage.line(entity.table_name, len(records), count_differences(records, rows))


def _key(entity: Entity, record: Mapping[str, Any]) -> Hashable:
    """An associated contact has no id of its own: it is known by its deal and its contact."""
    if entity is Entity.ASSOCIATED_CONTACTS:
        return f"{record['deal_id']}:{record['contact_id']}"
    key: Hashable = record["id"]
    return key
