"""Removing rows on evidence, behind a guard against a mass delete by accident."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, update
from sqlalchemy.dialects import postgresql, sqlite

from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.rally import marks
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.marks import REASON_ABSENT, Mark
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.tables import ENTITY_TABLES, tombstones
from rally_pipeline.settings import DeleteMode
from rally_pipeline.warehouse.tables import quarantine

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Transaction


class MassDeleteSuspected(Exception):
    """So many rows seem to be gone that a wrong key, tenant or filter is likelier than so many deletes."""


class DeleteGuard:
    """Stops a run before it deletes more rows without a `deleted` entry than the policy allows.

    A wrong token, tenant or filter looks exactly like a mass delete. A person can allow one, once, with the exact
    number of suspected deletes (`allow_deletes`); run config cannot.
    """

    def __init__(self, entity: Entity, policy: MirrorPolicy) -> None:
        self._entity = entity
        self._policy = policy
        self._unannounced = 0

    def check(self, tx: Transaction) -> None:
        """Before the first look.

        Raises:
            MassDeleteSuspected: too many stored rows were not met by the last full pass.
        """
        self._refuse_beyond(tx, marks.count_marks(tx, self._entity, reason=REASON_ABSENT))

    def check_found(self, tx: Transaction, gone: Sequence[Mark]) -> None:
        """Before a batch of proven deletes: those that no feed entry announced count against the same bound.

        Raises:
            MassDeleteSuspected: the run has met too many of them; the batch is not deleted.
        """
        self._unannounced += sum(1 for mark in gone if mark.reason != "deleted")
        self._refuse_beyond(tx, self._unannounced)

    def _refuse_beyond(self, tx: Transaction, suspected: int) -> None:
        rows = tx.count(ENTITY_TABLES[self._entity])
        bound = max(self._policy.guard_absolute, int(rows * self._policy.guard_share))
        if suspected <= bound:
            return
        if suspected <= allowed_deletes(tx, self._entity):
            return
        raise MassDeleteSuspected(
            f"{suspected} of {rows} rows of {self._entity.table_name} seem to be gone from Rally, more than the"
            f" {bound} that are believed without asking. Nothing was deleted. If RALLY_API_URL and RALLY_API_KEY are"
            f" right and the deletes are real: rally-pipeline allow-deletes {self._entity.value} {suspected}"
        )


def allow_deletes(tx: Transaction, entity: Entity, count: int) -> None:
    """A person's word, good until the marks are settled: up to `count` suspected deletes may be looked at."""
    tx.set_state(entity.stream, {**(tx.state(entity.stream) or {}), "allowed_deletes": count})


def allowed_deletes(tx: Transaction, entity: Entity) -> int:
    """What `allow_deletes` stored."""
    return int((tx.state(entity.stream) or {}).get("allowed_deletes", 0))


def remove(
    tx: Transaction,
    entity: Entity,
    gone: Sequence[Mark],
    *,
    mode: DeleteMode,
    at: datetime,
    staleness: timedelta,
) -> int:
    """Remove the rows of marked objects whose absence a look that began `at` has proven, and leave tombstones.

    Returns how many rows were there.

    Raises:
        InvariantViolation: SN3, the look began before a hint had settled.
    """
    for mark in gone:
        if mark.last_seen + staleness > at:
            raise InvariantViolation(
                "SN3", f"{entity.value} {mark.entity_id} would go although its mark had not settled at {at}"
            )
    ids = [mark.entity_id for mark in gone]
    table = ENTITY_TABLES[entity]
    removed = tx.delete(table, ids, mode=mode, at=at)
    if mode is DeleteMode.SOFT:
        # A record that comes back unchanged must not be taken for a row that needs no write.
        tx.execute(update(table).where(table.c.id.in_(ids)).values(_version=None))
    insert = postgresql.insert if tx.connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(tombstones)
    statement = statement.on_conflict_do_update(
        index_elements=[tombstones.c.entity_type, tombstones.c.entity_id],
        set_={"deleted_at": statement.excluded.deleted_at},
    )
    held = (quarantine.c.source == entity.stream) & quarantine.c.key.in_(ids)
    tx.execute(delete(quarantine).where(held))  # a copy of the deleted record
    rows = [
        {"entity_type": entity.singular, "entity_id": entity_id, "deleted_at": at}
        for entity_id in sorted(set(ids))
    ]
    if rows:
        tx.connection.execute(statement, rows)
    return removed
