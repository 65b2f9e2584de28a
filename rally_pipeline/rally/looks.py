"""Settling marks: a direct look at each marked object writes its row, or proves its delete, and clears the mark.

Many marks are settled by list pages (`updatedSince`), which serve as looks for every row on them; what the pages do
not show is read singly, and only a single read proves a delete. A look counts as evidence if it began at least
`staleness` after the newest hint. Algorithm: correctness, section "Change feed", steps 6 and 7.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from rally_pipeline.http.errors import ApiError, Forbidden, Throttled, Unauthorized
from rally_pipeline.http.waits import announce
from rally_pipeline.rally import marks
from rally_pipeline.rally.client import CEILING_LEAD, ListPage, RallyClient
from rally_pipeline.rally.deletes import DeleteGuard, allow_deletes, allowed_deletes, remove
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.invariants import check_evidence, check_settled
from rally_pipeline.rally.marks import REASON_VERIFY, Mark
from rally_pipeline.rally.policy import MirrorPolicy
from rally_pipeline.rally.records import Head, RecordDecoder, read_id, version_of
from rally_pipeline.rally.results import SettleResult
from rally_pipeline.rally.rows import PageWriter, Written
from rally_pipeline.rally.spending import Meter
from rally_pipeline.rally.tenant import check_tenant
from rally_pipeline.warehouse.values import instant_text

if TYPE_CHECKING:
    from rally_pipeline.clock import Clock
    from rally_pipeline.rally.mirror import Progress
    from rally_pipeline.warehouse import Lease, Transaction, Warehouse

_log = logging.getLogger(__name__)
_BATCH = 20_000
_POOR_PAGES_SHARE = 0.1
_ACCEPT_OLDER_AFTER = 2
_CLOCK_STEP = timedelta(seconds=1)
"""By so much what is known of the server's clock goes back when another answer's date was cut off by more."""
_MOST_WAITS = 3
"""So many times the longest wait for fresh marks are waited at most in one run; the next run goes on."""
_FIRST_BACKOFF_SECONDS = 15
_LONGEST_BACKOFF_SECONDS = 3_600
_COARSENESS = timedelta(seconds=1)
"""Of the server's timestamps."""
_read_head = msgspec.json.Decoder(Head).decode


@dataclass(slots=True)
class _Tally:
    settled: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    quarantined: int = 0
    failed: int = 0
    behind: int = 0
    list_requests: int = 0
    single_requests: int = 0


@dataclass(frozen=True, slots=True)
class _Look:
    """One answer about one object: its record, None if the server says that it is gone, or the error."""

    mark: Mark
    raw: bytes | None
    error: ApiError | None = None


