"""After a full resend: rows that were not sent again are suspected deletes.

A new device is never told of deletes that happened before it was born. Everything else it is sent, so a live row
without an item of the present lineage has probably gone. It is only marked; a look decides. Above the guard's
bounds nothing is marked before a person has named the exact number.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Text, and_, cast, exists, func, select

from rally_pipeline.sell import marks
from rally_pipeline.sell.device import Device
from rally_pipeline.sell.entities import Entity
from rally_pipeline.sell.policy import SellPolicy
from rally_pipeline.sell.tables import ENTITY_TABLES, failed_objects, queue_items, suspects
from rally_pipeline.warehouse import Transaction

NOT_RESENT = "not sent again"


def count_unresent(tx: Transaction, lineage: int) -> dict[Entity, int]:
    """Live rows of each type that the present lineage has not been sent."""
    found = {}
    for entity, table in ENTITY_TABLES.items():
        statement = select(func.count()).select_from(table).where(_is_unresent(entity, lineage))
        found[entity] = int(tx.scalar(statement) or 0)
    return found


def mark_unresent(
    tx: Transaction, device: Device, policy: SellPolicy, *, mark: int, seen: datetime
) -> tuple[Device, int, bool]:
    """Mark the rows and end the sweep, unless the guard holds it.

    Returns the device as it is now, the number of rows, and whether they are held back.
    """
    counts = count_unresent(tx, device.lineage)
    total = sum(counts.values())
    rows = sum(tx.count(table) for table in ENTITY_TABLES.values())
    if total > max(policy.guard_absolute, policy.guard_share * rows) and device.allowed != total:
        return device, total, True
    for entity, count in counts.items():
        if count:
            key = ENTITY_TABLES[entity].c.id
            ids = [str(row[0]) for row in tx.rows(select(key).where(_is_unresent(entity, device.lineage)))]
            hints = [((entity.singular, object_id), NOT_RESENT) for object_id in ids]
            marks.open_marks(tx, suspects, hints, mark=mark, seen=seen)
    done = replace(device, sweep=False, allowed=None)
    done.save(tx)
    return done, total, False


def mark_undelivered(tx: Transaction, *, mark: int, seen: datetime) -> None:
    """Mark stages that only their pipeline has shown, after a complete drain.

    The device never had such a stage as an item of its own, so if it goes before it comes, nobody announces that.
    """
    stages = ENTITY_TABLES[Entity.STAGES]
    kind = Entity.STAGES.singular
    came = exists().where(queue_items.c.type == kind, queue_items.c.id == cast(stages.c.id, Text))
    alone = and_(stages.c.revision.is_(None), stages.c["_deleted_at"].is_(None), ~came)
    ids = [str(row[0]) for row in tx.rows(select(stages.c.id).where(alone))]
    marks.open_marks(tx, suspects, [((kind, key), NOT_RESENT) for key in ids], mark=mark, seen=seen)


def _is_unresent(entity: Entity, lineage: int) -> Any:
    table = ENTITY_TABLES[entity]
    key = cast(table.c.id, Text)
    kind = entity.singular
    sent = exists().where(
        queue_items.c.type == kind, queue_items.c.id == key, queue_items.c.lineage == lineage
    )
    failed = exists().where(failed_objects.c.type == kind, failed_objects.c.id == key)
    return and_(table.c["_deleted_at"].is_(None), ~sent, ~failed)
