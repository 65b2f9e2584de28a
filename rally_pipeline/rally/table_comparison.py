"""One table against one full scan of its list, value by value, and what became of the differences.

What is found at first is only a candidate: the source may have moved on since the feed was read. `drop_in_flight` takes
out what the feed, a pending refetch or `updatedAt` explains; `confirm` or `measure_healing` settles what is left.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select

from rally_pipeline.http.errors import ApiError, Forbidden, Throttled, Unauthorized
from rally_pipeline.rally import marks
from rally_pipeline.rally.client import ListPage, RallyClient
from rally_pipeline.rally.differences import EXTRA, MISSING, STALE, Difference, Differences
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.marks import REASON_ABSENT, REASON_VERIFY, Hint
from rally_pipeline.rally.passes import ListPass, PassPage, UnorderedList, read_unordered
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.read_ahead import read_ahead
from rally_pipeline.rally.records import KEY_BYTES, Row
from rally_pipeline.rally.results import Comparison, Cost
from rally_pipeline.rally.row_values import RowValues, fingerprint
from rally_pipeline.rally.tables import ENTITY_TABLES, changes
from rally_pipeline.rally.tenant import check_tenant
from rally_pipeline.rally.unmet import MetKeys
from rally_pipeline.warehouse.values import instant_text

if TYPE_CHECKING:
    from rally_pipeline.rally.mirror import Progress
    from rally_pipeline.warehouse import Lease, Transaction, Warehouse

_CONFIRM_AT_MOST = 500
_EXAMPLES = 20
_RECENT_PAGES = 3
_OLDEST_BELIEVED = "1970"
"""Before that, `updatedAt` is a placeholder, from which no list page can be asked for."""
_IN_FLIGHT, _REPAIRED, _LEFT, _EQUAL = "in flight", "repaired", "left", "equal"
_OUR_REASONS = (REASON_VERIFY, REASON_ABSENT)
_logger = logging.getLogger(__name__)


class TableComparison:
    """The comparison of one entity. To be closed (a context manager).

    `since` everywhere: `t_r - W` of the read of the feed before the scan. What changed later may not be known yet.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        client: RallyClient,
        policy: MirrorPolicy,
        entity: Entity,
        *,
        progress: Progress,
    ) -> None:
        self.entity = entity
        self._warehouse = warehouse
        self._client = client
        self._policy = policy
        self._progress = progress
        self._values = RowValues(entity)
        self._table = ENTITY_TABLES[entity]
        self._found = Differences()
        self._recent_pages: deque[set[str]] = deque(maxlen=_RECENT_PAGES)
        self._compared = 0
        self._verified = True
        self._in_flight: Counter[str] = Counter()
        self._repaired = 0
        self._left: int | None = None
        """Differences that healing did not repair; None where nothing was healed."""

    def __enter__(self) -> TableComparison:
        return self

    def __exit__(self, *_: object) -> None:
        self._found.close()

    @property
    def differences(self) -> int:
        """Differences that nothing has explained so far."""
        return len(self._found)

    # ------------------------------------------------------------------ the full scan

    def scan(self, since: datetime) -> None:
        """Read the whole list and compare; memory: 16 bytes a record."""
        met = bytearray()
        for page, ordered in self._pages():
            if page.offset == 0:
                with self._warehouse.transaction(f"{self.entity.stream}.verify-tenant") as tx:
                    check_tenant(tx, page.rows[:1])
            met += page.packed_keys()
            self._verified = self._verified and ordered
            self._compare_page(page, since)
            self._progress(f"{self.entity.stream}.verify", len(met) // KEY_BYTES, None)
        keys = MetKeys([bytes(met)])
        self._compared = keys.count
        self._find_extra(keys, since)
        with self._found as found:
            self._found = found.without_repeats()
        self._take_out(lambda batch: {difference.id for difference in batch if difference.recent})

    def _pages(self) -> Iterator[tuple[PassPage, bool]]:
        reader = ListPass(self._fetch, overlap=self._policy.page_overlap)
        try:
            for page in read_ahead(reader.pages(), ahead=self._policy.prefetch):
                yield page, True
        except UnorderedList:
            for page in read_unordered(
                self._fetch, state=reader.state, agreement=self._policy.unordered_agreement
            ):
                yield page, False

    def _fetch(self, offset: int) -> ListPage:
        return self._client.list_page(self.entity, offset=offset, limit=self._policy.page_limit)

    def _compare_page(self, page: PassPage, since: datetime) -> None:
        """Compare the rows that the pages before did not show already: pages overlap."""
        earlier = set().union(*self._recent_pages)
        self._recent_pages.append(set(page.ids))
        fresh = {entity_id: place for place, entity_id in enumerate(page.ids) if entity_id not in earlier}
        rows = self._values.of_records(
            [page.rows[place] for place in fresh.values()], [page.versions[place] for place in fresh.values()]
        )
        with self._warehouse.reading() as tx:
            stored = self._values.stored(tx, list(fresh))
        recent = self._recent(since)
        for entity_id, row in zip(fresh, rows, strict=True):
            there = stored.get(entity_id)
            if there is None or not self._values.equal(row, there):
                self._note(entity_id, MISSING if there is None else STALE, row, there, recent)

    def _find_extra(self, keys: MetKeys, since: datetime) -> None:
        recent = self._recent(since)
        with self._warehouse.reading() as tx:
            for ids in tx.live_keys(self._table):
                extra = keys.missing(ids)
                stored = self._values.stored(tx, extra) if extra else {}
                for entity_id, there in stored.items():
                    self._note(entity_id, EXTRA, None, there, recent)

    def _recent(self, since: datetime) -> tuple[str, str]:
        """Between which times `updatedAt` says that the row is in flight; nothing honest is later than the second."""
        until = self._client.server_ceiling() + self._policy.overlap
        return instant_text(since), instant_text(until)

    def _note(
        self, entity_id: str, kind: str, row: Row | None, stored: Row | None, recent: tuple[str, str]
    ) -> None:
        updated_at = self._values.updated_at(row)
        after, until = recent
        moments = (updated_at, self._values.updated_at(stored))
        lately = any(moment is not None and after < moment <= until for moment in moments)
        self._found.add(
            [Difference(entity_id, kind, updated_at, lately, fingerprint(row), fingerprint(stored))]
        )

    # ------------------------------------------------------------------ what explains a difference

    def drop_in_flight(self, since: datetime) -> None:
        """Take out what is pending, and what the feed names as changed lately."""

        def moving(batch: list[Difference]) -> set[str]:
            ids = [difference.id for difference in batch]
            with self._warehouse.reading() as tx:
                return marks.marked_among(tx, self.entity, ids) | self._named(tx, ids, since)

        self._take_out(moving)

    def _take_out(self, moving: Callable[[list[Difference]], set[str]]) -> None:
        kept = Differences()
        for batch in self._found.batches():
            ids = moving(batch)
            self._in_flight.update(difference.kind for difference in batch if difference.id in ids)
            kept.add(difference for difference in batch if difference.id not in ids)
        self._replace(kept)

    def _named(self, tx: Transaction, ids: list[str], since: datetime) -> set[str]:
        """Those of `ids` that entries of the recent past name."""
        statement = select(changes.c.entity_id).where(
            changes.c.changed_at > since,
            changes.c.entity_type == self.entity.singular,
            changes.c.entity_id.in_(ids),
        )
        return {str(row[0]) for row in tx.rows(statement)}

    def confirm(self) -> None:
        """Read the first differences singly, since an answer of the list may have been wrong."""
        kept, asked = Differences(), 0
        for batch in self._found.batches():
            for difference in batch:
                asked += 1
                if asked > _CONFIRM_AT_MOST or self._still_differs(difference.id):
                    kept.add([difference])
        self._replace(kept)

    def _still_differs(self, entity_id: str) -> bool:
        """Whether the record, read now, is not as its row; True where nobody can tell."""
        try:
            raw = self._client.get_record(self.entity, entity_id)
        except (Unauthorized, Forbidden, Throttled):
            raise
        except ApiError:
            return True
        with self._warehouse.reading() as tx:
            stored = self._values.stored(tx, [entity_id]).get(entity_id)
        if raw is None or stored is None:
            return (raw is None) != (stored is None)
        return not self._values.equal(self._values.of_record(raw), stored)

    # ------------------------------------------------------------------ healing

    def flag(self, lease: Lease) -> None:
        """Make every difference a pending refetch.

        Absences are flagged as those of a full extract are, so that the delete guard stops before the first of them.
        """
        for batch in self._found.batches():
            hints = [
                Hint(one.id, REASON_ABSENT)
                if one.kind == EXTRA
                else Hint(one.id, REASON_VERIFY, _page_time(one))
                for one in batch
            ]
            with self._warehouse.transaction(f"{self.entity.stream}.verify", lease) as tx:
                marks.add_marks(tx, self.entity, hints, seen=self._client.server_ceiling())

    def measure_healing(self, since: datetime) -> None:
        """After the refetches and one more read of the feed: what was repaired, and what still differs."""
        kept = Differences()
        for batch in self._found.batches():
            ids = [difference.id for difference in batch]
            with self._warehouse.reading() as tx:
                pending = marks.reasons_among(tx, self.entity, ids)
                named = self._named(tx, ids, since)
                stored = self._values.stored(tx, ids)
            outcomes: dict[str, list[Difference]] = {}
            for difference in batch:
                row = fingerprint(stored.get(difference.id))
                outcome = self._outcome(difference, row, pending.get(difference.id), difference.id in named)
                outcomes.setdefault(outcome, []).append(difference)
            repaired = outcomes.get(_REPAIRED, [])
            self._repaired += len(repaired)
            self._in_flight.update(difference.kind for difference in outcomes.get(_IN_FLIGHT, []))
            kept.add([*repaired, *outcomes.get(_LEFT, [])])
            self._log_repairs(repaired)
        self._replace(kept)
        self._left = len(kept) - self._repaired

    def _outcome(self, difference: Difference, row: int | None, pending: str | None, named: bool) -> str:
        """What became of one difference. `row`: fingerprint of the stored row now; `pending`: why it is pending."""
        if named or (pending is not None and pending not in _OUR_REASONS):
            return _IN_FLIGHT
        if pending is not None:
            return _LEFT
        if row == difference.record and row != difference.row:
            return _REPAIRED
        if self._still_differs(difference.id):
            return _LEFT
        # Another content than the scan saw, and right. Unchanged and right: the answer of the list was wrong.
        return _REPAIRED if row != difference.row else _EQUAL

    def _log_repairs(self, repaired: list[Difference]) -> None:
        if repaired:
            told = ", ".join(f"{difference.id} ({difference.kind})" for difference in repaired)
            _logger.info("%s: repaired %s", self._table.name, told)

    # ------------------------------------------------------------------ the result

    def result(self, cost: Cost) -> Comparison:
        """The numbers, which are also stored as the outcome of the last comparison."""
        kinds: Counter[str] = Counter()
        examples: list[tuple[str, str]] = []
        for batch in self._found.batches():
            kinds.update(difference.kind for difference in batch)
            examples += [(one.id, one.kind) for one in batch[: _EXAMPLES - len(examples)]]
        listed = sum(count for kind, count in (kinds + self._in_flight).items() if kind != EXTRA)
        result = Comparison(
            entity=self.entity.value,
            compared=self._compared,
            equal=self._compared - listed,
            missing=kinds[MISSING],
            extra=kinds[EXTRA],
            stale=kinds[STALE],
            in_flight=self._in_flight.total(),
            repaired=self._repaired,
            left=len(self._found) if self._left is None else self._left,
            verified=self._verified,
            examples=tuple(examples),
            cost=cost,
        )
        at = instant_text(self._client.server_floor())
        outcome = {**result.counts(), "at": at, "examples": examples}
        with self._warehouse.transaction(f"{self.entity.stream}.verified") as tx:
            tx.set_state(verify_stream(self.entity), outcome)
        return result

    def _replace(self, kept: Differences) -> None:
        self._found.close()
        self._found = kept


def verify_stream(entity: Entity) -> str:
    """Where the outcome of the last comparison is stored."""
    return f"{entity.stream}.verify"


def _page_time(difference: Difference) -> str | None:
    """From when on list pages show the record, which saves single reads where many differ."""
    updated_at = difference.updated_at
    return updated_at if updated_at is not None and updated_at >= _OLDEST_BELIEVED else None
