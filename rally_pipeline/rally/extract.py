"""Full extract of one entity: every row that exists is received, rows that were not met are marked, never deleted.

A transaction takes a page, or the few that came while the one before was being committed: rows, what the pass has
met, and where it goes on. A crash at any point repeats at most those. Rows with an open mark are not written (a look
decides about them), and a row older than the stored one is marked instead of written.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete, select

from rally_pipeline.rally import marks
from rally_pipeline.rally.client import ListPage, RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.feed_state import ensure_base, lift_requirement
from rally_pipeline.rally.invariants import OpenMarks, PassCoverage, check_base, check_resumable
from rally_pipeline.rally.marks import Hint
from rally_pipeline.rally.page_rows import PageRows, without_repeats
from rally_pipeline.rally.passes import (
    Anchors,
    ListPass,
    PassPage,
    PassState,
    UnorderedList,
    read_unordered,
    unpack_anchors,
)
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.read_ahead import in_batches
from rally_pipeline.rally.records import DecodedRows, RecordDecoder
from rally_pipeline.rally.results import ExtractResult
from rally_pipeline.rally.rows import PageWriter
from rally_pipeline.rally.spending import Meter
from rally_pipeline.rally.tables import ENTITY_TABLES, extract_pages
from rally_pipeline.rally.tenant import check_tenant
from rally_pipeline.rally.unmet import mark_unmet
from rally_pipeline.warehouse.values import instant_text

if TYPE_CHECKING:
    from rally_pipeline.rally.mirror import Progress
    from rally_pipeline.warehouse import Lease, Transaction, Warehouse


_GARBLED_TRIES = 3


@dataclass(slots=True)
class _Tally:
    """Counters of this run, added up page by page."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    older: int = 0
    dropped: int = 0
    quarantined: int = 0
    unmet: int = 0
    pages: int = 0
    received: int = 0


@dataclass(slots=True)
class _Pass:
    """The pass in progress, as stored in `sync_state` under the entity's stream."""

    generation: int
    started: datetime
    state: PassState = field(default_factory=PassState)
    ordered: bool = True

    def to_dict(self) -> dict[str, Any]:
        return {
            "generation": self.generation,
            "started": instant_text(self.started),
            "state": self.state.to_dict(),
            "ordered": self.ordered,
        }

    @staticmethod
    def from_dict(stored: dict[str, Any]) -> _Pass:
        return _Pass(
            stored["generation"],
            datetime.fromisoformat(stored["started"]),
            PassState.from_dict(stored["state"]),
            stored["ordered"],
        )


