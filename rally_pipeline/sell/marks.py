"""Open objects: suspects (contradictions and unconfirmed deletes) and failed objects, until a look settles them.

Both tables have the same shape. A mark is renewed by every new hint and is cleared only by a look that began at
least `staleness` after the newest hint, and only while the mark is still the one that the look saw.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Table, and_, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from rally_pipeline.sell.tables import failed_objects, suspects
from rally_pipeline.warehouse import Transaction

TABLES = (suspects, failed_objects)
Reference = tuple[str, str]
"""Type of the queue (singular) and id of an object."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One open object of one of the two tables."""

    table: Table
    type: str
    id: str
    mark: int
    reason: str
    last_seen: datetime
    attempts: int
    absences: int
    last_error: str | None

    @property
    def reference(self) -> Reference:
        return self.type, self.id


def open_marks(
    tx: Transaction, table: Table, hints: Iterable[tuple[Reference, str]], *, mark: int, seen: datetime
) -> None:
    """Mark the objects (with a reason each); marks that are open are renewed and keep their first day."""
    rows = {
        reference: {
            "type": reference[0],
            "id": reference[1],
            "mark": mark,
            "reason": reason,
            "first_seen": seen,
            "last_seen": seen,
            "attempts": 0,
            "absences": 0,
        }
        for reference, reason in hints
    }
    if not rows:
        return
    insert = postgresql.insert if tx.connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table)
    new = statement.excluded
    renewed = {name: new[name] for name in ("mark", "reason", "last_seen", "attempts", "absences")}
    statement = statement.on_conflict_do_update(
        index_elements=[table.c.id, table.c.type], set_={**renewed, "last_error": None}
    )
    tx.connection.execute(statement, list(rows.values()))


def marked_among(tx: Transaction, table: Table, references: Iterable[Reference]) -> set[Reference]:
    """Those of the objects that are open in `table`."""
    keys = [(object_id, kind) for kind, object_id in references]
    return {(kind, object_id) for object_id, kind in tx.fetch(table, (), keys)}


def clear_marks(tx: Transaction, table: Table, references: Iterable[Reference]) -> int:
    """Close the objects in `table` whatever their mark; returns how many were open."""
    closed = 0
    for kind, object_id in references:
        closed += tx.execute(delete(table).where(_is(table, kind, object_id))).rowcount
    return closed


def clear_seen(tx: Transaction, marks: Iterable[Mark]) -> int:
    """Close marks that are still as the look saw them; returns how many were."""
    closed = 0
    for mark in marks:
        statement = delete(mark.table).where(
            _is(mark.table, mark.type, mark.id), mark.table.c.mark == mark.mark
        )
        closed += tx.execute(statement).rowcount
    return closed


def postpone(tx: Transaction, mark: Mark, *, absent: bool = False, error: str | None = None) -> None:
    """Count a look that decided nothing: an error, or an absence in a row of them."""
    columns = mark.table.c
    tx.execute(
        update(mark.table)
        .where(_is(mark.table, mark.type, mark.id), columns.mark == mark.mark)
        .values(
            attempts=columns.attempts + 1,
            absences=mark.absences + 1 if absent else 0,
            last_error=error,
        )
    )


def read_marks(tx: Transaction, kind: str, *, limit: int) -> list[Mark]:
    """Open objects of a type, oldest hint first, at most `limit` of each table."""
    found: list[Mark] = []
    for table in TABLES:
        columns = table.c
        statement = (
            select(
                columns.id,
                columns.mark,
                columns.reason,
                columns.last_seen,
                columns.attempts,
                columns.absences,
                columns.last_error,
            )
            .where(columns.type == kind)
            .order_by(columns.last_seen, columns.id)
            .limit(limit)
        )
        found += [Mark(table, kind, *row) for row in tx.rows(statement)]
    return found


def count_marks(tx: Transaction, table: Table) -> dict[str, tuple[int, datetime | None]]:
    """Per type: open objects, and when the oldest was first seen."""
    columns = table.c
    statement = select(columns.type, func.count(), func.min(columns.first_seen)).group_by(columns.type)
    return {kind: (count, first) for kind, count, first in tx.rows(statement)}


def _is(table: Table, kind: str, object_id: str) -> Any:
    return and_(table.c.id == object_id, table.c.type == kind)
