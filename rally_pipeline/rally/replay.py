"""Quarantined records get another chance: each becomes a mark, and the look decides."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import msgspec

from rally_pipeline.rally.client import RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.feed_state import FEED_STREAM
from rally_pipeline.rally.marks import REASON_REPLAY, Hint, add_marks
from rally_pipeline.rally.records import read_id
from rally_pipeline.rally.results import ReplayResult

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Lease, Transaction, Warehouse

_NAMELESS = "hash:"
_ENTRY = "entry:"


def replay(
    warehouse: Warehouse, client: RallyClient, lease_of: Callable[[str], AbstractContextManager[Lease]]
) -> ReplayResult:
    """Mark what is quarantined. Records leave the quarantine when a look has stored them, not before."""
    tried = marked = 0
    details: list[str] = []
    for entity in Entity:
        with lease_of(entity.stream) as lease, warehouse.transaction(f"{entity.stream}.replay", lease) as tx:
            hints: list[Hint] = []
            for held in tx.quarantined(entity.stream):
                tried += 1
                entity_id = read_id(held.raw.encode()) if held.key.startswith(_NAMELESS) else held.key
                if entity_id is None:
                    details.append(f"{entity.value} {held.key}: {held.reason}")
                    continue
                hints.append(Hint(entity_id, REASON_REPLAY))
                if held.key.startswith(_NAMELESS):
                    tx.release(entity.stream, held.key)
            marked += add_marks(tx, entity, hints, seen=client.server_ceiling())
    with lease_of(FEED_STREAM) as lease, warehouse.transaction("rally.feed.replay", lease) as tx:
        for held in tx.quarantined(FEED_STREAM):
            tried += 1
            if held.key.startswith(_ENTRY) and _replay_entry(tx, held.raw, client):
                tx.release(FEED_STREAM, held.key)
                marked += 1
            else:
                details.append(f"feed {held.key}: {held.reason}")
    return ReplayResult(tried=tried, marks=marked, details=tuple(details))


def _replay_entry(tx: Transaction, raw: str, client: RallyClient) -> bool:
    """Mark the object of a parked feed entry, if its type is known by now."""
    entry = msgspec.json.decode(raw)
    entity = Entity.of_singular(entry["entity_type"])
    if entity is None:
        return False
    hint = Hint(entry["entity_id"], REASON_REPLAY, entry["changed_at"])
    return add_marks(tx, entity, [hint], seen=client.server_ceiling()) == 1
