"""The simpler mode of the API page: one entity by `updatedSince`, without deletes.

The same page writer, guard and quarantine as the full extract; the mark is the server's time before the first request
minus the overlap. The filtered list moves while it is paged, so pages need an anchor here as well.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from rally_pipeline.rally import marks
from rally_pipeline.rally.client import ListPage, RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.invariants import OpenMarks
from rally_pipeline.rally.passes import ListPass, PassPage
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.read_ahead import read_ahead
from rally_pipeline.rally.records import RecordDecoder
from rally_pipeline.rally.results import ExtractResult
from rally_pipeline.rally.rows import PageWriter, Written
from rally_pipeline.rally.spending import Meter
from rally_pipeline.rally.tenant import check_tenant
from rally_pipeline.warehouse.values import instant_text

if TYPE_CHECKING:
    from rally_pipeline.rally.mirror import Progress
    from rally_pipeline.warehouse import Lease, Warehouse


class UpdatedReader:
    """One run for one entity, under its lease."""

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
        self._stream = f"{entity.stream}.updated"
        self._writer = PageWriter(entity, RecordDecoder(entity))

    def run(self, meter: Meter) -> ExtractResult:
        """Read what was updated since the stored mark (everything, the first time), then move the mark."""
        started = self._client.server_floor()
        with self._warehouse.reading() as tx:
            stored = (tx.state(self._stream) or {}).get("cursor")
        since = datetime.fromisoformat(stored) if stored else None
        reader = ListPass(lambda offset: self._fetch(offset, since), overlap=self._policy.page_overlap)
        total = Written()
        pages = received = 0
        for page in read_ahead(reader.pages(), ahead=self._policy.prefetch):
            self._commit(page, total)
            pages += 1
            received += page.received
            self._progress(self._stream, received, None)
        cursor = max(stored or "", instant_text(started - self._policy.overlap))
        with self._warehouse.transaction(f"{self._stream}.close", self._lease) as tx:
            tx.set_state(self._stream, {"cursor": cursor})
        return ExtractResult(
            entity=self._entity.value,
            pages=pages,
            received=received,
            inserted=total.inserted,
            updated=total.updated,
            unchanged=total.unchanged,
            older=len(total.older),
            dropped=0,
            quarantined=total.quarantined,
            unmet=0,
            step_backs=reader.state.step_backs,
            largest_page=reader.state.largest,
            resumed=False,
            verified=True,
            cost=meter.cost(),
        )

    def _fetch(self, offset: int, since: datetime | None) -> ListPage:
        return self._client.list_page(
            self._entity, offset=offset, limit=self._policy.page_limit, updated_since=since
        )

    def _commit(self, page: PassPage, total: Written) -> None:
        with self._warehouse.transaction(f"{self._stream}.page", self._lease) as tx:
            check_tenant(tx, page.rows[:1])
            open_marks = OpenMarks(tx, self._entity, page.ids)
            drop = marks.marked_among(tx, self._entity, page.ids)
            kept = [place for place, entity_id in enumerate(page.ids) if entity_id not in drop]
            ids = [page.ids[place] for place in kept]
            open_marks.check(ids)
            written = self._writer.write(
                tx,
                [page.rows[place] for place in kept],
                ids,
                [page.versions[place] for place in kept],
                synced_at=instant_text(page.begun),
                guard="updated_at",
                nameless=page.nameless,
            )
            hints = [marks.Hint(entity_id, marks.REASON_OLDER) for entity_id in written.older]
            marks.add_marks(tx, self._entity, hints, seen=self._client.server_ceiling())
        total.inserted += written.inserted
        total.updated += written.updated
        total.unchanged += written.unchanged
        total.quarantined += written.quarantined
        total.older.extend(written.older)