class Settler:
    """One run over the open marks of one entity, under its lease."""

    def __init__(
        self,
        warehouse: Warehouse,
        client: RallyClient,
        policy: MirrorPolicy,
        entity: Entity,
        lease: Lease,
        *,
        clock: Clock,
        progress: Progress,
    ) -> None:
        self._warehouse = warehouse
        self._client = client
        self._policy = policy
        self._entity = entity
        self._lease = lease
        self._clock = clock
        self._progress = progress
        self._writer = PageWriter(entity, RecordDecoder(entity))
        self._guard = DeleteGuard(entity, policy)
        self._tally = _Tally()
        self._endpoint_proved = False

    def run(self, meter: Meter, *, wait: bool = True) -> SettleResult:
        """Settle what is due; with `wait`, also the marks that become due within the staleness bound.

        Raises:
            MassDeleteSuspected: more rows would go than the guard allows; nothing was deleted.
            ApiError: the key is refused; other failures of single looks are counted and retried later.
        """
        with self._warehouse.reading() as tx:
            total = marks.count_marks(tx, self._entity)
            self._guard.check(tx)
        begun = self._client.server_ceiling() if total else None
        if begun is not None:
            with self._warehouse.transaction(f"{self._entity.stream}.pull-back", self._lease) as tx:
                marks.pull_back_marks(tx, self._entity, now=begun)
        longest = (self._policy.staleness + _CLOCK_STEP + CEILING_LEAD).total_seconds()
        waited = 0.0
        while begun is not None:
            seconds = self._wait_for_newest(begun, longest) if wait else None
            self._settle_due(total)
            # A server's clock that stands still or goes back ends the waiting, too.
            waited += seconds or 0.0
            if seconds is None or waited >= _MOST_WAITS * longest:
                break
        with self._warehouse.reading() as tx:
            waiting = marks.count_marks(tx, self._entity)
            allowed = allowed_deletes(tx, self._entity)
            stuck = marks.count_stuck(tx, self._entity, attempts=self._policy.max_attempts)
        if allowed and not waiting:
            with self._warehouse.transaction(f"{self._entity.stream}.allowance-used", self._lease) as tx:
                allow_deletes(tx, self._entity, 0)
        tally = self._tally
        return SettleResult(
            entity=self._entity.value,
            marks=total,
            settled=tally.settled,
            inserted=tally.inserted,
            updated=tally.updated,
            unchanged=tally.unchanged,
            deleted=tally.deleted,
            quarantined=tally.quarantined,
            waiting=waiting,
            failed=tally.failed,
            behind=tally.behind,
            list_requests=tally.list_requests,
            single_requests=tally.single_requests,
            stuck=stuck,
            cost=meter.cost(),
        )

    def _wait_for_newest(self, begun: datetime, longest: float) -> float | None:
        """Sleep until every mark that this run found is due, at most `longest`; the seconds, None without such a mark.

        The entries of one read of the feed are seen within seconds of each other. If their marks were looked at as they
        fall due, the list pages that show many of them would be read again for each part.
        """
        with self._warehouse.reading() as tx:
            seen = marks.newest_seen(tx, self._entity, until=begun + _CLOCK_STEP)
        if seen is None:
            return None
        left = (seen + self._policy.staleness - self._client.server_floor()).total_seconds()
        seconds = min(max(left, 0.0) + 0.01, longest)
        announce(
            _log,
            self._clock,
            "rally",
            seconds,
            f"then an answer about changed {self._entity.value} cannot be stale",
        )
        self._clock.sleep(seconds)
        return seconds

    def _settle_due(self, total: int) -> None:
        """Batches of due marks, until none is left that has not been tried in this run."""
        while True:
            now = self._client.server_floor()
            with self._warehouse.reading() as tx:
                due = marks.due_marks(
                    tx, self._entity, seen_until=now - self._policy.staleness, now=now, limit=_BATCH
                )
            if not due:
                return
            shown = self._look_by_pages(due)
            self._look_singly([mark for mark in due if mark.entity_id not in shown])
            self._progress(f"{self._entity.stream}.settle", self._tally.settled, total)

    # ------------------------------------------------------------------ list pages as looks

    def _look_by_pages(self, due: list[Mark]) -> set[str]:
        """Settle what list pages show; returns the ids."""
        wanted = {mark.entity_id: mark for mark in due if mark.changed_at is not None and mark.attempts == 0}
        times = [mark.changed_at for mark in wanted.values() if mark.changed_at is not None]
        shown: set[str] = set()
        if len(wanted) < self._policy.list_look_minimum:
            return shown
        since = min(times) - self._policy.overlap
        # Deleted objects are not expected on a page; if one is there all the same, its mark is settled too.
        expected = {mark.entity_id for mark in wanted.values() if mark.reason != "deleted"}
        offset, largest, poor = 0, self._known_page_size(), 0
        while expected - shown:
            page = self._client.list_page(
                self._entity, offset=offset, limit=self._policy.page_limit, updated_since=since
            )
            self._tally.list_requests += 1
            self._endpoint_proved = True
            hits = self._settle_page(page, wanted) - shown
            shown |= hits
            offset += len(page.rows)
            largest = max(largest, len(page.rows))
            # A page must save more single reads than it costs; absence itself says nothing.
            poor = poor + 1 if len(hits) < 2 else 0
            if not page.rows or len(page.rows) < largest or poor > self._patience(expected - shown):
                break
        return shown

    def _patience(self, left: Set[str]) -> float:
        """Poor pages in a row that may be read on: few against the single reads that remain otherwise."""
        return max(1.0, len(left) * _POOR_PAGES_SHARE)

    def _known_page_size(self) -> int:
        """Rows of the largest page of the last full pass: a shorter page of looks is the last one."""
        with self._warehouse.reading() as tx:
            last: dict[str, int] = (tx.state(self._entity.stream) or {}).get("last_pass") or {}
        return int(last.get("largest", 0))

    def _settle_page(self, page: ListPage, wanted: dict[str, Mark]) -> set[str]:
        """Write the wanted rows of the page and clear their marks; returns the ids of those rows."""
        raws: list[msgspec.Raw] = []
        shown: dict[str, Mark] = {}
        evidence = page.begun - self._policy.staleness
        for raw, entity_id in zip(page.rows, page.ids, strict=True):
            mark = wanted.get(entity_id) if entity_id is not None else None
            if mark is not None and mark.last_seen <= evidence and mark.entity_id not in shown:
                raws.append(raw)
                shown[mark.entity_id] = mark
        if shown:
            with self._warehouse.transaction(f"{self._entity.stream}.look-page", self._lease) as tx:
                self._write(tx, list(shown.values()), raws, page.begun)
        return set(shown)

    # ------------------------------------------------------------------ single reads

    def _look_singly(self, due: Sequence[Mark]) -> None:
        """Read the objects one by one, several at a time, and commit them in batches.

        Raises:
            ApiError: not one look of a batch got an answer, so the server is down rather than the objects.
        """
        if not due:
            return
        size = self._policy.single_batch
        with ThreadPoolExecutor(self._policy.single_threads, thread_name_prefix="look") as executor:
            look = executor.map if self._policy.single_threads > 1 else map
            for start in range(0, len(due), size):
                begun = self._client.server_floor()
                # A clock that was set back meanwhile makes a mark young again.
                evidence = begun - self._policy.staleness
                settled = [mark for mark in due[start : start + size] if mark.last_seen <= evidence]
                looks = list(look(self._look, settled))
                if not looks:
                    continue
                self._tally.single_requests += len(looks)
                if any(found.raw is None and found.error is None for found in looks):
                    self._prove_endpoint()
                self._commit_looks(looks, begun)
                self._progress(f"{self._entity.stream}.settle", self._tally.settled, None)
                errors = [found.error for found in looks if found.error is not None]
                if len(errors) == len(looks) > 1:
                    raise errors[-1]

    def _look(self, mark: Mark) -> _Look:
        try:
            return _Look(mark, self._client.get_record(self._entity, mark.entity_id))
        except (Unauthorized, Forbidden, Throttled):
            raise
        except ApiError as error:
            return _Look(mark, None, error)

    def _prove_endpoint(self) -> None:
        """A 404 of a record is evidence only where the endpoint itself answers: a wrong path gives 404 as well."""
        if not self._endpoint_proved:
            self._client.list_page(self._entity, offset=0, limit=1)
            self._tally.list_requests += 1
            self._endpoint_proved = True

    def _commit_looks(self, looks: list[_Look], begun: datetime) -> None:
        found = [(look.mark, look.raw) for look in looks if look.raw is not None]
        gone = [look.mark for look in looks if look.raw is None and look.error is None]
        failed = [look.mark for look in looks if look.error is not None]
        with self._warehouse.transaction(f"{self._entity.stream}.look", self._lease) as tx:
            if found:
                self._write(tx, [mark for mark, _ in found], [msgspec.Raw(raw) for _, raw in found], begun)
            if gone:
                self._guard.check_found(tx, gone)
                self._tally.deleted += remove(
                    tx,
                    self._entity,
                    gone,
                    mode=self._policy.delete_mode,
                    at=begun,
                    staleness=self._policy.staleness,
                )
                check_evidence(gone, begun, self._policy.staleness)
                check_settled(tx, self._entity, found={}, gone=[mark.entity_id for mark in gone])
                self._tally.settled += marks.clear_marks(
                    tx, self._entity, [(m.entity_id, m.mark) for m in gone]
                )
            for mark in failed:
                self._postpone(tx, mark)
        self._tally.failed += len(failed)

    # ------------------------------------------------------------------ writing

    def _write(
        self, tx: Transaction, shown: Sequence[Mark], raws: Sequence[msgspec.Raw], begun: datetime
    ) -> None:
        """Write the records and clear the marks that are still as the look saw them.

        A record older than the stored one is not believed at once: it may come from a stale replica. After
        `_ACCEPT_OLDER_AFTER` looks that agree it is written as it is (the source itself went back).
        """
        check_tenant(tx, raws[:1])
        trusting = [place for place, mark in enumerate(shown) if _is_believed(mark)]
        doubting = [place for place, mark in enumerate(shown) if not _is_believed(mark)]
        check_evidence(shown, begun, self._policy.staleness)
        older: set[str] = set()
        refused: set[str] = set()
        equal = 0
        for places, guard in ((doubting, "updated_at"), (trusting, None)):
            if places:
                written = self._write_some(
                    tx, [shown[p] for p in places], [raws[p] for p in places], begun, guard
                )
                older.update(written.older)
                refused |= written.refused
                equal += written.unchanged
        left = older | refused
        found = {
            _own_id(raw, mark): version_of(memoryview(raw))
            for mark, raw in zip(shown, raws, strict=True)
            if mark.entity_id not in left
        }
        updated = check_settled(tx, self._entity, found=found, equal_content=equal)
        self._note_behind(shown, updated)
        for mark in shown:
            if mark.entity_id in older:
                self._postpone(tx, mark)
        cleared = [(mark.entity_id, mark.mark) for mark in shown if mark.entity_id not in older]
        self._tally.settled += marks.clear_marks(tx, self._entity, cleared)

    def _note_behind(self, shown: Sequence[Mark], updated: Mapping[str, datetime]) -> None:
        """The monitor of `V`: a settled look shows a record no older than the entry that named it."""
        for mark in shown:
            seen = updated.get(mark.entity_id)
            if mark.changed_at is not None and seen is not None and seen < mark.changed_at - _COARSENESS:
                self._tally.behind += 1

    def _write_some(
        self,
        tx: Transaction,
        shown: Sequence[Mark],
        raws: Sequence[msgspec.Raw],
        begun: datetime,
        guard: str | None,
    ) -> Written:
        written = self._writer.write(
            tx,
            raws,
            [mark.entity_id for mark in shown],
            [version_of(memoryview(raw)) for raw in raws],
            synced_at=instant_text(begun),
            guard=guard,
            by_value=True,
        )
        tally = self._tally
        tally.inserted += written.inserted
        tally.updated += written.updated
        tally.unchanged += written.unchanged
        tally.quarantined += written.quarantined
        return written

    def _postpone(self, tx: Transaction, mark: Mark) -> None:
        wait = min(_FIRST_BACKOFF_SECONDS * 2**mark.attempts, _LONGEST_BACKOFF_SECONDS)
        retry_at = self._client.server_floor() + max(timedelta(seconds=wait), self._policy.staleness)
        marks.postpone_mark(tx, self._entity, mark, retry_at=retry_at)


def _is_believed(mark: Mark) -> bool:
    """Whether a record older than the stored row is written: a comparison has seen it so before, and nothing newer."""
    return mark.attempts >= _ACCEPT_OLDER_AFTER or mark.reason == REASON_VERIFY


def _own_id(raw: msgspec.Raw, mark: Mark) -> str:
    """The id under which the record is stored: a feed may spell a GUID in another case."""
    try:
        return _read_head(raw).id
    except msgspec.MsgspecError:
        return read_id(memoryview(raw)) or mark.entity_id
