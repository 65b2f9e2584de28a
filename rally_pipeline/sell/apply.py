"""One page of the queue into the warehouse, inside the caller's transaction.

Everything that the page says is kept before its keys may be acknowledged: rows, tombstones, marks, failed objects,
quarantined items, the landed items themselves, and the keys. A page may be applied any number of times, in any
order with others: what is stored already is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import msgspec
from sqlalchemy import select

from rally_pipeline.invariants import InvariantViolation
from rally_pipeline.sell import landing, marks
from rally_pipeline.sell.entities import Entity
from rally_pipeline.sell.errors import WrongAccount
from rally_pipeline.sell.judgement import DELETED_OR_NOT, UNLISTED, Incoming, Stored, Verdict, judge
from rally_pipeline.sell.landing import PageMark
from rally_pipeline.sell.marks import Reference
from rally_pipeline.sell.queue import QueueItem, QueuePage, UnreadableItem
from rally_pipeline.sell.records import (
    Record,
    RecordError,
    Row,
    UnplaceableError,
    decoder_of,
    read_identity,
    read_record,
)
from rally_pipeline.sell.results import PageTally
from rally_pipeline.sell.tables import ENTITY_TABLES, failed_objects, suspects, tombstones
from rally_pipeline.settings import DeleteMode
from rally_pipeline.warehouse import Transaction, UpsertResult
from rally_pipeline.warehouse.tables import quarantine
from rally_pipeline.warehouse.values import instant_text

QUEUE_SOURCE = "sell.queue"
"""Where quarantined items without a type of their own say they came from."""
BOOKKEEPING = ("_synced_at",)
"""Columns whose change alone causes no write."""
_ACCOUNT = "sell.account"

State = tuple[QueueItem, Record]
"""An item and the record that it carries."""


class PageApplier:
    """Applies one page. Afterwards `ack_keys` holds what may be acknowledged, once the transaction is committed."""

    def __init__(self, tx: Transaction, page: PageMark, mode: DeleteMode) -> None:
        self._tx = tx
        self._page = page
        self._mode = mode
        self._at = instant_text(page.at)
        self._landed: list[tuple[QueueItem, str]] = []
        self._rows: dict[Entity, dict[int | str, tuple[Row, State]]] = {}
        self._deletes: dict[Entity, list[int | str]] = {}
        self._buried: list[Row] = []
        self._suspects: dict[Reference, str] = {}
        self._applied: list[tuple[QueueItem, Stored | None]] = []
        """Items that are written, each with what was stored before."""
        self._kept: set[str] = set()
        """Keys of items whose data is the only copy of what they say."""
        self.tally = PageTally()
        self.ack_keys: list[str] = []

    def apply(self, page: QueuePage) -> None:
        """Write everything that the page says.

        Raises:
            WrongAccount: the token belongs to another account; nothing of the transaction may be kept.
            WarehouseError, InvariantViolation: nothing of it may be acknowledged.
        """
        self.tally.items = len(page.items) + len(page.unreadable)
        self.tally.failed_objects = len(page.failed)
        objects = self._read(page.items)
        self._judge(objects)
        self._check_verdicts()
        self._write()
        self._mark(page, objects)
        self._check_failed(page)
        for unreadable in page.unreadable:
            self._set_aside(unreadable)
        if self._landed:
            self.tally.landed = landing.land(self._tx, self._page, self._landed, kept=self._kept, at=self._at)
        keys = [item.ack_key for item in page.items]
        keys += [unreadable.ack_key for unreadable in page.unreadable if unreadable.ack_key is not None]
        self.ack_keys = list(dict.fromkeys(keys))
        safe = {item.ack_key for item, _ in self._landed} | {found.ack_key for found in page.unreadable}
        if not safe.issuperset(self.ack_keys) or len(self._landed) != len(page.items):
            raise InvariantViolation(
                "SQ1", f"{len(self._landed)} of {len(page.items)} items of a page were landed before its keys"
            )
        landing.remember_keys(self._tx, self._page, self.ack_keys)
        if page.items and not self.tally.landed:
            self._check_repeat()

    # ------------------------------------------------------------------ reading

    def _read(self, items: Iterable[QueueItem]) -> dict[Reference, list[State]]:
        """The page's states by object, repeats removed."""
        objects: dict[Reference, dict[tuple[bool, int | None, bytes], State]] = {}
        for item in items:
            entity = Entity.of_singular(item.type)
            raw = bytes(memoryview(item.data))
            if entity is None:
                self._keep_raw(item, read_identity(raw) or "")
                continue
            try:
                record = read_record(entity, raw)
            except UnplaceableError:
                self._keep_raw(item, "")
            except RecordError as error:
                object_id = read_identity(raw)
                self._landed.append((item, object_id or ""))
                self._refuse(entity.stream, object_id or _digest(raw), str(error), raw)
            else:
                self._landed.append((item, record.object_id))
                state = (item.is_delete, item.revision, b"" if item.is_delete else raw)
                objects.setdefault((item.type, record.object_id), {}).setdefault(state, (item, record))
        return {reference: list(states.values()) for reference, states in objects.items()}

    def _stored(self, objects: Mapping[Reference, list[State]]) -> dict[Reference, Stored]:
        """What the warehouse holds of the objects: rows, and tombstones in their place."""
        wanted: dict[Entity, dict[Any, Reference]] = {}
        for reference, states in objects.items():
            record = states[0][1]
            wanted.setdefault(record.entity, {})[record.key] = reference
        stored: dict[Reference, Stored] = {}
        for entity, keys in wanted.items():
            columns = ["revision", "updated_at", *(["resource_type"] if entity is Entity.SOURCES else [])]
            for key, values in self._tx.fetch(ENTITY_TABLES[entity], columns, list(keys)).items():
                found: tuple[Any, ...] = (*values, None)
                stored[keys[key]] = Stored(found[0], found[1], kind=found[2])
        named = [(object_id, kind) for kind, object_id in objects]
        for (object_id, kind), (revision,) in self._tx.fetch(tombstones, ("revision",), named).items():
            stored[kind, object_id] = Stored(revision, None, is_tombstone=True)  # type: ignore[arg-type]
        return stored

    # ------------------------------------------------------------------ judging

    def _judge(self, objects: Mapping[Reference, list[State]]) -> None:
        stored = self._stored(objects)
        embedded: dict[Reference, Record] = {}
        for reference, states in objects.items():
            item, record = states[0]
            if len(states) > 1:
                is_deleted = any(_incoming(*state).is_delete for state in states)
                reason = DELETED_OR_NOT if is_deleted else "two states on one page"
                self._suspect(reference, reason, states)
                continue
            before = stored.get(reference)
            verdict, reason = judge(_incoming(item, record), before)
            if verdict is Verdict.APPLY:
                row = decoder_of(record.entity).row(record, revision=item.revision, synced_at=self._at)
                self._rows.setdefault(record.entity, {})[record.key] = (row, states[0])
                self._applied.append((item, before))
                embedded.update(((part.entity.singular, part.object_id), part) for part in record.embedded())
                self._suspect_unlisted(record, objects)
            elif verdict is Verdict.DELETE:
                self._deletes.setdefault(record.entity, []).append(record.key)
                self._buried.append(
                    (reference[1], reference[0], before.revision if before else None, self._at)
                )
                self._suspects[reference] = reason
            elif verdict is Verdict.SUSPECT:
                self._suspect(reference, reason, states)
            else:
                self.tally.ignored += 1
        self._judge_embedded({part: record for part, record in embedded.items() if part not in objects})

    def _judge_embedded(self, parts: Mapping[Reference, Record]) -> None:
        """Records inside others carry no revision: only a later `updated_at` replaces a stored row."""
        if not parts:
            return
        stored = self._stored({reference: [(_NO_ITEM, record)] for reference, record in parts.items()})
        for reference, record in parts.items():
            before = stored.get(reference)
            if before is not None and before.is_tombstone:
                self._suspects[reference] = "revival"
            elif before is None or _is_later(record.updated_at, before.updated_at):
                revision = before.revision if before else None
                row = decoder_of(record.entity).row(record, revision=revision, synced_at=self._at)
                self._rows.setdefault(record.entity, {})[record.key] = (row, (_NO_ITEM, record))

    def _suspect_unlisted(self, pipeline: Record, objects: Mapping[Reference, list[State]]) -> None:
        """A stored stage that its pipeline no longer lists may be gone: an absence is a hint."""
        if "stages" not in pipeline.fields:
            return
        table = ENTITY_TABLES[Entity.STAGES]
        listed = {part.key for part in pipeline.embedded()}
        own = select(table.c.id).where(table.c.pipeline_id == pipeline.key, table.c["_deleted_at"].is_(None))
        for (key,) in self._tx.rows(own):
            reference = (Entity.STAGES.singular, str(key))
            if key not in listed and reference not in objects:
                self._suspects[reference] = UNLISTED

    def _suspect(self, reference: Reference, reason: str, states: Iterable[State]) -> None:
        self._suspects[reference] = reason
        self._kept.update(item.ack_key for item, _ in states)

    def _keep_raw(self, item: QueueItem, object_id: str) -> None:
        self._landed.append((item, object_id))
        self._kept.add(item.ack_key)
        self.tally.raw_only += 1

    # ------------------------------------------------------------------ invariants

    def _check_verdicts(self) -> None:
        """What is written is newer than what is stored, and every delete is looked at (SQ3)."""
        for item, before in self._applied:
            if before is not None and (before.is_tombstone or _is_behind(item.revision, before.revision)):
                raise InvariantViolation(
                    "SQ3",
                    f"{item.type} of revision {item.revision} would be written over"
                    f" {'a tombstone' if before.is_tombstone else f'revision {before.revision}'}",
                )
        for object_id, kind, *_ in self._buried:
            if (kind, object_id) not in self._suspects:
                raise InvariantViolation("SQ3", f"{kind} {object_id} would go without a look")

    def _check_failed(self, page: QueuePage) -> None:
        """Failed objects have no key and never come again by themselves: they stand in the same transaction (SQ4)."""
        wanted = {(found.type, found.id) for found in page.failed}
        if wanted and (lost := wanted - marks.marked_among(self._tx, failed_objects, wanted)):
            raise InvariantViolation("SQ4", f"{len(lost)} of {len(wanted)} failed objects are not recorded")

    def _check_repeat(self) -> None:
        """Of a page that was landed before, rows made once more are those that are stored (SQ5)."""
        for entity, rows in self._rows.items():
            decoder = decoder_of(entity)
            again = [
                decoder.row(record, revision=row[decoder.columns.index("revision")], synced_at=self._at)
                for row, (_, record) in rows.values()
            ]
            written = self._tx.upsert(
                ENTITY_TABLES[entity], decoder.columns, again, touch=BOOKKEEPING
            ).written
            if written:
                raise InvariantViolation(
                    "SQ5",
                    f"{written} of {len(again)} {entity.value} of a repeated page changed when applied again",
                )

    # ------------------------------------------------------------------ writing

    def _write(self) -> None:
        for entity, rows in self._rows.items():
            if entity is Entity.ACCOUNTS:
                self._check_account(rows)
            result = self._tx.upsert(
                ENTITY_TABLES[entity],
                decoder_of(entity).columns,
                [row for row, _ in rows.values()],
                touch=BOOKKEEPING,
            )
            self._count(result)
            for row, reason in result.rejected:
                item, record = rows.pop(row[0])[1]  # type: ignore[arg-type]
                raw = bytes(memoryview(item.data)) or msgspec.json.encode(record.fields)
                self._refuse(entity.stream, record.object_id, reason, raw)
        for entity, keys in self._deletes.items():
            self.tally.deleted += self._tx.delete(
                ENTITY_TABLES[entity], keys, mode=self._mode, at=self._page.at
            )
        if self._buried:
            self._tx.upsert(tombstones, ("id", "type", "revision", "deleted_at"), self._buried)

    def _count(self, result: UpsertResult) -> None:
        self.tally.inserted += result.inserted
        self.tally.updated += result.updated
        self.tally.unchanged += result.unchanged

    def _mark(self, page: QueuePage, objects: Mapping[Reference, list[State]]) -> None:
        """Open, renew and close marks: an object that moves while it is suspected stays so."""
        for reference in marks.marked_among(self._tx, suspects, objects):
            self._suspects.setdefault(reference, "changed while suspected")
        self.tally.suspected = len(self._suspects)
        hints = {"mark": self._page.number, "seen": self._page.at}
        marks.open_marks(self._tx, suspects, self._suspects.items(), **hints)  # type: ignore[arg-type]
        arrived = {
            (entity.singular, record.object_id)
            for entity, rows in self._rows.items()
            for _, (_, record) in rows.values()
        }
        # An object of an unknown type has no row to wait for: its landed item is all that can come.
        raw = {(item.type, key) for item, key in self._landed if Entity.of_singular(item.type) is None}
        came = marks.marked_among(self._tx, failed_objects, arrived | raw)
        marks.clear_marks(self._tx, failed_objects, came)
        failed = [((found.type, found.id), "not delivered by the queue") for found in page.failed]
        marks.open_marks(self._tx, failed_objects, failed, **hints)  # type: ignore[arg-type]
        self._release(arrived)

    def _release(self, stored: set[Reference]) -> None:
        """What is stored now needs no quarantine any more."""
        names = {object_id for _, object_id in stored}
        if not names or not self._tx.rows(_any_quarantined()):
            return
        held = select(quarantine.c.source, quarantine.c.key).where(quarantine.c.key.in_(names))
        kinds = {entity.stream: entity.singular for entity in Entity}
        for source, key in self._tx.rows(held):
            if (kinds.get(source, ""), key) in stored:
                self._tx.release(source, key)

    def _set_aside(self, unreadable: UnreadableItem) -> None:
        self._refuse(QUEUE_SOURCE, _digest(unreadable.raw), unreadable.reason, unreadable.raw)
        if unreadable.ack_key is None:
            self.tally.keyless += 1

    def _refuse(self, source: str, key: str, reason: str, raw: bytes) -> None:
        self._tx.quarantine(source, key, reason, raw)
        self.tally.quarantined += 1

    def _check_account(self, rows: Iterable[int | str]) -> None:
        """One warehouse mirrors one account: the token of another one is noticed before its page is kept."""
        for account in rows:
            known = self._tx.state(_ACCOUNT) or self._tx.claim_state(_ACCOUNT, {"id": account})
            if known["id"] != account:
                raise WrongAccount(
                    f"SELL_ACCESS_TOKEN belongs to Sell account {account}, but the warehouse mirrors account"
                    f" {known['id']}: check the token, or use another WAREHOUSE_URL"
                )


def known_account(tx: Transaction) -> str | None:
    """The account that this warehouse mirrors; None before its record arrived."""
    known = tx.state(_ACCOUNT)
    return None if known is None else str(known["id"])


_NO_ITEM = QueueItem("", "", "", None, msgspec.Raw(b""))
"""Stands where a record came inside another one."""


def _incoming(item: QueueItem, record: Record) -> Incoming:
    kind = record.fields.get("resource_type") if record.entity is Entity.SOURCES else None
    return Incoming(
        is_delete=item.is_delete,
        is_known_event=item.is_known_event,
        is_bare=record.is_bare,
        revision=item.revision,
        updated_at=record.updated_at,
        kind=kind if isinstance(kind, str) else None,
    )


def _is_behind(incoming: int | None, stored: int | None) -> bool:
    return incoming is not None and stored is not None and incoming < stored


def _is_later(incoming: str | None, stored: str | None) -> bool:
    return incoming is not None and (stored is None or incoming > stored)


def _digest(raw: bytes) -> str:
    return f"hash:{blake2b(raw, digest_size=16).hexdigest()}"


def _any_quarantined() -> Any:
    return select(quarantine.c.key).where(quarantine.c.source.like("sell.%")).limit(1)
