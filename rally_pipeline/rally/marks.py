"""Open marks (`rally_dirty`): what has to be looked at before it can be believed.

A mark is made by any hint (a feed entry, an absence, a contradiction) and cleared only by a look that began at least
`staleness` after the newest hint, and only while the mark is still the one that the look saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.tables import dirty
from rally_pipeline.warehouse import Transaction

REASON_ABSENT = "absent"
"""A full pass did not meet the stored row."""
REASON_OLDER = "older"
"""A list row was older than what is stored, and different."""
REASON_REFUSED = "refused"
"""A list row could not be stored."""
REASON_VERIFY = "verify"
"""A comparison found a difference."""
REASON_REPLAY = "replay"
"""A quarantined record gets another look."""

_WEAK_REASONS = (REASON_ABSENT, REASON_OLDER, REASON_REFUSED, REASON_VERIFY, REASON_REPLAY)


@dataclass(frozen=True, slots=True)
class Hint:
    """Something that says "this object may have changed or gone"."""

    entity_id: str
    reason: str
    changed_at: str | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """One open mark."""

    entity_id: str
    mark: int
    last_seen: datetime
    changed_at: datetime | None
    reason: str
    attempts: int


_ID_CHUNK = 500
_FUTURE = timedelta(seconds=10)


def add_marks(tx: Transaction, entity: Entity, hints: Iterable[Hint], *, seen: datetime) -> int:
    """Mark the objects, renewing marks that are open; returns how many objects were named."""
    rows: dict[str, dict[str, Any]] = {}
    for hint in hints:
        known = rows.get(hint.entity_id)
        changed_at = hint.changed_at
        if known is not None and known["changed_at"] is not None and changed_at is not None:
            changed_at = min(changed_at, known["changed_at"])
        rows[hint.entity_id] = {
            "entity_type": entity.singular,
            "entity_id": hint.entity_id,
            "mark": 1,
            "first_seen": seen,
            "last_seen": seen,
            "changed_at": changed_at,
            "reason": hint.reason,
            "attempts": 0,
        }
    if rows:
        tx.connection.execute(_upsert_marks(tx.connection.dialect.name), list(rows.values()))
    return len(rows)


@cache
def _upsert_marks(dialect: str) -> Any:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = insert(dirty)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[dirty.c.entity_type, dirty.c.entity_id],
        set_={
            "mark": dirty.c.mark + 1,
            "last_seen": case((new.last_seen > dirty.c.last_seen, new.last_seen), else_=dirty.c.last_seen),
            "changed_at": case(
                (dirty.c.changed_at.is_(None), new.changed_at),
                (new.changed_at < dirty.c.changed_at, new.changed_at),
                else_=dirty.c.changed_at,
            ),
            # A feed entry says more than an absence or a contradiction does.
            "reason": case(
                (_is_weak(new.reason) & ~_is_weak(dirty.c.reason), dirty.c.reason),
                else_=new.reason,
            ),
            "attempts": 0,
            "retry_at": None,
        },
    )


def _is_weak(reason: ColumnElement[Any]) -> ColumnElement[bool]:
    """Not `IN`: its list is expanded for each execution, which a batch of parameters does not allow."""
    return or_(*(reason == weak for weak in _WEAK_REASONS))


def marked_among(tx: Transaction, entity: Entity, ids: Sequence[str]) -> set[str]:
    """Those of `ids` that have an open mark now."""
    found: set[str] = set()
    for start in range(0, len(ids), _ID_CHUNK):
        statement = select(dirty.c.entity_id).where(
            dirty.c.entity_type == entity.singular, dirty.c.entity_id.in_(ids[start : start + _ID_CHUNK])
        )
        found.update(row[0] for row in tx.rows(statement))
    return found


def reasons_among(tx: Transaction, entity: Entity, ids: Sequence[str]) -> dict[str, str]:
    """Why those of `ids` that are pending are: id -> reason."""
    found: dict[str, str] = {}
    for start in range(0, len(ids), _ID_CHUNK):
        statement = select(dirty.c.entity_id, dirty.c.reason).where(
            dirty.c.entity_type == entity.singular, dirty.c.entity_id.in_(ids[start : start + _ID_CHUNK])
        )
        found.update((str(row[0]), str(row[1])) for row in tx.rows(statement))
    return found


def has_marks(tx: Transaction, entity: Entity) -> bool:
    """Whether any mark of the entity is open: lets a page skip `marked_among`."""
    return bool(tx.rows(select(dirty.c.mark).where(dirty.c.entity_type == entity.singular).limit(1)))


def due_marks(
    tx: Transaction, entity: Entity, *, seen_until: datetime, now: datetime, limit: int
) -> list[Mark]:
    """Marks whose newest hint is not later than `seen_until` and whose look may be tried now, oldest first."""
    statement = (
        select(
            dirty.c.entity_id,
            dirty.c.mark,
            dirty.c.last_seen,
            dirty.c.changed_at,
            dirty.c.reason,
            dirty.c.attempts,
        )
        .where(
            dirty.c.entity_type == entity.singular,
            dirty.c.last_seen <= seen_until,
            dirty.c.retry_at.is_(None) | (dirty.c.retry_at <= now),
        )
        .order_by(dirty.c.last_seen, dirty.c.entity_id)
        .limit(limit)
    )
    return [Mark(*row) for row in tx.rows(statement)]


def pull_back_marks(tx: Transaction, entity: Entity, *, now: datetime) -> int:
    """Hints that seem to come from the future (a wrong date in an answer) count as seen now; returns how many."""
    statement = (
        update(dirty)
        .where(dirty.c.entity_type == entity.singular, dirty.c.last_seen > now + _FUTURE)
        .values(last_seen=now)
    )
    return tx.execute(statement).rowcount


def newest_seen(tx: Transaction, entity: Entity, *, until: datetime) -> datetime | None:
    """The greatest `last_seen`, not after `until`, of the marks that have not failed yet; None where there is none."""
    statement = select(func.max(dirty.c.last_seen)).where(
        dirty.c.entity_type == entity.singular, dirty.c.retry_at.is_(None), dirty.c.last_seen <= until
    )
    found: datetime | None = tx.scalar(statement)
    return found


def clear_marks(tx: Transaction, entity: Entity, seen: Iterable[tuple[str, int]]) -> int:
    """Clear the marks that are still as the look saw them (id, mark); returns how many were."""
    cleared = 0
    by_mark: dict[int, list[str]] = {}
    for entity_id, mark in seen:
        by_mark.setdefault(mark, []).append(entity_id)
    for mark, ids in by_mark.items():
        for start in range(0, len(ids), _ID_CHUNK):
            statement = delete(dirty).where(
                and_(
                    dirty.c.entity_type == entity.singular,
                    dirty.c.mark == mark,
                    dirty.c.entity_id.in_(ids[start : start + _ID_CHUNK]),
                )
            )
            cleared += tx.execute(statement).rowcount
    return cleared


def postpone_mark(tx: Transaction, entity: Entity, mark: Mark, *, retry_at: datetime) -> None:
    """Count a look that decided nothing, and name the time before which it is not repeated."""
    tx.execute(
        update(dirty)
        .where(
            dirty.c.entity_type == entity.singular,
            dirty.c.entity_id == mark.entity_id,
            dirty.c.mark == mark.mark,
        )
        .values(attempts=dirty.c.attempts + 1, retry_at=retry_at)
    )


def count_marks(tx: Transaction, entity: Entity, *, reason: str | None = None) -> int:
    """Open marks of the entity, or those with one reason."""
    statement = select(func.count()).select_from(dirty).where(dirty.c.entity_type == entity.singular)
    if reason is not None:
        statement = statement.where(dirty.c.reason == reason)
    return int(tx.scalar(statement) or 0)


def count_stuck(tx: Transaction, entity: Entity, *, attempts: int) -> int:
    """Marks whose looks failed at least `attempts` times."""
    statement = (
        select(func.count())
        .select_from(dirty)
        .where(dirty.c.entity_type == entity.singular, dirty.c.attempts >= attempts)
    )
    return int(tx.scalar(statement) or 0)
