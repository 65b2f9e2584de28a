"""Comparing Rally with the warehouse by id and content, and healing just the difference.

An anchored pass over the list is held against the stored rows. What differs is read once more, singly, so that a
change during the pass is not taken for a defect. Healing only marks; the looks repair, and what they had to change is
the number of repairs, whose target is 0.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from rally_pipeline.rally import marks
from rally_pipeline.rally.client import ListPage, RallyClient
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.looks import Settler
from rally_pipeline.rally.marks import REASON_VERIFY, Hint
from rally_pipeline.rally.passes import ListPass, PassPage, UnorderedList, read_unordered
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.read_ahead import read_ahead
from rally_pipeline.rally.records import RecordDecoder, RecordError
from rally_pipeline.rally.results import Comparison
from rally_pipeline.rally.rows import BOOKKEEPING
from rally_pipeline.rally.spending import Meter
from rally_pipeline.rally.tables import ENTITY_TABLES
from rally_pipeline.rally.unmet import MetKeys
from rally_pipeline.warehouse.values import instant_text

if TYPE_CHECKING:
    from rally_pipeline.clock import Clock
    from rally_pipeline.rally.mirror import Progress
    from rally_pipeline.warehouse import Lease, Transaction, Warehouse

MISSING, EXTRA, STALE = "missing", "extra", "stale"
_CONFIRM_AT_MOST = 500
_EXAMPLES = 20
_RECENT_PAGES = 3


@dataclass(slots=True)
class _Findings:
    compared: int = 0
    in_flight: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    named: dict[str, str] = field(default_factory=dict)
    """The first differences by id; all of them while they are few enough to be read again."""


def verify_stream(entity: Entity) -> str:
    """Where the outcome of the last comparison is stored."""
    return f"{entity.stream}.verify"


class Verifier:
    """One comparison of one entity. With a lease it may heal; without one it only reads."""

    def __init__(
        self,
        warehouse: Warehouse,
        client: RallyClient,
        policy: MirrorPolicy,
        entity: Entity,
        *,
        clock: Clock,
        progress: Progress,
    ) -> None:
        self._warehouse = warehouse
        self._client = client
        self._policy = policy
        self._entity = entity
        self._clock = clock
        self._progress = progress
        self._decoder = RecordDecoder(entity)
        self._table = ENTITY_TABLES[entity]
        self._columns = tuple(name for name in self._decoder.columns if name not in BOOKKEEPING)
        self._recent: deque[set[str]] = deque(maxlen=_RECENT_PAGES)
        self._places = [self._decoder.columns.index(name) for name in self._columns]

    def run(self, meter: Meter, *, lease: Lease | None) -> Comparison:
        """Compare; with a lease, mark every difference and let looks repair it."""
        findings = _Findings()
        met = bytearray()
        verified = True
        for page, ordered in self._pages():
            met += page.packed_keys()
            verified = verified and ordered
            self._compare_page(page, findings, lease)
            self._progress(f"{self._entity.stream}.verify", findings.compared, None)
        self._find_extra(bytes(met), findings, lease)
        repaired = 0
        if lease is not None and findings.kinds.total():
            settler = Settler(
                self._warehouse,
                self._client,
                self._policy,
                self._entity,
                lease,
                clock=self._clock,
                progress=self._progress,
            )
            settled = settler.run(meter)
            repaired = settled.inserted + settled.updated + settled.deleted
        elif 0 < findings.kinds.total() <= _CONFIRM_AT_MOST:
            self._confirm(findings)
        comparison = self._comparison(findings, repaired, verified, meter)
        self._store(comparison)
        return comparison

    def _comparison(self, findings: _Findings, repaired: int, verified: bool, meter: Meter) -> Comparison:
        kinds = findings.kinds
        return Comparison(
            entity=self._entity.value,
            compared=findings.compared,
            equal=findings.compared - kinds[MISSING] - kinds[STALE] - findings.in_flight,
            missing=kinds[MISSING],
            extra=kinds[EXTRA],
            stale=kinds[STALE],
            in_flight=findings.in_flight,
            repaired=repaired,
            verified=verified,
            examples=tuple(list(findings.named.items())[:_EXAMPLES]),
            cost=meter.cost(),
        )

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
        return self._client.list_page(self._entity, offset=offset, limit=self._policy.page_limit)

    def _compare_page(self, page: PassPage, findings: _Findings, lease: Lease | None) -> None:
        """Compare the rows that the pages before did not show already: pages overlap."""
        earlier = set().union(*self._recent)
        self._recent.append(set(page.ids))
        fresh = {
            entity_id: (raw, version)
            for raw, entity_id, version in zip(page.rows, page.ids, page.versions, strict=True)
            if entity_id not in earlier
        }
        with self._warehouse.reading() as tx:
            stored = tx.versions(self._table, list(fresh))
            differing = [
                (raw, entity_id)
                for entity_id, (raw, version) in fresh.items()
                if stored.get(entity_id) != version
            ]
            found = self._differences(tx, differing)
            in_flight = marks.marked_among(tx, self._entity, list(found)) if found else set()
        findings.compared += len(fresh)
        self._note(found, in_flight, findings, lease)

    def _differences(self, tx: Transaction, rows: list[tuple[msgspec.Raw, str]]) -> dict[str, str]:
        """Id -> kind, of the records whose row is not there or not equal."""
        if not rows:
            return {}
        stored = tx.fetch(self._table, self._columns, [entity_id for _, entity_id in rows])
        found: dict[str, str] = {}
        for raw, entity_id in rows:
            row = stored.get(entity_id)
            if row is None:
                found[entity_id] = MISSING
            elif not self._equal(bytes(memoryview(raw)), row):
                found[entity_id] = STALE
        return found

    def _equal(self, raw: bytes, stored: tuple[object, ...]) -> bool:
        try:
            row = self._decoder.decode(raw, synced_at="")
        except RecordError:
            return False
        return tuple(row[place] for place in self._places) == tuple(stored)

    def _find_extra(self, met: bytes, findings: _Findings, lease: Lease | None) -> None:
        keys = MetKeys([met])
        with self._warehouse.reading() as tx:
            chunks = [extra for ids in tx.live_keys(self._table) if (extra := keys.missing(ids))]
            in_flight = set().union(*(marks.marked_among(tx, self._entity, extra) for extra in chunks))
        for extra in chunks:
            self._note(dict.fromkeys(extra, EXTRA), in_flight, findings, lease)

    def _note(
        self, found: dict[str, str], in_flight: set[str], findings: _Findings, lease: Lease | None
    ) -> None:
        defects = {key: kind for key, kind in found.items() if key not in in_flight}
        findings.in_flight += len(found) - len(defects)
        findings.kinds.update(defects.values())
        room = max(0, _CONFIRM_AT_MOST - len(findings.named))
        findings.named.update(list(defects.items())[:room])
        if lease is not None and defects:
            hints = [Hint(entity_id, REASON_VERIFY) for entity_id in defects]
            with self._warehouse.transaction(f"{self._entity.stream}.verify", lease) as tx:
                marks.add_marks(tx, self._entity, hints, seen=self._client.server_ceiling())

    def _confirm(self, findings: _Findings) -> None:
        """Read what differed once more, when the staleness bound has passed: the source may be changing."""
        self._clock.sleep(float(self._policy.staleness_seconds))
        for entity_id, kind in list(findings.named.items()):
            raw = self._client.get_record(self._entity, entity_id)
            with self._warehouse.reading() as tx:
                row = tx.fetch(self._table, self._columns, [entity_id]).get(entity_id)
            present = row is not None and row[self._columns.index("_deleted_at")] is None
            if raw is None:
                now = EXTRA if present else None
            elif row is None or not present:
                now = MISSING
            else:
                now = None if self._equal(raw, row) else STALE
            findings.kinds[kind] -= 1
            if now is None:
                del findings.named[entity_id]
            else:
                findings.kinds[now] += 1
                findings.named[entity_id] = now

    def _store(self, comparison: Comparison) -> None:
        outcome = {**comparison.counts(), "at": instant_text(self._client.server_floor())}
        with self._warehouse.transaction(f"{self._entity.stream}.verified") as tx:
            tx.set_state(verify_stream(self._entity), outcome)