class Extract:
    """One run of the full extract of one entity, under its lease."""

    def __init__(
        self,
        warehouse: Warehouse,
        client: RallyClient,
        policy: MirrorPolicy,
        entity: Entity,
        lease: Lease,
        *,
        progress: Progress,
    ) -> None:
        self._warehouse = warehouse
        self._client = client
        self._policy = policy
        self._entity = entity
        self._lease = lease
        self._progress = progress
        self._table = ENTITY_TABLES[entity]
        self._decoder = RecordDecoder(entity)
        self._writer = PageWriter(entity, self._decoder)
        # A decoder learns as it reads, so each thread has one of its own.
        self._ahead = RecordDecoder(entity)
        self._tally = _Tally()

    def run(self, meter: Meter, *, restart: bool = False) -> ExtractResult:
        """Begin a pass, or go on with the one that was interrupted, and finish it."""
        current = None if restart else self._stored_pass()
        resumed = current is not None
        if current is None:
            current = self._begin()
        anchors = self._stored_anchors(current)
        self._coverage = PassCoverage(
            overlap=self._policy.page_overlap, anchors=anchors, largest=current.state.largest
        )
        with closing(self._batches(current, anchors)) as batches:
            for pages in batches:
                self._commit(current, pages)
                self._progress(self._entity.stream, current.state.received, None)
        tally = self._tally
        return ExtractResult(
            entity=self._entity.value,
            pages=tally.pages,
            received=tally.received,
            inserted=tally.inserted,
            updated=tally.updated,
            unchanged=tally.unchanged,
            older=tally.older,
            dropped=tally.dropped,
            quarantined=tally.quarantined,
            unmet=tally.unmet,
            step_backs=current.state.step_backs,
            largest_page=current.state.largest,
            resumed=resumed,
            verified=current.ordered,
            cost=meter.cost(),
        )

    def _stored_pass(self) -> _Pass | None:
        with self._warehouse.reading() as tx:
            stored = (tx.state(self._entity.stream) or {}).get("pass")
        return _Pass.from_dict(stored) if stored else None

    def _begin(self) -> _Pass:
        """Fix the feed's base and the generation before the first list request (SN5)."""
        started = self._client.confirm_server_time()
        ensure_base(self._warehouse, started, self._policy, now=self._client.clock.now())
        with self._warehouse.transaction(f"{self._entity.stream}.begin", self._lease) as tx:
            check_base(tx, self._client.server_ceiling(), self._policy.overlap)
            stored = tx.state(self._entity.stream) or {}
            current = _Pass(stored.get("generation", 0) + 1, started)
            tx.execute(delete(extract_pages).where(extract_pages.c.entity_type == self._entity.singular))
            tx.set_state(
                self._entity.stream, {**stored, "generation": current.generation, "pass": current.to_dict()}
            )
        return current

    def _batches(self, current: _Pass, anchors: list[Anchors]) -> Generator[list[PassPage]]:
        """The pages that one transaction takes."""
        if current.ordered:
            reader = ListPass(
                self._fetch,
                overlap=self._policy.page_overlap,
                state=current.state,
                anchors=anchors,
                decode_ahead=self._decode_ahead,
            )
            try:
                yield from in_batches(
                    reader.pages(), most=self._policy.commit_pages, ahead=self._policy.prefetch
                )
            except UnorderedList:
                current.ordered = False
                current.state = reader.state
            else:
                return
        for page in read_unordered(
            self._fetch, state=current.state, agreement=self._policy.unordered_agreement
        ):
            yield [page]

    def _fetch(self, offset: int) -> ListPage:
        """A page; asked for again where a row has no id, since a garbled answer would hide a record from the pass."""
        for _ in range(_GARBLED_TRIES):
            page = self._client.list_page(self._entity, offset=offset, limit=self._policy.page_limit)
            if None not in page.ids:
                break
        return page

    def _decode_ahead(
        self, rows: list[msgspec.Raw], versions: list[int], begun: datetime
    ) -> DecodedRows | None:
        """In a first load nearly every row is decoded; in a later pass it is not known yet which ones will be."""
        if not self._writer.only_new:
            return None
        return self._ahead.decode_rows(rows, versions, synced_at=instant_text(begun))

    def _stored_anchors(self, current: _Pass) -> list[Anchors]:
        """The latest pages of an interrupted pass; nothing else may serve as an anchor."""
        statement = (
            select(extract_pages.c.row_keys, extract_pages.c.row_versions)
            .where(
                extract_pages.c.entity_type == self._entity.singular,
                extract_pages.c.generation == current.generation,
            )
            .order_by(extract_pages.c.page.desc())
            .limit(16)
        )
        with self._warehouse.reading() as tx:
            rows = tx.rows(statement)
        return [unpack_anchors(keys, versions) for keys, versions in reversed(rows)]

    def _commit(self, current: _Pass, pages: Sequence[PassPage]) -> None:
        last = pages[-1]
        with self._warehouse.transaction(f"{self._entity.stream}.page", self._lease) as tx:
            stored = tx.state(self._entity.stream) or {}
            check_resumable(stored.get("pass"), current.generation, pages[0].after.pages)
            current.state = last.after
            for page in pages:
                if page.offset == 0:
                    check_tenant(tx, page.rows[:1])
                if current.ordered:
                    self._coverage.check(page)
            self._write_pages(tx, pages)
            tx.execute(extract_pages.insert(), [self._bookkeeping(current, page) for page in pages])
            if last.last:
                self._finish(tx, current, last, stored)
            else:
                tx.set_state(self._entity.stream, {**stored, "pass": current.to_dict()})
        self._tally.pages += len(pages)
        self._tally.received += sum(page.received for page in pages)

    def _bookkeeping(self, current: _Pass, page: PassPage) -> dict[str, Any]:
        """What a pass remembers of a page: anchors for those that follow, and which rows it met."""
        return {
            "entity_type": self._entity.singular,
            "generation": current.generation,
            "page": page.after.pages,
            "page_offset": page.offset,
            "row_keys": page.packed_keys(),
            "row_versions": page.packed_versions(),
        }

    def _write_pages(self, tx: Transaction, pages: Sequence[PassPage]) -> None:
        """Write what is new, except rows with an open mark."""
        ids = [entity_id for page in pages for entity_id in page.ids]
        open_marks = OpenMarks(tx, self._entity, ids)
        drop = marks.marked_among(tx, self._entity, ids) if marks.has_marks(tx, self._entity) else set()
        dropped = sum(entity_id in drop for entity_id in ids) if drop else 0
        # Of the earliest page: each row is at least as new.
        synced_at = instant_text(pages[0].begun)
        taken = 0
        for rows in without_repeats(PageRows.of(page, drop) for page in pages):
            open_marks.check(rows.ids)
            taken += len(rows.ids)
            self._write_rows(tx, rows, synced_at)
        self._tally.dropped += dropped
        self._tally.unchanged += len(ids) - taken - dropped

    def _write_rows(self, tx: Transaction, rows: PageRows, synced_at: str) -> None:
        written = self._writer.write(
            tx,
            rows.raws,
            rows.ids,
            rows.versions,
            synced_at=synced_at,
            guard="updated_at",
            nameless=rows.nameless,
            decoded=rows.decoded,
        )
        if written.older or written.refused:
            hints = [Hint(entity_id, marks.REASON_OLDER) for entity_id in written.older]
            # What could not be stored is looked at once more: the answer may have been garbled, not the record.
            hints += [Hint(entity_id, marks.REASON_REFUSED) for entity_id in written.refused]
            marks.add_marks(tx, self._entity, hints, seen=self._client.server_ceiling())
        tally = self._tally
        tally.inserted += written.inserted
        tally.updated += written.updated
        tally.unchanged += written.unchanged
        tally.older += len(written.older)
        tally.quarantined += written.quarantined

    def _finish(self, tx: Transaction, current: _Pass, page: PassPage, stored: dict[str, Any]) -> None:
        """The pass is complete: what the table holds and the pass did not meet becomes a mark."""
        tally = self._tally
        tally.unmet = mark_unmet(tx, self._entity, current.generation, seen=self._client.server_ceiling())
        tx.execute(delete(extract_pages).where(extract_pages.c.entity_type == self._entity.singular))
        lift_requirement(tx, self._entity, started=current.started)
        last = {
            "started": instant_text(current.started),
            "finished": instant_text(page.begun),
            "pages": current.state.pages,
            "received": current.state.received,
            "largest": current.state.largest,
            "step_backs": current.state.step_backs,
            "verified": current.ordered,
            "unmet": tally.unmet,
        }
        tx.set_state(self._entity.stream, {**stored, "pass": None, "last_pass": last})


def is_filled(tx: Transaction, entity: Entity) -> bool:
    """Whether a full extract of the entity has ever been finished."""
    return bool((tx.state(entity.stream) or {}).get("last_pass"))
