"""The landed queue: what came, in which state, and which keys are still to be acknowledged."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, insert, select, update

from rally_pipeline.sell.queue import QueueItem
from rally_pipeline.sell.tables import pending_acks, queue_items
from rally_pipeline.warehouse import Transaction
from rally_pipeline.warehouse.values import clean_text

_COLUMNS = (
    "type",
    "id",
    "ack_key",
    "event_type",
    "revision",
    "lineage",
    "payload",
    "page",
    "seen_at",
    "acked_at",
)
_BOOKKEEPING = ("event_type", "page", "seen_at", "acked_at")
"""Columns whose change alone causes no write; the event type is a hint that a redelivery may spell differently."""


@dataclass(frozen=True, slots=True)
class PageMark:
    """A page of the queue as the bookkeeping knows it."""

    number: int
    """Rises by one with every page that the warehouse ever committed."""
    lineage: int
    at: datetime
    """Server time of the answer."""


@dataclass(frozen=True, slots=True)
class PendingAck:
    """The keys of one committed page that the server has not confirmed."""

    page: int
    keys: tuple[str, ...]


def land(
    tx: Transaction, page: PageMark, items: Iterable[tuple[QueueItem, str]], *, kept: Collection[str], at: str
) -> int:
    """Land items with the ids of their objects; those whose key is in `kept` with their data.

    Returns how many were not landed before in this state and lineage. An item that even the landing table
    refuses goes to quarantine.
    """
    rows = []
    for item, object_id in items:
        payload = bytes(memoryview(item.data)).decode(errors="replace") if item.ack_key in kept else None
        rows.append(
            (
                clean_text(item.type),
                object_id,
                clean_text(item.ack_key),
                clean_text(item.event_type),
                item.revision,
                page.lineage,
                payload,
                page.number,
                at,
                None,
            )
        )
    result = tx.upsert(queue_items, _COLUMNS, rows, touch=_BOOKKEEPING)
    for row, reason in result.rejected:
        tx.quarantine("sell.queue", f"ack:{row[2]}", reason, str(row[6] or ""))
    return result.written


def remember_keys(tx: Transaction, page: PageMark, keys: Sequence[str]) -> None:
    """Note that the keys of a page are to be acknowledged, once this transaction is committed."""
    if keys:
        values = {
            "page": page.number,
            "lineage": page.lineage,
            "ack_keys": list(keys),
            "committed_at": page.at,
        }
        tx.execute(insert(pending_acks).values(values))


def pending(tx: Transaction, *, lineage: int, after: int, limit: int) -> list[PendingAck]:
    """Pages above `after` that were committed and whose keys are not confirmed, oldest first."""
    statement = (
        select(pending_acks.c.page, pending_acks.c.ack_keys)
        .where(pending_acks.c.lineage == lineage, pending_acks.c.page > after)
        .order_by(pending_acks.c.page)
        .limit(limit)
    )
    return [PendingAck(page, tuple(keys)) for page, keys in tx.rows(statement)]


def count_pending(tx: Transaction) -> int:
    """Committed pages whose acknowledgement is not confirmed."""
    return int(tx.scalar(select(func.count()).select_from(pending_acks)) or 0)


def confirm(tx: Transaction, pages: Sequence[int], *, at: datetime) -> None:
    """The server has confirmed the acknowledgements of these pages."""
    if not pages:
        return
    tx.execute(
        update(queue_items)
        .where(queue_items.c.page.in_(pages), queue_items.c.acked_at.is_(None))
        .values(acked_at=at)
    )
    tx.execute(delete(pending_acks).where(pending_acks.c.page.in_(pages)))


def newest_revisions(tx: Transaction, kind: str, ids: Sequence[str]) -> dict[str, int]:
    """The highest revision that the queue delivered of each object, also where a look wrote its state."""
    statement = (
        select(queue_items.c.id, func.max(queue_items.c.revision))
        .where(queue_items.c.type == kind, queue_items.c.id.in_(ids))
        .group_by(queue_items.c.id)
    )
    return {object_id: revision for object_id, revision in tx.rows(statement) if revision}


def drop_payloads(tx: Transaction, references: Iterable[tuple[str, str]]) -> None:
    """A look has written what these objects are: the landed copies are not needed any more."""
    for kind, object_id in references:
        tx.execute(
            update(queue_items)
            .where(
                queue_items.c.type == kind,
                queue_items.c.id == object_id,
                queue_items.c.payload.is_not(None),
            )
            .values(payload=None)
        )


def forget(tx: Transaction, *, before: datetime, days: int) -> int:
    """Forget landed items that were acknowledged `days` before, unless they hold the only copy."""
    expired = queue_items.c.acked_at < before - timedelta(days=days)
    return tx.execute(delete(queue_items).where(expired, queue_items.c.payload.is_(None))).rowcount
