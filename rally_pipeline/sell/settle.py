"""Settling open objects: a look at the record itself writes its row, or proves its delete, and clears the mark.

Up to 100 objects are read by one list request; what the list does not show is read singly, unless the queue itself
has already said that it is gone: then the queue's word and the absence from the list agree, and that is enough.
A look counts if it began at least `staleness` after the newest hint: then it decides, whatever it shows. A 403 is a
missing scope and never an absence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from rally_pipeline.http.errors import ApiError, Forbidden, Throttled, Unauthorized
from rally_pipeline.sell import landing, marks
from rally_pipeline.sell.apply import BOOKKEEPING
from rally_pipeline.sell.entities import Entity
from rally_pipeline.sell.judgement import ANNOUNCED
from rally_pipeline.sell.marks import Mark
from rally_pipeline.sell.records import Record, RecordError, Row, decoder_of, read_record
from rally_pipeline.sell.results import Cost, SettleResult
from rally_pipeline.sell.spending import Meter
from rally_pipeline.sell.sweep import NOT_RESENT
from rally_pipeline.sell.tables import ENTITY_TABLES, tombstones
from rally_pipeline.settings import DeleteMode
from rally_pipeline.warehouse.values import instant_text

if TYPE_CHECKING:
    from rally_pipeline.clock import Clock
    from rally_pipeline.sell.client import SellClient
    from rally_pipeline.sell.policy import SellPolicy
    from rally_pipeline.warehouse import Lease, Transaction, Warehouse

logger = logging.getLogger(__name__)

_ANNOUNCED = ANNOUNCED | {NOT_RESENT}
"""Reasons by which the queue itself has said, or shown by silence, that the object is gone."""


@dataclass(slots=True)
class _Tally:
    settled: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    quarantined: int = 0
    failed: int = 0
    scope_missing: bool = False


@dataclass(slots=True)
class _Looks:
    """What one round of reading says of the objects: records, absences, and errors in their place."""

    found: dict[str, list[bytes]] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    errors: dict[str, str] = field(default_factory=dict)


class Settler:
    """The open objects of one type in one run, under the queue's lease."""

    def __init__(
        self,
        warehouse: Warehouse,
        client: SellClient,
        policy: SellPolicy,
        lease: Lease,
        entity: Entity,
        *,
        clock: Clock,
        progress: Callable[[str, int, int | None], None],
    ) -> None:
        self._warehouse = warehouse
        self._client = client
        self._policy = policy
        self._lease = lease
        self._entity = entity
        self._clock = clock
        self._progress = progress
        self._table = ENTITY_TABLES[entity]
        self._decoder = decoder_of(entity)
        self._tried: set[tuple[str, str, int]] = set()
        """Marks whose look decided nothing in this run: they are left to the next one."""
        self._tally = _Tally()
        self._total = self._count_open()
        self._cost = Cost()

    def settle_due(self) -> None:
        """Look at every open object whose time has come.

        Raises:
            ApiError: the token is refused, or the server answers nothing; a missing scope is reported instead.
        """
        meter = Meter(self._client.http, self._clock)
        while not self._tally.scope_missing and (due := self._due(self._open())):
            self._settle(due)
            self._progress(self._entity.stream, self._tally.settled, self._total)
        self._cost += meter.cost()

    def next_due(self) -> datetime | None:
        """When (server time) everything that is still open can be looked at; None where nothing is left to do."""
        pending = [] if self._tally.scope_missing else self._open()
        if not pending:
            return None
        return max(mark.last_seen for mark in pending) + self._policy.settling

    def result(self) -> SettleResult:
        """What became of the objects so far."""
        tally = self._tally
        return SettleResult(
            entity=self._entity.value,
            marks=self._total,
            settled=tally.settled,
            inserted=tally.inserted,
            updated=tally.updated,
            unchanged=tally.unchanged,
            deleted=tally.deleted,
            quarantined=tally.quarantined,
            waiting=self._count_open(),
            failed=tally.failed,
            scope_missing=tally.scope_missing,
            cost=self._cost,
        )

    def _open(self) -> list[Mark]:
        """Open objects that this run has not looked at, a batch of each table at a time."""
        with self._warehouse.reading() as tx:
            found = marks.read_marks(
                tx, self._entity.singular, limit=self._policy.look_batch + len(self._tried)
            )
        return [mark for mark in found if (mark.table.name, mark.id, mark.mark) not in self._tried]

    def _count_open(self) -> int:
        with self._warehouse.reading() as tx:
            return sum(
                marks.count_marks(tx, table).get(self._entity.singular, (0, None))[0]
                for table in marks.TABLES
            )

    def _due(self, pending: Sequence[Mark]) -> list[Mark]:
        """Those whose newest hint is old enough, one mark an object."""
        if not self._policy.staleness_seconds:
            due = pending
        else:
            begun = self._client.server_time()
            due = [mark for mark in pending if mark.last_seen + self._policy.settling <= begun]
        return list(due)[: self._policy.look_batch]

    # ------------------------------------------------------------------ looking

    def _settle(self, due: Sequence[Mark]) -> None:
        begun = self._client.server_time()
        try:
            looks = self._look(due)
        except Forbidden as error:
            logger.warning("%s cannot be looked at: %s", self._entity.value, error)
            self._tally.scope_missing = True
            looks = _Looks(errors={mark.id: str(error) for mark in due})
        with self._warehouse.transaction(f"{self._entity.stream}.look", self._lease) as tx:
            self._write_found(tx, [mark for mark in due if mark.id in looks.found], looks.found, begun)
            self._bury_absent(tx, [mark for mark in due if mark.id in looks.absent], begun)
            for mark in due:
                if mark.id in looks.errors:
                    self._leave(tx, mark, error=looks.errors[mark.id])
                    self._tally.failed += 1

    def _look(self, due: Sequence[Mark]) -> _Looks:
        if self._entity is Entity.ASSOCIATED_CONTACTS:
            return self._look_at_deals(sorted({mark.id for mark in due}))
        looks = _Looks()
        ids = sorted({mark.id for mark in due})
        unlisted = ids
        if len(ids) > 1 or not self._entity.has_single_reads:
            listed = self._client.read_many(self._entity, ids) if self._entity.list_paths else None
            if listed is not None:
                looks.found = listed
                announced = {mark.id for mark in due if mark.reason in _ANNOUNCED}
                if not self._entity.has_single_reads:
                    announced.update(ids)
                looks.absent = announced - listed.keys()
                unlisted = [
                    object_id for object_id in ids if object_id not in listed and object_id not in announced
                ]
        self._look_singly(unlisted, looks)
        return looks

    def _look_singly(self, ids: Sequence[str], looks: _Looks) -> None:
        """Read objects one by one.

        Raises:
            ApiError: several in a row got no answer, so the server is down rather than the objects.
        """
        failures = 0
        for object_id in ids:
            try:
                raw = self._client.read_one(self._entity, object_id)
            except (Unauthorized, Forbidden, Throttled):
                raise
            except ApiError as error:
                looks.errors[object_id] = str(error)
                failures += 1
                if failures >= self._policy.max_failed_looks:
                    raise
                continue
            failures = 0
            if raw is None:
                looks.absent.add(object_id)
            else:
                looks.found[object_id] = [raw]

    def _look_at_deals(self, ids: Sequence[str]) -> _Looks:
        """Associated contacts are listed under their deal."""
        looks = _Looks()
        deals: dict[str, dict[str, bytes]] = {}
        for object_id in ids:
            deal, colon, contact = object_id.partition(":")
            if not colon:
                looks.errors[object_id] = "without its deal it cannot be read: the mark stays open"
                continue
            if deal not in deals:
                deals[deal] = self._client.read_associated(deal)
            raw = deals[deal].get(contact)
            if raw is None:
                looks.absent.add(object_id)
            else:
                looks.found[object_id] = [raw]
        return looks

    # ------------------------------------------------------------------ writing

    def _write_found(
        self, tx: Transaction, seen: Sequence[Mark], found: Mapping[str, list[bytes]], begun: datetime
    ) -> None:
        """Write the records, end tombstones, and clear the marks that are still as the look saw them."""
        if not seen:
            return
        records = self._read(tx, seen, found)
        keys = [record.key for record in records.values()]
        stored = tx.fetch(self._table, ("revision",), keys)
        names = [(object_id, self._entity.singular) for object_id in records]
        buried = {name[0]: row[0] for name, row in tx.fetch(tombstones, ("revision",), names).items()}
        # Sources of deals and of leads may share an id, and the queue does not say which of them a revision is of.
        is_one_kind = self._entity is not Entity.SOURCES
        landed = landing.newest_revisions(tx, self._entity.singular, list(records)) if is_one_kind else {}
        rows: list[Row] = []
        for object_id, record in records.items():
            (revision,) = stored.get(record.key, (buried.get(object_id),))
            # A look is newer than all that was delivered before it: an old state that comes again must stay older.
            revision = max(revision or 0, landed.get(object_id, 0)) or None
            rows.append(self._decoder.row(record, revision=revision, synced_at=instant_text(begun)))  # type: ignore[arg-type]
        result = tx.upsert(self._table, self._decoder.columns, rows, touch=BOOKKEEPING)
        self._tally.inserted += result.inserted
        self._tally.updated += result.updated
        self._tally.unchanged += result.unchanged
        for row, reason in result.rejected:
            self._refuse(tx, str(row[0]), reason, found[str(row[0])][0])
        refused = {str(row[0]) for row, _ in result.rejected}
        tx.delete(tombstones, [name for name in names if name[0] in buried], mode=DeleteMode.HARD, at=begun)
        for object_id in records.keys() - refused:
            tx.release(self._entity.stream, object_id)
        self._close(tx, seen)

    def _read(
        self, tx: Transaction, seen: Sequence[Mark], found: Mapping[str, list[bytes]]
    ) -> dict[str, Record]:
        """The records that can be stored; the others go to quarantine."""
        records: dict[str, Record] = {}
        for object_id in sorted({mark.id for mark in seen}):
            first, *others = found[object_id]
            try:
                records[object_id] = read_record(self._entity, first)
            except RecordError as error:
                self._refuse(tx, object_id, str(error), first)
            for number, other in enumerate(others, 2):
                self._refuse(
                    tx, f"{object_id}#{number}", "another record of this type has the same id", other
                )
        return records

    def _bury_absent(self, tx: Transaction, seen: Sequence[Mark], begun: datetime) -> None:
        """Delete what is proven to be gone; leave an absence that nothing announced to another run's look."""
        names = [(mark.id, self._entity.singular) for mark in seen]
        buried = {name[0] for name in tx.fetch(tombstones, (), names)}
        gone = [
            mark
            for mark in seen
            if mark.reason in _ANNOUNCED
            or mark.id in buried
            or mark.absences + 1 >= self._policy.absences_needed
        ]
        for mark in seen:
            if mark not in gone:
                self._leave(tx, mark, absent=True)
        if not gone:
            return
        keys: dict[int | str, str] = {self._key(mark.id): mark.id for mark in gone}
        revisions = tx.versions(self._table, list(keys), "revision")
        self._tally.deleted += tx.delete(self._table, list(keys), mode=self._policy.delete_mode, at=begun)
        fresh = [
            (object_id, self._entity.singular, revisions.get(key), instant_text(begun))
            for key, object_id in keys.items()
            if object_id not in buried
        ]
        tx.upsert(tombstones, ("id", "type", "revision", "deleted_at"), fresh)
        for object_id in keys.values():
            tx.release(self._entity.stream, object_id)
        self._close(tx, gone)

    def _leave(self, tx: Transaction, mark: Mark, *, absent: bool = False, error: str | None = None) -> None:
        """Leave the object to the next run."""
        marks.postpone(tx, mark, absent=absent, error=error)
        self._tried.add((mark.table.name, mark.id, mark.mark))

    def _close(self, tx: Transaction, seen: Sequence[Mark]) -> None:
        self._tally.settled += marks.clear_seen(tx, seen)
        landing.drop_payloads(tx, {mark.reference for mark in seen})

    def _key(self, object_id: str) -> int | str:
        return object_id if self._entity is Entity.ASSOCIATED_CONTACTS else int(object_id)

    def _refuse(self, tx: Transaction, key: str, reason: str, raw: bytes) -> None:
        tx.quarantine(self._entity.stream, key, reason, raw)
        self._tally.quarantined += 1
